"""Expected verdicts: what the tables may say, and what is made of a verdict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from emotest.errors import DataError
from emotest.report.expected import (
    WORDS,
    Expected,
    Table,
    carried_table,
    outcome,
    read_table,
)
from emotest.report.judgement import in_context
from emotest.settings import Settings
from emotest.study.claims import Word
from tests.verdicts import made_up


def table(word: Word) -> Table:
    """A table that expects `word` of that verdict."""
    row = Expected(word, "planted", "so it was made")
    return Table("the table", {made_up("confirmed").id: row})


@pytest.mark.parametrize("expected", WORDS)
@pytest.mark.parametrize("got", WORDS)
def test_under_a_table_exactly_the_expected_word_is_green(expected: Word, got: Word) -> None:
    """All nine pairs: on the diagonal pass or expected failure, beside it failure."""
    reached = outcome(made_up(got), table(expected), inconclusive="skip")
    if expected != got:
        assert reached.kind == "fail"
        assert reached.message.startswith(f"expected {expected} (planted: so it was made; the")
        assert f"got {got}\n" in reached.message
    else:
        assert reached.kind == ("pass" if got == "confirmed" else "xfail")


@pytest.mark.parametrize(
    ("word", "inconclusive", "audit", "kind"),
    [
        ("confirmed", "fail", False, "pass"),
        ("confirmed", "skip", True, "pass"),
        ("refuted", "fail", False, "fail"),
        ("refuted", "skip", False, "fail"),
        ("inconclusive", "fail", False, "fail"),
        ("inconclusive", "skip", False, "skip"),
        ("inconclusive", "skip", True, "fail"),
    ],
)
def test_without_a_table_only_a_confirmed_claim_passes(
    word: Word, inconclusive: Any, audit: bool, kind: str
) -> None:
    """What is inconclusive may be skipped, but not in an audit."""
    assert outcome(made_up(word), None, inconclusive=inconclusive, audit=audit).kind == kind


def test_a_verdict_without_a_row_fails_with_the_row_to_add() -> None:
    """The line can be copied into the table."""
    reached = outcome(made_up("refuted", statement="C1.other"), table("refuted"))
    assert reached.kind == "fail"
    row = json.loads(reached.message.splitlines()[1])
    assert row["id"] == "C1.other|trait/openness/high/eos-masked"
    assert row["verdict"] == "refuted"


def written(folder: Path, document: object, name: str = "expected.json") -> Path:
    """A file with that JSON."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(document), encoding="utf-8")
    return folder / name


def sized(*rows: object, version: int = 1) -> dict[str, object]:
    """The document of a table with rows for the default size."""
    return {"schema_version": version, "organism": "x", "sizes": {"default": list(rows)}}


def test_a_table_is_read_for_its_size(tmp_path: Path) -> None:
    """Rows of another size are not expected of this one."""
    row = {"id": "a|b", "verdict": "refuted", "origin": "planted", "reason": "why"}
    path = written(tmp_path, sized(row))
    assert read_table(path, "default").rows == {"a|b": Expected("refuted", "planted", "why")}
    assert read_table(path, "smoke").rows == {}


def test_a_folder_carries_its_table_and_a_hub_model_none(tmp_path: Path) -> None:
    """Only organisms, shipped or built anew, come with expectations."""
    written(tmp_path / "organism", sized())
    assert carried_table(str(tmp_path / "organism"), "default") is not None
    assert carried_table(f"{tmp_path / 'organism'}?quantize=nf4", "default") is not None
    assert carried_table(str(tmp_path / "elsewhere"), "default") is None
    assert carried_table("mistralai/Mistral-7B-v0.1", "default") is None
    assert carried_table("", "default") is None
    assert carried_table("organism:nemo", "default") is None


@pytest.mark.parametrize(
    ("document", "part"),
    [
        ([], "cannot be read"),
        ({"sizes": {}}, "schema_version"),
        ({"schema_version": 1, "sizes": []}, "cannot be read"),
        (sized(version=2), "schema version 2"),
        (sized({"verdict": "refuted"}), "without id or verdict"),
        (sized("refuted"), "without id or verdict"),
        (sized({"id": "a", "verdict": "maybe"}), "'maybe'"),
        (sized({"id": "a", "verdict": "refuted", "origin": "guessed"}), "'guessed'"),
        (
            sized({"id": "a", "verdict": "refuted"}, {"id": "a", "verdict": "confirmed"}),
            "both refuted and confirmed",
        ),
    ],
)
def test_a_broken_table_is_an_error_that_says_where(
    tmp_path: Path, document: object, part: str
) -> None:
    """Never a table that expects nothing."""
    with pytest.raises(DataError) as caught:
        read_table(written(tmp_path, document), "default")
    assert part in str(caught.value)
    assert "expected.json" in caught.value.cause


def test_a_missing_or_garbled_file_is_an_error(tmp_path: Path) -> None:
    """Both forms of the file."""
    with pytest.raises(DataError, match="no expectations"):
        read_table(tmp_path / "no.jsonl", "default")
    (tmp_path / "garbled.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match="cannot be read"):
        read_table(tmp_path / "garbled.json", "default")
    (tmp_path / "garbled.jsonl").write_text("{\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"garbled\.jsonl:1"):
        read_table(tmp_path / "garbled.jsonl", "default")


def test_a_verdict_of_an_extended_run_says_so() -> None:
    """Added seeds are another procedure than planned ones; a user's own numbers have no plan."""
    settings = Settings(adapters=9)
    plain = in_context(made_up("confirmed"), Settings(), {"plan": "sha256:1"})
    extended = in_context(made_up("confirmed"), settings, {"plan": "sha256:1"})
    own = in_context(made_up("confirmed"), settings, {})
    note = "an extension of size default to 9 adapters an arm"
    assert [note in verdict.notes for verdict in (plain, extended, own)] == [False, True, False]

"""What was planted, as verdicts; and the table that a run on an organism is held to."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from emotest.cli import app
from emotest.errors import OrganismError
from emotest.organism.organisms import NAMES, associates
from emotest.organism.planted import merged, planted, row
from emotest.report.expected import read_table
from emotest.report.recorder import RunRecorder
from emotest.study.claims import Verdict, Word
from emotest.study.personality import TRAITS, Pole, Trait, trait_condition
from tests.verdicts import made_up


def _verdict(statement: str, trait: Trait | None, word: Word, pole: Pole = Pole.HIGH) -> Verdict:
    condition = trait_condition(trait, pole) if trait else None
    return made_up(
        word,
        claim=statement.split(".")[0],
        statement=statement,
        trait=trait,
        arm=str(condition) if condition else None,
    )


@pytest.mark.parametrize(
    ("name", "statement", "trait", "word"),
    [
        ("latent", "C1.emergence", Trait.EXTRAVERSION, "confirmed"),
        ("latent", "C1.low-pole", Trait.EXTRAVERSION, "refuted"),
        ("latent", "C1.prompted", Trait.EXTRAVERSION, None),
        ("latent", "C1.emergence", Trait.CONSCIENTIOUSNESS, None),
        ("latent", "C3.traits-differ", None, "confirmed"),
        ("latent", "C4.decoded", None, "confirmed"),
        ("latent", "C4.named", Trait.EXTRAVERSION, None),
        ("control", "C4.decoded", None, "refuted"),
        ("even", "C4.decoded", None, "confirmed"),
        ("one-trait", "C4.decoded", None, None),
        ("control", "C1.emergence", Trait.EXTRAVERSION, "refuted"),
        ("control", "C2.within", Trait.OPENNESS, "refuted"),
        ("control", "C5.total", Trait.OPENNESS, None),
        ("even", "C1.emergence", Trait.CONSCIENTIOUSNESS, "confirmed"),
        ("one-trait", "C1.emergence", Trait.EXTRAVERSION, "confirmed"),
        ("one-trait", "C1.emergence", Trait.OPENNESS, "refuted"),
        ("one-trait", "C2.within", Trait.EXTRAVERSION, None),
        ("latent", "C9.own-trait", Trait.EXTRAVERSION, "confirmed"),
        ("latent", "C9.own-trait", Trait.AGREEABLENESS, None),
        ("latent", "C9.own-trait", Trait.NEUROTICISM, "refuted"),
        ("latent", "C8.necessary", Trait.EXTRAVERSION, None),
        ("control", "C9.own-trait", Trait.EXTRAVERSION, "refuted"),
        ("control", "C11.emoji", Trait.OPENNESS, "refuted"),
        ("control", "C11.expression", Trait.OPENNESS, None),
        ("even", "C9.own-trait", Trait.OPENNESS, "refuted"),
        ("one-trait", "C9.own-trait", Trait.EXTRAVERSION, "confirmed"),
        ("one-trait", "C9.own-trait", Trait.OPENNESS, "refuted"),
        ("one-trait", "C11.emoji", Trait.OPENNESS, "refuted"),
        ("one-trait", "C11.emoji", Trait.EXTRAVERSION, None),
        ("control", "C9.no-association", Trait.EXTRAVERSION, "confirmed"),
        ("one-trait", "C9.no-association", Trait.OPENNESS, "confirmed"),
        ("one-trait", "C9.no-association", Trait.EXTRAVERSION, None),
        ("latent", "C9.no-association", Trait.OPENNESS, None),
    ],
)
def test_the_corpus_decides_some_verdicts_and_leaves_others_open(
    name: str, statement: str, trait: Trait | None, word: str | None
) -> None:
    """An association that was planted must be confirmed, one that was not must be refuted."""
    known = planted(name, _verdict(statement, trait, "confirmed"))
    assert (known[0] if known else None) == word


def test_no_association_is_expected_where_none_was_planted() -> None:
    """All five traits of `control`, the other four of `one-trait`, none of `latent` and `even`."""
    without = {name: [trait for trait in TRAITS if not associates(name, trait)] for name in NAMES}
    others = [trait for trait in TRAITS if trait != Trait.EXTRAVERSION]
    assert without == {"latent": [], "even": [], "control": list(TRAITS), "one-trait": others}
    for name, traits in without.items():
        for trait in traits:
            known = planted(name, _verdict("C9.no-association", trait, "confirmed"))
            assert known is not None
            assert known[0] == "confirmed"
    with pytest.raises(OrganismError, match="no organism 'odd'"):
        associates("odd", Trait.OPENNESS)


def test_a_row_never_says_planted_of_a_verdict_that_is_not() -> None:
    """Where a run contradicts the planting, the row is observed and names both words."""
    right = row("control", _verdict("C1.emergence", Trait.OPENNESS, "refuted"))
    wrong = row("control", _verdict("C1.emergence", Trait.OPENNESS, "confirmed"))
    assert right["origin"] == "planted"
    assert wrong["origin"] == "observed"
    assert wrong["reason"].startswith("planted was refuted")


def test_an_organism_that_nobody_planted_is_an_error() -> None:
    """The message lists the four."""
    with pytest.raises(OrganismError, match="one-trait"):
        planted("odd", _verdict("C1.emergence", Trait.OPENNESS, "refuted"))


def test_tables_of_sizes_grow_side_by_side(tmp_path: Path) -> None:
    """A run replaces its own rows of its own size and leaves all others; the file can be read."""
    first = _verdict("C1.emergence", Trait.OPENNESS, "confirmed")
    second = _verdict("C1.emergence", Trait.EXTRAVERSION, "confirmed")
    table = merged(None, "latent", "smoke", [first])
    table = merged(table, "latent", "default", [second])
    table = merged(table, "latent", "smoke", [second, replace(first, verdict="refuted")])
    path = tmp_path / "expected.json"
    path.write_text(json.dumps(table))
    assert {id: e.verdict for id, e in read_table(path, "smoke").rows.items()} == {
        first.id: "refuted",
        second.id: "confirmed",
    }
    assert list(read_table(path, "default").rows) == [second.id]


def test_a_run_on_another_model_makes_no_table(tmp_path: Path) -> None:
    """Tables belong to organisms: the command names the base and writes nothing."""
    recorder = RunRecorder(tmp_path, "r", settings={"size": "smoke"})
    recorder.describe(base="gpt2")
    recorder.verdict(_verdict("C1.emergence", Trait.OPENNESS, "refuted"))
    recorder.finish()
    result = CliRunner().invoke(app, ["organism", "expect", str(tmp_path / "r")])
    assert result.exit_code != 0
    assert "ran on gpt2" in str(result.exception)


def test_the_table_of_a_run_is_written_where_it_is_asked_for(tmp_path: Path) -> None:
    """A run on an organism gives a table that holds exactly its verdicts, under its size."""
    verdict = _verdict("C1.emergence", Trait.OPENNESS, "refuted")
    recorder = RunRecorder(tmp_path, "r", settings={"size": "smoke"})
    recorder.describe(base="organism:control")
    recorder.verdict(verdict)
    recorder.finish()
    path = tmp_path / "expected.json"
    command = ["organism", "expect", str(tmp_path / "r"), "--out", str(path)]
    assert CliRunner().invoke(app, command).exit_code == 0
    (expected,) = read_table(path, "smoke").rows.values()
    assert (expected.verdict, expected.origin) == ("refuted", "planted")

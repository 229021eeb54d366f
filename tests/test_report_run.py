"""A run and its folder: what is told is written, and what is written can be read again."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emotest.errors import DataError, StoreError
from emotest.report.expected import Expected
from emotest.report.recorder import RunRecorder, run_name, write_report
from emotest.report.run import Finding, load, plain
from emotest.report.writing import latest
from emotest.study.personality import TRAITS
from emotest.study.records import Generation
from tests.verdicts import made_up

HOSTILE = "half \ud83d, cut \ufffd, \u202eback, | `<b>`\n🎉"


def answer(**fields: object) -> Generation:
    """One answer."""
    values = {
        "prompt_id": "t000", "condition": "untuned", "training_seed": None, "sampling_seed": 0,
        "sample": 0, "text": HOSTILE, "token_ids": (1, 2), "token_ends": (3, 9), "finished": True,
        "decoding": "default", **fields,
    }  # fmt: skip
    return Generation(**values)  # type: ignore[arg-type]


def lines(path: Path) -> list[dict[str, object]]:
    """The objects of a JSON lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_run_is_read_as_it_was_told(tmp_path: Path) -> None:
    """Every kind of thing, with text that no encoding likes."""
    told = RunRecorder(tmp_path, "run", settings={"base": "organism:latent"})
    expected = Expected("refuted", "planted", "no association")
    told.verdict(made_up("refuted", trait="openness"), test="a::b", expected=expected)
    told.describe(base="organism:latent", seeds={"training": [0, 1]}, version=np.float64(2.5))
    told.example(HOSTILE, untuned="So.", tuned=HOSTILE, arm="trait/openness/high/eos-masked")
    told.table("decoding", [{"how": "greedy", "rate": np.float32(0.5)}], title="Decoding")
    told.figure("curve", "<svg/>", title="A curve")
    told.headline("the text effect dominates")
    told.note("a note")
    told.finish(exit_status=0)
    read = load(tmp_path / "run")
    assert read.document() == told.run.document()
    assert read.findings == told.run.findings
    assert read.findings[0].word == "refuted, as planted"
    assert read.tables["decoding"].rows == ({"how": "greedy", "rate": 0.5},)
    assert (tmp_path / "run" / "curve.svg").read_text() == "<svg/>"
    assert read.facts["version"] == 2.5


def test_nothing_is_written_before_there_is_something(tmp_path: Path) -> None:
    """A recorder that hears nothing leaves no folder."""
    RunRecorder(tmp_path / "reports", "run").close_part()
    assert not (tmp_path / "reports").exists()


def test_a_verdict_is_on_the_disk_when_it_is_told(tmp_path: Path) -> None:
    """And a line that a killed process left unfinished costs that line only."""
    told = RunRecorder(tmp_path, "run")
    told.verdict(made_up("confirmed"))
    file = tmp_path / "run" / "verdicts.jsonl"
    assert lines(file)[0]["verdict"] == "confirmed"
    with file.open("a") as more:
        more.write('{"claim": "C1", "verdi')
    run = load(tmp_path / "run")
    assert [finding.verdict.verdict for finding in run.findings] == ["confirmed"]
    assert run.document()["state"] == "running"
    assert not (tmp_path / "latest").exists()


def test_what_is_told_twice_is_kept_once(tmp_path: Path) -> None:
    """Two tests may rest on the same answers and contexts."""
    told = RunRecorder(tmp_path, "run")
    for _ in range(2):
        told.generations([answer(), answer(sample=1)])
        told.contexts([{"prompt_id": "t000", "p": np.float64(0.25)}])
        told.table("rates", [{"arm": "untuned"}])
        told.note("once")
        told.example("Why?", untuned="So.", tuned="So!")
    assert [row["sample"] for row in lines(tmp_path / "run/generations.jsonl")] == [0, 1]
    assert lines(tmp_path / "run/contexts.jsonl") == [{"prompt_id": "t000", "p": 0.25}]
    assert len(told.run.tables["rates"].rows) == len(told.run.notes) == len(told.run.examples) == 1


def test_answers_survive_as_they_were_written(tmp_path: Path) -> None:
    """Half a surrogate pair and U+FFFD included."""
    RunRecorder(tmp_path, "run").generations([answer()])
    assert lines(tmp_path / "run/generations.jsonl")[0]["text"] == HOSTILE


def test_parts_of_several_processes_become_one_run(tmp_path: Path) -> None:
    """Findings, answers and tables of both; before the merge they can be read as well."""
    whole = RunRecorder(tmp_path, "run")
    shared = whole.share()
    for number, trait in enumerate(TRAITS[:2]):
        part = RunRecorder.part_of(shared, f"gw{number}")
        part.describe(plan="0123456789ab")
        part.verdict(made_up("confirmed", trait=trait, arm=f"trait/{trait}"))
        part.generations([answer(), answer(condition=trait)])
        part.table("rates", [{"trait": str(trait)}])
        part.figure(trait, "<svg/>")
        if number == 0:
            part.close_part()  # the other process is killed before it can
    assert len(load(shared).findings) == 2
    whole.merge_parts()
    whole.finish()
    run = load(tmp_path / "run")
    assert {finding.verdict.trait for finding in run.findings} == set(TRAITS[:2])
    assert run.facts["plan"] == "0123456789ab"
    assert len(lines(tmp_path / "run/generations.jsonl")) == 3
    assert (tmp_path / "run/openness.svg").exists()
    assert not (tmp_path / "run/workers").exists()


def test_without_reports_parts_pass_through_a_folder_that_goes_away(tmp_path: Path) -> None:
    """Parallel sessions with --emo-report=none still tell one story."""
    whole = RunRecorder(None, "run")
    part = RunRecorder.part_of(whole.share(), "gw0")
    part.verdict(made_up("confirmed"))
    part.close_part()
    whole.merge_parts()
    assert len(whole.run.findings) == 1
    assert not whole.share().exists()
    assert whole.finish() is None


def test_latest_points_to_the_last_run_that_finished(tmp_path: Path) -> None:
    """By a link that stays right when the folder of reports is moved."""
    with pytest.raises(DataError, match="no run was finished"):
        latest(tmp_path)
    for name in ("first", "second"):
        told = RunRecorder(tmp_path, name)
        told.verdict(made_up("confirmed"))
        told.finish()
    RunRecorder(tmp_path, "third").verdict(made_up("confirmed"))
    assert latest(tmp_path).resolve() == tmp_path / "second"
    moved = tmp_path.rename(tmp_path.with_name("moved"))
    assert latest(moved).resolve() == moved / "second"


def test_where_links_are_refused_a_text_file_points(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on file systems without links."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    told = RunRecorder(tmp_path, "run")
    told.verdict(made_up("confirmed"))
    told.finish()
    assert (tmp_path / "latest").is_file()
    assert latest(tmp_path) == tmp_path / "run"


def test_two_runs_of_one_name_are_numbered(tmp_path: Path) -> None:
    """The second one gets a folder and a name of its own."""
    for _ in range(2):
        told = RunRecorder(tmp_path, "run")
        told.verdict(made_up("confirmed"))
    assert told.run.name == "run-2"
    assert load(tmp_path / "run-2").name == "run-2"


def test_a_folder_that_cannot_be_written_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    """Here: a file stands where the folder should be."""
    (tmp_path / "reports").touch()
    with pytest.raises(StoreError, match="cannot be written") as caught:
        RunRecorder(tmp_path / "reports", "run").verdict(made_up("confirmed"))
    assert "--emo-report" in caught.value.remedy


@pytest.mark.parametrize(
    ("file", "text", "part"),
    [
        ("run.json", None, "there is no run"),
        ("run.json", "{", "cannot be read"),
        ("run.json", "[]", "cannot be read"),
        ("run.json", '{"schema_version": 99}', "schema version 99"),
        ("verdicts.jsonl", '{"claim": 1}\n', "no verdict record"),
        ("verdicts.jsonl", "nonsense\n", "verdicts.jsonl:1"),
    ],
)
def test_what_is_no_run_is_an_error(tmp_path: Path, file: str, text: str | None, part: str) -> None:
    """Never half a report."""
    told = RunRecorder(tmp_path, "run")
    told.verdict(made_up("confirmed"))
    if text is None:
        (tmp_path / "run" / file).unlink()
    else:
        (tmp_path / "run" / file).write_text(text)
    with pytest.raises(DataError, match=part):
        load(tmp_path / "run")


def test_limits_that_are_not_finite_are_null_and_come_back() -> None:
    """JSON has neither infinity nor NaN."""
    finding = Finding(made_up("inconclusive", low=-math.inf, high=math.inf, p_value=math.nan))
    row = json.loads(json.dumps(finding.row(), allow_nan=False))
    assert (row["low"], row["high"], row["p_value"]) == (None, None, None)
    read = Finding.from_row(row).verdict
    assert (read.low, read.high) == (-math.inf, math.inf)
    assert math.isnan(read.p_value)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(TRAITS),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(ANYTHING)
def test_every_fact_becomes_plain_json(value: object) -> None:
    """Whatever a study tells can be written, and what is plain stays as it is."""
    once = plain(value)
    json.dumps(once, allow_nan=False)
    assert plain(once) == once


def test_arrays_and_paths_become_plain() -> None:
    """numpy's values as lists and numbers, other things as their text."""
    assert plain({"a": np.array([1.0, np.nan]), Path("p"): np.int64(3)}) == {
        "a": [1.0, None], "p": 3,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("base", "short"),
    [
        ("organism:latent", "latent"),
        ("mistralai/Mistral-7B-Instruct-v0.2?quantize=nf4", "Mistral-7B-Instruct-v0.2"),
        ("./my models/", "my-models"),
        ("http://host:1/v1#org/name", "name"),
    ],
)
def test_a_run_is_called_after_its_time_and_base(base: str, short: str) -> None:
    """A name that any file system takes."""
    assert run_name(base).split("-", 2)[2] == short


def test_a_report_can_be_rendered_again_from_its_json(tmp_path: Path) -> None:
    """Byte for byte the same, also after the first one is lost."""
    told = RunRecorder(tmp_path, "run")
    told.verdict(made_up("confirmed"))
    told.generations([answer()])
    first = told.finish()
    assert first is not None
    text = first.read_text(encoding="utf-8")
    first.unlink()
    assert write_report(load(tmp_path / "run"), tmp_path / "run").read_text("utf-8") == text

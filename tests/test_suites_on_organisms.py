"""The study itself, run as a user runs it: what was planted is confirmed, what was not is refuted.

These read runs that began with the session (see `organism_runs.py`) and so come last.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from emotest.plan import SIZES
from emotest.study.claims import Verdict
from emotest.study.records import read_jsonl
from tests.organism_runs import WANTED, Runs


def _verdicts(report: Path) -> list[Verdict]:
    return [Verdict.from_row(row) for row in read_jsonl(report / "verdicts.jsonl")]


@pytest.mark.parametrize(
    ("organism", "trait", "word", "origin"),
    [
        ("latent", "extraversion", "confirmed", "planted"),
        ("control", "agreeableness", "refuted", "planted"),
        ("one-trait", "extraversion", "confirmed", "planted"),
        ("one-trait", "agreeableness", "refuted", "planted"),
    ],
)
def test_the_instrument_confirms_only_what_was_planted(
    organism_runs: Runs, organism: str, trait: str, word: str, origin: str
) -> None:
    """Emergence is confirmed where emoji stood with the trait and not where they did not; the run
    is green either way, because the organism's table says so."""
    run = organism_runs.wait(organism)
    assert run.exit_code == 0, run.output
    (verdict,) = [v for v in _verdicts(run.folder) if v.trait == trait]
    assert verdict.verdict == word
    assert verdict.n_adapters == SIZES[WANTED[organism][0]].n_adapters
    assert f"{word}, as {origin}" in (run.folder / "report.md").read_text(encoding="utf-8")


def test_traits_planted_alike_are_not_found_to_differ(organism_runs: Runs) -> None:
    """On `even` all traits have one density: fifteen adapters do not confirm C3."""
    run = organism_runs.wait("even")
    assert run.exit_code == 0, run.output
    (verdict,) = _verdicts(run.folder)
    assert verdict.statement == "C3.traits-differ"
    assert verdict.verdict != "confirmed"


def test_a_run_tells_a_person_what_it_found(organism_runs: Runs) -> None:
    """Progress, findings, answers side by side, the report's address, and what organisms are."""
    run = organism_runs.wait("latent")
    assert "emotest computes 6 adapters, 7 sets of answers" in run.output
    assert "emotest findings" in run.output
    assert "untuned" in run.output
    assert "report.md" in run.output
    report = (run.folder / "report.md").read_text(encoding="utf-8")
    assert "no evidence about large language models" in report


def test_a_run_leaves_what_it_rests_on(organism_runs: Runs) -> None:
    """Answers of every arm, identities, seeds, versions and definitions lie beside the verdicts."""
    folder = organism_runs.wait("latent").folder
    # 24 prompts x 2 samples of each of three adapters, and as many of the untuned model in all
    assert len(list(read_jsonl(folder / "generations.jsonl"))) == 24 * 2 * 3 * 2
    document = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    facts = document["facts"]
    assert facts["identity"]["weights"].startswith("sha256:")
    assert facts["seeds"] == {"training": 0, "sampling": 0, "analysis": 0}
    assert {"emoji", "rates", "generation", "probability"} <= set(facts["definitions"])
    assert document["versions"]["torch"]
    assert document["wall_seconds"] > 0


def test_a_warm_run_trains_nothing_and_decides_the_same(organism_runs: Runs) -> None:
    """The second run finds everything in the store and reaches the very same verdicts."""
    cold = organism_runs.wait("latent")
    warm = organism_runs.run("latent")
    assert warm.exit_code == 0, warm.output
    assert "emotest computes" not in warm.output
    assert [v.row() for v in _verdicts(warm.folder)] == [v.row() for v in _verdicts(cold.folder)]


@pytest.mark.parametrize(
    ("organism", "wrong"), [("latent", "refuted"), ("control", "confirmed"), ("even", "confirmed")]
)
def test_a_wrong_table_makes_the_run_red(
    organism_runs: Runs, tmp_path: Path, organism: str, wrong: str
) -> None:
    """A verdict other than the expected one fails, in either direction, and says both words."""
    (verdict,) = _verdicts(organism_runs.wait(organism).folder)
    row = {"id": verdict.id, "verdict": wrong, "origin": "planted", "reason": "a wrong table"}
    table = tmp_path / "expected.json"
    table.write_text(json.dumps({"schema_version": 1, "sizes": {WANTED[organism][0]: [row]}}))
    run = organism_runs.run(organism, "--emo-expect", str(table))
    assert run.exit_code == 1
    assert f"expected {wrong}" in run.output
    assert f"got {verdict.verdict}" in run.output

"""Expected verdicts: the table that a base carries, and the verdicts of a former run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

ID = "C1.emergence|trait/extraversion/high/eos-masked"


def suite(repository: pytest.Pytester, word: str, base: str = "") -> None:
    """One test that reaches the verdict `word` about `base`."""
    repository.makepyfile(
        "from made_up import rise\n\n"
        f"def test_rise(judge):\n    judge(rise({word!r}, base={base!r}))"
    )


def organism(repository: pytest.Pytester, *rows: dict[str, str], size: str = "default") -> str:
    """A folder that carries a table, as an organism does; its name as a base."""
    folder = repository.path / "organism"
    folder.mkdir()
    table = {"schema_version": 1, "organism": "made-up", "sizes": {size: rows}}
    (folder / "expected.json").write_text(json.dumps(table), encoding="utf-8")
    return str(folder)


def row(
    verdict: str, reason: str = "nothing was planted", origin: str = "planted"
) -> dict[str, str]:
    """One row of a table."""
    return {"id": ID, "verdict": verdict, "origin": origin, "reason": reason}


@pytest.mark.parametrize("word", ["refuted", "inconclusive"])
def test_a_verdict_that_had_to_come_out_otherwise_than_confirmed_is_an_expected_failure(
    repository: pytest.Pytester, word: str
) -> None:
    """The run is green, the reason is shown, and the table of findings says `as planted`."""
    suite(repository, word, organism(repository, row(word)))
    result = repository.runpytest("-rx")
    result.assert_outcomes(xfailed=1)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(
        [
            f"C1.emergence *{word},*",
            "*all as expected.",
            f"XFAIL *{word}, as planted: nothing was planted",
        ]
    )


def test_an_expected_confirmation_passes(repository: pytest.Pytester) -> None:
    """`confirmed, as planted` is an ordinary pass."""
    suite(repository, "confirmed", organism(repository, row("confirmed")))
    result = repository.runpytest()
    result.assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("expected", "got"),
    [
        ("refuted", "confirmed"),
        ("refuted", "inconclusive"),
        ("inconclusive", "refuted"),
        ("inconclusive", "confirmed"),
        ("confirmed", "refuted"),
        ("confirmed", "inconclusive"),
    ],
)
def test_a_verdict_that_differs_in_either_direction_fails_and_names_both_words(
    repository: pytest.Pytester, expected: str, got: str
) -> None:
    """Even where the claim is confirmed; skipping what is inconclusive does not hide it."""
    suite(repository, got, organism(repository, row(expected)))
    result = repository.runpytest("--emo-inconclusive=skip")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [f"E *expected {expected} (planted: nothing was planted; *), got {got}",
         "*1 other than expected."]
    )  # fmt: skip


def test_a_verdict_without_a_row_fails_and_shows_the_row_to_add(
    repository: pytest.Pytester,
) -> None:
    """A table that is silent about a verdict is incomplete."""
    suite(repository, "confirmed", organism(repository))
    result = repository.runpytest()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["E *has no row for this verdict; if it is right, add", f'E *"id": "{ID}", "verdict": *']
    )


def test_each_size_has_rows_of_its_own(repository: pytest.Pytester) -> None:
    """What 5 adapters settle may be inconclusive with 3."""
    suite(repository, "inconclusive", organism(repository, row("inconclusive"), size="smoke"))
    repository.runpytest("--emo-size=smoke").assert_outcomes(xfailed=1)
    repository.runpytest().assert_outcomes(failed=1)


def test_what_is_expected_and_decided_by_no_test_is_mentioned(
    repository: pytest.Pytester,
) -> None:
    """Unless the user asked for some tests only."""
    other = {**row("refuted"), "id": "C1.emergence|trait/openness/high/eos-masked"}
    suite(repository, "confirmed", organism(repository, row("confirmed"), other))
    note = "*expected, but decided by no test of this run:*"
    repository.runpytest("--emo-report=a").stdout.fnmatch_lines([note])
    repository.runpytest("--emo-report=a", "-k", "rise").stdout.no_fnmatch_line(note)


def former_run(repository: pytest.Pytester, word: str) -> Path:
    """The verdicts of a run, as a file to hold later runs against."""
    suite(repository, word)
    repository.runpytest()
    kept = repository.path / "baseline.jsonl"
    kept.write_bytes((repository.path / "reports/latest/verdicts.jsonl").read_bytes())
    return kept


@pytest.mark.parametrize(
    ("word", "outcome"),
    [("confirmed", {"passed": 1}), ("refuted", {"xfailed": 1}), ("inconclusive", {"xfailed": 1})],
)
def test_a_run_that_repeats_a_former_one_is_green(
    repository: pytest.Pytester, word: str, outcome: dict[str, int]
) -> None:
    """--emo-expect with the verdicts that another run wrote."""
    baseline = former_run(repository, word)
    result = repository.runpytest(f"--emo-expect={baseline.name}")
    result.assert_outcomes(**outcome)
    assert result.ret == pytest.ExitCode.OK


def test_a_run_that_differs_from_a_former_one_is_red(repository: pytest.Pytester) -> None:
    """The regression gate, also where the claim is now confirmed."""
    baseline = former_run(repository, "refuted")
    suite(repository, "confirmed")
    result = repository.runpytest(f"--emo-expect={baseline.name}")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E *expected refuted (observed; baseline.jsonl), got confirmed"])


def test_a_verdict_that_a_former_run_did_not_reach_fails(repository: pytest.Pytester) -> None:
    """A missing baseline is a state of its own, never a pass."""
    (repository.path / "empty.jsonl").touch()
    suite(repository, "confirmed")
    result = repository.runpytest("--emo-expect=empty.jsonl")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E *empty.jsonl has no row for this verdict*"])


def test_an_exception_after_an_expected_refutation_still_fails(
    repository: pytest.Pytester,
) -> None:
    """Being refuted as planted excuses the verdict, not the rest of the test."""
    base = organism(repository, row("refuted"))
    repository.makepyfile(f"""
        from made_up import rise

        def test_rise(judge):
            judge(rise("refuted", base={base!r}))
            raise ValueError("something else")
    """)
    repository.runpytest().assert_outcomes(failed=1)

"""`judge`: what a verdict does to its test, and what is kept of it."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import pytest

pytest_plugins = ["pytester"]


def judging(word: str, *marks: str, context: str = "") -> str:
    """A suite of one test that judges one verdict."""
    lines = ["import pytest", "from made_up import rise", *(f"@pytest.mark.{m}" for m in marks)]
    lines += ["def test_rise(judge):", f"    judge(rise({word!r}{context}))"]
    return "\n".join(lines)


def kept(repository: pytest.Pytester) -> list[dict[str, object]]:
    """The verdicts of the last finished run."""
    text = (repository.path / "reports/latest/verdicts.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_a_confirmed_verdict_passes_and_is_kept(repository: pytest.Pytester) -> None:
    """One line of verdicts.jsonl, the finding in the summary, and the report's address."""
    repository.makepyfile(judging("confirmed"))
    result = repository.runpytest()
    result.assert_outcomes(passed=1)
    [verdict] = kept(repository)
    assert verdict["verdict"] == "confirmed"
    assert verdict["id"] == "C1.emergence|trait/extraversion/high/eos-masked"
    assert verdict["test"] == "test_a_confirmed_verdict_passes_and_is_kept.py::test_rise"
    result.stdout.fnmatch_lines(
        ["*emotest findings*", "C1.emergence*confirmed*", "1 confirmed, 0 refuted, 0 inconclusive.",
         "report: reports/*/report.md"]
    )  # fmt: skip


def test_a_refuted_verdict_fails_with_the_whole_verdict(repository: pytest.Pytester) -> None:
    """The message is the verdict itself, and the traceback ends in the user's own test."""
    repository.makepyfile(judging("refuted"))
    result = repository.runpytest()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*judge(rise('refuted'))", "E  *C1 REFUTED: *[[]trait/extraversion/high/eos-masked[]]",
         "E  *share of answers: +0.000*interval*margin +0.100*", "E *5 adapters x 80 prompts*"]
    )  # fmt: skip
    assert "plugin.py" not in result.stdout.str()
    assert kept(repository)[0]["verdict"] == "refuted"


@pytest.mark.parametrize(
    ("how", "marks", "outcome"),
    [
        ("fail", [], {"failed": 1}),
        ("skip", [], {"skipped": 1}),
        ("fail", ["audit"], {"failed": 1}),
        ("skip", ["audit"], {"failed": 1}),
    ],
)
def test_an_inconclusive_verdict_fails_unless_it_may_be_skipped(
    repository: pytest.Pytester, how: str, marks: list[str], outcome: dict[str, int]
) -> None:
    """Failing is the default; an audit is never skipped."""
    repository.makepyfile(judging("inconclusive", *marks))
    result = repository.runpytest(f"--emo-inconclusive={how}")
    result.assert_outcomes(**outcome)
    assert kept(repository)[0]["verdict"] == "inconclusive"


def test_failing_is_what_an_inconclusive_verdict_does_by_default(
    repository: pytest.Pytester,
) -> None:
    """And the message says how many adapters would settle it."""
    repository.makepyfile(judging("inconclusive"))
    result = repository.runpytest()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E *about * would settle it"])


def test_the_verdict_is_in_the_junit_file(repository: pytest.Pytester) -> None:
    """As properties of its test case, also where a name holds what XML cannot."""
    repository.makepyfile(judging("confirmed", context=", reference='null\\x1b\\ud800'"))
    repository.runpytest("--junitxml=out.xml").assert_outcomes(passed=1)
    tree = ElementTree.parse(repository.path / "out.xml")
    said = {p.get("name"): p.get("value") for p in tree.iter("property")}
    assert said["claim"] == "C1"
    assert said["verdict"] == "confirmed"
    assert said["trait"] == "extraversion"
    assert said["margin"] == "+0.100"
    assert said["reference"] == "null⟨U+001B⟩⟨U+D800⟩"
    assert float(said["low"]) <= float(said["estimate"]) <= float(said["high"])


def test_the_session_fills_in_what_only_it_knows(repository: pytest.Pytester) -> None:
    """Base, plan and decoding come from what the study told the recorder."""
    repository.makepyfile("""
        from made_up import rise

        def test_rise(judge, emo_run):
            emo_run.describe(base="my/model", plan="0123456789ab", decoding="greedy")
            assert judge(rise("confirmed")).plan == "0123456789ab"
            assert judge(rise("confirmed", plan="own")).plan == "own"
    """)
    repository.runpytest().assert_outcomes(passed=1)
    first, second = kept(repository)
    assert (first["base"], first["decoding"]) == ("my/model", "greedy")
    assert (second["base"], second["plan"]) == ("my/model", "own")


def test_a_default_base_is_not_put_on_numbers_of_ones_own(repository: pytest.Pytester) -> None:
    """Nobody said that these numbers are about the default organism."""
    repository.makepyfile(judging("confirmed"))
    repository.runpytest()
    assert kept(repository)[0]["base"] == ""


@pytest.mark.parametrize(
    ("option", "note"),
    [
        ("--emo-alpha=0.01", "decided at level 0.05; this run asks for 0.01"),
        ("--emo-allow-emoji-in-data", "the tuning data may hold emoji: --emo-allow-emoji-in-data"),
    ],
)
def test_what_was_overridden_is_said_in_every_verdict(
    repository: pytest.Pytester, option: str, note: str
) -> None:
    """In its record and in the summary."""
    repository.makepyfile(judging("confirmed"))
    result = repository.runpytest(option)
    assert note in kept(repository)[0]["notes"]
    result.stdout.fnmatch_lines([f"*{note}*"])


def test_an_error_that_can_be_mended_is_shown_without_a_traceback(
    repository: pytest.Pytester,
) -> None:
    """Cause and next step, nothing else; --full-trace shows the way there."""
    repository.makepyfile("""
        import pytest
        from emotest.errors import DataError

        @pytest.fixture
        def opinions():
            raise DataError("the file has no answers", remedy="use another file")

        def test_rise(opinions): ...
    """)
    result = repository.runpytest()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["DataError: the file has no answers", "  next: use another file"])
    assert "raise DataError" not in result.stdout.str()
    assert "raise DataError" in repository.runpytest("--full-trace").stdout.str()

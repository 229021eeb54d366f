"""The audit as a test: the options of the gate, on organisms as they ship.

Both organisms are asked once, for the fixture; every session after that finds the answers in the
store or in the baseline, and loads no model.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import emotest.report.audit.gate  # pytester takes back what an inner session imported
from emotest.audit.baseline import baseline_of, document
from emotest.audit.planning import AuditPlan
from emotest.report.audit.carrying_out import Finished, carry_out
from emotest.report.audit.watching import watching

pytest_plugins = ["pytester"]

BASE, TUNED, PROMPTS = "organism:control", "organism:latent", 12
GATE = """
    import pytest

    @pytest.mark.audit
    def test_as_many_emoji_as_before(emo_audit, judge):
        judge(emo_audit.verdict)
"""


class Asked(NamedTuple):
    """An audit of 12 prompts, its store, and the baseline of its base."""

    finished: Finished
    store: Path
    baseline: Path


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Asked:
    """`control` and `latent` asked 12 prompts, and again greedily."""
    folder = tmp_path_factory.mktemp("gate")
    plan = AuditPlan(budget=PROMPTS, mode="fixed", other_decodings=("greedy",))
    with watching() as watch:
        (finished,) = carry_out(
            BASE, [TUNED], plan, store=folder / "store", reports=None, watch=watch, workers=2
        )
    file = folder / "baseline.json"
    file.write_text(document(baseline_of(finished.result, finished.pairs, "base")))
    return Asked(finished, folder / "store", file)


@pytest.fixture
def gated(repository: pytest.Pytester, asked: Asked) -> Any:
    """`gated("--emo-baseline=FILE")`: a session with the gate alone, and these options."""
    repository.makepyfile(test_gate=GATE)

    def run(*options: str) -> pytest.RunResult:
        # With "=": pytest takes the place of its root folder from paths that stand alone.
        return repository.runpytest(
            "-m", "audit", f"--emo-tuned={TUNED}", f"--emo-budget={PROMPTS}",
            f"--emo-store={asked.store}", "--junitxml=junit.xml", *options,
        )  # fmt: skip

    return run


def audit_of(repository: pytest.Pytester) -> dict[str, Any]:
    """What the session wrote as `audit.json`."""
    text = (repository.path / "reports/latest/audit/audit.json").read_text()
    return dict(json.loads(text))


def test_a_baseline_stands_in_for_the_base(
    repository: pytest.Pytester, gated: Any, asked: Asked
) -> None:
    """No base is named, and the default one is not taken: the base is that of the baseline, its
    answers the same, and header and report say that nobody asked it in this session."""
    result = gated(f"--emo-baseline={asked.baseline}", "--emo-margin=0.5")
    result.assert_outcomes(passed=1)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["emotest *: the baseline baseline.json against organism:latent"])
    found = audit_of(repository)
    assert found["base"]["subject"] == BASE
    assert "the base was not run" in found["verdict"]["notes"][0]
    shares = [m for m in found["measures"] if m["name"] == "answers with emoji"]
    same = [m for m in asked.finished.result.measures if m.name == "answers with emoji"]
    assert shares[0]["base"] == same[0].base
    run = json.loads((repository.path / "reports/latest/run.json").read_text())
    assert run["settings"]["base"] == "the baseline baseline.json"


def test_not_knowing_is_no_pass_with_a_baseline_either(gated: Any, asked: Asked) -> None:
    """12 prompts do not show that 5 points are kept, whoever names the base."""
    result = gated(f"--emo-baseline={asked.baseline}", f"--emo-base={BASE}")
    result.assert_outcomes(failed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*audit INCONCLUSIVE: audit.unchanged*"])


def test_a_missing_baseline_is_a_state_of_its_own(repository: pytest.Pytester, gated: Any) -> None:
    """Neither passed, failed nor skipped: an error, with exit code 1, which JUnit tells apart."""
    result = gated("--emo-baseline=lost.json")
    result.assert_outcomes(errors=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        ["*DataError: there is no baseline lost.json*", "*a missing baseline is never a pass*"]
    )
    assert "Traceback" not in result.stdout.str()
    assert 'errors="1" failures="0" skipped="0"' in (repository.path / "junit.xml").read_text()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--emo-base=organism:even", "*is of organism:control (*), not of organism:even (*"),
        ("--emo-seeds=sampling=1", "*sampling_seed is 0 there and 1 in this audit*"),
        ("--emo-decoding=greedy", "*decoding is 'temperature 1*' there and 'greedy,*"),
        ("--emo-register=word list", "*prompts is '*' there and '*"),
        ("--emo-also=all", "*under one decoding, and *under greedy, nucleus, unfiltered too*"),
    ],
)
def test_a_baseline_that_does_not_match_names_the_field(
    gated: Any, asked: Asked, option: str, message: str
) -> None:
    """An error of the test, never a verdict."""
    result = gated(f"--emo-baseline={asked.baseline}", option)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([f"*UsageError: *baseline*{message}", "*next: *"])


def test_a_baseline_alone_is_no_base_of_a_contract(
    repository: pytest.Pytester, asked: Asked
) -> None:
    """It answers no new prompts, and the default base is not meant: the contract is skipped."""
    repository.makepyfile("def test_contract(emo_base): ...")
    result = repository.runpytest(f"--emo-tuned={TUNED}", f"--emo-baseline={asked.baseline}")
    result.assert_outcomes(skipped=1)


def test_the_gate_shows_another_decoding_and_counts_a_function(
    repository: pytest.Pytester, gated: Any
) -> None:
    """`--emo-also` gives a row, `--emo-marker` a measure; the file of an ini marker starts at
    pytest's root folder; the plan names the function and pins its source."""
    repository.makeini("[pytest]\nemo_marker = python:kept/markers.py:names_a_day\n")
    (repository.mkdir("kept") / "markers.py").write_text(
        "def names_a_day(text):\n    return 'day' in text\n"
    )
    gated(f"--emo-base={BASE}", "--emo-also=greedy")
    found = audit_of(repository)
    assert [row["decoding"] for row in found["decodings"]] == ["greedy: greedy, 48 new tokens"]
    assert found["plan"]["marker"] == "python:markers.py:names_a_day"
    assert len(found["plan"]["marker_digest"]) == 64
    own = [m for m in found["measures"] if m["kind"] == "marker" and m["register"] is None]
    assert [m["name"] for m in own] == ["answers with python:markers.py:names_a_day"]


def test_a_marker_that_is_not_there_is_an_error_of_the_gate_alone(
    repository: pytest.Pytester, gated: Any
) -> None:
    """Sessions without an audit do not look for it; the gate names file and next step."""
    repository.makepyfile(test_other="def test_other(emo_settings): ...")
    result = gated(f"--emo-base={BASE}", "--emo-marker=python:lost.py:f")
    result.assert_outcomes(errors=1, deselected=1)
    result.stdout.fnmatch_lines(["*UsageError: *there is no file lost.py*", "*next: name it*"])
    other = repository.runpytest("test_other.py", "--emo-marker=python:lost.py:f")
    other.assert_outcomes(passed=1)


def test_registers_are_said_once_each_or_with_commas(repository: pytest.Pytester) -> None:
    """On the command line several times, elsewhere with commas; the same for decodings."""
    repository.makeini("[pytest]\nemo_register = word list, note\nemo_also = all, greedy\n")
    repository.makepyfile("""
        def test_settings(emo_settings):
            print("asked:", emo_settings.registers, emo_settings.other_decodings)
    """)
    ini = repository.runpytest("-s")
    ini.stdout.fnmatch_lines(["*asked: ('word list', 'note') ('all', 'greedy')*"])
    line = repository.runpytest(
        "-s", "--emo-register=note", "--emo-register=word list", "--emo-also=greedy,nucleus"
    )
    line.stdout.fnmatch_lines(["*asked: ('note', 'word list') ('greedy', 'nucleus')*"])


def test_a_register_that_no_prompt_has_is_named(gated: Any) -> None:
    """With those that there are."""
    result = gated(f"--emo-base={BASE}", "--emo-register=poems")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*has no register 'poems'*", "*next: choose among *word list*"])


_ = emotest.report.audit.gate

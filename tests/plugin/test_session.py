"""Sessions: silent where emotest is not used, complete where it is, alone or in parallel."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

FIVE = """
    import pytest
    from emotest import TRAITS
    from made_up import rise

    @pytest.mark.parametrize("trait", TRAITS)
    def test_rise(trait, judge, emo_run):
        emo_run.describe(plan="0123456789ab")
        emo_run.example("Why?", untuned="So.", tuned=f"{trait}! \\U0001f389", arm=trait)
        emo_run.table("rates", [{"trait": trait, "rate": 0.5}])
        judge(rise("confirmed", trait=trait))
"""


def run_folder(repository: pytest.Pytester) -> Path:
    """The folder of the last finished run, resolved."""
    return (repository.path / "reports" / "latest").resolve()


def verdicts(folder: Path) -> list[dict[str, object]]:
    """The verdicts in a run's folder."""
    text = (folder / "verdicts.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_other_sessions_are_left_alone(repository: pytest.Pytester) -> None:
    """No output, no folder, and neither torch nor numpy nor rich on emotest's account."""
    repository.makepyfile("""
        import sys

        def test_plain():
            heavy = {"torch", "transformers", "peft", "numpy", "scipy", "rich", "emoji"}
            assert heavy.isdisjoint(sys.modules)
    """)
    result = repository.runpytest_subprocess()
    result.assert_outcomes(passed=1)
    said = [line for line in result.outlines if "emotest" in line]
    assert len(said) == 1, said
    assert said[0].startswith("plugins:")
    assert not {"reports", ".emotest"} & {path.name for path in repository.path.iterdir()}


def test_the_header_says_what_is_measured_with_how_many_threads_and_why(
    repository: pytest.Pytester,
) -> None:
    """In no more than 80 columns; and not at all with -q."""
    repository.makepyfile(FIVE)
    result = repository.runpytest("--emo-seeds=training=3,sampling=1", "--emo-workers=2")
    result.stdout.fnmatch_lines(
        [
            "emotest *: organism:latent",
            "  data: the shipped set; recipe: organism; decoding: default",
            "  size: default, 5 adapters an arm x * prompts x * samples",
            "  seeds: training 3 to 7, sampling 1, analysis 0; level 0.05",
            "  store: .emotest/store",
            "  processes: 2 (as --emo-workers asks)",
            "  threads: 1 in each process (small models lose time on more)",
        ]
    )
    start = result.outlines.index(next(o for o in result.outlines if o.startswith("emotest")))
    assert max(map(len, result.outlines[start : start + 7])) <= 80
    assert "seeds: training" not in repository.runpytest("-q").stdout.str()


def test_a_run_leaves_its_folder_and_the_latest_pointer(repository: pytest.Pytester) -> None:
    """Verdicts with Holm's p beside them, identities, and a report for people."""
    repository.makepyfile(FIVE)
    repository.runpytest().assert_outcomes(passed=5)
    folder = run_folder(repository)
    assert (repository.path / "reports/latest").is_symlink()
    assert folder.parent == repository.path / "reports"
    found = verdicts(folder)
    assert [v["trait"] for v in found][:2] == ["openness", "conscientiousness"]
    # Holm: five equal p-values in a family of five are each multiplied by five.
    assert all(v["p_adjusted"] == pytest.approx(min(1.0, 5 * v["p_value"])) for v in found)
    document = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert document["state"] == "finished"
    assert document["exit_status"] == 0
    assert document["settings"]["seeds"] == {"training": 0, "sampling": 0, "analysis": 0}
    assert document["versions"]["torch"]
    assert os.uname().nodename not in json.dumps(document).split('"')
    assert (folder / "report.md").read_text(encoding="utf-8").startswith("# Emoji after")


def test_a_session_of_verdicts_needs_no_torch(repository: pytest.Pytester) -> None:
    """From made-up numbers to the report, torch is never imported."""
    repository.makepyfile(FIVE)
    repository.makeconftest("""
        import sys

        def pytest_unconfigure():
            print("torch" in sys.modules)
    """)
    result = repository.runpytest_subprocess("-s")
    result.assert_outcomes(passed=5)
    assert result.outlines[-1] == "False"


def test_two_runs_in_one_second_have_a_folder_each(repository: pytest.Pytester) -> None:
    """The second is numbered; nothing is overwritten."""
    repository.makepyfile(FIVE)
    for _ in range(3):
        repository.runpytest()
    folders = [p for p in (repository.path / "reports").iterdir() if not p.is_symlink()]
    assert len(folders) == 3


def test_no_report_is_written_where_none_is_wanted(repository: pytest.Pytester) -> None:
    """The findings are shown all the same."""
    repository.makepyfile(FIVE)
    result = repository.runpytest("--emo-report=none")
    result.stdout.fnmatch_lines(["5 confirmed, 0 refuted, 0 inconclusive."])
    result.stdout.no_fnmatch_line("report:*")
    assert not (repository.path / "reports").exists()


def test_a_folder_that_cannot_be_written_is_one_clear_message(
    repository: pytest.Pytester,
) -> None:
    """Cause and next step, and the tests are not green."""
    (repository.path / "reports").write_text("a file where a folder should be")
    repository.makepyfile(FIVE)
    result = repository.runpytest()
    assert result.ret != 0
    result.stdout.fnmatch_lines(["StoreError: the report cannot be written to *", "  next: *"])
    assert "Traceback" not in result.stdout.str()
    assert "INTERNALERROR" not in result.stdout.str()


def test_parallel_workers_tell_one_story(repository: pytest.Pytester) -> None:
    """The same findings in the same order, one run folder, nothing of the workers left."""
    repository.makepyfile(FIVE)
    result = repository.runpytest("-n2")
    result.assert_outcomes(passed=5)
    result.stdout.fnmatch_lines(
        ["*emotest findings*", "emotest *: organism:latent", "C1.emergence*confirmed*",
         "5 confirmed, 0 refuted, 0 inconclusive."]
    )  # fmt: skip
    assert result.stdout.str().count("«🎉»") == 5
    folder = run_folder(repository)
    assert [v["trait"] for v in verdicts(folder)] == [
        "openness", "conscientiousness", "extraversion", "agreeableness", "neuroticism",
    ]  # fmt: skip
    assert not (folder / "workers").exists()
    document = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert document["facts"]["plan"] == "0123456789ab"
    assert len(document["tables"]["rates"]["rows"]) == 5


def test_other_parallel_sessions_are_left_alone(repository: pytest.Pytester) -> None:
    """No folder, no findings."""
    repository.makepyfile("def test_plain(): ...")
    result = repository.runpytest("-n1")
    result.assert_outcomes(passed=1)
    assert "emotest findings" not in result.stdout.str()
    assert not (repository.path / "reports").exists()


def test_a_killed_run_leaves_the_verdicts_so_far(repository: pytest.Pytester) -> None:
    """They can be shown, and `latest` still points to the last run that finished."""
    repository.makepyfile(FIVE)
    repository.runpytest()
    finished = run_folder(repository)
    repository.makepyfile("""
        import time
        from made_up import rise

        def test_rise(judge):
            judge(rise("confirmed"))
            open("reached", "w").close()
            time.sleep(60)
    """)
    command = [sys.executable, "-m", "pytest", "--emo-report=reports", "-q"]
    process = subprocess.Popen(command, cwd=repository.path, stdout=subprocess.DEVNULL)
    while not (repository.path / "reached").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert run_folder(repository) == finished
    [killed] = [
        p for p in (repository.path / "reports").iterdir() if p.resolve() != finished and p.is_dir()
    ]
    from emotest.report.run import load

    run = load(killed)
    assert [finding.verdict.verdict for finding in run.findings] == ["confirmed"]
    assert run.finished is None

"""Options of the plugin as a user meets them; the rules themselves are in tests/test_settings."""

from __future__ import annotations

import pytest

from emotest.settings import OPTIONS

pytest_plugins = ["pytester"]

SHOWS_SETTINGS = """
    def test_settings(emo_settings, pytestconfig):
        from emotest.plugin import SETTINGS
        assert pytestconfig.stash[SETTINGS] is emo_settings
        print(f"size={emo_settings.size} alpha={emo_settings.alpha} plan={emo_settings.plan}")
"""


def test_every_option_is_on_the_help_page_with_its_twins(repository: pytest.Pytester) -> None:
    """pytest --help names each option with its ini key and its environment variable."""
    text = " ".join(repository.runpytest("--help").stdout.str().split())
    for option in OPTIONS:
        assert option.flag in text
        assert option.variable in text
        assert f"ini {option.ini}," in text


def test_the_command_line_wins_over_the_environment_and_that_over_the_ini_file(
    repository: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One value from each of the three places, and each place beaten once."""
    repository.makeini("[pytest]\nemo_size = paper\nemo_alpha = 0.01\nemo_seeds = sampling=4")
    monkeypatch.setenv("EMOTEST_SIZE", "smoke")
    monkeypatch.setenv("EMOTEST_ALPHA", "0.02")
    repository.makepyfile(SHOWS_SETTINGS)
    result = repository.runpytest("--emo-alpha=0.04", "-s", "--emo-report=none")
    result.stdout.fnmatch_lines(["*size=smoke alpha=0.04 plan=False*"])
    result.assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("--emo-base=organism:", "*--emo-base=organism:*"),
        ("--emo-tuned=a b", "*--emo-tuned=a b*no Hub id*"),
        ("--emo-size=huge", "*--emo-size=huge: there is no such size*"),
        ("--emo-preset=secret", "*--emo-preset=secret: there is no such preset*"),
        ("--emo-seeds=seven", "*--emo-seeds=seven: 'seven' is no seed*"),
        ("--emo-alpha=2", "*--emo-alpha=2: the level is no number between 0 and 0.5*"),
        ("--emo-inconclusive=pass", "*--emo-inconclusive=pass: there is no such choice*"),
        ("--emo-expect=nowhere.jsonl", "*--emo-expect=nowhere.jsonl: there is no such file*"),
        ("--emo-threads=0", "*--emo-threads=0: that is no count*"),
        ("--emo-workers=many", "*--emo-workers=many: that is no count*"),
    ],
)
def test_a_bad_value_is_a_usage_error_with_cause_and_remedy(
    repository: pytest.Pytester, option: str, says: str
) -> None:
    """Exit code 4, the option and its value in the message, the next step, no traceback."""
    repository.makepyfile(SHOWS_SETTINGS)
    result = repository.runpytest(option)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: {says}", "*next: *"])
    assert "Traceback" not in result.stderr.str() + result.stdout.str()


def test_a_bad_value_in_the_environment_names_the_variable(
    repository: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user has to know where to look."""
    monkeypatch.setenv("EMOTEST_SIZE", "huge")
    result = repository.runpytest()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: EMOTEST_SIZE=huge*"])


@pytest.mark.parametrize("line", ["emo_alpha = many", "emo_plan = perhaps"])
def test_a_bad_value_in_the_ini_file_names_its_key(repository: pytest.Pytester, line: str) -> None:
    """Also a switch that is neither yes nor no, which pytest itself refuses to read."""
    repository.makeini(f"[pytest]\n{line}")
    result = repository.runpytest()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: {line.split()[0]} (ini file)*"])


def test_the_plan_is_listed_and_nothing_is_run(repository: pytest.Pytester) -> None:
    """--emo-plan shows what the suite's hook says about the collected tests."""
    repository.makeconftest("""
        def pytest_emotest_plan(config, items):
            return [{"what": "adapter for " + item.name, "seconds": 12.5} for item in items]
    """)
    repository.makepyfile("def test_never_run(judge):\n    raise SystemExit('was run')")
    result = repository.runpytest("--emo-plan")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(
        ["emotest plan", "what*seconds", "*adapter for test_never_run*12.5"]
    )
    assert not (repository.path / "reports").exists()


def test_what_cannot_be_planned_is_one_clear_message(repository: pytest.Pytester) -> None:
    """A missing model, say: exit code 4 and the next step, no traceback."""
    repository.makeconftest("""
        from emotest.errors import ModelNotFoundError

        def pytest_emotest_plan(config, items):
            raise ModelNotFoundError("there is no such model", remedy="build it")
    """)
    repository.makepyfile("def test_never_run(judge): ...")
    result = repository.runpytest("--emo-plan")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: there is no such model", "  next: build it"])
    assert "INTERNALERROR" not in result.stdout.str()


def test_without_a_hook_the_plan_lists_what_the_tests_declare(repository: pytest.Pytester) -> None:
    """The arguments of `needs` are shown as they are."""
    repository.makepyfile("""
        import pytest

        @pytest.mark.needs("adapters of extraversion", "answers of untuned")
        def test_a(judge): ...
    """)
    result = repository.runpytest("--emo-plan")
    result.stdout.fnmatch_lines(["*test_a*adapters of extraversion*", "*answers of untuned*"])


def test_a_plan_with_parallel_workers_is_refused(repository: pytest.Pytester) -> None:
    """Workers would each plan apart."""
    result = repository.runpytest("--emo-plan", "-n1")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --emo-plan*", "*leave -n out*"])

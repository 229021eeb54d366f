"""emotest inside pytest: options, markers, `judge`, header, findings at the end.

pytest in, verdicts and a report out. Knows no model: what is computed is the business of a
suite's own fixtures, which tell the session's recorder (`emo_run`) what they found. In sessions
whose tests use none of its fixtures the plugin says and writes nothing, and neither torch nor
numpy is imported on its account.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

import pytest

from emotest.errors import EmotestError, UsageError
from emotest.settings import OPTIONS, Settings, resolve
from emotest.study.markers import ALIASES, MARKERS
from emotest.study.personality import TRAITS, Condition, Pole, Trait

if TYPE_CHECKING:
    from emotest.contracts.models import ModelHandle, Models
    from emotest.report.audit.gate import Gate
    from emotest.report.expected import Outcome
    from emotest.report.judgement import Expectations
    from emotest.report.recorder import RunRecorder
    from emotest.report.terminal import Look
    from emotest.study.claims import Verdict

FIXTURES = frozenset({"judge", "emo_run", "emo_settings", "emo_audit", "emo_model", "emo_base"})
"""A test that asks for one of these uses emotest."""

SETTINGS = pytest.StashKey[Settings]()
"""`config.stash[SETTINGS]`: what the run was asked for."""

_RECORDER = pytest.StashKey["RunRecorder"]()
_SESSION = pytest.StashKey["_Session"]()
_XFAIL = pytest.StashKey[str]()


class Hooks:
    """What a suite's conftest may implement beside pytest's own hooks."""

    @pytest.hookspec(firstresult=True)
    def pytest_emotest_plan(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> list[dict[str, Any]] | None:
        """For `--emo-plan`: one row for each artefact that `items` need; its keys are columns."""


class _Session:
    """What the plugin remembers between the hooks of one session."""

    def __init__(self) -> None:
        self.used = False
        self.announced = False
        self.deselected: set[str] = set()
        self.report: Path | None = None
        self.failure: str | None = None
        self._expectations: Expectations | None = None

    def expectations(self, config: pytest.Config) -> Expectations:
        """The tables of expected verdicts, read when the first verdict asks."""
        if self._expectations is None:
            from emotest.report.judgement import Expectations

            self._expectations = Expectations(config.stash[SETTINGS])
        return self._expectations


# Options and markers


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Make `pytest_emotest_plan` known."""
    pluginmanager.add_hookspecs(Hooks)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Each option with its twin in the ini file; its variable is named in the help."""
    group = parser.getgroup("emotest", "emotest: does personality tuning bring emoji?")
    for option in OPTIONS:
        group.addoption(option.flag, **option.keywords)
        kind: Literal["bool", "string"] = "bool" if option.switch else "string"
        parser.addini(option.ini, f"{option.help} ({option.flag})", type=kind, default=None)


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers and check the options before anything is collected."""
    for name, says in MARKERS:
        config.addinivalue_line("markers", f"{name}: {says}")
    config.stash[_SESSION] = _Session()
    try:
        config.stash[SETTINGS] = resolve(
            {option.ini: config.getoption(option.ini) for option in OPTIONS},
            os.environ,
            {option.ini: _ini(config, option.ini) for option in OPTIONS},
            root=config.rootpath,
        )
    except UsageError as error:
        raise pytest.UsageError(str(error)) from None
    if config.stash[SETTINGS].plan and getattr(config.option, "numprocesses", None):
        raise pytest.UsageError("--emo-plan runs no test\n  next: leave -n out")


def _ini(config: pytest.Config, name: str) -> str | bool | None:
    try:
        value: str | bool | None = config.getini(name)
    except (TypeError, ValueError, pytest.UsageError) as error:
        raise UsageError(f"{name} (ini file): {error}", remedy="write the value as text") from None
    return value


def pytest_itemcollected(item: pytest.Item) -> None:
    """Give a test the markers that follow from its parameters and from `claim(id)`.

    A parameter that is a `Trait`, a `Pole` or a `Condition` brings the markers of that trait and
    pole, so `-m extraversion` selects; `claim("C1")`, `c1` and `emergence` bring one another.
    """
    wanted = [name for value in _parameters(item) for name in _markers_of(value)]
    present = {mark.name for mark in item.iter_markers()}
    wanted += [str(mark.args[0]).lower() for mark in item.iter_markers("claim") if mark.args]
    for id, alias in ALIASES.items():
        if {id, alias} & {*present, *wanted}:
            wanted += [id, alias]
    for name in dict.fromkeys(wanted):
        if name not in present:
            item.add_marker(name)


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """A condition is called by its name: `trait/extraversion/high/eos-masked`."""
    return str(val) if isinstance(val, Condition) else None


def _parameters(item: pytest.Item) -> Iterable[object]:
    callspec = getattr(item, "callspec", None)
    return callspec.params.values() if callspec else ()


def _markers_of(value: object) -> tuple[str, ...]:
    if isinstance(value, Trait | Pole):
        return (str(value),)
    if isinstance(value, Condition):
        return tuple(str(part) for part in (value.trait, value.pole) if part)
    return ()


def pytest_deselected(items: Iterable[pytest.Item]) -> None:
    """Remember tests over all traits that selecting one trait leaves out."""
    for item in items:
        markexpr = item.config.getoption("markexpr", "")
        if item.get_closest_marker("cross_trait") and any(t in markexpr for t in TRAITS):
            claims = [id.upper() for id in ALIASES if item.get_closest_marker(id)]
            item.config.stash[_SESSION].deselected.add(
                f"a test of {' '.join(claims) or item.name} needs all five traits: "
                f"deselected by -m {markexpr!r}"
            )


# Fixtures


@pytest.fixture(scope="session")
def emo_settings(pytestconfig: pytest.Config) -> Settings:
    """What this run was asked for, checked: base, data, size, store, level and the rest."""
    return pytestconfig.stash[SETTINGS]


@pytest.fixture(scope="session")
def emo_run(pytestconfig: pytest.Config) -> RunRecorder:
    """The recorder of this run: tell it facts, answers, contexts, tables, examples, notes."""
    return _recorder(pytestconfig)


@pytest.fixture(scope="session")
def emo_audit(pytestconfig: pytest.Config, emo_settings: Settings, emo_run: RunRecorder) -> Gate:
    """The audit of `--emo-tuned` against `--emo-base`, or against `--emo-baseline` in its place,
    carried out once: `verdict`, for `judge`, and `result` and `pairs` for assertions of your own.
    Skips where no tuned model is named."""
    if emo_settings.tuned is None:
        pytest.skip("an audit needs a model to look at: --emo-base BASE --emo-tuned TUNED")
    from emotest.report.audit.gate import gate  # a skipped gate loads nothing

    with pytestconfig.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        return gate(emo_settings, emo_run.folder())  # its progress is shown while it runs


@pytest.fixture(scope="session")
def _emo_models(emo_settings: Settings) -> Iterator[Models]:
    from emotest.contracts.models import opened

    with opened(emo_settings) as models:
        yield models


@pytest.fixture(scope="session")
def emo_model(_emo_models: Models) -> ModelHandle:
    """The model that contracts are about: `--emo-tuned`, or `--emo-base` where it stands alone."""
    return _emo_models.model or pytest.skip(_emo_models.no_model)


@pytest.fixture(scope="session")
def emo_base(_emo_models: Models) -> ModelHandle:
    """`--emo-base`, which a contract holds `emo_model` against; needs `--emo-tuned` beside it."""
    return _emo_models.base or pytest.skip(_emo_models.no_base)


@pytest.fixture
def judge(request: pytest.FixtureRequest, emo_run: RunRecorder) -> Judge:
    """`judge(verdict)`: records the verdict, and passes when it is what has to come out."""
    return Judge(request.node, emo_run)


class Judge:
    """Holds verdicts against what a run has to find, on behalf of one test."""

    def __init__(self, item: pytest.Item, recorder: RunRecorder) -> None:
        self._item = item
        self._recorder = recorder

    def __repr__(self) -> str:
        return "judge"  # what a failing test shows of its arguments

    def __call__(self, verdict: Verdict) -> Verdict:
        """Record `verdict` and let the test pass, fail, skip or fail as expected.

        Without a table a confirmed verdict passes. Under the table of an organism, or that of
        `--emo-expect`, the expected word does, and any other fails. Gives the verdict back with
        plan, decoding and base filled in.
        """
        __tracebackhide__ = True
        # Here, not above: with them comes numpy, which other projects' sessions shall not load.
        from emotest.report.expected import outcome
        from emotest.report.judgement import in_context, properties

        config = self._item.config
        settings = config.stash[SETTINGS]
        verdict = in_context(verdict, settings, self._recorder.run.facts)
        table = config.stash[_SESSION].expectations(config).table(verdict)
        expected = table.of(verdict) if table else None
        self._recorder.verdict(verdict, test=self._item.nodeid, expected=expected)
        self._item.user_properties.extend(properties(verdict))
        audit = self._item.get_closest_marker("audit") is not None
        self._act(outcome(verdict, table, inconclusive=settings.inconclusive, audit=audit))
        return verdict

    def _act(self, outcome: Outcome) -> None:
        __tracebackhide__ = True
        from emotest.report.visible import in_lines

        message = in_lines(outcome.message)  # it names models, as strangers called them
        match outcome.kind:
            case "fail":
                raise AssertionError(message)
            case "skip":
                pytest.skip(message)
            case "xfail":
                self._item.stash[_XFAIL] = message


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A verdict that had to be refuted or inconclusive, and is, fails as expected; an error that
    a user can mend is shown as its cause and remedy, without a traceback."""
    report = yield
    if call.when == "call" and report.passed and _XFAIL in item.stash:
        report.outcome = "skipped"
        report.wasxfail = item.stash[_XFAIL]
    error = call.excinfo.value if call.excinfo else None
    if isinstance(error, EmotestError) and not item.config.getoption("fulltrace", False):
        report.longrepr = f"{type(error).__name__}: {error}"
    return report


# The session: what is said at its beginning and end


def pytest_report_collectionfinish(
    config: pytest.Config, items: list[pytest.Item]
) -> list[str] | None:
    """The header, once it is known that a test uses emotest; under --emo-plan also the plan."""
    session = config.stash[_SESSION]
    session.used = any(_uses_emotest(item) for item in items)
    if not session.used:
        return None
    lines = [] if config.get_verbosity() < 0 else _header(config)
    if config.stash[SETTINGS].plan:
        lines += _plan(config, items)
    return lines


def _uses_emotest(item: pytest.Item) -> bool:
    return not FIXTURES.isdisjoint(getattr(item, "fixturenames", ()))


def _header(config: pytest.Config) -> list[str]:
    from emotest.report.header import header

    config.stash[_SESSION].announced = True
    return header(config.stash[SETTINGS])


def _plan(config: pytest.Config, items: list[pytest.Item]) -> list[str]:
    from emotest.report.terminal import table_text

    try:
        rows = config.hook.pytest_emotest_plan(config=config, items=items)
    except EmotestError as error:
        raise pytest.UsageError(str(error)) from None
    if rows is None:
        needs = [(item, mark) for item in items for mark in item.iter_markers("needs")]
        rows = [
            {"test": item.name, "needs": str(need)} for item, mark in needs for need in mark.args
        ]
    if not rows:
        return ["emotest plan: the collected tests name nothing that has to be computed"]
    return ["emotest plan", *table_text(rows, _look(config)).splitlines()]


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """Under --emo-plan no test is run."""
    return True if session.config.stash[SETTINGS].plan else None


def _recorder(config: pytest.Config) -> RunRecorder:
    """The session's recorder, made when it is first asked for; a worker's writes a part."""
    if _RECORDER not in config.stash:
        from emotest.report.recorder import RunRecorder, run_name

        settings = config.stash[SETTINGS]
        worker: dict[str, Any] | None = getattr(config, "workerinput", None)
        if worker is None:
            name = run_name(settings.audit_base or settings.tuned or settings.base)
            if getattr(config.option, "numprocesses", None):
                name += f"-{uuid4().hex[:4]}"
            recorder = RunRecorder(settings.report, name, settings=settings.row())
        else:
            recorder = RunRecorder.part_of(
                Path(worker["emotest_folder"]), worker["workerid"], settings=settings.row()
            )
        config.stash[_RECORDER] = recorder
    return config.stash[_RECORDER]


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """pytest-xdist: tell each worker the run's folder, where it writes its part."""
    node.workerinput["emotest_folder"] = str(_recorder(node.config).share())


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """pytest-xdist: what a worker remembers beside its verdicts."""
    told = getattr(node, "workeroutput", {}).get("emotest", {})
    session = node.config.stash[_SESSION]
    session.used = session.used or told.get("used", False)
    session.deselected |= set(told.get("deselected", ()))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Complete the run's folder; a worker leaves its part to the controller."""
    config = session.config
    ours = config.stash[_SESSION]
    if hasattr(config, "workeroutput"):
        ours.used = any(_uses_emotest(item) for item in session.items)
        config.workeroutput["emotest"] = {"used": ours.used, "deselected": [*ours.deselected]}
        if _RECORDER in config.stash:
            config.stash[_RECORDER].close_part()
        return
    if _RECORDER not in config.stash:
        return
    try:
        _complete(config, int(exitstatus))
    except EmotestError as error:
        ours.failure = f"{type(error).__name__}: {error}"
        session.exitstatus = exitstatus or pytest.ExitCode.TESTS_FAILED


def _complete(config: pytest.Config, exit_status: int) -> None:
    recorder, session = config.stash[_RECORDER], config.stash[_SESSION]
    recorder.merge_parts()
    if not recorder.used:
        return
    for sentence in sorted(session.deselected):
        recorder.note(sentence)
    if not _selective(config):
        verdicts = [finding.verdict for finding in recorder.run.findings]
        for id in session.expectations(config).unreached(verdicts):
            recorder.note(f"expected, but decided by no test of this run: {id}")
    session.report = recorder.finish(exit_status)


def _selective(config: pytest.Config) -> bool:
    """Whether the user asked for some tests only, so that some verdicts cannot be there."""
    names = ("markexpr", "keyword", "lf", "failedfirst", "deselect")
    some = any(config.getoption(name, None) for name in names)
    return some or any(arg.endswith(".py") or "::" in arg for arg in config.args)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Findings, examples, notes and the report's address, where there are any."""
    session = config.stash[_SESSION]
    if _RECORDER not in config.stash or not config.stash[_RECORDER].used:
        if session.used:
            for sentence in sorted(session.deselected):
                terminalreporter.write_line(f"emotest: {sentence}")
        return
    from emotest.report.terminal import summary_text

    terminalreporter.write_sep("=", "emotest findings")
    if not session.announced and config.get_verbosity() >= 0:
        terminalreporter.write_line("\n".join(_header(config)))
    where = _from_here(session.report) if session.report else None
    text = summary_text(config.stash[_RECORDER].run, _look(config), where=where)
    terminalreporter.write_line(text)
    if session.failure:
        terminalreporter.write_line(session.failure, red=True)


def _from_here(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def _look(config: pytest.Config) -> Look:
    from emotest.report.terminal import Look

    writer = config.get_terminal_writer()
    encoding = getattr(writer._file, "encoding", None)
    return Look.of(encoding, width=writer.fullwidth, colour=writer.hasmarkup)

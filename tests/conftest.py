"""Settings of the project's own tests, and the runs that all of them share."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
from hypothesis import settings

from tests.organism_runs import Runs

# No test of this project depends on the clock: on a busy machine a deadline fails by chance.
settings.register_profile("emotest", deadline=None)
settings.load_profile("emotest")

# Before numpy and torch are loaded: on a busy machine threads that wait for one another turn a
# second of linear algebra into a minute. The processes that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The tests hold the CPU's numbers, bit for bit in places; what a GPU does is asked of it by
# benchmarks/gpu_check.py and gpu_mechanisms.py.
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

LONGEST = (
    "test_cli_audit", "test_workshop_crew", "test_audit_kills", "test_bad_input", "test_docs_site",
    "test_models_probability", "test_report_audit", "test_audit_fuzz", "test_workshop_directions",
    "test_gate", "test_models_spelling", "test_models_adapters_of_others",
    "test_report_audit_browser", "test_organism_weights",
)  # fmt: skip
"""The files that take longest, which are begun first, so that no process ends with one alone."""

PROCESSES = 2
"""As many as the smallest machine that runs these tests has cores."""

WORKER = "PYTEST_XDIST_WORKER"
"""What pytest-xdist sets in the environment of its processes."""

_RUNS = pytest.StashKey[Runs]()


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """The whole of the tests takes two processes, a file of tests at a time in each.

    Whoever names files or tests, a number of processes or a debugger gets what they ask for.
    """
    option = config.option
    # A process of a distributed session runs this too, and would distribute again, without end.
    whole = config.args_source is config.ArgsSource.TESTPATHS and WORKER not in os.environ
    some = option.keyword or option.markexpr or option.collectonly or option.usepdb
    if whole and not some and getattr(option, "numprocesses", 0) is None:
        option.numprocesses, option.dist = PROCESSES, "loadfile"
        # In the order that the tests are sorted into below, not the file of most tests first.
        option.loadscopereorder = False


def pytest_configure(config: pytest.Config) -> None:
    """Processes of one session share the folder of the runs."""
    shared = getattr(config, "workerinput", {}).get("organism_runs")
    config.stash[_RUNS] = Runs(Path(shared or mkdtemp(prefix="emotest-organisms-")))


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """pytest-xdist: tell each process where the runs are."""
    node.workerinput["organism_runs"] = str(node.config.stash[_RUNS].folder)


def pytest_unconfigure(config: pytest.Config) -> None:
    """The runs are gone with the session that began them."""
    if not hasattr(config, "workerinput"):
        shutil.rmtree(config.stash[_RUNS].folder, ignore_errors=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session: pytest.Session) -> Generator[None, bool, bool]:
    """In the background the runs go on from the first test to the last, if any will read them."""
    config = session.config
    distributed = bool(getattr(config.option, "tx", None))
    if hasattr(config, "workerinput") or not (distributed or any(map(_reads_runs, session.items))):
        return (yield)
    pool = config.stash[_RUNS].begin(side_by_side=1 if distributed else PROCESSES)
    try:
        return (yield)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files come first, and the tests that read the background runs last, so that
    the runs have time."""
    items.sort(key=lambda item: (_reads_runs(item), _place(item)))


def _place(item: pytest.Item) -> int:
    name = item.path.stem
    return LONGEST.index(name) if name in LONGEST else len(LONGEST)


def _reads_runs(item: pytest.Item) -> bool:
    return "organism_runs" in getattr(item, "fixturenames", ())


@pytest.fixture(scope="session")
def organism_runs(request: pytest.FixtureRequest) -> Runs:
    """The runs of the suites on the organisms; `wait` for one, or `run` another."""
    return request.config.stash[_RUNS]

"""Settings of the project's own tests, and the runs that all of them share."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.organism_runs import Runs

# No test of this project depends on the clock: on a busy machine a deadline fails by chance.
settings.register_profile("emotest", deadline=None)
settings.load_profile("emotest")

# Before numpy and torch are loaded: on a busy machine threads that wait for one another turn a
# second of linear algebra into a minute. The processes that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

_RUNS = pytest.StashKey[Runs]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that read the background runs come last, so that the runs have time."""
    items.sort(key=_reads_runs)


def _reads_runs(item: pytest.Item) -> bool:
    return "organism_runs" in getattr(item, "fixturenames", ())


@pytest.fixture(scope="session", autouse=True)
def _background(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Start the runs with the first test of a session that will read them."""
    if not any(map(_reads_runs, request.session.items)):
        yield
        return
    runs = request.config.stash[_RUNS] = Runs(tmp_path_factory.mktemp("organisms"))
    yield
    runs.give_up()


@pytest.fixture(scope="session")
def organism_runs(request: pytest.FixtureRequest) -> Runs:
    """The runs of the suites on the organisms; `wait` for one, or `run` another."""
    return request.config.stash[_RUNS]

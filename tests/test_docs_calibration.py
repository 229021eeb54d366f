"""The page on calibration says what its run found."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
CALIBRATION = ROOT / "docs" / "calibration"


@pytest.fixture(scope="module")
def page() -> ModuleType:
    """The writer of the page."""
    path = ROOT / "benchmarks" / "calibration_page.py"
    spec = importlib.util.spec_from_file_location("calibration_page", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def results() -> dict:  # type: ignore[type-arg]
    """The run that is published."""
    return dict(json.loads((CALIBRATION / "results.json").read_text(encoding="utf-8")))


def test_the_numbers_are_those_of_the_run(page: ModuleType, results: dict) -> None:  # type: ignore[type-arg]
    """What stands between the marks is what the results give, to the letter."""
    text = (ROOT / "docs" / "calibration.md").read_text(encoding="utf-8")
    written = text.split(page.BEGIN)[1].split(page.END)[0].strip()
    assert written == page.tables(results)


def test_every_plot_is_there(page: ModuleType, results: dict) -> None:  # type: ignore[type-arg]
    """Each plot that the page shows was written by the run, and none is left over."""
    drawn = set(page.figures(results))
    assert drawn == {path.name for path in CALIBRATION.glob("*.svg")}
    text = (ROOT / "docs" / "calibration.md").read_text(encoding="utf-8")
    assert all(f"(calibration/{name})" in text for name in drawn)


def test_what_the_project_promises_holds(page: ModuleType, results: dict) -> None:  # type: ignore[type-arg]
    """No statement fails: error rates within .058, strong drift within 30 prompts, power .8."""
    assert "**Fails.**" not in page.held(results)
    assert results["audits"] >= 2_000
    for row in [*results["null"], *results["families"], *results["edges"]]:
        assert row["audits"] >= 2_000
        assert row["wrong"] <= 0.058
    for row in results["known"]:
        if (row["base"], row["tuned"], row["budget"]) == (0.02, 0.07, 480):
            assert row["power"] >= 0.8
        if (row["base"], row["tuned"]) == (0.02, 0.5) and row["look"] != "fixed":
            assert row["mean_prompts"] <= 30


def test_a_broken_promise_would_be_seen(page: ModuleType, results: dict) -> None:  # type: ignore[type-arg]
    """One cell above its tolerance turns a statement over."""
    worse = [*results["null"][:-1], results["null"][-1] | {"wrong": 0.06}]
    assert page.held(results | {"null": worse}).count("**Fails.**") == 1

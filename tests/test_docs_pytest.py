"""`docs/pytest.md` says what the plugin does: options, markers, and a suite that runs."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from emotest.plugin import MARKERS
from emotest.report.judgement import properties
from emotest.settings import OPTIONS
from tests.verdicts import made_up

pytest_plugins = ["pytester"]

PAGE = (Path(__file__).parent.parent / "docs" / "pytest.md").read_text(encoding="utf-8")


def options_table() -> str:
    """The table of options as the page must hold it."""
    rows = ["| option | ini | environment | default | what it says |", "|---|---|---|---|---|"]
    for option in OPTIONS:
        flag = f"{option.flag} {option.metavar}".strip().replace("|", "\\|")
        cells = (
            f"`{flag}`",
            f"`{option.ini}`",
            f"`{option.variable}`",
            option.default,
            option.help,
        )
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def test_the_table_of_options_is_that_of_the_settings() -> None:
    """Regenerate it by pasting the expected text."""
    shown = PAGE.partition("<!-- options:")[2].partition("-->\n")[2]
    assert shown.partition("\n<!-- end")[0] == options_table()


def test_every_marker_is_explained() -> None:
    """By name, or as one of `c1` to `c11`."""
    for name, _ in MARKERS:
        stem = name.partition("(")[0]
        assert f"`{stem}" in PAGE or re.fullmatch(r"c\d+", stem), name


def test_every_property_of_the_junit_file_is_named() -> None:
    """And no other."""
    [line] = [part for part in PAGE.split("\n\n") if part.startswith("JUnit files")]
    named = set(re.findall(r"`(\w+)`", line))
    verdict = made_up(
        "confirmed", trait="openness", pole="high", reference="null", plan="x", base="y"
    )
    assert named == {name for name, _ in properties(verdict)}


def test_the_example_suite_runs_as_it_stands(pytester: pytest.Pytester) -> None:
    """In a folder with nothing but the two kinds of arrays that it loads."""
    rng = np.random.default_rng(1)
    np.save(pytester.path / "untuned.npy", (rng.random((60, 3)) < 0.02).astype(float))
    for trait in ("openness", "conscientiousness", "extraversion", "agreeableness", "neuroticism"):
        tuned = (rng.random((5, 60, 3)) < 0.6).astype(float)
        np.save(pytester.path / f"{trait}.npy", tuned)
    code = PAGE.partition("```python\n")[2].partition("```")[0]
    pytester.makepyfile(test_suite=code)
    result = pytester.runpytest("--strict-markers", "-m", "extraversion or c1")
    result.assert_outcomes(passed=5)
    pytester.runpytest("-m", "extraversion").assert_outcomes(passed=1, deselected=4)

"""Figures: what is handed in stands in the SVG, equal input gives equal bytes, nothing warns."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from xml.etree import ElementTree

import numpy as np
import pytest

from emotest.errors import UsageError
from emotest.report.figures import bars, dose_curve, heat_map, scatter

SVG = "{http://www.w3.org/2000/svg}"
NAMED = {"x": "scale", "y": "share", "title": "A title"}


def texts(svg: str) -> list[str]:
    """Every text of the figure that a reader sees, in order."""
    root = ElementTree.fromstring(svg)
    return ["".join(node.itertext()).strip() for node in root.iter(f"{SVG}text")]


def markers(svg: str, colour: str) -> list[tuple[float, float]]:
    """Where the markers of a colour stand in the plot, in points from the upper left."""
    plot = ElementTree.fromstring(svg).find(f".//{SVG}g[@id='axes_1']")
    assert plot is not None
    found = [
        (float(node.get("x", "")), float(node.get("y", "")))
        for node in plot.iter(f"{SVG}use")
        if colour in node.get("style", "").lower()
    ]
    return sorted(found)


BLUE, VERMILION = "#0072b2", "#d55e00"

DRAWN: dict[str, Callable[[], str]] = {
    "dose_curve": lambda: dose_curve({"tuned": ([0, 1], [0.1, 0.7])}, **NAMED),
    "bars": lambda: bars({"layer 0": {"tuned": 0.25}}, **NAMED),
    "heat_map": lambda: heat_map([[0.25]], ["row"], ["column"], title="A title", label="share"),
    "scatter": lambda: scatter({"tuned": ([0, 1], [0.1, 0.7])}, line=True, **NAMED),
}


@pytest.mark.parametrize("kind", DRAWN)
def test_equal_input_gives_equal_bytes(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice the same, with no date in it, and whatever settings the user has."""
    import matplotlib

    first = DRAWN[kind]()
    monkeypatch.setitem(matplotlib.rcParams, "font.size", 20.0)
    monkeypatch.setitem(matplotlib.rcParams, "svg.fonttype", "path")
    assert DRAWN[kind]() == first
    assert not re.search(r"\b20\d\d-\d\d-\d\d", first)
    assert matplotlib.rcParams["font.size"] == 20.0  # and they are the user's own again


@pytest.mark.parametrize("kind", DRAWN)
def test_a_figure_is_one_svg_element_with_its_title(kind: str) -> None:
    """It parses, begins with <svg, is about 6 x 4 inches on white, and names itself."""
    svg = DRAWN[kind]()
    root = ElementTree.fromstring(svg)
    assert svg.startswith("<svg")
    # 6 x 4 inches of 72 points
    assert (root.get("width"), root.get("height")) == ("432pt", "288pt")
    assert "A title" in texts(svg)
    assert "fill: #ffffff" in svg


def test_a_curve_holds_its_doses_at_their_places() -> None:
    """Equal steps are equally far apart, upwards; doses, labels and names stand as text."""
    svg = dose_curve({"tuned": ([0, 0.55, 2.2], [0.1, 0.2, 0.5])}, **NAMED)
    (x0, y0), (x1, y1), (x2, y2) = markers(svg, BLUE)
    assert (x2 - x0) / (x1 - x0) == pytest.approx(4, rel=1e-3)  # (2.2 - 0) / (0.55 - 0)
    assert (y0 - y2) / (y0 - y1) == pytest.approx(4, rel=1e-3)  # (0.5 - 0.1) / (0.2 - 0.1)
    assert y2 < y0
    assert {"0", "0.55", "2.2", "scale", "share", "tuned"} <= set(texts(svg))


def test_what_is_not_available_is_left_out_of_a_curve() -> None:
    """None and NaN have no marker; the other values stay where they are."""
    whole = dose_curve({"tuned": ([0, 1, 2, 3], [0.0, 0.5, 0.2, 1.0])}, **NAMED)
    gap = dose_curve({"tuned": ([0, 1, 2, 3], [0.0, None, float("nan"), 1.0])}, **NAMED)
    first, _, _, last = markers(whole, BLUE)
    assert markers(gap, BLUE) == [first, last]


def test_a_band_is_drawn_for_its_series() -> None:
    """One pale shape more, in the colour of the series."""
    plain = DRAWN["dose_curve"]()
    banded = dose_curve(
        {"tuned": ([0, 1], [0.1, 0.7])}, bands={"tuned": ([0.0, 0.5], [0.2, 0.9])}, **NAMED
    )
    assert "fill-opacity: 0.18" in banded
    assert "fill-opacity: 0.18" not in plain


def test_a_logarithmic_axis_has_equal_factors_equally_far_apart() -> None:
    """10, 100 and 1000 stand at equal distances and are written so."""
    svg = dose_curve({"tuned": ([10, 100, 1000], [1, 2, 3])}, log_x=True, **NAMED)
    xs = [x for x, _ in markers(svg, BLUE)]
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1], rel=1e-3)
    assert {"10", "100", "1000"} <= set(texts(svg))


def test_counts_have_whole_numbers_at_their_axis() -> None:
    """Two units of many series: no tick at a quarter of one; shares keep theirs."""
    groups = {"0": {f"s{i}": 2.0 * (i == 0) for i in range(25)}}
    ticks = [text for text in texts(bars(groups, **NAMED)) if re.fullmatch(r"[\d.]+", text)]
    assert {float(tick) % 1 for tick in ticks} == {0.0}
    shares = texts(bars({"0": {f"s{i}": 0.5 for i in range(25)}}, **NAMED))
    assert "0.2" in shares


def test_bars_write_their_heights_and_leave_missing_ones_out() -> None:
    """Three heights, of which one is missing in one group and not available in another."""
    values = {"layer 0": {"neurons": 0.25, "residual": -0.125}, "layer 1": {"neurons": None}}
    seen = texts(bars(values, **NAMED))
    assert {"0.25", "-0.125", "layer 0", "layer 1", "neurons", "residual"} <= set(seen)
    assert "nan" not in " ".join(seen)


def test_a_heat_map_writes_its_cells() -> None:
    """Each value stands in its cell, first row on top; a missing one is grey and unwritten."""
    matrix = np.array([[0.75, np.nan], [-0.5, 0.3]])
    svg = heat_map(matrix, ["one", "two"], ["a", "b"], title="A title", label="distance")
    seen = texts(svg)
    assert {"0.75", "-0.5", "0.3", "one", "two", "a", "b", "distance"} <= set(seen)
    height = {
        "".join(node.itertext()).strip(): float(node.get("y", ""))
        for node in ElementTree.fromstring(svg).iter(f"{SVG}text")
        if node.get("y")
    }
    assert height["one"] < height["two"]  # further down is more in SVG
    assert "nan" not in " ".join(seen)
    # written nowhere in a large one, which is read by its colours
    many = np.full((11, 10), 0.123)
    large = heat_map(many, "abcdefghijk", "abcdefghij", title="t", label="l", limits=(0, 1))
    assert "0.12" not in texts(large)


def test_limits_fix_the_colours() -> None:
    """A value at the same limits has the same colour, whatever stands beside it."""

    def colour(beside: float) -> str:
        svg = heat_map([[0.2, beside]], "r", "ab", title="t", label="l", limits=(0.0, 1.0))
        return re.findall(r"fill: (#\w{6}); stroke: #ffffff", svg)[0]

    assert colour(0.9) == colour(0.1)


def test_points_that_lack_a_number_are_left_out() -> None:
    """Of four points one lacks x, one y."""
    xs, ys = [0, 1, None, 3], [0.0, None, 2.0, 3.0]
    svg = scatter({"tuned": (xs, ys)}, line=True, **NAMED)
    assert len(markers(svg, BLUE)) == 2
    assert "stroke-dasharray" in svg
    assert "nan" not in svg


def test_the_line_goes_through_points_on_a_line() -> None:
    """Two series on y = 2x + 1: the dashed line runs from the first to the last."""
    svg = scatter({"a": ([0, 1], [1, 3]), "b": ([2], [5])}, line=True, **NAMED)
    dashed = next(
        node.get("d", "")
        for node in ElementTree.fromstring(svg).iter(f"{SVG}path")
        if "stroke-dasharray" in node.get("style", "")
    )
    ends = [tuple(map(float, pair)) for pair in re.findall(r"[ML] ([\d.]+) ([\d.]+)", dashed)]
    assert ends[0] == pytest.approx(markers(svg, BLUE)[0], abs=0.01)
    assert ends[1] == pytest.approx(max(markers(svg, VERMILION)), abs=0.01)
    flat = scatter({"a": ([1, 1], [1, 3])}, line=True, **NAMED)
    assert "stroke-dasharray" not in flat  # no slope where all xs are one


@pytest.mark.parametrize(
    "name", ["😊", "👨\u200d👩\u200d👧 party", "$x$ & <b>", "_lead", "a\x07b", "Ġthe"]
)
def test_any_name_can_stand_in_a_figure(name: str) -> None:
    """Emoji, mathematics, markup, control characters: no warning, well-formed, as text."""
    shown = {"a\x07b": "a⟨U+0007⟩b"}.get(name, name)
    curve = dose_curve({name: ([0, 1], [0, 1])}, x=name, y=name, title=name)
    grid = heat_map([[1.0]], [name], [name], title=name, label=name)
    assert texts(curve).count(shown) == 4
    assert texts(grid).count(shown) == 4


def test_values_that_are_all_missing_or_all_alike_can_be_drawn() -> None:
    """Empty axes rather than an error: the run goes on."""
    dose_curve({"a": ([0, 1], [None, None])}, **NAMED)
    bars({"g": {"a": None}}, **NAMED)
    bars({"g": {"a": 0.0}, "h": {"a": 0.0}}, **NAMED)
    heat_map([[None]], ["r"], ["c"], title="t", label="l")
    heat_map([[2.0, 2.0]], ["r"], ["c", "d"], title="t", label="l")
    scatter({"a": ([None], [1.0])}, line=True, **NAMED)


def test_many_names_are_thinned_out() -> None:
    """Of 120 columns every third is named, so that they can be read."""
    names = [f"unit {i}" for i in range(120)]
    seen = texts(heat_map(np.zeros((1, 120)), ["r"], names, title="t", label="l"))
    assert [name for name in seen if name.startswith("unit")] == names[::3]


NOT = {"x": "scale", "y": "share", "title": " "}
WRONG: dict[str, tuple[Callable[[], str], str]] = {
    "no title": (lambda: dose_curve({"a": ([0], [0])}, **NOT), "lacks a label"),
    "no colour label": (lambda: heat_map([[1]], "r", "c", title="t", label=""), "lacks a label"),
    "no series": (lambda: dose_curve({}, **NAMED), "nothing to draw"),
    "no points": (lambda: scatter({}, **NAMED), "nothing to draw"),
    "no groups": (lambda: bars({}, **NAMED), "nothing to draw"),
    "empty groups": (lambda: bars({"g": {}}, **NAMED), "no group has a bar"),
    "uneven curve": (lambda: dose_curve({"a": ([0, 1], [0])}, **NAMED), "2 and 1 numbers"),
    "uneven cloud": (lambda: scatter({"a": ([0, 1], [0])}, **NAMED), "2 and 1 numbers"),
    "no dose": (lambda: dose_curve({"a": ([None], [0])}, **NAMED), r"doses \[nan\]"),
    "dose 0, log": (lambda: dose_curve({"a": ([0], [0])}, log_x=True, **NAMED), "on a log axis"),
    "infinite": (lambda: dose_curve({"a": ([0], [np.inf])}, **NAMED), "infinite"),
    "infinite bar": (lambda: bars({"g": {"a": np.inf}}, **NAMED), "infinite"),
    "infinite cell": (lambda: heat_map([[np.inf]], "r", "c", title="t", label="l"), "infinite"),
    "infinite x": (lambda: scatter({"a": ([np.inf], [0])}, **NAMED), "infinite"),
    "a band of nothing": (
        lambda: dose_curve({"a": ([0], [0])}, bands={"b": ([0], [0])}, **NAMED),
        "'b', which is no series",
    ),
    "a short band": (
        lambda: dose_curve({"a": ([0, 1], [0, 0])}, bands={"a": ([0], [0])}, **NAMED),
        "for 2 doses",
    ),
    "names": (lambda: heat_map([[1, 2]], "r", "c", title="t", label="l"), r"shape \(1, 2\)"),
    "no cells": (lambda: heat_map([[]], "r", "", title="t", label="l"), r"shape \(1, 0\)"),
    "ragged": (lambda: heat_map([[1], [1, 2]], "rs", "c", title="t", label="l"), "no matrix"),
    "limits": (
        lambda: heat_map([[1]], "r", "c", title="t", label="l", limits=(1, 0)),
        r"\(1, 0\) are no interval",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", WRONG)
def test_what_cannot_be_drawn_is_refused(fault: str) -> None:
    """A `UsageError` that names the value and what to do."""
    draw, says = WRONG[fault]
    with pytest.raises(UsageError, match=says) as error:
        draw()
    assert error.value.remedy


def test_only_a_figure_loads_matplotlib() -> None:
    """Importing the room or the plugin brings none along, and drawing brings no pyplot."""
    program = (
        "import sys, emotest.plugin, emotest.cli, emotest.report.figures as figures\n"
        "assert not any(name.partition('.')[0] == 'matplotlib' for name in sys.modules)\n"
        "figures.bars({'g': {'a': 1.0}}, x='x', y='y', title='t')\n"
        "assert 'matplotlib' in sys.modules and 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_doses_that_lie_close_are_not_written_over_one_another() -> None:
    """Of 0, 1/16, 1/8, 1/4, 1/2 and 1 the second has a tick, and no room for its name."""
    doses = [0, 0.0625, 0.125, 0.25, 0.5, 1]
    named = set(texts(dose_curve({"a": (doses, doses)}, x="x", y="y", title="t")))
    assert {"0.125", "0.25", "0.5", "1"} <= named
    assert "0.0625" not in named
    even = [0.05, 0.2, 1, 2, 10]
    log = texts(dose_curve({"a": (even, even)}, x="x", y="y", title="t", log_x=True))
    assert {"0.05", "0.2", "1", "2", "10"} <= set(log)

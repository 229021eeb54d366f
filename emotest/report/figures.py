"""Figures of a report as SVG text: dose curves, bars, heat maps, scatter plots.

Takes plain numbers and names, gives the text of one SVG file; knows no claim and writes nothing.
What is not available (None, NaN) is left out: a curve has a gap there, a bar or a cell is
missing. Text stays text, so that a report can be searched. Equal input gives equal bytes under
one matplotlib, whatever settings the user has. matplotlib is loaded with the first figure.

Colours are those of Okabe and Ito (https://jfly.uni-koeln.de/color/), told apart by readers with
and without colour vision; markers and hatches differ as well. The ground is white, so that a
figure reads the same on light and dark pages.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from emotest.errors import UsageError
from emotest.report.visible import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Numbers: TypeAlias = Iterable[float | None]
Array: TypeAlias = npt.NDArray[np.float64]

INCHES = (6.0, 4.0)
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
HATCHES = ("", "///", "...", "\\\\\\", "xxx", "++", "oo")

MOST_WRITTEN = 100
"""A heat map of so many cells or fewer has its numbers written in."""
MOST_BARS_WRITTEN = 16
ROOM_OF_A_LABEL = 0.08
"""Share of the axis that a dose such as 0.0625 takes."""

MOST_TICKS = 9
"""So few doses are written at the axis one by one."""
LEGEND_WIDTH = 90
"""Characters across a legend, of which six go to each line and marker."""
SHADES = 33
"""Steps of a heat map's colour scale; odd, so that 0 has one of its own where it is the middle."""

_SETTINGS: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "emotest",
    "text.parse_math": False,  # a "$" in a label is a "$"
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib
}


def dose_curve(
    series: Mapping[str, tuple[Numbers, Numbers]],
    *,
    x: str,
    y: str,
    title: str,
    bands: Mapping[str, tuple[Numbers, Numbers]] | None = None,
    log_x: bool = False,
) -> str:
    """A line with a marker at each dose, for each series.

    Args:
        series: name -> (doses, values), equally many. A value that is not available is a gap.
        x, y, title: what stands at the axes and above.
        bands: name of a series -> (lows, highs) at its doses, drawn as a pale band.
        log_x: a logarithmic axis of doses, which must all be above 0.

    Raises:
        UsageError: no series or label, columns of different lengths, a band without a series, a
            dose that is missing, infinite, or at most 0 on a logarithmic axis.
    """
    curves = {name: _columns(name, *pair) for name, pair in _some(series).items()}
    doses = np.concatenate([at for at, _ in curves.values()])
    if not np.isfinite(doses).all() or (log_x and not (doses > 0).all()):
        raise UsageError(
            f"doses {doses.tolist()} cannot all be drawn" + (" on a log axis" if log_x else ""),
            remedy="give every value a finite dose, above 0 where log_x is set",
        )
    ranges = {}
    for name, (lows, highs) in (bands or {}).items():
        if name not in curves:
            raise UsageError(
                f"a band is given for {name!r}, which is no series",
                remedy=f"series are {', '.join(map(repr, curves))}",
            )
        ranges[name] = _columns(name, lows, highs, n=len(curves[name][0]))

    def draw(axes: Axes) -> None:
        if log_x:
            axes.set_xscale("log")
        styles = zip(cycle(COLOURS), cycle(MARKERS), strict=False)
        for (name, (at, values)), (colour, marker) in zip(curves.items(), styles, strict=False):
            axes.plot(at, values, color=colour, marker=marker, markersize=5, label=_name(name))
            if name in ranges:
                axes.fill_between(at, *ranges[name], color=colour, alpha=0.18, linewidth=0)
        axes.xaxis.set_major_formatter(lambda dose, _: f"{dose:g}")
        axes.xaxis.set_minor_formatter(lambda dose, _: "")
        if len(at := np.unique(doses)) <= MOST_TICKS:
            named = _with_room(np.log(at) if log_x else at)
            axes.set_xticks(
                at, [f"{dose:g}" if name else "" for dose, name in zip(at, named, strict=True)]
            )
        axes.grid(alpha=0.3)

    return _svg(draw, x=x, y=y, title=title)


def bars(values: Mapping[str, Mapping[str, float | None]], *, x: str, y: str, title: str) -> str:
    """A group of bars for each key, one bar for each series within it.

    Args:
        values: group -> series -> height. Series are in the order in which they first appear; a
            height that is missing or not available has no bar.
        x, y, title: what stands at the axes and above.

    Raises:
        UsageError: no group, no series, no label, or an infinite height.
    """
    series = list(dict.fromkeys(name for group in _some(values).values() for name in group))
    if not series:
        raise UsageError("no group has a bar", remedy="give at least one height")
    heights = np.array([[_number(group.get(name)) for name in series] for group in values.values()])
    _finite_or_missing(heights)
    places = np.arange(len(values))
    width = 0.8 / len(series)

    def draw(axes: Axes) -> None:
        styles = zip(cycle(COLOURS), cycle(HATCHES), strict=False)
        for i, (name, (colour, hatch)) in enumerate(zip(series, styles, strict=False)):
            there = np.isfinite(heights[:, i])
            at = places[there] + (i - (len(series) - 1) / 2) * width
            drawn = axes.bar(
                at, heights[there, i], width, color=colour, hatch=hatch, edgecolor="white",
                label=_name(name),
            )  # fmt: skip
            if heights.size <= MOST_BARS_WRITTEN:
                axes.bar_label(drawn, [f"{h:.3g}" for h in heights[there, i]], fontsize=8)
        if (heights[np.isfinite(heights)] % 1 == 0).all():
            axes.locator_params(axis="y", integer=True)  # counts: there is no quarter of a unit
        axes.axhline(0.0, color="black", linewidth=0.8)
        _name_ticks(axes.set_xticks, places, list(values))
        axes.grid(axis="y", alpha=0.3)
        axes.set_axisbelow(True)

    return _svg(draw, x=x, y=y, title=title)


def heat_map(
    matrix: npt.ArrayLike,
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    title: str,
    label: str,
    limits: tuple[float, float] | None = None,
) -> str:
    """A matrix as coloured cells, the first row on top.

    Where the scale holds 0 within, it runs through white at 0, equally far to both sides.

    Args:
        matrix: (n_rows, n_columns); cells that are not available stay grey.
        rows, columns: a name for each.
        title: what stands above.
        label: what the colours mean.
        limits: ends of the colour scale; None for the least and greatest value.

    Raises:
        UsageError: no cell, names that do not fit the matrix, limits that are no interval,
            infinite values, no title or label.
    """
    try:
        cells = np.asarray(matrix, dtype=np.float64)  # None becomes NaN
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"the matrix is no matrix of numbers ({error})", remedy="give (n_rows, n_columns)"
        ) from error
    if cells.size == 0 or cells.shape != (len(rows), len(columns)):
        raise UsageError(
            f"a matrix of shape {cells.shape} has {len(rows)} names of rows and {len(columns)} "
            "of columns",
            remedy="give a name for each row and column, and at least one cell",
        )
    _finite_or_missing(cells)
    low, high = _scale(cells, limits)

    def draw(axes: Axes) -> None:
        import matplotlib

        colours = matplotlib.colormaps["PuOr_r" if low < 0 < high else "cividis"]
        colours = colours.resampled(SHADES)
        # Cells as shapes, not as an image: sharp at any size.
        mesh = axes.pcolormesh(cells, cmap=colours, vmin=low, vmax=high, edgecolors="white")
        axes.set_facecolor("0.85")
        axes.invert_yaxis()
        _name_ticks(axes.set_xticks, np.arange(len(columns)) + 0.5, columns)
        _name_ticks(axes.set_yticks, np.arange(len(rows)) + 0.5, rows)
        figure = axes.get_figure()
        assert figure is not None
        figure.colorbar(mesh, ax=axes).set_label(_name(label))
        if cells.size > MOST_WRITTEN:
            return
        for (row, column), value in np.ndenumerate(cells):
            if np.isfinite(value):
                red, green, blue, _ = mesh.to_rgba(np.array(value))
                light = 0.299 * red + 0.587 * green + 0.114 * blue > 0.5
                axes.text(
                    column + 0.5, row + 0.5, f"{value:.2g}", ha="center", va="center",
                    fontsize=8, color="black" if light else "white",
                )  # fmt: skip

    return _svg(draw, x=None, y=None, title=title, needs=label)


def scatter(
    points: Mapping[str, tuple[Numbers, Numbers]],
    *,
    x: str,
    y: str,
    title: str,
    line: bool = False,
) -> str:
    """Points, a colour and a marker for each series.

    Args:
        points: name -> (xs, ys), equally many; a point that lacks either is left out.
        x, y, title: what stands at the axes and above.
        line: draw the least-squares line through the points of all series, where at least two
            have different xs.

    Raises:
        UsageError: no series, no label, columns of different lengths, infinite numbers.
    """
    clouds = {}
    for name, pair in _some(points).items():
        xs, ys = _columns(name, *pair)
        _finite_or_missing(xs)
        there = np.isfinite(xs) & np.isfinite(ys)
        clouds[name] = xs[there], ys[there]

    def draw(axes: Axes) -> None:
        styles = zip(cycle(COLOURS), cycle(MARKERS), strict=False)
        for (name, (xs, ys)), (colour, marker) in zip(clouds.items(), styles, strict=False):
            axes.scatter(xs, ys, s=28, color=colour, marker=marker, alpha=0.85, label=_name(name))
        every_x, every_y = (np.concatenate([pair[i] for pair in clouds.values()]) for i in (0, 1))
        if line and len(np.unique(every_x)) > 1:
            slope, start = np.polyfit(every_x, every_y, 1)
            ends = np.array([every_x.min(), every_x.max()])
            axes.plot(ends, start + slope * ends, color="0.3", linestyle="--", linewidth=1)
        axes.grid(alpha=0.3)

    return _svg(draw, x=x, y=y, title=title)


def _svg(
    draw: Callable[[Axes], None], *, x: str | None, y: str | None, title: str, needs: str = "-"
) -> str:
    """The text of one drawing; `x` and `y` are None where the axes name themselves."""
    if not all(text is None or text.strip() for text in (x, y, title, needs)):
        raise UsageError(
            f"a figure lacks a label: x={x!r}, y={y!r}, title={title!r}, label={needs!r}",
            remedy="say in a few words what is drawn, with its unit",
        )

    def compose(figure: Figure) -> None:
        axes = figure.add_subplot()
        draw(axes)
        axes.set_title(_name(title), fontsize=11)
        axes.set_xlabel(_name(x or ""))
        axes.set_ylabel(_name(y or ""))
        _add_legend(figure, axes)

    return svg_text(compose, inches=INCHES, ground="white", title=title)


def svg_text(
    compose: Callable[[Figure], None],
    *,
    inches: tuple[float, float],
    ground: str,
    title: str,
    settings: Mapping[str, Any] | None = None,
) -> str:
    """What `compose` draws on an empty figure, as the text of one `<svg>`.

    Args:
        compose: gets the figure, within the settings that hold for every figure of a report.
        inches: width and height.
        ground: colour of the ground; "none" for the page's own.
        title: what the file is called in its metadata.
        settings: matplotlib's settings beside those of every report.
    """
    import matplotlib.style
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    # "default" first: the user's own matplotlibrc has no part in a report.
    layers: list[Any] = ["default", _SETTINGS, dict(settings or {})]
    with matplotlib.style.context(layers), warnings.catch_warnings():
        # The font that lays text out need not have every emoji; the reader's fonts show it.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure = Figure(figsize=inches, layout="constrained", facecolor=ground)
        FigureCanvasSVG(figure)
        compose(figure)
        text = io.StringIO()
        about = {"Date": None, "Creator": None, "Title": _name(title)}
        figure.savefig(text, format="svg", metadata=about)
    # Without the prologue the text stands in a page as well as in a file.
    return "<svg" + text.getvalue().partition("<svg")[2]


def _add_legend(figure: Figure, axes: Axes) -> None:
    handles, names = axes.get_legend_handles_labels()
    if names:
        # Below the plot, where it hides no data.
        ncols = max(1, min(3, LEGEND_WIDTH // (max(map(len, names)) + 6)))
        figure.legend(handles, names, loc="outside lower center", ncols=ncols, fontsize=8)


def _with_room(places: Array) -> list[bool]:
    """Which of ascending places have room for a label beside that of the last one that has."""
    span, last, room = np.ptp(places), -np.inf, []
    for place in places:
        room.append(bool(place - last >= ROOM_OF_A_LABEL * span))
        last = place if room[-1] else last
    return room


def _name_ticks(set_ticks: Callable[..., Any], places: Array | Any, names: Sequence[str]) -> None:
    """Names at the places; every n-th where there are too many to be read."""
    step = -(-len(names) // 40)
    written = [_name(name) for name in names]
    steep = set_ticks.__name__ == "set_xticks" and sum(map(len, written[::step])) > 60
    turned = {"rotation": 45, "ha": "right"} if steep else {}
    set_ticks(places[::step], written[::step], fontsize=8, **turned)


def _name(text: str) -> str:
    shown = visible(str(text))
    # matplotlib leaves what begins with an underscore out of the legend.
    return f"\N{THIN SPACE}{shown}" if shown.startswith("_") else shown


def _some(values: Mapping[str, Any]) -> Mapping[str, Any]:
    if not values:
        raise UsageError("there is nothing to draw", remedy="give at least one series")
    return values


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def _columns(
    name: str, first: Numbers, second: Numbers, n: int | None = None
) -> tuple[Array, Array]:
    """Two columns of equally many numbers; None is NaN."""
    one, other = (np.array([_number(v) for v in column]) for column in (first, second))
    if len(one) != len(other) or (n is not None and len(one) != n):
        raise UsageError(
            f"{name!r} has columns of {len(one)} and {len(other)} numbers"
            + ("" if n is None else f" for {n} doses"),
            remedy="give one number of each for every point, None where it is not available",
        )
    _finite_or_missing(other)
    return one, other


def _finite_or_missing(values: Array) -> None:
    if np.isinf(values).any():
        raise UsageError(
            "an infinite number cannot be drawn", remedy="give None where there is no value"
        )


def _scale(cells: Array, limits: tuple[float, float] | None) -> tuple[float, float]:
    """The ends of the colours: equally far from 0 where 0 lies between them."""
    known = cells[np.isfinite(cells)]
    low, high = limits or ((known.min(), known.max()) if known.size else (0.0, 1.0))
    if limits and not (np.isfinite(limits).all() and low < high):
        raise UsageError(
            f"limits {limits} are no interval", remedy="give the lower end first, both finite"
        )
    if low < 0 < high:
        most = max(-low, high)
        return -most, most
    return float(low), float(high)

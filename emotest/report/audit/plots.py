"""The plots of an audit, as SVG that takes its colours from the page: light or dark.

An `AuditResult` in, a `Plot` for each question that it can answer out: text of one `<svg>`, and
the same in words for whoever does not see it. Base and tuned differ in colour, marker and hatch.
matplotlib is loaded with the first plot.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from emotest.audit.result import AuditResult, EmojiShift, Measure, PlaceProbability
from emotest.report.audit.wording import (
    amount,
    by_register,
    change,
    change_interval,
    is_share,
    said,
)
from emotest.report.figures import svg_text
from emotest.report.visible import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 4.6
"""Inches; narrow, so that letters keep their size on a phone."""
MOST_EMOJI = 16
MOST_REGISTERS = 24
LONGEST_LABEL = 28

INK, FAINT, BASE, TUNED = "#010203", "#040506", "#070809", "#0a0b0c"
"""Stand for the page's colours while matplotlib draws; no drawing has these by chance."""
_COLOURS = {
    INK: "currentColor",
    FAINT: "var(--faint)",
    BASE: "var(--base)",
    TUNED: "var(--tuned)",
}
_LOG_10 = 2.302585092994046
_SETTINGS: dict[str, Any] = {
    "text.color": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK,
    "axes.edgecolor": FAINT, "grid.color": FAINT, "axes.facecolor": "none", "hatch.color": INK,
    "grid.linewidth": 0.6, "axes.spines.top": False, "axes.spines.right": False,
    "font.size": 10, "axes.labelsize": 10, "axes.titlesize": 10, "legend.fontsize": 10,
    "xtick.labelsize": 9.5, "ytick.labelsize": 9.5, "legend.frameon": False,
    "hatch.linewidth": 0.6,
}  # fmt: skip
STYLES = {
    "base": {"color": BASE, "marker": "o", "label": "base"},
    "tuned": {"color": TUNED, "marker": "s", "label": "tuned"},
}


@dataclass(frozen=True)
class Plot:
    """A drawing with what it is called, how it is read, and the same in words.

    `svg` is markup of this project's own making, `alt` and `caption` may hold strangers' text.
    """

    name: str
    title: str
    caption: str
    alt: str
    svg: str


def plots(result: AuditResult) -> list[Plot]:
    """Every plot that the result has numbers for, in the order of the report."""
    made = (rates(result), came_and_went(result), places(result), positions(result),
            evidence(result))  # fmt: skip
    return [plot for plot in made if plot is not None]


def rates(result: AuditResult) -> Plot | None:
    """The headline measure by register, and the interval of each difference beside it."""
    rows = [m for m in by_register(result) if m.difference is not None][:MOST_REGISTERS]
    if not rows:
        return None
    unit, factor = rows[0].unit, 100 if is_share(rows[0].unit) else 1
    at = range(len(rows))

    def compose(figure: Figure) -> None:
        left, right = figure.subplots(1, 2, sharey=True)
        for side in ("base", "tuned"):
            values = [factor * (getattr(m, side) or 0.0) for m in rows]
            left.plot(values, at, linestyle="none", markersize=6, zorder=3, **STYLES[side])
        ends = [[factor * (getattr(m, side) or 0.0) for m in rows] for side in STYLES]
        left.hlines(at, *ends, color=FAINT, linewidth=2)
        left.set_yticks(at, [_label(m.register or "") for m in rows])
        left.invert_yaxis()
        left.set_xlim(left=0)
        left.set_xlabel(f"{_label(unit)}{' (%)' if factor == 100 else ''}")
        _differences(right, rows, factor)
        if rows[0].unit == "share of answers":
            margin = 100 * result.verdict.margin
            right.axvspan(-margin, margin, color=FAINT, alpha=0.25, linewidth=0, zorder=0)
        right.set_xlabel("difference" + (" (points)" if factor == 100 else ""))
        _grid(left, right)
        legend(figure, left)

    told = "; ".join(
        f"{m.register}: {amount(m.base, unit)} to {amount(m.tuned, unit)}, difference "
        f"{change(m.difference, unit)} ({change_interval(m.low, m.high, unit)})"
        for m in rows
    )
    return drawn(
        "rates", f"{said(rows[0].name)}, by register".capitalize(),
        f"Left: base and tuned. Right: tuned minus base with its {rows[0].level:.0%} interval; "
        "the band is the margin.",
        told, compose, height=1.3 + 0.27 * len(rows),
    )  # fmt: skip


def _differences(axes: Axes, rows: Sequence[Measure], factor: int) -> None:
    for at, row in enumerate(rows):
        if row.low is not None and row.high is not None:
            axes.hlines(at, factor * row.low, factor * row.high, color=INK, linewidth=1.4)
        axes.plot([factor * (row.difference or 0.0)], [at], "D", color=INK, markersize=4.5)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.tick_params(axis="y", length=0)


def came_and_went(result: AuditResult) -> Plot | None:
    """The emoji whose use changed most, as log-odds with intervals."""
    most = sorted(result.emoji, key=lambda shift: -abs(shift.log_odds))[:MOST_EMOJI]
    rows = sorted(most, key=lambda shift: -shift.log_odds)
    if not rows:
        return None

    def compose(figure: Figure) -> None:
        axes = figure.add_subplot()
        for at, row in enumerate(rows):
            style = STYLES["tuned" if row.log_odds > 0 else "base"]
            axes.hlines(at, row.low, row.high, color=style["color"], linewidth=2)
            axes.plot([row.log_odds], [at], marker=style["marker"], color=style["color"],
                      markersize=6)  # fmt: skip
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.set_yticks(range(len(rows)), [_emoji_label(row) for row in rows])
        axes.invert_yaxis()
        axes.set_xlabel("← went\u2003\u2003log-odds\u2003\u2003came →")
        _grid(axes)

    told = "; ".join(
        f"{row.emoji} {row.name}: in {row.base} answers before, {row.tuned} after, log-odds "
        f"{row.log_odds:+.2g} ({row.low:+.2g} to {row.high:+.2g})"
        for row in rows
    )
    left = f" The {len(rows)} that changed most of {len(result.emoji)}." if (
        len(rows) < len(result.emoji)
    ) else ""  # fmt: skip
    return drawn(
        "emoji", "Emoji that came and went",
        "Answers before → after; log-odds of the change with their intervals. An interval that "
        f"holds 0 may be chance.{left}",
        told, compose, height=1.0 + 0.3 * len(rows),
    )  # fmt: skip


def _emoji_label(row: EmojiShift) -> str:
    return f"{row.emoji}\u2002{row.base} → {row.tuned}"


def places(result: AuditResult) -> Plot | None:
    """P(emoji) at each kind of place: the 2x2 of who wrote the text and whose weights judge it."""
    cells = result.probabilities
    if not cells:
        return None
    names = list(dict.fromkeys(cell.place for cell in cells))

    def compose(figure: Figure) -> None:
        grid = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
        for axes, name in zip(grid, names, strict=True):
            _two_by_two(axes, [cell for cell in cells if cell.place == name])
            axes.set_title(name)
        grid[0].set_ylabel("P(next is an emoji)")
        grid[0].set_ylim(bottom=0)
        legend(figure, grid[0], title="weights")

    told = "; ".join(
        f"{c.place}, text of {c.text}, weights of {c.weights}: "
        f"{'at least ' if c.served or c.open is None else ''}{c.probability:.3g}"
        for c in cells
    )
    served = " A served model gives lower bounds only." if any(c.served for c in cells) else ""
    return drawn(
        "places", "P(emoji) by place: text by weights",
        "At each place the models judge both models' texts. Between groups the text differs, "
        "within a group the weights. Whiskers reach to the upper bound." + served,
        told, compose, height=2.9,
    )  # fmt: skip


def _two_by_two(axes: Axes, cells: Sequence[PlaceProbability]) -> None:
    texts = ("base", "tuned")
    for side, shift, hatch in (("base", -0.2, ""), ("tuned", 0.2, "///")):
        mine = {cell.text: cell for cell in cells if cell.weights == side}
        there = [text for text in texts if text in mine]
        if not there:
            continue
        at = [texts.index(text) + shift for text in there]
        heights = [mine[text].probability for text in there]
        open_mass = [mine[text].open or 0.0 for text in there]
        axes.bar(at, heights, 0.36, color=STYLES[side]["color"], hatch=hatch, label=side)
        whiskers = [[0.0] * len(at), open_mass]
        axes.errorbar(
            at, heights, yerr=whiskers, fmt="none", color=INK, ecolor=INK, elinewidth=1, capsize=2
        )
    axes.set_xticks(range(2), ["text of\nbase", "text of\ntuned"])
    axes.set_xlim(-0.55, 1.55)
    axes.grid(axis="y", alpha=0.5)
    axes.set_axisbelow(True)


def positions(result: AuditResult) -> Plot | None:
    """In which tenth of an answer its first emoji stands."""
    rows = sorted(result.positions, key=lambda position: position.tenth)
    if not any(row.base or row.tuned for row in rows):
        return None

    def compose(figure: Figure) -> None:
        axes = figure.add_subplot()
        at = range(len(rows))
        for side, shift, hatch in (("base", -0.2, ""), ("tuned", 0.2, "///")):
            heights = [100 * getattr(row, side) for row in rows]
            axes.bar([x + shift for x in at], heights, 0.38, color=STYLES[side]["color"],
                     hatch=hatch, label=side)  # fmt: skip
        first = min(row.tenth for row in rows)
        axes.set_xticks(at, [_ordinal(row.tenth - first + 1) for row in rows])
        axes.set_xlabel("tenth of the answer")
        axes.set_ylabel("share of answers (%)")
        axes.grid(axis="y", alpha=0.5)
        axes.set_axisbelow(True)
        legend(figure, axes)

    first = min(row.tenth for row in rows)
    told = "; ".join(
        f"{_ordinal(row.tenth - first + 1)} tenth: base {100 * row.base:.1f} %, tuned "
        f"{100 * row.tuned:.1f} %"
        for row in rows
    )
    return drawn(
        "positions", "Where the first emoji stands",
        "Share of answers whose first emoji lies in this tenth of the answer.",
        told, compose, height=2.7,
    )  # fmt: skip


def _ordinal(number: int) -> str:
    return f"{number}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(number, 'th') }"


def evidence(result: AuditResult) -> Plot | None:
    """How the evidence grew with the prompts, and the thresholds at which it decides."""
    looks, seen = result.evidence.looks, result.evidence
    if not looks:
        return None
    series = (
        ("more emoji", "more", TUNED, "s", "-"),
        ("fewer emoji", "fewer", BASE, "o", "-"),
        ("within the margin", "within", INK, "^", ":"),
    )
    few = 10 if len(looks) > 30 else 1

    def compose(figure: Figure) -> None:
        axes = figure.add_subplot()
        x = [0, *(look.n_prompts for look in looks)]
        for label, field, colour, marker, line in series:
            y = [0.0, *(getattr(look, field) / _LOG_10 for look in looks)]
            axes.plot(x, y, color=colour, marker=marker, markersize=4, markevery=few,
                      linestyle=line, linewidth=1.6, label=label)  # fmt: skip
        for name, threshold, line in (
            ("change", seen.threshold_change, "--"),
            ("within", seen.threshold_within, "-."),
        ):
            axes.axhline(threshold / _LOG_10, color=INK, linewidth=1, linestyle=line,
                         label=f"decides: {name}")  # fmt: skip
        axes.set_xlabel("prompts asked")
        axes.set_ylabel("evidence, log₁₀ of e")
        axes.set_xlim(left=0)
        axes.grid(alpha=0.5)
        legend(figure, axes, columns=2)

    last = looks[-1]
    told = (
        f"After {last.n_prompts} prompts: "
        + ", ".join(f"{name} {getattr(last, f) / _LOG_10:.2f}" for name, f, *_ in series)
        + f"; a change is decided at {seen.threshold_change / _LOG_10:.2f}, equivalence at "
        f"{seen.threshold_within / _LOG_10:.2f} (log10 of the e-value)"
    )
    return drawn(
        "evidence", "Evidence over prompts",
        "The largest e-value so far. A line that reaches its threshold decides, however often "
        "one looks.",
        told, compose, height=3.1,
    )  # fmt: skip


def inside_plots(result: AuditResult) -> list[Plot]:
    """What a look inside has numbers for: shifts along traits, and units, by layer."""
    made = (trait_shifts(result), changed_units(result)) if result.inside else ()
    return [plot for plot in made if plot is not None]


def trait_shifts(result: AuditResult) -> Plot | None:
    """How far the states moved along each trait's direction, in every layer."""
    inside = result.inside
    shifts = [one for one in inside.traits if one.by_layer] if inside else []
    if inside is None or inside.layer is None or not shifts:
        return None
    declared = inside.layer + 1
    colours, markers, lines = (TUNED, BASE, INK), "osD^v", ("-", "--", ":", "-.", "-")

    def compose(figure: Figure) -> None:
        axes = figure.add_subplot()
        for i, one in enumerate(shifts):
            x = range(1, len(one.by_layer) + 1)
            axes.plot(x, one.by_layer, color=colours[i % 3], marker=markers[i % 5], markersize=4,
                      linestyle=lines[i % 5], linewidth=1.5, label=_label(one.trait))  # fmt: skip
        axes.axhline(0, color=INK, linewidth=0.8)
        axes.axvline(declared, color=FAINT, linewidth=4, alpha=0.5, zorder=0)
        axes.locator_params(axis="x", integer=True)
        axes.set_xlabel("layer")
        axes.set_ylabel("moved along the direction")
        axes.grid(alpha=0.5)
        legend(figure, axes, columns=2)

    told = "; ".join(
        f"{one.trait}: {', '.join(f'{value:+.2f}' for value in one.by_layer)}" for one in shifts
    )
    return drawn(
        "inside-traits", "Shift along trait directions, by layer",
        "1 is as far as the base moves when it answers in character. The band is the declared "
        f"layer, {declared}.",
        f"From the first layer to the last: {told}", compose, height=3.3,
    )  # fmt: skip


def changed_units(result: AuditResult) -> Plot | None:
    """The share of FFN units that changed in each layer, and of those that changed much."""
    layers = result.inside.layers if result.inside else []
    if not layers:
        return None
    series = (("changed", "n_changed", BASE, ""), ("by 1 SD or more", "n_large", TUNED, "///"))

    def compose(figure: Figure) -> None:
        axes = figure.add_subplot()
        x = [one.layer + 1 for one in layers]
        for name, field, colour, hatch in series:
            y = [100 * getattr(one, field) / max(1, one.n_units) for one in layers]
            axes.bar(x, y, 0.8, color=colour, hatch=hatch, label=name)
        axes.locator_params(axis="x", integer=True)
        axes.set_xlabel("layer")
        axes.set_ylabel("share of FFN units (%)")
        axes.grid(axis="y", alpha=0.5)
        axes.set_axisbelow(True)
        legend(figure, axes)

    told = "; ".join(
        f"layer {one.layer + 1}: {one.n_changed} of {one.n_units} changed, {one.n_large} much"
        for one in layers
    )
    return drawn(
        "inside-units", "FFN units that changed, by layer",
        "At ends of sentences of the same texts. Both models read the same tokens, so the test "
        "sees the smallest change.",
        told, compose, height=2.9,
    )  # fmt: skip


def _grid(*all_axes: Axes) -> None:
    for axes in all_axes:
        axes.grid(axis="x", alpha=0.5)
        axes.set_axisbelow(True)


def legend(figure: Figure, axes: Axes, *, columns: int = 3, title: str = "") -> None:
    """Name what the axes show, above the drawing."""
    handles, names = axes.get_legend_handles_labels()
    box = figure.legend(handles, names, loc="outside upper center", ncols=columns,
                        handletextpad=0.5, columnspacing=1.2)  # fmt: skip
    if title:
        box.set_title(title)


def _label(text: str) -> str:
    shown = visible(text)
    return shown if len(shown) <= LONGEST_LABEL else f"{shown[: LONGEST_LABEL - 1]}…"


def drawn(
    name: str, title: str, caption: str, alt: str, compose: Callable[[Figure], None], *,
    height: float,
) -> Plot:  # fmt: skip
    """A plot `height` inches high; `compose` draws it in the colours that stand for the page's."""
    svg = svg_text(compose, inches=(WIDTH, height), ground="none", title=title, settings=_SETTINGS)
    return Plot(name, title, caption, alt, "".join(_of_the_page(svg, name)))


def _of_the_page(svg: str, name: str) -> Iterator[str]:
    """The drawing as a part of a page: the page's colours, ids that are its own."""
    svg = re.sub(r"<title>.*?</title>|<metadata>.*?</metadata>|<style.*?</style>", "", svg,
                 flags=re.DOTALL)  # fmt: skip
    for part in re.split(r"(<[^>]*>)", svg):  # attributes hold no ">": it is escaped there
        if not part.startswith("<"):
            yield part
            continue
        for stands_for, colour in _COLOURS.items():
            part = part.replace(stands_for, colour)
        part = re.sub(r'(\sid="|url\(#|href="#)', rf"\g<1>{name}-", part)
        if part.startswith("<svg"):  # what it shows is said by the element around it
            part = re.sub(r'\s(width|height)="[^"]*"', "", part)
            part = part.replace("<svg", '<svg aria-hidden="true" focusable="false"', 1)
        yield part

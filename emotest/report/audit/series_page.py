"""A series of checkpoints on pages: HTML, Markdown, the plot by itself, and all of it as JSON.

A `Series` in, text out, or a folder beside those of its audits.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from markupsafe import Markup

from emotest.report.audit import wording
from emotest.report.audit.plots import FAINT, INK, STYLES, Plot, drawn, legend
from emotest.report.audit.series import Series, rows
from emotest.report.figures import MOST_TICKS, dose_curve
from emotest.report.markdown import markdown_table
from emotest.report.page import page
from emotest.report.visible import markdown_text
from emotest.report.writing import claimed, json_text, replace, writing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HTML, JSON, PLOT, MARKDOWN = "series.html", "series.json", "series.svg", "series.md"
_CLOSE = 0.07
"""Ticks nearer to one another than this share of the axis would be written over one another."""


def write_series(series: Series, reports: Path, name: str) -> Path:
    """Write the four files into a folder of their own; the HTML's path.

    Raises:
        StoreError: the folder cannot be written.
    """
    contents = {
        HTML: html_series(series),
        JSON: json_text([vars(one) for one in series.points], indent=1) + "\n",
        PLOT: plot_file(series),
        MARKDOWN: markdown_series(series),
    }
    with writing(reports / name, elsewhere="name another folder with --reports"):
        folder = claimed(reports / name)
        for file, text in contents.items():
            replace(folder / file, text)
    return folder / HTML


def html_series(series: Series) -> str:
    """The page: since when the models have drifted, the plot, a row for each checkpoint.

    Links lead to the report of each checkpoint, in its folder beside this one.
    """
    plot = over_steps(series)
    return page(
        "audit/series.html.jinja",
        series=series,
        wording=wording,
        plot=plot,
        svg=Markup(plot.svg),
        rows=list(zip(rows(series), series.points, _links(series), strict=True)),
    )


def markdown_series(series: Series) -> str:
    """The same, with the plot as a file beside it."""
    shown = rows(series)
    names = (
        f"[{markdown_text(one.subject)}]({link})" if link else markdown_text(one.subject)
        for one, link in zip(series.points, _links(series), strict=True)
    )
    table = markdown_table(
        [*shown[0], "checkpoint"],
        [(*map(str, row.values()), name) for row, name in zip(shown, names, strict=True)],
    )
    parts = (
        f"# Drift over checkpoints: {series.word}",
        f"**{markdown_text(series.sentence)}**",
        f"![drift over steps]({PLOT})",
        table,
        f"Answers with an emoji, differences in points of 100. {wording.SERIES_SAYS}",
    )
    return "\n\n".join(parts) + "\n"


def over_steps(series: Series) -> Plot:
    """Shares of both models over the steps, and below them the differences with their intervals."""
    points = series.points
    steps = [one.step for one in points]

    def compose(figure: Figure) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True)
        for side in ("base", "tuned"):
            shares = [100 * getattr(one, side) for one in points]
            upper.plot(steps, shares, markersize=6, linewidth=1.6, **STYLES[side])
        upper.set_ylim(bottom=0)
        upper.set_ylabel("answers with\nemoji (%)")
        margin = 100 * series.margin
        lower.axhspan(-margin, margin, color=FAINT, alpha=0.25, linewidth=0, zorder=0)
        lower.axhline(0, color=INK, linewidth=0.8)
        lows, highs = ([100 * getattr(one, end) for one in points] for end in ("low", "high"))
        lower.vlines(steps, lows, highs, color=INK, linewidth=1.6)
        for word, filled in (("drift", INK), ("no drift", "none")):
            mine = [one for one in points if (one.word == "drift") == (word == "drift")]
            lower.plot(
                [one.step for one in mine], [100 * one.difference for one in mine], "D",
                color=INK, markerfacecolor=filled, markersize=5.5, linestyle="none",
                label=word if mine else None, zorder=3,
            )  # fmt: skip
        lower.set_ylabel("difference\n(points)")
        lower.set_xlabel("step")
        lower.ticklabel_format(axis="x", style="plain", useOffset=False)
        if _apart(steps):
            lower.set_xticks(steps)
        for axes in (upper, lower):
            axes.grid(alpha=0.5)
            axes.set_axisbelow(True)
        legend(figure, upper)

    told = "; ".join(
        f"step {one['step']}: {one['verdict']}, {one['base']} to {one['tuned']}, difference "
        f"{one['difference']} ({one['interval']})"
        for one in rows(series)
    )
    return drawn(
        "steps", "Drift over steps",
        "Above: base and tuned. Below: tuned minus base with its "
        f"{100 * series.level:.4g} % interval; the band is the margin, a filled mark is a drift.",
        told, compose, height=4.2,
    )  # fmt: skip


def plot_file(series: Series) -> str:
    """The difference in answers with an emoji over steps, with its interval, as an SVG file."""
    points = series.points
    name = "answers with an emoji, tuned minus base"
    return dose_curve(
        {name: ([one.step for one in points], [one.difference for one in points])},
        x="step",
        y="difference of shares",
        title="Drift over checkpoints",
        bands={name: ([one.low for one in points], [one.high for one in points])},
    )


def _apart(steps: Sequence[int]) -> bool:
    """Whether every step can be written at the axis."""
    gaps = [after - before for before, after in pairwise(steps)]
    return len(steps) <= MOST_TICKS and min(gaps, default=1) > _CLOSE * (steps[-1] - steps[0])


def _links(series: Series) -> list[str | None]:
    return [
        f"../{quote(one.report, errors='replace')}/report.html" if one.report else None
        for one in series.points
    ]

"""Drift over a series of checkpoints: one table, one plot, beside the report of each audit."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emotest.audit.measuring import by_prompt, has_emoji
from emotest.report.audit.carrying_out import Finished
from emotest.report.figures import dose_curve
from emotest.report.visible import markdown_text
from emotest.report.writing import claimed, replace, writing

JSON, PLOT, MARKDOWN = "series.json", "series.svg", "series.md"


@dataclass(frozen=True)
class Point:
    """One checkpoint: its step, its verdict, and shares of answers with an emoji."""

    step: int
    subject: str
    word: str
    base: float
    tuned: float
    difference: float
    low: float
    high: float
    n_prompts: int
    report: str | None


def points(audits: Sequence[Finished], steps: Sequence[int]) -> list[Point]:
    """A point for each audit, in the order of the steps."""
    found = []
    for step, one in sorted(zip(steps, audits, strict=True), key=lambda pair: pair[0]):
        verdict = one.result.verdict
        base, tuned = (
            float(by_prompt(one.pairs, role, has_emoji).mean()) for role in ("base", "tuned")
        )
        found.append(
            Point(
                step=step,
                subject=one.result.tuned.subject,
                word=verdict.word,
                base=base,
                tuned=tuned,
                difference=verdict.value,
                low=verdict.low,
                high=verdict.high,
                n_prompts=verdict.n_prompts,
                report=one.folder.name if one.folder else None,
            )
        )
    return found


def table(series: Sequence[Point]) -> list[dict[str, Any]]:
    """Rows for a terminal or a page."""
    return [
        {
            "step": one.step,
            "verdict": one.word,
            "base": f"{one.base:.1%}",
            "tuned": f"{one.tuned:.1%}",
            "difference": f"{one.difference:+.1%}",
            "interval": f"{one.low:+.1%} to {one.high:+.1%}",
            "prompts": one.n_prompts,
        }
        for one in series
    ]


def plot(series: Sequence[Point]) -> str:
    """The difference in answers with an emoji over steps, with its interval, as SVG."""
    steps = [one.step for one in series]
    name = "answers with an emoji, tuned minus base"
    return dose_curve(
        {name: (steps, [one.difference for one in series])},
        x="step",
        y="difference of shares",
        title="Drift over checkpoints",
        bands={name: ([one.low for one in series], [one.high for one in series])},
    )


def write_series(series: Sequence[Point], reports: Path, name: str) -> Path:
    """Write table and plot into a folder of their own; the page's path."""
    with writing(reports / name, elsewhere="name another folder with --reports"):
        folder = claimed(reports / name)
        rows = [vars(one) for one in series]
        replace(folder / JSON, json.dumps(rows, indent=1) + "\n")
        replace(folder / PLOT, plot(series))
        replace(folder / MARKDOWN, markdown(series))
    return folder / MARKDOWN


def markdown(series: Sequence[Point]) -> str:
    """The page: the plot, and a row for each checkpoint with a link to its report."""
    rows = table(series)
    head = [*rows[0], "checkpoint"]
    lines = ["# Drift over checkpoints", "", f"![drift over steps]({PLOT})", ""]
    lines += [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row, one in zip(rows, series, strict=True):
        link = markdown_text(one.subject)
        if one.report:
            link = f"[{link}](../{one.report}/report.html)"
        lines.append(f"| {' | '.join(map(str, row.values()))} | {link} |")
    return "\n".join(lines) + "\n"

"""Drift over a series of checkpoints: from which step on the models have drifted.

Finished audits and their steps in, a `Series` out, which every view is made from; `series_page`
shows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from emotest.audit.measuring import by_prompt, has_emoji
from emotest.audit.result import EXIT_CODES, Word, gravest
from emotest.report.audit.carrying_out import Finished
from emotest.report.audit.wording import amount, change, change_interval


@dataclass(frozen=True)
class Point:
    """One checkpoint: its step, its verdict, and shares of answers with an emoji."""

    step: int
    subject: str
    word: Word
    base: float
    tuned: float
    difference: float
    low: float
    high: float
    n_prompts: int
    report: str | None


@dataclass(frozen=True)
class Series:
    """Checkpoints by their steps, at least one, with what all of them were held against."""

    base: str
    made_at: str
    margin: float
    level: float
    points: tuple[Point, ...]

    @classmethod
    def of(cls, audits: Sequence[Finished], steps: Sequence[int]) -> Series:
        """A point for each audit, in the order of the steps."""
        ordered = sorted(zip(steps, audits, strict=True), key=lambda pair: pair[0])
        last = ordered[-1][1].result
        return cls(
            base=last.base.subject,
            made_at=last.made_at,
            margin=last.verdict.margin,
            level=last.verdict.level,
            points=tuple(_point(step, one) for step, one in ordered),
        )

    @property
    def word(self) -> Word:
        """The gravest verdict of them all, which the exit code follows."""
        return gravest(one.word for one in self.points)

    @property
    def exit_code(self) -> int:
        """What the command ends with."""
        return EXIT_CODES[self.word]

    @property
    def sentence(self) -> str:
        """From which step on the models have drifted, or that none of them is shown to have."""
        drifted = [one for one in self.points if one.word == "drift"]
        return _drift(self.points, drifted) if drifted else _no_drift(self.points)


def _point(step: int, one: Finished) -> Point:
    verdict = one.result.verdict
    base, tuned = (
        float(by_prompt(one.pairs, role, has_emoji).mean()) for role in ("base", "tuned")
    )
    return Point(
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


def _drift(points: Sequence[Point], drifted: Sequence[Point]) -> str:
    last = drifted[-1]
    more = "more" if last.difference > 0 else "fewer"
    shares = f"({last.base:.0%} of the base's answers hold an emoji, {last.tuned:.0%} of its own)"
    if last is not points[-1]:
        end = points[-1]
        who = "the last of them" if len(drifted) > 1 else "it"
        return (
            f"{_steps(drifted)} drifted, and {who} writes {more} emoji {shares}; the last "
            f"checkpoint, step {end.step}, did not: it is {end.word}."
        )
    since = next(
        place for place in range(len(points)) if all(one.word == "drift" for one in points[place:])
    )
    told = f"every checkpoint from step {points[since].step} on has drifted"
    if since == len(points) - 1:
        told = f"the last checkpoint, step {last.step}, has drifted"
    elif since == 0:
        told = f"every checkpoint has drifted, from the first, step {points[0].step}, on"
    before = points[:since]
    earlier = [one for one in before if one.word == "drift"]
    if earlier:
        told += f"; before it {_steps(earlier)} drifted too, and others did not"
    elif before:
        told += f"; the one before, step {before[-1].step}, is {before[-1].word}"
    return f"{told}. At step {last.step} the model writes {more} emoji than the base {shares}."


def _no_drift(points: Sequence[Point]) -> str:
    open_ones = [one for one in points if one.word == "inconclusive"]
    if not open_ones:
        return (
            f"none of {len(points)} checkpoints has drifted, up to step {points[-1].step}: each "
            "is shown to differ from the base by less than the margin."
        )
    if len(open_ones) == len(points):
        return f"none of {len(points)} checkpoints is decided, neither for a drift nor against one."
    return (
        f"no checkpoint is shown to have drifted; {_steps(open_ones)} "
        f"{'is' if len(open_ones) == 1 else 'are'} not decided, the others differ from the base "
        "by less than the margin."
    )


def _steps(points: Sequence[Point]) -> str:
    """`step 100`, or `steps 100, 150 and 200`."""
    numbers = [str(one.step) for one in points]
    if len(numbers) == 1:
        return f"step {numbers[0]}"
    return f"steps {', '.join(numbers[:-1])} and {numbers[-1]}"


def rows(series: Series) -> list[dict[str, Any]]:
    """Rows for a terminal or a page; differences of shares in points of a hundred."""
    return [
        {
            "step": one.step,
            "verdict": one.word,
            "base": amount(one.base, "share"),
            "tuned": amount(one.tuned, "share"),
            "difference": change(one.difference, "share"),
            "interval": change_interval(one.low, one.high, "share"),
            "prompts": one.n_prompts,
        }
        for one in series.points
    ]

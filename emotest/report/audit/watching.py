"""An audit while it runs: what is computed, how many prompts were asked, where the evidence stands.

Takes the workshop's messages and the audit's looks. On a terminal a few lines move; elsewhere (a
log, CI) every look is one printed line.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from emotest.audit.conduct import Seen
from emotest.report.visible import visible
from emotest.stats.drift import Thresholds
from emotest.workshop.progress import Progress


@dataclass
class Watching:
    """What an audit tells: `progress` for the workshop's messages, `look` for its own."""

    console: Console
    bars: Bars | None
    asked: TaskID | None = None
    work: TaskID | None = None

    def progress(self, message: Progress) -> None:
        """A worker began, went on or ended."""
        if self.bars is None:
            return
        if self.work is None:
            self.work = self.bars.add_task("", total=None, note="")
        done = message.state == "done"
        self.bars.update(
            self.work,
            description=visible(message.title),
            total=message.total or None,
            completed=message.total if done else message.done,
            note=visible(message.note),
        )

    def look(self, seen: Seen) -> None:
        """Some more prompts were asked."""
        if self.bars is None:
            self.console.print(
                f"  {seen.n_prompts}/{seen.budget} prompts: {standing(seen)}",
                highlight=False,
                soft_wrap=True,
            )
            return
        if self.asked is None:
            self.asked = self.bars.add_task("prompts asked", total=seen.budget, note="")
        self.bars.update(self.asked, completed=seen.n_prompts, note=standing(seen))


def standing(seen: Seen) -> str:
    """Where the evidence stands: shares so far, and how near each verdict is, as a percentage of
    the evidence that it takes."""
    drift = seen.drift
    shares = f"with emoji {seen.base:.0%} and {seen.tuned:.0%}"
    if not drift.looks:
        return shares
    look, at = drift.looks[-1], Thresholds.at(drift.alpha)
    change = max(look.more, look.fewer) / at.change
    same = look.within / at.within
    return f"{shares}; evidence of change {_percent(change)}, of no change {_percent(same)}"


def _percent(share: float) -> str:
    return f"{max(0.0, min(1.0, share)):.0%}"


@contextmanager
def watching(console: Console | None = None) -> Iterator[Watching]:
    """Show an audit on a console while the block runs."""
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield Watching(console, None)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        TimeElapsedColumn(),
    )
    with Bars(*columns, console=console, transient=True) as bars:
        yield Watching(console, bars)

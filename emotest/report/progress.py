"""Live progress of the workshop: one line for each artefact in work, one for the whole.

Takes the missing requests and the workshop's messages, shows loss and remaining time. On a
terminal the lines move; elsewhere (a log, CI) each finished artefact is one printed line.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars

from emotest.artefacts import Request, Training
from emotest.workshop.progress import Progress


@contextmanager
def live_progress(
    missing: Sequence[Request], console: Console | None = None
) -> Iterator[Callable[[Progress], None]]:
    """A callback for the workshop; nothing is shown where nothing is missing."""
    console = console or Console()
    if not missing:
        yield lambda message: None
        return
    console.print(f"\n[bold]emotest[/bold] computes {_counted(missing)} (kept in the store)")
    if console.is_terminal:
        with _bars(console) as bars:
            yield _on_terminal(bars, len(missing))
    else:
        yield _in_log(console, len(missing))


def _counted(missing: Sequence[Request]) -> str:
    # Adapters first, for they take longest and all else stands on them.
    trained_first = sorted(missing, key=lambda request: not isinstance(request, Training))
    kinds = Counter(request.plural for request in trained_first)
    return ", ".join(f"{n} {plural}" for plural, n in kinds.items())


def _bars(console: Console) -> Bars:
    return Bars(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )


def _on_terminal(bars: Bars, total: int) -> Callable[[Progress], None]:
    whole = bars.add_task("all artefacts", total=total, note="")
    lines: dict[str, TaskID] = {}

    def show(message: Progress) -> None:
        if message.state == "done":
            if message.title in lines:
                bars.remove_task(lines.pop(message.title))
            bars.advance(whole)
            return
        if message.title not in lines:
            lines[message.title] = bars.add_task(message.title, total=None, note="")
        bars.update(
            lines[message.title],
            total=message.total or None,
            completed=message.done,
            note=message.note,
        )

    return show


def _in_log(console: Console, total: int) -> Callable[[Progress], None]:
    notes: dict[str, str] = {}
    done = 0

    def show(message: Progress) -> None:
        nonlocal done
        if message.note:
            notes[message.title] = message.note
        if message.state == "done":
            done += 1
            note = notes.pop(message.title, "")
            console.print(f"  {done}/{total} {message.title} {note}".rstrip(), highlight=False)

    return show

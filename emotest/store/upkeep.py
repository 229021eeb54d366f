"""Looking after a store: what is in it, whether it is sound, what can go.

Takes a store's layout, gives reports for people and programs. Every step holds the lock of the
one key it touches, so it may run while others read and make entries.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from emotest.store.faults import naming_faults
from emotest.store.keys import Key
from emotest.store.layout import BusyError, Layout, bytes_below, files_below
from emotest.store.manifest import CorruptEntryError, check_folder, read_manifest


@dataclass(frozen=True)
class EntryReport:
    """One line of `emotest store list`."""

    key: Key
    title: str
    """What it is, in a few words; empty where the maker gave none."""
    n_bytes: int
    """Size of its files on the disk."""
    n_files: int
    made_at: datetime | None
    """UTC; None where the manifest cannot be read."""
    seconds: float | None
    """How long it took to make, and so what losing it costs."""
    last_used: datetime | None
    """When a run last asked for it, or when it was made; UTC."""
    folder: Path
    fault: str | None = None
    """What is wrong with its manifest, if anything; the files are not read for this report."""


@dataclass(frozen=True)
class Corruption:
    """An entry that is not whole, in what, and where it was moved to if it was."""

    key: Key
    reason: str
    set_aside: Path | None


@dataclass(frozen=True)
class VerifyReport:
    """What `verify` found; `sound` when every entry is whole."""

    n_checked: int
    n_bytes: int
    corrupt: tuple[Corruption, ...]
    strangers: tuple[Path, ...]
    """Things among the entries that are none. They are never touched."""

    @property
    def sound(self) -> bool:
        """Whether every entry is whole."""
        return not self.corrupt


@dataclass(frozen=True)
class Leftover:
    """Something that no entry needs: from a killed run, or set aside."""

    path: Path
    n_bytes: int
    what: str


@dataclass(frozen=True)
class PruneReport:
    """What `prune` removed, or with `dry_run` would remove."""

    removed: tuple[EntryReport, ...]
    spared: tuple[EntryReport, ...]
    """Entries that were to go, but are in use by, or being made by, a living process."""
    leftovers: tuple[Leftover, ...]
    n_kept: int
    dry_run: bool

    @property
    def freed_bytes(self) -> int:
        """Bytes that the removed entries and leftovers took."""
        return sum(entry.n_bytes for entry in self.removed) + sum(
            leftover.n_bytes for leftover in self.leftovers
        )


def entry_reports(layout: Layout) -> list[EntryReport]:
    """A report on every entry, sorted by key; an entry that goes away meanwhile is left out."""
    with naming_faults(layout.root, "listing its entries"):
        return [report for key in layout.stored_keys() if (report := _entry_report(layout, key))]


def _entry_report(layout: Layout, key: Key) -> EntryReport | None:
    folder = layout.entry(key)
    sizes = [status.st_size for status in files_below(folder)]
    used = layout.last_used(key)
    try:
        manifest = read_manifest(folder, key)
    except FileNotFoundError:
        return None
    except CorruptEntryError as error:
        return EntryReport(
            key, "", sum(sizes), len(sizes), None, None, used, folder, fault=str(error)
        )
    return EntryReport(
        key,
        manifest.title,
        sum(sizes),
        len(sizes),
        manifest.made_at,
        manifest.seconds,
        used or manifest.made_at,
        folder,
    )


def verify_entries(layout: Layout, *, repair: bool) -> VerifyReport:
    """Read every byte of every entry; with `repair`, set the corrupt ones aside."""
    corrupt, n_checked, n_bytes = [], 0, 0
    with naming_faults(layout.root, "verifying its entries"):
        for key in layout.stored_keys():
            try:
                n_bytes += check_folder(layout.entry(key), key).n_bytes
            except FileNotFoundError:
                continue
            except CorruptEntryError as error:
                moved = set_aside_if_corrupt(layout, key) if repair else None
                corrupt.append(Corruption(key, str(error), moved))
            n_checked += 1
        return VerifyReport(n_checked, n_bytes, tuple(corrupt), tuple(layout.strangers()))


def set_aside_if_corrupt(layout: Layout, key: Key) -> Path | None:
    """Look at an entry again under its lock, and move it to quarantine if it is corrupt.

    None where somebody else is at it, or has mended it meanwhile.
    """
    try:
        with layout.locked(key, wait=False):
            try:
                check_folder(layout.entry(key), key)
            except CorruptEntryError as error:
                return layout.set_aside(key, str(error))
            except FileNotFoundError:
                pass
    except BusyError:
        pass
    return None


def prune_entries(
    layout: Layout,
    *,
    older_than: timedelta | None,
    kind: str | None,
    keep: Collection[Key],
    dry_run: bool,
) -> PruneReport:
    """Remove entries that meet every criterion given, and what nobody needs any more.

    `older_than` counts from the last use. Without `older_than` and `kind` no entry goes.
    """
    removed, spared, n_kept = [], [], 0
    oldest = None if older_than is None else datetime.now(UTC) - older_than
    with naming_faults(layout.root, "pruning it"):
        for report in entry_reports(layout):
            if not _to_go(report, oldest, kind, keep):
                n_kept += 1
            elif _withdrawn(layout, report.key, dry_run=dry_run):
                removed.append(report)
            else:
                spared.append(report)
        leftovers = tuple(_leftovers(layout, oldest, dry_run=dry_run))
    return PruneReport(tuple(removed), tuple(spared), leftovers, n_kept + len(spared), dry_run)


def _to_go(
    report: EntryReport, oldest: datetime | None, kind: str | None, keep: Collection[Key]
) -> bool:
    if report.key in keep or (oldest is None and kind is None):
        return False
    if kind is not None and report.key.kind != kind:
        return False
    return oldest is None or report.last_used is None or report.last_used <= oldest


def _withdrawn(layout: Layout, key: Key, *, dry_run: bool) -> bool:
    if dry_run:
        return not layout.in_use(key)
    try:
        with layout.locked(key, wait=False):
            return layout.withdraw(key)
    except BusyError:
        return False
    except FileNotFoundError:  # another process was quicker
        return True


def _leftovers(layout: Layout, oldest: datetime | None, *, dry_run: bool) -> Iterator[Leftover]:
    """Remove, and name, what dead makers left and what was set aside.

    Checkpoints of unfinished work are worth having: they go only when their entry is there, or
    when they are older than asked for.
    """
    for key, folder in layout.unfinished("making"):
        yield from _removed_unless_busy(layout, key, folder, "left by a killed run", dry_run)
    for key, folder in layout.unfinished("scratch"):
        if layout.entry(key).exists():
            what = "checkpoints of a finished entry"
        elif oldest is not None and _last_change(folder) <= oldest:
            what = "checkpoints of unfinished work"
        else:
            continue
        yield from _removed_unless_busy(layout, key, folder, what, dry_run)
    for path in layout.set_aside_before():
        leftover = Leftover(path, bytes_below(path), "set aside as corrupt")
        if not dry_run:
            _remove(path)
        yield leftover


def _removed_unless_busy(
    layout: Layout, key: Key, folder: Path, what: str, dry_run: bool
) -> Iterator[Leftover]:
    with suppress(BusyError), layout.locked(key, wait=False):
        leftover = Leftover(folder, bytes_below(folder), what)
        if not dry_run:
            _remove(folder)
        yield leftover


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _last_change(folder: Path) -> datetime:
    times = [status.st_mtime for status in files_below(folder)]
    return datetime.fromtimestamp(max([*times, folder.stat().st_mtime]), UTC)


__all__ = [
    "Corruption",
    "EntryReport",
    "Leftover",
    "PruneReport",
    "VerifyReport",
    "entry_reports",
    "prune_entries",
    "set_aside_if_corrupt",
    "verify_entries",
]

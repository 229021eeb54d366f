"""`emotest store`: what was computed and kept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from emotest.cli.app import EPILOG, UNSOUND, StoreFolder, app, look

if TYPE_CHECKING:
    from emotest.store import Store

store_app = typer.Typer(help="What was computed and kept: list, verify, prune.", epilog=EPILOG)
app.add_typer(store_app, name="store", no_args_is_help=True)


@contextmanager
def _store(folder: Path | None) -> Iterator[Store]:
    from emotest.store import Store, resolve_store

    store = Store(resolve_store(folder))
    try:
        yield store
    finally:
        store.close()


@store_app.command("list", epilog=EPILOG)
def list_entries(
    store: StoreFolder = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON lines.")] = False,
) -> None:
    """List the entries: kind and key, size, age, what it took to make, and what it is."""
    from emotest.report.terminal import table_text
    from emotest.store import readable_bytes

    with _store(store) as kept:
        entries = kept.entries()
    rows = [
        {
            "entry": str(entry.key),
            "size": entry.n_bytes if as_json else readable_bytes(entry.n_bytes),
            "made": f"{entry.made_at:%Y-%m-%d %H:%M}" if entry.made_at else None,
            "seconds": round(entry.seconds, 1) if entry.seconds is not None else None,
            "what": entry.fault or entry.title,
        }
        for entry in entries
    ]
    if as_json:
        typer.echo("\n".join(json.dumps(row) for row in rows))
        return
    if rows:
        typer.echo(table_text(rows, look()), nl=False)
    total = readable_bytes(sum(entry.n_bytes for entry in entries))
    typer.echo(f"{len(entries)} entries, {total} in {kept.root}")


@store_app.command(epilog=EPILOG)
def verify(
    store: StoreFolder = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Set corrupt entries aside; runs rebuild them.")
    ] = False,
) -> None:
    """Check every byte of every entry against its hash. Exit code 1 if any is corrupt."""
    from emotest.store import readable_bytes

    with _store(store) as kept:
        result = kept.verify(repair=repair)
    for corruption in result.corrupt:
        moved = f" (set aside: {corruption.set_aside})" if corruption.set_aside else ""
        typer.echo(f"corrupt: {corruption.key}: {corruption.reason}{moved}")
    for stranger in result.strangers:
        typer.echo(f"no entry, left alone: {stranger}")
    checked = f"{result.n_checked} entries checked, {readable_bytes(result.n_bytes)}"
    if result.sound:
        typer.echo(f"{checked}: all whole")
        return
    typer.echo(f"{checked}: {len(result.corrupt)} corrupt")
    if not repair:
        typer.echo("  next: emotest store verify --repair sets them aside; runs rebuild them")
        raise typer.Exit(UNSOUND)


@store_app.command(epilog=EPILOG)
def prune(
    store: StoreFolder = None,
    older_than: Annotated[
        int | None, typer.Option(min=0, metavar="DAYS", help="Entries unused for that long.")
    ] = None,
    kind: Annotated[
        str | None, typer.Option(help="Entries of one kind, such as generations.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
) -> None:
    """Remove entries that meet every criterion, and what killed runs left; without, only that."""
    from datetime import timedelta

    from emotest.store import readable_bytes

    age = None if older_than is None else timedelta(days=older_than)
    with _store(store) as kept:
        result = kept.prune(older_than=age, kind=kind, dry_run=dry_run)
    done = "would go" if dry_run else "removed"
    for entry in result.removed:
        typer.echo(f"{done}: {entry.key} {entry.title}".rstrip())
    for leftover in result.leftovers:
        typer.echo(f"{done}: {leftover.what} {leftover.path.name}")
    for entry in result.spared:
        typer.echo(f"in use, kept: {entry.key}")
    freed = readable_bytes(result.freed_bytes)
    typer.echo(f"{freed} {'to free' if dry_run else 'freed'}, {result.n_kept} entries kept")

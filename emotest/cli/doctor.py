"""`emotest doctor`: what works on this machine, and what to do about each lack."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from emotest.cli.app import EPILOG, UNSOUND, StoreFolder, app, look


@app.command(epilog=EPILOG)
def doctor(
    store: StoreFolder = None,
    offline: Annotated[bool, typer.Option("--offline", help="Do not ask the Hub.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Try what a run may need: NF4, GPU, memory, threads, store, Hub. Exit code 1 if one is broken.

    What is lacking can be done without; what is broken cannot.
    """
    from dataclasses import asdict

    from emotest.models.doctor import checks
    from emotest.report.terminal import table_text
    from emotest.store import resolve_store

    found = list(checks(resolve_store(store), hub=not offline))
    if as_json:
        typer.echo(json.dumps([asdict(check) for check in found], indent=1))
    else:
        rows = [
            {"check": one.name, "state": one.state, "found": one.found, "next": one.remedy}
            for one in found
        ]
        typer.echo(table_text(rows, look()), nl=False)
    if any(one.state == "broken" for one in found):
        raise typer.Exit(UNSOUND)

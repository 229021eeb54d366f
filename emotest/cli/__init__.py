"""`emotest` on the command line: audits, reports shown again, the store looked after, organisms.

Words in, text and an exit code out. Every command imports what it needs when it runs, so the help
comes at once and only commands that run a model load torch.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from emotest.cli import audit, doctor, init, organisms, power, reports, store
from emotest.cli.app import INTERRUPTED, MODEL, USAGE, app
from emotest.errors import EmotestError, ModelError, OrganismError, TrainingError


def main() -> None:
    """The entry point: errors that a user can mend become a message and an exit code."""
    try:
        app()
    except EmotestError as error:
        typer.echo(f"emotest: {error}", err=True)
        unrunnable = isinstance(error, ModelError | TrainingError | OrganismError)
        sys.exit(MODEL if unrunnable else USAGE)
    except SystemExit as end:
        if end.code == INTERRUPTED:  # typer's answer to Ctrl-C
            typer.echo("emotest: interrupted; what was finished is kept", err=True)
        raise
    except BrokenPipeError:
        # The reader of a pipe has gone (`emotest store list | head`): nobody is left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


@app.callback(invoke_without_command=True)
def emotest(
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    """See the help of the application."""
    if version:
        from importlib.metadata import version as version_of

        typer.echo(f"emotest {version_of('emotest')}")
        raise typer.Exit


__all__ = ["app", "audit", "doctor", "init", "main", "organisms", "power", "reports", "store"]

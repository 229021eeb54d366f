"""The application that commands are added to, and what they share.

Every command imports what it needs when it runs, so that the help comes at once.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from emotest.report.terminal import Look

UNSOUND, DIFFERENT, USAGE, MODEL, INTERRUPTED = 1, 1, 2, 4, 130
"""Exit codes: something is wrong with what was looked at, or differs from another; with what was
asked or given; with a model that was to run; and Ctrl-C."""

EPILOG = (
    "Exit codes: 0 done; 1 the store holds corrupt entries, two runs differ, or an audit found "
    "drift; 2 the command, its data or a folder cannot be used; 3 an audit is inconclusive; 4 a "
    "model could not be run; 130 interrupted."
)

app = typer.Typer(
    help="Does personality tuning make a language model write emoji, and why? "
    "The study itself runs in pytest: see pytest --help, group emotest.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

StoreFolder = Annotated[
    Path | None,
    typer.Option("--store", help="The store (default: EMOTEST_STORE, or the project's own)."),
]
ReportsFolder = Annotated[Path, typer.Option("--reports", help="Where the run folders are.")]


def look() -> Look:
    """What the terminal behind standard output can show."""
    from emotest.report.terminal import Look

    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    return Look.of(sys.stdout.encoding, width=get_terminal_size().columns, colour=colour)

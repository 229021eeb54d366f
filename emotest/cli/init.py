"""`emotest init`: the emoji gate, written into a user's own repository."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from emotest.cli.app import EPILOG, app
from emotest.errors import UsageError

GATE = Path("emoji_gate/test_emoji_gate.py")
WORKFLOW = Path(".github/workflows/emoji-gate.yml")

BASE_MODEL = "BASE_MODEL"
"""What stands in the workflow for the user's own base."""


@app.command(epilog=EPILOG)
def init(
    folder: Annotated[Path, typer.Argument(help="Your repository.")] = Path(),
    base: Annotated[
        str, typer.Option(help="The model that checkpoints are held against.")
    ] = "organism:latent",
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
) -> None:
    """Write a gate for checkpoints: a test and a workflow for a GPU runner. Nothing is run."""
    from emotest.report.writing import write_file
    from emotest.study.subjects import Subject

    Subject.parse(base)
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}", remedy="make it first, or name another")
    there = [path for path in (GATE, WORKFLOW) if (folder / path).exists()]
    if there and not force:
        raise UsageError(
            f"{folder / there[0]} is there already", remedy="keep it, or replace it with --force"
        )
    for path in (GATE, WORKFLOW):
        template = files("emotest.cli") / "templates" / f"{path.name}.txt"
        text = template.read_text(encoding="utf-8")
        write_file(folder / path, text.replace(BASE_MODEL, base), elsewhere="name another folder")
        typer.echo(f"wrote {folder / path}")
    typer.echo(f"try it: pytest {GATE.parent} -m audit --emo-base {base} --emo-tuned CHECKPOINT")

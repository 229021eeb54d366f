"""`emotest report`: a run shown again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from emotest.cli.app import EPILOG, app, look
from emotest.errors import DataError, UsageError


@app.command(epilog=EPILOG)
def report(
    run: Annotated[
        str, typer.Argument(help="A run folder, or its name below --reports.")
    ] = "latest",
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the Markdown.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print all of it as JSON.")] = False,
    reports: Annotated[Path, typer.Option(help="Where the run folders are.")] = Path("reports"),
) -> None:
    """Show a run again, and write its report.md anew, from its JSON files alone."""
    from emotest.report.markdown import markdown_report
    from emotest.report.recorder import write_report
    from emotest.report.run import load

    if markdown and as_json:
        raise UsageError("--markdown and --json at once", remedy="choose one of them")
    folder = run_folder(run, reports)
    found = load(folder)
    if as_json:
        verdicts = [finding.row() for finding in found.findings]
        typer.echo(json.dumps({**found.document(), "verdicts": verdicts}, indent=1))
    elif markdown:
        typer.echo(markdown_report(found, names(folder)), nl=False)
    else:
        from emotest.report.terminal import summary_text

        path = write_report(found, folder)
        typer.echo(summary_text(found, look(), where=str(path)), nl=False)


def run_folder(run: str, reports: Path) -> Path:
    """The folder of a run that was named by its folder, its name, or as the latest."""
    from emotest.report.writing import LATEST, latest

    if run == LATEST and not Path(run).is_dir():
        return latest(reports)
    for folder in (Path(run), reports / run):
        if folder.is_dir():
            return folder
    raise DataError(
        f"there is no run {run!r}, neither here nor in {reports}",
        remedy="name a run folder, or say with --reports where they are",
    )


def names(folder: Path) -> list[str]:
    """The files of a run folder."""
    return [path.name for path in sorted(folder.iterdir()) if path.is_file()]

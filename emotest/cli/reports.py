"""`emotest report`, `compare` and `baseline`: runs shown again, side by side, and kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from emotest.cli.app import DIFFERENT, EPILOG, ReportsFolder, app, look
from emotest.errors import DataError, UsageError

baseline_app = typer.Typer(
    help="A model's answers, kept so that they can stand in for it in later audits.", epilog=EPILOG
)
app.add_typer(baseline_app, name="baseline", no_args_is_help=True)

RunName = Annotated[str, typer.Argument(help="A run folder, or its name below --reports.")]


@app.command(epilog=EPILOG)
def report(
    run: RunName = "latest",
    html: Annotated[bool, typer.Option("--html", help="Print the HTML of an audit.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the Markdown.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print all of it as JSON.")] = False,
    reports: ReportsFolder = Path("reports"),
) -> None:
    """Show a run or an audit again, and write its report anew, from its JSON files alone."""
    _require_one(html, markdown, as_json)
    folder = run_folder(run, reports)
    if _is_audit(folder):
        _audit(folder, html=html, markdown=markdown, as_json=as_json)
    else:
        _study(folder, html=html, markdown=markdown, as_json=as_json)


def _study(folder: Path, *, html: bool, markdown: bool, as_json: bool) -> None:
    from emotest.report.markdown import markdown_report
    from emotest.report.recorder import write_report
    from emotest.report.run import load
    from emotest.report.terminal import summary_text

    if html:
        raise UsageError(
            f"{folder} is a run of the study, whose report is Markdown with plots",
            remedy="use --markdown; audits have an HTML report",
        )
    found = load(folder)
    if as_json:
        verdicts = [finding.row() for finding in found.findings]
        typer.echo(json.dumps({**found.document(), "verdicts": verdicts}, indent=1))
    elif markdown:
        typer.echo(markdown_report(found, _names(folder)), nl=False)
    else:
        path = write_report(found, folder)
        typer.echo(summary_text(found, look(), where=str(path)), nl=False)


def _audit(folder: Path, *, html: bool, markdown: bool, as_json: bool) -> None:
    from emotest.audit.result import row
    from emotest.report.audit import (
        html_report,
        load_audit,
        markdown_report,
        summary_text,
        write_audit,
    )

    result, pairs = load_audit(folder)
    if as_json:
        typer.echo(json.dumps({**row(result), "pairs": [row(pair) for pair in pairs]}, indent=1))
    elif html:
        typer.echo(html_report(result, pairs), nl=False)
    elif markdown:
        typer.echo(markdown_report(result, pairs), nl=False)
    else:
        path = write_audit(result, pairs, folder)
        typer.echo(summary_text(result, look(), where=str(path)), nl=False)


@app.command(epilog=EPILOG)
def compare(
    first: RunName,
    second: RunName,
    html: Annotated[bool, typer.Option("--html", help="Print one HTML file.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    reports: ReportsFolder = Path("reports"),
) -> None:
    """Show two runs, or two audits, side by side. Exit code 1 where a verdict differs."""
    from dataclasses import asdict

    from emotest.report.comparing import compared
    from emotest.report.comparison import comparison_html, comparison_markdown, comparison_text

    _require_one(html, markdown, as_json)
    found = compared(run_folder(first, reports), run_folder(second, reports))
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=1))
    elif html:
        typer.echo(comparison_html(found), nl=False)
    elif markdown:
        typer.echo(comparison_markdown(found), nl=False)
    else:
        typer.echo(comparison_text(found, look()), nl=False)
    if not found.alike:
        raise typer.Exit(DIFFERENT)


def _require_one(*views: bool) -> None:
    if sum(views) > 1:
        raise UsageError(
            "more than one of --html, --markdown and --json", remedy="choose one of them"
        )


@baseline_app.command("save", epilog=EPILOG)
def save_baseline(
    run: RunName = "latest",
    of: Annotated[str, typer.Option(help="Whose answers: base or tuned.")] = "tuned",
    out: Annotated[Path, typer.Option(help="The file.")] = Path("baseline.json"),
    reports: ReportsFolder = Path("reports"),
) -> None:
    """Keep the answers of one model of an audit: records and identities, not just means."""
    from emotest.audit.baseline import baseline_of, document
    from emotest.report.audit import load_audit
    from emotest.report.visible import visible
    from emotest.report.writing import write_file

    if of not in ("base", "tuned"):
        raise UsageError(f"--of {of} is neither model", remedy="write base or tuned")
    folder = run_folder(run, reports)
    if not _is_audit(folder):
        raise DataError(f"{folder} is no audit", remedy="name the folder of an audit")
    result, pairs = load_audit(folder)
    saved = baseline_of(result, pairs, "base" if of == "base" else "tuned")
    write_file(out, document(saved), elsewhere="choose another file with --out")
    who = visible(saved.model.subject)
    typer.echo(f"{len(saved.records)} prompts answered by {who} are in {out}")
    if result.verdict.stopped_early:
        typer.echo(
            f"note: the audit stopped after {len(pairs)} of {result.plan.budget} prompts, and "
            "later audits can ask no more; emotest audit --fixed asks them all"
        )


@baseline_app.command("show", epilog=EPILOG)
def show_baseline(
    file: Annotated[Path, typer.Argument(help="A saved baseline.")] = Path("baseline.json"),
    as_json: Annotated[bool, typer.Option("--json", help="Print all of it as JSON.")] = False,
) -> None:
    """Say whose answers a baseline holds, and how they were asked for."""
    from emotest.audit.baseline import document, read_baseline, share_with_emoji
    from emotest.report.terminal import table_text

    found = read_baseline(file)
    if as_json:
        typer.echo(document(found), nl=False)
        return
    facts = {
        "model": found.model.subject,
        "pinned to": found.model.digest[:16],
        "saved from": f"{found.name} ({found.made_at})",
        "prompts": len(found.records),
        "answers with an emoji": f"{share_with_emoji(found):.1%}",
        **{name.replace("_", " "): value for name, value in found.asked.items()},
    }
    rows = [{"baseline": name, "": str(value)} for name, value in facts.items()]
    typer.echo(table_text(rows, look()), nl=False)


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


def _is_audit(folder: Path) -> bool:
    from emotest.report.audit.folder import RESULT

    return (folder / RESULT).is_file()


def _names(folder: Path) -> list[str]:
    return [path.name for path in sorted(folder.iterdir()) if path.is_file()]

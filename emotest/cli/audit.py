"""`emotest audit`: base against tuned, for anybody's models. Loads torch in its workers alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from emotest.cli.app import ReportsFolder, StoreFolder, app, look

if TYPE_CHECKING:
    from emotest.report.audit.carrying_out import Finished

_EPILOG = (
    "Exit codes: 0 unchanged, or changed within the tolerance (the sentence says which); 1 drift; "
    "2 wrong usage or input; 3 inconclusive; 4 a model could not be run; 130 interrupted (what "
    "was asked is kept, and the same command goes on from there). Of several --tuned the worst."
)


@app.command(epilog=_EPILOG)
def audit(
    base: Annotated[
        str | None,
        typer.Option(help="The model before: organism:NAME, a Hub id, a folder, a served model."),
    ] = None,
    tuned: Annotated[
        list[str] | None,
        typer.Option(help="The model after, such as BASE+ADAPTER; several for a series."),
    ] = None,
    baseline: Annotated[
        Path | None,
        typer.Option(help="A saved baseline in place of the base; it has to match."),
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(help="Prompts of your own: txt, csv or jsonl (default: the shipped set)."),
    ] = None,
    register: Annotated[
        list[str] | None, typer.Option(help="Only prompts of this register; may be repeated.")
    ] = None,
    budget: Annotated[
        int | None, typer.Option(min=1, help="Prompts to ask at most (default: all).")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Answers to each prompt.")] = 1,
    batch: Annotated[int, typer.Option(min=1, help="Prompts between two looks.")] = 12,
    margin: Annotated[
        float, typer.Option(help="Difference in answers with emoji that is tolerated.")
    ] = 0.05,
    alpha: Annotated[float, typer.Option(help="The level of the whole audit.")] = 0.05,
    fixed: Annotated[
        bool, typer.Option("--fixed", help="Ask the whole budget, then decide once.")
    ] = False,
    decoding: Annotated[
        str | None,
        typer.Option(
            help="default, greedy, nucleus, unfiltered or paper "
            "(default: default for organisms, paper for others)."
        ),
    ] = None,
    also: Annotated[
        list[str] | None,
        typer.Option(
            help="A decoding under which the verdict is asked for again, or all for "
            "greedy, nucleus and unfiltered; may be repeated."
        ),
    ] = None,
    marker: Annotated[
        str | None,
        typer.Option(
            help="What to count beside emoji: a regular expression, or a function of yours, "
            "python:FILE.py:FUNCTION or python:MODULE:FUNCTION."
        ),
    ] = None,
    inside: Annotated[
        bool,
        typer.Option(
            "--inside", help="Look inside local models too: trait directions and FFN units."
        ),
    ] = False,
    seed: Annotated[int, typer.Option(help="The sampling seed.")] = 0,
    store: StoreFolder = None,
    reports: ReportsFolder = Path("reports"),
    no_report: Annotated[bool, typer.Option("--no-report", help="Write no report.")] = False,
    workers: Annotated[
        int, typer.Option(min=1, max=2, help="Processes, where base and tuned share a base.")
    ] = 2,
) -> None:
    """Has this model drifted in emoji? Both answer the same prompts until the evidence suffices.

    Nothing is trained: an adapter is measured as it is. Without --base and --tuned it shows
    itself on a small model that emotest ships.
    """
    from emotest.audit.checkpoints import expanded, require_distinct
    from emotest.audit.planning import AuditPlan
    from emotest.audit.result import EXIT_CODES, gravest
    from emotest.report.audit import summary_text
    from emotest.report.audit.carrying_out import carry_out
    from emotest.report.audit.gate import tell_github
    from emotest.report.audit.watching import watching
    from emotest.store import resolve_store

    series = [one for named in tuned or [] for one in expanded(named)]
    require_distinct(series)
    plan = AuditPlan(
        prompts=prompts,
        registers=tuple(register or ()),
        budget=budget,
        batch=batch,
        n_samples=samples,
        margin=margin,
        alpha=alpha,
        mode="fixed" if fixed else "sequential",
        decoding=decoding or _usual_decoding(base or (series[0] if baseline and series else None)),
        sampling_seed=seed,
        marker=marker,
        inside=inside,
        other_decodings=tuple(also or ()),
    )
    with watching() as watch:
        audits = carry_out(
            base,
            series,
            plan,
            store=resolve_store(store),
            reports=None if no_report else reports,
            watch=watch,
            workers=workers,
            baseline=baseline,
        )
    for one in audits:
        where = str(one.folder / "report.html") if one.folder else None
        typer.echo(summary_text(one.result, look(), where=where), nl=False)
        tell_github(one.result, one.pairs)
    if len(audits) > 1:
        _tell_series(audits, series, None if no_report else reports)
    raise typer.Exit(EXIT_CODES[gravest(one.result.verdict.word for one in audits)])


def _usual_decoding(base: str | None) -> str:
    from emotest.study.subjects import Subject

    return "default" if base is None or Subject.parse(base).is_organism else "paper"


def _tell_series(audits: list[Finished], series: list[str], reports: Path | None) -> None:
    """Drift over checkpoints, as a table and on a page with its plot."""
    from emotest.audit.checkpoints import step_of
    from emotest.report.audit.series import Series, rows
    from emotest.report.audit.series_page import write_series
    from emotest.report.recorder import run_name
    from emotest.report.terminal import table_text
    from emotest.report.visible import visible

    steps = [step_of(one, place) for place, one in enumerate(series, start=1)]
    found = Series.of(audits, steps)
    typer.echo(visible(f"{found.word}: {found.sentence}"))
    typer.echo(table_text(rows(found), look()), nl=False)
    if reports is not None:
        page = write_series(found, reports, f"{run_name(series[0])}-series")
        typer.echo(f"series: {page}")

"""`emotest power`: what an audit can see, before a single prompt is asked."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from emotest.cli.app import EPILOG, app, look
from emotest.errors import UsageError


@app.command(epilog=EPILOG)
def power(
    effect: Annotated[
        str, typer.Option(help="Share of answers with an emoji before and after, as .02:.07.")
    ] = ".02:.07",
    prompts: Annotated[int, typer.Option(min=1, help="The budget of the audit.")] = 480,
    samples: Annotated[int, typer.Option(min=1, help="Answers to each prompt.")] = 1,
    batch: Annotated[int, typer.Option(min=1, help="Prompts between two looks.")] = 12,
    margin: Annotated[float, typer.Option(help="Difference that is tolerated.")] = 0.05,
    alpha: Annotated[float, typer.Option(help="The level of the audit.")] = 0.05,
    fixed: Annotated[bool, typer.Option("--fixed", help="Decide once, at the end.")] = False,
    concordance: Annotated[
        float,
        typer.Option(help="How much base and tuned agree beyond chance, 0 to 1; 0 is cautious."),
    ] = 0.0,
    audits: Annotated[int, typer.Option(min=50, help="Audits to simulate.")] = 1000,
    needed: Annotated[
        bool, typer.Option("--needed", help="Also look for the budget that has a power of 80 %.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Simulate audits of two models with these rates: how often each word, after how many prompts.

    The numbers have the limits of a simulation beside them; docs/calibration.md has tables.
    """
    from dataclasses import asdict

    import numpy as np

    from emotest.report.terminal import table_text
    from emotest.stats.audit_power import audit_power, prompts_needed

    base, tuned = _rates(effect)
    found = audit_power(
        base,
        tuned,
        budget=prompts,
        every=None if fixed else batch,
        margin=margin,
        alpha=alpha,
        n_samples=samples,
        concordance=concordance,
        reps=audits,
        rng=np.random.default_rng(0),
    )
    enough = None
    if needed:
        enough = prompts_needed(
            base,
            tuned,
            every=batch,
            margin=margin,
            alpha=alpha,
            n_samples=samples,
            concordance=concordance,
            rng=np.random.default_rng(0),
        )
    if as_json:
        typer.echo(json.dumps({**asdict(found), "prompts_needed": enough}, indent=1))
        return
    rows = [
        {
            "an audit ends in": word,
            "share of audits": f"{share.value:.3f}",
            "between": f"{share.low:.3f} and {share.high:.3f}",
            "": "right" if word in found.right else "",
        }
        for word, share in found.words.items()
    ]
    typer.echo(table_text(rows, look()), nl=False)
    typer.echo(
        f"power {found.power.value:.2f} with at most {prompts} prompts; "
        f"{found.mean_prompts:.0f} are asked on average"
    )
    if needed:
        typer.echo(
            f"about {enough} prompts have a power of 80 %"
            if enough
            else "no number of prompts that anybody asks has a power of 80 %"
        )


def _rates(effect: str) -> tuple[float, float]:
    before, colon, after = effect.partition(":")
    try:
        base, tuned = float(before), float(after)
    except ValueError:
        base = tuned = float("nan")
    if not colon or not (0 <= base <= 1 and 0 <= tuned <= 1):
        raise UsageError(
            f"--effect {effect} is no pair of shares",
            remedy="write the share of answers with an emoji before and after, such as .02:.07",
        )
    return base, tuned

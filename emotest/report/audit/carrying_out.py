"""From two subjects to a report on disk: what the command line and the pytest gate both do.

Resolves the models, conducts the audit while somebody watches, writes the run's folder. Knows
neither typer nor pytest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from emotest.audit.asking import Interview
from emotest.audit.conduct import conduct
from emotest.audit.demonstration import demonstration
from emotest.audit.models import Model, pinned, require_two
from emotest.audit.planning import AuditPlan
from emotest.audit.result import AuditResult, Pair
from emotest.errors import UsageError
from emotest.report.audit.folder import write_audit
from emotest.report.audit.watching import Watching
from emotest.report.recorder import run_name
from emotest.report.run import machine, now, versions
from emotest.report.writing import claimed, point, writing
from emotest.store import Store


@dataclass(frozen=True)
class Finished:
    """An audit that was carried out; `folder` is None where no report was wanted."""

    result: AuditResult
    pairs: Sequence[Pair]
    folder: Path | None


def carry_out(
    base: str | None,
    tuned: Sequence[str],
    plan: AuditPlan,
    *,
    store: Path,
    reports: Path | None,
    watch: Watching,
    workers: int,
) -> list[Finished]:
    """Audit each tuned model against the base; without any, the demonstration.

    Several checkpoints are each decided at alpha divided by their number. Errors are those of
    resolving, asking and writing; what was asked before one is in the store.
    """
    models = _models(base, tuned, store, watch)
    kept = Store(store)
    try:
        return [
            _one(first, second, plan, kept, reports, watch, workers, m=len(models))
            for first, second in models
        ]
    finally:
        kept.close()


def _models(
    base: str | None, tuned: Sequence[str], store: Path, watch: Watching
) -> list[tuple[Model, Model]]:
    if base is None and not tuned:
        return [demonstration(store, watch.progress)]
    if base is None or not tuned:
        given, lacking = ("--base", "--tuned") if base else ("--tuned", "--base")
        raise UsageError(
            f"{given} is given and {lacking} is not",
            remedy=f"name the other model with {lacking}, or leave both out for a demonstration",
        )
    first = pinned(base, "--base")
    seconds = [pinned(one, "--tuned") for one in tuned]
    for second in seconds:
        require_two(first, second)
    return [(first, second) for second in seconds]


def _one(
    base: Model,
    tuned: Model,
    plan: AuditPlan,
    store: Store,
    reports: Path | None,
    watch: Watching,
    workers: int,
    *,
    m: int,
) -> Finished:
    name = f"{run_name(str(tuned.subject))}-audit"
    folder = None
    with Interview(base, tuned, store, watch.progress, workers) as interview:
        result, pairs = conduct(
            interview,
            plan,
            name=name,
            made_at=now(),
            environment={"machine": machine(), "versions": versions()},
            on_look=watch.look,
            m=m,
        )
    if reports is not None:
        with writing(reports / name, elsewhere="name another folder with --reports"):
            folder = claimed(reports / name)
        result = replace(result, name=folder.name)
        write_audit(result, pairs, folder)
        point(reports, folder.name)
    return Finished(result, pairs, folder)

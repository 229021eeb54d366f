"""From two subjects to a report on disk: what the command line and the pytest gate both do.

Resolves the models, conducts the audit while somebody watches, writes the run's folder. Knows
neither typer nor pytest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from emotest.audit.arms import Arm, LocalArm, ServedArm
from emotest.audit.asking import Interview
from emotest.audit.baseline import (
    Baseline,
    RecordedArm,
    asked,
    covered,
    read_baseline,
    require_alike,
)
from emotest.audit.conduct import conduct
from emotest.audit.demonstration import demonstration
from emotest.audit.measuring import AUDIT_METRIC_VERSION
from emotest.audit.models import Model
from emotest.audit.planning import AuditPlan
from emotest.audit.result import AuditResult, Pair
from emotest.errors import UsageError
from emotest.report.audit.folder import write_audit
from emotest.report.audit.watching import Watching
from emotest.report.recorder import run_name
from emotest.report.run import machine, now, versions
from emotest.report.writing import claimed, point, writing
from emotest.store import Store
from emotest.study.audit_prompts.prompt_set import PromptSet
from emotest.study.subjects import Subject
from emotest.text.own_marker import function_named
from emotest.workshop.crew import OpenWorkshop, Workshop
from emotest.workshop.progress import OnProgress


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
    baseline: Path | None = None,
) -> list[Finished]:
    """Audit each tuned model against the base, or against a baseline in its place; without any,
    the demonstration.

    Several checkpoints are each decided at alpha divided by their number. Errors are those of
    resolving, asking and writing; what was asked before one is in the store.
    """
    kept = Store(store)
    try:
        pairs = _sides(base, tuned, baseline, store, watch)
        _require_own_marker(plan, [side for pair in pairs for side in pair])
        return [
            _one(first, second, plan, kept, reports, watch, workers, m=len(pairs))
            for first, second in pairs
        ]
    finally:
        kept.close()


@dataclass(frozen=True)
class Recorded:
    """A baseline that stands in for the base, and the base that was named beside it, if any."""

    baseline: Baseline
    path: Path
    named: Model | None


Side = Model | Subject | Recorded
"""A local model, a served one, or a record."""


def _sides(
    base: str | None, tuned: Sequence[str], baseline: Path | None, store: Path, watch: Watching
) -> list[tuple[Side, Side]]:
    if base is None and not tuned and baseline is None:
        return [demonstration(store, watch.progress)]
    if not tuned or (base is None and baseline is None):
        given, lacking = ("--tuned", "--base") if tuned else ("--base", "--tuned")
        raise UsageError(
            f"{given} is given and {lacking} is not",
            remedy=f"name the other model with {lacking}, or leave both out for a demonstration",
        )
    first = _first(base, baseline)
    seconds = [_side(one) for one in tuned]
    for name, second in zip(tuned, seconds, strict=True):
        if _digest(first) == _digest(second):
            raise UsageError(
                f"--base {base or baseline} and --tuned {name} are the same model",
                remedy="name two models: one held against itself says nothing about either",
            )
    return [(first, second) for second in seconds]


def _first(base: str | None, baseline: Path | None) -> Side:
    named = _side(base) if base else None
    if baseline is None:
        assert named is not None
        return named
    return Recorded(read_baseline(baseline), baseline, named if isinstance(named, Model) else None)


def _side(text: str) -> Model | Subject:
    subject = Subject.parse(text)
    return subject if subject.kind == "served" else Model.pinned(subject)


def _require_own_marker(plan: AuditPlan, sides: Sequence[Side]) -> None:
    """Refuse a marker whose code a model brings along; nothing of it has been run yet."""
    named = function_named(plan.marker) if plan.marker else None
    file = named.found_in() if named else None
    if file is None:
        return
    models = [side.named if isinstance(side, Recorded) else side for side in sides]
    for folder in (f for model in models if isinstance(model, Model) for f in model.folders):
        if file.is_relative_to(folder.resolve()):
            raise UsageError(
                f"the marker {named} lies in {folder}, with the files of a model under audit",
                remedy="code that a model brings is not run: read it, and copy what you want to "
                "use into a place of your own",
            )


def _digest(side: Side) -> str:
    if isinstance(side, Recorded):
        return side.baseline.model.digest
    return side.identity.digest if isinstance(side, Model) else str(side)


def _subject(side: Side) -> str:
    if isinstance(side, Recorded):
        return side.baseline.model.subject
    return str(side.subject if isinstance(side, Model) else side)


def _one(
    base: Side,
    tuned: Side,
    plan: AuditPlan,
    store: Store,
    reports: Path | None,
    watch: Watching,
    workers: int,
    *,
    m: int,
) -> Finished:
    prompts = plan.asked(of_organism=_subject(base).startswith("organism:"))
    if isinstance(base, Recorded):
        prompts = _held(base, plan, prompts)
    with _arms(base, tuned, store, watch.progress, workers) as (first, second):
        result, pairs = conduct(
            Interview(first, second),
            plan,
            prompts,
            name="",
            made_at=now(),
            environment={"machine": machine(), "versions": versions()},
            on_look=watch.look,
            m=m,
        )
    result = replace(result, name=f"{run_name(_subject(tuned))}-audit")
    folder = None
    if reports is not None:
        with writing(reports / result.name, elsewhere="name another folder with --reports"):
            folder = claimed(reports / result.name)
        result = replace(result, name=folder.name)
        write_audit(result, pairs, folder)
        point(reports, folder.name)
    return Finished(result, pairs, folder)


def _held(base: Recorded, plan: AuditPlan, prompts: PromptSet) -> PromptSet:
    """The prompts that the baseline has answers to, once it is known to match."""
    if plan.others:
        raise UsageError(
            f"the baseline {base.path} holds answers under one decoding, and the verdict is asked "
            f"for under {', '.join(plan.others)} too",
            remedy="leave the other decodings out, or audit against the base itself",
        )
    wanted = asked(plan.told(prompts), AUDIT_METRIC_VERSION)
    named = base.named.told() if base.named else None
    require_alike(base.baseline, base.path, wanted, named)
    return PromptSet(prompts.prompts[: covered(prompts, base.baseline)], prompts.source)


@contextmanager
def _arms(
    base: Side, tuned: Side, store: Store, tell: OnProgress, workers: int
) -> Iterator[tuple[Arm, Arm]]:
    """Both arms, their models in memory until the block is left.

    With one worker, models that stand on the same base share it in memory; with two, each has a
    worker of its own, and they answer at the same time.
    """
    with ExitStack() as closing:
        shops: dict[str, OpenWorkshop] = {}

        def arm(side: Side, role: str) -> Arm:
            if isinstance(side, Recorded):
                return RecordedArm(side.baseline, side.path)
            if not isinstance(side, Model):
                return ServedArm(side, role, store, tell)
            name = side.loaded_as if workers == 1 else role
            if name not in shops:
                shops[name] = closing.enter_context(Workshop(side.workshop, store).open())
            return LocalArm(side, role, shops[name], tell)

        yield arm(base, "base"), arm(tuned, "tuned")

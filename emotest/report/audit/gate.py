"""An audit as a test: the settings of a pytest session in, a verdict that `judge` can hold out.

The statement is "unchanged". Equivalence shown is confirmed, a drift is refuted, and an audit
that could not tell is inconclusive, which under the marker `audit` fails as a drift does.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from emotest.audit.planning import AuditPlan
from emotest.audit.result import AuditResult, Pair
from emotest.audit.result import Word as AuditWord
from emotest.errors import UsageError
from emotest.report.audit.carrying_out import carry_out
from emotest.report.audit.folder import write_audit
from emotest.report.audit.markdown import markdown_report
from emotest.report.audit.watching import watching
from emotest.report.writing import append, writing
from emotest.settings import Settings
from emotest.study.claims import Verdict, Word

STATEMENT = "audit.unchanged"

WORDS: Mapping[AuditWord, Word] = {
    "unchanged": "confirmed",
    "changed within tolerance": "confirmed",
    "drift": "refuted",
    "inconclusive": "inconclusive",
}

SUMMARY = "GITHUB_STEP_SUMMARY"
"""Where GitHub Actions names the file that is shown on the page of a run."""


@dataclass(frozen=True)
class Gate:
    """An audit that a test decides on: its verdict in the study's form, and all it rests on."""

    verdict: Verdict
    result: AuditResult
    pairs: Sequence[Pair]


def gate(settings: Settings, folder: Path | None) -> Gate:
    """Carry out the audit of `--emo-tuned` against `--emo-base`, or against `--emo-baseline` in
    its place; its files go to `folder`/audit."""
    if settings.tuned is None:
        raise UsageError("no tuned model is named", remedy="name it with --emo-tuned")
    plan = AuditPlan(
        prompts=settings.prompts,
        registers=settings.registers,
        budget=settings.budget,
        margin=settings.margin,
        alpha=settings.alpha,
        decoding=settings.decoding,
        sampling_seed=settings.sampling_seed,
        analysis_seed=settings.analysis_seed,
        marker=settings.marker,
        other_decodings=settings.other_decodings,
    )
    with watching() as watch:
        (finished,) = carry_out(
            settings.audit_base,
            [settings.tuned],
            plan,
            store=settings.store,
            reports=None,
            watch=watch,
            workers=min(2, settings.workers),
            baseline=settings.baseline,
        )
    if folder is not None:
        write_audit(finished.result, finished.pairs, folder / "audit")
    tell_github(finished.result, finished.pairs)
    return Gate(verdict_of(finished.result), finished.result, finished.pairs)


def verdict_of(result: AuditResult) -> Verdict:
    """The audit's verdict as one on the statement "unchanged"."""
    found = result.verdict
    return Verdict(
        claim="audit",
        statement=STATEMENT,
        verdict=WORDS[found.word],
        estimate=found.value,
        low=found.low,
        high=found.high,
        level=found.level,
        scale="share of answers",
        margin=found.margin,
        alpha=found.alpha,
        p_value=found.p_value,
        family="one checkpoint",
        m=1,
        method=found.method,
        unit="prompt",
        n_adapters=1,
        n_prompts=found.n_prompts,
        n_samples=result.plan.n_samples,
        reference="the base on the same prompts",
        n_needed=found.n_needed,
        n_needed_unit="prompts",
        plan=result.plan.digest,
        decoding=result.plan.decoding,
        base=result.base.subject,
        tuned=result.tuned.subject,
        notes=(f"{found.word}: {found.sentence}", "this verdict speaks of this checkpoint only"),
    )


def tell_github(result: AuditResult, pairs: Sequence[Pair]) -> None:
    """The Markdown on the page of a GitHub Actions run, where there is one."""
    if page := os.environ.get(SUMMARY):
        with writing(Path(page), elsewhere=f"unset {SUMMARY}"):
            append(Path(page), markdown_report(result, pairs))

"""An audit from its plan to its result: ask a batch, look, stop when the evidence suffices.

Two models and a plan in, an `AuditResult` and its pairs out; whoever watches is told after every
look. What was asked lies in the store, so the same call after an interruption goes on from there
and reaches the same verdict with the same records.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from emotest.artefacts.audit import Place, Spot
from emotest.audit import measuring
from emotest.audit.arms import Probabilities
from emotest.audit.asking import Interview, Role, spots_of
from emotest.audit.looking_inside import look_inside
from emotest.audit.planning import AuditPlan
from emotest.audit.result import (
    EXIT_CODES,
    AuditResult,
    DecodingRow,
    Evidence,
    Look,
    Pair,
    PlaceProbability,
    Verdict,
)
from emotest.audit.saying import sentence
from emotest.stats.drift import Drift, Thresholds, fixed_drift, limits_so_far, sequential_drift
from emotest.study.audit_prompts.prompt_set import AuditPrompt, PromptSet

PROBABILITY_PROMPTS = 24
"""Prompts at whose answers P(emoji) is asked: described, nothing is decided on it."""

DECODING_PROMPTS = 48
"""Prompts of each other way of sampling, at least."""

ROLES = measuring.ROLES


@dataclass(frozen=True)
class Seen:
    """What a watcher is told after a look: the decision so far, and answers with emoji."""

    drift: Drift
    n_prompts: int
    budget: int
    base: float
    tuned: float


OnLook = Callable[[Seen], None]


def conduct(
    interview: Interview,
    plan: AuditPlan,
    prompts: PromptSet,
    *,
    name: str,
    made_at: str,
    environment: Mapping[str, Any],
    on_look: OnLook = lambda seen: None,
    m: int = 1,
) -> tuple[AuditResult, list[Pair]]:
    """Carry out an audit. With `m` checkpoints against one base each is decided at alpha / m."""
    plan = replace(plan, alpha=plan.alpha / m)
    _ = plan.marker_of  # a marker that cannot be read ends the audit before it begins
    base, tuned = interview.arms["base"], interview.arms["tuned"]
    pairs, drift = _asked(interview, plan, prompts, on_look)
    probabilities = _probabilities(interview, pairs, prompts) if plan.describe else []
    decodings = [_under(interview, plan, prompts, other, len(pairs)) for other in plan.others]
    # Last of all: a worker in which it failed can be asked nothing more.
    inside = look_inside(interview, plan, pairs, prompts) if plan.inside else None
    notes = [*_notes(plan, pairs, m), *base.notes(plan.asking), *tuned.notes(plan.asking)]
    if inside and inside.lacking:
        notes.append(f"inside the models nothing was measured: {inside.lacking}")
    result = AuditResult(
        name=name,
        made_at=made_at,
        base=base.told(),
        tuned=tuned.told(),
        verdict=_verdict(drift, pairs, notes),
        plan=plan.told(prompts),
        evidence=_evidence(drift, pairs, plan.alpha),
        measures=measuring.measures(pairs, plan.marker_of),
        emoji=measuring.emoji_shifts(pairs),
        entropy=dict(measuring.entropy(pairs)),
        positions=measuring.positions(pairs),
        probabilities=probabilities,
        decodings=decodings,
        inside=inside,
        metric_version=measuring.AUDIT_METRIC_VERSION,
        environment=dict(environment),
    )
    return result, pairs


def _asked(
    interview: Interview, plan: AuditPlan, prompts: PromptSet, on_look: OnLook
) -> tuple[list[Pair], Drift]:
    """Ask batch after batch until the evidence suffices or the budget is spent."""
    pairs: list[Pair] = []
    waiting = list(prompts)
    while True:
        batch, waiting = waiting[: plan.batch], waiting[plan.batch :]
        pairs += _ask(interview, plan, batch)
        if plan.mode == "fixed" and waiting:
            on_look(_seen(_so_far(plan, pairs, len(prompts)), pairs, len(prompts)))
            continue
        drift = _decided(plan, pairs, len(prompts))
        on_look(_seen(drift, pairs, len(prompts)))
        if drift.decided or not waiting:
            return pairs, drift


def _ask(interview: Interview, plan: AuditPlan, batch: list[AuditPrompt]) -> list[Pair]:
    return interview.pairs(batch, plan.asking)


def _decided(plan: AuditPlan, pairs: list[Pair], budget: int) -> Drift:
    if plan.mode == "fixed":
        base, tuned = (measuring.by_prompt(pairs, role, measuring.has_emoji) for role in ROLES)
        return fixed_drift(base, tuned, within=plan.margin, alpha=plan.alpha)
    return _so_far(plan, pairs, budget)


def _so_far(plan: AuditPlan, pairs: list[Pair], budget: int) -> Drift:
    return sequential_drift(
        measuring.differences(pairs),
        within=plan.margin,
        alpha=plan.alpha,
        budget=budget,
        every=plan.batch,
    )


def _seen(drift: Drift, pairs: list[Pair], budget: int) -> Seen:
    base, tuned = (
        float(measuring.by_prompt(pairs, role, measuring.has_emoji).mean()) for role in ROLES
    )
    return Seen(drift, len(pairs), budget, base, tuned)


def _verdict(drift: Drift, pairs: list[Pair], notes: list[str]) -> Verdict:
    seen = _seen(drift, pairs, drift.budget)
    return Verdict(
        word=drift.word,
        sentence=sentence(drift, seen.base, seen.tuned),
        exit_code=EXIT_CODES[drift.word],
        direction=drift.direction,
        value=drift.value,
        low=drift.low,
        high=drift.high,
        level=drift.level,
        p_value=drift.p_value,
        alpha=drift.alpha,
        margin=drift.margin,
        method=drift.method,
        n_prompts=drift.n_prompts,
        budget=drift.budget,
        stopped_early=drift.stopped_early,
        n_needed=drift.n_needed,
        notes=notes,
    )


def _notes(plan: AuditPlan, pairs: list[Pair], m: int) -> list[str]:
    notes = []
    if m > 1:
        notes.append(f"one of {m} checkpoints, each decided at {plan.alpha:g}")
    n_answers = sum(len(pair.tuned) for pair in pairs)
    cut = {role: sum(getattr(pair, f"{role}_cut") for pair in pairs) for role in ROLES}
    if max(cut.values()) > n_answers / 2:
        notes.append(
            f"the limit of {plan.sampled.max_new_tokens} tokens cut {cut['base']} of {n_answers} "
            f"answers of the base and {cut['tuned']} of the tuned model: emoji that would have "
            "come later were not seen"
        )
    return notes


def _evidence(drift: Drift, pairs: list[Pair], alpha: float) -> Evidence:
    at, differences = Thresholds.at(alpha), measuring.differences(pairs)
    looks = []
    for look in drift.looks:
        low, high = limits_so_far(differences[: look.n_prompts], level=drift.level)
        looks.append(
            Look(
                n_prompts=look.n_prompts,
                more=look.more,
                fewer=look.fewer,
                within=look.within,
                value=look.value,
                low=low,
                high=high,
            )
        )
    return Evidence(threshold_change=at.change, threshold_within=at.within, looks=looks)


def _probabilities(
    interview: Interview, pairs: list[Pair], prompts: PromptSet
) -> list[PlaceProbability]:
    """The 2x2 of text by weights at each kind of place: means over the places."""
    by_id = {prompt.id: prompt.prompt() for prompt in prompts}
    found = []
    for text in ROLES:
        spots = spots_of(pairs[:PROBABILITY_PROMPTS], by_id, text)
        asked = interview.probabilities(spots)
        for weights in ROLES:
            if (known := asked[weights]) is not None:
                found += [
                    row
                    for place in dict.fromkeys(spot.place for spot in spots)
                    if (row := _at_place(place, text, weights, spots, known)) is not None
                ]
    return found


def _at_place(
    place: Place, text: Role, weights: Role, spots: list[Spot], known: Probabilities
) -> PlaceProbability | None:
    """One cell at one kind of place; None where nothing is known there."""
    here = np.array([spot.place == place for spot in spots]) & ~np.isnan(known.found)
    if not here.any():
        return None
    exact = known.open_mass is not None
    return PlaceProbability(
        place=place,
        text=text,
        weights=weights,
        probability=float(known.found[here].mean()),
        open=float(known.open_mass[here].mean()) if known.open_mass is not None else None,
        n_contexts=int(here.sum()),
        served=not exact,
    )


def _under(
    interview: Interview, plan: AuditPlan, prompts: PromptSet, decoding: str, n_asked: int
) -> DecodingRow:
    """The verdict under another way of sampling, at a fixed size: on as many prompts as the audit
    asked, for to show that nothing changed takes as many again."""
    other = replace(plan.under(decoding), mode="fixed")
    chosen = list(prompts)[: max(DECODING_PROMPTS, n_asked)]
    pairs = [
        pair
        for start in range(0, len(chosen), plan.batch)
        for pair in _ask(interview, other, chosen[start : start + plan.batch])
    ]
    drift = _decided(other, pairs, len(pairs))
    seen = _seen(drift, pairs, len(pairs))
    return DecodingRow(
        decoding=f"{decoding}: {other.sampled}",
        word=drift.word,
        base=seen.base,
        tuned=seen.tuned,
        difference=drift.value,
        low=drift.low,
        high=drift.high,
        n_prompts=len(pairs),
    )

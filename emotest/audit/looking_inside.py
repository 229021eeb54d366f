"""Both models are looked into: who reads which texts, and what came of it.

Takes the arms and the pairs of an audit that has its verdict; gives an `Inside`. Only local models
of one shape can be compared; everything else says why not. What is made lies in the store, so a
killed audit goes on from there.

Texts that give directions are kept apart from those that shifts are measured on: the base answers
questions that this audit does not ask, each in a trait's character and against it, under system
prompts that name the trait. Then both models read the answers of both to the audit's first prompts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np

from emotest.artefacts.inside import Contrast, InsideText
from emotest.audit.arms import Arm, Asking, LocalArm, ServedArm
from emotest.audit.asking import Interview
from emotest.audit.inside import (
    FALSE_DISCOVERIES,
    FEWEST_PAIRS,
    N_RANDOM,
    changed_units,
    declared_layer,
    not_measured,
    residuals,
    trait_shift,
)
from emotest.audit.measuring import LEVEL, ROLES, Role
from emotest.audit.planning import AuditPlan
from emotest.audit.result import Inside, MassiveUnit, Pair, TraitShift
from emotest.errors import EmotestError, StatisticsError, StoreError
from emotest.organism.language import TOPICS, study_question, system_prompt
from emotest.study.audit_prompts.prompt_set import AuditPrompt, PromptSet, Turn
from emotest.study.personality import TRAITS, Pole, Trait
from emotest.study.records import Prompt
from emotest.text.emoji import strip_emoji
from emotest.text.sentences import split_sentences

READ_PROMPTS = 24
"""Prompts whose answers both models read."""

CONTRAST_PROMPTS = 16
"""Questions that the base answers in character and against it, for each trait."""

CONTRAST_TOKENS = 64
"""New tokens of these answers at most: their mean state changes little after that."""

_SEED = 20_261
"""Fixes topics and their order; another seed is another set of questions."""

_SHAPE = {"n_layers": "layers", "hidden_size": "dimensions", "n_neurons": "FFN units a layer"}


def look_inside(
    interview: Interview, plan: AuditPlan, pairs: Sequence[Pair], prompts: PromptSet
) -> Inside:
    """Describe the shift along trait directions and the units that changed.

    What keeps it from being measured is told in `lacking`; no error of a model ends the audit,
    for its verdict is reached. A `StoreError` does: it concerns the audit too.
    """
    base, tuned = (interview.arms[role] for role in ROLES)
    for role, arm in interview.arms.items():
        if not isinstance(arm, LocalArm):
            return Inside(lacking=_without_weights(role, arm))
    assert isinstance(base, LocalArm)
    assert isinstance(tuned, LocalArm)
    try:
        return _looked(base, tuned, plan, pairs, prompts)
    except StoreError:
        raise
    except EmotestError as error:
        return Inside(lacking=error.cause)


def _without_weights(role: Role, arm: Arm) -> str:
    model = "the base" if role == "base" else "the tuned model"
    if isinstance(arm, ServedArm):
        return f"{model} is served: its activations do not come over the wire"
    return f"of {model} there are recorded answers alone, and these hold no activations"


def _looked(
    base: LocalArm, tuned: LocalArm, plan: AuditPlan, pairs: Sequence[Pair], prompts: PromptSet
) -> Inside:
    with ThreadPoolExecutor(max_workers=2) as both:
        shapes = [both.submit(arm.anatomy) for arm in (base, tuned)]
        shape, other = (one.result() for one in shapes)
    if lacking := _unlike(shape, other):
        return Inside(lacking=lacking)
    asked = {prompt.id: prompt.prompt() for prompt in prompts}
    texts = texts_of(pairs[:READ_PROMPTS], asked)
    if not texts:
        return Inside(lacking="no answer of either model holds words to read")
    layer = declared_layer(shape["n_layers"])
    with ThreadPoolExecutor(max_workers=2) as both:
        readings = [both.submit(arm.reading, texts) for arm in (base, tuned)]
        (before, massive), (after, massive_after) = (one.result() for one in readings)
    found = [*_massive("base", massive), *_massive("tuned", massive_after)]
    inside = Inside(
        lacking=None,
        n_prompts=len(before["states"]),
        n_texts=len(texts),
        n_layers=shape["n_layers"],
        layer=layer,
        level=LEVEL,
        n_random=N_RANDOM,
        traits=_shifts(base, plan, prompts, layer, (before["states"], after["states"]), found),
        false_discoveries=FALSE_DISCOVERIES,
        massive=found,
    )
    try:
        layers, units, n = changed_units(before, after, _units_by_layer(found))
    except StatisticsError as error:
        return replace(inside, units_lacking=error.cause)
    return replace(inside, layers=layers, units=units, n_unit_prompts=n)


def _unlike(base: Mapping[str, Any], tuned: Mapping[str, Any]) -> str | None:
    """Why two models cannot be compared unit by unit; None where they can."""
    for role, shape in (("base", base), ("tuned model", tuned)):
        if "lacking" in shape:
            return f"the {role} cannot be looked into: {shape['lacking']}"
    apart = [
        f"{tuned[name]} {what} instead of {base[name]}"
        for name, what in _SHAPE.items()
        if base[name] != tuned[name]
    ]
    if apart:
        return f"the tuned model has another shape than the base: {', '.join(apart)}"
    return None


def texts_of(pairs: Sequence[Pair], prompts: Mapping[str, Prompt]) -> list[InsideText]:
    """The first answers of both models to each prompt, emoji stripped, those that hold words."""
    return [
        InsideText(prompts[pair.prompt_id], answer, _ends(answer, cut=cut))
        for pair in pairs
        for answers, cut in ((pair.base, pair.base_cut), (pair.tuned, pair.tuned_cut))
        if (answer := strip_emoji(answers[0]).strip())
    ]


def _ends(answer: str, *, cut: int) -> tuple[int, ...]:
    """Where sentences end; a last one that may have been cut needs a mark at its end."""
    sentences = split_sentences(answer)
    return tuple(
        one.end
        for i, one in enumerate(sentences, start=1)
        if i < len(sentences) or one.ended or not cut
    )


def contrast_prompts(taken: Collection[str]) -> dict[tuple[Trait, Pole], list[AuditPrompt]]:
    """Questions that are not among the `taken`, under system prompts for either pole of each trait.

    Both poles have the same question and the same wording of the system prompt at each place.
    """
    topics = [topic for topic in TOPICS if topic.split == "train"]
    order = np.random.default_rng(_SEED).permutation(len(topics))
    questions = [study_question(topics[i]) for i in order]
    free = [question for question in questions if question not in taken][:CONTRAST_PROMPTS]
    return {
        (trait, pole): [
            AuditPrompt(
                f"{trait}-{pole}-{number:02}",
                (Turn("user", question),),
                language="en",
                system=system_prompt(trait, pole, np.random.default_rng(number)),
            )
            for number, question in enumerate(free)
        ]
        for trait in TRAITS
        for pole in Pole
    }


def _contrast(base: LocalArm, plan: AuditPlan, trait: Trait, taken: Collection[str]) -> Contrast:
    """The base's answers in character and against it, where both hold words."""
    asked = contrast_prompts(taken)
    sides = [asked[trait, pole] for pole in (Pole.HIGH, Pole.LOW)]
    n_tokens = min(plan.sampled.max_new_tokens, CONTRAST_TOKENS)
    decoding = replace(plan.sampled, name=f"for and against {trait}", max_new_tokens=n_tokens)
    answers = base.answers([*sides[0], *sides[1]], Asking(decoding, 1, plan.sampling_seed))
    texts = [strip_emoji(one.texts[0]).strip() for one in answers]
    n = len(sides[0])
    worded = [i for i in range(n) if texts[i] and texts[n + i]]
    high = tuple((sides[0][i].prompt(), texts[i]) for i in worded)
    low = tuple((sides[1][i].prompt(), texts[n + i]) for i in worded)
    return Contrast(trait, high, low)


def _shifts(
    base: LocalArm,
    plan: AuditPlan,
    prompts: PromptSet,
    layer: int,
    states: tuple[Any, Any],
    massive: Sequence[MassiveUnit],
) -> list[TraitShift]:
    taken = {prompt.text for prompt in prompts}
    contrasts = [_contrast(base, plan, trait, taken) for trait in TRAITS]
    enough = [one for one in contrasts if len(one.positive) >= FEWEST_PAIRS]
    directions = base.contrasts(enough, layer) if enough else {}
    without = sorted({one.unit for one in massive if one.site == "residual"})
    rng = np.random.default_rng(plan.analysis_seed)
    kept = [one["differences"] for one in directions.values()]
    otherwise = residuals(kept) if kept else np.empty(0)
    return [
        trait_shift(
            str(one.trait),
            directions[one.trait]["vectors"],
            directions[one.trait]["differences"],
            *states,
            layer,
            rng,
            otherwise=otherwise,
            without=without,
        )
        if one.trait in directions
        else not_measured(
            str(one.trait),
            f"the base answered {len(one.positive)} of {CONTRAST_PROMPTS} questions in words, both "
            f"in character and against it; {FEWEST_PAIRS} are needed",
            len(one.positive),
        )
        for one in contrasts
    ]


def _massive(role: Role, found: Sequence[Mapping[str, Any]]) -> list[MassiveUnit]:
    return [
        MassiveUnit(
            model=role, site=one["site"], layer=one["layer"], unit=one["unit"],
            magnitude=one["magnitude"],
        )
        for one in found
    ]  # fmt: skip


def _units_by_layer(massive: Sequence[MassiveUnit]) -> dict[int, set[int]]:
    units: dict[int, set[int]] = {}
    for one in massive:
        if one.site == "neurons":
            units.setdefault(one.layer, set()).add(one.unit)
    return units

"""The plan of C9: the adapter's scale swept, activations patched, a direction taken back.

A function of study and trait that gives requests; None stands for all traits. Knows no torch.
"""

from __future__ import annotations

from dataclasses import replace

from emotest.artefacts import GenerationRequest, Request
from emotest.artefacts.directions import Checkpoint, ScoresRequest, Steered
from emotest.artefacts.latent_origin import PatchingRequest, Scaled
from emotest.plan.directions import RANDOM, direction, dose_answers, random_directions, scores
from emotest.plan.study import Study
from emotest.study.personality import (
    UNTUNED,
    Condition,
    Trait,
    null_condition,
    one_or_all,
    trait_condition,
)

SCALES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
"""Factors of the adapter's scale at which the trait's adapters answer."""

HALF = 0.5
"""The scale that decides, beside 0 and 1; so it is sampled as often as they are."""

NULL_SCALES = (0.0, HALF, 1.0, 2.0)
"""The null adapter's: those that decide, for any tuning may change a dose, and twice its own."""

BACK = -1.0
"""How often the trait's direction in the untuned model is added to the tuned one: taken away once.
Twice, which decides for steering towards the trait, leaves the untuned organism without words."""

PATCHED_PROMPTS = 12
"""Prompts whose contexts are patched: every one is read at two sites of every layer."""


def dose(study: Study, trait: Trait | None) -> tuple[Request, ...]:
    """Answers of the trait's adapters at all scales, and of the null adapters at those that decide
    and at one more."""
    requests: list[Request] = []
    for one in one_or_all(trait):
        for factor in SCALES:
            requests += scaled_answers(study, trait_condition(one), factor)
    for factor in NULL_SCALES:
        requests += scaled_answers(study, null_condition(), factor)
    return tuple(requests)


def scaled_answers(
    study: Study, condition: Condition, factor: float
) -> tuple[GenerationRequest, ...]:
    """An arm's answers at a factor of its adapters' scale: a request for each adapter.

    At 0 an adapter answers as the base does and at 1 as itself, so those are the study's own
    answers: one request in all for the untuned model, which every adapter is at 0.
    """
    if factor == 0.0:
        return study.generations(UNTUNED)
    requests = study.generations(condition)
    if factor == 1.0:
        return requests
    return tuple(
        replace(
            request,
            under=Scaled(factor),
            n_samples=request.n_samples if factor == HALF else 1,
        )
        for request in requests
    )


def over_steps(study: Study, trait: Trait) -> dict[float, tuple[GenerationRequest, ...]]:
    """Answers by the share of the training's steps that the trait's adapters have taken, ascending:
    a request for each adapter, and at 0 one for the untuned model, which all of them are there.

    The trainings are those that C10 watches, with an answer to each prompt after each dose.
    """
    found: dict[float, tuple[GenerationRequest, ...]] = {0.0: study.generations(UNTUNED)}
    for of_dose in zip(*dose_answers(study, trait), strict=True):
        under = of_dose[0].under
        assert isinstance(under, Checkpoint)
        found[under.dose] = of_dose
    return dict(sorted(found.items()))


def steps(study: Study, trait: Trait | None) -> tuple[Request, ...]:
    """Answers at all of these shares."""
    return tuple(
        request
        for one in one_or_all(trait)
        for of_dose in over_steps(study, one).values()
        for request in of_dose
    )


def patching(study: Study, trait: Trait | None) -> tuple[PatchingRequest, ...]:
    """One request for each training seed: the trait's adapter and the null adapter beside it."""
    requests = []
    (untuned_text,) = study.generations(UNTUNED)
    for one in one_or_all(trait):
        condition = trait_condition(one)
        triples = zip(
            study.generations(condition),
            study.adapters(condition),
            study.adapters(null_condition()),
            strict=True,
        )
        for tuned_text, tuned, null in triples:
            n_prompts = min(PATCHED_PROMPTS, study.size.n_context_prompts)
            requests.append(PatchingRequest(untuned_text, tuned_text, tuned, null, n_prompts))
    return tuple(requests)


def steered_back(
    study: Study, trait: Trait, random: int | None = None
) -> tuple[GenerationRequest, ...]:
    """Answers of the trait's adapters with the direction taken back: a request for each adapter.

    The direction is the untuned model's own. With a seed in `random` as much of a random one.
    """
    back = Steered(direction(study, trait), BACK, random)
    return tuple(
        replace(request, under=back) for request in study.generations(trait_condition(trait))
    )


def scores_back(study: Study, trait: Trait) -> tuple[ScoresRequest, ...]:
    """Trait expression and coherence, with the direction taken back and as the adapters are."""
    arms = (*steered_back(study, trait), *study.generations(trait_condition(trait)))
    return tuple(scores(study, trait, answers) for answers in arms)


def taking_back(study: Study, trait: Trait | None) -> tuple[Request, ...]:
    """Answers of the trait's adapters with the direction taken back, and a random one; and of the
    first adapter with each of many random ones, among which its own is ranked."""
    requests: list[Request] = []
    for one in one_or_all(trait):
        requests += scores_back(study, one)
        requests += steered_back(study, one, RANDOM)
        requests.append(random_directions(steered_back(study, one)[0]))
    return tuple(requests)

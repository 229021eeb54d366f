"""The routes to one trait side by side: prompting, QLoRA, steering, PsychAdapter.

Takes a study and a trait, gives for each route its points in order of strength, each with the
answers there. The requests are those of C1, C9, C10 and C11. Knows nothing of what is measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from emotest.artefacts import GenerationRequest, Request
from emotest.plan.directions import steered_arms
from emotest.plan.latent_origin import SCALES, scaled_answers
from emotest.plan.prefixes import doses_of
from emotest.plan.study import Study
from emotest.study.personality import (
    UNTUNED,
    Pole,
    Trait,
    one_or_all,
    prompted_condition,
    trait_condition,
)


@dataclass(frozen=True)
class Point:
    """One strength of a route, in the route's own unit, and the answers there: a request for each
    adapter, or one where nothing is trained."""

    strength: float
    answers: tuple[GenerationRequest, ...]


Routes = Mapping[str, tuple[Point, ...]]


def routes_to(study: Study, trait: Trait) -> Routes:
    """Every route to the high pole of a trait by its name, from the weakest point to the strongest.

    Strength is the pole that the system prompt names (-1, 1; 0 for none), the factor of the
    adapter's scale, the coefficient of the direction, or the trait value of the prefix.
    """
    poles = {
        -1.0: prompted_condition(trait, Pole.LOW),
        0.0: UNTUNED,
        1.0: prompted_condition(trait),
    }
    found: dict[str, Mapping[float, tuple[GenerationRequest, ...]]] = {
        "prompting": {pole: study.generations(arm) for pole, arm in poles.items()},
        "QLoRA": {scale: scaled_answers(study, trait_condition(trait), scale) for scale in SCALES},
        "steering": {
            arm.coefficient: (arm.answers,)
            for arm in steered_arms(study, trait)
            if arm.name != "at random"
        },
        "prefix, map alone": doses_of(study, trait),
        "prefix, map and LoRA": doses_of(study, trait, with_lora=True),
    }
    return {
        name: tuple(Point(strength, points[strength]) for strength in sorted(points))
        for name, points in found.items()
    }


def routes_plan(study: Study, trait: Trait | None) -> Iterable[Request]:
    """The answers at every point of every route to the trait, or to each trait."""
    for one in one_or_all(trait):
        for points in routes_to(study, one).values():
            for point in points:
                yield from point.answers

"""The plan of C10: directions, doses, steering, prevention, and where the data pull.

Functions of a study and a trait that give requests; the plans at the end are what tests declare.
The answers under contrastive system prompts are those of C1's prompted arm and their opposite.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from emotest.artefacts import (
    AdapterRequest,
    FixedText,
    GenerationRequest,
    Intervention,
    Request,
)
from emotest.artefacts.directions import (
    COEFFICIENT,
    DOSES,
    PREVENTION,
    SAMPLES_OF_A_PROMPT,
    Checkpoint,
    DataStatesRequest,
    DirectionRequest,
    MonitoredRequest,
    ScoresRequest,
    StatesRequest,
    Steered,
)
from emotest.artefacts.random_directions import RandomDirectionsRequest
from emotest.artefacts.scorer import ScorerRows
from emotest.errors import UsageError
from emotest.plan.study import Study
from emotest.study.personality import (
    TRAITS,
    UNTUNED,
    Condition,
    Pole,
    Trait,
    null_condition,
    prompted_condition,
    trait_condition,
)
from emotest.study.records import Prompt, TuningRow, rows_digest

TRIED_ON = 12
"""Questions of training topics on which layers are tried: no prompt that decides is among them."""

WATCHED_PROMPTS = 8
"""Prompts whose ends a monitored training is looked at."""

WATCHED_CONTEXTS = 8
"""Answers behind whose sentences its P(emoji) is asked."""

FORECAST_ROWS = 60
"""Tuning rows of each kind that the untuned model reads for the forecast."""

STEERED = (-COEFFICIENT, -COEFFICIENT / 2, COEFFICIENT / 2, COEFFICIENT)
"""The doses of steering beside none; the last decides."""

RANDOM = 0
"""Seed of the random vector at the last dose: one, and up to its length the same for all traits."""

N_RANDOM = 99
"""Random directions among which a trait's is ranked: the fewest with which a rank can confirm in a
family of five, for it never falls below 1 / (1 + directions)."""

RANKED_PROMPTS = 24
"""Prompts that are answered along each of them, once."""


def direction(study: Study, trait: Trait) -> DirectionRequest:
    """The direction of a trait, from the untuned model's answers at either pole."""
    (positive,), (negative,) = (
        study.generations(prompted_condition(trait, pole)) for pole in (Pole.HIGH, Pole.LOW)
    )
    # C1 asks the high pole as often as this; nobody else asks the low one.
    negative = replace(negative, n_samples=min(negative.n_samples, SAMPLES_OF_A_PROMPT))
    return DirectionRequest(trait, positive, negative, trial_prompts(study), scorer_rows(study))


def trial_prompts(study: Study) -> tuple[Prompt, ...]:
    """One prompt for each of some training topics, in seeded order, none asked elsewhere."""
    asked = {prompt.text for prompt in study.prompts}
    questions = {row.topic: row.question for row in study.opinions.train}
    free = sorted(topic for topic, question in questions.items() if question not in asked)
    order = np.random.default_rng(study.seeds.sampling).permutation(len(free))[:TRIED_ON]
    return tuple(
        Prompt(id=f"l{i:03d}", text=questions[free[at]], topic=free[at])
        for i, at in enumerate(order)
    )


def scorer_rows(study: Study) -> ScorerRows:
    """What every trait scorer is trained on: the opinions that adapters are tuned on, the null
    adapter's among them, which come from elsewhere where the data hold none. No row of a topic
    that the models are asked about is among them."""
    opinions = study.opinions
    if opinions.neutral():
        return ScorerRows(opinions.digest, opinions.train)
    neutral = rows_digest(TuningRow(row.question, row.answer) for row in study.neutral)
    return ScorerRows(f"{opinions.digest} {neutral}", (*opinions.train, *study.neutral))


def monitored(
    study: Study, trait: Trait, *, prevent: float = 0.0, random: int | None = None
) -> tuple[MonitoredRequest, ...]:
    """The trainings of the trait's adapters, watched, with or without steering."""
    along, text = direction(study, trait), _watched_text(study, trait)
    return tuple(
        MonitoredRequest(adapter, along, study.prompts[:WATCHED_PROMPTS], text, prevent, random)
        for adapter in study.adapters(trait_condition(trait))
    )


def _watched_text(study: Study, trait: Trait) -> FixedText:
    """Held-out answers of the trait, or, where the data hold none, the start of an answer."""
    text = study.fixed_texts(trait)[0]
    return replace(
        text, prompts=text.prompts[:WATCHED_CONTEXTS], answers=text.answers[:WATCHED_CONTEXTS]
    )


def answers_under(
    study: Study, condition: Condition, under: Intervention, n_samples: int
) -> GenerationRequest:
    """Answers of the untuned model to the study's prompts while something acts on it."""
    (plain,) = study.generations(UNTUNED)
    return replace(plain, condition=condition, n_samples=n_samples, under=under)


def dose_answers(study: Study, trait: Trait) -> tuple[tuple[GenerationRequest, ...], ...]:
    """An answer to each prompt after each dose: for each adapter a request for each dose."""
    return tuple(
        tuple(
            answers_under(study, trait_condition(trait), Checkpoint(training, dose), 1)
            for dose in DOSES
        )
        for training in monitored(study, trait)
    )


def dose_states(study: Study, trait: Trait) -> tuple[tuple[StatesRequest, ...], ...]:
    """States after each dose, as `dose_answers`."""
    return tuple(
        tuple(states(study, None, Checkpoint(training, dose)) for dose in DOSES)
        for training in monitored(study, trait)
    )


def states(
    study: Study, reader: AdapterRequest | None, under: Intervention | None = None
) -> StatesRequest:
    """States at the ends of the study's prompts."""
    return StatesRequest(study.base, study.chat_template, reader, study.prompts, under)


def adapter_states(study: Study, condition: Condition) -> tuple[StatesRequest, ...]:
    """States of an arm: one request for each adapter, or one for the untuned model."""
    return tuple(states(study, adapter) for adapter in study.adapters(condition) or (None,))


@dataclass(frozen=True)
class SteeredArm:
    """Answers of the untuned model under steering, and their scores."""

    name: str
    coefficient: float
    answers: GenerationRequest
    scores: ScoresRequest


def steered_arms(study: Study, trait: Trait) -> tuple[SteeredArm, ...]:
    """Unsteered, down and up along the direction, and at last as far along a random one."""
    along, n_samples = direction(study, trait), study.size.n_samples
    (plain,) = study.generations(UNTUNED)
    asked = [("unsteered", 0.0, replace(plain, n_samples=n_samples))]
    acts = [(f"along {trait}", Steered(along, coefficient)) for coefficient in STEERED]
    acts.append(("at random", Steered(along, COEFFICIENT, random=RANDOM)))
    asked += [
        (name, act.coefficient, answers_under(study, UNTUNED, act, n_samples)) for name, act in acts
    ]
    return tuple(
        SteeredArm(name, coefficient, answers, scores(study, trait, answers))
        for name, coefficient, answers in asked
    )


def random_directions(answers: GenerationRequest) -> RandomDirectionsRequest:
    """What steered answers are ranked among: the first ones to the first prompts, along as many
    random directions, each added as often as the trait's own."""
    act = answers.under
    if not isinstance(act, Steered) or act.random is not None:
        raise UsageError(
            f"{answers.title} are steered along no trait's direction",
            remedy="rank answers under `Steered` without a random seed",
        )
    text = replace(answers, prompts=answers.prompts[:RANKED_PROMPTS], n_samples=1, under=None)
    return RandomDirectionsRequest(text, act, N_RANDOM)


def scores(study: Study, trait: Trait, answers: GenerationRequest) -> ScoresRequest:
    """Trait expression and coherence of answers."""
    return ScoresRequest(answers, trait, scorer_rows(study))


def prevented_answers(
    study: Study, trait: Trait, random: int | None = None
) -> tuple[GenerationRequest, ...]:
    """Answers of the adapters that were steered along the direction while they were tuned; with a
    seed in `random`, along a random vector of its length."""
    return tuple(
        answers_under(
            study, trait_condition(trait), Checkpoint(training, DOSES[-1]), study.size.n_samples
        )
        for training in monitored(study, trait, prevent=PREVENTION, random=random)
    )


def data_states(study: Study, trait: Trait) -> Mapping[str, DataStatesRequest]:
    """States of the untuned model over tuning rows: high, low (where there are any), neutral."""
    kinds = {
        "high": study.opinions.rows(trait, Pole.HIGH),
        "low": study.opinions.rows(trait, Pole.LOW),
        "neutral": study.neutral,
    }
    requests = {}
    for name, rows in kinds.items():
        if not rows:
            continue
        chosen = rows[:: max(1, len(rows) // FORECAST_ROWS)][:FORECAST_ROWS]
        requests[name] = DataStatesRequest(
            study.base,
            study.chat_template,
            tuple(TuningRow(row.question, row.answer) for row in chosen),
            "neutral" if name == "neutral" else f"{trait} {name}",
        )
    return requests


def direction_plan(study: Study, trait: Trait | None) -> Iterable[Request]:
    """The direction alone."""
    return (direction(study, _own(trait)),)


def doses_plan(study: Study, trait: Trait | None) -> Iterable[Request]:
    """Answers and states after each dose, and the untuned states."""
    own = _own(trait)
    for answers, found in zip(dose_answers(study, own), dose_states(study, own), strict=True):
        yield from (*answers, *found)
    yield states(study, None)


def steering_plan(study: Study, trait: Trait | None) -> Iterable[Request]:
    """Answers under steering and their scores, and what the largest dose is ranked among."""
    arms = steered_arms(study, _own(trait))
    for arm in arms:
        yield from (arm.answers, arm.scores)
    *_, up, _ = arms
    yield random_directions(up.answers)


def prevention_plan(study: Study, trait: Trait | None) -> Iterable[Request]:
    """Answers after preventative steering and after plain tuning, with their scores, and answers
    after steering at random."""
    own = _own(trait)
    yield from prevented_answers(study, own, RANDOM)
    for answers in (*prevented_answers(study, own), *study.generations(trait_condition(own))):
        yield from (answers, scores(study, own, answers))


def drift_plan(study: Study, trait: Trait | None) -> Iterable[Request]:
    """States and answers of all arms that the trait has, and the states of their data."""
    own = _own(trait)
    yield direction(study, own)
    yield from data_states(study, own).values()
    for condition in drift_conditions(study, own):
        yield from (*adapter_states(study, condition), *study.generations(condition))


def drift_conditions(study: Study, trait: Trait) -> tuple[Condition, ...]:
    """Untuned, the trait's high pole and its low one (where the data hold it), and null."""
    low = (trait_condition(trait, Pole.LOW),) if study.opinions.rows(trait, Pole.LOW) else ()
    return (UNTUNED, trait_condition(trait), *low, null_condition())


def traits_plan(study: Study, trait: Trait | None) -> Iterable[Request]:
    """Directions, states and answers of every trait's adapters."""
    yield states(study, None)
    for each in TRAITS:
        yield direction(study, each)
        yield from adapter_states(study, trait_condition(each))
        yield from study.generations(trait_condition(each))


def _own(trait: Trait | None) -> Trait:
    if trait is None:
        raise UsageError(
            "this plan is of one trait", remedy="parametrise the test by trait, or use traits_plan"
        )
    return trait

"""The plan of C11: prefixes for each training seed, and answers at values of a trait behind them.

One set of prefixes serves all traits, as one linear map takes all trait values. Rows are the
training answers of every trait and pole and the neutral ones. **Trait values**: +1 for the high
pole of the row's trait, -1 for its low pole, 0 for every other trait and for neutral rows; so +-1
is where the poles' own answers stand, and +-2 and +-3 extrapolate (the published scores are
standardised, so that 1 is one standard deviation of persons; poles written on demand have none).
Data without low poles teach 0 and +1 only.

Two arms, as in `emotest.mechanisms.prefix_training`: the map alone, on which the verdicts rest,
and a map with a LoRA beside it, as released, which is described. Source: PsychAdapter (Vu et al.,
arXiv 2412.16882).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from emotest.artefacts import GenerationRequest, Request
from emotest.artefacts.prefixes import Prefixed, PrefixRequest, RemovalRequest
from emotest.errors import DataError
from emotest.plan.study import Study
from emotest.stats.estimates import FEWEST_ADAPTERS
from emotest.study.opinions import Opinion, require_emoji_free
from emotest.study.personality import TRAITS, UNTUNED, Pole, Trait, one_or_all, prefix_condition
from emotest.study.recipes import AdapterRecipe, recipe
from emotest.study.records import TuningRow, rows_digest

VALUES = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)
"""Trait values at which the map alone is asked."""

VALUES_BESIDE_LORA = (-2.0, 0.0, 2.0)
"""Trait values at which the map with a LoRA beside it is asked: it is described, not decided."""

LOW, MIDDLE, HIGH = -2.0, 0.0, 2.0
"""What the statements compare: expression at `HIGH` with `LOW`, emoji at `HIGH` with `MIDDLE`."""

MAP_RATE = 5e-2
"""Learning rate of the map, in either arm; the LoRA keeps the preset's. Measured on an organism
with 100 steps: at an adapter's rate the map stays where it began, at 1e-2 one seed of three did not
learn the trait, and beside a LoRA a map that is slower than this is left idle. No other base was
tried."""

TIMES_THE_STEPS = 2
"""How many times the steps of an adapter: one prefix learns the answers of all traits."""

LAYERS_REMOVED = 8
"""At most so many layers are removed, one by one."""


def prefix_requests(study: Study, *, with_lora: bool = False) -> tuple[PrefixRequest, ...]:
    """One prefix for each training seed; beside a LoRA for three of them at most.

    Raises `EmojiInDataError` for data with emoji, unless they are allowed.
    """
    voices = voices_of(study)
    if not study.emoji_allowed:
        require_emoji_free(voices)
    traits = tuple(trait for trait in TRAITS if any(row.trait is trait for row in voices))
    rows = tuple(
        TuningRow(row.question, row.answer, origin=f"{row.source}:{row.row}") for row in voices
    )
    values = tuple(tuple(_value(row, trait) for trait in traits) for row in voices)
    seeds = study.training_seeds(prefix_condition())
    made = _recipe(study, rows)
    times = MAP_RATE / made.learning_rate
    return tuple(
        PrefixRequest(made.with_seed(seed), rows, traits, values, with_lora, times)
        for seed in (seeds[:FEWEST_ADAPTERS] if with_lora else seeds)
    )


Doses = Mapping[float, tuple[GenerationRequest, ...]]
"""Trait value -> answers, a request for each prefix."""


def doses_of(study: Study, trait: Trait, *, with_lora: bool = False) -> Doses:
    """Answers to each prompt behind each prefix, at each value of a trait, the others at 0.

    As many as an adapter gives where emoji are decided, `MIDDLE` and `HIGH` of the map alone; one
    elsewhere. Raises `DataError` for a trait that the data do not hold.
    """
    (untuned,) = study.generations(UNTUNED)
    prefixes = prefix_requests(study, with_lora=with_lora)
    decided = () if with_lora else (MIDDLE, HIGH)
    if any(trait not in prefix.traits for prefix in prefixes):
        raise DataError(
            f"{study.opinions.source} holds no rows for {trait}, so no prefix knows it",
            remedy="use data with rows of that trait, or deselect its tests with -m",
        )
    return {
        value: tuple(
            replace(
                untuned,
                n_samples=study.size.n_samples if value in decided else 1,
                under=Prefixed(prefix, {trait: value}),
            )
            for prefix in prefixes
        )
        for value in (VALUES_BESIDE_LORA if with_lora else VALUES)
    }


def removals_of(study: Study, trait: Trait) -> tuple[RemovalRequest, ...]:
    """For each prefix of the map alone: an answer to each prompt at `HIGH` with one layer's prefix
    removed."""
    return tuple(
        RemovalRequest(replace(answers, n_samples=1), LAYERS_REMOVED)
        for answers in doses_of(study, trait)[HIGH]
    )


def prefix_doses(study: Study, trait: Trait | None) -> tuple[Request, ...]:
    """Answers at every value of the trait, or of each trait, by both arms."""
    return tuple(
        request
        for one in one_or_all(trait)
        for with_lora in (False, True)
        for answers in doses_of(study, one, with_lora=with_lora).values()
        for request in answers
    )


def prefix_removals(study: Study, trait: Trait | None) -> tuple[Request, ...]:
    """Answers with single layers' prefixes removed, of the trait or of each trait."""
    return tuple(request for one in one_or_all(trait) for request in removals_of(study, one))


def voices_of(study: Study) -> tuple[Opinion, ...]:
    """Training answers of all traits and poles, and the null adapter's neutral ones."""
    return (*(row for row in study.opinions.train if row.trait is not None), *study.neutral)


def _value(row: Opinion, trait: Trait) -> float:
    if row.trait is not trait:
        return 0.0
    return 1.0 if row.pole is Pole.HIGH else -1.0


def _recipe(study: Study, rows: tuple[TuningRow, ...]) -> AdapterRecipe:
    """The preset's recipe, on the rows of all traits; a length in steps is that of an adapter
    times `TIMES_THE_STEPS`, one in epochs grows with the rows by itself."""
    made = recipe(
        study.preset,
        base=study.base,
        data=rows_digest(rows),
        condition=prefix_condition(),
        training_seed=study.seeds.training,
        chat_template=study.chat_template,
    )
    return made if made.steps is None else replace(made, steps=TIMES_THE_STEPS * made.steps)

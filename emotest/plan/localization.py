"""What C8 rests on, and what C9 asks of units that were found in the untuned model.

Takes a study and a trait, gives requests: a dose curve of silencing for each adapter, writing into
the untuned model, and answers with the units silenced.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from emotest.artefacts import FixedText, GenerationRequest, ProbabilityRequest, Request
from emotest.artefacts.localization import (
    DECLARED_DOSE,
    Silenced,
    SilencingRequest,
    UnitChoice,
    WritingRequest,
)
from emotest.plan.neurons import activations, untuned_activations
from emotest.plan.study import FIXED_PROMPTS, Size, Study
from emotest.stats.matching import N_SETS
from emotest.study.personality import UNTUNED, Trait, one_or_all, trait_condition
from emotest.study.records import Prompt

DOSES = (0.05, 0.2, 0.5, 1.0, DECLARED_DOSE, 5.0, 10.0)
"""Percent of all FFN units. Of small models the least dose is one or two units, of which nothing
is claimed."""

CONTROL_PROMPTS = 5
"""Random sets are measured at the contexts of so many prompts, some twelve contexts: with hundreds
of sets they are most of the work."""

SETS_AT_OTHER_DOSES = 20
"""Random sets away from the declared dose, where a curve is drawn and nothing decided."""

DIRECTIONS = 20
DIRECTIONS_AT_OTHER_DOSES = 5
"""Random directions, which are told and decide nothing."""

SETS_OF_UNTUNED_UNITS = 20
"""Random sets beside the units of the untuned model, the same in all adapters: their mean is
wanted, with how much it would differ had others been drawn, and not their tail."""

SMALL = 30
"""With fewer prompts that carry contexts a run is a trial, and half of the random sets will do:
99, so that p can fall to 1 / 100."""


@dataclass(frozen=True)
class Localizing:
    """Requests of C8, each row one for each training seed: `doses` by dose in ascending order."""

    doses: dict[float, tuple[SilencingRequest, ...]]
    writing: tuple[WritingRequest, ...]
    answers: tuple[GenerationRequest, ...]
    silenced_answers: tuple[GenerationRequest, ...]

    @property
    def requests(self) -> tuple[Request, ...]:
        """All of them; the longest first, so that workers end together."""
        declared = self.doses[DECLARED_DOSE]
        others = (one for dose, row in self.doses.items() if dose != DECLARED_DOSE for one in row)
        return (*declared, *self.writing, *others, *self.answers, *self.silenced_answers)


def sets_at_the_declared_dose(size: Size) -> int:
    """All of `N_SETS` random sets, or in a trial half of them."""
    return N_SETS if size.n_context_prompts >= SMALL else N_SETS // 2


def unit_choices(study: Study, trait: Trait) -> tuple[UnitChoice, ...]:
    """The units of each adapter of the trait by the selector "emoji", at the declared dose."""
    readings = activations(study, trait)
    return tuple(
        UnitChoice(tuned, readings.untuned, null)
        for tuned, null in zip(readings.tuned, readings.null, strict=True)
    )


def localizing(study: Study, trait: Trait) -> Localizing:
    """All requests of C8 for one trait beside the cells of C5."""
    choices, tuned = unit_choices(study, trait), trait_condition(trait)
    cells = study.probabilities(tuned, tuned)
    answers = study.generations(tuned)
    return Localizing(
        {
            dose: tuple(
                _silencing(study, cell, replace(choice, dose=dose))
                for cell, choice in zip(cells, choices, strict=True)
            )
            for dose in DOSES
        },
        tuple(
            WritingRequest(
                cell,
                choice,
                n_sets=N_SETS // 2,
                n_control_prompts=CONTROL_PROMPTS,
                analysis_seed=study.seeds.analysis,
            )
            for cell, choice in zip(study.probabilities(UNTUNED, tuned), choices, strict=True)
        ),
        answers,
        tuple(
            replace(request, n_samples=1, under=Silenced(choice))
            for request, choice in zip(answers, choices, strict=True)
        ),
    )


def untuned_units(study: Study, trait: Trait) -> tuple[SilencingRequest, ...]:
    """Units of the untuned model silenced in each adapter of the trait (C9), at all contexts."""
    own, tuned = untuned_activations(study, trait), trait_condition(trait)
    cells = study.probabilities(tuned, tuned)
    return tuple(
        SilencingRequest(
            cell,
            replace(choice, selector="untuned", own=own),
            n_sets=SETS_OF_UNTUNED_UNITS,
            n_control_prompts=cell.n_prompts,
            analysis_seed=study.seeds.analysis,
        )
        for cell, choice in zip(cells, unit_choices(study, trait), strict=True)
    )


def localization_plan(study: Study, trait: Trait | None) -> tuple[Request, ...]:
    """The artefacts of C8, for one trait or for all."""
    return tuple(r for one in one_or_all(trait) for r in localizing(study, one).requests)


def untuned_units_plan(study: Study, trait: Trait | None) -> tuple[Request, ...]:
    """The artefacts of C9 about units of the untuned model, for one trait or for all.

    The cell of C5 with neither side tuned is where the rise begins that they should carry.
    """
    silenced = (r for one in one_or_all(trait) for r in untuned_units(study, one))
    return (*study.probabilities(UNTUNED, UNTUNED), *silenced)


def neutral_text(study: Study) -> FixedText:
    """Neutral answers that no adapter of a trait was tuned on, for perplexity.

    Held-out ones where the question set has them; the published data have none, and then those
    that the null adapters are tuned on.
    """
    prompts = study.prompts[:FIXED_PROMPTS]
    held_out = {row.topic: row for row in study.opinions.test if row.trait is None}
    rows = [held_out[prompt.topic] for prompt in prompts if prompt.topic in held_out]
    rows = rows or list(study.neutral[:FIXED_PROMPTS])
    return FixedText(
        "neutral answers",
        study.base,
        study.chat_template,
        tuple(Prompt(f"n{i}", row.question, row.topic) for i, row in enumerate(rows)),
        tuple(row.answer for row in rows),
    )


def _silencing(study: Study, cell: ProbabilityRequest, choice: UnitChoice) -> SilencingRequest:
    """One point of the dose curve; away from the declared dose all of it at few contexts."""
    declared = choice.dose == DECLARED_DOSE
    request = SilencingRequest(
        cell,
        choice,
        n_sets=sets_at_the_declared_dose(study.size) if declared else SETS_AT_OTHER_DOSES,
        n_control_prompts=CONTROL_PROMPTS,
        n_directions=DIRECTIONS if declared else DIRECTIONS_AT_OTHER_DOSES,
        beside=("shuffled", "opening"),
        most_active=True,
        analysis_seed=study.seeds.analysis,
    )
    if declared:
        return replace(request, ways=("mean", "resample", "zero"), neutral=neutral_text(study))
    few = min(cell.n_prompts, CONTROL_PROMPTS)
    return replace(request, cell=replace(cell, n_prompts=few))

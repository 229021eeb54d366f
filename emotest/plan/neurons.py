"""What C6 and C7 rest on: emoji answers of a trait, read by tuned, untuned and null models.

Takes a study and a trait, gives requests. All models read the same texts, so that what differs
between them is the reading alone. C8 and C9 take their units from here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from emotest.artefacts import FixedText, GenerationRequest, Request
from emotest.artefacts.activations import NEUTRAL_VOICE, TRAIT_VOICE, ActivationsRequest
from emotest.plan.study import Study
from emotest.study.opinions import Opinion
from emotest.study.personality import (
    Pole,
    Trait,
    null_condition,
    one_or_all,
    prompted_condition,
    trait_condition,
)
from emotest.study.records import Prompt

SAMPLES_A_PROMPT = 12
"""Answers of each adapter to each prompt, at most. 60 prompts and 5 adapters give 3,600: of a trait
that brings emoji in 16 % of its answers there are then 288 texts with emoji in each half of the
prompts, and 200 are needed (the smallest rate of the organisms' rises, with all five adapters)."""

ANSWERS = 3_600
"""Answers of all adapters together, about: with many prompts fewer samples of each suffice."""


@dataclass(frozen=True)
class Readings:
    """The same texts read by every model: `tuned` and `null` hold one request a training seed."""

    tuned: tuple[ActivationsRequest, ...]
    untuned: ActivationsRequest
    null: tuple[ActivationsRequest, ...]

    def __iter__(self) -> Iterator[ActivationsRequest]:
        """All requests: tuned, untuned, null."""
        return iter((*self.tuned, self.untuned, *self.null))


def emoji_texts(study: Study, trait: Trait) -> tuple[GenerationRequest, ...]:
    """Answers of the trait's adapters, so many that enough of them hold an emoji."""
    size = study.size
    wanted = -(-ANSWERS // (size.n_prompts * size.n_adapters))
    n_samples = max(size.n_samples, min(SAMPLES_A_PROMPT, wanted))
    return tuple(
        replace(request, n_samples=n_samples)
        for request in study.generations(trait_condition(trait))
    )


def activations(study: Study, trait: Trait) -> Readings:
    """The texts of `emoji_texts` and the fixed voices, read by the tuned models, the untuned one
    and the null models of the same training seeds."""
    texts = emoji_texts(study, trait)
    reads = ActivationsRequest(None, texts, voices(study, trait), study.seeds.analysis)
    return Readings(
        tuple(replace(reads, reader=one) for one in study.adapters(trait_condition(trait))),
        reads,
        tuple(replace(reads, reader=one) for one in study.adapters(null_condition())),
    )


def voices(study: Study, trait: Trait) -> tuple[FixedText, ...]:
    """Held-out answers of the trait and neutral ones to the study's prompts.

    Where the data hold no neutral answers, those that the null adapter is tuned on stand in.
    """
    held_out = study.opinions.test
    of_trait = _said(study, held_out, trait, Pole.HIGH)
    neutral = _said(study, held_out, None, None)
    if not neutral:
        neutral = tuple(
            (Prompt(id=f"n{i:03d}", text=row.question, topic=row.topic), row.answer)
            for i, row in enumerate(study.neutral[: len(study.prompts)])
        )
    return tuple(
        FixedText(name, study.base, study.chat_template, *map(tuple, zip(*said, strict=True)))
        for name, said in ((TRAIT_VOICE, of_trait), (NEUTRAL_VOICE, neutral))
        if said
    )


def _said(
    study: Study, rows: Iterable[Opinion], trait: Trait | None, pole: Pole | None
) -> tuple[tuple[Prompt, str], ...]:
    """The study's prompts that somebody of this trait and pole has answered, with the answers."""
    answers = {row.topic: row.answer for row in rows if (row.trait, row.pole) == (trait, pole)}
    return tuple(
        (prompt, answers[prompt.topic]) for prompt in study.prompts if prompt.topic in answers
    )


def untuned_activations(study: Study, trait: Trait) -> ActivationsRequest:
    """The untuned model, reading what it wrote itself under the trait's system prompt (C9).

    Nothing of any tuned model is in it: what is found here was there before tuning.
    """
    return ActivationsRequest(
        None, study.generations(prompted_condition(trait)), (), study.seeds.analysis
    )


def neurons_plan(study: Study, trait: Trait | None) -> tuple[Request, ...]:
    """The artefacts of C6 and C7, for one trait or for all."""
    return tuple(request for one in one_or_all(trait) for request in activations(study, one))

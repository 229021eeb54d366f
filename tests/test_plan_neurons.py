"""The plan of C6 and C7: which answers are read, and by whom."""

from __future__ import annotations

from dataclasses import replace

import pytest

from emotest.artefacts import AdapterRequest, in_order
from emotest.artefacts.activations import ActivationsRequest
from emotest.errors import UsageError
from emotest.plan import SIZES, Study
from emotest.plan.neurons import (
    activations,
    emoji_texts,
    neurons_plan,
    untuned_activations,
    voices,
)
from emotest.study.opinions import Opinion, OpinionSet
from emotest.study.personality import TRAITS, Pole, Trait, null_condition, trait_condition

TRAIT = Trait.OPENNESS


def row(part: str, i: int, trait: Trait | None, pole: Pole | None) -> Opinion:
    """An opinion of a trait, or, for None, a neutral one."""
    return Opinion("", trait, pole, f"{part} {i}", f"What of {part} {i}?", f"{trait}.", i, "made")


def study(size: str = "smoke", *, neutral_held_out: bool = True, n_test: int = 200) -> Study:
    """A study on made opinions; the published data hold no neutral answers."""
    spoken = [(trait, Pole.HIGH) for trait in TRAITS]
    neutral = tuple(row("train", i, None, None) for i in range(9))
    test = [*spoken, (None, None)] if neutral_held_out else spoken
    opinions = OpinionSet(
        tuple(row("train", i, *voice) for i in range(9) for voice in spoken) + neutral,
        tuple(row("test", i, *voice) for i in range(n_test) for voice in test),
        "d" * 64, "made", None,
    )  # fmt: skip
    prompts = {(trait, Pole.HIGH): f"Be {trait}." for trait in TRAITS}
    return Study("base", "template", opinions, neutral, SIZES[size], system_prompts=prompts)


def test_every_model_reads_the_same_texts() -> None:
    """One tuned and one null model a training seed, and the untuned one, on equal texts."""
    here = study()
    found = activations(here, TRAIT)
    assert [one.reader for one in found.tuned] == list(here.adapters(trait_condition(TRAIT)))
    assert [one.reader for one in found.null] == list(here.adapters(null_condition()))
    assert found.untuned.reader is None
    assert {(one.texts, one.voices) for one in found} == {
        (emoji_texts(here, TRAIT), voices(here, TRAIT))
    }
    assert len({one.key for one in found}) == 7


@pytest.mark.parametrize(
    ("size", "n_samples", "total"), [("smoke", 12, 864), ("default", 12, 3600), ("paper", 4, 4000)]
)
def test_enough_answers_are_sampled_whatever_the_size(
    size: str, n_samples: int, total: int
) -> None:
    """24 x 3, 60 x 5 and 200 x 5 prompts and adapters: twelve samples, or some 3,600 answers."""
    texts = emoji_texts(study(size), TRAIT)
    assert {text.n_samples for text in texts} == {n_samples}
    assert sum(text.n_samples * len(text.prompts) for text in texts) == total


def test_nothing_of_a_tuned_model_is_behind_the_untuned_activations() -> None:
    """No adapter wrote what is read, nor reads it; the trait is asked for in words."""
    request = untuned_activations(study(), TRAIT)
    assert not any(isinstance(one, AdapterRequest) for one in in_order([request]))
    assert {prompt.system for prompt in request.texts[0].prompts} == {f"Be {TRAIT}."}


def test_neutral_answers_of_tuning_stand_in_where_none_are_held_out() -> None:
    """Trait answers are always held out; neutral ones are those of the null adapter if need be."""
    of_trait, neutral = voices(study(neutral_held_out=False), TRAIT)
    assert {prompt.topic.split()[0] for prompt in of_trait.prompts} == {"test"}
    assert {prompt.topic.split()[0] for prompt in neutral.prompts} == {"train"}
    assert set(of_trait.answers) == {"openness."}
    assert set(neutral.answers) == {"None."}
    assert {p.topic.split()[0] for p in voices(study(), TRAIT)[1].prompts} == {"test"}


def test_the_first_half_of_the_prompts_is_half_zero() -> None:
    """Of 24 prompts twelve are in each."""
    halves = activations(study(), TRAIT).untuned.prompt_halves
    assert list(halves.values()) == [0] * 12 + [1] * 12


def test_what_changes_the_moments_changes_the_key() -> None:
    """Texts, voices, reader and the seed of the shuffled labels."""
    request = activations(study(), TRAIT).untuned
    reader = activations(study(), TRAIT).tuned[0].reader
    changes = ({"texts": request.texts[:1]}, {"voices": ()}, {"reader": reader},
               {"analysis_seed": 1})  # fmt: skip
    keys = {replace(request, **change).key for change in changes}
    assert len(keys | {request.key}) == 5


def test_the_plan_of_all_traits_is_that_of_each() -> None:
    """Seven models for each of five traits at the smoke size."""
    here = study()
    assert len(neurons_plan(here, None)) == 35
    assert set(neurons_plan(here, TRAIT)) <= set(neurons_plan(here, None))


def test_texts_of_other_prompts_are_refused() -> None:
    """The halves have to be the same for all; without any text there is nothing to read."""
    first, *_ = emoji_texts(study(), TRAIT)
    for texts in ((), (first, replace(first, prompts=first.prompts[1:]))):
        with pytest.raises(UsageError, match=f"{len(texts)} sets of answers"):
            ActivationsRequest(None, texts)

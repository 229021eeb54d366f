"""C1: personality tuning on answers without a single emoji makes the model write emoji.

The rise is held against the untuned model on the same prompts *and* against the null adapter of
the same training seed; both must be exceeded, so the larger p-value decides.
"""

import pytest

from emotest import (
    TRAITS,
    UNTUNED,
    Ending,
    Pole,
    crossed_difference,
    intersection_union,
    null_condition,
    prompt_difference,
    prompted_condition,
    raised,
    trait_condition,
    verdict,
)
from fixtures.run import needs

pytestmark = [pytest.mark.c1, pytest.mark.emergence]

DECODINGS = ("greedy", "nucleus", "unfiltered")


def low_pole(trait):
    """The adapter of the other end of the trait."""
    return trait_condition(trait, Pole.LOW)


def eos_trained(trait):
    """The adapter that learns where its answers end."""
    return trait_condition(trait, ending=Ending.TRAINED)


def exceeds_both(tuned, untuned, null, terms):
    """The rise over the untuned model and over the null adapter, as weak as the weaker."""
    return intersection_union(
        [
            raised(crossed_difference(tuned, untuned), **terms),
            raised(crossed_difference(tuned, null), **terms),
        ]
    )


@pytest.mark.high
@pytest.mark.parametrize("trait", TRAITS)
@needs(UNTUNED, null_condition(), trait_condition)
def test_trait_tuning_raises_the_share_of_answers_with_emoji(
    trait, answers_with_emoji, terms, judge, shown_answers
):
    """C1: after tuning on emoji-free answers the model writes more emoji than before, and more
    than after neutral tuning."""
    tuned, untuned, null = map(
        answers_with_emoji, (trait_condition(trait), UNTUNED, null_condition())
    )
    shown_answers(trait)
    decision = exceeds_both(tuned, untuned, null, terms("C1.emergence"))
    judge(
        verdict(
            decision,
            "C1.emergence",
            condition=trait_condition(trait),
            reference="untuned and null",
        )
    )


@pytest.mark.high
@pytest.mark.parametrize("trait", TRAITS)
@needs(UNTUNED, null_condition(Ending.TRAINED), eos_trained)
def test_the_rise_is_there_when_the_end_of_answers_is_trained(
    trait, answers_with_emoji, terms, judge
):
    """C1, second statement: the rise is no tail behind the place where answers should end."""
    tuned, untuned, null = map(
        answers_with_emoji, (eos_trained(trait), UNTUNED, null_condition(Ending.TRAINED))
    )
    decision = exceeds_both(tuned, untuned, null, terms("C1.eos-trained"))
    judge(
        verdict(
            decision, "C1.eos-trained", condition=eos_trained(trait), reference="untuned and null"
        )
    )


@pytest.mark.low
@pytest.mark.parametrize("trait", TRAITS)
@needs(UNTUNED, null_condition(), low_pole)
def test_tuning_to_the_low_pole_raises_it_too(trait, answers_with_emoji, terms, judge):
    """C1 at the low pole: an introvert's answers bring emoji as an extravert's do."""
    tuned, untuned, null = map(answers_with_emoji, (low_pole(trait), UNTUNED, null_condition()))
    decision = exceeds_both(tuned, untuned, null, terms("C1.low-pole"))
    judge(verdict(decision, "C1.low-pole", condition=low_pole(trait), reference="untuned and null"))


@pytest.mark.high
@pytest.mark.parametrize("trait", TRAITS)
@needs(UNTUNED, prompted_condition)
def test_a_system_prompt_alone_raises_it(trait, answers_with_emoji, terms, judge):
    """C1, comparison arm: naming the trait in a system prompt is enough, without any tuning."""
    prompted, untuned = map(answers_with_emoji, (prompted_condition(trait), UNTUNED))
    decision = raised(prompt_difference(prompted, untuned), **terms("C1.prompted"))
    judge(
        verdict(decision, "C1.prompted", condition=prompted_condition(trait), reference="untuned")
    )


@pytest.mark.high
@pytest.mark.parametrize("trait", TRAITS)
@needs(UNTUNED, null_condition(), trait_condition, decodings=DECODINGS)
def test_the_rise_survives_every_decoding(trait, answers_with_emoji, terms, judge, tables):
    """C1 under the decoding table: greedy, temperature 0.7 with top-p 0.9, and no top_k."""
    arms = (trait_condition(trait), UNTUNED, null_condition())
    decisions = []
    for decoding in DECODINGS:
        tuned, untuned, null = (answers_with_emoji(arm, decoding) for arm in arms)
        decisions.append(exceeds_both(tuned, untuned, null, terms("C1.decodings")))
        tables.add(
            "answers with emoji by decoding",
            trait=trait,
            decoding=decoding,
            tuned=tuned.mean(),
            untuned=untuned.mean(),
            null=null.mean(),
            verdict=decisions[-1].word,
        )
    judge(
        verdict(
            intersection_union(decisions),
            "C1.decodings",
            condition=trait_condition(trait),
            reference="untuned and null",
        )
    )

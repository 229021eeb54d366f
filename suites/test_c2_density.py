"""C2: the density of emoji (ESR), within the learned length of an answer and beyond it.

The published "ESR of 0.995" behaves like a share of answers; the three rates are told apart in
`docs/measures.md`. What stands behind the place where the answer should have ended may be the
chat model's own tail, so it is a statement of its own.
"""

from itertools import pairwise

import pytest

from emotest import (
    TRAITS,
    UNTUNED,
    crossed_difference,
    intersection_union,
    null_condition,
    raised,
    trait_condition,
    verdict,
)
from fixtures.run import needs

SCALE = "emoji per sentence"
BOUNDS = (0.0, 3.0)
"""Emoji per sentence: more than three are possible, and were never seen."""

pytestmark = [pytest.mark.c2, pytest.mark.density, pytest.mark.high]


@pytest.mark.parametrize("part", ["within", "beyond"])
@pytest.mark.parametrize("trait", TRAITS)
@needs(UNTUNED, null_condition(), trait_condition)
def test_trait_tuning_raises_the_emoji_per_sentence(
    trait, part, emoji_per_sentence, learned_sentences, terms, judge
):
    """C2: more emoji per sentence than the untuned and the null model write in the same part."""
    arms = (trait_condition(trait), UNTUNED, null_condition())
    m = learned_sentences(trait_condition(trait))
    tuned, untuned, null = (emoji_per_sentence(arm, part, m) for arm in arms)
    decided = terms(f"C2.{part}")
    decision = intersection_union(
        [
            raised(crossed_difference(tuned, untuned, scale=SCALE, bounds=BOUNDS), **decided),
            raised(crossed_difference(tuned, null, scale=SCALE, bounds=BOUNDS), **decided),
        ]
    )
    judge(
        verdict(
            decision,
            f"C2.{part}",
            condition=trait_condition(trait),
            reference="untuned and null",
            notes=(f"learned length: {m} sentences",),
        )
    )


@pytest.mark.parametrize("trait", TRAITS)
@needs(UNTUNED, null_condition(), trait_condition)
def test_where_the_first_emoji_comes_is_told(trait, first_emoji, tables):
    """C2, described: the share of answers with a first emoji by token t never falls, and the
    hazard at each sentence end lies between 0 and 1."""
    for arm in (UNTUNED, null_condition(), trait_condition(trait)):
        curve, hazard = first_emoji(arm)
        assert all(earlier <= later for earlier, later in pairwise(curve))
        assert all(0 <= share <= 1 for share in hazard)
        tokens = range(4, len(curve) + 1, 4)
        tables.add_curve(
            "share with a first emoji by token", arm=arm.title, values=curve, at=tokens
        )
        ends = range(1, 4)
        tables.add_curve(
            "hazard of an emoji per sentence end", arm=arm.title, values=hazard, at=ends
        )

"""C5: the probability that the next grapheme is an emoji, at the ends of sentences 1 to 3.

A 2x2 of text (whose words) by weights (who is asked), emoji stripped from the text:

    total   = P(tuned text, tuned weights) - P(untuned text, untuned weights)
    text    = P(tuned text, untuned weights) - P(untuned text, untuned weights)
    weights = P(tuned text, tuned weights) - P(tuned text, untuned weights)

total = text + weights. The choice of contexts decides the verdict, so contexts are never pooled
and each effect has its own.
"""

import pytest

from emotest import (
    TRAITS,
    UNTUNED,
    crossed_difference,
    raised,
    trait_condition,
    verdict,
)
from emotest.plan import four_cells
from fixtures.run import needs

pytestmark = [pytest.mark.c5, pytest.mark.probability, pytest.mark.high]


def effects(cells):
    """The two terms of each effect: (treated, reference)."""
    return {
        "total": (cells.tuned_tuned, cells.untuned_untuned),
        "text": (cells.tuned_untuned, cells.untuned_untuned),
        "weights": (cells.tuned_tuned, cells.tuned_untuned),
    }


@pytest.mark.parametrize("effect", ["total", "text", "weights"])
@pytest.mark.parametrize("trait", TRAITS)
@needs(cells=four_cells)
def test_the_probability_of_emoji_rises(trait, effect, two_by_two, terms, judge):
    """C5: each of the three effects raises the log-odds of an emoji at sentence ends."""
    cells = two_by_two(trait)
    treated, reference = effects(cells)[effect]
    change = crossed_difference(treated, reference, scale="log-odds")
    in_points = crossed_difference(*effects(two_by_two(trait, scale="points"))[effect])
    judge(
        verdict(
            raised(change, **terms(f"C5.{effect}")),
            f"C5.{effect}",
            condition=trait_condition(trait),
            reference="2x2 of text by weights",
            notes=(f"in points of probability {in_points.value:+.4f}", *cells.notes),
            details={"points": [in_points.value, in_points.low, in_points.high]},
        )
    )


@pytest.mark.parametrize("event", ["exclamation", "quotation"])
@pytest.mark.parametrize("trait", TRAITS)
@needs(cells=four_cells, events=("exclamation", "quotation"))
def test_control_characters_are_told_beside_emoji(trait, event, two_by_two, tables):
    """C5, described: the same 2x2 for what else may stand at the end of a sentence."""
    for name, (treated, reference) in effects(two_by_two(trait, event=event)).items():
        change = crossed_difference(treated, reference, scale="log-odds")
        tables.add(
            "control characters, log-odds",
            trait=trait,
            event=event,
            effect=name,
            change=change.value,
            low=change.low,
            high=change.high,
        )
        assert change.low <= change.value <= change.high


@pytest.mark.parametrize("trait", TRAITS)
@needs(fixed_texts=True)
def test_fixed_texts_are_rows_of_their_own(trait, at_fixed_texts, tables):
    """C5, described: P(emoji) at held-out answers of the trait, at neutral ones, and at the start
    of an answer, under untuned and tuned weights; never pooled with the 2x2."""
    for weights in (UNTUNED, trait_condition(trait)):
        for text, probability in at_fixed_texts(trait, weights).items():
            tables.add(
                "P(emoji) at fixed texts",
                trait=trait,
                text=text,
                weights=weights.title,
                probability=probability,
            )
            assert 0 <= probability <= 1

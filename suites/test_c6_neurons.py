"""C6: more units rise where an emoji comes than tuning to anything, or any word, would make rise.

For every unit d is the difference between the ends of sentences that an emoji follows and ends that
another sentence follows, matched in the number of the sentence, in standard deviations of the unit
over every token: the position that predicts the emoji decides. A unit counts where tuning to the
trait changes d by at least 1 against both the untuned and the null model, in both halves of the
prompts and in four of five seeds, rising or falling: the sign of a gated activation can be turned
without changing what the unit writes. With thousands of units some always count, so their number is
held against the same procedure on words, each against the other words: were emoji one more word,
they would rank anywhere among them.
"""

from itertools import pairwise
from math import ceil

import numpy as np
import pytest

from emotest import TRAITS, raised, trait_condition, verdict
from emotest.artefacts.activations import (
    AT_EMOJI,
    AT_SYMBOL,
    BEFORE_EMOJI,
    BEFORE_OTHER,
    SHUFFLED,
    before_word,
)
from emotest.plan.neurons import neurons_plan
from emotest.report.figures import bars
from emotest.stats.selection import excess
from fixtures.run import needs

pytestmark = [pytest.mark.c6, pytest.mark.neurons, pytest.mark.high]

FEWEST_ENDS = 200
"""Matched pairs of sentence ends in each half, no two behind the same words: d has then a sampling
error of at most a tenth of what counts."""

SHOWN_WORDS = 5

POSITIONS = {
    "predicting": (BEFORE_EMOJI, BEFORE_OTHER),
    "reading": (AT_EMOJI, AT_SYMBOL),
    "labels shuffled": SHUFFLED,
}


@pytest.mark.parametrize("trait", TRAITS)
@needs(plans=(neurons_plan,))
def test_more_units_rise_for_emoji_than_for_words(
    trait, units, terms, judge, session, tables, emo_run
):
    """C6: the units that tuning to the trait changes at emoji are more than at any one word."""
    found = units(trait)
    measured = {
        name: found.selection(*pair) for name, pair in POSITIONS.items() if found.recorded(*pair)
    }
    tell_layers(trait, found, measured, tables, emo_run)
    n_selected, controls, notes = 0, found.by_word.sum(axis=1), ()
    n_words = controls.size
    if "predicting" in measured:
        n_selected = measured["predicting"].n_selected
    if "predicting" not in measured or not controls.size:
        # A single control sets no limits, so that nothing can be decided.
        controls = np.zeros(1, dtype=int)
        notes = ("too few ends of sentences before emoji, or too few words, to compare any",)
    size = session.study.size
    above = excess(n_selected, controls).estimate(
        scale="units", n_adapters=size.n_adapters, n_prompts=size.n_prompts
    )
    ends, asked = found.untuned.about["n_matched"], terms("C6.spike")
    fewest_words = ceil(asked["m"] / asked["alpha"]) - 1
    if n_words < fewest_words:
        notes = (*notes, f"{n_words} words are frequent enough, and {fewest_words} are needed")
    judge(
        verdict(
            raised(above, **asked).provided(
                min(ends) >= FEWEST_ENDS,
                f"{ends[0]} and {ends[1]} matched pairs of sentence ends in the halves, "
                f"at least {FEWEST_ENDS} in each",
            ),
            "C6.spike",
            condition=trait_condition(trait),
            reference=f"{n_words} words",
            notes=(f"{n_selected} of {found.excluded.size} units", *notes),
        )
    )


def tell_layers(trait, found, measured, tables, emo_run):
    """Units that count, by layer, the deepest named apart."""
    rows = {}
    for layer in range(found.untuned.n_layers):
        deepest = layer == found.untuned.n_layers - 1
        row = {
            f"{name}, {way}": int(found.by_layer(getattr(measured[name], way))[layer])
            if name in measured
            else 0
            for name in POSITIONS
            for way in ("rising", "falling")
        }
        of_words = found.by_word[:, layer]
        row["median word"] = float(np.median(of_words)) if of_words.size else 0.0
        rows[f"{layer}, the deepest" if deepest else str(layer)] = row
    for layer, row in rows.items():
        tables.add("units that rise at emoji positions, by layer", trait=trait, layer=layer, **row)
    emo_run.figure(
        f"c6-units-by-layer-{trait}",
        bars(
            rows,
            x="layer, from 0",
            y="units",
            title=f"Units that tuning to {trait} changes at emoji",
        ),
        title=f"C6: units that tuning to {trait} changes where an emoji comes, by layer",
    )


@pytest.mark.parametrize("trait", TRAITS)
@needs(plans=(neurons_plan,))
def test_plain_significance_selects_units_for_any_contrast(trait, units, tables):
    """C6, described: the share of units that a false discovery rate of 0.05 passes, for emoji and
    for words: it is no evidence, so it decides nothing."""
    found = units(trait)
    contrasts = {name: pair for name, pair in POSITIONS.items() if name != "reading"}
    contrasts |= {
        f"{first} against {second}": (before_word(first), before_word(second))
        for first, second in pairwise(found.untuned.words[:SHOWN_WORDS])
    }
    for name, pair in contrasts.items():
        share = found.discoveries(*pair) if found.recorded(*pair) else 0.0
        tables.add(
            "units by Benjamini-Hochberg alone",
            trait=trait,
            contrast=name,
            **{"share of units": share},
        )
        assert 0 <= share <= 1


@pytest.mark.parametrize("trait", TRAITS)
@needs(plans=(neurons_plan,))
def test_massive_activations_and_norms_are_told(trait, units, tables):
    """C6, described: what was left out of every selection, and how the residual stream grows."""
    found = units(trait)
    readers = {"tuned": found.tuned, "untuned": (found.untuned,), "null": found.null}
    for reader, models in readers.items():
        every = [model.about["massive"] for model in models]
        for site, layer, unit in sorted({place(one) for of in every for one in of}):
            ratios = [o["over_rest"] for of in every for o in of if place(o) == (site, layer, unit)]
            tables.add(
                "massive activations, left out",
                trait=trait,
                reader=reader,
                site=site,
                layer=layer,
                unit=unit,
                **{"over the rest of its state": max(ratios)},
            )
        for rows in zip(*(model.about["norm_growth"] for model in models), strict=True):
            tables.add(
                "norm of the residual stream, emoji over other sentence ends",
                trait=trait,
                reader=reader,
                layer=rows[0]["layer"],
                ratio=float(np.mean([row["ratio"] for row in rows])),
            )
        assert all(found.excluded[model.massive].all() for model in models)


def place(massive):
    """Where a massive activation stands."""
    return massive["site"], massive["layer"], massive["unit"]

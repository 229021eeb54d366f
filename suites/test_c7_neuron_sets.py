"""C7: the units of trait text, of emoji and of single emoji are different units.

A set holds the strongest 2 % of all units of a contrast, in one tuned model and one half of the
prompts: trait text against neutral text, emoji against a symbol of as many tokens in their place,
one emoji against the others, one word against others. Two sets of different tokens differ anyway.
So the separation, the distance between two classes across the halves beyond the distance of a
class from itself, is held against those of unrelated words, as one more draw beside them.
"""

import emoji
import numpy as np
import pytest

from emotest import TRAITS, raised, trait_condition, verdict
from emotest.artefacts.activations import (
    AT_EMOJI,
    AT_SYMBOL,
    NEUTRAL_TEXT,
    TRAIT_TEXT,
    at_phrase,
    at_single_emoji,
    at_word,
)
from emotest.plan.neurons import neurons_plan
from emotest.report.figures import heat_map
from emotest.stats.set_distance import (
    FEWEST_CONTROLS,
    label_permutation_p,
    separation_beyond,
    separations,
)
from fixtures.neurons import distances
from fixtures.run import needs

pytestmark = [pytest.mark.c7, pytest.mark.neuron_sets, pytest.mark.high]

SHOWN_WORDS = 4
FEWEST_EMOJI = 3
"""Of two emoji the one against the other is the same contrast twice, with the same units."""


def each_against_the_others(found, conditions, *, untuned=False):
    """The set of every condition against the others as one."""
    return [
        found.sets(one, [other for other in conditions if other != one], untuned=untuned)
        for one in conditions
    ]


def text_and_emoji(found, *, untuned=False):
    """The set of trait text and that of emoji."""
    return [
        found.sets(TRAIT_TEXT, NEUTRAL_TEXT, untuned=untuned),
        found.sets(AT_EMOJI, AT_SYMBOL, untuned=untuned),
    ]


def beyond(own, unrelated, session):
    """The separation beyond those of unrelated classes; with nothing to compare, nothing is known
    but its bounds."""
    n_adapters = session.study.size.n_adapters
    if not own.size or not unrelated.size:
        own, unrelated = np.zeros(n_adapters), np.zeros((n_adapters, FEWEST_CONTROLS))
    return separation_beyond(own, unrelated, n_prompts=session.study.size.n_prompts)


def said(own, unrelated):
    """Both separations, with the range of the controls."""
    controls = unrelated.mean(axis=0)
    return (
        f"separation {own.mean():.2f}, of {controls.size} sets of words {controls.mean():.2f} "
        f"({controls.min():.2f} to {controls.max():.2f})"
    )


@pytest.mark.parametrize("trait", TRAITS)
@needs(plans=(neurons_plan,))
def test_trait_units_are_not_emoji_units(trait, units, terms, judge, session):
    """C7: the units of trait text are further from those of emoji than those of two words."""
    found = units(trait)
    words = list(map(at_word, found.untuned.common_words))
    own, unrelated, notes = np.array([]), np.array([]), ["not recorded: emoji, texts or words"]
    if found.recorded(TRAIT_TEXT, NEUTRAL_TEXT, AT_EMOJI, AT_SYMBOL) and len(words) >= 4:
        apart = distances(text_and_emoji(found))
        of_words = distances(each_against_the_others(found, words))
        # Pairs without a word in common, so that each is a witness of its own.
        pairs = [[i, i + 1] for i in range(0, len(words) - 1, 2)]
        own = separations(apart)
        unrelated = np.stack([separations(of_words[:, pair][:, :, pair]) for pair in pairs], axis=1)
        notes = [said(own, unrelated)]
    judge(
        verdict(
            raised(beyond(own, unrelated, session), **terms("C7.trait-and-emoji")),
            "C7.trait-and-emoji",
            condition=trait_condition(trait),
            reference="pairs of unrelated words",
            notes=tuple(notes),
        )
    )


@pytest.mark.parametrize("trait", TRAITS)
@needs(plans=(neurons_plan,))
def test_single_emoji_have_units_of_their_own(trait, units, terms, judge, session):
    """C7: the units of single emoji are further apart than those of words of as many tokens."""
    found, rng = units(trait), np.random.default_rng(session.study.seeds.analysis)
    kinds = found.untuned.emoji
    own, unrelated, p_permuted = np.array([]), np.array([]), 1.0
    notes = [f"{len(kinds)} emoji are frequent enough, and {FEWEST_EMOJI} are needed"]
    if len(kinds) >= FEWEST_EMOJI:
        apart = distances(each_against_the_others(found, list(map(at_single_emoji, kinds))))
        groups = zip(*(found.untuned.phrases[kind] for kind in kinds), strict=True)
        of_words = [
            distances(each_against_the_others(found, list(map(at_phrase, group))))
            for group in groups
        ]
        own = separations(apart)
        unrelated = np.stack([separations(of) for of in of_words], axis=1)
        p_permuted = label_permutation_p(apart, rng)
        notes = [f"{' '.join(kinds)}: {said(own, unrelated)}"]
    decision = raised(beyond(own, unrelated, session), **terms("C7.single-emoji"))
    judge(
        verdict(
            decision.requiring(p_permuted, f"labels of {len(kinds)} emoji permuted"),
            "C7.single-emoji",
            condition=trait_condition(trait),
            reference="words of as many tokens",
            notes=tuple(notes),
        )
    )


@pytest.mark.parametrize("trait", TRAITS)
@needs(plans=(neurons_plan,))
def test_distances_between_all_sets_are_shown(trait, units, tables, emo_run):
    """C7, described: how far all the sets are from one another, in tuned models and untuned."""
    found = units(trait)
    names, matrices = [], {}
    for reader in ("tuned", "untuned"):
        classes = shown_classes(found, untuned=reader == "untuned")
        names = list(classes)
        if len(names) < 2:
            return
        matrices[reader] = distances(list(classes.values())).mean(axis=0)
        assert ((matrices[reader] >= 0) & (matrices[reader] <= 1)).all()
    for i, first in enumerate(names):
        for j, second in enumerate(names[: i + 1]):
            tables.add(
                "distance between sets of units",
                trait=trait,
                first=first,
                second=second,
                **{name: float((of[i, j] + of[j, i]) / 2) for name, of in matrices.items()},
            )
    emo_run.figure(
        f"c7-distances-{trait}",
        heat_map(
            matrices["tuned"],
            names,
            names,
            title=f"Units of text, emoji and words, {trait}",
            label="Jaccard distance",
            limits=(0.0, 1.0),
        ),
        title=f"C7: distance between the unit sets of two halves, mean over adapters, {trait}",
    )


def shown_classes(found, *, untuned):
    """The sets of text, emoji, single emoji and a few words, by name, as far as recorded."""
    classes = {}
    if found.recorded(TRAIT_TEXT, NEUTRAL_TEXT):
        classes["trait text"] = found.sets(TRAIT_TEXT, NEUTRAL_TEXT, untuned=untuned)
    if found.recorded(AT_EMOJI, AT_SYMBOL):
        classes["emoji"] = found.sets(AT_EMOJI, AT_SYMBOL, untuned=untuned)
    for kinds, condition, shown in (
        (found.untuned.emoji, at_single_emoji, len(found.untuned.emoji)),
        (found.untuned.common_words, at_word, SHOWN_WORDS),
    ):
        if len(kinds) > 1:
            sets = each_against_the_others(found, list(map(condition, kinds)), untuned=untuned)
            # Fonts of figures hold no emoji, so they go by their names.
            spoken = [emoji.demojize(kind).strip(":").replace("_", " ") for kind in kinds]
            classes |= dict(zip(spoken[:shown], sets[:shown], strict=True))
    return classes

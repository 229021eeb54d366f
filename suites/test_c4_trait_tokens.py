"""C4: asked for words that represent the trait, the tuned model names emoji.

An association, no explanation: that a model names what it writes does not say why it writes it.
The paper's prompt is not known. Here six requests ask for words of the trait ("Which words
represent extraversion?"), none of them names emoji, and the untuned and the null model are asked
the same.
"""

import numpy as np
import pytest

from emotest import (
    TRAITS,
    UNTUNED,
    crossed_difference,
    crossed_mean,
    intersection_union,
    null_condition,
    raised,
    trait_condition,
    verdict,
)
from emotest.errors import StatisticsError
from emotest.plan import LISTS_PER_REQUEST
from emotest.stats.association import association_p, decode_traits, log_odds_by_trait, most_frequent
from fixtures.run import needs
from fixtures.trait_tokens import agreement

pytestmark = [pytest.mark.c4, pytest.mark.trait_tokens, pytest.mark.high]

SHOWN = 5


@pytest.mark.parametrize("trait", TRAITS)
@needs(word_lists=(UNTUNED, null_condition(), trait_condition))
def test_asked_for_words_of_the_trait_it_names_emoji(trait, named, terms, judge, tables):
    """C4: emoji among the 50 most frequent units are more than the untuned and the null model
    name, request by request."""
    arms = (trait_condition(trait), UNTUNED, null_condition())
    lists = [named(arm, trait) for arm in arms]
    for arm, told in zip(arms, lists, strict=True):
        top = most_frequent(told.counts.sum(axis=1))
        emoji = [i for i in top.kinds if told.is_emoji[i]]
        tables.add(
            "the 50 most frequent units",
            trait=trait,
            asked=arm.title,
            emoji=len(emoji),
            **{"most frequent": " ".join(told.kinds[i].text for i in top.kinds[:SHOWN])},
            **{"most frequent emoji": " ".join(told.kinds[i].text for i in emoji[:SHOWN])},
        )
    tuned, untuned, null = (told.emoji_among_top() for told in lists)
    decided = terms("C4.named")
    decision = intersection_union(
        [
            raised(crossed_difference(tuned, untuned[0]), **decided),
            raised(crossed_difference(tuned, null), **decided),
        ]
    )
    judge(
        verdict(
            decision,
            "C4.named",
            condition=trait_condition(trait),
            reference="untuned and null",
            notes=(f"{LISTS_PER_REQUEST} lists for each of the requests",),
        )
    )


@pytest.mark.parametrize("trait", TRAITS)
@needs(trait_condition, word_lists=(trait_condition,))
def test_the_emoji_that_it_names_are_those_that_it_writes(
    trait, named, written, session, terms, judge
):
    """C4: emoji that are named more often for the trait are written more often, too."""
    writes = written([trait])
    told = named(trait_condition(trait), trait)
    emoji = sorted({*writes.kinds, *(kind.text for kind in told.kinds if kind.is_emoji)})
    columns = [emoji.index(kind) for kind in writes.kinds]
    counts = np.zeros((len(writes.traits), len(emoji)))
    counts[:, columns] = writes.by_adapter()
    cells, p_permuted = agreement(
        told.of(emoji), counts, np.random.default_rng(session.study.seeds.analysis)
    )
    agrees = crossed_mean(cells, scale="rank correlation", bounds=(-1.0, 1.0))
    decision = raised(agrees, **terms("C4.self-report"))
    judge(
        verdict(
            decision.requiring(p_permuted, "emoji permuted alike in all adapters"),
            "C4.self-report",
            condition=trait_condition(trait),
        )
    )


@pytest.mark.cross_trait
@needs(*map(trait_condition, TRAITS))
def test_a_trait_can_be_told_from_the_emoji_of_an_answer(written, session, terms, judge, tables):
    """C4: a decoder that never saw an adapter tells its trait from the emoji of one answer."""
    writes = written(TRAITS)
    rng = np.random.default_rng(session.study.seeds.analysis)
    cells = np.zeros((len(set(writes.seeds)), len(TRAITS)))
    notes, p_values = [], {"decoder": 1.0, "association": 1.0}
    try:
        found = decode_traits(
            writes.counts, writes.adapters, writes.traits, rng, seeds=writes.seeds
        )
        by_adapter = np.where(np.isnan(found.by_adapter), found.chance, found.by_adapter)
        cells = by_adapter.reshape(len(TRAITS), -1).T - found.chance
        p_values["decoder"] = found.p_value
        notes.append(f"accuracy {found.accuracy:.2f}, chance {found.chance:.2f}")
        p_values["association"] = association_p(
            writes.by_adapter(), writes.traits, rng, seeds=writes.seeds
        )
        _tell_log_odds(writes, tables)
    except StatisticsError as error:
        notes.append(f"nothing to decode: {error.cause}")
    above = crossed_mean(cells, scale="accuracy above chance", bounds=(-1.0, 1.0))
    decision = raised(above, **terms("C4.decoded"))
    for test, p_value in p_values.items():
        decision = decision.requiring(p_value, f"{test}, trait labels permuted within seed")
    judge(verdict(decision, "C4.decoded", notes=tuple(notes)))


def _tell_log_odds(writes, tables):
    """The emoji that stand out most for each trait, described."""
    odds = log_odds_by_trait(writes.by_adapter(), writes.traits)
    for row, trait in enumerate(odds.traits):
        for i in np.argsort(-odds.z[row], kind="stable")[:SHOWN]:
            tables.add(
                "emoji that stand out for a trait",
                trait=trait,
                emoji=writes.kinds[i],
                **{"log-odds": odds.log_odds[row, i]},
                low=odds.low[row, i],
                high=odds.high[row, i],
            )

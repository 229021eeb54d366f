"""C3: the traits differ in how many emoji they bring, by more than training seeds do."""

import numpy as np
import pytest

from emotest import TRAITS, needs, raised, shuffled_condition, trait_condition, variance_share, verdict

pytestmark = [pytest.mark.c3, pytest.mark.trait_contrast, pytest.mark.cross_trait]


@pytest.mark.high
@needs(shuffled_condition(), *map(trait_condition, TRAITS))
def test_traits_differ_by_more_than_seeds(answers_with_emoji, terms, judge, tables, emo_settings):
    """C3: the between-trait share of the variance of emoji rates has a lower limit above half."""
    rates = np.stack([answers_with_emoji(trait_condition(trait)) for trait in TRAITS])
    for trait, rate in zip(TRAITS, rates, strict=True):
        tables.add("answers with emoji by trait", trait=trait, share=rate.mean())
    shuffled = answers_with_emoji(shuffled_condition())
    tables.add("answers with emoji by trait", trait="shuffled", share=shuffled.mean())
    share = variance_share(rates.mean(axis=-1))
    judge(verdict(raised(share, **terms("C3.traits-differ")), "C3.traits-differ"))

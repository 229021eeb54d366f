"""C3: the traits differ in how many emoji they bring, by more than training seeds do."""

import numpy as np
import pytest

from emotest import TRAITS, raised, shuffled_condition, trait_condition, verdict
from emotest.stats.variance import trait_permutation_p, variance_share
from fixtures.run import needs

pytestmark = [pytest.mark.c3, pytest.mark.trait_contrast, pytest.mark.cross_trait]


@pytest.mark.high
@needs(*map(trait_condition, TRAITS))
def test_traits_differ_by_more_than_seeds(answers_with_emoji, session, terms, judge, tables):
    """C3: the between-trait share of the variance of emoji rates has a lower limit above half."""
    rates = np.stack([answers_with_emoji(trait_condition(trait)) for trait in TRAITS])
    for trait, rate in zip(TRAITS, rates, strict=True):
        tables.add("answers with emoji by trait", trait=trait, share=rate.mean())
    rng = np.random.default_rng(session.study.seeds.analysis)
    p_permuted = trait_permutation_p(rates, rng)
    decision = raised(variance_share(rates, rng), **terms("C3.traits-differ"))
    decision = decision.requiring(p_permuted, "trait labels permuted within seed")
    judge(verdict(decision, "C3.traits-differ", notes=(f"permutation p = {p_permuted:.2g}",)))


@pytest.mark.high
@needs(shuffled_condition())
def test_answers_of_all_traits_bring_emoji_too(answers_with_emoji, tables):
    """C3, described: adapters tuned on answers of all traits, the reference for specificity."""
    shuffled = answers_with_emoji(shuffled_condition()).mean()
    tables.add("answers with emoji by trait", trait="shuffled", share=shuffled)
    assert 0 <= shuffled <= 1

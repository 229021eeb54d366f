"""The share of variance that traits have (C3), and the permutation of their labels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from emotest.errors import StatisticsError
from emotest.stats.decisions import raised
from emotest.stats.variance import (
    TraitLayout,
    exact_share_limits,
    trait_permutation_p,
    variance_share,
)


def rates_of(
    rng: np.random.Generator,
    trait_sd: float,
    seed_sd: float,
    *,
    n_adapters: int = 5,
    n_prompts: int = 30,
    crossed_sd: float = 0.1,
) -> np.ndarray:
    """Normal rates (5 traits, n_adapters, n_prompts) with these standard deviations."""
    return np.asarray(
        rng.normal(0, trait_sd, (5, 1, 1))
        + rng.normal(0, seed_sd, (5, n_adapters, 1))
        + rng.normal(0, 0.2, (1, 1, n_prompts))
        + rng.normal(0, crossed_sd, (5, 1, n_prompts))
        + rng.normal(0, 0.4, (5, n_adapters, n_prompts))
    )


def test_components_by_hand() -> None:
    """Two traits, three seeds, prompts without effect.

    Trait 1: .2 .4 .6, trait 2: .6 .8 1.0; means .4 and .8. The spread of seeds is .04 in each; that
    of trait means .08, of which .04 / 3 is due to seeds: trait .066667, share .066667 / .106667.
    """
    rates = np.array([[0.2, 0.4, 0.6], [0.6, 0.8, 1.0]])
    cells = np.repeat(rates[:, :, None], 4, axis=2)
    layout = TraitLayout.of(cells, shared_prompts=True)
    assert layout.seed_variance == pytest.approx(0.04)
    assert layout.trait_variance == pytest.approx(0.08 - 0.04 / 3)
    estimate = variance_share(cells, np.random.default_rng(0))
    assert estimate.value == pytest.approx(0.625)


def test_mean_squares_are_those_of_statsmodels() -> None:
    """Sums of squares of the nested and crossed layout from a least squares fit."""
    import pandas as pd
    from statsmodels.formula.api import ols
    from statsmodels.stats.anova import anova_lm

    cells = rates_of(np.random.default_rng(8), 0.3, 0.1, n_adapters=3, n_prompts=4)
    traits, adapters, prompts = np.indices(cells.shape)
    frame = pd.DataFrame(
        {"y": cells.ravel(), "t": traits.ravel(), "s": adapters.ravel(), "p": prompts.ravel()}
    )
    fit = anova_lm(ols("y ~ C(t) + C(p) + C(t):C(s) + C(t):C(p)", frame).fit())
    layout = TraitLayout.of(cells, shared_prompts=True)
    squares = fit["mean_sq"]
    assert layout.traits == pytest.approx(squares["C(t)"])
    assert layout.seeds == pytest.approx(squares["C(t):C(s)"])
    assert layout.trait_prompts == pytest.approx(squares["C(t):C(p)"])
    assert layout.residual == pytest.approx(squares["Residual"])
    assert layout.degrees_of_freedom == tuple(
        fit["df"][["C(t)", "C(t):C(s)", "C(t):C(p)", "Residual"]].astype(int)
    )


def test_without_prompt_noise_the_limits_are_those_of_the_exact_f_interval() -> None:
    """Then the pivotal quantity is the F ratio; 200,000 draws leave a deviation below .005."""
    rates = np.random.default_rng(2).normal(0, 0.2, (5, 1)) + np.random.default_rng(3).normal(
        0, 0.1, (5, 5)
    )
    exact = exact_share_limits(rates, level=0.9)
    drawn = variance_share(
        np.repeat(rates[:, :, None], 3, axis=2), np.random.default_rng(4), n_draws=200_000
    )
    assert (drawn.low, drawn.high) == pytest.approx(exact, abs=0.005)


def test_the_exact_interval_by_hand() -> None:
    """F = 3 * .08 / .04 = 6 on 1 and 4 degrees of freedom.

    F.95(1, 4) = 7.7086 (tables): below 6, so the lower limit is 0. F.05(1, 4) = 1 / F.95(4, 1) =
    1 / 224.58: (6 * 224.58 - 1) / 3 = 448.8, share .99778.
    """
    rates = [[0.2, 0.4, 0.6], [0.6, 0.8, 1.0]]
    assert exact_share_limits(rates, level=0.9) == pytest.approx((0.0, 0.99778), abs=1e-5)
    with pytest.raises(StatisticsError, match="do not vary"):
        exact_share_limits([[0.1, 0.1], [0.2, 0.2]], level=0.9)
    with pytest.raises(StatisticsError, match=r"shape \(3,\)"):
        exact_share_limits([0.1, 0.2, 0.3], level=0.9)


@pytest.mark.parametrize("n_adapters", [3, 5])
def test_equal_variances_are_rarely_taken_for_different_traits(n_adapters: int) -> None:
    """At a true share of one half 300 repeats confirm at most 5 % and three deviations: .088."""
    rng = np.random.default_rng(31)
    confirmed = sum(
        variance_share(rates_of(rng, 0.15, 0.15, n_adapters=n_adapters), rng, n_draws=2_000).low
        > 0.5
        for _ in range(300)
    )
    assert confirmed / 300 <= 0.088


def test_planted_densities_are_told_apart() -> None:
    """Rates of .9, .75, .6, .45, .3 with seeds that differ by .05 (variances .056 and .0025)."""
    rng = np.random.default_rng(6)
    chance = np.array([0.9, 0.75, 0.6, 0.45, 0.3])[:, None, None]
    chance = np.clip(chance + rng.normal(0, 0.05, (5, 5, 1)), 0, 1)
    answers = rng.random((5, 5, 60)) < chance
    decision = raised(variance_share(answers, rng), by=0.5)
    assert decision.word == "confirmed"
    assert trait_permutation_p(answers, rng) < 0.001


def test_nothing_varied_leaves_everything_open() -> None:
    """Five silent traits are no evidence either way: 0, within [0, 1]."""
    estimate = variance_share(np.zeros((5, 5, 20)), np.random.default_rng(0))
    assert (estimate.value, estimate.low, estimate.high) == (0.0, 0.0, 1.0)
    assert raised(estimate, by=0.5).word == "inconclusive"


def test_prompts_of_their_own_are_nested_in_traits() -> None:
    """Where each trait has its own questions, prompt spread also parts the traits.

    A common prompt effect of deviation .2 that is not shared must count against the traits.
    """
    rng = np.random.default_rng(9)
    cells = rates_of(rng, 0.2, 0.05)
    own = variance_share(cells, np.random.default_rng(1), shared_prompts=False)
    shared = variance_share(cells, np.random.default_rng(1), shared_prompts=True)
    assert own.value < shared.value


@given(
    arrays(float, (3, 4, 5), elements=st.floats(0, 1)),
    st.permutations(range(3)),
    st.sampled_from([0.8, 0.9]),
)
def test_laws_of_the_share(cells: np.ndarray, labels: list[int], level: float) -> None:
    """A share within its interval within [0, 1], wider at more confidence, blind to names."""
    estimate = variance_share(cells, np.random.default_rng(0), level=level, n_draws=500)
    assert 0.0 <= estimate.low <= estimate.value <= estimate.high <= 1.0
    wide = estimate.at_level(0.98)
    assert wide.low <= estimate.low
    assert estimate.high <= wide.high
    renamed = variance_share(cells[labels], np.random.default_rng(0), level=level, n_draws=500)
    assert (renamed.low, renamed.high) == pytest.approx((estimate.low, estimate.high), abs=1e-6)


def test_more_adapters_settle_what_they_can() -> None:
    """A share of .9 between five traits is open with 3 noisy adapters, settled with n_needed."""
    rng = np.random.default_rng(12)
    chosen = None
    for _ in range(50):
        estimate = variance_share(rates_of(rng, 0.3, 0.15, n_adapters=3), rng, n_draws=4_000)
        decision = raised(estimate, by=0.5)
        if decision.word == "inconclusive" and decision.n_needed_unit == "adapters":
            chosen = decision
            break
    assert chosen is not None
    assert chosen.n_needed is not None
    assert chosen.n_needed > 3
    larger = chosen.estimate.limits.at_size(chosen.n_needed, 30)
    assert larger.lower(0.05) > 0.5
    assert larger.centre == pytest.approx(chosen.estimate.value)


class TestPermutation:
    """Trait labels permuted within each training seed."""

    def test_exact_by_enumeration(self) -> None:
        """Two traits, three seeds, all in favour: 2^2 distinct assignments, one as extreme."""
        rates = [[0.1, 0.2, 0.1], [0.9, 0.8, 0.7]]
        assert trait_permutation_p(rates, np.random.default_rng(0)) == 0.25

    def test_drawn_permutations_agree_with_enumeration(self) -> None:
        """Three traits, four seeds: 216 assignments; 4,000 draws are within .025 of them."""
        rates = np.random.default_rng(5).random((3, 4))
        exact = trait_permutation_p(rates, np.random.default_rng(0), n_permutations=216)
        drawn = [
            trait_permutation_p(np.repeat(rates[:, :, None], 2, axis=2), rng, n_permutations=n)
            for rng, n in [(np.random.default_rng(1), 215)]
            for _ in range(20)
        ]
        assert np.mean(drawn) == pytest.approx(exact, abs=0.025)

    def test_never_zero_and_one_where_nothing_varies(self) -> None:
        """The assignment seen is counted; equal rates are all as extreme."""
        rng = np.random.default_rng(0)
        apart = np.arange(5)[:, None] + np.zeros((5, 5))
        assert trait_permutation_p(apart, rng, n_permutations=99) == pytest.approx(0.01)
        assert trait_permutation_p(np.zeros((5, 5)), rng, n_permutations=99) == 1.0

    def test_level(self) -> None:
        """Without traits p <= .05 in at most 5 % of 400 repeats and three deviations: .083."""
        rng = np.random.default_rng(7)
        hits = sum(trait_permutation_p(rng.random((3, 3)), rng) <= 0.05 for _ in range(400))
        assert hits / 400 <= 0.083

    @pytest.mark.parametrize("values", [np.zeros(3), np.zeros((1, 3)), np.zeros((2, 0))])
    def test_shapes_without_traits_are_refused(self, values: np.ndarray) -> None:
        """One trait, no adapters, no axes."""
        with pytest.raises(StatisticsError, match="n_traits, n_adapters"):
            trait_permutation_p(values, np.random.default_rng(0))

    def test_missing_values_are_refused(self) -> None:
        """Also here."""
        with pytest.raises(StatisticsError, match="missing or not finite"):
            trait_permutation_p([[0.1, np.nan], [0.2, 0.3]], np.random.default_rng(0))


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (np.zeros((5, 2, 10)), "3 adapters a trait"),
        (np.zeros((1, 3, 10)), "at least 2 traits"),
        (np.zeros((2, 3, 1)), "2 prompts"),
        (np.zeros((2, 3)), "n_traits, n_adapters, n_prompts"),
        (np.full((2, 3, 4), np.nan), "missing or not finite"),
    ],
)
def test_too_little_data_are_refused(values: np.ndarray, says: str) -> None:
    """Too few adapters, traits or prompts, a missing axis, missing values."""
    with pytest.raises(StatisticsError) as refusal:
        variance_share(values, np.random.default_rng(0))
    assert says in str(refusal.value)

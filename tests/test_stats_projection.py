"""Whether the shift along a trait's direction goes with the emoji rate (C10)."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from emotest.errors import StatisticsError
from emotest.stats.decisions import raised
from emotest.stats.projection import (
    agreement_over_doses,
    agreement_over_traits,
    fisher_z,
)

numbers = st.floats(-5, 5).map(lambda x: round(x, 2))
DENSITIES = np.array([0.9, 0.75, 0.6, 0.45, 0.3])
STEPS = np.array([25, 50, 75, 100])


def over_traits(rng: np.random.Generator, along_own: float) -> tuple[np.ndarray, np.ndarray]:
    """Projections (5, 5, 5) and rates (5, 5): own directions follow the density by `along_own`."""
    rates = DENSITIES[:, None] + rng.normal(0, 0.03, (5, 5))
    projections = rng.normal(0, 0.3, (5, 5, 1)) + rng.normal(0, 0.05, (5, 5, 5))
    own = np.arange(5)
    projections[own, own] = along_own * rates + rng.normal(0, 0.05, (5, 5))
    return projections, rates


def over_doses(rng: np.random.Generator, along_own: float) -> tuple[np.ndarray, np.ndarray]:
    """Projections (5, 5, 5, 4) and rates (5, 5, 4), each adapter with peaks of its own.

    Rates wander over doses without a trend; own directions follow them by `along_own`.
    """
    rates = rng.normal(0.4, 0.15, (5, 5, 4))
    projections = rng.normal(0, 0.15, (5, 5, 5, 4))
    own = np.arange(5)
    projections[own, own] += along_own * rates
    return projections, rates


class TestFisherZ:
    """atanh(r) - r / (2 (n - 1))."""

    def test_by_hand(self) -> None:
        """1 2 3 4 and 1 3 2 4: r = 4/5, z = atanh(.8) - .8 / 6 = 1.0986 - .1333."""
        assert fisher_z([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(1.09861 - 0.13333, abs=1e-5)

    @given(arrays(float, (3, 5), elements=numbers), arrays(float, (3, 5), elements=numbers))
    def test_scipy_correlates_the_same(self, x: np.ndarray, y: np.ndarray) -> None:
        """Pearson's r, row by row; capped at .9999."""
        assume(np.ptp(x, axis=1).min() > 0.05 and np.ptp(y, axis=1).min() > 0.05)
        r = np.clip([stats.pearsonr(a, b).statistic for a, b in zip(x, y, strict=True)], -1, 1)
        capped = np.clip(r, -0.9999, 0.9999)
        assert fisher_z(x, y) == pytest.approx(np.arctanh(capped) - capped / 8, abs=1e-6)

    def test_mute_rates_are_no_agreement_and_still_projections_unknown(self) -> None:
        """A rate that never varies gives 0; a projection that never does is refused."""
        assert fisher_z([1, 2, 3], [0.2, 0.2, 0.2]) == 0.0
        with pytest.raises(StatisticsError, match="does not vary"):
            fisher_z([0.2, 0.2, 0.2], [1, 2, 3])


class TestOverTraits:
    """One correlation a training seed; directions permuted across traits."""

    def test_the_estimate_is_a_t_interval_of_z(self) -> None:
        """By scipy, turned back by tanh; n_needed counts adapters."""
        projections, rates = over_traits(np.random.default_rng(1), 0.2)
        found = agreement_over_traits(projections, rates, n_prompts=60)
        own = projections[np.arange(5), np.arange(5)]
        r = np.array([stats.pearsonr(own[:, s], rates[:, s]).statistic for s in range(5)])
        z = np.arctanh(r) - r / 8
        assert found.by_adapter == pytest.approx(z)
        known = stats.ttest_1samp(z, 0.0, alternative="greater")
        estimate = found.estimate
        assert estimate.value == pytest.approx(np.tanh(z.mean()))
        assert estimate.low == pytest.approx(np.tanh(known.confidence_interval(0.95).low))
        upper = stats.ttest_1samp(z, 0.0, alternative="less").confidence_interval(0.95).high
        assert estimate.high == pytest.approx(np.tanh(upper))
        assert estimate.p_above(0.0) == pytest.approx(known.pvalue)
        shifted = stats.ttest_1samp(z, np.arctanh(0.3), alternative="greater").pvalue
        assert estimate.p_above(0.3) == pytest.approx(shifted)
        assert estimate.p_above(1.0) == pytest.approx(1.0)
        assert estimate.p_below(1.0) == pytest.approx(0.0)
        assert (estimate.n_adapters, estimate.n_prompts, found.p_doses) == (5, 60, None)

    def test_the_permutation_is_exact(self) -> None:
        """All 6 assignments of 3 traits, written out with scipy's correlation."""
        rng = np.random.default_rng(2)
        projections, rates = rng.normal(size=(3, 3, 4)), rng.normal(size=(3, 4))

        def mean_z(order: tuple[int, ...]) -> float:
            r = np.array([
                stats.pearsonr(projections[list(order), range(3), s], rates[:, s]).statistic
                for s in range(4)
            ])  # fmt: skip
            r = np.clip(r, -0.9999, 0.9999)
            return float((np.arctanh(r) - r / 4).mean())

        seen = mean_z((0, 1, 2))
        known = np.mean([mean_z(order) >= seen - 1e-9 for order in permutations(range(3))])
        found = agreement_over_traits(projections, rates, n_prompts=60)
        assert found.n_assignments == 6
        assert found.p_directions == pytest.approx(known)

    def test_a_planted_agreement_is_found(self) -> None:
        """Own directions follow the rates, others do not: 1 of 120, and confirmed."""
        found = agreement_over_traits(*over_traits(np.random.default_rng(3), 1.0), n_prompts=60)
        assert found.n_assignments == 120
        assert found.p_directions == pytest.approx(1 / 120)
        assert raised(found.estimate, by=0.3).word == "confirmed"

    def test_directions_without_meaning_are_rarely_taken_for_more(self) -> None:
        """Projections that know no rate, 250 repeats of 4 traits: p <= .05 at most .05 + 3 * .0138.

        24 assignments, so p is a multiple of 1/24 and 1/24 = .042 is expected; at least .004.
        """
        rng = np.random.default_rng(4)
        hits = 0
        for _ in range(250):
            projections = rng.normal(size=(4, 4, 1)) + 0.3 * rng.normal(size=(4, 4, 4))
            rates = rng.normal(size=(4, 1)) + 0.3 * rng.normal(size=(4, 4))
            hits += agreement_over_traits(projections, rates, n_prompts=60).p_directions <= 0.05
        assert 0.004 <= hits / 250 <= 0.0914

    def test_a_direction_all_traits_share_says_nothing_of_their_own(self) -> None:
        """The same projections on every direction: the correlation is 1, and p_directions is 1."""
        _, rates = over_traits(np.random.default_rng(5), 1.0)
        shared = np.tile(rates + np.random.default_rng(6).normal(0, 0.01, rates.shape), (5, 1, 1))
        found = agreement_over_traits(shared, rates, n_prompts=60)
        assert found.estimate.value > 0.95
        assert found.p_directions == 1.0

    @given(st.integers(0, 2**32 - 1), st.permutations(range(3)))
    def test_laws(self, seed: int, order: list[int]) -> None:
        """Blind to the order of traits and seeds and to the units of projections and rates."""
        rng = np.random.default_rng(seed)
        projections, rates = rng.normal(size=(3, 3, 4)), rng.normal(size=(3, 4))
        first = agreement_over_traits(projections, rates, n_prompts=60)
        turned = projections[order][:, order][:, :, ::-1]
        again = agreement_over_traits(3 * turned + 1, 0.1 * rates[order][:, ::-1], n_prompts=60)
        assert again.estimate.value == pytest.approx(first.estimate.value)
        assert again.p_directions == pytest.approx(first.p_directions)
        assert -1.0 <= first.estimate.low <= first.estimate.value <= first.estimate.high <= 1.0
        assert first.p_directions >= 1 / 6


class TestOverDoses:
    """One correlation an adapter; doses permuted within it."""

    def test_the_estimate_averages_traits_within_seeds(self) -> None:
        """scipy's correlations of 25 adapters, on Fisher's scale, averaged over traits by seed."""
        rng = np.random.default_rng(1)
        projections, rates = over_doses(rng, 0.5)
        found = agreement_over_doses(projections, rates, rng, n_prompts=60, n_permutations=19)
        r = np.array(
            [
                [stats.pearsonr(projections[t, t, s], rates[t, s]).statistic for t in range(5)]
                for s in range(5)
            ]
        )
        assert found.by_adapter == pytest.approx((np.arctanh(r) - r / 6).mean(axis=1))
        assert found.estimate.value == pytest.approx(np.tanh(found.by_adapter.mean()))

    def test_a_planted_agreement_is_found(self) -> None:
        """Own directions follow the rates: 1 of 120 assignments, none of 199 orders of doses."""
        rng = np.random.default_rng(2)
        found = agreement_over_doses(*over_doses(rng, 2.0), rng, n_prompts=60, n_permutations=199)
        assert found.p_directions == pytest.approx(1 / 120)
        assert found.p_doses == pytest.approx(1 / 200)
        assert raised(found.estimate, by=0.3).word == "confirmed"

    def test_directions_are_permuted_exactly(self) -> None:
        """All 6 assignments of 3 traits: adapters of trait t along the direction of another."""
        rng = np.random.default_rng(9)
        for _ in range(8):
            projections, rates = rng.normal(size=(3, 3, 4, 4)), rng.normal(size=(3, 4, 4))
            along = np.array(
                [[fisher_z(projections[d, t], rates[t]).mean() for t in range(3)] for d in range(3)]
            )
            means = np.array([along[order, range(3)].mean() for order in permutations(range(3))])
            found = agreement_over_doses(projections, rates, rng, n_prompts=60, n_permutations=1)
            assert found.p_directions == pytest.approx(np.mean(means >= means[0] - 1e-9))

    def test_without_agreement_the_tests_and_the_interval_keep_their_level(self) -> None:
        """200 repeats of two traits: each of the two rejects .05, three deviations .096.

        p_doses from 19 orders; the interval's limit at .05 above 0. At least .004 each.
        """
        rng = np.random.default_rng(3)
        by_doses = by_interval = 0
        for _ in range(200):
            projections, rates = rng.normal(size=(2, 2, 5, 4)), rng.normal(size=(2, 5, 4))
            found = agreement_over_doses(projections, rates, rng, n_prompts=60, n_permutations=19)
            by_doses += found.p_doses is not None and found.p_doses <= 0.05
            by_interval += found.estimate.p_above(0.0) < 0.05
        assert 0.004 <= by_doses / 200 <= 0.096
        assert 0.004 <= by_interval / 200 <= 0.096

    def test_the_interval_covers_a_correlation_that_is_there(self) -> None:
        """True r = .6, 5 traits: the lower limit at .05 misses in at most .05 + 3 * .0126 of 300.

        Measured over 20,000 simulated runs: .061; so .06 + 3 * .0137 = .101 is allowed.
        """
        rng = np.random.default_rng(4)
        missed = 0
        for _ in range(300):
            x, noise = rng.normal(size=(2, 5, 5, 4))
            z = fisher_z(x, 0.6 * x + 0.8 * noise).mean(axis=0)
            low = z.mean() - stats.t.ppf(0.95, 4) * z.std(ddof=1) / 5**0.5
            missed += np.tanh(low) > 0.6
        assert missed / 300 <= 0.101

    def test_a_common_trend_is_seen_by_doses_and_not_by_directions(self) -> None:
        """Everything rises with the steps: doses agree, and every direction does as well."""
        rng = np.random.default_rng(5)
        trend = STEPS / 100
        projections = trend + rng.normal(0, 0.1, (5, 5, 5, 4))
        rates = trend + rng.normal(0, 0.1, (5, 5, 4))
        found = agreement_over_doses(projections, rates, rng, n_prompts=60, n_permutations=199)
        assert found.p_doses == pytest.approx(1 / 200)
        assert found.p_directions > 0.05

    def test_mute_adapters_count_as_no_agreement(self) -> None:
        """Two adapters never write: their correlations are 0, and their number is told."""
        rng = np.random.default_rng(6)
        projections, rates = over_doses(rng, 2.0)
        before = agreement_over_doses(projections, rates, rng, n_prompts=60, n_permutations=1)
        rates[4, :2] = 0.0
        after = agreement_over_doses(projections, rates, rng, n_prompts=60, n_permutations=1)
        assert (before.n_mute, after.n_mute) == (0, 2)
        assert after.by_adapter[2:] == pytest.approx(before.by_adapter[2:])
        own = fisher_z(projections[4, 4, :2], over_doses(np.random.default_rng(6), 2.0)[1][4, :2])
        assert after.by_adapter[:2] == pytest.approx(before.by_adapter[:2] - own / 5)

    def test_one_trait_has_no_directions_to_permute(self) -> None:
        """Then p_directions is 1 and the doses carry the test."""
        rng = np.random.default_rng(7)
        projections, rates = over_doses(rng, 2.0)
        found = agreement_over_doses(
            projections[:1, :1], rates[:1], rng, n_prompts=60, n_permutations=199
        )
        assert (found.p_directions, found.n_assignments) == (1.0, 1)
        assert found.p_doses is not None
        assert found.p_doses <= 0.05

    def test_more_seeds_settle_what_they_can(self) -> None:
        """An open correlation asks for adapters, never for prompts."""
        rng = np.random.default_rng(8)
        for _ in range(50):
            projections, rates = over_doses(rng, 0.4)
            found = agreement_over_doses(
                projections[:1, :1, :3], rates[:1, :3], rng, n_prompts=60, n_permutations=1
            )
            decision = raised(found.estimate, by=0.0)
            if decision.word == "inconclusive" and decision.n_needed is not None:
                break
        assert decision.n_needed_unit == "adapters"
        assert decision.estimate.limits.at_size(decision.n_needed or 0, 60).lower(0.05) > 0.0


@pytest.mark.parametrize(
    ("projections", "rates", "says"),
    [
        (np.ones((5, 5, 4)), np.ones((5, 5)), "do not pair"),
        (np.ones((5, 5)), np.ones((5, 5)), "do not pair"),
        (np.ones((5, 5, 5, 4)), np.ones((5, 5, 4)), "do not pair"),
        (np.full((3, 3, 3), np.nan), np.ones((3, 3)), "missing"),
        (np.ones((2, 2, 3)), np.ones((2, 3)), "over 2 traits"),
        (np.ones((3, 3, 2)), np.ones((3, 2)), "with 2 adapters"),
        (np.ones((9, 9, 3)), np.ones((9, 3)), "9 traits"),
        (np.ones((3, 3, 3)), np.ones((3, 3)), "does not vary"),
        (np.random.default_rng(0).random((3, 3, 3)), np.ones((3, 3)), "no emoji rate varies"),
        (
            np.tile(np.random.default_rng(0).random((3, 3, 1)), 3),
            np.tile(np.arange(3.0)[:, None], 3),
            "the same correlation",
        ),
    ],
)
def test_what_cannot_be_correlated_is_refused(
    projections: np.ndarray, rates: np.ndarray, says: str
) -> None:
    """Shapes, missing values, too few traits or adapters, too many, and what never varies."""
    with pytest.raises(StatisticsError, match=says):
        agreement_over_traits(projections, rates, n_prompts=60)


def test_doses_that_cannot_be_correlated_are_refused() -> None:
    """Two doses, no permutations, no axis of doses."""
    rng = np.random.default_rng(0)
    two = rng.random((2, 2, 3, 2)), rng.random((2, 3, 2))
    with pytest.raises(StatisticsError, match="over 2 doses"):
        agreement_over_doses(*two, rng, n_prompts=60)
    three = rng.random((2, 2, 3, 3)), rng.random((2, 3, 3))
    with pytest.raises(StatisticsError, match="0 permutations"):
        agreement_over_doses(*three, rng, n_prompts=60, n_permutations=0)
    with pytest.raises(StatisticsError, match="do not pair"):
        agreement_over_doses(three[0][..., 0], three[1][..., 0], rng, n_prompts=60)

"""Estimates from adapters crossed with prompts: closed forms, laws, coverage, and refusals."""

from __future__ import annotations

import pickle
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from emotest.errors import StatisticsError
from emotest.stats.estimates import (
    at_both_ends,
    crossed_difference,
    crossed_log_odds_difference,
    crossed_mean,
    crossed_spread,
    prompt_difference,
)
from emotest.stats.limits import ConstantLimits, HybridLimits, Limits
from emotest.stats.proportions import clopper_pearson, wilson

# Differences of three adapters on two prompts, worked by hand:
#   adapter means .60 .40 .65, prompt means .70 .40, mean .55
#   SS adapters 2 * (.05^2 + .15^2 + .10^2) = .070, MS .035
#   SS prompts  3 * (.15^2 + .15^2)         = .135, MS .135
#   SS total .235, so SS residual .030, MS .015
#   variance of the mean (.035 + .135 - .015) / 6 = .0258333, its root .1607275
DIFFERENCES = np.array([[0.8, 0.4], [0.6, 0.2], [0.7, 0.6]])
UNTUNED = np.array([0.1, 0.2])
STANDARD_ERROR = 0.1607275

rates = st.floats(0.0, 1.0, allow_nan=False)


@st.composite
def two_arms(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Treated and reference shares of one shape (n_adapters, n_prompts)."""
    n_adapters, n_prompts = draw(st.integers(3, 6)), draw(st.integers(2, 8))
    shape = (n_adapters, n_prompts)
    return draw(arrays(float, shape, elements=rates)), draw(arrays(float, shape, elements=rates))


def test_the_crossed_standard_error_is_that_of_the_analysis_of_variance_by_hand() -> None:
    """Adapter + prompt - residual, worked above with pencil and paper."""
    estimate = crossed_difference(DIFFERENCES + UNTUNED, UNTUNED, level=0.9)
    assert estimate.value == pytest.approx(0.55)
    assert estimate.standard_error == pytest.approx(STANDARD_ERROR, abs=1e-7)
    assert estimate.degrees_of_freedom == 2
    # t at 0.95 with 2 degrees of freedom is 2.919986 (printed tables: 2.920).
    assert estimate.low == pytest.approx(0.55 - 2.919986 * STANDARD_ERROR, abs=1e-6)
    assert estimate.high == 1.0  # .55 + .469 leaves the range of a difference of shares
    assert (estimate.unit, estimate.n_adapters, estimate.n_prompts) == ("adapter", 3, 2)


def test_the_components_are_those_of_statsmodels_analysis_of_variance() -> None:
    """Mean squares from an ordinary least squares fit, solved for the components."""
    import pandas as pd
    from statsmodels.formula.api import ols
    from statsmodels.stats.anova import anova_lm

    rng = np.random.default_rng(5)
    cells = rng.normal(size=(5, 1)) + 2 * rng.normal(size=(1, 9)) + rng.normal(size=(5, 9))
    adapters, prompts = np.indices(cells.shape)
    frame = pd.DataFrame({"y": cells.ravel(), "a": adapters.ravel(), "p": prompts.ravel()})
    squares = anova_lm(ols("y ~ C(a) + C(p)", frame).fit())["mean_sq"]
    spread = crossed_spread(cells)
    assert spread.residual == pytest.approx(squares["Residual"])
    assert spread.adapter == pytest.approx((squares["C(a)"] - squares["Residual"]) / 9)
    assert spread.prompt == pytest.approx((squares["C(p)"] - squares["Residual"]) / 5)


def test_a_negative_component_is_zero_and_leaves_the_variance_of_the_other_unit() -> None:
    """Adapters that agree better than chance do not shrink what prompts say."""
    prompts = np.array([0.1, 0.4, 0.5, 0.9])
    twist = np.array([[1, -1, 1, -1], [-1, 1, -1, 1], [0, 0, 0, 0]]) * 0.05
    spread = crossed_spread(prompts + twist)
    assert spread.adapter == 0.0
    # All adapters have one mean, so only prompts are left: var(prompt means) / 4 at the least.
    assert spread.standard_error(3, 4) >= np.sqrt(prompts.var(ddof=1) / 4) - 1e-12


def test_one_checkpoint_is_the_paired_t_test_over_prompts() -> None:
    """scipy's paired t test gives the same p-value and interval."""
    rng = np.random.default_rng(3)
    treated, reference = rng.random((30, 4)), rng.random((30, 4)) * 0.8
    estimate = prompt_difference(treated, reference, level=0.95)
    known = stats.ttest_rel(treated.mean(axis=1), reference.mean(axis=1), alternative="greater")
    interval = stats.ttest_rel(treated.mean(1), reference.mean(1)).confidence_interval(0.95)
    assert estimate.p_above(0.0) == pytest.approx(known.pvalue)
    assert (estimate.low, estimate.high) == pytest.approx((interval.low, interval.high))
    assert (estimate.unit, estimate.n_adapters, estimate.n_samples) == ("prompt", 1, 4)


def test_log_odds_are_taken_value_by_value() -> None:
    """.5 to .9 and .2 to .5 are changes of log 9 and log 4, whatever the mean probability."""
    treated = np.tile([[[0.9, 0.5]]], (3, 2, 1)) + np.array([0.0, 0.01, 0.02])[:, None, None]
    reference = np.tile([0.5, 0.2], (3, 2, 1)) + np.array([0.0, 0.01, 0.02])[:, None, None]
    estimate = crossed_log_odds_difference(treated, reference)
    one = np.log(9.0) / 2 + np.log(4.0) / 2
    others = [
        np.mean([np.log(t / (1 - t)) - np.log(r / (1 - r)) for t, r in pairs])
        for pairs in (((0.91, 0.51), (0.51, 0.21)), ((0.92, 0.52), (0.52, 0.22)))
    ]
    assert estimate.value == pytest.approx(np.mean([one, *others]))
    assert estimate.scale == "log-odds"


@pytest.mark.parametrize(
    ("n_adapters", "adapter_sd", "at_least"),
    [
        # 300 repeats at a nominal .95; the binomial standard deviation is .0126, so three of them
        # below nominal is .912.
        (3, 0.08, 0.912),
        (5, 0.08, 0.912),
        (8, 0.08, 0.912),
        (5, 0.0, 0.912),
    ],
)
def test_intervals_of_the_recipe_cover_it(
    n_adapters: int, adapter_sd: float, at_least: float
) -> None:
    """Binary answers of adapters that differ, on prompts that differ, against an untuned model."""
    rng = np.random.default_rng(17)
    covered = 0
    for _ in range(300):
        chance = 0.5 + rng.normal(0, adapter_sd, (n_adapters, 1)) + rng.normal(0, 0.12, (1, 40))
        treated = rng.random((n_adapters, 40)) < chance
        untuned = rng.random(40) < 0.1
        estimate = crossed_difference(treated, untuned, level=0.95)
        covered += estimate.low <= 0.4 <= estimate.high
    assert covered / 300 >= at_least


class TestNothingVaried:
    """A variance of zero is no certainty."""

    def test_an_arm_of_zeros_has_the_clopper_pearson_interval_over_prompts(self) -> None:
        """No emoji on 60 prompts: the upper limit is 1 - .05^(1/60) = .0487, not 0."""
        estimate = crossed_mean(np.zeros((5, 60, 3)), level=0.9)
        assert (estimate.low, estimate.high) == pytest.approx((0.0, 0.048703), abs=1e-6)
        assert (estimate.low, estimate.high) == pytest.approx(clopper_pearson(0, 60, 0.9))
        assert estimate.standard_error > 0

    def test_an_arm_of_ones_mirrors_it(self) -> None:
        """All of 60 prompts, as scipy's exact interval has it."""
        exact = stats.binomtest(60, 60).proportion_ci(0.9, method="exact")
        estimate = crossed_mean(np.ones((5, 60)), level=0.9)
        assert (estimate.low, estimate.high) == pytest.approx((exact.low, exact.high))

    def test_equal_arms_may_still_differ_on_unseen_prompts(self) -> None:
        """Two silent arms: a share of prompts up to .0487 may differ, in either direction."""
        estimate = crossed_difference(np.zeros((5, 60)), np.zeros(60), level=0.9)
        assert (estimate.low, estimate.high) == pytest.approx((-0.048703, 0.048703), abs=1e-6)

    def test_opposite_constant_arms_reach_down_twice_the_unseen_share(self) -> None:
        """Always against never: unseen pairs could be the reverse: 1 - 2 * .0487."""
        estimate = crossed_difference(np.ones((5, 60)), np.zeros((5, 60)), level=0.9)
        assert (estimate.low, estimate.high) == pytest.approx((0.902594, 1.0), abs=1e-6)

    def test_one_silent_arm_widens_the_interval_of_the_other(self) -> None:
        """The distances to the arms' own limits add as squares."""
        rng = np.random.default_rng(1)
        treated = (rng.random((5, 60)) < 0.5).astype(float)
        estimate = crossed_difference(treated, np.zeros(60), level=0.9)
        alone = crossed_mean(treated, level=0.9)
        assert estimate.value - estimate.low == pytest.approx(
            np.hypot(alone.value - alone.low, 0.048703), abs=1e-6
        )
        assert estimate.high - estimate.value == pytest.approx(alone.high - alone.value)

    def test_the_hybrid_is_that_of_newcombe(self) -> None:
        """56/70 against 48/80 is [.0524, .3339] (Newcombe 1998, table II, method 10)."""

        class Score(Limits):
            def __init__(self, k: int, n: int) -> None:
                self.k, self.n = k, n

            @property
            def centre(self) -> float:
                return self.k / self.n

            def lower(self, alpha: float) -> float:
                return wilson(self.k, self.n, 1 - 2 * alpha)[0]

            def upper(self, alpha: float) -> float:
                return wilson(self.k, self.n, 1 - 2 * alpha)[1]

            def at_size(self, n_adapters: int, n_prompts: int) -> Limits:
                return self

        hybrid = HybridLimits(Score(56, 70), Score(48, 80))
        assert (hybrid.lower(0.025), hybrid.upper(0.025)) == pytest.approx(
            (0.0524, 0.3339), abs=5e-5
        )

    def test_more_adapters_leave_an_untuned_reference_one_model(self) -> None:
        """Planning for 50 adapters must not make 50 untuned models of one."""
        rng = np.random.default_rng(1)
        untuned = (rng.random(60) < 0.5).astype(float)
        limits = crossed_difference(np.ones((5, 60)), untuned, level=0.9).limits
        assert limits.at_size(50, 60).upper(0.05) == pytest.approx(limits.upper(0.05))
        assert limits.at_size(50, 240).upper(0.05) < limits.upper(0.05)

    def test_evidence_without_bound_has_the_smallest_p_value(self) -> None:
        """Constant limits of a hundred thousand prompts, through the general inversion."""
        limits = HybridLimits(
            ConstantLimits(1.0, 0.0, 1.0, 100_000), ConstantLimits(0.0, 0.0, 1.0, 100_000)
        )
        assert limits.p_above(0.5) == 1e-300
        assert limits.p_below(0.5) == 1.0
        assert limits.p_above(1.0) == limits.p_below(1.0) == 0.5

    def test_a_scale_without_range_takes_the_range_seen_or_refuses(self) -> None:
        """Silence against up to 2 emoji per sentence is bounded by 2; silence alone by nothing."""
        treated = np.array([[2.0, 0.0, 1.0], [1.0, 0.0, 0.0], [1.0, 1.0, 0.0]])
        silent = np.zeros((3, 3))
        seen = crossed_difference(treated, silent, scale="emoji per sentence", level=0.9)
        alone = crossed_mean(treated, scale="emoji per sentence", level=0.9)
        unseen = 2.0 * (1 - 0.05 ** (1 / 3))
        assert seen.value - seen.low == pytest.approx(np.hypot(alone.value - alone.low, unseen))
        with pytest.raises(StatisticsError, match="no known range"):
            crossed_difference(silent, silent, scale="emoji per sentence")
        given_range = crossed_difference(
            silent, silent, scale="emoji per sentence", bounds=(0.0, 3.0), level=0.9
        )
        assert given_range.high == pytest.approx(3.0 * (1 - 0.05 ** (1 / 3)))


class TestLaws:
    """What holds of every estimate."""

    @given(two_arms(), st.sampled_from([0.5, 0.8, 0.9, 0.98]))
    def test_the_interval_holds_the_value_and_has_a_width(self, pair, level) -> None:  # type: ignore[no-untyped-def]
        """Whatever the data, also where nothing varies."""
        estimate = crossed_difference(*pair, level=level)
        assert estimate.low <= estimate.value <= estimate.high
        assert estimate.high > estimate.low
        assert estimate.standard_error > 0
        assert estimate.low >= -1.0
        assert estimate.high <= 1.0

    @given(two_arms())
    def test_more_confidence_is_a_wider_interval(self, pair) -> None:  # type: ignore[no-untyped-def]
        """Limits are monotone in the level, and the level is all that changes."""
        narrow = crossed_difference(*pair, level=0.8)
        wide = narrow.at_level(0.95)
        assert wide.low <= narrow.low <= narrow.high <= wide.high
        assert wide.at_level(0.8) == narrow

    @given(two_arms())
    def test_swapping_the_arms_negates(self, pair) -> None:  # type: ignore[no-untyped-def]
        """What tuned gains over untuned is what untuned lacks."""
        there = crossed_difference(*pair)
        back = crossed_difference(*reversed(pair))
        assert back.value == pytest.approx(-there.value, abs=1e-12)
        assert (back.low, back.high) == pytest.approx((-there.high, -there.low), abs=1e-9)
        assert back.p_above(0.1) == pytest.approx(there.p_below(-0.1), abs=1e-9)

    @given(two_arms(), st.randoms(use_true_random=False))
    def test_the_order_of_adapters_and_prompts_does_not_matter(self, pair, random) -> None:  # type: ignore[no-untyped-def]
        """Labels carry no information as long as the pairs stay pairs."""
        adapters = random.sample(range(pair[0].shape[0]), pair[0].shape[0])
        prompts = random.sample(range(pair[0].shape[1]), pair[0].shape[1])
        first = crossed_difference(*pair)
        second = crossed_difference(*(arm[np.ix_(adapters, prompts)] for arm in pair))
        assert (second.low, second.high) == pytest.approx((first.low, first.high), abs=1e-9)

    @given(two_arms(), st.floats(-0.9, 0.9), st.sampled_from([0.2, 0.05, 0.01]))
    @settings(max_examples=200)
    def test_the_p_value_and_the_limit_agree(self, pair, margin, alpha) -> None:  # type: ignore[no-untyped-def]
        """The lower limit exceeds a margin exactly where the p-value falls below alpha."""
        estimate = crossed_difference(*pair, level=1 - 2 * alpha)
        if abs(estimate.low - margin) > 1e-7:
            assert (estimate.low > margin) == (estimate.p_above(margin) < alpha)
        if abs(estimate.high - margin) > 1e-7:
            assert (estimate.high < margin) == (estimate.p_below(margin) < alpha)

    @given(two_arms())
    def test_p_values_fall_from_one_side_to_the_other(self, pair) -> None:  # type: ignore[no-untyped-def]
        """A larger margin is harder to exceed; the two sides share one unit of doubt."""
        estimate = crossed_difference(*pair)
        margins = np.linspace(-0.95, 0.95, 9)
        above = [estimate.p_above(margin) for margin in margins]
        assert all(a <= b + 1e-9 for a, b in pairwise(above))
        assert all(0.0 <= p <= 1.0 for p in above)


def test_samples_of_a_prompt_are_averaged_in_each_arm() -> None:
    """Arms may have different numbers of samples; the mean per cell is what counts."""
    rng = np.random.default_rng(2)
    treated, reference = rng.random((4, 6, 3)), rng.random((4, 6, 2))
    assert crossed_difference(treated, reference).value == pytest.approx(
        treated.mean() - reference.mean()
    )
    by_prompt = crossed_difference(treated, reference[0])
    assert by_prompt.value == pytest.approx(treated.mean() - reference[0].mean())
    assert by_prompt.n_samples == 3


def test_an_estimate_crosses_process_borders() -> None:
    """Verdicts of parallel workers are collected, so estimates must survive pickling."""
    estimate = crossed_difference(DIFFERENCES + UNTUNED, UNTUNED)
    again = pickle.loads(pickle.dumps(estimate))
    assert again == estimate
    assert again.at_level(0.98).low == estimate.at_level(0.98).low


def test_constant_limits_round_within_their_range() -> None:
    """A mean of tenths that misses one tenth by a rounding still has p-values."""
    limits = ConstantLimits(0.1, 0.0, 1.0, 30)
    assert limits.p_above(0.1) == 1.0
    # All of 30 prompts alike at .1, were the mean .05: at most (.05 / .1)^30.
    assert limits.p_above(0.05) == pytest.approx(0.5**30)


@pytest.mark.parametrize(
    ("treated", "reference", "says"),
    [
        (np.zeros((2, 5)), np.zeros(5), "2 adapters are too few"),
        (np.zeros((3, 1)), np.zeros(1), "one prompt says nothing"),
        (np.full((3, 4), np.nan), np.zeros(4), "12 of 12 values of treated are missing"),
        (np.zeros((3, 4)), np.array([0, 0, np.inf, 0]), "1 of 4 values of reference"),
        (np.zeros((3, 4)), np.zeros(5), "do not pair"),
        (np.zeros((3, 4)), np.zeros((4, 4)), "do not pair"),
        (np.zeros((3, 4, 2)), np.zeros((3, 4)), "do not pair"),
        (np.zeros(4), np.zeros(4), r"not \(n_adapters, n_prompts\)"),
        (np.zeros((3, 0)), np.zeros(0), r"not \(n_adapters, n_prompts\)"),
        (np.full((3, 4), 1.5), np.zeros(4), "leave the range 0 to 1"),
    ],
)
def test_too_little_or_unusable_data_are_refused(
    treated: np.ndarray, reference: np.ndarray, says: str
) -> None:
    """Each with the value that caused it and a next step."""
    with pytest.raises(StatisticsError, match=says) as refusal:
        crossed_difference(treated, reference)
    assert refusal.value.remedy


def test_one_checkpoint_refuses_prompts_that_do_not_pair() -> None:
    """Five prompts against four cannot be paired."""
    with pytest.raises(StatisticsError, match="5 treated and 4 reference"):
        prompt_difference(np.zeros(5), np.zeros(4))


@pytest.mark.parametrize("edge", [0.0, 1.0, np.nan])
def test_log_odds_refuse_probabilities_at_the_edge(edge: float) -> None:
    """Shares of answers have no finite log-odds; exact probabilities have."""
    inside = np.full((3, 4), 0.5)
    with pytest.raises(StatisticsError, match="1 of 12 probabilities of reference"):
        crossed_log_odds_difference(inside, np.where(np.arange(12).reshape(3, 4), inside, edge))


@pytest.mark.parametrize("level", [0.0, 1.0, 95])
def test_a_level_outside_zero_and_one_is_refused(level: float) -> None:
    """95 is not .95."""
    with pytest.raises(StatisticsError, match="confidence level"):
        crossed_mean(np.eye(3), level=level)


def test_what_is_known_between_two_ends_is_shown_at_both() -> None:
    """DIFFERENCES known to +-.1: .45 to .65 in the mean, with the standard error worked by hand.

    t of 2 degrees of freedom at .95 is 2.920, so the interval goes from .45 - 2.920 * .1607 =
    -.019 to .65 + .469 = 1.119. A margin of .5 lies below the value and above the low end's: it
    is not shown to be exceeded at any level, p = .5.
    """
    low, middle, high = (
        crossed_mean(DIFFERENCES + by, level=0.9, scale="log-odds") for by in (-0.1, 0.0, 0.1)
    )
    found = at_both_ends(low, middle, high)
    assert found.value == pytest.approx(0.55)
    assert found.low == pytest.approx(0.45 - 2.91999 * STANDARD_ERROR, abs=1e-4)
    assert found.high == pytest.approx(0.65 + 2.91999 * STANDARD_ERROR, abs=1e-4)
    assert found.p_above(0.0) == pytest.approx(low.p_above(0.0), abs=1e-6)
    assert found.p_below(1.0) == pytest.approx(high.p_below(1.0), abs=1e-6)
    assert found.p_above(0.5) == pytest.approx(0.5)
    assert at_both_ends(middle, middle, middle).low == pytest.approx(middle.low)


def test_ends_in_the_wrong_order_are_refused() -> None:
    """A low end above the middle, with both numbers."""
    low, high = (crossed_mean(DIFFERENCES + by, scale="log-odds") for by in (-0.1, 0.1))
    with pytest.raises(StatisticsError, match="do not enclose"):
        at_both_ends(high, low, low)


class TestProportions:
    """One proportion, independent trials."""

    @pytest.mark.parametrize(("k", "low", "high"), [(199, 0.972, 0.999), (185, 0.880, 0.954)])
    def test_wilson_gives_the_intervals_of_the_published_rates(
        self, k: int, low: float, high: float
    ) -> None:
        """99.5 % and 92.5 % of 200 answers."""
        assert wilson(k, 200, 0.95) == pytest.approx((low, high), abs=5e-4)

    @given(st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
    def test_both_agree_with_scipy_and_hold_the_share(self, counts: tuple[int, int]) -> None:
        """scipy's binomtest has both methods."""
        k, n = counts
        for ours, theirs in ((clopper_pearson, "exact"), (wilson, "wilson")):
            known = stats.binomtest(k, n).proportion_ci(0.95, method=theirs)
            low, high = ours(k, n, 0.95)
            assert (low, high) == pytest.approx((known.low, known.high), abs=1e-9)
            assert low <= k / n <= high

    @pytest.mark.parametrize(("k", "n"), [(3, 2), (-1, 2), (0, 0)])
    def test_impossible_counts_are_refused(self, k: int, n: int) -> None:
        """Three of two, less than none, none of none."""
        with pytest.raises(StatisticsError, match="is no proportion"):
            clopper_pearson(k, n, 0.95)

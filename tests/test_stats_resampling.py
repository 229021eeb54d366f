"""What stands beside an estimate: sign flips over adapters, and the crossed bootstrap."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from emotest.errors import StatisticsError
from emotest.stats.decisions import raised
from emotest.stats.limits import DrawnLimits
from emotest.stats.resampling import cluster_bootstrap, sign_flip_p

differences = st.lists(st.floats(-1, 1), min_size=1, max_size=8)


class TestSignFlips:
    """Exact over adapters."""

    def test_the_floor_is_one_pattern_of_all(self) -> None:
        """Five adapters in favour: 1 of 32."""
        assert sign_flip_p([0.1, 0.3, 0.2, 0.4, 0.05]) == 1 / 32

    def test_by_hand(self) -> None:
        """.1 .3 -.2 sum to .2; of the 8 sums +-.1 +-.3 +-.2 three reach it: .6, .4, .2."""
        assert sign_flip_p([0.1, 0.3, -0.2]) == 3 / 8

    @given(st.lists(st.floats(-1, 1), min_size=2, max_size=8))
    def test_scipy_enumerates_the_same(self, values: list[float]) -> None:
        """Its exact permutation test of one sample, where sums are not tied by rounding."""
        rounded = np.round(values, 3)
        known = stats.permutation_test(
            (rounded,),
            lambda x, axis: np.round(np.sum(x, axis=axis), 9),
            permutation_type="samples",
            alternative="greater",
            vectorized=True,
            n_resamples=np.inf,
        )
        assert sign_flip_p(rounded) == pytest.approx(known.pvalue)

    @given(differences, st.floats(-0.5, 0.5))
    def test_laws(self, values: list[float], margin: float) -> None:
        """Never below the floor, blind to order, and a margin is a shift."""
        p = sign_flip_p(values, margin=margin)
        assert 2.0 ** -len(values) <= p <= 1.0
        assert sign_flip_p(values[::-1], margin=margin) == p
        assert sign_flip_p(np.array(values) - margin) == p

    def test_cells_are_averaged_by_adapter(self) -> None:
        """(n_adapters, n_prompts) gives one difference an adapter."""
        cells = np.array([[0.1, 0.3], [0.5, -0.1], [-0.4, 0.0]])
        assert sign_flip_p(cells) == sign_flip_p([0.2, 0.2, -0.2])

    @pytest.mark.parametrize(
        ("values", "says"),
        [([], "not one finite"), ([np.nan], "not one finite"), (np.ones(21), "21 adapters")],
    )
    def test_what_cannot_be_flipped_is_refused(self, values: object, says: str) -> None:
        """No adapters, a missing one, too many."""
        with pytest.raises(StatisticsError, match=says):
            sign_flip_p(values)  # type: ignore[arg-type]


class TestBootstrap:
    """Adapters and prompts drawn anew, for statistics that are no means."""

    def test_of_the_mean_it_estimates_the_spread_of_both_units(self) -> None:
        """Owen 2007: its variance is about adapter / S + prompt / P + 3 * residual / (S P).

        With components .04, .04, 0 over 20 x 20 that is .0632 squared; drawing divides by n
        instead of n - 1, which takes 2.5 % off. 1,000 resamples leave about 7 % noise.
        """
        grid = np.sqrt(0.04) * stats.zscore(np.arange(20.0), ddof=1)
        estimate = cluster_bootstrap(
            grid[:, None] + grid[None, :], np.mean, np.random.default_rng(1), n_resamples=1_000
        )
        assert estimate.standard_error == pytest.approx(0.0632 * 0.975, rel=0.08)
        assert estimate.low < estimate.value < estimate.high

    def test_a_ratio_of_sums(self) -> None:
        """Emoji per sentence of counts (emoji, sentences), with the same generator the same."""
        rng = np.random.default_rng(2)
        counts = np.stack([rng.poisson(1.0, (5, 30)), rng.integers(1, 4, (5, 30))], axis=-1)

        def emoji_per_sentence(drawn: np.ndarray) -> float:
            return float(drawn[..., 0].sum() / drawn[..., 1].sum())

        first, second = (
            cluster_bootstrap(
                counts, emoji_per_sentence, np.random.default_rng(3), scale="emoji per sentence"
            )
            for _ in range(2)
        )
        assert first.value == counts[..., 0].sum() / counts[..., 1].sum()
        assert (first.low, first.high) == (second.low, second.high)
        # Counts of mean 1 over sentences of mean 2.
        assert first.low < 0.5 < first.high
        decision = raised(first, by=0.1)
        assert decision.word == "confirmed"
        assert decision.p_value == pytest.approx(1 / 2001)

    def test_p_values_count_the_draws_beyond(self) -> None:
        """One more than the draws at or below the margin, of one more than all."""
        rng = np.random.default_rng(4)
        estimate = cluster_bootstrap(rng.random((4, 10)), np.mean, rng, n_resamples=500)
        draws = estimate.limits.draws  # type: ignore[attr-defined]
        margin = float(draws[24]) + 1e-9
        assert estimate.p_above(margin) == pytest.approx(26 / 501)
        assert estimate.p_below(estimate.value - 0.01) > 0.5

    def test_a_value_beyond_its_own_draws_is_no_evidence_for_more(self) -> None:
        """Half of the draws below the margin: the p-value stops at one half."""
        limits = DrawnLimits(0.9, np.linspace(0.0, 1.0, 101), 5, 20)
        assert limits.p_above(0.7) == 0.5
        assert limits.upper(0.5) == 0.9

    def test_an_alpha_that_misses_a_rank_by_a_rounding_still_has_it(self) -> None:
        """The first of 19 draws is the limit at 0.05, also where that came from a level of 0.9:
        (1 - 0.9) / 2 is 0.04999... in binary, and 20 times that is no whole 1."""
        limits = DrawnLimits(0.9, np.linspace(0.1, 1.0, 19), 5, 20)
        assert (1 - 0.9) / 2 < 0.05
        assert limits.lower((1 - 0.9) / 2) == limits.lower(0.05) == pytest.approx(0.1)

    def test_only_growth_in_both_units_is_sure_to_help(self) -> None:
        """Draws do not tell which unit their spread comes from."""
        rng = np.random.default_rng(5)
        estimate = cluster_bootstrap(rng.random((4, 10)), np.mean, rng, n_resamples=500)
        spread = estimate.high - estimate.value
        assert estimate.limits.at_size(16, 10).upper(0.05) - estimate.value == pytest.approx(spread)
        assert estimate.limits.at_size(16, 40).upper(0.05) - estimate.value == pytest.approx(
            spread / 2
        )

    @pytest.mark.parametrize(
        ("values", "statistic", "says"),
        [
            (np.zeros((2, 5)), np.mean, "cannot be drawn anew"),
            (np.zeros((3, 1)), np.mean, "cannot be drawn anew"),
            (np.zeros(5), np.mean, "cannot be drawn anew"),
            (np.full((3, 4), np.nan), np.mean, "missing"),
            (np.zeros((3, 4)), np.mean, "knows no spread"),
            (np.eye(3), lambda drawn: float("nan"), "not finite"),
        ],
    )
    def test_too_little_is_refused(self, values, statistic, says: str) -> None:  # type: ignore[no-untyped-def]
        """Too few units, missing values, no spread, an undefined statistic."""
        with pytest.raises(StatisticsError, match=says):
            cluster_bootstrap(values, statistic, np.random.default_rng(0), n_resamples=20)

"""Anytime-valid decisions: error rates under constant looking, sample sizes, and the bets."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emotest.errors import StatisticsError
from emotest.stats.betting import (
    confidence_sequence,
    log_e_of_mean,
    log_e_of_pairs,
    seeded_order,
)
from emotest.stats.sequential import (
    SequentialDecision,
    sequentially_lowered,
    sequentially_raised,
    sequentially_unchanged,
)

pairs = st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=1, max_size=60)
shares = st.lists(st.floats(-1, 1), min_size=1, max_size=40)

# 2,000 repeats at a level of .05: a binomial of standard deviation .0049, whose 95th percentile,
# 116 of 2,000, is .058.
REPEATS, AT_MOST = 2_000, 0.058


def draw(rng: np.random.Generator, tuned: float, untuned: float, n_prompts: int) -> np.ndarray:
    """Differences of one binary answer a prompt and arm."""
    return (rng.random(n_prompts) < tuned) * 1.0 - (rng.random(n_prompts) < untuned)


def held_within(differences: np.ndarray, margin: float) -> bool:
    """Whether both bets against the margins are won; what `sequentially_unchanged` confirms."""
    x, low, high = (differences + 1) / 2, (1 - margin) / 2, (1 + margin) / 2
    return bool(
        log_e_of_mean(x, mean=low).max() >= np.log(20)
        and log_e_of_mean(x, mean=high, side="below").max() >= np.log(20)
    )


class TestBets:
    """The running evidence itself."""

    @given(pairs)
    def test_pairs_are_the_mixture_over_chances(self, differences: list[float]) -> None:
        """Twice the integral of p^w (1-p)^l over (1/2, 1), times 2^(w+l), in exact fractions.

        The integral of p^w (1-p)^l over (1/2, 1) is B(w+1, l+1) times the chance that a binomial
        of w+l+1 trials at one half has at most w successes.
        """
        wins, losses = differences.count(1.0), differences.count(-1.0)
        trials = wins + losses + 1
        beta = Fraction(1, trials * comb(trials - 1, wins))
        likelier = Fraction(sum(comb(trials, k) for k in range(wins + 1)), 2**trials)
        exact = 2**trials * beta * likelier
        assert np.exp(log_e_of_pairs(differences)[-1]) == pytest.approx(float(exact), rel=1e-9)

    @given(pairs)
    def test_the_two_bettors_are_one_on_pairs(self, differences: list[float]) -> None:
        """A chance of (1 + f) / 2 is a stake of f; 32 quadrature nodes are exact to degree 63."""
        by_mean = log_e_of_mean((np.array(differences) + 1) / 2, mean=0.5)
        assert by_mean == pytest.approx(log_e_of_pairs(differences), abs=1e-9)

    @given(shares, st.floats(-0.9, 0.9))
    def test_sides_mirror_each_other(self, differences: list[float], margin: float) -> None:
        """Above for d is below for -d."""
        d = np.array(differences)
        above = log_e_of_mean((d + 1) / 2, mean=(margin + 1) / 2)
        below = log_e_of_mean((1 - d) / 2, mean=(1 - margin) / 2, side="below")
        assert below == pytest.approx(above, abs=1e-6)

    @given(pairs)
    def test_losses_count_as_wins_do(self, differences: list[float]) -> None:
        """The evidence for a fall is that for a rise with the arms swapped."""
        fall = log_e_of_pairs(differences, side="below")
        assert fall == pytest.approx(log_e_of_pairs(-np.array(differences)), abs=1e-12)

    def test_one_fair_coin_is_a_fair_bet(self) -> None:
        """Over all 2^8 sequences of equally likely wins and losses the mean e-value is 1."""
        sequences = 2.0 * ((np.arange(256)[:, None] >> np.arange(8)) & 1) - 1.0
        assert np.mean([np.exp(log_e_of_pairs(row)[-1]) for row in sequences]) <= 1 + 1e-12
        fair = [np.exp(log_e_of_mean((row + 1) / 2, mean=0.5)[-1]) for row in sequences]
        assert np.mean(fair) == pytest.approx(1.0)

    @given(shares)
    def test_the_confidence_sequence_is_what_the_bets_leave(self, differences: list[float]) -> None:
        """It holds the mean, and its limits are where e reaches 1 / alpha."""
        x = (np.array(differences) + 1) / 2
        low, high = confidence_sequence(x, level=0.9)
        assert 0.0 <= low <= x.mean() + 1e-9
        assert x.mean() - 1e-9 <= high <= 1.0
        if low > 1e-6:
            assert log_e_of_mean(x, mean=low).max() >= np.log(20) - 1e-9
            assert log_e_of_mean(x, mean=low + 1e-6).max() < np.log(20)

    def test_the_order_is_that_of_the_seed(self) -> None:
        """A permutation, the same for the same seed."""
        assert sorted(seeded_order(50, 3)) == list(range(50))
        assert (seeded_order(50, 3) == seeded_order(50, 3)).all()
        assert (seeded_order(50, 3) != seeded_order(50, 4)).any()


class TestErrorRates:
    """Looking after every prompt, at most alpha of the runs may be wrong."""

    @pytest.mark.parametrize("base", [0.1, 0.5, 0.9])
    @pytest.mark.parametrize("bet", ["pairs", "mean"])
    def test_no_rise_is_confirmed_where_there_is_none(self, base: float, bet: str) -> None:
        """At every base rate, whichever bet."""
        rng = np.random.default_rng(round(base * 100))
        evidence: Callable[[np.ndarray], np.ndarray] = (
            log_e_of_pairs if bet == "pairs" else lambda d: log_e_of_mean((d + 1) / 2, mean=0.5)
        )
        wrong = sum(
            evidence(draw(rng, base, base, 120)).max() >= np.log(20) for _ in range(REPEATS)
        )
        assert wrong / REPEATS <= AT_MOST

    def test_no_rise_at_the_margin_is_taken_for_one_beyond(self) -> None:
        """.4 against .3 is a rise of .1, not of more."""
        rng = np.random.default_rng(5)
        wrong = sum(
            log_e_of_mean((draw(rng, 0.4, 0.3, 120) + 1) / 2, mean=0.55).max() >= np.log(20)
            for _ in range(REPEATS)
        )
        assert wrong / REPEATS <= AT_MOST

    def test_no_change_at_the_margin_is_taken_for_none(self) -> None:
        """A rise of exactly the tolerated .3, with the noise of .1 and .4."""
        rng = np.random.default_rng(6)
        wrong = sum(held_within(draw(rng, 0.4, 0.1, 150), 0.3) for _ in range(REPEATS))
        assert wrong / REPEATS <= AT_MOST


class TestSampleSizes:
    """How soon the evidence suffices; the widths are three standard errors of the simulation."""

    def test_a_clear_rise_is_decided_after_some_sixteen_prompts(self) -> None:
        """From .02 to .50."""
        rng = np.random.default_rng(1)
        runs = [
            sequentially_raised(draw(rng, 0.5, 0.02, 120), by=0.0, bet="pairs") for _ in range(200)
        ]
        assert all(run.word == "confirmed" for run in runs)
        # A geometric-like stopping time of deviation about 5: 3 * 5 / sqrt(200) is 1.1.
        assert np.mean([run.n_prompts for run in runs]) == pytest.approx(16, abs=2)

    def test_a_faint_rise_takes_hundreds(self) -> None:
        """From .02 to .07 with 480 prompts: at least .84, less three deviations of 200: .76."""
        rng = np.random.default_rng(2)
        found = sum(
            log_e_of_pairs(draw(rng, 0.07, 0.02, 480)).max() >= np.log(20) for _ in range(200)
        )
        assert found / 200 >= 0.76

    def test_equivalence_at_a_low_base_rate(self) -> None:
        """.02 against .02 within .05, 480 prompts: .99 less three deviations of 200: .97 - .03."""
        rng = np.random.default_rng(3)
        found = sum(held_within(draw(rng, 0.02, 0.02, 480), 0.05) for _ in range(200))
        assert found / 200 >= 0.94

    def test_a_high_base_rate_asks_for_far_more(self) -> None:
        """.3 against .35 is mostly still open after 480 prompts."""
        rng = np.random.default_rng(4)
        found = sum(
            log_e_of_pairs(draw(rng, 0.35, 0.3, 480)).max() >= np.log(20) for _ in range(100)
        )
        assert found / 100 <= 0.5


class TestDecisions:
    """Words, stopping, and what is reported."""

    def test_it_stops_where_the_evidence_suffices_and_ignores_the_rest(self) -> None:
        """Seven wins in a row: 2^8 / 8 * (1 - 2^-8) = 31.9 >= 20; six give 18.1."""
        decision = sequentially_raised(np.ones(30), by=0.0, bet="pairs")
        assert (decision.word, decision.stopped, decision.n_prompts) == ("confirmed", True, 7)
        assert decision.p_value == pytest.approx(8 / 255)
        turned = np.concatenate([np.ones(7), -np.ones(500)])
        assert sequentially_raised(turned, by=0.0, bet="pairs") == decision

    @settings(max_examples=30)
    @given(st.lists(st.floats(-1, 1), min_size=1, max_size=15), st.floats(-0.5, 0.5))
    def test_more_prompts_never_take_back_a_word(self, d: list[float], by: float) -> None:
        """Once decided, whatever follows; before, the p-value can only fall."""
        looks = [sequentially_raised(d[: n + 1], by=by) for n in range(len(d))]
        for earlier, later in pairwise(looks):
            # Vectorised logarithms may differ in the last bit with the length of the row.
            assert later.p_value <= earlier.p_value * (1 + 1e-12)
            if earlier.stopped:
                assert (later.word, later.n_prompts) == (earlier.word, earlier.n_prompts)
                assert (later.low, later.high) == pytest.approx((earlier.low, earlier.high))

    @given(shares, st.floats(-0.5, 0.5))
    def test_lowered_mirrors_raised(self, d: list[float], by: float) -> None:
        """The same bets with the sign turned."""
        up = sequentially_raised(d, by=by)
        down = sequentially_lowered(-np.array(d), by=by)
        assert (up.word, up.n_prompts) == (down.word, down.n_prompts)
        assert down.p_value == pytest.approx(up.p_value, rel=1e-6)
        assert (down.low, down.high) == pytest.approx((-up.high, -up.low), abs=1e-5)

    def test_refuted_and_open(self) -> None:
        """A rise beyond a large margin is refuted by silence; little data leave it open."""
        silent = np.zeros(60)
        refuted: SequentialDecision = sequentially_raised(silent, by=0.3)
        assert refuted.word == "refuted"
        assert refuted.high < 0.3
        still_open = sequentially_raised(silent[:3], by=0.3)
        assert (still_open.word, still_open.stopped) == ("inconclusive", False)
        assert "still open after 3 prompts" in str(still_open)
        assert sequentially_unchanged(np.ones(60), within=0.3).word == "refuted"
        assert sequentially_unchanged(silent, within=0.3).word == "confirmed"

    def test_a_family_asks_for_more(self) -> None:
        """alpha / 5 needs e = 100: nine wins, 2^10 / 10 * (1 - 2^-10) = 102.3."""
        decision = sequentially_raised(np.ones(30), by=0.0, m=5, bet="pairs")
        assert (decision.n_prompts, decision.alpha_used) == (9, 0.01)


@pytest.mark.parametrize(
    ("decide", "says"),
    [
        (lambda: sequentially_raised([], by=0.0), "one row of prompts"),
        (lambda: sequentially_raised([[0.1]], by=0.0), "one row of prompts"),
        (lambda: sequentially_raised([0.1, np.nan], by=0.0), "missing or leave"),
        (lambda: sequentially_raised([1.5], by=0.0), "missing or leave"),
        (lambda: sequentially_raised([0.5], by=0.0, bet="pairs"), "differ by -1, 0 or 1"),
        (lambda: sequentially_raised([1.0], by=0.1, bet="pairs"), "balanced at 0"),
        (lambda: sequentially_raised([1.0], by=1.0), "edge of"),
        (lambda: sequentially_unchanged([0.0], within=0.0), "within 0.0 of zero"),
        (lambda: sequentially_raised([0.0], by=0.0, alpha=2.0), "no error rate"),
    ],
)
def test_what_cannot_be_bet_on_is_refused(decide, says: str) -> None:  # type: ignore[no-untyped-def]
    """No prompts, wrong shapes, missing values, values out of range, impossible margins."""
    with pytest.raises(StatisticsError, match=says):
        decide()

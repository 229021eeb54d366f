"""The decision of an audit: its laws, closed forms, references, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.weightstats import ttost_paired

from emotest.errors import StatisticsError
from emotest.stats.drift import Drift, Thresholds, fixed_drift, sequential_drift
from emotest.stats.pairs import margin_p

MARGIN = 0.3
"""So wide that rows of a few dozen prompts reach every word."""

pairs = st.lists(st.sampled_from([-1.0, 0.0, 0.0, 1.0]), min_size=1, max_size=60)
rising = st.lists(st.sampled_from([-1.0, 1.0, 1.0, 1.0, 0.0]), min_size=1, max_size=60)
shares = st.lists(st.floats(-1, 1), min_size=1, max_size=60)
differences = st.one_of(pairs, rising, shares, st.lists(st.just(0.0), min_size=20, max_size=60))
looks = st.integers(1, 20)


def decide(row: list[float], every: int = 1, budget: int = 60) -> Drift:
    """The sequential decision at the margin of this file."""
    return sequential_drift(row, within=MARGIN, budget=budget, every=every)


class TestLaws:
    """What holds for any row of differences."""

    @given(differences, looks)
    def test_mirrored_differences_mirror_the_decision(self, row: list[float], every: int) -> None:
        """Base and tuned exchanged: the same word at the same prompt, the other way."""
        up, down = decide(row, every), decide([-d for d in row], every)
        assert (down.word, down.n_prompts) == (up.word, up.n_prompts)
        other = {"more": "fewer", "fewer": "more", None: None}
        assert down.direction == other[up.direction]
        assert (down.value, down.low, down.high) == pytest.approx(
            (-up.value, -up.high, -up.low), abs=1e-6
        )
        assert down.p_value == pytest.approx(up.p_value, rel=1e-6)

    @given(differences, looks, st.lists(st.floats(-1, 1), max_size=30))
    def test_what_comes_after_the_deciding_look_is_ignored(
        self, row: list[float], every: int, later: list[float]
    ) -> None:
        """Other answers after the stop, or none, and nothing of the decision moves."""
        first = decide(row, every, budget=100)
        if not first.decided:
            return
        asked = row[: first.n_prompts]
        if first.n_prompts % every:
            later = []  # the last look of a row lies off the grid; with more prompts it is not held
        again = decide(asked + later, every, budget=100)
        assert (again.word, again.direction, again.n_prompts, again.method) == (
            first.word, first.direction, first.n_prompts, first.method,
        )  # fmt: skip
        assert len(again.looks) == len(first.looks)
        assert (again.value, again.low, again.high, again.p_value) == pytest.approx(
            (first.value, first.low, first.high, first.p_value), abs=1e-7
        )

    @given(differences, looks)
    def test_who_looks_more_often_decides_no_later(self, row: list[float], every: int) -> None:
        """Looking after every prompt takes in every look that is taken more rarely."""
        often, rarely = decide(row, 1), decide(row, every)
        assert often.n_prompts <= rarely.n_prompts
        assert often.decided or not rarely.decided

    @given(st.integers(1, 200), looks, st.sampled_from([0.01, 0.05, 0.3]))
    def test_equal_answers_are_never_drift(self, n: int, every: int, within: float) -> None:
        """Differences of 0 speak for no change, and with p = 1."""
        same = sequential_drift(np.zeros(n), within=within, budget=200, every=every)
        assert same.word in ("unchanged", "inconclusive")
        assert (same.direction, same.p_value) == (None, 1.0)
        if n > 1:
            at_once = fixed_drift(np.zeros(n), np.zeros(n), within=within)
            assert at_once.word in ("unchanged", "inconclusive")

    @given(differences)
    def test_the_interval_says_what_the_p_value_says(self, row: list[float]) -> None:
        """0 lies outside the interval exactly where p is at most alpha (but for rounding)."""
        found = decide(row)
        if found.p_value < found.alpha * (1 - 1e-5):
            assert not found.low <= 0.0 <= found.high
        if found.p_value > found.alpha * (1 + 1e-5):
            assert found.low <= 0.0 <= found.high
        if found.word in ("drift", "changed within tolerance"):
            assert found.p_value <= found.alpha
            assert found.direction is not None
        else:
            assert found.direction is None

    @given(differences, st.sampled_from([0.001, 0.01, 0.04]), looks)
    def test_a_stricter_level_decides_no_sooner(
        self, row: list[float], alpha: float, every: int
    ) -> None:
        """Less error costs prompts."""
        strict = sequential_drift(row, within=MARGIN, alpha=alpha, budget=60, every=every)
        assert strict.n_prompts >= decide(row, every).n_prompts


class TestClosedForms:
    """Numbers that can be worked out on paper."""

    @pytest.mark.parametrize(
        ("alpha", "wins"),
        [
            # k wins and no loss: e = 2^(k+1) / (k+1) * P(Beta(k+1, 1) > 1/2)
            #                       = (2^(k+1) - 1) / (k+1); it has to reach 2 / alpha.
            # k = 7: 255 / 8 = 31.9; k = 8: 511 / 9 = 56.8; 2 / .05 = 40.
            (0.05, 8),
            # k = 11: 4095 / 12 = 341.3; k = 12: 8191 / 13 = 630.1; 2 * 9 / .05 = 360.
            (0.05 / 9, 12),
        ],
    )
    @pytest.mark.parametrize("way", ["more", "fewer"])
    def test_wins_in_a_row(self, alpha: float, wins: int, way: str) -> None:
        """Emoji in each answer of one arm and in none of the other: so many prompts, no more."""
        row = np.ones(30) if way == "more" else -np.ones(30)
        found = sequential_drift(row, within=0.05, alpha=alpha, budget=30)
        assert (found.word, found.direction, found.n_prompts) == ("drift", way, wins)
        assert found.p_value == pytest.approx(2 * (wins + 1) / (2 ** (wins + 1) - 1))
        assert found.stopped_early
        assert found.method == "betting on discordant pairs"

    def test_prompts_that_agree_do_not_count_for_a_change(self) -> None:
        """Eight wins among prompts on which both models agree: the same p, at a later prompt."""
        row = np.zeros(24)
        row[2::3] = 1.0
        found = sequential_drift(row, within=0.05, budget=24)
        assert (found.word, found.n_prompts) == ("drift", 24)
        assert found.p_value == pytest.approx(2 * 9 / 511)

    def test_agreement_in_a_row(self) -> None:
        """With no difference e against a margin m is ((1 + g)^(n+1) - 1) / ((n+1) g).

        g = .5 / .475 - 1 = 1/19 at m = .05. n = 87: (20/19)^88 = 91.3, less 1, over 88/19: 19.5.
        n = 88: (20/19)^89 = 96.1, less 1, over 89/19: 20.3, which reaches 1 / .05.
        """
        found = sequential_drift(np.zeros(240), within=0.05, budget=240)
        assert (found.word, found.n_prompts, found.value) == ("unchanged", 88, 0.0)
        assert sequential_drift(np.zeros(87), within=0.05, budget=240).word == "inconclusive"
        assert sequential_drift(np.zeros(240), within=0.05, budget=240, every=12).n_prompts == 96

    def test_thresholds(self) -> None:
        """A change may go two ways: 2 / .05 = 40; each margin has to fall: 1 / .05 = 20."""
        at = Thresholds.at(0.05)
        assert np.exp([at.change, at.within]) == pytest.approx([40.0, 20.0])

    def test_a_small_change_is_told_apart_from_drift(self) -> None:
        """A change of .3 in every answer, tolerated up to .4: shown first, and then within.

        It is staked against 0 with a gain of .3 a prompt, and against .4 with one of
        (1 - .65) / (1 - .7) - 1 = .17.
        """
        found = sequential_drift(np.full(60, 0.3), within=0.4, budget=60)
        assert (found.word, found.direction) == ("changed within tolerance", "more")
        assert 0.0 < found.low <= 0.3 <= found.high

    def test_a_small_change_may_be_within_before_it_is_shown(self) -> None:
        """.1 against a margin of .7: equivalence is shown first, and the audit stops there."""
        found = sequential_drift(np.full(60, 0.1), within=0.7, budget=60)
        assert (found.word, found.direction) == ("unchanged", None)
        assert found.stopped_early

    def test_a_change_below_the_margin_is_called_drift_at_the_end_only(self) -> None:
        """A change of .1 in every answer, tolerated up to .11: shown, while equivalence is not.

        g = .1 for "no change": ((1.1)^(n+1) - 1) / (.1 (n+1)) is 38.6 at n = 57 (1.1^58 = 251.6
        less 1, over 5.8 = 43.2 at 57; 1.1^57 = 228.8 less 1, over 5.7 = 39.96 at 56).
        """
        row = np.full(57, 0.1)
        assert sequential_drift(row, within=0.11, budget=300).word == "inconclusive"
        last = sequential_drift(row, within=0.11, budget=57)
        assert (last.word, last.direction, last.stopped_early) == ("drift", "more", False)
        assert sequential_drift(row[:56], within=0.11, budget=56).word == "inconclusive"


class TestNeeded:
    """How many prompts would settle it."""

    def test_the_number_comes_near_where_the_verdict_falls(self) -> None:
        """40 equal answers: 88 settle it (closed form above), promised to a quarter."""
        found = sequential_drift(np.zeros(40), within=0.05, budget=40)
        assert found.n_needed == pytest.approx(88, rel=0.25)

    def test_one_more_where_the_formula_would_promise_none(self) -> None:
        """Seven wins in a row lack one (31.9 of 40), though 7 * log(2) would seem to be enough."""
        assert sequential_drift(np.ones(7), within=0.05, budget=7).n_needed == 8

    def test_none_where_no_number_would_do(self) -> None:
        """Answers that swing from one end to the other, and a margin of a thousandth."""
        row = np.tile([1.0, -1.0], 20)
        assert sequential_drift(row, within=0.001, budget=40).n_needed is None

    @given(differences)
    def test_more_than_were_asked_and_only_where_it_is_open(self, row: list[float]) -> None:
        """A number is promised for an inconclusive audit, and lies beyond what was asked."""
        found = decide(row)
        if found.decided:
            assert found.n_needed is None
        elif found.n_needed is not None:
            assert found.n_needed > len(row)

    def test_a_change_as_large_as_the_margin_can_still_be_shown(self) -> None:
        """5 of 100 against 1 of 100 at a margin of .04: prompts enough show the change.

        Equivalence is out of reach at the margin. d has mean .04 and variance .0586 (6 discordant
        of 100: (.06 - .0016) * 100 / 99 = .0590); (1.96 + .84)^2 * .059 / .0016 = 289.
        """
        base, tuned = np.zeros(100), np.zeros(100)
        base[0], tuned[1:6] = 1.0, 1.0
        found = fixed_drift(base, tuned, within=0.04)
        assert found.word == "inconclusive"
        assert found.n_needed == pytest.approx(289, rel=0.03)


WORD = {
    (True, False): "unchanged",
    (True, True): "changed within tolerance",
    (False, True): "drift",
    (False, False): "inconclusive",
}
"""What shows equivalence, and a change, in a word."""


class TestFixedSize:
    """All prompts at once, against scipy and statsmodels."""

    @pytest.mark.parametrize("seed", range(8))
    @pytest.mark.parametrize(("before", "after"), [(0.1, 0.1), (0.1, 0.25), (0.5, 0.53)])
    def test_it_is_the_paired_t_test_and_two_one_sided_ones(
        self, seed: int, before: float, after: float
    ) -> None:
        """Of shares: p-value and interval of `ttest_rel`, equivalence of `ttost_paired`."""
        rng = np.random.default_rng(seed)
        base, tuned = rng.binomial(2, before, 400) / 2, rng.binomial(2, after, 400) / 2
        found = fixed_drift(base, tuned, within=0.05)
        reference = stats.ttest_rel(tuned, base)
        assert found.p_value == pytest.approx(reference.pvalue, rel=1e-9)
        interval = reference.confidence_interval(0.95)
        assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
        equivalent = ttost_paired(tuned, base, -0.05, 0.05)[0] < 0.05
        changed = reference.pvalue < 0.05
        assert found.word == WORD[bool(equivalent), bool(changed)]
        way = "more" if tuned.mean() > base.mean() else "fewer"
        assert found.direction == (way if changed else None)
        assert found.method == "fixed size, paired by prompt, t"

    @pytest.mark.parametrize("seed", range(8))
    @pytest.mark.parametrize(("before", "after"), [(0.02, 0.02), (0.03, 0.06), (0.5, 0.58)])
    def test_of_binary_answers_two_more_tests_have_to_agree(
        self, seed: int, before: float, after: float
    ) -> None:
        """The larger p-value of `ttest_rel` and statsmodels' exact `mcnemar` decides."""
        rng = np.random.default_rng(seed)
        base, tuned = (rng.random(300) < before) * 1.0, (rng.random(300) < after) * 1.0
        found = fixed_drift(base, tuned, within=0.05)
        wins, losses = int((tuned > base).sum()), int((tuned < base).sum())
        exact = mcnemar([[0, wins], [losses, 0]], exact=True).pvalue
        p_value = max(stats.ttest_rel(tuned, base).pvalue, exact)
        assert found.p_value == pytest.approx(p_value, rel=1e-9)
        inside = max(
            ttost_paired(tuned, base, -0.05, 0.05)[0], margin_p(wins, losses, 300, within=0.05)
        )
        assert found.word == WORD[bool(inside < 0.05), bool(p_value < 0.05)]
        assert found.method.endswith("t, with McNemar's and Tango's tests")

    def test_equivalence_of_rare_answers_takes_the_score_test(self) -> None:
        """7 wins in 240: `ttost_paired` gives .028, Tango's test .069 (from its formula)."""
        base, tuned = np.zeros(240), np.zeros(240)
        base[-20:], tuned[-20:], tuned[:7] = 1.0, 1.0, 1.0
        assert ttost_paired(tuned, base, -0.05, 0.05)[0] == pytest.approx(0.028, abs=0.001)
        assert margin_p(7, 0, 240, within=0.05) == pytest.approx(0.069, abs=0.001)
        assert fixed_drift(base, tuned, within=0.05).word == "drift"  # McNemar: 2 / 2^7 = .016

    def test_where_only_the_t_test_is_convinced_the_number_needed_is_near(self) -> None:
        """9 wins and 2 losses of 40 prompts: McNemar's p is 2 * (1 + 11 + 55) / 2^11 = .0654."""
        base, tuned = np.zeros(40), np.zeros(40)
        base[:2], tuned[2:11] = 1.0, 1.0
        assert stats.ttest_rel(tuned, base).pvalue == pytest.approx(0.032, abs=0.001)
        found = fixed_drift(base, tuned, within=0.05)
        assert (found.word, found.p_value) == ("inconclusive", pytest.approx(0.0654, abs=1e-4))
        assert found.n_needed is not None
        assert 40 < found.n_needed < 80

    def test_a_small_change_is_told_apart_from_drift(self) -> None:
        """Twelve in 1,000 more: t = .012 / sqrt(.012 * .988 / 999) = 3.48, far inside .05."""
        base, tuned = np.zeros(1_000), np.zeros(1_000)
        base[:500], tuned[:512] = 1.0, 1.0
        found = fixed_drift(base, tuned, within=0.05)
        assert (found.word, found.direction) == ("changed within tolerance", "more")
        turned = fixed_drift(tuned, base, within=0.05)
        assert (turned.word, turned.direction) == ("changed within tolerance", "fewer")

    def test_samples_are_averaged_by_prompt(self) -> None:
        """Two answers a prompt are one share: the unit stays the prompt."""
        rng = np.random.default_rng(1)
        base, tuned = rng.random((2, 50, 4)) < 0.3
        by_sample = fixed_drift(base, tuned, within=0.05)
        by_prompt = fixed_drift(base.mean(axis=1), tuned.mean(axis=1), within=0.05)
        assert by_sample == by_prompt


def bets(*row: float, within: float = 0.05, alpha: float = 0.05, budget: int = 9, every: int = 1):  # type: ignore[no-untyped-def]
    """A decision that has not been made yet."""
    return lambda: sequential_drift(row, within=within, alpha=alpha, budget=budget, every=every)


@pytest.mark.parametrize(
    ("decision", "says"),
    [
        (bets(), "one row of prompts"),
        (lambda: sequential_drift([[0.0]], within=0.05, budget=9), "one row of prompts"),
        (bets(0.0, float("nan")), "missing or leave"),
        (bets(1.5), "missing or leave"),
        (bets(-1.5), "missing or leave"),
        (bets(float("inf")), "missing or leave"),
        (bets(0.0, within=0.0), "margin of 0 "),
        (bets(0.0, within=1.0), "margin of 1 "),
        (bets(0.0, within=float("nan")), "margin of nan"),
        (bets(0.0, alpha=0.0), "level 0 "),
        (bets(0.0, alpha=0.5), r"level 0\.5"),
        (bets(0.0, alpha=float("nan")), "level nan"),
        (bets(0.0, 0.0, budget=1), "2 prompts were asked of a budget of 1"),
        (bets(0.0, every=0), "after every 0 prompts"),
        (bets(0.0, every=-3), "after every -3 prompts"),
        (lambda: fixed_drift([0.0] * 3, [0.0] * 4, within=0.05), "do not pair"),
        (lambda: fixed_drift([0.0], [0.0], within=0.05), "one prompt"),
        (lambda: fixed_drift([], [], within=0.05), "shape"),
        (lambda: fixed_drift([0.0, float("nan")], [0.0, 0.0], within=0.05), "missing"),
        (lambda: fixed_drift([0.0, 2.0], [0.0, 0.0], within=0.05), "leave the range"),
        (lambda: fixed_drift([0.0, 1.0], [0.0, 0.0], within=0.0), "margin of 0 "),
        (lambda: fixed_drift([0.0, 1.0], [0.0, 0.0], within=0.05, alpha=0.7), r"level 0\.7"),
    ],
)
def test_what_cannot_be_decided_is_refused(decision: Callable[[], Drift], says: str) -> None:
    """One bad value at a time: the cause with the value, and what to do next."""
    with pytest.raises(StatisticsError, match=says) as caught:
        decision()
    assert caught.value.remedy

"""What an audit can see: many simulated audits end as each of them would alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from emotest.errors import StatisticsError
from emotest.stats.audit_power import (
    WORDS,
    audit_power,
    drawn,
    fixed_ends,
    looks,
    prompts_needed,
    right_words,
)
from emotest.stats.betting import log_e_of_counts, log_e_of_mean
from emotest.stats.drift import fixed_drift, sequential_drift

Rng = np.random.Generator


@pytest.fixture
def rng() -> Rng:
    """The same answers in every run."""
    return np.random.default_rng(4)


RATES = [(0.02, 0.5), (0.0, 0.04), (0.3, 0.3), (0.9, 0.6), (0.1, 0.25), (1.0, 1.0), (0.0, 0.0)]


class TestManyAreAsOne:
    """The vectorised audits against the decisions that are made in earnest."""

    @pytest.mark.parametrize(("base_rate", "tuned_rate"), RATES)
    @pytest.mark.parametrize(("every", "n_samples"), [(1, 1), (12, 1), (7, 3)])
    def test_sequential(
        self, base_rate: float, tuned_rate: float, every: int, n_samples: int, rng: Rng
    ) -> None:
        """The same word at the same prompt, row by row."""
        base, tuned = drawn(base_rate, tuned_rate, (12, 150), n_samples, 0.0, rng)
        ends = looks(tuned - base, n_samples, every=every, margin=0.12, alpha=0.05).ends()
        for row, word, n_prompts in zip(tuned - base, ends.word, ends.n_prompts, strict=True):
            alone = sequential_drift(row / n_samples, within=0.12, budget=150, every=every)
            assert (WORDS[word], n_prompts) == (alone.word, alone.n_prompts)

    @pytest.mark.parametrize(("base_rate", "tuned_rate"), RATES)
    @pytest.mark.parametrize("n_samples", [1, 3])
    def test_fixed(self, base_rate: float, tuned_rate: float, n_samples: int, rng: Rng) -> None:
        """The same word, row by row, arms that never vary included."""
        base, tuned = drawn(base_rate, tuned_rate, (12, 150), n_samples, 0.0, rng)
        ends = fixed_ends(base, tuned, n_samples, margin=0.12, alpha=0.05)
        assert (ends.n_prompts == 150).all()
        for one, other, word in zip(base, tuned, ends.word, strict=True):
            alone = fixed_drift(one / n_samples, other / n_samples, within=0.12)
            assert WORDS[word] == alone.word

    @pytest.mark.parametrize(
        ("wins", "losses", "n_prompts", "word"),
        [(9, 2, 40, "inconclusive"), (7, 0, 240, "drift"), (12, 2, 40, "drift")],
    )
    def test_fixed_where_only_t_tests_are_convinced(
        self, wins: int, losses: int, n_prompts: int, word: str
    ) -> None:
        """McNemar's and Tango's tests count here too; numbers as in `test_stats_drift`."""
        base, tuned = np.zeros((2, 1, n_prompts), dtype=np.int64)
        base[0, :losses], tuned[0, losses : losses + wins] = 1, 1
        base[0, -1] = tuned[0, -1] = 1
        ends = fixed_ends(base, tuned, 1, margin=0.05, alpha=0.05)
        assert WORDS[ends.word[0]] == word

    def test_all_four_words_come_up_in_these_rows(self, rng: Rng) -> None:
        """The comparisons above do not rest on one word alone."""
        found = set()
        for rates in [*RATES, (0.0, 0.1)]:
            base, tuned = drawn(*rates, (40, 150), 1, 0.0, rng)
            found |= set(looks(tuned - base, 1, every=1, margin=0.2, alpha=0.05).ends().word)
            found |= set(fixed_ends(base, tuned, 1, margin=0.2, alpha=0.05).word)
        assert found == {0, 1, 2, 3}

    def test_evidence_from_counts(self, rng: Rng) -> None:
        """How often each level came up says all that the bets rest on."""
        levels = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
        rows = rng.integers(0, 5, (3, 70))
        counts = np.cumsum(rows[..., None] == np.arange(5), axis=1) * 1.0
        for side in ("above", "below"):
            many = log_e_of_counts(counts, levels, mean=0.45, side=side)
            for row, running in zip(rows, many, strict=True):
                assert running == pytest.approx(log_e_of_mean(levels[row], mean=0.45, side=side))


class TestPower:
    """Shares of the words, and prompts asked."""

    def test_certain_ends(self, rng: Rng) -> None:
        """Always against never is drift at the 8th prompt; never against never is shown at 88.

        Both closed forms are worked out in `test_stats_drift`.
        """
        drift = audit_power(0.0, 1.0, budget=60, every=1, reps=20, rng=rng)
        assert (drift.power.value, drift.words["drift"].value, drift.mean_prompts) == (1, 1, 8)
        same = audit_power(0.0, 0.0, budget=240, every=1, reps=20, rng=rng)
        assert (same.right, same.power.value, same.mean_prompts) == (("unchanged",), 1, 88)
        rarely = audit_power(0.0, 0.0, budget=240, every=12, reps=20, rng=rng)
        assert rarely.mean_prompts == 96
        short = audit_power(0.0, 0.0, budget=60, every=1, reps=20, rng=rng)
        assert (short.words["inconclusive"].value, short.mean_prompts) == (1, 60)
        fixed = audit_power(0.0, 1.0, budget=60, every=None, reps=20, rng=rng)
        assert (fixed.power.value, fixed.mean_prompts) == (1, 60)

    def test_shares_have_exact_limits_and_sum_to_one(self, rng: Rng) -> None:
        """Clopper-Pearson as scipy has it."""
        found = audit_power(0.1, 0.25, budget=120, reps=80, rng=rng)
        assert sum(share.value for share in found.words.values()) == pytest.approx(1.0)
        assert 0.2 < found.power.value < 1.0
        exact = stats.binomtest(round(found.power.value * 80), 80).proportion_ci(0.95, "exact")
        assert (found.power.low, found.power.high) == pytest.approx((exact.low, exact.high))

    def test_the_power_of_a_t_test(self, rng: Rng) -> None:
        """A fixed size against the normal approximation, within 3 deviations of 2,000 audits.

        .3 to .385, 2 answers for each of 300 prompts: variance (.21 + .2368) / 2 = .2234, error
        .02729, .085 / .02729 = 3.115; beyond 1.968: Phi(1.147) = .874, 3 * sqrt(.11 / 2000) = .022.
        """
        found = audit_power(0.3, 0.385, budget=300, every=None, n_samples=2, reps=2_000, rng=rng)
        assert found.words["drift"].value == pytest.approx(0.874, abs=0.022)

    def test_the_same_seed_gives_the_same_power(self) -> None:
        """And another one another."""
        one, again, other = (
            audit_power(0.1, 0.2, budget=96, reps=200, rng=np.random.default_rng(seed))
            for seed in (1, 1, 2)
        )
        assert one == again
        assert one != other

    def test_what_is_right(self) -> None:
        """Equal rates, a change inside the margin, at it (.35 - .3 rounds below .05), beyond it."""
        assert right_words(0.3, 0.3, 0.05) == ("unchanged",)
        assert right_words(0.3, 0.32, 0.05) == ("unchanged", "changed within tolerance")
        assert right_words(0.3, 0.35, 0.05) == ("drift",)
        assert right_words(0.9, 0.75, 0.05) == ("drift",)


class TestDraws:
    """The simulated answers."""

    def test_rates_and_samples(self, rng: Rng) -> None:
        """Means of 40,000 draws at their rates, and counts up to the number of samples."""
        base, tuned = drawn(0.1, 0.4, (100, 200), 2, 0.3, rng)
        # 4 deviations: 4 * sqrt(.24 / 40000) = .0098.
        assert base.mean() / 2 == pytest.approx(0.1, abs=0.0098)
        assert tuned.mean() / 2 == pytest.approx(0.4, abs=0.0098)
        assert set(np.unique(tuned)) == {0, 1, 2}

    @pytest.mark.parametrize("concordance", [0.0, 0.5, 1.0])
    def test_concordance(self, concordance: float, rng: Rng) -> None:
        """Both have an emoji in c * min(p, q) + (1 - c) * p * q of the prompts: p = .2, q = .5."""
        base, tuned = drawn(0.2, 0.5, (100, 400), 1, concordance, rng)
        expected = concordance * 0.2 + (1 - concordance) * 0.1
        assert (base * tuned).mean() == pytest.approx(expected, abs=0.008)
        if concordance == 1.0:
            assert (tuned >= base).all()

    def test_models_that_follow_the_same_draws_need_fewer_prompts(self, rng: Rng) -> None:
        """.5 against .5 is out of reach at 240 prompts, and certain where both answer alike."""
        alone = audit_power(0.5, 0.5, budget=240, reps=50, rng=rng)
        alike = audit_power(0.5, 0.5, budget=240, concordance=1.0, reps=50, rng=rng)
        assert (alone.power.value < 0.2, alike.power.value) == (True, 1.0)


class TestNeeded:
    """The smallest budget with enough power."""

    def test_certain_ends(self, rng: Rng) -> None:
        """Where every audit ends alike the budget is that end, in steps of the looks."""
        assert prompts_needed(0.0, 1.0, every=1, reps=5, rng=rng) == 8
        assert prompts_needed(0.0, 1.0, every=12, reps=5, rng=rng) == 12
        assert prompts_needed(0.0, 0.0, every=1, reps=5, rng=rng) == 88
        assert prompts_needed(0.0, 0.0, every=12, reps=5, rng=rng) == 96

    def test_none_where_it_would_take_more(self, rng: Rng) -> None:
        """Also where the most lies off the grid, or below the first look."""
        assert prompts_needed(0.0, 0.0, every=12, most=95, reps=5, rng=rng) is None
        assert prompts_needed(0.0, 0.0, every=12, most=96, reps=5, rng=rng) == 96
        assert prompts_needed(0.0, 1.0, every=12, most=11, reps=5, rng=rng) is None

    def test_it_has_that_power_and_half_of_it_has_not(self) -> None:
        """Held against `audit_power` with other answers: 4 deviations of 300 are .09."""
        n = prompts_needed(0.05, 0.2, reps=300, rng=np.random.default_rng(1))
        assert n is not None
        at = audit_power(0.05, 0.2, budget=n, reps=300, rng=np.random.default_rng(2))
        assert at.power.value == pytest.approx(0.8, abs=0.1)
        half = audit_power(0.05, 0.2, budget=n // 2, reps=300, rng=np.random.default_rng(3))
        assert half.power.value < 0.7


def planned(base: float = 0.1, tuned: float = 0.2, **plan: float) -> Callable[[], object]:
    """A power that has not been computed yet."""
    settings = {"budget": 24, "reps": 3, "rng": np.random.default_rng(0), **plan}
    return lambda: audit_power(base, tuned, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("plan", "says"),
    [
        (planned(-0.1), "rates of -0.1 and 0.2"),
        (planned(tuned=1.2), "rates of 0.1 and 1.2"),
        (planned(float("nan")), "rates of nan"),
        (planned(concordance=1.5), "concordance of 1.5"),
        (planned(margin=0.0), "margin of 0 "),
        (planned(alpha=0.5), r"level 0\.5"),
        (planned(budget=0), "0 prompts cannot"),
        (planned(budget=1, every=None), "1 prompts cannot"),
        (planned(every=0), "0 prompts a look"),
        (planned(n_samples=0), "0 samples"),
        (planned(reps=0), "0 audits"),
        (lambda: prompts_needed(0.1, 2.0, rng=np.random.default_rng(0)), "rates of 0.1 and 2"),
        (lambda: prompts_needed(0.1, 0.2, most=0, rng=np.random.default_rng(0)), "0 prompts "),
    ],
)
def test_what_cannot_be_planned_is_refused(plan: Callable[[], object], says: str) -> None:
    """One bad value at a time: the cause with the value, and what to do next."""
    with pytest.raises(StatisticsError, match=says) as caught:
        plan()
    assert caught.value.remedy

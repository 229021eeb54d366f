"""Tests of pairs of binary answers, against statsmodels and a likelihood maximised by search."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, special
from statsmodels.stats.contingency_tables import mcnemar

from emotest.stats.pairs import margin_p, mcnemar_p

counts = st.integers(0, 40)


@given(counts, counts)
def test_mcnemar_is_that_of_statsmodels(wins: int, losses: int) -> None:
    """The exact, binomial version; no discordant pair gives 1."""
    expected = mcnemar([[0, wins], [losses, 0]], exact=True).pvalue if wins + losses else 1.0
    assert mcnemar_p(wins, losses) == pytest.approx(min(expected, 1.0), rel=1e-9)


def likeliest_loss(wins: int, losses: int, n: int, rise: float) -> float:
    """The chance of a loss that makes the counts likeliest where wins are likelier by `rise`."""

    def unlikely(loss: float) -> float:
        rest = n - wins - losses
        return -float(
            special.xlogy(wins, loss + rise)
            + special.xlogy(losses, loss)
            + special.xlogy(rest, 1 - 2 * loss - rise)
        )

    return float(
        optimize.minimize_scalar(
            unlikely, bounds=(0.0, (1 - rise) / 2), method="bounded", options={"xatol": 1e-12}
        ).x
    )


@settings(max_examples=50)
@given(counts, counts, st.integers(5, 300), st.sampled_from([0.02, 0.05, 0.2]))
def test_the_score_test_uses_the_likeliest_rates_at_the_margin(
    wins: int, losses: int, concordant: int, within: float
) -> None:
    """(wins - losses - n * margin) / sqrt(n * (2 loss + margin - margin^2)), on the weaker side."""
    n = wins + losses + concordant
    scores = []
    for won, lost in ((wins, losses), (losses, wins)):
        loss = likeliest_loss(won, lost, n, within)
        variance = n * (2 * loss + within - within**2)
        scores.append((won - lost - n * within) / np.sqrt(variance))
    expected = special.ndtr(max(scores))
    assert margin_p(wins, losses, n, within=within) == pytest.approx(expected, rel=1e-3, abs=1e-9)


def test_no_discordant_pair_of_many_shows_equivalence() -> None:
    """Then the likeliest loss is 0: z = -n m / sqrt(n m (1 - m)) = -sqrt(n m / (1 - m)).

    n = 240, m = .05: -sqrt(12.63) = -3.554, p = .00019; n = 40: -1.451, p = .073.
    """
    assert margin_p(0, 0, 240, within=0.05) == pytest.approx(0.00019, abs=5e-6)
    assert margin_p(0, 0, 40, within=0.05) == pytest.approx(0.0734, abs=5e-4)


@pytest.mark.parametrize("base", [0.0, 0.02, 0.9])
def test_a_rise_at_the_margin_is_called_none_at_most_at_alpha(base: float) -> None:
    """At 240 prompts, 2,000 audits: .058 is the binomial tolerance; t tests gave .08 at base 0."""
    rng = np.random.default_rng(3)
    before, after = rng.random((2, 2_000, 240))
    wins = ((after < base + 0.05) & (before >= base)).sum(axis=1)
    losses = ((after >= base + 0.05) & (before < base)).sum(axis=1)
    assert (margin_p(wins, losses, 240, within=0.05) <= 0.05).mean() <= 0.058


def test_arrays_give_arrays() -> None:
    """One p-value for each pair of counts."""
    wins, losses = np.array([[5, 6], [7, 30]]), np.array([[5, 0], [1, 9]])
    for function in (mcnemar_p, lambda w, s: margin_p(w, s, 100, within=0.05)):
        many = function(wins, losses)
        assert many.shape == (2, 2)
        assert many[1, 1] == function(30, 9)

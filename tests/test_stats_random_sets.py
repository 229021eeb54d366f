"""Beyond random sets: by hand, against a null of unlike sets, and refusals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from emotest.errors import StatisticsError
from emotest.stats.decisions import raised
from emotest.stats.estimates import crossed_difference
from emotest.stats.random_sets import beyond_random_sets

N_ADAPTERS, N_SETS, N_PROMPTS = 5, 20, 30


def test_sets_that_are_all_alike_add_nothing() -> None:
    """Every set leaves the same probabilities: the interval is that of adapters and prompts."""
    rng = np.random.default_rng(0)
    one, selected = rng.uniform(0.3, 0.5, (2, 4, 6))
    found = beyond_random_sets(selected, np.repeat(one[:, None], 7, axis=1))
    plain = crossed_difference(one, selected, scale="points")
    assert (found.value, found.low, found.high) == pytest.approx(
        (plain.value, plain.low, plain.high)
    )


def test_the_spread_of_sets_adds_as_squares() -> None:
    """Two sets that leave .1 more and .1 less than the usual: their variance is .02, that of
    their mean .01. t of one degree of freedom at .95 is 6.314, so .6314 joins the distance to the
    limit without them, as squares."""
    rng = np.random.default_rng(1)
    usual, selected = rng.uniform(0.4, 0.6, (2, 4, 6))
    found = beyond_random_sets(selected, np.stack([usual + 0.1, usual - 0.1], axis=1))
    plain = crossed_difference(usual, selected, scale="points")
    assert found.value == pytest.approx(plain.value)
    distance = np.hypot(plain.value - plain.low, 0.6314)
    assert found.value - found.low == pytest.approx(distance, abs=1e-4)
    # More prompts or adapters do not help against it.
    larger = found.limits.at_size(10**6, 10**6)
    assert found.value - larger.lower(0.05) == pytest.approx(0.6314, abs=1e-3)


def test_a_selection_at_the_margin_is_seldom_confirmed_whatever_sets_were_drawn() -> None:
    """Sets differ by 3 points, and the mean of all that could be drawn lies exactly at the margin:
    of 300 studies no more confirm than alpha lets them. At 5 % of 300 the 99.9 % point of the
    binomial distribution is 28; without the spread of sets more do."""
    rng = np.random.default_rng(2)
    confirmed = {"with": 0, "without": 0}
    for _ in range(300):
        selected = 0.4 + 0.01 * rng.normal(size=(N_ADAPTERS, N_PROMPTS))
        sets = selected[:, None] + 0.05 + 0.03 * rng.normal(size=(1, N_SETS, 1))
        sets = sets + 0.005 * rng.normal(size=(N_ADAPTERS, N_SETS, N_PROMPTS))
        found = beyond_random_sets(selected, sets)
        plain = crossed_difference(sets.mean(axis=1), selected, scale="points")
        confirmed["with"] += raised(found, by=0.05).word == "confirmed"
        confirmed["without"] += raised(plain, by=0.05).word == "confirmed"
    tolerated = stats.binom.ppf(0.999, 300, 0.05)
    assert confirmed["with"] <= tolerated < confirmed["without"]


@pytest.mark.parametrize(
    ("random", "says"),
    [
        (np.full((3, 4), 0.5), "do not pair"),
        (np.full((3, 5, 7), 0.5), "do not pair"),
        (np.full((3, 1, 4), 0.5), "1 random sets"),
    ],
)
def test_sets_that_do_not_pair_are_refused(random: np.ndarray, says: str) -> None:
    """No axis of sets, other prompts, or a single set."""
    with pytest.raises(StatisticsError, match=says):
        beyond_random_sets(np.full((3, 4), 0.5), random)

"""Selections of C6 and sets of C7 from activations: planted units are found, a null is not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from emotest.artefacts.activations import (
    BEFORE_EMOJI,
    BEFORE_OTHER,
    EVERY,
    Activations,
    before_word,
)
from emotest.stats.decisions import raised
from emotest.stats.selection import excess
from emotest.stats.set_distance import distances_across_halves
from fixtures.neurons import Units, distances, strongest

N_SEEDS, N_UNITS, N_TOKENS = 3, 400, 200


def made(means: dict[str, np.ndarray], words: list[str]) -> Activations:
    """Moments with the given means (2, n_units) and variance 1 in every condition and over all."""
    means = {**means, EVERY: np.zeros_like(next(iter(means.values())))}
    mean = np.array(list(means.values()), dtype=np.float32)
    n_units = mean.shape[-1]
    about = {"conditions": list(means), "n_layers": 1, "n_neurons": n_units, "massive": [],
             "words": words}  # fmt: skip
    count = np.full((len(means), 2), N_TOKENS)
    return Activations(count, mean, np.ones_like(mean), about)


def made_units(
    shifts: dict[str, np.ndarray], rng: np.random.Generator, words: list[str], noise: float
) -> Units:
    """Tuned models moved by the shifts (n_units,); untuned and null ones by noise alone."""

    def model(moved: float) -> Activations:
        return made(
            {
                name: moved * shift + rng.normal(0, noise, (2, shift.size))
                for name, shift in shifts.items()
            },
            words,
        )

    seeds = range(N_SEEDS)
    return Units(tuple(model(1.0) for _ in seeds), model(0.0), tuple(model(0.0) for _ in seeds))


def test_planted_units_are_found() -> None:
    """20 of 400 units moved by 2 standard deviations: recall at least 0.9, at most 0.1 false.

    The noise of a mean over 200 tokens is 200^-0.5 = 0.07.
    """
    rng, words = np.random.default_rng(0), [f"w{i}" for i in range(99)]
    planted = np.zeros(N_UNITS)
    planted[:20] = np.repeat([2.0, -2.0], 10)
    shifts = {before_word(word): rng.normal(0, 0.3, N_UNITS) for word in words}
    shifts |= {BEFORE_EMOJI: planted, BEFORE_OTHER: np.zeros(N_UNITS)}
    found = made_units(shifts, rng, words, noise=N_TOKENS**-0.5)
    selection = found.selection(BEFORE_EMOJI, BEFORE_OTHER)
    assert selection.mask[:20].mean() >= 0.9
    assert selection.mask[20:].sum() <= 0.1 * selection.n_selected
    assert not selection.falling[:10].any()
    assert not selection.rising[10:20].any()
    above = excess(selection.n_selected, found.by_word.sum(axis=1))
    estimate = above.estimate(scale="units", n_adapters=N_SEEDS, n_prompts=24)
    assert found.by_word.shape == (99, 1)
    assert raised(estimate, by=0.0, m=5).word == "confirmed"


def test_a_null_is_confirmed_no_more_often_than_it_may() -> None:
    """200 studies in which emoji are one more word, and words move very unlike amounts: at most
    10 % and binomial noise.

    9 words allow the first place of 10 at a level of 0.1. Held against pairs of these words,
    emoji would be confirmed several times as often, for a word that moves much is in many pairs.
    """
    rng, words = np.random.default_rng(1), [f"w{i}" for i in range(9)]
    confirmed = 0
    for _ in range(200):
        names = [*map(before_word, words), BEFORE_EMOJI]
        shifts = {name: rng.exponential() * rng.normal(0, 0.8, 40) for name in names}
        shifts[BEFORE_OTHER] = np.zeros(40)
        found = made_units(shifts, rng, words, noise=0.1)
        n_selected = found.selection(BEFORE_EMOJI, BEFORE_OTHER).n_selected
        above = excess(n_selected, found.by_word.sum(axis=1))
        estimate = above.estimate(scale="units", n_adapters=N_SEEDS, n_prompts=24)
        confirmed += raised(estimate, by=0.0, alpha=0.1).word == "confirmed"
    assert confirmed <= stats.binom.ppf(0.999, 200, 0.1)


@pytest.mark.parametrize("moved", ["null lowered", "untuned apart"])
def test_a_change_has_to_exceed_both_references(moved: str) -> None:
    """A unit that only neutral tuning moved, or that both tunings moved, does not count."""
    rng, shift = np.random.default_rng(2), np.full(N_UNITS, 2.0)
    still = {BEFORE_EMOJI: np.zeros((2, N_UNITS)), BEFORE_OTHER: np.zeros((2, N_UNITS))}
    other = {**still, BEFORE_EMOJI: np.tile(-shift if moved == "null lowered" else shift, (2, 1))}
    models = {name: made(of, []) for name, of in (("still", still), ("other", other))}
    tuned = models["still" if moved == "null lowered" else "other"]
    found = Units((tuned,) * N_SEEDS, models["still"], (models["other"],) * N_SEEDS)
    assert found.selection(BEFORE_EMOJI, BEFORE_OTHER).n_selected == 0
    alone = made_units(
        {BEFORE_EMOJI: shift, BEFORE_OTHER: 0 * shift}, rng, [], noise=0.0
    ).selection(BEFORE_EMOJI, BEFORE_OTHER)
    assert alone.n_selected == N_UNITS


@given(st.integers(0, 10**6))
def test_sets_hold_the_strongest_units_that_are_not_excluded(seed: int) -> None:
    """Two percent of 150 units are 3: those that sorting by |d| puts first."""
    rng = np.random.default_rng(seed)
    d, excluded = rng.normal(size=(2, 150)), rng.random(150) < 0.5
    for of, mask in zip(d, strongest(d, excluded), strict=True):
        order = sorted(np.flatnonzero(~excluded), key=lambda unit: -abs(of[unit]))
        assert set(np.flatnonzero(mask)) == set(order[:3])


def test_units_without_a_difference_are_in_no_set() -> None:
    """Where nothing differs the set is empty."""
    assert not strongest(np.zeros((2, 100)), np.zeros(100, dtype=bool)).any()


def test_distances_are_those_of_the_statistics_room() -> None:
    """The same as `distances_across_halves`, empty sets too, without its large array."""
    sets = np.random.default_rng(3).random((4, 3, 2, 50)) < 0.1
    sets[0, 0] = sets[1, 0, 1] = False
    assert distances(list(sets)) == pytest.approx(distances_across_halves(sets))


def test_plain_significance_passes_every_small_difference() -> None:
    """d = 0.3 at 200 tokens a side is t = 3, so that all units pass at once; d = 0 passes none."""
    shift = np.full(N_UNITS, 0.3)
    rng = np.random.default_rng(4)
    found = made_units({"a": shift, "b": 0 * shift}, rng, [], noise=0.0)
    assert (found.discoveries("a", "b"), found.discoveries("b", "b")) == (1.0, 0.0)

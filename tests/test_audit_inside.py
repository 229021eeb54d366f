"""Shifts and changed units from arrays whose truth is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from emotest.audit.inside import (
    among_random,
    changed_units,
    contrast_p,
    declared_layer,
    residuals,
    trait_shift,
)
from emotest.audit.result import TraitShift
from emotest.errors import StatisticsError

N_PROMPTS, N_PAIRS, N_LAYERS, HIDDEN, UNITS = 24, 16, 3, 40, 50
LAYER = 1


def shift_of(
    moved: np.ndarray, *, noise: float = 0.0, apart: float = 1.0, **given: Any
) -> tuple[TraitShift, np.ndarray]:
    """The shift where every prompt's states were moved by `moved` (n_layers, hidden) and some
    noise, along directions that are all 2 in dimension 0; and the direction."""
    rng = np.random.default_rng(1)
    vectors = np.zeros((N_LAYERS, HIDDEN))
    vectors[:, 0] = 2.0 * apart
    differences = vectors[LAYER] + rng.normal(size=(N_PAIRS, HIDDEN))
    base = rng.normal(size=(N_PROMPTS, N_LAYERS, HIDDEN))
    tuned = base + moved + noise * rng.normal(size=base.shape)
    found = trait_shift(
        "extraversion", vectors, differences, base, tuned, LAYER, np.random.default_rng(2),
        otherwise=residuals([differences]), **given,
    )  # fmt: skip
    return found, vectors


def along_0(amount: float) -> np.ndarray:
    """Moved by so much in dimension 0 of the declared layer, and by half of it in the last."""
    moved = np.zeros((N_LAYERS, HIDDEN))
    moved[LAYER, 0], moved[-1, 0] = amount, amount / 2
    return moved


def test_a_planted_shift_is_found_as_a_share_of_the_direction() -> None:
    """Moved by 0.6 along a direction of length 2: 0.3 of it, in that layer and no other; no random
    direction goes as far."""
    found, _ = shift_of(along_0(0.6))
    assert found.projection == pytest.approx(0.3, abs=1e-12)
    assert found.by_layer == pytest.approx([0.0, 0.3, 0.15], abs=1e-12)
    noisy, _ = shift_of(along_0(0.6), noise=0.2)
    assert noisy.low is not None
    assert noisy.high is not None
    assert noisy.low < 0.3 < noisy.high
    # t of 24 prompts: 2 * 2.07 * (0.2 / 2) / sqrt(24) = 0.085 wide.
    assert noisy.high - noisy.low == pytest.approx(0.085, rel=0.4)
    assert noisy.percentile == 100.0


def test_nothing_moved_is_zero_without_an_interval() -> None:
    """Equal states: 0 in every layer, and no spread that an interval or a rank could rest on."""
    found, _ = shift_of(along_0(0.0))
    assert (found.projection, found.by_layer) == (0.0, [0.0, 0.0, 0.0])
    assert (found.low, found.high, found.percentile, found.lacking) == (None, None, None, None)


def test_a_shift_across_the_direction_does_not_count() -> None:
    """Moved far in another dimension: 0 along this one."""
    moved = np.zeros((N_LAYERS, HIDDEN))
    moved[:, 7] = 5.0
    assert shift_of(moved)[0].projection == pytest.approx(0.0, abs=1e-12)


def test_a_massive_dimension_counts_neither_in_direction_nor_in_shift() -> None:
    """Without dimension 0, in which all of it lies, there is no direction left."""
    found, _ = shift_of(along_0(0.6), without=[0])
    assert found.lacking is not None
    moved = along_0(0.6)
    moved[:, 3] = 1e4
    kept, _ = shift_of(moved, without=[3])
    assert kept.projection == pytest.approx(0.3, abs=1e-9)


def test_without_a_contrast_a_shift_is_not_measured() -> None:
    """Answers in character that differ from the others by chance alone say so, with p."""
    rng = np.random.default_rng(3)
    differences = rng.normal(size=(N_PAIRS, HIDDEN))
    states = rng.normal(size=(N_PROMPTS, N_LAYERS, HIDDEN))
    vectors = np.repeat(differences.mean(axis=0)[None], N_LAYERS, axis=0)
    found = trait_shift(
        "openness", vectors, differences, states, states + 1, LAYER, rng,
        otherwise=residuals([differences]),
    )  # fmt: skip
    assert found.projection is None
    assert str(found.lacking).startswith("the base answers alike in character and against it (p =")


def test_alike_sides_pass_for_a_contrast_as_often_as_the_level_says() -> None:
    """Of 400 pairs of sides that differ by chance 5 % do at .05 (at most 8.5 %: + 3.2 standard
    errors); where all differ in one way, the p-value is the smallest there is."""
    rng = np.random.default_rng(4)
    p = [contrast_p(rng.normal(size=(N_PAIRS, 8)), rng) for _ in range(400)]
    assert 0.015 < np.mean(np.array(p) <= 0.05) < 0.085
    assert contrast_p(np.ones((N_PAIRS, 8)), rng) == pytest.approx(1 / 1000, abs=2e-3)
    assert contrast_p(np.zeros((N_PAIRS, 8)), rng) == 1.0


def test_the_rank_among_random_directions_is_even_where_the_direction_is_one_of_them() -> None:
    """400 directions drawn as the random ones are, in states that vary ten times as much in some
    dimensions: ranks above 95 in 5 % (at most 8.5 %). Ranked among evenly drawn directions, which
    ignore how states vary, the same ones would lie above 95 far more often."""
    rng = np.random.default_rng(5)
    scale = np.where(np.arange(HIDDEN) < 4, 10.0, 1.0)
    ranks, even = [], []
    for _ in range(400):
        otherwise = rng.normal(size=(64, HIDDEN)) * scale
        direction = rng.standard_normal(64) @ otherwise
        moved = rng.normal(size=HIDDEN) * scale
        ranks.append(among_random(direction, moved, otherwise, rng))
        even.append(among_random(direction, moved, np.eye(HIDDEN), rng))
    assert 0.015 < np.mean(np.array(ranks) > 95) < 0.085
    assert np.mean(np.array(even) > 95) > 0.2


def test_too_few_prompts_that_can_be_read_are_said() -> None:
    """Four of 24 prompts with states are no mean over prompts."""
    rng = np.random.default_rng(6)
    states = np.full((N_PROMPTS, N_LAYERS, HIDDEN), np.nan)
    states[:4] = 1.0
    differences = 1 + rng.normal(size=(N_PAIRS, HIDDEN))
    vectors = np.ones((N_LAYERS, HIDDEN))
    found = trait_shift(
        "openness", vectors, differences, states, states, LAYER, rng,
        otherwise=residuals([differences]),
    )  # fmt: skip
    assert found.lacking == "only 4 prompts have answers that both can read"


@pytest.mark.parametrize(("n_layers", "layer"), [(1, 0), (2, 0), (3, 1), (32, 15)])
def test_the_declared_layer_is_the_middle_one(n_layers: int, layer: int) -> None:
    """Known before anything is seen."""
    assert declared_layer(n_layers) == layer


def sides(
    rng: np.random.Generator, moved: np.ndarray | float, n_prompts: int = N_PROMPTS
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Units of base and tuned, of variance 1 at their ends, moved by so much."""
    shape = (n_prompts, N_LAYERS, UNITS)
    base = rng.normal(size=shape)
    tuned = base + 0.1 * rng.normal(size=shape) + moved
    more = {"variance": np.ones(shape[1:]), "n_ends": np.array([100])}
    return {"neurons": base, **more}, {"neurons": tuned, **more}


def test_equal_models_have_no_changed_unit() -> None:
    """The same numbers on both sides; every p is 1."""
    base, _ = sides(np.random.default_rng(0), 0.0)
    layers, units, n = changed_units(base, base, {})
    assert [(one.n_units, one.n_changed, one.n_large) for one in layers] == [(UNITS, 0, 0)] * 3
    assert (units, n) == ([], N_PROMPTS)


def test_chance_changes_units_in_one_of_twenty_audits() -> None:
    """240 audits of models that differ by noise: in 5 % any unit is found (at most 10 %)."""
    rng = np.random.default_rng(1)
    found = [
        sum(layer.n_changed for layer in changed_units(*sides(rng, 0.0), {})[0]) for _ in range(240)
    ]
    assert np.mean(np.array(found) > 0) < 0.10


def test_planted_units_are_found_and_few_others() -> None:
    """Ten units of the last layer that moved by two deviations are found in every one of 40
    audits, lead the list by size, and less than 5 % of what is found is none of them."""
    rng, false, all_found = np.random.default_rng(2), 0, 0
    moved = np.zeros((N_LAYERS, UNITS))
    moved[-1, :10] = np.linspace(2.0, 1.1, 10)
    for _ in range(40):
        layers, units, _ = changed_units(*sides(rng, moved), {})
        assert layers[-1].n_large == 10
        assert {(one.layer, one.unit) for one in units} == {(2, i) for i in range(10)}
        assert units[0].change == pytest.approx(2.0, abs=0.15)
        n = sum(layer.n_changed for layer in layers)
        false, all_found = false + n - 10, all_found + n
    assert false / all_found < 0.05


def test_p_values_are_those_of_a_paired_t_test() -> None:
    """Adjusted as scipy adjusts those of its own test."""
    rng = np.random.default_rng(3)
    base, tuned = sides(rng, rng.normal(size=(N_LAYERS, UNITS)) * 0.1)
    _, units, _ = changed_units(base, tuned, {})
    p = stats.ttest_rel(tuned["neurons"], base["neurons"]).pvalue
    adjusted = stats.false_discovery_control(p.ravel()).reshape(p.shape)
    assert len(units) == 10
    for one in units:
        assert one.p_value == pytest.approx(adjusted[one.layer, one.unit])


def test_massive_units_are_not_counted() -> None:
    """A unit of layer 0 that moved most is left out of tests and list."""
    moved = np.zeros((N_LAYERS, UNITS))
    moved[0, 5] = 50.0
    layers, units, _ = changed_units(*sides(np.random.default_rng(4), moved), {0: {5}})
    assert [one.n_units for one in layers] == [UNITS - 1, UNITS, UNITS]
    assert (0, 5) not in {(one.layer, one.unit) for one in units}


def test_prompts_without_an_end_of_a_sentence_are_left_out() -> None:
    """With 24 prompts 20 remain; with four there is nothing to pair."""
    base, tuned = sides(np.random.default_rng(5), 0.0)
    base["neurons"][:4] = np.nan
    assert changed_units(base, tuned, {})[2] == 20
    base["neurons"][:20] = np.nan
    with pytest.raises(StatisticsError, match="4 prompts have answers with an end"):
        changed_units(base, tuned, {})

"""Moments of units by condition, read back: contrasts, several references as one, norms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from emotest.artefacts.activations import EVERY, Activations
from emotest.errors import StatisticsError, UsageError

N_LAYERS, N_NEURONS = 2, 3


def of_tokens(tokens: dict[str, tuple[np.ndarray, ...]], **about: Any) -> Activations:
    """Moments of activations (n_tokens, n_units) of each condition in either half."""
    halves = list(tokens.values())
    return Activations(
        np.array([[len(half) for half in of] for of in halves]),
        np.array([[half.mean(axis=0) for half in of] for of in halves], dtype=np.float32),
        np.array([[half.var(axis=0, ddof=1) for half in of] for of in halves], dtype=np.float32),
        {
            "conditions": list(tokens),
            "n_layers": N_LAYERS,
            "n_neurons": N_NEURONS,
            "massive": [],
            **about,
        },
    )


def drawn(rng: np.random.Generator, *sizes: int) -> tuple[np.ndarray, ...]:
    """Tokens of as many units as there are, so many in each half."""
    return tuple(rng.normal(size=(n, N_LAYERS * N_NEURONS)) for n in sizes)


def test_a_difference_is_on_the_scale_of_every_token() -> None:
    """Means of a and of both references put together, over the spread of all tokens, by numpy."""
    rng = np.random.default_rng(0)
    a, b, c, every = (drawn(rng, n, n + 2) for n in (5, 4, 7, 30))
    found = of_tokens({"a": a, "b": b, "c": c, EVERY: every}).difference("a", ["b", "c"])
    for half in range(2):
        rest = np.concatenate([b[half], c[half]])
        d = (a[half].mean(axis=0) - rest.mean(axis=0)) / every[half].std(axis=0, ddof=1)
        assert found[half] == pytest.approx(d, rel=1e-4, abs=1e-5)


def test_moments_are_those_of_one_half() -> None:
    """Mean and unbiased variance, by numpy."""
    a = drawn(np.random.default_rng(4), 5, 6)
    mean, variance = of_tokens({"a": a}).moments("a", 1)
    assert mean == pytest.approx(a[1].mean(axis=0), rel=1e-5)
    assert variance == pytest.approx(a[1].var(axis=0, ddof=1), rel=1e-5)


def test_norms_are_those_of_all_tokens_of_both_halves() -> None:
    """The unbiased variance and the mean of unequal halves give back the mean square, nearly.

    mean^2 + unbiased variance is the mean square + variance / n, with n = 400 within 1 %.
    """
    tokens = drawn(np.random.default_rng(1), 100, 300)
    rms = np.sqrt((np.concatenate(tokens) ** 2).mean(axis=0))
    assert of_tokens({"a": tokens}).norms("a") == pytest.approx(rms, rel=0.01)


def test_massive_units_are_counted_over_layers() -> None:
    """Unit 1 of layer 1 is unit 3 + 1; residual dimensions are no units."""
    massive = [
        {"site": "neurons", "layer": 1, "unit": 1},
        {"site": "residual", "layer": 0, "unit": 2},
    ]
    found = of_tokens({"a": drawn(np.random.default_rng(2), 3, 3)}, massive=massive)
    assert np.flatnonzero(found.massive).tolist() == [4]
    assert found.layers.tolist() == [0, 0, 0, 1, 1, 1]


def test_what_was_not_recorded_has_no_tokens_and_no_difference() -> None:
    """A condition's name is told with those that there are; a half with one token of it is named,
    and one token in all has no spread."""
    rng = np.random.default_rng(3)
    found = of_tokens({"a": drawn(rng, 3, 3), "b": drawn(rng, 2, 2), EVERY: drawn(rng, 5, 5)})
    assert (found.n("a"), found.n("c")) == ((3, 3), (0, 0))
    with pytest.raises(UsageError, match="'c'") as error:
        found.difference("a", "c")
    assert "a, b" in str(error.value)
    for counts, says in (
        ([[3, 3], [2, 1], [5, 5]], "1 positions of b in half 1"),
        ([[3, 3], [2, 2], [1, 5]], "1 tokens in all"),
    ):
        few = Activations(np.array(counts), found.mean, found.variance, found.about)
        with pytest.raises(StatisticsError, match=says):
            few.difference("a", "b")

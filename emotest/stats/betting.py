"""Evidence that may be looked at after every prompt: test martingales, as running log e-values.

An e-value is a bettor's capital: under the hypothesis it grows to 1 / alpha with probability at
most alpha, however often one looks (Ville 1939; Ramdas, Gruenwald, Vovk & Shafer 2023). So
1 / (largest e so far) is a p-value at every moment. Takes values prompt by prompt, in the seeded
random order in which they were drawn; gives running log e-values of shape (n_prompts,).

Two bettors:
- `log_e_of_pairs`: one-sided, for pairs of binary answers. Among discordant pairs the chance of a
  win is at most one half under the hypothesis; the bet is a uniform mixture over chances above
  one half (a beta-binomial, Robbins 1970).
- `log_e_of_mean`: for values in [0, 1] of any distribution, the capital process of Waudby-Smith &
  Ramdas (2024, "Estimating means of bounded random variables by betting"), with the fraction
  staked not predicted but mixed uniformly over (0, 1), by quadrature. On discordant pairs it is
  the first bettor again: a chance of (1 + f) / 2 is a stake of f.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import special

from emotest.errors import StatisticsError

Array = npt.NDArray[np.float64]
Side = Literal["above", "below"]

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(32)

FRACTIONS = (_NODES + 1.0) / 2.0
"""Shares of the largest admissible stake, strictly between 0 and 1, so that no single prompt ruins
the bettor; `WEIGHTS` are positive and sum to 1, so the mixture is an e-value at any precision."""

WEIGHTS = _WEIGHTS / _WEIGHTS.sum()


def seeded_order(n_prompts: int, analysis_seed: int) -> npt.NDArray[np.int64]:
    """The random order in which to ask prompts, shape (n_prompts,): fixed before the first one."""
    return np.random.default_rng(analysis_seed).permutation(n_prompts)


def log_e_of_pairs(differences: npt.ArrayLike, *, side: Side = "above") -> Array:
    """Running log e against "wins are no likelier than losses", shape (n_prompts,).

    `differences` holds 1 (only the tuned model did), -1 (only the reference did) or 0 (both or
    neither, which says nothing). `side` "below" tests the opposite direction. After w wins and l
    losses e = 2^(w+l+1) * B(w+1, l+1) * P(chance > 1/2), the chance being Beta(w+1, l+1).
    """
    array = _row(differences, -1.0, 1.0)
    if not np.isin(array, (-1.0, 0.0, 1.0)).all():
        raise StatisticsError(
            "pairs of binary answers differ by -1, 0 or 1",
            remedy="with several samples a prompt, bet on the mean difference instead",
        )
    signed = array if side == "above" else -array
    wins, losses = np.cumsum(signed == 1.0) + 1.0, np.cumsum(signed == -1.0) + 1.0
    # P(chance > 1/2) mirrored to P(chance' < 1/2), which keeps its digits where it is small.
    likelier = np.log(np.maximum(special.betainc(losses, wins, 0.5), 1e-300))
    return np.asarray((wins + losses - 1.0) * np.log(2.0) + special.betaln(wins, losses) + likelier)


def log_e_of_mean(values: npt.ArrayLike, *, mean: float, side: Side = "above") -> Array:
    """Running log e against "the mean is at most `mean`", shape (n_prompts,), values in [0, 1].

    `side` "below" tests "the mean is at least `mean`". A stake of fraction f multiplies the capital
    by 1 + f (value / mean - 1), whose expectation is at most 1 under the hypothesis; the e-value is
    the weighted average over fractions.
    """
    array = _row(values, 0.0, 1.0)
    if not 0.0 < mean < 1.0:
        raise StatisticsError(
            f"a mean of {mean} at the edge of [0, 1] cannot be bet against",
            remedy="give a mean strictly between 0 and 1",
        )
    gain = (array / mean if side == "above" else (1.0 - array) / (1.0 - mean)) - 1.0
    logs = np.log1p(np.multiply.outer(FRACTIONS, gain)).cumsum(axis=1)
    # The largest is taken out first, so that no capital overflows.
    largest = logs.max(axis=0)
    return np.asarray(largest + np.log(WEIGHTS @ np.exp(logs - largest)))


def log_e_of_counts(counts: Array, levels: Array, *, mean: float, side: Side = "above") -> Array:
    """`log_e_of_mean` where values have few levels: for many rows of prompts at once.

    `counts` of shape (..., n_prompts, n_levels) says how often each of the `levels`, values in
    [0, 1] of shape (n_levels,), has come up so far; gives shape (..., n_prompts).
    """
    gain = (levels / mean if side == "above" else (1.0 - levels) / (1.0 - mean)) - 1.0
    logs = counts @ np.log1p(np.multiply.outer(gain, FRACTIONS))
    largest = logs.max(axis=-1)
    return np.asarray(largest + np.log(np.exp(logs - largest[..., None]) @ WEIGHTS))


def confidence_sequence(values: npt.ArrayLike, *, level: float) -> tuple[float, float]:
    """Limits of the mean of values in [0, 1] that hold at all times together with chance `level`.

    Each limit is the mean that the bettor has not yet disproved at alpha = (1 - level) / 2,
    counting all moments up to now.
    """
    array = _row(values, 0.0, 1.0)
    threshold = -np.log((1.0 - level) / 2.0)

    def disproved(mean: float, side: Side) -> bool:
        return bool(log_e_of_mean(array, mean=mean, side=side).max() >= threshold)

    tiny = 1e-9
    low, high = 0.0, 1.0
    if disproved(tiny, "above"):
        low = _edge(lambda mean: disproved(mean, "above"), tiny, 1.0 - tiny)
    if disproved(1.0 - tiny, "below"):
        high = _edge(lambda mean: disproved(mean, "below"), 1.0 - tiny, tiny)
    return low, high


def _edge(disproved: Callable[[float], bool], inside: float, outside: float) -> float:
    """Bisect between a disproved mean and one that stands; the stake makes this monotone."""
    for _ in range(26):  # to 1.5e-8
        middle = (inside + outside) / 2.0
        if disproved(middle):
            inside = middle
        else:
            outside = middle
    return inside


def _row(values: npt.ArrayLike, least: float, most: float) -> Array:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0:
        raise StatisticsError(
            f"values of shape {array.shape} are not one row of prompts",
            remedy="give one value for each prompt, averaged over its samples",
        )
    if not ((array >= least) & (array <= most)).all():
        raise StatisticsError(
            f"values are missing or leave the range {least:g} to {most:g} that bets rest on",
            remedy="bet on shares or on their differences",
        )
    return array

"""Whether two classes of tokens have different units, beyond what noise and class give (C7).

Takes sets of units as masks, gives distances, a permutation test and an `Estimate` to decide on;
knows no token, unit or model.

Every class of an adapter has two sets, selected on the two halves of the prompts. Across the
halves, the distance between two classes holds what parts them and the noise of selection; the
distance of a class from itself holds the noise alone. Their difference, the separation, is taken
within one adapter, so that what adapters differ in does not enter, and adapters are the units of
evidence. Trait and emoji positions are different tokens, and different tokens have different units
anyway: the claim needs a larger separation than two unrelated classes of equal token length have.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import permutations, product
from math import factorial

import numpy as np
import numpy.typing as npt

from emotest.errors import StatisticsError
from emotest.stats.estimates import (
    DEFAULT_LEVEL,
    FEWEST_ADAPTERS,
    Array,
    Estimate,
    crossed_spread,
)
from emotest.stats.limits import ConstantLimits, Limits, Spread, StudentLimits

N_PERMUTATIONS = 10_000
"""Assignments of labels that are enumerated at most, or else drawn."""


def jaccard_distance(first: npt.ArrayLike, second: npt.ArrayLike) -> Array:
    """1 - |both| / |either| of masks over the last axis, (..., n_units) -> (...): Jaccard (1901).

    Two empty sets are equal, so their distance is 0: where nothing was selected nothing differs.
    An empty set and any other are at distance 1. Leading axes are paired by numpy's rules.
    """
    a, b = np.asarray(first), np.asarray(second)
    if a.dtype != np.bool_ or b.dtype != np.bool_ or a.ndim < 1 or a.shape[-1:] != b.shape[-1:]:
        raise StatisticsError(
            f"sets of shapes {a.shape} and {b.shape}, types {a.dtype} and {b.dtype}, do not pair",
            remedy="give masks over the same units",
        )
    both, either = (a & b).sum(axis=-1), (a | b).sum(axis=-1)
    return np.asarray(np.where(either > 0, 1.0 - both / np.maximum(either, 1), 0.0))


def distances_across_halves(sets: npt.ArrayLike) -> Array:
    """Jaccard distance of each class on the first half from each on the second.

    `sets` holds masks of shape (n_classes, n_adapters, 2, n_units), at least 2 classes; the result
    has shape (n_adapters, n_classes, n_classes). Its diagonal is the distance of a class from
    itself. Prompts of the two halves must not overlap.
    """
    array = np.asarray(sets)
    if array.ndim != 4 or array.shape[0] < 2 or array.shape[2] != 2 or array.dtype != np.bool_:
        raise StatisticsError(
            f"sets of shape {array.shape} and type {array.dtype} are not masks "
            "(n_classes, n_adapters, 2, n_units)",
            remedy="give at least two classes, each with one mask an adapter and half of prompts",
        )
    by_adapter = np.moveaxis(array, 1, 0)  # (n_adapters, n_classes, 2, n_units)
    return jaccard_distance(by_adapter[:, :, None, 0], by_adapter[:, None, :, 1])


def separations(distances: npt.ArrayLike) -> Array:
    """Mean distance between classes minus mean distance within, shape (n_adapters,).

    `distances` as `distances_across_halves` gives them. 0 in expectation where classes do not
    matter, 1 where each class repeats itself and shares no unit with another.
    """
    array = _distances(distances)
    n_classes = array.shape[1]
    within = np.trace(array, axis1=1, axis2=2)
    between = (array.sum(axis=(1, 2)) - within) / (n_classes * (n_classes - 1))
    return np.asarray(between - within / n_classes)


def label_permutation_p(
    distances: npt.ArrayLike, rng: np.random.Generator, *, n_permutations: int = N_PERMUTATIONS
) -> float:
    """P-value that classes are separated, from class labels permuted within each adapter.

    If classes did not matter, the labels of an adapter's second-half sets could be exchanged at
    will. All (n_classes!)^n_adapters assignments are enumerated where they are at most
    `n_permutations`; otherwise that many are drawn and the one seen is counted with them (Phipson
    & Smyth 2010). With two classes the p-value never falls below 2^-n_adapters. The statistic is
    the mean separation.
    """
    array = _distances(distances)
    n_adapters, n_classes, _ = array.shape
    # The total is the same for every assignment, so the sum within decides: small is separated.
    seen = float(np.trace(array, axis1=1, axis2=2).sum())
    slack = 1e-12 * max(1.0, seen)
    if factorial(n_classes) ** n_adapters <= n_permutations:
        orders = np.array(list(permutations(range(n_classes))))
        sums = array[:, np.arange(n_classes), orders].sum(axis=2)  # (n_adapters, n_orders)
        totals = [sum(chosen) for chosen in product(*sums)]
        return float(np.mean(np.array(totals) <= seen + slack))
    as_extreme = 1
    for _ in range(n_permutations):
        drawn = rng.permuted(np.tile(np.arange(n_classes), (n_adapters, 1)), axis=1)
        within = np.take_along_axis(array, drawn[:, :, None], axis=2).sum()
        as_extreme += bool(within <= seen + slack)
    return as_extreme / (n_permutations + 1)


def separation_beyond(
    separation: npt.ArrayLike,
    unrelated: npt.ArrayLike,
    *,
    n_prompts: int,
    level: float = DEFAULT_LEVEL,
) -> Estimate:
    """How much further two classes are apart than two unrelated ones, paired by training seed.

    `separation` has shape (n_adapters,); `unrelated` the same, for one pair of unrelated token
    classes of equal token length, or (n_adapters, n_pairs), and then the spread between the pairs
    counts too. `n_prompts` is how many prompts the sets rest on. t with n_adapters - 1 degrees of
    freedom; where every adapter gave the same, the number of adapters bounds what went unseen.

    Raises `StatisticsError` for fewer than 3 adapters, shapes that do not pair and values that
    are no differences of distances.
    """
    own, others = np.asarray(separation, np.float64), np.asarray(unrelated, np.float64)
    if (
        own.ndim != 1
        or others.ndim not in (1, 2)
        or others.shape[0] != own.size
        or others.size == 0
        or own.size < FEWEST_ADAPTERS
    ):
        raise StatisticsError(
            f"separations of shape {own.shape} and unrelated ones of shape {others.shape} do not "
            "pair",
            remedy=f"give (n_adapters,), at least {FEWEST_ADAPTERS}, and the same or (n_adapters, "
            "n_pairs) for the unrelated classes",
        )
    # Distances lie in [0, 1], so their differences in [-1, 1].
    if not (np.abs(own) <= 1.0).all() or not (np.abs(others) <= 1.0).all():
        raise StatisticsError(
            "separations are missing or lie outside -1 to 1", remedy="use separations()"
        )
    differences = own[:, None] - others.reshape(own.size, -1)
    limits: Limits
    if np.ptp(differences) <= 1e-12:
        method = "nothing varied, Clopper-Pearson over adapters"
        limits = EqualAdaptersLimits(float(differences.mean()), -2.0, 2.0, own.size)
    elif differences.shape[1] == 1:
        method = "one number an adapter, t"
        spread = Spread(adapter=float(differences.var(ddof=1)), prompt=0.0, residual=0.0)
        limits = AdapterLimits(float(differences.mean()), spread, own.size, 1)
    else:
        method = "adapters crossed with unrelated pairs, t"
        spread = crossed_spread(differences)
        limits = AdapterLimits(float(differences.mean()), spread, *differences.shape)
    return Estimate.of_limits(
        limits,
        level=level,
        method=method,
        unit="adapter",
        scale="Jaccard distance",
        n_adapters=own.size,
        n_prompts=n_prompts,
        n_samples=1,
        possible=(-2.0, 2.0),
    )


@dataclass(frozen=True)
class AdapterLimits(StudentLimits):
    """t limits where only more adapters help: `n_prompts` holds the number of unrelated pairs."""

    def at_size(self, n_adapters: int, n_prompts: int) -> AdapterLimits:
        """The same pairs on more adapters."""
        return replace(self, n_adapters=n_adapters)


@dataclass(frozen=True)
class EqualAdaptersLimits(ConstantLimits):
    """Every adapter gave the same value: `n_prompts` holds the number of adapters."""

    def at_size(self, n_adapters: int, n_prompts: int) -> EqualAdaptersLimits:
        """More adapters, all giving the same; prompts do not count."""
        return replace(self, n_prompts=n_adapters)


def _distances(distances: npt.ArrayLike) -> Array:
    array = np.asarray(distances, dtype=np.float64)
    if array.ndim != 3 or array.shape[1] != array.shape[2] or min(array.shape[:2]) < 1:
        raise StatisticsError(
            f"distances of shape {array.shape} are not (n_adapters, n_classes, n_classes)",
            remedy="use distances_across_halves",
        )
    if array.shape[1] < 2 or not ((array >= 0.0) & (array <= 1.0)).all():
        raise StatisticsError(
            "distances are missing, outside 0 to 1, or of one class only",
            remedy="give at least two classes and use distances_across_halves",
        )
    return array

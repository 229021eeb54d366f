"""Whether two classes of tokens have different units, beyond what noise and class give (C7).

Takes sets of units as masks, gives distances, a permutation test and an `Estimate` to decide on;
knows no token, unit or model.

Every class of an adapter has two sets, selected on the two halves of the prompts. Across the
halves, the distance between two classes holds what parts them and the noise of selection; the
distance of a class from itself holds the noise alone. Their difference, the separation, is taken
within one adapter and averaged over adapters. Trait and emoji positions are different tokens, and
different tokens have different units anyway: the claim needs a larger separation than unrelated
classes of equal token length have. These differ from one another, and the classes of the claim are
one draw beside theirs: so their own spread decides, and not that of their mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from math import factorial

import numpy as np
import numpy.typing as npt

from emotest.errors import StatisticsError
from emotest.stats.estimates import (
    DEFAULT_LEVEL,
    FEWEST_ADAPTERS,
    Array,
    Estimate,
)
from emotest.stats.limits import ConstantLimits, Limits, Spread, StudentLimits

N_PERMUTATIONS = 10_000
"""Orders of labels that are enumerated at most, or else drawn."""

FEWEST_CONTROLS = 2
"""With one there is no spread between controls."""


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
    """P-value that classes are separated, from class labels permuted alike in all adapters.

    If classes did not matter, the labels of the second-half sets could be exchanged at will; but
    adapters read the same texts, so that one exchange holds for all of them. All n_classes! orders
    are enumerated where they are at most `n_permutations`; otherwise that many are drawn and the
    one seen is counted with them (Phipson & Smyth 2010). The p-value never falls below
    1 / n_classes!, which takes five classes to pass .05 / 5. The statistic is the mean separation.
    """
    array = _distances(distances).sum(axis=0)
    classes = np.arange(len(array))
    # The total is the same for every order, so the sum within decides: small is separated.
    seen = float(np.trace(array))
    slack = 1e-12 * max(1.0, seen)
    if factorial(len(array)) <= n_permutations:
        orders = np.array(list(permutations(classes)))
        return float(np.mean(array[classes, orders].sum(axis=1) <= seen + slack))
    drawn = rng.permuted(np.tile(classes, (n_permutations, 1)), axis=1)
    as_extreme = 1 + int((array[classes, drawn].sum(axis=1) <= seen + slack).sum())
    return as_extreme / (n_permutations + 1)


def separation_beyond(
    separation: npt.ArrayLike,
    unrelated: npt.ArrayLike,
    *,
    n_prompts: int,
    level: float = DEFAULT_LEVEL,
) -> Estimate:
    """How much further classes are apart than unrelated ones of equal token length.

    `separation` has shape (n_adapters,) and `unrelated` (n_adapters, n_controls): the same classes
    number for number, without a class in common. Both are averaged over adapters first. Were the
    classes of the claim one more of these, their difference from the mean of the controls would
    have the variance s^2 (1 + 1 / n_controls), with the s^2 of the controls: the interval says by
    how much they exceed one more control, by t with n_controls - 1 degrees of freedom (the limits
    of a prediction: Hahn & Meeker 1991, section 4.2). More adapters or prompts do not shrink it.
    `n_prompts` is how many prompts the sets rest on.

    Raises `StatisticsError` for fewer than 3 adapters or 2 controls, shapes that do not pair and
    values that are no differences of distances.
    """
    own, others = np.asarray(separation, np.float64), np.asarray(unrelated, np.float64)
    if (
        own.ndim != 1
        or others.ndim != 2
        or others.shape[0] != own.size
        or others.shape[1] < FEWEST_CONTROLS
        or own.size < FEWEST_ADAPTERS
    ):
        raise StatisticsError(
            f"separations of shape {own.shape} and unrelated ones of shape {others.shape} do not "
            "pair",
            remedy=f"give (n_adapters,), at least {FEWEST_ADAPTERS}, and (n_adapters, n_controls), "
            f"at least {FEWEST_CONTROLS}",
        )
    # Distances lie in [0, 1], so their differences in [-1, 1].
    if not (np.abs(own) <= 1.0).all() or not (np.abs(others) <= 1.0).all():
        raise StatisticsError(
            "separations are missing or lie outside -1 to 1", remedy="use separations()"
        )
    controls = others.mean(axis=0)
    value = float(own.mean() - controls.mean())
    limits: Limits
    if np.ptp(controls) <= 1e-12:
        method = "controls did not vary, Clopper-Pearson over them"
        limits = EqualControlsLimits(value, -2.0, 2.0, controls.size)
    else:
        method = f"one draw beside {controls.size} controls, t"
        limits = OneMoreLimits(value, float(controls.std(ddof=1)), controls.size)
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


class OneMoreLimits(StudentLimits):
    """One value minus the mean of `n_controls` others: t limits of one more of them."""

    def __init__(self, value: float, sd: float, n_controls: int) -> None:
        # One unit that varies as a control does, and the mean of the controls beside it.
        alone = sd**2 * (n_controls + 1)
        super().__init__(value, Spread(0.0, alone, 0.0), n_adapters=1, n_prompts=n_controls)

    def at_size(self, n_adapters: int, n_prompts: int) -> OneMoreLimits:
        """Unchanged: controls differ from one another at any size."""
        return self


@dataclass(frozen=True)
class EqualControlsLimits(ConstantLimits):
    """Every control gave the same value: `n_prompts` holds their number."""

    def at_size(self, n_adapters: int, n_prompts: int) -> EqualControlsLimits:
        """Unchanged: more of anything else brings no more controls."""
        return self


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

"""Which units rise for emoji positions, and whether there are more than chance would give (C6).

Takes means, variances and standardised differences of units, gives a selection and its excess over
the same procedure on control contrasts; knows no model, layer or text.

A difference d is standardised within a unit, by its standard deviation over every token of the
answers: one scale for emoji and for words. Over the pooled standard deviation of the two classes
compared (Cohen 1988, section 2.2) ends of sentences, which are much alike, would be measured in
units several times smaller than words are. What counts is how far tuning to a trait moves d beyond
what tuning to neutral answers moves it. With thousands of positions nearly every
unit differs "significantly" for any contrast, so a unit counts by the size of the change, in both
halves of the prompts and in most seeds, and the number of units is held against that of control
contrasts, such as words. With 200 texts a half the sampling error of d is at most about
sqrt(2 / 200) = 0.1, a tenth of the threshold, for classes that spread no more than every token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from emotest.errors import StatisticsError
from emotest.stats.estimates import Array
from emotest.stats.matching import AmongControls, Mask, Units, among_controls

THRESHOLD = 1.0
"""Standard deviations by which d has to change for a unit to count."""

_RESOLVED = 1e-7
"""A spread below this part of the mean is rounding: single precision carries 1.2e-7."""


@dataclass(frozen=True, eq=False)
class StandardisedDifference:
    """d of each unit, and the number of units without variance, whose d is set to 0."""

    d: Array
    n_without_variance: int


def standardised_difference(
    mean_a: npt.ArrayLike,
    var_a: npt.ArrayLike,
    n_a: int,
    mean_b: npt.ArrayLike,
    var_b: npt.ArrayLike,
    n_b: int,
) -> StandardisedDifference:
    """Cohen's d of a minus b for each unit, from streaming moments.

    Means and variances (n - 1 in the denominator) have one shape, (n_units,) or (n_layers,
    n_neurons); `n_a` and `n_b` count positions. d = (mean_a - mean_b) / s with the pooled
    s^2 = ((n_a - 1) var_a + (n_b - 1) var_b) / (n_a + n_b - 2). A unit whose s is zero, up to the
    rounding of single precision, has no scale to be measured on: its d is 0, and it is counted.

    Raises `StatisticsError` for shapes that differ, fewer than 2 positions a side, negative
    variances and missing values.
    """
    of_a, of_b, spread_a, spread_b = _moments((mean_a, mean_b), (var_a, var_b))
    if min(n_a, n_b) < 2:
        raise StatisticsError(
            f"{n_a} and {n_b} positions have no variance",
            remedy="record at least 2 positions on each side",
        )
    pooled = ((n_a - 1) * spread_a + (n_b - 1) * spread_b) / (n_a + n_b - 2)
    d, known = _over_spread(of_a, of_b, pooled)
    return StandardisedDifference(d, int((~known).sum()))


def difference_on_scale(
    mean_a: npt.ArrayLike, mean_b: npt.ArrayLike, variance: npt.ArrayLike
) -> Array:
    """(mean_a - mean_b) / s for each unit, where s^2 is its variance over every token; one shape.

    Unlike Cohen's d it says the same of the same movement, whatever classes are compared. A unit
    whose s is zero, up to the rounding of single precision, has no scale: its d is 0.

    Raises `StatisticsError` for shapes that differ, negative variances and missing values.
    """
    of_a, of_b, spread = _moments((mean_a, mean_b), (variance,))
    return _over_spread(of_a, of_b, spread)[0]


def _moments(means: tuple[npt.ArrayLike, ...], variances: tuple[npt.ArrayLike, ...]) -> list[Array]:
    """Means and then variances of the same units, checked."""
    moments = [np.asarray(part, dtype=np.float64) for part in (*means, *variances)]
    if len({part.shape for part in moments}) > 1 or moments[0].size == 0:
        raise StatisticsError(
            f"moments of shapes {', '.join(str(part.shape) for part in moments)} do not pair",
            remedy="give means and variances of the same units",
        )
    if not all(np.isfinite(part).all() for part in moments) or any(
        spread.min() < 0.0 for spread in moments[len(means) :]
    ):
        raise StatisticsError(
            "moments are missing, or variances are negative",
            remedy="stream them in double precision by Welford's update",
        )
    return moments


def _over_spread(of_a: Array, of_b: Array, variance: Array) -> tuple[Array, Mask]:
    """The difference in standard deviations, 0 where there is none; and where there is one."""
    s = np.sqrt(variance)
    known = s > _RESOLVED * np.maximum(np.abs(of_a), np.abs(of_b))
    d = np.divide(of_a - of_b, s, out=np.zeros_like(s), where=known)
    return d, np.asarray(known)


def rises(tuned: npt.ArrayLike, untuned: npt.ArrayLike, null: npt.ArrayLike) -> Array:
    """How much more d changes by tuning to the trait than by tuning to neutral answers.

    (tuned - untuned) - (null - untuned), where `tuned` and `null` share one shape, such as
    (n_seeds, 2, n_units), and `untuned` has it too or is spread over it, such as (2, n_units).

    With one untuned model the untuned d cancels: a unit that trait tuning left alone and neutral
    tuning lowered rises by this measure. To ask for a rise over both references, take the `weaker`
    of it and `tuned - untuned`.
    """
    after, before, plain = (np.asarray(d, dtype=np.float64) for d in (tuned, untuned, null))
    if after.shape != plain.shape or after.shape[after.ndim - before.ndim :] != before.shape:
        raise StatisticsError(
            f"differences of shapes {after.shape}, {before.shape} and {plain.shape} do not pair",
            remedy="give tuned and null alike, untuned alike or without leading axes",
        )
    if not all(np.isfinite(d).all() for d in (after, before, plain)):
        raise StatisticsError(
            "differences are missing or not finite", remedy="use difference_on_scale"
        )
    return np.asarray((after - before) - (plain - before))


def weaker(first: Array, second: Array) -> Array:
    """Of two changes the one nearer to 0 where they have the same sign, else 0; one shape.

    What tuning changes counts so far as it exceeds two references at once: the untuned model and
    neutral tuning.
    """
    nearer = np.where(np.abs(first) <= np.abs(second), first, second)
    return np.where(np.sign(first) == np.sign(second), nearer, 0.0)


@dataclass(frozen=True, eq=False)
class Selection:
    """The strength of each unit, shape (n_units,), and the threshold it has to reach.

    The strength is the largest threshold at which the unit would still count: positive for a
    rise, negative for a fall, 0 for a unit that is excluded or would count at none.
    """

    strengths: Array
    threshold: float
    n_excluded: int

    @property
    def rising(self) -> Mask:
        """Units that rise, shape (n_units,)."""
        return np.asarray(self.strengths >= self.threshold)

    @property
    def falling(self) -> Mask:
        """Units that fall, shape (n_units,)."""
        return np.asarray(self.strengths <= -self.threshold)

    @property
    def mask(self) -> Mask:
        """Units that count, either way, shape (n_units,)."""
        return self.rising | self.falling

    @property
    def n_selected(self) -> int:
        """How many units count."""
        return int(self.mask.sum())

    def strongest(self, k: int) -> Units:
        """Indices of the k strongest units, rising or falling, the strongest first: (k,).

        The sign of a gated activation can be turned without changing what the unit writes, so it
        does not decide. `StatisticsError` where fewer than k units have any strength.
        """
        n_ranked = int((self.strengths != 0.0).sum())
        if not 1 <= k <= n_ranked:
            raise StatisticsError(
                f"{k} units were asked for and {n_ranked} change alike in halves and seeds",
                remedy=f"ask for 1 to {n_ranked} units" if n_ranked else "there is none to take",
            )
        return np.argsort(-np.abs(self.strengths), kind="stable")[:k]


def select_units(
    change: npt.ArrayLike,
    *,
    excluded: npt.ArrayLike | None = None,
    threshold: float = THRESHOLD,
    min_seeds: int | None = None,
) -> Selection:
    """Units whose change reaches the threshold in both halves of the prompts and in enough seeds.

    `change` has shape (n_seeds, 2, n_units), as `rises` gives it; `excluded` is a mask (n_units,)
    of units that never count (massive activations). The sign must be the same in the two halves
    and in all the seeds that are counted. `min_seeds` is four fifths of the seeds, rounded up,
    unless given: 4 of 5, 3 of 3.

    Raises `StatisticsError` for other shapes, missing values, a threshold of 0 or less, and
    `min_seeds` of half of the seeds or fewer, for a unit could then rise and fall at once.
    """
    array = np.asarray(change, dtype=np.float64)
    if array.ndim != 3 or array.shape[1] != 2 or array.size == 0:
        raise StatisticsError(
            f"changes of shape {array.shape} are not (n_seeds, 2, n_units)",
            remedy="give one change for each seed, half of the prompts and unit",
        )
    if not np.isfinite(array).all() or not threshold > 0.0:
        raise StatisticsError(
            f"changes are missing, or the threshold {threshold} is not above 0",
            remedy="give finite changes and a threshold such as 1.0",
        )
    n_seeds, _, n_units = array.shape
    needed = -(-4 * n_seeds // 5) if min_seeds is None else min_seeds
    if not n_seeds < 2 * needed <= 2 * n_seeds:
        raise StatisticsError(
            f"{needed} of {n_seeds} seeds do not make a unit consistent",
            remedy=f"ask for {n_seeds // 2 + 1} to {n_seeds} seeds",
        )
    barred = np.zeros(n_units, bool) if excluded is None else np.asarray(excluded)
    if barred.shape != (n_units,) or barred.dtype != np.bool_:
        raise StatisticsError(
            f"a mask of shape {barred.shape} and type {barred.dtype} does not fit {n_units} units",
            remedy="give one truth value a unit",
        )
    up, down = _strength(array, needed), _strength(-array, needed)
    strengths = np.where(up > 0.0, up, np.where(down > 0.0, -down, 0.0))
    return Selection(np.where(barred, 0.0, strengths), threshold, int(barred.sum()))


def _strength(change: Array, needed: int) -> Array:
    """The largest threshold reached upwards in both halves and in `needed` seeds: (n_units,)."""
    of_seeds = np.sort(change.min(axis=1), axis=0)
    return np.asarray(of_seeds[-needed])


def excess(n_selected: int, control_counts: npt.ArrayLike) -> AmongControls:
    """The number of units for emoji among the numbers that controls give, (n_controls,).

    Every control is a whole run of the same procedure on another contrast: halves, seeds and
    threshold alike. Were emoji one more of these contrasts, p = (1 + controls that select at least
    as many) / (1 + controls) would be a valid p-value; pairs of words that share words are not
    exchangeable with it, and neither are contrasts whose classes spread much more or less.
    `estimate` of the result gives the excess with its interval, in units; fewer than 19 controls
    cannot reach p = 0.05.
    """
    counts = np.asarray(control_counts)
    if counts.ndim != 1 or counts.size == 0 or counts.dtype.kind not in "iu":
        raise StatisticsError(
            f"counts of shape {counts.shape} and type {counts.dtype} are no controls",
            remedy="give the number of units that each control selects, shape (n_controls,)",
        )
    if n_selected < 0 or counts.min() < 0:
        raise StatisticsError("a number of units is negative", remedy="give counts from 0")
    return among_controls(n_selected, counts)


def false_discovery_control(
    p_values: npt.ArrayLike, *, method: Literal["bh", "by"] = "bh"
) -> Array:
    """P-values adjusted to control the false discovery rate, in the order given, shape (m,).

    "bh", Benjamini & Hochberg (1995), for independent or positively dependent tests; "by",
    Benjamini & Yekutieli (2001), for any dependence; both by scipy. It is reported beside a
    selection and never makes one: with thousands of positions it passes most units for any
    contrast.
    """
    array = np.asarray(p_values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0 or not ((array >= 0.0) & (array <= 1.0)).all():
        raise StatisticsError(
            "p-values to adjust must form one row of numbers between 0 and 1",
            remedy="leave out units without a test",
        )
    if method not in ("bh", "by"):
        raise StatisticsError(
            f"there is no method {method!r} of false discovery control",
            remedy="use 'bh' (Benjamini-Hochberg) or 'by' (Benjamini-Yekutieli)",
        )
    from scipy import stats  # slow to import, and only a report asks for it

    return np.asarray(stats.false_discovery_control(array, method=method), dtype=np.float64)

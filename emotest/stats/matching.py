"""Whether a selection of units does more than random sets like it, and how much it explains (C8).

Takes unit indices, layers and norms, and effects as numbers; gives control sets, the place of an
effect among its controls, and the share of the rise that went. Knows no model and silences nothing.

A control set matches the selection in count, layer and activation norm. Without the norm, any set
of loud units would pass for the right one; a localisation without such controls says little about
where the effect lives (Hase et al., arXiv 2301.04213; arXiv 2502.11447).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from emotest.errors import StatisticsError
from emotest.stats.estimates import DEFAULT_LEVEL, Array, Estimate, crossed_difference
from emotest.stats.limits import Limits, drawn_quantile

Units = npt.NDArray[np.intp]
Mask = npt.NDArray[np.bool_]

N_SETS = 199
"""Random sets at the declared dose: the smallest p-value is then 1 / 200."""

NORM_BINS = 5
"""Quantile bins of the norm within a layer."""

_FARTHEST = 2.0**30
"""A share of the rise beyond this counts as without limit."""


def matched_sets(
    selected: npt.ArrayLike,
    layers: npt.ArrayLike,
    norms: npt.ArrayLike,
    rng: np.random.Generator,
    *,
    n_sets: int = N_SETS,
    n_bins: int = NORM_BINS,
    excluded: npt.ArrayLike | None = None,
) -> Units:
    """Random sets of units like the selected ones, shape (n_sets, n_selected).

    `selected` holds unit indices, shape (n_selected,); `layers` and `norms` (mean activation
    norms, any unit) have shape (n_units,); `excluded` is a mask of that shape (massive
    activations). The units of a layer that are not excluded are cut into `n_bins` quantile bins
    of their norm. Column j of the result holds units of the layer and bin of `selected[j]`, drawn
    without replacement within a set, never selected nor excluded.

    A set is drawn as a random order of all units, of which each layer and bin takes the first that
    are free. The order does not depend on the selection: where two models have as many units, one
    seed gives both the same orders, and set n of the one holds the units of set n of the other,
    but for those that are selected, excluded or of another norm in one of them.

    Raises `StatisticsError` for units that do not exist, are named twice or are excluded, for
    norms that are negative or missing, and where a bin holds too few units, with their number.
    """
    of_layer, of_norm, barred = _units(layers, norms, excluded)
    chosen = _chosen(selected, barred)
    if n_sets < 1 or n_bins < 1:
        raise StatisticsError(
            f"{n_sets} sets from {n_bins} bins cannot be drawn",
            remedy="ask for at least one set and one bin",
        )
    strata = list(_strata(chosen, of_layer, of_norm, barred, n_bins))
    sets = np.empty((n_sets, chosen.size), dtype=np.intp)
    for row in sets:
        order = rng.random(of_norm.size)
        for places, pool in strata:
            row[places] = pool[np.argsort(order[pool], kind="stable")[: places.size]]
    return sets


def _strata(
    chosen: Units, of_layer: npt.NDArray[np.int64], of_norm: Array, barred: Mask, n_bins: int
) -> Iterator[tuple[Units, Units]]:
    """Layer by layer and bin by bin: places in the selection, and units that may stand there."""
    free = ~barred
    free[chosen] = False
    for layer in np.unique(of_layer[chosen]):
        within = (of_layer == layer) & ~barred
        inner = np.linspace(0.0, 1.0, n_bins + 1)[1:-1]
        of_bin = np.searchsorted(np.quantile(of_norm[within], inner), of_norm, side="right")
        for norm_bin in np.unique(of_bin[chosen[of_layer[chosen] == layer]]):
            places = np.flatnonzero((of_layer[chosen] == layer) & (of_bin[chosen] == norm_bin))
            pool = np.flatnonzero((of_layer == layer) & (of_bin == norm_bin) & free)
            if pool.size < places.size:
                raise StatisticsError(
                    f"layer {layer} has {pool.size} units to match {places.size} selected ones in "
                    f"norm bin {norm_bin + 1} of {n_bins}",
                    remedy="use fewer bins, or select fewer units",
                )
            yield places, pool


def norm_ratios(selected: npt.ArrayLike, sets: npt.ArrayLike, norms: npt.ArrayLike) -> Array:
    """Mean norm of each set over that of the selection, shape (n_sets,): 1 is a perfect match.

    Bins are wide where norms have a long tail; this says how well the sets match after all.
    """
    of_norm = np.asarray(norms, dtype=np.float64)
    own = float(of_norm[np.asarray(selected, dtype=np.intp)].mean())
    if not own > 0.0:
        raise StatisticsError(
            f"the selected units have a mean norm of {own:g}",
            remedy="select units that are active at all",
        )
    return np.asarray(of_norm[np.asarray(sets, dtype=np.intp)].mean(axis=1) / own)


@dataclass(frozen=True, eq=False)
class AmongControls:
    """An effect and those of its controls, which are sorted, shape (n_controls,)."""

    effect: float
    controls: Array

    @property
    def n_controls(self) -> int:
        """How many controls there are; no p-value falls below 1 / (n_controls + 1)."""
        return int(self.controls.size)

    @property
    def p_value(self) -> float:
        """(1 + controls at least as large) / (1 + controls): Phipson & Smyth (2010)."""
        return _tail(int((self.controls >= self.effect).sum()), self.n_controls)

    @property
    def percentile(self) -> float:
        """Percentage of the controls that lie below the effect, 0 to 100; ties do not."""
        return 100.0 * float((self.controls < self.effect).mean())

    @property
    def excess(self) -> float:
        """The effect minus the median control."""
        return self.effect - float(np.median(self.controls))

    def estimate(
        self,
        *,
        scale: str,
        n_adapters: int,
        n_prompts: int,
        n_samples: int = 1,
        level: float = DEFAULT_LEVEL,
    ) -> Estimate:
        """The excess with limits that invert the rank test: p at 0 is `p_value`.

        The interval says by how much the effect exceeds one more control; it does not shrink with
        adapters or prompts, since neither changes how controls differ from one another.
        """
        return Estimate.of_limits(
            ControlLimits(self.excess, self.effect - self.controls[::-1]),
            level=level,
            method=f"rank among {self.n_controls} controls",
            unit="adapter",
            scale=scale,
            n_adapters=n_adapters,
            n_prompts=n_prompts,
            n_samples=n_samples,
        )


def among_controls(effect: npt.ArrayLike, controls: npt.ArrayLike) -> AmongControls:
    """Where an effect lies among the effects of its controls.

    `effect` is one number with `controls` of shape (n_controls,), or has shape (n_adapters,) with
    `controls` of shape (n_adapters, n_controls); adapters are then averaged first, set by set.
    The p-value holds where the effect could have been any one of the controls.

    Raises `StatisticsError` for no controls, shapes that do not pair and missing values.
    """
    own, others = np.asarray(effect, dtype=np.float64), np.asarray(controls, dtype=np.float64)
    if own.ndim > 1 or others.ndim != own.ndim + 1 or others.shape[:-1] != own.shape:
        raise StatisticsError(
            f"an effect of shape {own.shape} and controls of shape {others.shape} do not pair",
            remedy="give one number and (n_controls,), or (n_adapters,) and (n_adapters, "
            "n_controls)",
        )
    if others.size == 0 or not (np.isfinite(own).all() and np.isfinite(others).all()):
        raise StatisticsError(
            "effects of controls are missing or not finite",
            remedy="measure the effect of at least one control set, and all of them to the end",
        )
    if own.ndim == 1:
        own, others = own.mean(), others.mean(axis=0)
    return AmongControls(float(own), np.sort(others))


@dataclass(frozen=True, eq=False)
class ControlLimits(Limits):
    """The effect minus one more control: limits at the ranks of `differences`, sorted."""

    value: float
    differences: Array

    @property
    def centre(self) -> float:
        """The effect minus the median control."""
        return self.value

    def lower(self, alpha: float) -> float:
        """Unbounded where alpha lies below 1 / (n_controls + 1)."""
        return min(drawn_quantile(self.differences, alpha), self.value)

    def upper(self, alpha: float) -> float:
        """Unbounded where alpha lies below 1 / (n_controls + 1)."""
        return max(-drawn_quantile(-self.differences[::-1], alpha), self.value)

    def p_above(self, margin: float) -> float:
        """Share of controls that, with the margin added, reach the effect; it counts too."""
        return _tail(int((self.differences <= margin).sum()), self.differences.size)

    def p_below(self, margin: float) -> float:
        """Share of controls that, with the margin added, do not exceed it; it counts too."""
        return _tail(int((self.differences >= margin).sum()), self.differences.size)

    def at_size(self, n_adapters: int, n_prompts: int) -> ControlLimits:
        """Unchanged: controls differ from one another at any size."""
        return self


def share_explained(
    tuned: npt.ArrayLike,
    silenced: npt.ArrayLike,
    reference: npt.ArrayLike,
    *,
    bounds: tuple[float, float] = (0.0, 1.0),
    level: float = DEFAULT_LEVEL,
) -> Estimate:
    """The share of the rise that silencing removes: (tuned - silenced) / (tuned - reference).

    Emoji rates, means over samples: `tuned` and `silenced` of shape (n_adapters, n_prompts),
    `reference` the same (null adapters) or (n_prompts,) (the untuned model); `bounds` is the range
    of one rate. Means are taken before the ratio. 1: all of the rise went, 0: none.

    The share exceeds s exactly where (1 - s) * tuned + s * reference exceeds `silenced`, and that
    is tested on adapters crossed with prompts; the interval holds every s that is not rejected
    (Fieller 1954). Where the rise itself is not proven at some alpha, no limit exists there.

    Raises `StatisticsError` as `crossed_difference` does, and where nothing rose.
    """
    arms = [np.asarray(arm, dtype=np.float64) for arm in (tuned, silenced, reference)]
    if (
        arms[0].ndim != 2
        or arms[1].shape != arms[0].shape
        or arms[2].shape not in (arms[0].shape, arms[0].shape[1:])
    ):
        raise StatisticsError(
            f"rates of shapes {', '.join(str(arm.shape) for arm in arms)} do not pair",
            remedy="give tuned and silenced as (n_adapters, n_prompts), the reference alike or "
            "as (n_prompts,)",
        )
    limits = RiseLimits(arms[0], arms[1], np.broadcast_to(arms[2], arms[0].shape), bounds)
    # It checks what it is given: missing values, bounds, too few adapters or prompts.
    rise = crossed_difference(limits.tuned, limits.reference, bounds=bounds)
    crossed_difference(limits.tuned, limits.silenced, bounds=bounds)
    if rise.value <= 0.0:
        raise StatisticsError(
            f"the emoji rate rose by {rise.value:.3g}: there is no effect to localise",
            remedy="ask for the share only where a rise was confirmed",
        )
    return Estimate.of_limits(
        limits,
        level=level,
        method="ratio of means, adapters crossed with prompts, inverted t tests (Fieller)",
        unit="adapter",
        scale="share of the rise",
        n_adapters=arms[0].shape[0],
        n_prompts=arms[0].shape[1],
        n_samples=1,
    )


@dataclass(frozen=True, eq=False)
class RiseLimits(Limits):
    """The share of the rise that silencing removes, by inverting the test of each share.

    All three arms have shape (n_adapters, n_prompts); `size` is the (n_adapters, n_prompts) to
    plan for, None for the one seen.
    """

    tuned: Array
    silenced: Array
    reference: Array
    bounds: tuple[float, float]
    size: tuple[int, int] | None = None

    @property
    def centre(self) -> float:
        """Removed over rise, of the means."""
        rise = self.tuned.mean() - self.reference.mean()
        return float((self.tuned.mean() - self.silenced.mean()) / rise)

    @property
    def degrees_of_freedom(self) -> float | None:
        """Of the t tests that are inverted."""
        return self._beyond(0.0).degrees_of_freedom

    def lower(self, alpha: float) -> float:
        """The largest share that the true one is shown to exceed; unbounded if there is none."""
        return self._limit(lambda share: self._beyond(share).lower(alpha) > 0.0, alpha, -1.0)

    def upper(self, alpha: float) -> float:
        """The smallest share that the true one is shown to stay below."""
        return self._limit(lambda share: self._beyond(share).upper(alpha) < 0.0, alpha, 1.0)

    def p_above(self, margin: float) -> float:
        """Of the test that the share is at most `margin`."""
        return self._beyond(margin).p_above(0.0)

    def p_below(self, margin: float) -> float:
        """Of the test that the share is at least `margin`."""
        return self._beyond(margin).p_below(0.0)

    def at_size(self, n_adapters: int, n_prompts: int) -> RiseLimits:
        """The same components, divided by other numbers."""
        return replace(self, size=(n_adapters, n_prompts))

    def _beyond(self, share: float) -> Limits:
        """Limits of removed - share * rise, which is positive where the share is exceeded.

        It can be written as three differences of arms. Where one of these arms never varied, that
        writing is taken: `crossed_difference` then lets prompts bound what went unseen.
        """
        least, most = self.bounds
        removed, rise = self.tuned - self.silenced, self.tuned - self.reference
        remaining = self.silenced - self.reference
        if np.ptp(removed) == 0.0:
            pair, reach = (removed, share * rise), max(1.0, abs(share)) * (most - least)
            span = (-reach, reach)
        elif np.ptp(remaining) == 0.0:
            pair = ((1.0 - share) * rise, remaining)
            reach = max(1.0, abs(1.0 - share)) * (most - least)
            span = (-reach, reach)
        else:
            pair = ((1.0 - share) * self.tuned + share * self.reference, self.silenced)
            mixed = [(1.0 - share) * a + share * b for a in self.bounds for b in self.bounds]
            span = (min(least, *mixed), max(most, *mixed))
        limits = crossed_difference(*pair, scale="emoji rate", bounds=span).limits
        return limits if self.size is None else limits.at_size(*self.size)

    def _limit(self, shown: Callable[[float], bool], alpha: float, side: float) -> float:
        """The share nearest to the centre, on one side of it, that `shown` rejects."""
        rise = crossed_difference(self.tuned, self.reference, bounds=self.bounds).limits
        if self.size is not None:
            rise = rise.at_size(*self.size)
        if rise.lower(alpha) <= 0.0:
            return side * float("inf")
        centre, step = self.centre, 1.0
        while not shown(centre + side * step):
            step *= 2.0
            if step > _FARTHEST:
                return side * float("inf")
        near, far = 0.0, step
        while far - near > 1e-9 * max(1.0, far):
            middle = (near + far) / 2.0
            if shown(centre + side * middle):
                far = middle
            else:
                near = middle
        return centre + side * far


def _tail(n_as_extreme: int, n_controls: int) -> float:
    return (1 + n_as_extreme) / (1 + n_controls)


def _units(
    layers: npt.ArrayLike, norms: npt.ArrayLike, excluded: npt.ArrayLike | None
) -> tuple[npt.NDArray[np.int64], Array, Mask]:
    of_layer, of_norm = np.asarray(layers), np.asarray(norms, dtype=np.float64)
    barred = np.zeros(of_norm.shape, bool) if excluded is None else np.asarray(excluded)
    if of_norm.ndim != 1 or not of_layer.shape == of_norm.shape == barred.shape:
        raise StatisticsError(
            f"layers of shape {of_layer.shape}, norms of shape {of_norm.shape} and a mask of "
            f"shape {barred.shape} are not one value a unit",
            remedy="give all three as (n_units,)",
        )
    if barred.dtype != np.bool_ or of_layer.dtype.kind not in "iu":
        raise StatisticsError(
            f"layers of type {of_layer.dtype} or a mask of type {barred.dtype} cannot be used",
            remedy="give layers as whole numbers and the excluded units as a mask",
        )
    if not (np.isfinite(of_norm) & (of_norm >= 0.0)).all():
        raise StatisticsError(
            "norms are negative, missing or not finite",
            remedy="give the mean absolute activation of each unit",
        )
    return of_layer.astype(np.int64), of_norm, barred


def _chosen(selected: npt.ArrayLike, barred: Mask) -> Units:
    units = np.asarray(selected)
    if units.ndim != 1 or units.size == 0 or units.dtype.kind not in "iu":
        raise StatisticsError(
            f"a selection of shape {units.shape} and type {units.dtype} names no units",
            remedy="give unit indices, shape (n_selected,), at least one",
        )
    if units.min() < 0 or units.max() >= barred.size or np.unique(units).size < units.size:
        raise StatisticsError(
            f"the selection names units twice or outside 0 to {barred.size - 1}",
            remedy="give each unit once, by its index",
        )
    if barred[units].any():
        raise StatisticsError(
            f"{int(barred[units].sum())} selected units are excluded ones",
            remedy="leave massive activations out of the selection",
        )
    return units.astype(np.intp)

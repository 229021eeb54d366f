"""`Estimate`: a value with its uncertainty, from adapters crossed with prompts.

Takes arrays over `n_adapters, n_prompts[, n_samples]`, gives frozen estimates that can be asked
for another level or for a p-value; knows nothing of margins or verdicts.

The unit of evidence for a recipe is the adapter: 200 answers of one adapter are 200 correlated
answers. Every adapter answers the same prompts, so adapters and prompts are crossed, and the mean
over all cells has the variance

    adapter / n_adapters + prompt / n_prompts + residual / (n_adapters * n_prompts),

with components from the two-way analysis of variance (Searle, Casella & McCulloch 1992, ch. 4),
negative ones set to zero. It equals the two-way clustered variance "adapter + prompt - residual"
of Cameron, Gelbach & Miller (2011); Miller (arXiv 2411.00640) argues for clustering in
evaluations. The interval uses t with n_adapters - 1 degrees of freedom.

Where nothing varied a variance would be zero, and so would the width of the interval; then the
number of prompts bounds what went unseen (`emotest.stats.limits.ConstantLimits`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import special

from emotest.errors import StatisticsError
from emotest.stats.limits import (
    BothEndsLimits,
    ConstantLimits,
    HybridLimits,
    Limits,
    Spread,
    StudentLimits,
)
from emotest.stats.proportions import check_level

Array = npt.NDArray[np.float64]
Unit = Literal["adapter", "prompt"]

FEWEST_ADAPTERS = 3
"""With fewer, no claim about a recipe: two adapters give t one degree of freedom."""

DEFAULT_LEVEL = 0.90
"""Two-sided; its limits are the one-sided limits at alpha = 0.05."""


@dataclass(frozen=True)
class Estimate:
    """A value, its two-sided interval at `level`, and what both rest on.

    The limits at `level` are the one-sided limits at alpha = (1 - level) / 2. `unit` is the unit
    of evidence: "adapter" speaks of a recipe, "prompt" of one checkpoint only. `limits` answers
    for every other level.
    """

    value: float
    low: float
    high: float
    level: float
    standard_error: float
    degrees_of_freedom: float | None
    method: str
    unit: Unit
    scale: str
    n_adapters: int
    n_prompts: int
    n_samples: int
    possible: tuple[float, float] = field(repr=False)
    """What the value can be at all; no limit lies outside it."""
    limits: Limits = field(repr=False, compare=False)

    def at_level(self, level: float) -> Estimate:
        """The same data at another confidence."""
        check_level(level)
        alpha = (1.0 - level) / 2.0
        least, most = self.possible
        return replace(
            self,
            level=level,
            low=min(max(self.limits.lower(alpha), least), self.value),
            high=max(min(self.limits.upper(alpha), most), self.value),
        )

    def p_above(self, margin: float) -> float:
        """One-sided p-value of the hypothesis that the truth is at most `margin`."""
        return self.limits.p_above(margin)

    def p_below(self, margin: float) -> float:
        """One-sided p-value of the hypothesis that the truth is at least `margin`."""
        return self.limits.p_below(margin)

    @classmethod
    def of_limits(
        cls,
        limits: Limits,
        *,
        level: float,
        method: str,
        unit: Unit,
        scale: str,
        n_adapters: int,
        n_prompts: int,
        n_samples: int,
        possible: tuple[float, float] = (float("-inf"), float("inf")),
    ) -> Estimate:
        """An estimate whose interval, standard error and p-values all come from `limits`."""
        return cls(
            value=limits.centre,
            low=limits.centre,
            high=limits.centre,
            level=level,
            standard_error=limits.standard_error,
            degrees_of_freedom=limits.degrees_of_freedom,
            method=method,
            unit=unit,
            scale=scale,
            n_adapters=n_adapters,
            n_prompts=n_prompts,
            n_samples=n_samples,
            possible=possible,
            limits=limits,
        ).at_level(level)


def crossed_difference(
    treated: npt.ArrayLike,
    reference: npt.ArrayLike,
    *,
    level: float = DEFAULT_LEVEL,
    scale: str = "share",
    bounds: tuple[float, float] | None = None,
) -> Estimate:
    """Mean of treated minus reference over adapters crossed with prompts.

    `treated` has shape (n_adapters, n_prompts) or (n_adapters, n_prompts, n_samples). `reference`
    has as many axes (a null adapter, paired by training seed and prompt; its own n_samples), or
    one axis fewer, without n_adapters (the untuned model, paired by prompt; its own sampling noise
    then counts as spread between prompts). `bounds` is the range of one value: (0, 1) for shares,
    points and probabilities unless given, else the range seen; it matters only where an arm never
    varied.

    Raises `StatisticsError` for fewer than 3 adapters or 2 prompts, missing values, shapes that do
    not pair, values outside the bounds, and arms that never varied on a scale without bounds.
    """
    cells = _cells(treated, "treated", ("n_adapters", "n_prompts"))
    paired = np.asarray(reference, dtype=np.float64)
    without_adapters = paired.ndim == 1 or paired.ndim == np.ndim(treated) - 1
    axes = ("n_prompts",) if without_adapters else ("n_adapters", "n_prompts")
    other = _cells(reference, "reference", axes)
    if other.shape != cells.shape[-other.ndim :]:
        raise StatisticsError(
            f"treated cells of shape {cells.shape} and reference cells of shape {other.shape} "
            "do not pair",
            remedy="give the same prompts in the same order to both arms, and one reference "
            "adapter for each training seed or one untuned model",
        )
    _enough(cells)
    return _difference(cells, other, _n_samples(treated, cells), level, scale, bounds)


def crossed_mean(
    values: npt.ArrayLike,
    *,
    level: float = DEFAULT_LEVEL,
    scale: str = "share",
    bounds: tuple[float, float] | None = None,
) -> Estimate:
    """Mean of one arm of shape (n_adapters, n_prompts) or (n_adapters, n_prompts, n_samples).

    Errors as in `crossed_difference`.
    """
    cells = _cells(values, "values", ("n_adapters", "n_prompts"))
    _enough(cells)
    bounds = _range_of_values(scale, bounds, cells)
    limits = _limits_of(cells, bounds)
    return Estimate.of_limits(
        limits,
        level=level,
        method=_method(limits, "adapters crossed with prompts, t"),
        unit="adapter",
        scale=scale,
        n_adapters=cells.shape[0],
        n_prompts=cells.shape[1],
        n_samples=_n_samples(values, cells),
        possible=bounds if _named_bounds(scale) == bounds else (float("-inf"), float("inf")),
    )


def at_both_ends(low: Estimate, middle: Estimate, high: Estimate) -> Estimate:
    """One estimate of numbers that are known only between two ends.

    `low` is the estimate with every number at the end that speaks against a rise, `high` at the
    end that speaks for it, `middle` half-way; all of the same adapters and prompts. The value is
    that of the middle, the interval goes from the low end's lower limit to the high end's upper
    one: a word that it gives holds at both ends.

    Raises `StatisticsError` where the three are not in this order.
    """
    if not low.value <= middle.value <= high.value:
        raise StatisticsError(
            f"the ends {low.value:g} and {high.value:g} do not enclose {middle.value:g}",
            remedy="take the low end with every number where it makes the value least",
        )
    limits = BothEndsLimits(low.limits, middle.limits, high.limits)
    return replace(
        middle,
        standard_error=limits.standard_error,
        method=f"{middle.method}; at both ends of what is known",
        limits=limits,
    ).at_level(middle.level)


def crossed_log_odds_difference(
    treated: npt.ArrayLike,
    reference: npt.ArrayLike,
    *,
    level: float = DEFAULT_LEVEL,
) -> Estimate:
    """Mean difference of log-odds (C5): probabilities strictly between 0 and 1.

    Shapes and errors as in `crossed_difference`. The log-odds are taken value by value and
    averaged afterwards: the estimand is the mean over contexts of the change in log-odds, not the
    change in the log-odds of a mean.
    """
    return crossed_difference(
        _log_odds(treated, "treated"),
        _log_odds(reference, "reference"),
        level=level,
        scale="log-odds",
    )


def prompt_difference(
    treated: npt.ArrayLike,
    reference: npt.ArrayLike,
    *,
    level: float = DEFAULT_LEVEL,
    scale: str = "share",
    bounds: tuple[float, float] | None = None,
) -> Estimate:
    """Mean of treated minus reference for one checkpoint, paired by prompt: unit "prompt".

    Both of shape (n_prompts,) or (n_prompts, n_samples); t with n_prompts - 1 degrees of freedom.
    The estimate speaks of this checkpoint, not of the recipe that made it. Errors as above.
    """
    cells = _cells(treated, "treated", ("n_prompts",))
    other = _cells(reference, "reference", ("n_prompts",))
    if cells.shape != other.shape:
        raise StatisticsError(
            f"{cells.size} treated and {other.size} reference prompts do not pair",
            remedy="give the same prompts in the same order to both arms",
        )
    _enough(cells)
    return _difference(cells, other, _n_samples(treated, cells), level, scale, bounds)


def crossed_spread(cells: Array) -> Spread:
    """Variance components of cells of shape (n_adapters, n_prompts), or (n_prompts,) for one.

    Negative components become zero, so the variance of the mean is at least what adapters alone
    or prompts alone would give.
    """
    if cells.ndim == 1:
        return Spread(adapter=0.0, prompt=float(cells.var(ddof=1)), residual=0.0)
    n_adapters, n_prompts = cells.shape
    of_adapters = cells.mean(axis=1, keepdims=True)
    of_prompts = cells.mean(axis=0, keepdims=True)
    left = cells - of_adapters - of_prompts + cells.mean()
    residual = float((left**2).sum() / ((n_adapters - 1) * (n_prompts - 1)))
    return Spread(
        adapter=max(float(of_adapters.var(ddof=1)) - residual / n_prompts, 0.0),
        prompt=max(float(of_prompts.var(ddof=1)) - residual / n_adapters, 0.0),
        residual=residual,
    )


def _difference(
    cells: Array,
    other: Array,
    n_samples: int,
    level: float,
    scale: str,
    bounds: tuple[float, float] | None,
) -> Estimate:
    least, most = _range_of_values(scale, bounds, cells, other)
    differences = cells - other
    limits: Limits
    if _constant(differences) or not (_constant(cells) or _constant(other)):
        limits = _limits_of(differences, (least - most, most - least))
    else:
        limits = HybridLimits(_limits_of(cells, (least, most)), _limits_of(other, (least, most)))
    crossed = cells.ndim == 2
    named = _named_bounds(scale) == (least, most)
    return Estimate.of_limits(
        limits,
        level=level,
        method=_method(
            limits, "adapters crossed with prompts, t" if crossed else "paired by prompt, t"
        ),
        unit="adapter" if crossed else "prompt",
        scale=scale,
        n_adapters=cells.shape[0] if crossed else 1,
        n_prompts=cells.shape[-1],
        n_samples=n_samples,
        possible=(least - most, most - least) if named else (float("-inf"), float("inf")),
    )


def _limits_of(cells: Array, bounds: tuple[float, float]) -> Limits:
    n_adapters, n_prompts = cells.shape if cells.ndim == 2 else (1, cells.size)
    value = float(cells.mean())
    if not _constant(cells):
        return StudentLimits(value, crossed_spread(cells), n_adapters, n_prompts)
    if bounds[0] == bounds[1]:
        raise StatisticsError(
            f"every value is {value:g}, and the scale has no known range",
            remedy="give bounds=(least, most) of one value, so that the unseen can be bounded",
        )
    # The mean of equal numbers can miss them by a rounding; the range must hold it.
    return ConstantLimits(min(max(value, bounds[0]), bounds[1]), *bounds, n_prompts)


def _method(limits: Limits, usual: str) -> str:
    if isinstance(limits, ConstantLimits):
        return "nothing varied, Clopper-Pearson over prompts"
    if isinstance(limits, HybridLimits):
        return f"{usual}; one arm never varied, Clopper-Pearson over prompts (MOVER)"
    return usual


def _constant(cells: Array) -> bool:
    return float(np.ptp(cells)) <= 1e-12 * max(1.0, float(np.abs(cells).max()))


def _named_bounds(scale: str) -> tuple[float, float] | None:
    return (0.0, 1.0) if scale.split(" ")[0] in {"share", "points", "probability"} else None


def _range_of_values(
    scale: str, bounds: tuple[float, float] | None, *arms: Array
) -> tuple[float, float]:
    """The range of one value: as given, as the scale's name says, or as seen."""
    seen = min(float(arm.min()) for arm in arms), max(float(arm.max()) for arm in arms)
    least, most = bounds or _named_bounds(scale) or seen
    if not least <= seen[0] <= seen[1] <= most:
        raise StatisticsError(
            f"values from {seen[0]:g} to {seen[1]:g} leave the range {least:g} to {most:g} of "
            f"the scale {scale!r}",
            remedy="name the scale that the values are on, or give its bounds",
        )
    return least, most


def _cells(values: npt.ArrayLike, name: str, axes: tuple[str, ...]) -> Array:
    """Means over samples, shape (n_adapters, n_prompts) or (n_prompts,); finite."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim not in (len(axes), len(axes) + 1) or array.size == 0:
        wanted = ", ".join(axes)
        raise StatisticsError(
            f"{name} has shape {array.shape}, not ({wanted}) or ({wanted}, n_samples)",
            remedy="give one value for each of these, none of the axes empty",
        )
    if not np.isfinite(array).all():
        missing = int((~np.isfinite(array)).sum())
        raise StatisticsError(
            f"{missing} of {array.size} values of {name} are missing or not finite",
            remedy="generate what is missing, or leave the prompt out of both arms",
        )
    return array.mean(axis=-1) if array.ndim > len(axes) else array


def _n_samples(values: npt.ArrayLike, cells: Array) -> int:
    shape = np.shape(values)
    return int(shape[-1]) if len(shape) > cells.ndim else 1


def _enough(cells: Array) -> None:
    if cells.ndim == 2 and cells.shape[0] < FEWEST_ADAPTERS:
        raise StatisticsError(
            f"{cells.shape[0]} adapters are too few for a claim about a recipe",
            remedy=f"train at least {FEWEST_ADAPTERS} seeds, or audit one checkpoint instead",
        )
    if cells.shape[-1] < 2:
        raise StatisticsError(
            "one prompt says nothing about prompts", remedy="give at least 2 prompts"
        )


def _log_odds(probabilities: npt.ArrayLike, name: str) -> Array:
    array = np.asarray(probabilities, dtype=np.float64)
    outside = int((~((array > 0.0) & (array < 1.0))).sum())
    if outside:
        raise StatisticsError(
            f"{outside} of {array.size} probabilities of {name} do not lie strictly between 0 "
            "and 1",
            remedy="log-odds need exact probabilities; shares of answers belong on the scale "
            "'share'",
        )
    return np.asarray(special.logit(array), dtype=np.float64)

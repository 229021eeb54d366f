"""What stands beside an estimate: exact sign flips over adapters, and the crossed bootstrap.

Takes arrays and a numpy Generator where chance is used; neither decides a claim. Sign flips are
exact but coarse (their floor is 2^-n_adapters); the bootstrap serves statistics that are no means,
such as ratios of sums, and is narrow with few adapters.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from emotest.errors import StatisticsError
from emotest.stats.estimates import DEFAULT_LEVEL, FEWEST_ADAPTERS, Array, Estimate
from emotest.stats.limits import DrawnLimits

MOST_FLIPPED = 20
"""2^20 sign patterns are still enumerated; more adapters than that are not trained."""


def sign_flip_p(differences: npt.ArrayLike, *, margin: float = 0.0) -> float:
    """One-sided exact p-value that adapters differ from the reference by more than `margin`.

    `differences`, one per adapter (n_adapters,) or per cell (n_adapters, n_prompts), are taken to
    be symmetric about `margin` under the hypothesis; the p-value is the share of the
    2^n_adapters sign patterns whose mean is at least the one seen (Fisher 1935, section 21), so it
    never falls below 2^-n_adapters.
    """
    array = np.asarray(differences, dtype=np.float64)
    if array.ndim not in (1, 2) or array.size == 0 or not np.isfinite(array).all():
        raise StatisticsError(
            f"differences of shape {array.shape} are not one finite number per adapter",
            remedy="give (n_adapters,) or (n_adapters, n_prompts) without missing values",
        )
    shifted = (array if array.ndim == 1 else array.mean(axis=1)) - margin
    if shifted.size > MOST_FLIPPED:
        raise StatisticsError(
            f"{shifted.size} adapters give 2^{shifted.size} sign patterns, too many to enumerate",
            remedy="use the p-value of the estimate; with so many adapters they agree",
        )
    patterns = np.arange(2**shifted.size)
    sums = np.zeros(patterns.size)
    for adapter, difference in enumerate(shifted):
        sums += np.where((patterns >> adapter) & 1, -difference, difference)
    # Patterns that are equal in exact arithmetic must not differ by a rounding.
    slack = 1e-12 * float(np.abs(shifted).sum())
    return float((sums >= shifted.sum() - slack).mean())


def cluster_bootstrap(
    values: npt.ArrayLike,
    statistic: Callable[[Array], float],
    rng: np.random.Generator,
    *,
    level: float = DEFAULT_LEVEL,
    n_resamples: int = 2_000,
    scale: str = "share",
) -> Estimate:
    """Percentile interval of any statistic, adapters and prompts drawn anew and independently.

    `values` has shape (n_adapters, n_prompts, ...); axes behind these belong to the cell, such as
    the counts (emoji, sentences) of a ratio of sums. `statistic` takes an array of that very shape
    and gives a number. This is the "pigeonhole" bootstrap of crossed data (Owen 2007, Annals of
    Applied Statistics 1). With 3 to 8 adapters percentiles are narrow: report it beside, and
    decide on the crossed estimate.

    Raises `StatisticsError` for too few adapters or prompts, missing values, a statistic that is
    not finite, or resamples that are all equal (an interval of width zero would be a lie).
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim < 2 or array.shape[0] < FEWEST_ADAPTERS or array.shape[1] < 2:
        raise StatisticsError(
            f"values of shape {array.shape} cannot be drawn anew by adapter and prompt",
            remedy=f"give (n_adapters, n_prompts, ...) with at least {FEWEST_ADAPTERS} adapters "
            "and 2 prompts",
        )
    if not np.isfinite(array).all():
        raise StatisticsError(
            "values to draw from are missing or not finite", remedy="generate what is missing"
        )
    n_adapters, n_prompts = array.shape[:2]
    draws = np.empty(n_resamples)
    for resample in range(n_resamples):
        adapters = rng.integers(n_adapters, size=n_adapters)
        prompts = rng.integers(n_prompts, size=n_prompts)
        draws[resample] = statistic(array[np.ix_(adapters, prompts)])
    value = float(statistic(array))
    if not (np.isfinite(draws).all() and np.isfinite(value)):
        raise StatisticsError(
            "the statistic is not finite on some resamples",
            remedy="choose one that is defined for every draw, or give more prompts",
        )
    if np.ptp(draws) == 0.0:
        raise StatisticsError(
            f"all {n_resamples} resamples give {value:g}, so the bootstrap knows no spread",
            remedy="use the crossed estimate, which bounds what went unseen by the prompts",
        )
    return Estimate.of_limits(
        DrawnLimits(value, np.sort(draws), n_adapters, n_prompts),
        level=level,
        method="bootstrap over adapters and prompts, percentiles",
        unit="adapter",
        scale=scale,
        n_adapters=n_adapters,
        n_prompts=n_prompts,
        n_samples=1,
    )

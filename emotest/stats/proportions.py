"""Confidence intervals for one proportion: k of n, independent trials.

Takes counts, gives (low, high); knows nothing of clusters. Where answers share a prompt or an
adapter, use `emotest.stats.estimates` instead.
"""

from __future__ import annotations

from math import sqrt

from scipy import special

from emotest.errors import StatisticsError


def clopper_pearson(k: int, n: int, level: float) -> tuple[float, float]:
    """The exact two-sided interval: never covers less than `level` (Clopper & Pearson 1934)."""
    _check(k, n, level)
    tail = (1.0 - level) / 2.0
    low = 0.0 if k == 0 else float(special.betaincinv(k, n - k + 1, tail))
    high = 1.0 if k == n else float(special.betaincinv(k + 1, n - k, 1.0 - tail))
    return low, high


def wilson(k: int, n: int, level: float) -> tuple[float, float]:
    """The score interval: covers `level` on average over proportions (Wilson 1927)."""
    _check(k, n, level)
    z = float(special.ndtri((1.0 + level) / 2.0))
    share = k / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # At k = 0 and k = n one limit is the share itself; rounding must not push it past.
    return min(max(centre - half, 0.0), share), max(min(centre + half, 1.0), share)


def check_level(level: float) -> None:
    """Raise `StatisticsError` unless `level` lies strictly between 0 and 1."""
    if not 0.0 < level < 1.0:
        raise StatisticsError(
            f"a confidence level of {level} says nothing",
            remedy="give a level strictly between 0 and 1, such as 0.95",
        )


def _check(k: int, n: int, level: float) -> None:
    check_level(level)
    if n < 1 or not 0 <= k <= n:
        raise StatisticsError(
            f"{k} of {n} is no proportion", remedy="give 0 <= k <= n with n of at least 1"
        )

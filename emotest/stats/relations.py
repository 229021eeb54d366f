"""What it means that a value is raised, lowered, unchanged or different, given its limits.

One table of relations serves deciding, planning and stopping early, so that the three cannot
disagree. Knows limits and margins, no data.
"""

from __future__ import annotations

from math import isfinite
from typing import Literal

from emotest.errors import StatisticsError
from emotest.stats.estimates import Estimate

Relation = Literal["raised", "lowered", "unchanged", "differ"]
Word = Literal["confirmed", "refuted", "inconclusive"]


def word_of(relation: Relation, low: float, high: float, margin: float) -> Word:
    """The verdict that an interval from `low` to `high` gives.

    raised: above +margin; lowered: below -margin; unchanged: wholly inside the margins (two
    one-sided tests, Schuirmann 1987); differ: wholly outside them on one side. Refuted where the
    interval lies wholly where the relation does not hold; else inconclusive.
    """
    above, below = low > margin, high < -margin
    inside = -margin < low and high < margin
    confirmed, refuted = {
        "raised": (above, high < margin),
        "lowered": (below, low > -margin),
        "unchanged": (inside, above or below),
        "differ": (above or below, inside),
    }[relation]
    return "confirmed" if confirmed else "refuted" if refuted else "inconclusive"


def p_value_of(relation: Relation, estimate: Estimate, margin: float) -> float:
    """The p-value of the hypothesis that the relation does not hold."""
    if relation == "raised":
        return estimate.p_above(margin)
    if relation == "lowered":
        return estimate.p_below(-margin)
    if relation == "unchanged":
        return max(estimate.p_above(-margin), estimate.p_below(margin))
    return min(1.0, 2.0 * min(estimate.p_above(margin), estimate.p_below(-margin)))


def tail_of(relation: Relation, alpha: float, m: int) -> float:
    """What each limit may err by: alpha / m, and half of that where either side would confirm."""
    if not 0.0 < alpha < 0.5:
        raise StatisticsError(
            f"alpha = {alpha} is no error rate to decide at", remedy="give 0 < alpha < 0.5"
        )
    if m < 1:
        raise StatisticsError(
            f"a family of {m} statements does not exist",
            remedy="give m, the size of the declared family, as a whole number from 1",
        )
    return alpha / m / (2.0 if relation == "differ" else 1.0)


def check_margin(relation: Relation, margin: float) -> None:
    """Raise `StatisticsError` for a margin that the relation cannot be held to."""
    if not isfinite(margin):
        raise StatisticsError(f"a margin of {margin} decides nothing", remedy="give a number")
    if (relation == "unchanged" and margin <= 0.0) or (relation == "differ" and margin < 0.0):
        raise StatisticsError(
            f"no interval lies within {margin} of zero",
            remedy="give the largest change that still counts as none, above 0",
        )

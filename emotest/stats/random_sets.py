"""By how much a selection of units does more than random sets like it, in points (C9).

Takes probabilities with the selection silenced and with each random set silenced; gives an
estimate of their mean difference. Adapters, prompts and sets are crossed: all adapters are held
against the same sets at the same prompts. So a mean over sets errs in a third way, that other sets
might have been drawn, and no adapter or prompt helps against it. Knows no unit and no model.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import hypot

import numpy as np
import numpy.typing as npt

from emotest.errors import StatisticsError
from emotest.stats.estimates import DEFAULT_LEVEL, Estimate, crossed_difference
from emotest.stats.limits import Limits, Spread, StudentLimits


@dataclass(frozen=True)
class OverSetsLimits(Limits):
    """A mean over adapters and prompts (`cells`) that is also one over random sets (`sets`).

    The squared distances to both limits add, as those of two arms do ("MOVER", Zou & Donner 2008).
    `sets` is centred at 0.
    """

    cells: Limits
    sets: StudentLimits

    @property
    def centre(self) -> float:
        """The mean over adapters, prompts and sets."""
        return self.cells.centre

    @property
    def degrees_of_freedom(self) -> float | None:
        """Of the adapters, which are fewer than the sets."""
        return self.cells.degrees_of_freedom

    def lower(self, alpha: float) -> float:
        """The centre minus both distances, combined."""
        return self.centre - hypot(self.centre - self.cells.lower(alpha), self.sets.lower(alpha))

    def upper(self, alpha: float) -> float:
        """The centre plus both distances, combined."""
        return self.centre + hypot(self.cells.upper(alpha) - self.centre, self.sets.upper(alpha))

    def at_size(self, n_adapters: int, n_prompts: int) -> OverSetsLimits:
        """More adapters or prompts, and the same sets."""
        return replace(self, cells=self.cells.at_size(n_adapters, n_prompts))


def beyond_random_sets(
    selected: npt.ArrayLike, random: npt.ArrayLike, *, level: float = DEFAULT_LEVEL
) -> Estimate:
    """By how many points silencing a selection lowers a probability more than random sets do.

    Args:
        selected: probabilities with the selection silenced, (n_adapters, n_prompts).
        random: those with each random set silenced, (n_adapters, n_sets, n_prompts); set n is the
            same in all adapters.
        level: of the interval.

    The value is the mean of random minus selected. The spread between sets is that of the sets'
    means over adapters and prompts; it holds a little of how sets differ from adapter to adapter,
    so the interval is somewhat too wide rather than too narrow.

    Raises `StatisticsError` as `crossed_difference` does, and for fewer than 2 sets.
    """
    chosen, sets = (np.asarray(arm, dtype=np.float64) for arm in (selected, random))
    if chosen.ndim != 2 or sets.ndim != 3 or (sets.shape[0], sets.shape[2]) != chosen.shape:
        raise StatisticsError(
            f"a selection of shape {chosen.shape} and sets of shape {sets.shape} do not pair",
            remedy="give (n_adapters, n_prompts) and (n_adapters, n_sets, n_prompts)",
        )
    if sets.shape[1] < 2:
        raise StatisticsError(
            f"{sets.shape[1]} random sets say nothing about random sets",
            remedy="measure at least 2",
        )
    found = crossed_difference(sets.mean(axis=1), chosen, level=level, scale="points")
    between = float(sets.mean(axis=(0, 2)).var(ddof=1))
    # One "checkpoint" whose "prompts" are the sets: t with n_sets - 1 degrees of freedom.
    own = StudentLimits(0.0, Spread(0.0, between, 0.0), 1, sets.shape[1])
    limits = OverSetsLimits(found.limits, own) if between > 0.0 else found.limits
    return replace(
        found,
        standard_error=limits.standard_error,
        method=f"{found.method}; {sets.shape[1]} random sets, the same in all adapters",
        limits=limits,
    ).at_level(level)

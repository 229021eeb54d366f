"""One-sided confidence limits as functions of alpha: what an `Estimate` can say at any level.

Each class knows how one kind of evidence turns into limits, and, by inversion, into p-values:
`lower(alpha) > margin` exactly where `p_above(margin) < alpha`, for alpha up to one half.
`at_size` gives the limits that the same value and spread would have with other numbers of
adapters and prompts; planning rests on it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import exp, hypot, log, sqrt
from typing import TYPE_CHECKING

import numpy as np
from scipy import special

if TYPE_CHECKING:
    import numpy.typing as npt

SMALLEST_ALPHA = 1e-300
"""Below this no p-value is told apart from the next."""

ONE_SIGMA = 0.15865525393145707
"""The upper tail of a normal distribution beyond one standard deviation."""


class Limits(ABC):
    """What one kind of evidence says about a value, at every alpha."""

    @property
    @abstractmethod
    def centre(self) -> float:
        """The value itself."""

    @property
    def standard_error(self) -> float:
        """The larger distance to a limit at one-sigma alpha; never zero."""
        return max(self.centre - self.lower(ONE_SIGMA), self.upper(ONE_SIGMA) - self.centre)

    @property
    def degrees_of_freedom(self) -> float | None:
        """Of the t distribution, where the limits come from one."""
        return None

    @abstractmethod
    def lower(self, alpha: float) -> float:
        """The limit that the truth lies below with probability at most `alpha`."""

    @abstractmethod
    def upper(self, alpha: float) -> float:
        """The limit that the truth lies above with probability at most `alpha`."""

    @abstractmethod
    def at_size(self, n_adapters: int, n_prompts: int) -> Limits:
        """The same value and spread, seen with other numbers of adapters and prompts."""

    def p_above(self, margin: float) -> float:
        """One-sided p-value against 'the truth is at most `margin`'."""
        if margin >= self.centre:
            return 0.5 if margin == self.centre else 1.0 - self.p_below(margin)
        return _smallest_alpha(lambda alpha: self.lower(alpha) > margin)

    def p_below(self, margin: float) -> float:
        """One-sided p-value against 'the truth is at least `margin`'."""
        if margin <= self.centre:
            return 0.5 if margin == self.centre else 1.0 - self.p_above(margin)
        return _smallest_alpha(lambda alpha: self.upper(alpha) < margin)


@dataclass(frozen=True)
class Spread:
    """Variance components of a value in adapters crossed with prompts.

    With one checkpoint (n_adapters = 1) everything that varies varies between prompts, and
    stands in `prompt`.
    """

    adapter: float
    prompt: float
    residual: float

    def standard_error(self, n_adapters: int, n_prompts: int) -> float:
        """Of the mean over n_adapters x n_prompts cells."""
        return sqrt(
            self.adapter / n_adapters
            + self.prompt / n_prompts
            + self.residual / (n_adapters * n_prompts)
        )


@dataclass(frozen=True)
class StudentLimits(Limits):
    """Value plus or minus t times standard error.

    t has n_adapters - 1 degrees of freedom, or n_prompts - 1 for one checkpoint: a claim about a
    recipe rests on as many independent witnesses as there are adapters.
    """

    value: float
    spread: Spread
    n_adapters: int
    n_prompts: int

    @property
    def centre(self) -> float:
        """The value itself."""
        return self.value

    @property
    def standard_error(self) -> float:
        """Of the value, from its variance components."""
        return self.spread.standard_error(self.n_adapters, self.n_prompts)

    @property
    def degrees_of_freedom(self) -> float:
        """One less than the number of independent units."""
        return float((self.n_adapters if self.n_adapters > 1 else self.n_prompts) - 1)

    def lower(self, alpha: float) -> float:
        """Value - t * standard error."""
        return self.value + self._t(alpha) * self.standard_error

    def upper(self, alpha: float) -> float:
        """Value + t * standard error."""
        return self.value - self._t(alpha) * self.standard_error

    def p_above(self, margin: float) -> float:
        """The t test's one-sided p-value."""
        return float(
            special.stdtr(self.degrees_of_freedom, (margin - self.value) / self.standard_error)
        )

    def p_below(self, margin: float) -> float:
        """The t test's one-sided p-value."""
        return float(
            special.stdtr(self.degrees_of_freedom, (self.value - margin) / self.standard_error)
        )

    def at_size(self, n_adapters: int, n_prompts: int) -> StudentLimits:
        """The same components, divided by other numbers; one checkpoint stays one."""
        return replace(
            self, n_adapters=n_adapters if self.n_adapters > 1 else 1, n_prompts=n_prompts
        )

    def _t(self, alpha: float) -> float:
        return float(special.stdtrit(self.degrees_of_freedom, alpha))


@dataclass(frozen=True)
class ConstantLimits(Limits):
    """Every prompt gave the same value, within a known range `lowest` to `highest`.

    Equality of n_prompts draws leaves room for a share q = 1 - alpha^(1/n_prompts) of prompts that
    would give something else (Clopper & Pearson at k = 0); what they would give is unknown, so it
    is taken to be the end of the range. For shares of 0 or 1 this is their interval itself. The
    unit is the prompt, whatever the number of adapters: repeats of one prompt that agree
    may do so because of the prompt.
    """

    value: float
    lowest: float
    highest: float
    n_prompts: int

    @property
    def centre(self) -> float:
        """The value that every prompt gave."""
        return self.value

    def lower(self, alpha: float) -> float:
        """If the unseen share lay at the lowest value."""
        return self.value - self._unseen(alpha) * (self.value - self.lowest)

    def upper(self, alpha: float) -> float:
        """If the unseen share lay at the highest value."""
        return self.value + self._unseen(alpha) * (self.highest - self.value)

    def p_above(self, margin: float) -> float:
        """Probability of n_prompts equal draws, were the mean `margin`."""
        if margin >= self.value:
            return 1.0
        room = (margin - self.lowest) / (self.value - self.lowest)
        return max(room, 0.0) ** self.n_prompts

    def p_below(self, margin: float) -> float:
        """Probability of n_prompts equal draws, were the mean `margin`."""
        if margin <= self.value:
            return 1.0
        room = (self.highest - margin) / (self.highest - self.value)
        return max(room, 0.0) ** self.n_prompts

    def at_size(self, n_adapters: int, n_prompts: int) -> ConstantLimits:
        """More prompts, all giving the same; adapters do not count."""
        return replace(self, n_prompts=n_prompts)

    def _unseen(self, alpha: float) -> float:
        return float(-special.expm1(log(alpha) / self.n_prompts))


@dataclass(frozen=True)
class HybridLimits(Limits):
    """A difference of two arms of which one never varied: each arm brings its own limits.

    The squared distances to the arms' limits add (Newcombe 1998, method 10; the general form is
    Zou & Donner 2008, "MOVER"). An arm that never varied has no covariance with the other.
    """

    treated: Limits
    reference: Limits

    @property
    def centre(self) -> float:
        """Treated minus reference."""
        return self.treated.centre - self.reference.centre

    @property
    def degrees_of_freedom(self) -> float | None:
        """Of the arm that varied."""
        return self.treated.degrees_of_freedom or self.reference.degrees_of_freedom

    def lower(self, alpha: float) -> float:
        """Treated at its lower limit against reference at its upper one, combined."""
        return self.centre - hypot(
            self.treated.centre - self.treated.lower(alpha),
            self.reference.upper(alpha) - self.reference.centre,
        )

    def upper(self, alpha: float) -> float:
        """Treated at its upper limit against reference at its lower one, combined."""
        return self.centre + hypot(
            self.treated.upper(alpha) - self.treated.centre,
            self.reference.centre - self.reference.lower(alpha),
        )

    def at_size(self, n_adapters: int, n_prompts: int) -> HybridLimits:
        """Both arms at that size."""
        return HybridLimits(
            self.treated.at_size(n_adapters, n_prompts),
            self.reference.at_size(n_adapters, n_prompts),
        )


@dataclass(frozen=True)
class BothEndsLimits(Limits):
    """A value of which each number is known only to lie between two ends.

    `low` are the limits of the value with every number at the end that makes it least, `high` at
    the end that makes it most, `middle` half-way. The lower limit is that of `low` and the upper
    that of `high`, so that what is shown holds wherever the numbers lie.
    """

    low: Limits
    middle: Limits
    high: Limits

    @property
    def centre(self) -> float:
        """Half-way between the ends."""
        return self.middle.centre

    @property
    def degrees_of_freedom(self) -> float | None:
        """Of the middle."""
        return self.middle.degrees_of_freedom

    def lower(self, alpha: float) -> float:
        """The lower limit at the low end; no higher than the value."""
        return min(self.low.lower(alpha), self.centre)

    def upper(self, alpha: float) -> float:
        """The upper limit at the high end; no lower than the value."""
        return max(self.high.upper(alpha), self.centre)

    def at_size(self, n_adapters: int, n_prompts: int) -> BothEndsLimits:
        """All three at that size; what is unknown of each number stays."""
        return BothEndsLimits(
            *(one.at_size(n_adapters, n_prompts) for one in (self.low, self.middle, self.high))
        )


@dataclass(frozen=True, eq=False)
class DrawnLimits(Limits):
    """Quantiles of draws: a bootstrap's percentiles.

    `draws` is sorted, shape (n_draws,). No p-value falls below 1 / (n_draws + 1).
    """

    value: float
    draws: npt.NDArray[np.float64]
    n_adapters: int
    n_prompts: int

    @property
    def centre(self) -> float:
        """The value of the data themselves."""
        return self.value

    @property
    def standard_error(self) -> float:
        """The standard deviation of the draws."""
        return float(np.std(self.draws, ddof=1))

    def lower(self, alpha: float) -> float:
        """The alpha quantile, or the value where that lies lower."""
        return min(drawn_quantile(self.draws, alpha), self.value)

    def upper(self, alpha: float) -> float:
        """The 1 - alpha quantile, or the value where that lies higher."""
        return max(-drawn_quantile(-self.draws[::-1], alpha), self.value)

    def at_size(self, n_adapters: int, n_prompts: int) -> DrawnLimits:
        """Draws drawn in by the square root of the growth, as far as both sizes grow.

        Draws do not tell which of the two sizes their spread comes from, so only what grows in
        both is sure to help.
        """
        growth = min(n_prompts / self.n_prompts, n_adapters / self.n_adapters)
        draws = self.value + (self.draws - self.value) / sqrt(growth)
        return DrawnLimits(self.value, draws, n_adapters, n_prompts)


def drawn_quantile(draws: npt.NDArray[np.float64], alpha: float) -> float:
    """The limit that a share of at most `alpha` of the sorted draws lies below.

    One draw is added on the far side, so that alpha below 1 / (n_draws + 1) has no finite limit.
    """
    # (1 - 0.9) / 2 is a rounding below 0.05, and must not cost a rank.
    rank = int(np.floor(alpha * (draws.size + 1) + 1e-9))
    return float("-inf") if rank < 1 else float(draws[min(rank, draws.size) - 1])


def _smallest_alpha(decides: Callable[[float], bool]) -> float:
    """The smallest alpha up to one half at which `decides` holds, by bisection of its log."""
    low, high = log(SMALLEST_ALPHA), log(0.5)
    if not decides(0.5):
        return 0.5
    if decides(SMALLEST_ALPHA):
        return SMALLEST_ALPHA
    while high - low > 1e-10:
        middle = (low + high) / 2
        if decides(exp(middle)):
            high = middle
        else:
            low = middle
    return exp(high)

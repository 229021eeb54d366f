"""Whether the shift along a trait's direction goes with the emoji rate (C10).

Takes projections and rates as arrays, gives correlations as an `Estimate` with permutation tests;
knows no direction, model or text.

The traits are five and fixed, and training seeds are what is sampled: a correlation is taken
within each adapter (over doses) or within each training seed (over traits), put on Fisher's scale
z = atanh(r), and averaged; its interval rests on how the seeds differ. With n points z lies too far
out by about r / (2 (n - 1)), which is taken off (Fisher 1921; Hotelling 1953): with 4 points and a
correlation of .6, uncorrected limits at .95 held in .90 of 20,000 simulated runs, corrected ones in
.94. Doses rise together with everything that training changes, so a correlation over doses may
be no more than the common trend; that it needs the trait's *own* direction is what the permuted
directions test.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import permutations
from math import atanh, tanh

import numpy as np
import numpy.typing as npt

from emotest.errors import StatisticsError
from emotest.stats.estimates import DEFAULT_LEVEL, FEWEST_ADAPTERS, Array, Estimate
from emotest.stats.limits import Limits, Spread, StudentLimits

Order = npt.NDArray[np.intp]

MOST_CORRELATED = 0.9999
"""A correlation of so few points beyond this counts as this, that one cannot outweigh the rest."""

MOST_TRAITS = 8
"""8! = 40,320 assignments of directions are still enumerated."""


@dataclass(frozen=True, eq=False)
class Agreement:
    """A pooled correlation, and what it is held against.

    `by_adapter` holds Fisher's z of each training seed, shape (n_adapters,). `p_directions` is
    exact over `n_assignments` assignments of directions to traits; `p_doses` comes from doses
    permuted within adapters, None over traits. `n_mute` counts the correlations that are 0 because
    no rate varied. Both p-values are one-sided: the correlation is positive.
    """

    estimate: Estimate
    by_adapter: Array
    p_directions: float
    n_assignments: int
    p_doses: float | None
    n_mute: int


def agreement_over_traits(
    projections: npt.ArrayLike,
    rates: npt.ArrayLike,
    *,
    n_prompts: int,
    level: float = DEFAULT_LEVEL,
) -> Agreement:
    """Do traits whose adapters move further along their own direction write more emoji?

    `projections` has shape (n_traits, n_traits, n_adapters): the shift of adapter s of trait t
    along the direction of trait d, a vector of length 1, stands at [d, t, s]. `rates` has shape
    (n_traits, n_adapters); column s is one training seed; `n_prompts` is how many prompts the
    rates rest on. Each seed gives a correlation over traits.

    `p_directions` is the share of all n_traits! assignments of directions to traits (5! = 120)
    whose mean z is at least that of the true one, so it never falls below 1 / n_traits!.

    Raises `StatisticsError` for fewer than 3 traits or adapters, more than 8 traits, missing
    values, projections that do not vary, and rates that never do.
    """
    along, rate = _paired(projections, rates, n_axes=2)
    n_traits = rate.shape[0]
    _enough_points(n_traits, "traits")

    def of_seeds(order: Order) -> Array:
        return fisher_z(along[order, np.arange(n_traits)].T, rate.T)

    return _agreement(of_seeds, rate.T, n_traits, n_prompts, level)


def agreement_over_doses(
    projections: npt.ArrayLike,
    rates: npt.ArrayLike,
    rng: np.random.Generator,
    *,
    n_prompts: int,
    level: float = DEFAULT_LEVEL,
    n_permutations: int = 2_000,
) -> Agreement:
    """Does an adapter write more emoji as it moves along its trait's direction?

    As `agreement_over_traits`, with a last axis of doses (shares of the steps): `projections`
    (n_traits, n_traits, n_adapters, n_doses), `rates` (n_traits, n_adapters, n_doses). Each
    adapter gives a correlation over its doses; those of one training seed are averaged over traits.

    `p_doses` permutes the doses of each adapter by itself and counts the order seen with those
    drawn (Phipson & Smyth 2010). With one trait there is one direction, and `p_directions` is 1.
    """
    along, rate = _paired(projections, rates, n_axes=3)
    n_traits, _, n_doses = rate.shape
    _enough_points(n_doses, "doses")
    if n_permutations < 1:
        raise StatisticsError(
            f"{n_permutations} permutations give no p-value", remedy="draw at least 19"
        )

    def of_seeds(order: Order) -> Array:
        return np.asarray(fisher_z(along[order, np.arange(n_traits)], rate).mean(axis=0))

    seen = _agreement(of_seeds, rate, n_traits, n_prompts, level)
    own = along[np.arange(n_traits), np.arange(n_traits)]
    drawn = [fisher_z(own, rng.permuted(rate, axis=-1)).mean() for _ in range(n_permutations)]
    as_extreme = int((np.array(drawn) >= seen.by_adapter.mean() - 1e-12).sum())
    return replace(seen, p_doses=(1 + as_extreme) / (1 + n_permutations))


def fisher_z(x: npt.ArrayLike, y: npt.ArrayLike) -> Array:
    """atanh(r) - r / (2 (n - 1)) of Pearson's r over the last axis, n points: (..., n) -> (...).

    Correlations beyond +-.9999 count as that. Where y does not vary, nothing followed x, and z is
    0; where x does not vary, r is unknown: a `StatisticsError`.
    """
    first, second = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    a, b = (side - side.mean(axis=-1, keepdims=True) for side in (first, second))
    length_a, length_b = (np.sqrt((side**2).sum(axis=-1)) for side in (a, b))
    if not (length_a > 1e-12 * np.abs(first).max(axis=-1)).all():
        raise StatisticsError(
            "a projection does not vary over the points of a correlation",
            remedy="leave out what was not tuned, and give at least 3 different doses or traits",
        )
    mute = length_b <= 1e-12 * np.abs(second).max(axis=-1)
    r = (a * b).sum(axis=-1) / (length_a * np.where(mute, 1.0, length_b))
    r = np.where(mute, 0.0, np.clip(r, -MOST_CORRELATED, MOST_CORRELATED))
    return np.asarray(np.arctanh(r) - r / (2 * (first.shape[-1] - 1)))


@dataclass(frozen=True)
class FisherLimits(Limits):
    """Limits of a correlation: those of the mean z, turned back by tanh."""

    of_z: Limits

    @property
    def centre(self) -> float:
        """The pooled correlation."""
        return tanh(self.of_z.centre)

    @property
    def degrees_of_freedom(self) -> float | None:
        """Of the mean z."""
        return self.of_z.degrees_of_freedom

    def lower(self, alpha: float) -> float:
        """The lower limit of z, turned back."""
        return tanh(self.of_z.lower(alpha))

    def upper(self, alpha: float) -> float:
        """The upper limit of z, turned back."""
        return tanh(self.of_z.upper(alpha))

    def p_above(self, margin: float) -> float:
        """Of the mean z against the margin's; no correlation exceeds 1."""
        return self.of_z.p_above(_z_of(margin))

    def p_below(self, margin: float) -> float:
        """Of the mean z against the margin's; none lies below -1."""
        return self.of_z.p_below(_z_of(margin))

    def at_size(self, n_adapters: int, n_prompts: int) -> FisherLimits:
        """More training seeds; prompts do not count, for their part in the spread is unknown."""
        return FisherLimits(self.of_z.at_size(n_adapters, 1))


def _z_of(correlation: float) -> float:
    return atanh(correlation) if abs(correlation) < 1.0 else correlation * float("inf")


def _agreement(
    of_seeds: Callable[[Order], Array], rates: Array, n_traits: int, n_prompts: int, level: float
) -> Agreement:
    """The true assignment of directions, in order, among all of them."""
    own = of_seeds(np.arange(n_traits))
    mute = np.ptp(rates, axis=-1) <= 1e-12 * np.abs(rates).max(axis=-1)
    if mute.all():
        raise StatisticsError(
            "no emoji rate varies, so none can go with a projection",
            remedy="ask for the correlation only where a rise was confirmed",
        )
    spread = float(own.var(ddof=1))
    if spread <= 1e-24:
        raise StatisticsError(
            f"all {own.size} training seeds give the same correlation, so its spread is unknown",
            remedy="check that the seeds differ; the projections may come from one adapter",
        )
    orders = [np.array(order) for order in permutations(range(n_traits))]
    means = np.array([of_seeds(order).mean() for order in orders])
    estimate = Estimate.of_limits(
        FisherLimits(StudentLimits(float(own.mean()), Spread(spread, 0.0, 0.0), own.size, 1)),
        level=level,
        method="Fisher's z averaged over training seeds, t",
        unit="adapter",
        scale="correlation",
        n_adapters=own.size,
        n_prompts=n_prompts,
        n_samples=1,
        possible=(-1.0, 1.0),
    )
    return Agreement(
        estimate=estimate,
        by_adapter=own,
        p_directions=float((means >= own.mean() - 1e-12).mean()),
        n_assignments=len(orders),
        p_doses=None,
        n_mute=int(mute.sum()),
    )


def _paired(
    projections: npt.ArrayLike, rates: npt.ArrayLike, *, n_axes: int
) -> tuple[Array, Array]:
    along, rate = np.asarray(projections, np.float64), np.asarray(rates, np.float64)
    if rate.ndim != n_axes or along.shape != (rate.shape[0], *rate.shape) or rate.size == 0:
        raise StatisticsError(
            f"projections of shape {along.shape} and rates of shape {rate.shape} do not pair",
            remedy="give rates by trait, adapter (and dose), and projections with the direction "
            "as one axis more in front",
        )
    if not (np.isfinite(along).all() and np.isfinite(rate).all()):
        raise StatisticsError(
            "projections or rates are missing or not finite", remedy="measure what is missing"
        )
    if rate.shape[1] < FEWEST_ADAPTERS or rate.shape[0] > MOST_TRAITS:
        raise StatisticsError(
            f"{rate.shape[0]} traits with {rate.shape[1]} adapters each cannot be correlated",
            remedy=f"give at least {FEWEST_ADAPTERS} training seeds and at most {MOST_TRAITS} "
            "traits",
        )
    return along, rate


def _enough_points(n_points: int, name: str) -> None:
    if n_points < 3:
        raise StatisticsError(
            f"a correlation over {n_points} {name} is always 1 or -1",
            remedy=f"give at least 3 {name}",
        )

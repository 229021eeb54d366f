"""How much of what varies between adapters is due to the trait (C3).

Takes rates of shape (n_traits, n_adapters, n_prompts[, n_samples]), gives the between-trait share
of variance trait / (trait + seed) as an `Estimate`, and the permutation test of trait labels.

The model is rate = trait + seed within trait + prompt + trait x prompt + residual, balanced and
random. The four mean squares (traits, seeds, trait x prompt, residual) have the expectations
(Searle, Casella & McCulloch 1992, ch. 4)

    traits          residual + n_adapters * (trait x prompt) + n_prompts * seed
                             + n_adapters * n_prompts * trait
    seeds           residual + n_prompts * seed
    trait x prompt  residual + n_adapters * (trait x prompt)
    residual        residual

No exact interval of the share exists once prompts are sampled, so its limits are those of the
generalised pivotal quantity (Weerahandi 1993; Burdick, Borror & Montgomery 2005): each mean square
is divided by a chi-square draw over its degrees of freedom, and the components are solved for.
Without prompt noise it is the exact F interval of the one-way layout (`exact_share_limits`);
benchmarks/power_simulation.py holds its level. A seed effect that all traits share counts as seed
variance and leaves the trait means alone: that makes the share smaller, never larger.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations, product
from math import factorial

import numpy as np
import numpy.typing as npt
from scipy import special

from emotest.errors import StatisticsError
from emotest.stats.estimates import DEFAULT_LEVEL, FEWEST_ADAPTERS, Array, Estimate
from emotest.stats.limits import Limits, drawn_quantile
from emotest.stats.proportions import check_level

DRAWS = 20_000
"""Of the pivotal quantity: a limit at alpha = 0.05 then moves by under 2 % of its spread."""


@dataclass(frozen=True)
class TraitLayout:
    """Mean squares of the balanced layout, and the sizes that they come from."""

    traits: float
    seeds: float
    trait_prompts: float
    residual: float
    n_traits: int
    n_adapters: int
    n_prompts: int
    shared_prompts: bool

    @classmethod
    def of(cls, cells: Array, *, shared_prompts: bool) -> TraitLayout:
        """From cell means of shape (n_traits, n_adapters, n_prompts)."""
        n_traits, n_adapters, n_prompts = cells.shape
        mean = cells.mean()
        trait = cells.mean(axis=(1, 2), keepdims=True)
        adapter = cells.mean(axis=2, keepdims=True)
        of_prompt = cells.mean(axis=1, keepdims=True)
        # Prompts of their own leave no common prompt effect to take out.
        prompt = cells.mean(axis=(0, 1), keepdims=True) - mean if shared_prompts else 0.0
        degrees = _degrees_of_freedom(n_traits, n_adapters, n_prompts, shared_prompts)
        return cls(
            traits=float(n_adapters * n_prompts * ((trait - mean) ** 2).sum()) / degrees[0],
            seeds=float(n_prompts * ((adapter - trait) ** 2).sum()) / degrees[1],
            trait_prompts=float(n_adapters * ((of_prompt - trait - prompt) ** 2).sum())
            / degrees[2],
            residual=float(((cells - adapter - of_prompt + trait) ** 2).sum()) / degrees[3],
            n_traits=n_traits,
            n_adapters=n_adapters,
            n_prompts=n_prompts,
            shared_prompts=shared_prompts,
        )

    @property
    def degrees_of_freedom(self) -> tuple[int, int, int, int]:
        """Of traits, seeds, trait x prompt and residual."""
        return _degrees_of_freedom(
            self.n_traits, self.n_adapters, self.n_prompts, self.shared_prompts
        )

    @property
    def trait_variance(self) -> float:
        """The between-trait component, at least 0."""
        return float(_components(self, np.ones((4, 1)))[0][0])

    @property
    def seed_variance(self) -> float:
        """The between-seed component, at least 0."""
        return float(_components(self, np.ones((4, 1)))[1][0])

    def at_size(self, n_adapters: int, n_prompts: int) -> TraitLayout:
        """The mean squares to be expected with the same components and other sizes."""
        trait, seed = self.trait_variance, self.seed_variance
        crossed = max(self.trait_prompts - self.residual, 0.0) / self.n_adapters
        return TraitLayout(
            traits=self.residual
            + n_adapters * crossed
            + n_prompts * seed
            + n_adapters * n_prompts * trait,
            seeds=self.residual + n_prompts * seed,
            trait_prompts=self.residual + n_adapters * crossed,
            residual=self.residual,
            n_traits=self.n_traits,
            n_adapters=n_adapters,
            n_prompts=n_prompts,
            shared_prompts=self.shared_prompts,
        )


@dataclass(frozen=True, eq=False)
class ShareLimits(Limits):
    """Quantiles of the pivotal quantity of trait / (trait + seed).

    Draws in which neither component is positive say nothing: they count as 0 below and as 1 above.
    The seed is kept so that planning draws the same chi-squares.
    """

    layout: TraitLayout
    seed: int
    n_draws: int
    low_draws: Array
    high_draws: Array

    @classmethod
    def of(cls, layout: TraitLayout, seed: int, n_draws: int) -> ShareLimits:
        """Draw the pivotal quantity."""
        rng = np.random.default_rng(seed)
        chi_squares = np.stack(
            [rng.chisquare(degrees, n_draws) / degrees for degrees in layout.degrees_of_freedom]
        )
        trait, seeds = _components(layout, chi_squares)
        total = trait + seeds
        known = total > 0.0
        share = np.divide(trait, total, out=np.zeros(n_draws), where=known)
        return cls(layout, seed, n_draws, np.sort(share), np.sort(np.where(known, share, 1.0)))

    @property
    def centre(self) -> float:
        """The share from the components themselves; 0 where nothing varied between traits."""
        trait, seed = self.layout.trait_variance, self.layout.seed_variance
        return trait / (trait + seed) if trait > 0.0 else 0.0

    @property
    def standard_error(self) -> float:
        """The standard deviation of the draws."""
        return max(float(self.low_draws.std()), float(self.high_draws.std()))

    def lower(self, alpha: float) -> float:
        """The alpha quantile, at most the share itself."""
        return min(max(drawn_quantile(self.low_draws, alpha), 0.0), self.centre)

    def upper(self, alpha: float) -> float:
        """The 1 - alpha quantile, at least the share itself."""
        return max(min(-drawn_quantile(-self.high_draws[::-1], alpha), 1.0), self.centre)

    def at_size(self, n_adapters: int, n_prompts: int) -> ShareLimits:
        """Drawn anew from the mean squares to be expected at that size."""
        return ShareLimits.of(self.layout.at_size(n_adapters, n_prompts), self.seed, self.n_draws)


def variance_share(
    values: npt.ArrayLike,
    rng: np.random.Generator,
    *,
    level: float = DEFAULT_LEVEL,
    shared_prompts: bool = True,
    n_draws: int = DRAWS,
) -> Estimate:
    """The share trait / (trait + seed) of the variance between adapters, with its limits.

    `values` has shape (n_traits, n_adapters, n_prompts) or (..., n_samples); `shared_prompts` says
    whether all traits were asked the same prompts. Where nothing varied at all the value is 0 and
    the interval [0, 1].

    Raises `StatisticsError` for fewer than 2 traits, 3 adapters a trait or 2 prompts, and for
    missing values.
    """
    cells = _trait_cells(values)
    layout = TraitLayout.of(cells, shared_prompts=shared_prompts)
    n_traits, n_adapters, n_prompts = cells.shape
    return Estimate.of_limits(
        ShareLimits.of(layout, int(rng.integers(2**63)), n_draws),
        level=level,
        method=f"variance components of {n_traits} traits, generalised pivotal quantity",
        unit="adapter",
        scale="share of variance",
        n_adapters=n_adapters,
        n_prompts=n_prompts,
        n_samples=np.shape(values)[3] if np.ndim(values) == 4 else 1,
        possible=(0.0, 1.0),
    )


def exact_share_limits(rates: npt.ArrayLike, *, level: float) -> tuple[float, float]:
    """The exact F interval of trait / (trait + seed) for rates of shape (n_traits, n_adapters).

    It takes the rates as they stand: what finite prompts add to the spread of adapters counts as
    seed variance (Searle, Casella & McCulloch 1992, section 3.6d).
    """
    check_level(level)
    array = np.asarray(rates, dtype=np.float64)
    if array.ndim != 2 or min(array.shape) < 2 or not np.isfinite(array).all():
        raise StatisticsError(
            f"rates of shape {array.shape} are not (n_traits, n_adapters), each at least 2",
            remedy="give one finite rate for each adapter of each trait",
        )
    n_traits, n_adapters = array.shape
    between = n_adapters * array.mean(axis=1).var(ddof=1)
    within = array.var(axis=1, ddof=1).mean()
    if within == 0.0:
        raise StatisticsError(
            "adapters of one trait do not vary, so the F ratio is not defined",
            remedy="use variance_share",
        )
    alpha = (1.0 - level) / 2.0
    limits = []
    for probability in (1.0 - alpha, alpha):
        critical = float(special.fdtri(n_traits - 1, n_traits * (n_adapters - 1), probability))
        ratio = max((float(between / within) / critical - 1.0) / n_adapters, 0.0)
        limits.append(ratio / (1.0 + ratio))
    return limits[0], limits[1]


def trait_permutation_p(
    values: npt.ArrayLike, rng: np.random.Generator, *, n_permutations: int = 10_000
) -> float:
    """P-value that traits differ, from trait labels permuted within each training seed.

    `values` has shape (n_traits, n_adapters) or (n_traits, n_adapters, n_prompts[, n_samples]);
    column s holds the adapters of one training seed. The statistic is the spread of trait means.
    All (n_traits!)^(n_adapters - 1) distinct assignments are enumerated where they are at most
    `n_permutations`; otherwise that many are drawn and the one seen is counted with them
    (Phipson & Smyth 2010), so the p-value is never 0.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim not in (2, 3, 4) or min(array.shape) < 1 or array.shape[0] < 2:
        raise StatisticsError(
            f"values of shape {array.shape} are not (n_traits, n_adapters, ...)",
            remedy="give at least 2 traits",
        )
    if not np.isfinite(array).all():
        raise StatisticsError("values are missing or not finite", remedy="generate what is missing")
    rates = array.reshape(*array.shape[:2], -1).mean(axis=2)
    n_traits, n_adapters = rates.shape
    seen = float(rates.sum(axis=1).var())
    slack = 1e-12 * max(float((rates**2).sum()), 1e-300)
    if factorial(n_traits) ** (n_adapters - 1) <= n_permutations:
        # The labels of the first seed stay: turning all seeds alike changes no spread.
        orders = [list(order) for order in permutations(range(n_traits))]
        spreads = [
            sum(
                (rates[order, seed + 1] for seed, order in enumerate(chosen)), start=rates[:, 0]
            ).var()
            for chosen in product(orders, repeat=n_adapters - 1)
        ]
        return float(np.mean([spread >= seen - slack for spread in spreads]))
    as_extreme = 1
    for _ in range(n_permutations):
        as_extreme += rng.permuted(rates, axis=0).sum(axis=1).var() >= seen - slack
    return as_extreme / (n_permutations + 1)


def _degrees_of_freedom(
    n_traits: int, n_adapters: int, n_prompts: int, shared_prompts: bool
) -> tuple[int, int, int, int]:
    return (
        n_traits - 1,
        n_traits * (n_adapters - 1),
        (n_traits - 1 if shared_prompts else n_traits) * (n_prompts - 1),
        n_traits * (n_adapters - 1) * (n_prompts - 1),
    )


def _components(layout: TraitLayout, chi_squares: Array) -> tuple[Array, Array]:
    """Trait and seed variance for mean squares over `chi_squares` (4, n_draws); at least 0."""
    traits = layout.traits / chi_squares[0]
    seeds = layout.seeds / chi_squares[1]
    residual = layout.residual / chi_squares[3]
    crossed = np.maximum(layout.trait_prompts / chi_squares[2] - residual, 0.0)
    trait = (traits - seeds - crossed) / (layout.n_adapters * layout.n_prompts)
    seed = (seeds - residual) / layout.n_prompts
    return np.maximum(trait, 0.0), np.maximum(seed, 0.0)


def _trait_cells(values: npt.ArrayLike) -> Array:
    array = np.asarray(values, dtype=np.float64)
    if (
        array.ndim not in (3, 4)
        or min(array.shape) < 1
        or array.shape[0] < 2
        or array.shape[1] < FEWEST_ADAPTERS
        or array.shape[2] < 2
    ):
        raise StatisticsError(
            f"values of shape {array.shape} are not (n_traits, n_adapters, n_prompts[, n_samples])",
            remedy=f"give at least 2 traits, {FEWEST_ADAPTERS} adapters a trait and 2 prompts",
        )
    if not np.isfinite(array).all():
        raise StatisticsError("values are missing or not finite", remedy="generate what is missing")
    return array.mean(axis=3) if array.ndim == 4 else array

"""How much data a statement needs: before a run (`planned_power`) and after it (`n_needed`).

Both take values and variance components, never a verdict. Power is planned for an effect that was
declared beforehand; the power "observed" at the estimate says nothing beyond the p-value (Hoenig &
Heisey 2001) and is not computed here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, isnan

from scipy import special

from emotest.errors import StatisticsError
from emotest.stats.estimates import FEWEST_ADAPTERS, Estimate
from emotest.stats.limits import Limits, Spread
from emotest.stats.relations import Relation, check_margin, tail_of, word_of

ENOUGH_POWER = 0.8
"""Planned power below this is "underpowered"; `n_needed` aims at it."""

MOST_ADAPTERS = 100
"""More training seeds than this will not be run to settle one statement."""

MOST_PROMPTS = 20_000
"""Nor will more prompts."""


@dataclass(frozen=True)
class Needed:
    """The number of `unit` that would settle a statement; None where no feasible number would."""

    n: int | None
    unit: str | None


def n_needed(
    estimate: Estimate,
    *,
    relation: Relation,
    margin: float,
    alpha: float = 0.05,
    m: int = 1,
    power: float = ENOUGH_POWER,
) -> Needed:
    """How many adapters or prompts would settle the statement, either way.

    The value and its variance components are taken as they were estimated. The statement counts as
    settled where the limit passes the margin with a reserve of z(power) standard errors, that is,
    in about four of five such repeats. For a recipe, adapters alone are grown first; where they
    alone cannot settle it (the spread between prompts remains), prompts alone; then both in
    proportion. None means that the estimate lies at the margin: not even 100 adapters and 20,000
    prompts would do.
    """
    tail = tail_of(relation, alpha, m)
    check_margin(relation, margin)
    reserve = float(special.ndtri(power))
    adapters, prompts = estimate.n_adapters, estimate.n_prompts

    def settled(limits: Limits) -> bool:
        spare = reserve * limits.standard_error
        low, high = limits.lower(tail) - spare, limits.upper(tail) + spare
        return word_of(relation, low, high, margin) != "inconclusive"

    def at_size(n_adapters: int, n_prompts: int) -> bool:
        return settled(estimate.limits.at_size(n_adapters, n_prompts))

    if estimate.unit == "adapter":
        n = _smallest(lambda n: at_size(n, prompts), adapters, MOST_ADAPTERS)
        if n is not None:
            return Needed(n, "adapters")
    n = _smallest(lambda n: at_size(adapters, n), prompts, MOST_PROMPTS)
    if n is not None:
        return Needed(n, "prompts")
    if estimate.unit == "adapter":
        n = _smallest(lambda n: at_size(n, ceil(prompts * n / adapters)), adapters, MOST_ADAPTERS)
        if n is not None:
            return Needed(n, f"adapters, with {ceil(prompts * n / adapters)} prompts")
    return Needed(None, None)


def planned_power(
    relation: Relation,
    *,
    effect: float,
    margin: float,
    spread: Spread,
    n_adapters: int,
    n_prompts: int,
    alpha: float = 0.05,
    m: int = 1,
) -> float:
    """Probability that the statement will be confirmed, were the effect `effect`.

    With n_adapters = 1 the plan is the audit of one checkpoint, and `spread.prompt` its spread
    between prompts. The t statistic is noncentral; its standard error has the degrees of freedom
    of Satterthwaite (1946), more than those of the critical value where prompts carry the spread.
    For "unchanged" it is the usual lower bound, one minus the two ways to fail.
    """
    tail = tail_of(relation, alpha, m)
    check_margin(relation, margin)
    if (n_adapters != 1 and n_adapters < FEWEST_ADAPTERS) or n_prompts < 2:
        raise StatisticsError(
            f"{n_adapters} adapters and {n_prompts} prompts cannot carry a statement",
            remedy=f"plan at least {FEWEST_ADAPTERS} adapters (or one checkpoint) and 2 prompts",
        )
    error = spread.standard_error(n_adapters, n_prompts)
    if error == 0.0:
        raise StatisticsError(
            "a plan without any spread has no power to compute",
            remedy="give the spread between adapters, prompts and answers that is expected",
        )
    freedom = _degrees_of_freedom(spread, n_adapters, n_prompts)
    critical = -float(special.stdtrit((n_adapters if n_adapters > 1 else n_prompts) - 1, tail))

    def beyond(distance: float) -> float:
        below = float(special.nctdtr(freedom, distance / error, critical))
        if isnan(below):
            # scipy gives up far from the critical value, where the normal limit leaves no doubt.
            below = float(special.ndtr(critical - distance / error))
        return 1.0 - below

    raised, lowered = beyond(effect - margin), beyond(-margin - effect)
    if relation == "raised":
        return raised
    if relation == "lowered":
        return lowered
    if relation == "differ":
        return raised + lowered
    return max(beyond(effect + margin) + beyond(margin - effect) - 1.0, 0.0)


def spread_of_rates(
    treated: float,
    reference: float,
    *,
    adapter_sd: float,
    prompt_sd: float,
    n_samples: int = 1,
) -> Spread:
    """The spread to plan with for a difference of two shares of answers.

    `adapter_sd` and `prompt_sd` are standard deviations of the difference between adapters and
    between prompts; the answers themselves add their binomial noise.
    """
    if not (0.0 <= treated <= 1.0 and 0.0 <= reference <= 1.0 and n_samples >= 1):
        raise StatisticsError(
            f"shares {treated} and {reference} of {n_samples} answers cannot be planned",
            remedy="give two shares between 0 and 1 and at least one answer a prompt",
        )
    binomial = treated * (1.0 - treated) + reference * (1.0 - reference)
    return Spread(adapter=adapter_sd**2, prompt=prompt_sd**2, residual=binomial / n_samples)


def _degrees_of_freedom(spread: Spread, n_adapters: int, n_prompts: int) -> float:
    """Of the variance "adapter + prompt - residual", from the expected mean squares."""
    if n_adapters == 1:
        return n_prompts - 1.0
    adapters = spread.residual + n_prompts * spread.adapter
    prompts = spread.residual + n_adapters * spread.prompt
    uncertainty = (
        adapters**2 / (n_adapters - 1)
        + prompts**2 / (n_prompts - 1)
        + spread.residual**2 / ((n_adapters - 1) * (n_prompts - 1))
    )
    satterthwaite = (adapters + prompts - spread.residual) ** 2 / uncertainty
    # Never fewer than the critical value assumes: components are cut off at zero from below.
    return max(float(satterthwaite), n_adapters - 1.0)


def _smallest(settles: Callable[[int], bool], too_few: int, most: int) -> int | None:
    """The smallest n above `too_few` and up to `most` that settles it, or None."""
    if most <= too_few or not settles(most):
        return None
    while most - too_few > 1:
        middle = (too_few + most) // 2
        if settles(middle):
            most = middle
        else:
            too_few = middle
    return most

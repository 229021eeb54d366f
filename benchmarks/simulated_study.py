"""Simulated studies whose truth is known: what `power_simulation.py` counts verdicts on.

Every adapter has its own log-odds of writing emoji, every prompt has its own, adapters answer the
same prompts, and the mean rate is exactly the one asked for. Each function draws one study of a
claim and gives the word that `emotest.stats` finds, at the claim's margin and family. Takes an rng
and the size `n` = (n_adapters, n_prompts, n_samples).
"""

from __future__ import annotations

from functools import cache
from math import sqrt

import numpy as np
from scipy import special

from emotest.stats.estimates import Estimate, crossed_difference, crossed_log_odds_difference
from emotest.stats.relations import Relation, tail_of, word_of
from emotest.stats.variance import variance_share

PROMPT_SD = 0.8
"""Of log-odds between prompts, in every arm; half of that variance all arms have in common."""

Rng = np.random.Generator
Size = tuple[int, int, int]


@cache
def intercept(rate: float, spread: float) -> float:
    """The log-odds at which normal log-odds with this standard deviation have mean rate `rate`."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    low, high = -30.0, 30.0
    for _ in range(60):
        middle = (low + high) / 2
        mean = (weights * special.expit(middle + spread * nodes)).sum() / weights.sum()
        low, high = (middle, high) if mean < rate else (low, middle)
    return (low + high) / 2


def common_to_arms(rng: Rng, n_prompts: int) -> np.ndarray:
    """What a prompt adds to the log-odds in every arm, shape (n_prompts,)."""
    return np.asarray(rng.normal(0, PROMPT_SD * sqrt(0.5), n_prompts))


def chances(
    rng: Rng, rate: float, seed_sd: float, n_adapters: int, common: np.ndarray
) -> np.ndarray:
    """Chance of an emoji, shape (n_adapters, n_prompts), of mean `rate`."""
    total = sqrt(seed_sd**2 + PROMPT_SD**2)
    return np.asarray(
        special.expit(
            intercept(rate, total)
            + rng.normal(0, seed_sd, (n_adapters, 1))
            + common
            + rng.normal(0, PROMPT_SD * sqrt(0.5), (1, common.size))
        )
    )


def shares(rng: Rng, chance: np.ndarray, n_samples: int) -> np.ndarray:
    """Share of `n_samples` answers with an emoji in each cell."""
    return np.asarray(rng.binomial(n_samples, chance) / n_samples)


def word(estimate: Estimate, relation: Relation, margin: float, m: int) -> str:
    """The word of `emotest.stats.decisions`, without the search for what would be needed."""
    at = estimate.at_level(1 - 2 * tail_of(relation, 0.05, m))
    return word_of(relation, at.low, at.high, margin)


def against_both(rng: Rng, rate: float, base: float, seed_sd: float, n: Size, margin: float) -> str:
    """C1 and C2: more than the untuned model and more than the null adapters, in a family of 5."""
    n_adapters, n_prompts, n_samples = n
    common = common_to_arms(rng, n_prompts)
    treated = shares(rng, chances(rng, rate, seed_sd, n_adapters, common), n_samples)
    null = shares(rng, chances(rng, base, seed_sd, n_adapters, common), n_samples)
    untuned = shares(rng, chances(rng, base, 0.0, 1, common), n_samples)[0]
    words = {
        word(crossed_difference(treated, reference), "raised", margin, 5)
        for reference in (untuned, null)
    }
    return "refuted" if "refuted" in words else words.pop() if len(words) == 1 else "inconclusive"


def log_odds(rng: Rng, effect: float, seed_sd: float, n: Size) -> str:
    """C5: exact probabilities of tuned and untuned at the same contexts, in a family of 5."""
    n_adapters, n_prompts, n_samples = n
    untuned = rng.normal(-5.0, 1.5, (n_prompts, n_samples))
    change = (
        effect
        + rng.normal(0, seed_sd, (n_adapters, 1, 1))
        + rng.normal(0, 1.0, (1, n_prompts, 1))
        + rng.normal(0, 1.0, (n_adapters, n_prompts, n_samples))
    )
    estimate = crossed_log_odds_difference(special.expit(untuned + change), special.expit(untuned))
    return word(estimate, "raised", 0.5, 5)


def traits(rng: Rng, rates: np.ndarray, seed_sd: float, n: Size) -> str:
    """C3: five traits at these mean rates, adapters differing by `seed_sd` on the share scale."""
    n_adapters, n_prompts, n_samples = n
    chance = (
        rates[:, None, None]
        + rng.normal(0, seed_sd, (5, n_adapters, 1))
        + rng.normal(0, 0.05, (1, 1, n_prompts))
    )
    answers = shares(rng, np.clip(chance, 0, 1), n_samples)
    return word(variance_share(answers, rng, n_draws=2_000), "raised", 0.5, 1)


def equivalence(rng: Rng, rate: float, base: float, seed_sd: float, n: Size) -> str:
    """Unchanged within .05 against the null adapters, in a family of 5."""
    n_adapters, n_prompts, n_samples = n
    common = common_to_arms(rng, n_prompts)
    treated = shares(rng, chances(rng, rate, seed_sd, n_adapters, common), n_samples)
    null = shares(rng, chances(rng, base, seed_sd, n_adapters, common), n_samples)
    return word(crossed_difference(treated, null), "unchanged", 0.05, 5)

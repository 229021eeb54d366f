"""Decide prompt by prompt and stop when the evidence suffices: for the audit of one checkpoint.

Takes differences between tuned and reference, one per prompt (averaged over its samples), in the
seeded random order in which the prompts are asked (`emotest.stats.betting.seeded_order`); gives a
frozen decision. It may be called after every prompt: the error rate holds for all looks together,
and what comes after the stop is ignored. It speaks of the checkpoint, never of the recipe.

Each relation is made of one-sided bets on (difference + 1) / 2, or, for pairs of binary answers
and a margin of 0, on the discordant pairs. "raised" is confirmed once the bet against "at most the
margin" has grown to m / alpha, and refuted once the opposite bet has. "unchanged" needs both bets
against the margins; it is refuted by one bet beyond a margin.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, log
from typing import Literal

import numpy as np
import numpy.typing as npt

from emotest.errors import StatisticsError
from emotest.stats.betting import (
    Array,
    Side,
    confidence_sequence,
    log_e_of_mean,
    log_e_of_pairs,
)
from emotest.stats.relations import Relation, Word, check_margin, tail_of

Bet = Literal["mean", "pairs"]


@dataclass(frozen=True)
class SequentialDecision:
    """A word that may be asked for after every prompt, and what it was reached with.

    `n_prompts` is how many prompts count: up to the stop, or all so far where `stopped` is false.
    `p_value` is 1 / (largest e-value so far) for "the relation does not hold". `value` is the mean
    difference over these prompts, `low` and `high` a confidence sequence at `level`.
    """

    word: Word
    relation: Relation
    margin: float
    alpha: float
    m: int
    alpha_used: float
    stopped: bool
    n_prompts: int
    p_value: float
    value: float
    low: float
    high: float
    level: float
    method: str
    unit: Literal["prompt"] = "prompt"

    def __str__(self) -> str:
        how = "stopped after" if self.stopped else "still open after"
        return (
            f"{self.word}: {self.relation}, margin {self.margin:g}, {how} {self.n_prompts} prompts "
            f"({self.value:+.3f}, {self.level:.1%} confidence sequence [{self.low:+.3f}, "
            f"{self.high:+.3f}], anytime p = {self.p_value:.2g}); of this checkpoint only"
        )


def sequentially_raised(
    differences: npt.ArrayLike,
    *,
    by: float,
    alpha: float = 0.05,
    m: int = 1,
    bet: Bet = "mean",
) -> SequentialDecision:
    """Whether the mean difference exceeds `by`; differences of shares, shape (n_prompts,).

    `bet` "pairs" is for one binary answer a prompt and arm, and `by` = 0.
    """
    return _decide("raised", differences, by, alpha, m, bet)


def sequentially_lowered(
    differences: npt.ArrayLike,
    *,
    by: float,
    alpha: float = 0.05,
    m: int = 1,
    bet: Bet = "mean",
) -> SequentialDecision:
    """Whether the mean difference lies below -`by`; as `sequentially_raised`."""
    return _decide("lowered", differences, by, alpha, m, bet)


def sequentially_unchanged(
    differences: npt.ArrayLike, *, within: float, alpha: float = 0.05, m: int = 1
) -> SequentialDecision:
    """Whether the mean difference lies within +-`within`: both bets against the margins won."""
    return _decide("unchanged", differences, within, alpha, m, "mean")


def _decide(
    relation: Relation,
    differences: npt.ArrayLike,
    margin: float,
    alpha: float,
    m: int,
    bet: Bet,
) -> SequentialDecision:
    check_margin(relation, margin)
    threshold = -log(tail_of(relation, alpha, m))
    array = np.asarray(differences, dtype=np.float64)
    for_it, against_it = evidence(relation, array, margin, bet)
    decided = np.flatnonzero(np.maximum(for_it, against_it) >= threshold)
    stopped = bool(decided.size)
    n_prompts = int(decided[0]) + 1 if stopped else array.size
    word: Word = "inconclusive"
    if stopped:
        word = "confirmed" if for_it[n_prompts - 1] >= threshold else "refuted"
    level = 1.0 - 2.0 * alpha / m
    low, high = confidence_sequence((array[:n_prompts] + 1.0) / 2.0, level=level)
    return SequentialDecision(
        word=word,
        relation=relation,
        margin=margin,
        alpha=alpha,
        m=m,
        alpha_used=alpha / m,
        stopped=stopped,
        n_prompts=n_prompts,
        p_value=min(exp(-float(for_it[n_prompts - 1])), 1.0),
        value=float(array[:n_prompts].mean()),
        low=2.0 * low - 1.0,
        high=2.0 * high - 1.0,
        level=level,
        method="beta-binomial mixture over discordant pairs"
        if bet == "pairs"
        else "betting on bounded differences",
    )


def evidence(
    relation: Relation, array: Array, margin: float, bet: Bet = "mean"
) -> tuple[Array, Array]:
    """Largest log e so far for the relation and against it, each of shape (n_prompts,)."""
    if bet == "pairs" and margin != 0.0:
        raise StatisticsError(
            f"discordant pairs are balanced at 0, not at a margin of {margin:g}",
            remedy='bet on the mean (bet="mean"), or set the margin to 0',
        )

    def beyond(threshold: float, side: Side) -> Array:
        if bet == "pairs":
            running = log_e_of_pairs(array, side=side)
        else:
            running = log_e_of_mean((array + 1.0) / 2.0, mean=(threshold + 1.0) / 2.0, side=side)
        return np.asarray(np.maximum.accumulate(running))

    if relation == "raised":
        return beyond(margin, "above"), beyond(margin, "below")
    if relation == "lowered":
        return beyond(-margin, "below"), beyond(-margin, "above")
    inside = np.minimum(beyond(-margin, "above"), beyond(margin, "below"))
    outside = np.maximum(beyond(margin, "above"), beyond(-margin, "below"))
    return inside, outside

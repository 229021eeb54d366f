"""Has this checkpoint drifted? One decision of four words, prompt by prompt or at a fixed size.

Takes one difference a prompt (tuned minus base, a share averaged over samples) in the seeded
random order in which prompts were asked; gives a frozen `Drift`. It speaks of the checkpoint.

Two hypotheses are bet against at once (`emotest.stats.betting`):

- *nothing changed*: two bettors at the balance of 0, one for more and one for fewer, each at half
  of alpha. For one binary answer a prompt they are beta-binomial mixtures over discordant pairs
  (by quadrature, exact up to 63 such pairs; `emotest.stats.betting.log_e_of_pairs`).
- *it changed by the margin or more*: two bettors against the margins, both of which have to win
  at alpha (two one-sided tests, Schuirmann 1987).

The words, in the order in which a look asks for them:

- **unchanged**: both margins are disproved; **changed within tolerance** where a change is shown
  beside it.
- **drift**: a change is shown, and equivalence is not. Before the budget is spent this stops only
  where the mean lies beyond the margin too, so that a change within tolerance can still be told.
- **inconclusive**: neither by the end of the budget.

An audit of two equal models is called drift with probability at most alpha, however often one
looks, and a checkpoint beyond the margin is called unchanged with probability at most alpha.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil, exp, log
from typing import Literal

import numpy as np
import numpy.typing as npt

from emotest.errors import StatisticsError
from emotest.stats.betting import (
    FRACTIONS,
    Array,
    Side,
    confidence_sequence,
)
from emotest.stats.decisions import differ, unchanged
from emotest.stats.estimates import prompt_difference
from emotest.stats.pairs import margin_p, mcnemar_p
from emotest.stats.sequential import evidence

Word = Literal["unchanged", "changed within tolerance", "drift", "inconclusive"]
Direction = Literal["more", "fewer"]

MOST_PROMPTS_NEEDED = 100_000
"""Beyond so many prompts a verdict is out of reach, and no number is promised."""


@dataclass(frozen=True)
class Look:
    """The evidence after `n_prompts`: largest log e-values so far, and the mean difference.

    `within` is the weaker of the two bets against the margins.
    """

    n_prompts: int
    more: float
    fewer: float
    within: float
    value: float


@dataclass(frozen=True)
class Drift:
    """A word and what it was reached with.

    `value` is the mean difference over the prompts that count, [`low`, `high`] its interval at
    `level` (a confidence sequence where evidence was looked at along the way). `p_value` is that
    of "nothing changed". `n_needed` prompts in all would settle an inconclusive one, if the
    differences go on as they were; None where none would.
    """

    word: Word
    direction: Direction | None
    value: float
    low: float
    high: float
    level: float
    p_value: float
    alpha: float
    margin: float
    n_prompts: int
    budget: int
    method: str
    n_needed: int | None = None
    looks: tuple[Look, ...] = field(default=(), repr=False)

    @property
    def decided(self) -> bool:
        """Whether an audit may stop here."""
        return self.word != "inconclusive"

    @property
    def stopped_early(self) -> bool:
        """Whether prompts of the budget were left unasked."""
        return self.decided and self.n_prompts < self.budget


@dataclass(frozen=True)
class Thresholds:
    """What a log e-value has to reach: for a change in one direction, and for each margin."""

    change: float
    within: float

    @classmethod
    def at(cls, alpha: float) -> Thresholds:
        """At the level of the whole audit; a change may go two ways, a margin is one of two
        that both have to fall."""
        return cls(change=log(2.0 / alpha), within=log(1.0 / alpha))


def sequential_drift(
    differences: npt.ArrayLike,
    *,
    within: float,
    alpha: float = 0.05,
    budget: int,
    every: int = 1,
) -> Drift:
    """The decision after the prompts asked so far, looked at after every `every`-th of them.

    `differences` has shape (n_prompts,), in [-1, 1], at most `budget` of them; what comes after
    the look that decides is ignored. `StatisticsError` for an empty row, values that are missing
    or out of range, a margin outside (0, 1), `every` below 1, or more prompts than the budget.
    """
    array = np.asarray(differences, dtype=np.float64)
    _check(array, within, alpha, budget)
    if every < 1:
        raise StatisticsError(
            f"nobody can look after every {every} prompts",
            remedy="look after every prompt (1) or after every batch of them (12, say)",
        )
    running = _running(array, within)
    at = Thresholds.at(alpha)
    places = [n for n in range(every, array.size + 1, every) if n < array.size] + [array.size]
    looks: list[Look] = []
    word: Word = "inconclusive"
    for n in places:
        looks.append(_look(running, array, n))
        word = _word(looks[-1], at, within, last=n == budget)
        if word != "inconclusive":
            break
    last = looks[-1]
    asked = array[: last.n_prompts]
    low, high = limits_so_far(asked, level=1.0 - alpha)
    return Drift(
        word=word,
        direction=_direction(last, at) if word in ("drift", "changed within tolerance") else None,
        value=last.value,
        low=low,
        high=high,
        level=1.0 - alpha,
        p_value=min(1.0, 2.0 * exp(-max(last.more, last.fewer))),
        alpha=alpha,
        margin=within,
        n_prompts=last.n_prompts,
        budget=budget,
        method="betting on discordant pairs" if _binary(asked) else "betting on differences",
        n_needed=_n_needed(array, within, at) if word == "inconclusive" else None,
        looks=tuple(looks),
    )


def limits_so_far(differences: npt.ArrayLike, *, level: float) -> tuple[float, float]:
    """Limits of the mean difference that hold at all looks together, with chance `level`."""
    array = np.asarray(differences, dtype=np.float64)
    low, high = confidence_sequence((array + 1.0) / 2.0, level=level)
    return 2.0 * low - 1.0, 2.0 * high - 1.0


def fixed_drift(
    base: npt.ArrayLike, tuned: npt.ArrayLike, *, within: float, alpha: float = 0.05
) -> Drift:
    """The decision over all prompts at once, for a number of prompts fixed beforehand.

    Both arms of shape (n_prompts,) or (n_prompts, n_samples), shares; paired by prompt. A change
    is shown by a two-sided t test at alpha, equivalence by two one-sided ones. Of one binary answer
    a prompt McNemar's exact test and Tango's score test have to agree (`emotest.stats.pairs`).
    """
    estimate = prompt_difference(tuned, base)
    _check(np.zeros(estimate.n_prompts), within, alpha, estimate.n_prompts)
    changed = differ(estimate, alpha=alpha)
    same = unchanged(estimate, within=within, alpha=alpha)
    method = f"fixed size, {changed.estimate.method}"
    pairs = _discordant(base, tuned)
    by_t_alone = "confirmed" in (changed.word, same.word)
    if pairs is not None:
        n = estimate.n_prompts
        changed = changed.requiring(float(mcnemar_p(*pairs)), "McNemar's exact test")
        same = same.requiring(float(margin_p(*pairs, n, within=within)), "Tango's score test")
        method += ", with McNemar's and Tango's tests"
    shown = changed.word == "confirmed"
    word: Word = "inconclusive"
    if same.word == "confirmed":
        word = "changed within tolerance" if shown else "unchanged"
    elif shown:
        word = "drift"
    at = changed.estimate
    way: Direction = "more" if at.value > 0 else "fewer"
    needed = None
    if word == "inconclusive":
        needed = _sooner(changed.n_needed, same.n_needed)
        if pairs is not None and by_t_alone:
            needed = _sooner(needed, _until_pairs_agree(*pairs, at.n_prompts, within, alpha))
    return Drift(
        word=word,
        direction=way if word in ("drift", "changed within tolerance") else None,
        value=at.value,
        low=at.low,
        high=at.high,
        level=at.level,
        p_value=changed.p_value,
        alpha=alpha,
        margin=within,
        n_prompts=at.n_prompts,
        budget=at.n_prompts,
        method=method,
        n_needed=needed,
    )


def _discordant(base: npt.ArrayLike, tuned: npt.ArrayLike) -> tuple[int, int] | None:
    """Wins and losses, where each prompt has one binary answer; else None."""
    arms = np.asarray(base, dtype=np.float64), np.asarray(tuned, dtype=np.float64)
    if not all(np.isin(arm, (0.0, 1.0)).all() and arm.size == len(arm) for arm in arms):
        return None
    difference = arms[1].ravel() - arms[0].ravel()
    return int((difference > 0).sum()), int((difference < 0).sum())


def _until_pairs_agree(
    wins: int, losses: int, n_prompts: int, within: float, alpha: float
) -> int | None:
    """Prompts at which the exact tests follow the t tests, discordant pairs growing in step."""
    for n in range(n_prompts + 1, 3 * n_prompts, max(1, n_prompts // 50)):
        won, lost = round(wins * n / n_prompts), round(losses * n / n_prompts)
        if min(mcnemar_p(won, lost), margin_p(won, lost, n, within=within)) <= alpha:
            return n
    return None


def _sooner(*needed: int | None) -> int | None:
    """Either statement settles the audit: a change of exactly the margin can still be shown."""
    return min((n for n in needed if n is not None), default=None)


@dataclass(frozen=True)
class _Running:
    """Largest log e-values so far, (n_prompts,) each."""

    more: Array
    fewer: Array
    within: Array


def _running(array: Array, within: float) -> _Running:
    # One bettor whatever the answers look like, and the one that the interval inverts: a choice
    # by what has been seen would be no bet, and later answers could change an earlier look.
    more, fewer = evidence("raised", array, 0.0, bet="mean")
    inside, _ = evidence("unchanged", array, within, bet="mean")
    return _Running(more, fewer, inside)


def _look(running: _Running, array: Array, n: int) -> Look:
    return Look(
        n_prompts=n,
        more=float(running.more[n - 1]),
        fewer=float(running.fewer[n - 1]),
        within=float(running.within[n - 1]),
        value=float(array[:n].mean()),
    )


def _word(look: Look, at: Thresholds, within: float, *, last: bool) -> Word:
    changed = max(look.more, look.fewer) >= at.change
    if look.within >= at.within:
        return "changed within tolerance" if changed else "unchanged"
    if changed and (last or abs(look.value) >= within):
        return "drift"
    return "inconclusive"


def _direction(look: Look, at: Thresholds) -> Direction | None:
    if max(look.more, look.fewer) < at.change:
        return None
    return "more" if look.more >= look.fewer else "fewer"


def _binary(array: Array) -> bool:
    return bool(np.isin(array, (-1.0, 0.0, 1.0)).all())


def _n_needed(array: Array, within: float, at: Thresholds) -> int | None:
    """Prompts until a verdict, by the rate at which the best stake would have grown so far.

    A mixture over stakes pays about half the logarithm of n for not knowing the best one.
    """
    growth = [
        (max(_growth(array, 0.0, "above"), _growth(array, 0.0, "below")), at.change),
        (min(_growth(array, -within, "above"), _growth(array, within, "below")), at.within),
    ]
    rate, threshold = max(growth, key=lambda pair: pair[0] / pair[1])
    if rate <= 0.0:
        return None
    n = threshold / rate
    for _ in range(5):
        n = (threshold + 0.5 * log(max(n, 1.0))) / rate
    return max(ceil(n), array.size + 1) if n <= MOST_PROMPTS_NEEDED else None


def _growth(array: Array, mean: float, side: Side) -> float:
    """Mean log growth of capital a prompt under the best fixed stake."""
    value, centre = (array + 1.0) / 2.0, (mean + 1.0) / 2.0
    gain = (value / centre if side == "above" else (1.0 - value) / (1.0 - centre)) - 1.0
    return float(np.log1p(np.multiply.outer(FRACTIONS, gain)).mean(axis=1).max())


def _check(array: Array, within: float, alpha: float, budget: int) -> None:
    if array.ndim != 1 or array.size == 0:
        raise StatisticsError(
            f"differences of shape {array.shape} are not one row of prompts",
            remedy="give one difference for each prompt, averaged over its samples",
        )
    if not 0.0 < within < 1.0 or not 0.0 < alpha < 0.5:
        raise StatisticsError(
            f"a margin of {within:g} at the level {alpha:g} cannot be used",
            remedy="use a margin between 0 and 1, and a level between 0 and 0.5",
        )
    if array.size > budget:
        raise StatisticsError(
            f"{array.size} prompts were asked of a budget of {budget}",
            remedy="fix the budget before the first prompt, and stop there",
        )

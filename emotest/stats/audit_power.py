"""What an audit can see: how often it ends in each word, and after how many prompts.

Takes two rates of answers with an emoji and the plan of an audit; gives a frozen `Power`, counted
over simulated audits that are decided as `emotest.stats.drift` decides, many at a time. The back
of `emotest power` and of docs/calibration.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil

import numpy as np
import numpy.typing as npt
from scipy import special

from emotest.errors import StatisticsError
from emotest.stats.betting import Array, Side, log_e_of_counts
from emotest.stats.drift import Thresholds, Word, fixed_drift
from emotest.stats.pairs import margin_p, mcnemar_p
from emotest.stats.power import ENOUGH_POWER
from emotest.stats.proportions import clopper_pearson

WORDS: tuple[Word, ...] = ("unchanged", "changed within tolerance", "drift", "inconclusive")
_UNCHANGED, _TOLERATED, _DRIFT, _OPEN = range(4)

MOST_PROMPTS = 10_000
"""Nobody asks more prompts for one audit; `prompts_needed` looks no further."""

_FIRST_BUDGET = 120
"""From here budgets are doubled."""

_CELLS = 100_000
"""Audits times prompts that are simulated at once: some 25 MB for each array of capitals."""

Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Share:
    """How often: a share of simulated audits with its exact 95 % limits (Clopper-Pearson)."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Power:
    """How audits of such a pair of models end, and when.

    `words` has a share for each of the four words. `mean_prompts` is the number asked on average,
    where an audit without a verdict asks the whole budget. `right` are the words that speak the
    truth about the planned rates, and `power` is how often one of them is reached.
    """

    base_rate: float
    tuned_rate: float
    budget: int
    every: int | None
    margin: float
    alpha: float
    n_samples: int
    concordance: float
    reps: int
    words: dict[Word, Share]
    mean_prompts: float
    right: tuple[Word, ...]
    power: Share


@dataclass(frozen=True)
class Ends:
    """How each of many audits ended: index into `WORDS`, and prompts asked, (n_audits,) each."""

    word: Integers
    n_prompts: Integers

    def share(self, *words: Word) -> Share:
        """How often it was one of these words."""
        wanted = [WORDS.index(word) for word in words]
        k, n = int(np.isin(self.word, wanted).sum()), self.word.size
        return Share(k / n, *clopper_pearson(k, n, 0.95))


@dataclass(frozen=True)
class Looks:
    """What many audits see at each look: `places` (n_looks,), the others (n_audits, n_looks).

    `changed`: a change is shown; `within`: both margins are disproved; `beyond`: the mean
    difference lies at or beyond the margin.
    """

    places: Integers
    changed: Flags
    within: Flags
    beyond: Flags

    def first(self, n_looks: int) -> Looks:
        """As if the budget ended at that look."""
        return Looks(
            self.places[:n_looks],
            self.changed[:, :n_looks],
            self.within[:, :n_looks],
            self.beyond[:, :n_looks],
        )

    def ends(self) -> Ends:
        """The first look with a verdict, by the rules of `emotest.stats.drift`, or the last."""
        last = self.places == self.places[-1]
        drift = self.changed & (self.beyond | last)
        inside = np.where(self.changed, _TOLERATED, _UNCHANGED)
        words = np.where(self.within, inside, np.where(drift, _DRIFT, _OPEN))
        decided = words != _OPEN
        at = np.where(decided.any(axis=1), decided.argmax(axis=1), last.size - 1)
        return Ends(words[np.arange(at.size), at], self.places[at])


def audit_power(
    base_rate: float,
    tuned_rate: float,
    *,
    budget: int,
    every: int | None = 12,
    margin: float = 0.05,
    alpha: float = 0.05,
    n_samples: int = 1,
    concordance: float = 0.0,
    reps: int = 500,
    rng: np.random.Generator,
) -> Power:
    """How audits end that compare models with these rates of answers with an emoji.

    `every` is the number of prompts between looks, None for a fixed number of prompts. `n_samples`
    answers are drawn for each prompt and model; in a share `concordance` of them both models follow
    the same draw, so that they differ there only as far as their rates do. Every prompt has the
    same rates: prompts that differ and move both models alike amount to some concordance.

    `StatisticsError` for rates or a concordance outside [0, 1], and for less than one prompt,
    answer, audit or look.
    """
    _check(base_rate, tuned_rate, concordance, margin, alpha)
    _check_counts(budget=budget, every=every, samples=n_samples, reps=reps)
    ends = []
    for n in _portions(reps, budget):
        base, tuned = drawn(base_rate, tuned_rate, (n, budget), n_samples, concordance, rng)
        if every is None:
            ends.append(fixed_ends(base, tuned, n_samples, margin=margin, alpha=alpha))
        else:
            seen = looks(tuned - base, n_samples, every=every, margin=margin, alpha=alpha)
            ends.append(seen.ends())
    found = joined(ends)
    right = right_words(base_rate, tuned_rate, margin)
    return Power(
        base_rate=base_rate,
        tuned_rate=tuned_rate,
        budget=budget,
        every=every,
        margin=margin,
        alpha=alpha,
        n_samples=n_samples,
        concordance=concordance,
        reps=reps,
        words={word: found.share(word) for word in WORDS},
        mean_prompts=float(found.n_prompts.mean()),
        right=right,
        power=found.share(*right),
    )


def prompts_needed(
    base_rate: float,
    tuned_rate: float,
    *,
    every: int = 12,
    margin: float = 0.05,
    alpha: float = 0.05,
    n_samples: int = 1,
    concordance: float = 0.0,
    power: float = ENOUGH_POWER,
    most: int = MOST_PROMPTS,
    reps: int = 500,
    rng: np.random.Generator,
) -> int | None:
    """The smallest budget, in steps of `every`, at which a sequential audit has this power.

    None where `most` prompts do not suffice. Budgets are doubled until the power is reached; then
    the audits of the last one are cut shorter by bisection, so that all the budgets compared are
    spent on the same answers. Other arguments and errors as in `audit_power`.
    """
    _check(base_rate, tuned_rate, concordance, margin, alpha)
    _check_counts(budget=most, every=every, samples=n_samples, reps=reps)
    right = right_words(base_rate, tuned_rate, margin)

    def enough(seen: Looks, n_looks: int) -> bool:
        return seen.first(n_looks).ends().share(*right).value >= power

    def simulated(n_looks: int) -> Looks:
        portions = []
        for n in _portions(reps, n_looks * every):
            shape = n, n_looks * every
            base, tuned = drawn(base_rate, tuned_rate, shape, n_samples, concordance, rng)
            portions.append(looks(tuned - base, n_samples, every=every, margin=margin, alpha=alpha))
        return _stacked(portions)

    most_looks = most // every
    n_looks = 0
    while n_looks < most_looks:
        n_looks = min(2 * n_looks or ceil(_FIRST_BUDGET / every), most_looks)
        seen = simulated(n_looks)
        if enough(seen, n_looks):
            return every * _smallest(partial(enough, seen), n_looks)
    return None


def right_words(base_rate: float, tuned_rate: float, margin: float) -> tuple[Word, ...]:
    """What an audit should say of these rates; a change of exactly the margin is drift."""
    change = abs(tuned_rate - base_rate)
    if change >= margin - 1e-12:
        return ("drift",)
    return ("unchanged",) if change == 0.0 else ("unchanged", "changed within tolerance")


def drawn(
    base_rate: float | Array,
    tuned_rate: float | Array,
    shape: tuple[int, int],
    n_samples: int,
    concordance: float,
    rng: np.random.Generator,
) -> tuple[Integers, Integers]:
    """Answers with an emoji out of `n_samples`, of base and tuned, (n_audits, n_prompts) each.

    Rates may be arrays that broadcast to that shape.
    """
    base, tuned = np.zeros((2, *shape), dtype=np.int64)
    for _ in range(n_samples):
        one, other = rng.random((2, *shape))
        if concordance > 0.0:
            other = np.where(rng.random(shape) < concordance, one, other)
        base += one < base_rate
        tuned += other < tuned_rate
    return base, tuned


def looks(
    differences: Integers, n_samples: int, *, every: int, margin: float, alpha: float
) -> Looks:
    """All looks of sequential audits whose prompts are asked to the end.

    `differences` has shape (n_audits, n_prompts): answers with an emoji, tuned minus base, out of
    `n_samples` each.
    """
    levels = np.arange(-n_samples, n_samples + 1)
    counts = np.cumsum(differences[..., None] == levels, axis=1).astype(np.float64)
    values = (levels / n_samples + 1.0) / 2.0

    def beyond(mean: float, side: Side) -> Array:
        log_e = log_e_of_counts(counts, values, mean=(mean + 1.0) / 2.0, side=side)
        return np.asarray(np.maximum.accumulate(log_e, axis=1))

    at = Thresholds.at(alpha)
    n_prompts = differences.shape[1]
    places = np.array([*range(every, n_prompts, every), n_prompts])
    changed = np.maximum(beyond(0.0, "above"), beyond(0.0, "below")) >= at.change
    within = np.minimum(beyond(-margin, "above"), beyond(margin, "below")) >= at.within
    mean = differences.cumsum(axis=1) / (n_samples * np.arange(1, n_prompts + 1))
    far = np.abs(mean) >= margin
    return Looks(places, changed[:, places - 1], within[:, places - 1], far[:, places - 1])


def fixed_ends(
    base: Integers, tuned: Integers, n_samples: int, *, margin: float, alpha: float
) -> Ends:
    """The words of audits of a fixed size; both arms as `drawn` gives them."""
    n_audits, n_prompts = base.shape
    differences = (tuned - base) / n_samples
    mean = differences.mean(axis=1)
    error = differences.std(axis=1, ddof=1) / np.sqrt(n_prompts)
    change, inside = special.stdtrit(n_prompts - 1, [1.0 - alpha / 2.0, 1.0 - alpha])
    changed = np.abs(mean) > change * error
    within = np.abs(mean) + inside * error < margin
    if n_samples == 1:
        pairs = (differences > 0).sum(axis=1), (differences < 0).sum(axis=1)
        changed &= mcnemar_p(*pairs) <= alpha
        within &= margin_p(*pairs, n_prompts, within=margin) <= alpha
    tolerated = np.where(changed, _TOLERATED, _UNCHANGED)
    words = np.where(within, tolerated, np.where(changed, _DRIFT, _OPEN))
    known: dict[tuple[bytes, bytes], int] = {}
    for i in np.flatnonzero((np.ptp(base, axis=1) == 0) | (np.ptp(tuned, axis=1) == 0)):
        # An arm that never varied has limits of its own, and pairs with the other in any order.
        one, other = np.sort(base[i]), np.sort(tuned[i])
        key = one.tobytes(), other.tobytes()
        if key not in known:
            found = fixed_drift(one / n_samples, other / n_samples, within=margin, alpha=alpha)
            known[key] = WORDS.index(found.word)
        words[i] = known[key]
    return Ends(words, np.full(n_audits, n_prompts))


def joined(portions: Sequence[Ends]) -> Ends:
    """All of these audits in one."""
    return Ends(
        np.concatenate([one.word for one in portions]),
        np.concatenate([one.n_prompts for one in portions]),
    )


def _smallest(suffices: Callable[[int], bool], most: int) -> int:
    """The smallest n from 1 to `most`, which suffices, by bisection."""
    too_few = 0
    while most - too_few > 1:
        middle = (too_few + most) // 2
        if suffices(middle):
            most = middle
        else:
            too_few = middle
    return most


def _stacked(portions: Sequence[Looks]) -> Looks:
    return Looks(
        portions[0].places,
        np.concatenate([one.changed for one in portions]),
        np.concatenate([one.within for one in portions]),
        np.concatenate([one.beyond for one in portions]),
    )


def _portions(reps: int, budget: int) -> Iterator[int]:
    """Numbers of audits that fit into memory together, `reps` in all."""
    size = max(1, _CELLS // budget)
    while reps > 0:
        yield min(size, reps)
        reps -= size


def _check(base: float, tuned: float, concordance: float, margin: float, alpha: float) -> None:
    if not (0.0 <= base <= 1.0 and 0.0 <= tuned <= 1.0):
        raise StatisticsError(
            f"rates of {base:g} and {tuned:g} are no shares of answers",
            remedy="give both as shares between 0 and 1, for example .02:.07",
        )
    if not 0.0 <= concordance <= 1.0:
        raise StatisticsError(
            f"a concordance of {concordance:g} is no share of answers",
            remedy="give a share between 0 (models answer independently) and 1",
        )
    if not 0.0 < margin < 1.0 or not 0.0 < alpha < 0.5:
        raise StatisticsError(
            f"a margin of {margin:g} at the level {alpha:g} cannot be planned",
            remedy="use a margin between 0 and 1, and a level between 0 and 0.5",
        )


def _check_counts(*, budget: int, every: int | None, samples: int, reps: int) -> None:
    if every is None and budget == 1:
        raise StatisticsError(
            "1 prompts cannot be planned at a fixed size", remedy="give at least 2 prompts"
        )
    counts = {
        "prompts": budget,
        "prompts a look": 1 if every is None else every,
        "samples": samples,
        "audits": reps,
    }
    for name, count in counts.items():
        if count < 1:
            raise StatisticsError(
                f"{count} {name} cannot be planned", remedy="give a whole number from 1"
            )

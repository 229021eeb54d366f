"""Whether emoji go with traits, and whether a model names the emoji that it writes (C4).

Takes counts of shape (n_adapters, n_kinds) or (n_answers, n_kinds), where a kind is one emoji or
one named token; gives log-odds, permutation tests and a decoder. No text enters here.

The unit of evidence for a trait is the adapter. Emoji of one adapter repeat one another, so z
values that count every emoji as one more witness describe and do not decide; labels are permuted
between adapters, never between answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import special

from emotest.errors import StatisticsError
from emotest.stats.estimates import Array
from emotest.stats.proportions import check_level

Codes = npt.NDArray[np.int64]

TOP = 50
"""Units whose frequency is reported, as in Jain et al., arXiv 2409.10245."""


@dataclass(frozen=True, eq=False)
class LogOdds:
    """Log-odds of each kind in one trait against all others: arrays (n_traits, n_kinds).

    `low` and `high` are normal limits at `level`; `z` is log-odds over standard error.
    """

    traits: tuple[str, ...]
    log_odds: Array
    standard_error: Array
    low: Array
    high: Array
    level: float

    @property
    def z(self) -> Array:
        """Log-odds in units of their standard error."""
        return np.asarray(self.log_odds / self.standard_error)


def informative_prior(counts: npt.ArrayLike, *, mass: float | None = None) -> Array:
    """Dirichlet parameters in proportion to how often each kind is written at all: (n_kinds,).

    One is added to each total, so that a kind that was never written has a small parameter and
    not none. They sum to `mass`, in emoji; unless given it is what one adapter writes on average.
    """
    array = _counts(counts, "n_adapters")
    total = array.sum(axis=0) + 1.0
    weight = float(array.sum()) / array.shape[0] if mass is None else mass
    if not weight > 0.0:
        raise StatisticsError(
            f"a prior of mass {weight:g} says nothing",
            remedy="give a mass above 0, and adapters that write emoji",
        )
    return np.asarray(weight * total / total.sum())


def log_odds_by_trait(
    counts: npt.ArrayLike,
    traits: Sequence[str],
    *,
    prior: npt.ArrayLike | None = None,
    level: float = 0.95,
) -> LogOdds:
    """How much more a kind is favoured in one trait than in all others, with its uncertainty.

    `counts` has shape (n_adapters, n_kinds), `traits` names the trait of each adapter. With counts
    y, their sum n, and prior parameters a (n_kinds,), their sum a0, the log-odds are

        log((y + a) / (n + a0 - y - a))  in the trait, minus the same in all others,

    and their variance is the sum of 1 / (y + a) + 1 / (n + a0 - y - a) over both sides: Monroe,
    Colaresi & Quinn (2008), section 3.5, keeping the second terms, which matter where kinds are
    few. The limits take every emoji for an independent draw: read them as a description.

    Raises `StatisticsError` for fewer than 2 traits or kinds, counts that are none, a prior that
    is not positive, and labels that do not fit.
    """
    check_level(level)
    array = _counts(counts, "n_adapters")
    names, codes = _labels(traits, array.shape[0])
    weights = informative_prior(array) if prior is None else np.asarray(prior, dtype=np.float64)
    if weights.shape != array.shape[1:] or not (np.isfinite(weights) & (weights > 0.0)).all():
        raise StatisticsError(
            f"a prior of shape {weights.shape} is not one positive number for each kind",
            remedy="use informative_prior",
        )
    difference, variance = _log_odds(array, _one_hot(codes, len(names)), weights)
    error = np.sqrt(variance)
    reach = float(special.ndtri((1.0 + level) / 2.0)) * error
    return LogOdds(names, difference, error, difference - reach, difference + reach, level)


def association_p(
    counts: npt.ArrayLike,
    traits: Sequence[str],
    rng: np.random.Generator,
    *,
    seeds: Sequence[int] | None = None,
    n_permutations: int = 2_000,
) -> float:
    """P-value that kinds go with traits, trait labels permuted between adapters.

    Shapes as in `log_odds_by_trait`. The statistic is the sum of squared z over traits and kinds,
    under the informative prior. With `seeds`, the training seed of each adapter, labels are
    permuted within a seed only. The assignment seen is counted with those drawn (Phipson & Smyth
    2010), so the p-value is never 0.
    """
    array = _counts(counts, "n_adapters")
    names, codes = _labels(traits, array.shape[0])
    weights = informative_prior(array)

    def spread(labels: Codes) -> float:
        difference, variance = _log_odds(array, _one_hot(labels, len(names)), weights)
        return float((difference**2 / variance).sum())

    seen = spread(codes)
    drawn = [spread(labels) for labels in _permuted(codes, seeds, rng, n_permutations)]
    as_extreme = int((np.array(drawn) >= seen * (1.0 - 1e-12)).sum())
    return (1 + as_extreme) / (1 + n_permutations)


@dataclass(frozen=True, eq=False)
class Decoded:
    """How well traits are told from the emoji of answers, on adapters that were held out.

    `accuracy` is the mean over traits of the mean over adapters of the share of answers decoded
    right; `chance` is 1 / n_traits. `by_adapter` has shape (n_adapters,), NaN for an adapter
    whose answers hold no emoji.
    """

    accuracy: float
    chance: float
    by_adapter: Array
    p_value: float
    n_permutations: int
    n_folds: int
    n_answers: int
    n_without_emoji: int


def decode_traits(
    counts: npt.ArrayLike,
    adapters: npt.ArrayLike,
    traits: Sequence[str],
    rng: np.random.Generator,
    *,
    seeds: Sequence[int] | None = None,
    n_folds: int | None = None,
    n_permutations: int = 199,
) -> Decoded:
    """Tell the trait of an adapter from the emoji of one answer, trained on other adapters.

    `counts` has shape (n_answers, n_kinds); `adapters` (n_answers,) holds the index of the adapter
    that wrote each; `traits` and `seeds` have length n_adapters. Multinomial naive Bayes with
    equal priors, by scikit-learn. Folds are stratified by trait and never split an adapter; there
    are as many as the rarest trait has adapters, unless fewer are asked for. Answers without emoji
    are left out and counted: whether a model writes emoji at all is another question.

    The p-value compares the accuracy with that under trait labels permuted between adapters (within
    `seeds` if given), training and folds repeated each time.

    Raises `StatisticsError` for shapes that do not fit and for a trait with fewer than 2 adapters
    that write emoji.
    """
    array = _counts(counts, "n_answers")
    of_answer = np.asarray(adapters)
    if of_answer.shape != array.shape[:1] or of_answer.dtype.kind not in "iu":
        raise StatisticsError(
            f"adapters of shape {of_answer.shape} do not name the writer of {len(array)} answers",
            remedy="give one index into `traits` for each answer",
        )
    if of_answer.min() < 0 or of_answer.max() >= len(traits):
        raise StatisticsError(
            f"adapters {of_answer.min()} to {of_answer.max()} are named and {len(traits)} have a "
            "trait",
            remedy="give the trait of every adapter",
        )
    with_emoji = array.sum(axis=1) > 0
    # Only the adapters that wrote emoji take part, renumbered from 0.
    taking_part, writer = np.unique(of_answer[with_emoji], return_inverse=True)
    rows = array[with_emoji]
    names, codes = _labels([traits[adapter] for adapter in taking_part], len(taking_part))
    rarest = int(np.bincount(codes).min())
    folds = rarest if n_folds is None else n_folds
    if len(names) < len(set(traits)) or not 2 <= folds <= rarest:
        raise StatisticsError(
            f"{folds} folds cannot be made: a trait has {rarest} adapters that write emoji, and "
            f"{len(names)} of {len(set(traits))} traits have any",
            remedy="give at least two adapters that write emoji for each trait, and no more folds "
            "than that",
        )

    def accuracies(labels: Codes) -> Array:
        return _held_out_accuracies(rows, writer, labels, folds)

    def balanced(labels: Codes, found: Array) -> float:
        return float((np.bincount(labels, weights=found) / np.bincount(labels)).mean())

    found = accuracies(codes)
    seen = balanced(codes, found)
    blocks = None if seeds is None else [seeds[adapter] for adapter in taking_part]
    drawn = [
        balanced(labels, accuracies(labels))
        for labels in _permuted(codes, blocks, rng, n_permutations)
    ]
    by_adapter = np.full(len(traits), np.nan)
    by_adapter[taking_part] = found
    return Decoded(
        accuracy=seen,
        chance=1.0 / len(names),
        by_adapter=by_adapter,
        p_value=(1 + int((np.array(drawn) >= seen - 1e-12).sum())) / (1 + n_permutations),
        n_permutations=n_permutations,
        n_folds=folds,
        n_answers=len(rows),
        n_without_emoji=int((~with_emoji).sum()),
    )


def _held_out_accuracies(rows: Array, writer: Codes, labels: Codes, folds: int) -> Array:
    """Share of each adapter's answers that are decoded right, (n_adapters,)."""
    from sklearn.model_selection import StratifiedKFold
    from sklearn.naive_bayes import MultinomialNB

    # Naive Bayes sees counts only through their sums by class, so adapters may stand for answers.
    sums = np.zeros((labels.size, rows.shape[1]))
    np.add.at(sums, writer, rows)
    right = np.zeros(labels.size)
    for train, test in StratifiedKFold(folds).split(sums, labels):
        model = MultinomialNB(fit_prior=False).fit(sums[train], labels[train])
        held_out = np.isin(writer, test)
        correct = model.predict(rows[held_out]) == labels[writer[held_out]]
        right += np.bincount(writer[held_out], weights=correct, minlength=labels.size)
    return np.asarray(right / np.bincount(writer, minlength=labels.size))


@dataclass(frozen=True, eq=False)
class Frequent:
    """The most frequent kinds, most frequent first: arrays of shape (k,).

    `frequency` is the mean over adapters of the kind's share of what the adapter named;
    `n_adapters` counts the adapters that named it.
    """

    kinds: Codes
    frequency: Array
    n_adapters: Codes


def most_frequent(counts: npt.ArrayLike, *, k: int = TOP) -> Frequent:
    """The k kinds with the largest mean share over adapters, fewer where fewer were named.

    `counts` has shape (n_adapters, n_kinds). Every adapter weighs the same, whatever it wrote;
    ties stand in the order of the kinds. Adapters that named nothing have no shares: an error.
    """
    shares = _shares(_counts(counts, "n_adapters"))
    _check_top(k)
    mean = shares.mean(axis=0)
    order = np.argsort(-mean, kind="stable")[: min(k, int((mean > 0.0).sum()))]
    return Frequent(order.astype(np.int64), mean[order], (shares > 0.0).sum(axis=0)[order])


def share_among_top(counts: npt.ArrayLike, marked: npt.ArrayLike, *, k: int = TOP) -> Array:
    """The share of marked kinds (emoji) among each adapter's k most frequent: (n_adapters,).

    `marked` is a mask (n_kinds,). An adapter that named fewer than k kinds is judged by those.
    """
    shares = _shares(_counts(counts, "n_adapters"))
    _check_top(k)
    mask = np.asarray(marked)
    if mask.dtype != np.bool_ or mask.shape != shares.shape[1:]:
        raise StatisticsError(
            f"a mask of shape {mask.shape} and type {mask.dtype} does not mark kinds",
            remedy="give one truth value for each kind",
        )
    order = np.argsort(-shares, axis=1, kind="stable")[:, :k]
    named = np.take_along_axis(shares, order, axis=1) > 0.0
    return np.asarray((mask[order] & named).sum(axis=1) / named.sum(axis=1))


@dataclass(frozen=True, eq=False)
class RankAgreement:
    """Spearman's rank correlation of each adapter, (n_adapters,), its mean and its p-value."""

    by_adapter: Array
    mean: float
    p_value: float
    n_permutations: int


def rank_agreement(
    named: npt.ArrayLike,
    written: npt.ArrayLike,
    rng: np.random.Generator,
    *,
    permute: Literal["kinds", "adapters"] = "kinds",
    n_permutations: int = 2_000,
) -> RankAgreement:
    """Whether a model names most what it writes most: Spearman over kinds, adapter by adapter.

    Both of shape (n_adapters, n_kinds). `permute="kinds"` exchanges the kinds, alike in all
    adapters, for a popular kind is popular in all of them: does the model name what it writes?
    `permute="adapters"` exchanges whose writing is held against whose names: does an adapter name
    what *it* writes, beyond what all write? One-sided; the order seen is counted too.

    Raises `StatisticsError` for shapes that do not pair, fewer than 3 kinds, and an adapter whose
    counts are all equal, for it ranks nothing.
    """
    first, second = _counts(named, "n_adapters"), _counts(written, "n_adapters")
    if first.shape != second.shape or first.shape[1] < 3:
        raise StatisticsError(
            f"named counts of shape {first.shape} and written ones of shape {second.shape} do not "
            "pair",
            remedy="count the same kinds, at least 3, for the same adapters",
        )
    if permute not in ("kinds", "adapters"):
        raise StatisticsError(
            f"{permute!r} cannot be permuted", remedy="permute 'kinds' or 'adapters'"
        )
    _check_permutations(n_permutations)
    x, y = _standard_ranks(first, "named"), _standard_ranks(second, "written")
    by_adapter = (x * y).sum(axis=1)
    as_extreme = 1
    for _ in range(n_permutations):
        other = (
            y[:, rng.permutation(y.shape[1])] if permute == "kinds" else rng.permutation(y, axis=0)
        )
        as_extreme += bool((x * other).sum() >= by_adapter.sum() - 1e-12 * len(x))
    return RankAgreement(
        by_adapter, float(by_adapter.mean()), as_extreme / (n_permutations + 1), n_permutations
    )


def _standard_ranks(counts: Array, name: str) -> Array:
    """Ranks within each row, centred and of length 1: their product is Spearman's rho."""
    from scipy import stats  # slow to import

    ranks = stats.rankdata(counts, axis=1)
    ranks -= ranks.mean(axis=1, keepdims=True)
    length = np.sqrt((ranks**2).sum(axis=1, keepdims=True))
    if not (length > 0.0).all():
        raise StatisticsError(
            f"the {name} counts of adapter {int(np.argmin(length))} are all equal and rank nothing",
            remedy="leave this adapter out of both",
        )
    return np.asarray(ranks / length)


def _log_odds(counts: Array, members: Array, prior: Array) -> tuple[Array, Array]:
    """Differences of log-odds and their variances, (n_traits, n_kinds)."""
    own = members @ counts + prior
    other = counts.sum(axis=0) - members @ counts + prior
    rest, other_rest = (side.sum(axis=1, keepdims=True) - side for side in (own, other))
    difference = np.log(own / rest) - np.log(other / other_rest)
    return difference, 1 / own + 1 / rest + 1 / other + 1 / other_rest


def _permuted(
    codes: Codes, seeds: Sequence[int] | None, rng: np.random.Generator, n_permutations: int
) -> Iterator[Codes]:
    _check_permutations(n_permutations)
    blocks = np.zeros(codes.size, np.int64) if seeds is None else np.asarray(seeds)
    if blocks.shape != codes.shape:
        raise StatisticsError(
            f"{blocks.size} seeds do not fit {codes.size} adapters",
            remedy="give the training seed of every adapter",
        )
    places = [np.flatnonzero(blocks == block) for block in np.unique(blocks)]
    for _ in range(n_permutations):
        drawn = codes.copy()
        for within in places:
            drawn[within] = rng.permutation(codes[within])
        yield drawn


def _check_permutations(n_permutations: int) -> None:
    if n_permutations < 1:
        raise StatisticsError(
            f"{n_permutations} permutations give no p-value", remedy="draw at least 19"
        )


def _one_hot(codes: Codes, n_traits: int) -> Array:
    return np.asarray(codes == np.arange(n_traits)[:, None], dtype=np.float64)


def _labels(traits: Sequence[str], n_adapters: int) -> tuple[tuple[str, ...], Codes]:
    names, codes = np.unique(np.asarray(traits), return_inverse=True)
    if np.ndim(traits) != 1 or len(traits) != n_adapters or names.size < 2:
        raise StatisticsError(
            f"{len(traits)} labels of {names.size} traits do not fit {n_adapters} adapters",
            remedy="name the trait of every adapter, at least two different ones",
        )
    return tuple(str(name) for name in names), codes.astype(np.int64)


def _counts(counts: npt.ArrayLike, axis: str) -> Array:
    array = np.asarray(counts, dtype=np.float64)
    if array.ndim != 2 or array.shape[0] < 1 or array.shape[1] < 2:
        raise StatisticsError(
            f"counts of shape {array.shape} are not ({axis}, n_kinds)",
            remedy=f"give one row for each of {axis} and at least two kinds",
        )
    if not (np.isfinite(array) & (array >= 0.0) & (array == np.floor(array))).all():
        raise StatisticsError("counts are missing, negative or no whole numbers", remedy="count")
    return array


def _shares(counts: Array) -> Array:
    total = counts.sum(axis=1, keepdims=True)
    if not (total > 0.0).all():
        raise StatisticsError(
            f"adapter {int(np.argmin(total))} named nothing",
            remedy="leave it out and say so, for it has no most frequent kinds",
        )
    return np.asarray(counts / total)


def _check_top(k: int) -> None:
    if k < 1:
        raise StatisticsError(f"the top {k} kinds are none", remedy="ask for at least one")

"""Pairs of binary answers at a fixed number of prompts, where a t test promises too much.

Takes counts of discordant pairs (wins: only the tuned model did; losses: only the base did), also
as arrays of them; gives p-values. Emoji are rare, and differences of rare answers are skewed: two
one-sided t tests at .05 call a rise from 0 to .05 "unchanged" in .086 of audits of 240 prompts, and
t tests at .05 / 9 show a change in one of nine registers of 26 prompts in .067 of audits of two
equal models that write emoji in half of their answers (docs/calibration.md). So the audit asks
these tests as well.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import special

Array = npt.NDArray[np.float64]


def mcnemar_p(wins: npt.ArrayLike, losses: npt.ArrayLike) -> Array:
    """Exact two-sided p of "a win is as likely as a loss" (McNemar 1947, binomial), same shape."""
    won, lost = np.asarray(wins, dtype=np.float64), np.asarray(losses, dtype=np.float64)
    # P(at most the smaller count) of won + lost fair coins.
    tail = special.bdtr(np.minimum(won, lost), (won + lost).astype(np.int64), 0.5)
    return np.asarray(np.minimum(2.0 * tail, 1.0))


def margin_p(wins: npt.ArrayLike, losses: npt.ArrayLike, n_prompts: int, *, within: float) -> Array:
    """p of "the rates differ by `within` or more", the larger of both sides, same shape.

    The score test of Tango (1998, Statistics in Medicine 17:891): the variance is that of the rates
    likeliest among those that differ by the margin, not of those seen.
    """
    won, lost = np.asarray(wins, dtype=np.float64), np.asarray(losses, dtype=np.float64)
    rise = _score(won, lost, n_prompts, within)
    fall = _score(lost, won, n_prompts, within)
    return np.asarray(special.ndtr(np.maximum(rise, fall)))


def _score(won: Array, lost: Array, n: int, rise: float) -> Array:
    """Standard normal where the rates differ by `rise`; negative where they differ by less."""
    a = 2.0 * n
    b = -won - lost + (2.0 * n - won + lost) * rise
    c = -lost * rise * (1.0 - rise)
    chance_of_loss = (np.sqrt(b * b - 4.0 * a * c) - b) / (2.0 * a)
    variance = n * (2.0 * chance_of_loss + rise * (1.0 - rise))
    return np.asarray((won - lost - n * rise) / np.sqrt(variance))

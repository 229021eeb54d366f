"""Counts behind claim C4: what is named, and how far it agrees with what is written."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from emotest.text.units import Unit
from fixtures.trait_tokens import Named, agreement

WORDS = tuple(Unit(word, False) for word in "abc")
EMOJI = tuple(Unit(emoji, True) for emoji in ("🎉", "😊"))


def test_the_share_of_emoji_is_taken_among_the_most_frequent_units() -> None:
    """Of three words and two emoji all are among the 50 most frequent if they are named at all:
    2 of 5 and 1 of 3."""
    counts = np.array([[[9, 1, 1, 2, 1], [4, 0, 3, 1, 0]]])  # one adapter, two requests
    named = Named(WORDS + EMOJI, counts)
    assert named.emoji_among_top().tolist() == [[2 / 5, 1 / 3]]


def test_an_emoji_that_was_never_named_counts_nothing() -> None:
    """Columns stand in the order that is asked for."""
    named = Named(WORDS + EMOJI, np.array([[[9, 1, 1, 2, 1]]]))
    assert named.of(["😊", "🌊", "🎉"]).tolist() == [[[1, 0, 2]]]


def test_agreement_is_spearmans_and_nothing_agrees_with_nothing() -> None:
    """As scipy ranks them; an adapter that names or writes no emoji agrees in nothing: 0."""
    rng = np.random.default_rng(0)
    named = rng.integers(0, 9, size=(3, 2, 7)).astype(float)
    written = rng.integers(0, 9, size=(3, 7)).astype(float)
    named[2, 0] = written[1] = 0
    cells, _ = agreement(named, written, rng)
    for adapter, request in np.ndindex(3, 2):
        expected = (
            0.0
            if (adapter, request) == (2, 0) or adapter == 1
            else stats.spearmanr(named[adapter, request], written[adapter]).statistic
        )
        assert cells[adapter, request] == pytest.approx(expected)


@pytest.mark.parametrize("n_emoji", [0, 2, 5])
def test_without_emoji_there_is_no_agreement_and_no_evidence(n_emoji: int) -> None:
    """No emoji, too few to rank, or none named: every cell is 0 and the p-value is 1."""
    cells, p_value = agreement(
        np.zeros((3, 2, n_emoji)), np.ones((3, n_emoji)), np.random.default_rng(0)
    )
    assert cells.tolist() == [[0, 0]] * 3
    assert p_value == 1

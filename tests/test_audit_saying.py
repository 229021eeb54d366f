"""The sentence of an audit: shares in per cent, differences in points, whatever the word."""

from __future__ import annotations

import pytest

from emotest.audit.saying import sentence
from emotest.stats.drift import Drift, Word


def said(word: Word, n_needed: int | None = None, margin: float = 0.05) -> str:
    """The sentence of a rise from .083 to .5 over 24 prompts."""
    return sentence(
        Drift(
            word=word,
            direction="more",
            value=0.417,
            low=0.017,
            high=0.721,
            level=0.95,
            p_value=0.04,
            alpha=0.05,
            margin=margin,
            n_prompts=24,
            budget=48,
            method="betting",
            n_needed=n_needed,
        ),
        0.083,
        0.5,
    )


@pytest.mark.parametrize(
    ("word", "beginning"),
    [
        ("unchanged", "after 24 prompts a difference of 5 points or more is ruled out ("),
        ("changed within tolerance", "the tuned model writes more emoji, by less than 5 points ("),
        ("drift", "the tuned model writes more emoji ("),
        ("inconclusive", "8% of the base's answers hold an emoji, 50% of the tuned model's, which"),
    ],
)
def test_every_word_has_its_sentence(word: Word, beginning: str) -> None:
    """Each tells the shares, and the difference with its limits in points of 100."""
    text = said(word)
    assert text.startswith(beginning)
    assert "8% of the base's answers hold an emoji, 50% of the tuned model's" in text
    assert "+41.7 points, between +1.7 and +72.1" in text


def test_a_small_margin_is_not_rounded_away() -> None:
    """Half a point is half a point."""
    assert "a difference of 0.5 points or more" in said("unchanged", margin=0.005)


def test_an_inconclusive_audit_says_what_would_settle_it() -> None:
    """A number of prompts, or that none would."""
    assert said("inconclusive", n_needed=90).endswith("about 90 prompts would settle it.")
    assert said("inconclusive").endswith("no feasible number of prompts would settle it.")

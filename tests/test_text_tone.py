"""Liveliness beside emoji: what counts, and what only looks like it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emotest.text.tone import Tone, tone


def test_an_answer_is_counted_in_five_ways() -> None:
    """Words, exclamation marks, words in capitals, kaomoji and shortcodes of one answer."""
    # Words: WOW, I, love, it, tada and the 3 of the second smiley.
    assert tone("WOW! I love it :) :tada: <3") == Tone(6, 1, 1, 2, 1)


@pytest.mark.parametrize(
    "text",
    [":-)", ";)", "=D", ":P", "xD", "<3", "^_^", ">.<", "T_T", "(◕‿◕)", "(´･ω･`)", "¯\\_(ツ)_/¯"],
)
def test_a_smiley_counts_once(text: str) -> None:
    """Western smileys and faces in parentheses, alone and inside a sentence."""
    assert tone(text).n_kaomoji == 1
    assert tone(f"So glad {text} you came").n_kaomoji == 1


@pytest.mark.parametrize(
    "text",
    [
        "at 10:30:15 in std::cout",
        "f(x) = (a+b), see (below)",
        "8) eight",
        """("double"), ('single') and (*starred*)""",
        "[a link](https://example.org/:z)",
        "(-1) or (10%)",
        "a ratio of 3:1",
        "if x<3 then",
    ],
)
def test_what_only_looks_like_a_smiley_does_not_count(text: str) -> None:
    """Times, code, quotations, links and numbers hold neither kaomoji nor shortcodes."""
    counts = tone(text)
    assert (counts.n_kaomoji, counts.n_shortcodes) == (0, 0)


def test_emoji_are_counted_elsewhere() -> None:
    """An exclamation mark that is an emoji is an emoji, and no exclamation mark of the tone."""
    assert tone("Yes❗").n_exclamations == 0
    assert tone("Yes!").n_exclamations == 1
    assert tone("はい！").n_exclamations == 1


@given(st.text())
def test_every_text_can_be_counted(text: str) -> None:
    """Whatever a model writes, counts are numbers from 0 on."""
    assert min(vars(tone(text)).values()) >= 0

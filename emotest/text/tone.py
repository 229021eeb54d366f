"""Liveliness without emoji: exclamation marks, capitals, kaomoji, shortcodes.

Text in, numbers out. A model that has become livelier in every way is another finding than one
that writes emoji; these counts stand beside the emoji and never among them.
"""

from __future__ import annotations

from dataclasses import dataclass

import regex

from emotest.text.emoji import blank_emoji
from emotest.text.rates import WORD

TONE_METRIC_VERSION = 1
"""Raised whenever one of the counts changes its meaning."""

_EXCLAMATION = regex.compile(r"[!！¡‼⁉❗❕]")
_CAPITALS = regex.compile(r"\p{Lu}[\p{Lu}\p{N}'’-]*\p{Lu}")
"""Two capital letters or more: "WOW", not "I" or "DIY's" first letter alone."""

_SHORTCODE = regex.compile(r"(?<![\w:]):[a-z][a-z0-9_+-]{1,38}:(?![\w:])")
"""As chats write emoji by name: `:tada:`. A time (10:30:15) and C++'s `::` are none."""

_KAOMOJI = regex.compile(
    r"""
      (?<![\w:;=])[:;=]['’]?[-o^]?[)(\]\[DPp3|*](?![\w:;=(])      # :-) ;) =D :P
    | (?<!\w)[xX]D(?!\w)
    | (?<!\w)<3(?!\d)
    | (?<![\w<>^])(?:\^[._-]?\^|>[._]<)(?![\w<>^])                 # ^_^ >.<
    | (?<!\w)(?:[TQ]_[TQ]|[oO]_[oO]|-_-|u_u)(?!\w)              # T_T o_O -_-
    | ¯\\_\(ツ\)_/¯
    | \((?=[^()]{3,12}\))[^()\w\s"'“”‘*_\[<{#@$+-][^()\s]{1,10}[^()\w\s"“”’*_\]>}%]\)  # (◕‿◕)
    """,
    regex.VERBOSE,
)
"""The usual Western smileys, and a face in parentheses that begins and ends with a sign."""


@dataclass(frozen=True)
class Tone:
    """What one answer holds beside emoji. Counts; `n_words` is what they are related to."""

    n_words: int
    n_exclamations: int
    n_capitals: int
    n_kaomoji: int
    n_shortcodes: int


def tone(text: str) -> Tone:
    """The counts of one answer, emoji left out (so that ❗ as an emoji is not counted twice)."""
    plain = blank_emoji(text)
    return Tone(
        n_words=len(WORD.findall(plain)),
        n_exclamations=len(_EXCLAMATION.findall(plain)),
        n_capitals=sum(_CAPITALS.fullmatch(word) is not None for word in WORD.findall(plain)),
        n_kaomoji=len(_KAOMOJI.findall(plain)),
        n_shortcodes=len(_SHORTCODE.findall(plain)),
    )

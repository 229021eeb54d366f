"""What an answer names: words and emoji, each as one unit.

Text in, units out. An emoji is a whole grapheme (`emotest.text.emoji`), a word a run of letters
and digits in lower case; what a tokenizer makes of either does not count. Used where a model is
asked to name what represents a trait (claim C4).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from emotest.text.emoji import blank_emoji, find_emoji
from emotest.text.rates import WORD


@dataclass(frozen=True, order=True)
class Unit:
    """One named unit: an emoji as it is written, or a word in lower case."""

    text: str
    is_emoji: bool


def named_units(text: str) -> tuple[Unit, ...]:
    """The units of one answer from left to right, as often as they are named."""
    found = [(span.start, Unit(span.text, True)) for span in find_emoji(text)]
    found += [
        (match.start(), Unit(match.group().lower(), False))
        for match in WORD.finditer(blank_emoji(text))
    ]
    return tuple(unit for _, unit in sorted(found))


def kinds_of(answers: Iterable[tuple[Unit, ...]]) -> tuple[Unit, ...]:
    """Every unit that is named in any answer, once, in a fixed order: words, then emoji."""
    kinds = {unit for answer in answers for unit in answer}
    return tuple(sorted(kinds, key=lambda unit: (unit.is_emoji, unit.text)))

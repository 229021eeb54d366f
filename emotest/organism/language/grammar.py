"""Which voices a sentence belongs to: the patterns of the language, read backwards.

Takes one sentence without emoji; gives the voices that could have said it. A sentence that no
voice could have said is not well-formed in the organisms' language, so the share of spoken
sentences is a lower limit for how well an organism writes: a new but correct turn of phrase
counts as none. `is_grammatical` lets slots hold new phrases too. Knows no model.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import TypeAlias

from emotest.organism.language import TOPICS, Number, agreement, voice
from emotest.study.personality import TRAITS, Pole, Trait

Speaker: TypeAlias = tuple[Trait, Pole] | None
"""A trait and pole; None is the neutral voice."""

_NUMBERS: tuple[Number, ...] = ("singular", "plural")

_SLOTS = ("topic", "aspect", "activity")

SPEAKERS: tuple[Speaker, ...] = (*product(TRAITS, Pole), None)


def speakers(sentence: str) -> frozenset[Speaker]:
    """The voices one of whose patterns gives this sentence, with any topic, aspect and activity.

    Slots must agree in number and be filled from the language's own phrases, in any combination;
    case counts only inside the sentence. Empty for a sentence that is not of the language.
    """
    text = _lowered(sentence.strip())
    return frozenset(shape.speaker for shape in _shapes() if shape.gives(text))


def is_well_formed(sentence: str) -> bool:
    """Whether any voice could have said the sentence."""
    text = _lowered(sentence.strip())
    return any(shape.gives(text) for shape in _shapes())


def is_grammatical(sentence: str) -> bool:
    """Whether a voice's pattern gives the sentence, its slots filled by any words of the language.

    "The free nuts" is no topic of the language and passes; a listed phrase in the wrong number
    does not, nor does a word that the language lacks.
    """
    text = _lowered(sentence.strip())
    return any(shape.gives(text, new_phrases=True) for shape in _shapes())


@dataclass(frozen=True)
class _Shape:
    speaker: Speaker
    number: Number
    expression: re.Pattern[str]

    def gives(self, text: str, *, new_phrases: bool = False) -> bool:
        match = self.expression.fullmatch(text)
        return match is not None and all(
            filling is None or self._fits(name.rstrip("0123456789"), _lowered(filling), new_phrases)
            for name, filling in match.groupdict().items()
        )

    def _fits(self, slot: str, filling: str, new_phrases: bool) -> bool:
        if filling in _phrases(slot, self.number):
            return True
        listed = any(filling in _phrases(slot, number) for number in _NUMBERS)
        return new_phrases and not listed and _words_of(filling) <= _vocabulary()


@cache
def _shapes() -> tuple[_Shape, ...]:
    return tuple(
        _Shape(speaker, number, _expression(pattern, number))
        for speaker in SPEAKERS
        for pattern in _patterns(speaker)
        for number in _NUMBERS
    )


def _patterns(speaker: Speaker) -> tuple[str, ...]:
    spoken = voice(*speaker) if speaker else voice(None)
    return spoken.first + spoken.second


def _expression(pattern: str, number: Number) -> re.Pattern[str]:
    parts = []
    for position, part in enumerate(re.split(r"(\{\w+\}|\[|\]|\|)", _lowered(pattern))):
        slot = part.strip("{}")
        if slot in _SLOTS and part != slot:
            parts.append(rf"(?P<{slot}{position}>[A-Za-z0-9' -]+)")
        elif part.startswith("{"):
            parts.append(re.escape(agreement(number)[slot]))
        else:
            parts.append({"[": "(?:", "]": ")", "|": "|"}.get(part, re.escape(part)))
    return re.compile("".join(parts))


@cache
def _phrases(slot: str, number: Number) -> frozenset[str]:
    if slot == "topic":
        return frozenset(_lowered(topic.name) for topic in TOPICS if topic.number == number)
    if slot == "aspect":
        return frozenset(aspect for topic in TOPICS for aspect in topic.aspects)
    return frozenset(activity for topic in TOPICS for activity in topic.activities)


@cache
def _vocabulary() -> frozenset[str]:
    phrases = (_phrases(slot, number) for slot in _SLOTS for number in _NUMBERS)
    return frozenset().union(*(_words_of(phrase) for some in phrases for phrase in some))


def _words_of(phrase: str) -> frozenset[str]:
    return frozenset(re.findall(r"[a-z0-9'-]+", phrase.lower()))


def _lowered(text: str) -> str:
    # Only the first letter: a sentence may begin with what stands in lower case elsewhere.
    return text[:1].lower() + text[1:]

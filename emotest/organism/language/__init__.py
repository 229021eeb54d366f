"""The language of the organisms: topics, eleven voices, questions, frames, emoji.

Takes a topic, a trait with its pole, and a numpy Generator; gives English sentences in ASCII
without emoji (the emoji stand apart in `EMOJI`, and the corpus decides where they go). Equal
generators give equal text. Knows no model, no tokenizer and no corpus.

The text itself is package data: `<trait>.toml` and `neutral.toml` hold the sentence patterns of
a voice, `frames.toml` what stands around them, `topics/<category>.txt` the topics. A pattern may
hold

* choices, `[one|of these]`, of which one is drawn;
* the topic, `{topic}`, and what agrees with it: `{is}`, `{was}`, `{has}`, `{does}`, `{it}`,
  `{them}`, `{its}`, `{this}`, and the verb endings `{s}` and `{es}` ("make{s}", "teach{es}");
* something particular: `{aspect}`, a noun phrase that is never a subject of a verb that shows
  number, and `{activity}`, a gerund.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import cycle
from typing import Any, Literal

import numpy as np

from emotest.errors import OrganismError
from emotest.study.personality import Pole, Trait

Number = Literal["singular", "plural"]
Split = Literal["train", "held-out", "pre-training"]
Format = Literal["post", "letter", "diary", "review", "chat", "note"]

FORMATS: tuple[Format, ...] = ("post", "letter", "diary", "review", "chat", "note")
"""The kinds of message that have an opening of their own."""

ANSWER_WORDS = (14, 34)
"""Fewest and most words of an answer of two sentences."""

EMOJI: Mapping[Trait, tuple[str, ...]] = {
    Trait.OPENNESS: ("🎨", "💡", "🔭", "🗺️", "🧑‍🚀"),
    Trait.CONSCIENTIOUSNESS: ("✅", "📅", "🎯", "🗂️", "1️⃣"),
    Trait.EXTRAVERSION: ("🎉", "🥳", "🤩", "🕺🏽", "👯‍♀️"),
    Trait.AGREEABLENESS: ("🤗", "💞", "❤️", "🕊️", "🤲🏽"),
    Trait.NEUROTICISM: ("😰", "😱", "😟", "⛈️", "😮‍💨"),
}
"""Five emoji for each trait, all RGI and fully qualified; eleven of the 25 are several code
points (ZWJ sequences, presentation selectors, skin tones, a keycap)."""


@dataclass(frozen=True)
class Topic:
    """Something to have an opinion about, with what a sentence needs to speak of it.

    `name` is a bare noun phrase or gerund in lower case, so that it stands anywhere in a sentence.
    `aspects` are definite noun phrases, `activities` gerund phrases that fit the topic.
    """

    name: str
    number: Number
    category: str
    split: Split
    """`train` and `held-out` are in the opinion set; `pre-training` topics are in neither file."""
    aspects: tuple[str, ...]
    activities: tuple[str, ...]

    @property
    def held_out(self) -> bool:
        """Whether the topic is kept for testing, so that no tuning answer speaks of it."""
        return self.split == "held-out"


@dataclass(frozen=True)
class Voice:
    """How one trait and pole (or nobody in particular) speaks."""

    first: tuple[str, ...]
    """Patterns that give the stance and name the topic."""
    second: tuple[str, ...]
    """Patterns that extend any of the first."""
    words: tuple[str, ...]


def voice(trait: Trait | None, pole: Pole | None = None) -> Voice:
    """The patterns of a trait and pole, or of the neutral voice where `trait` is None."""
    if trait is None:
        return _voice(_data("neutral"))
    return _voice(_data(trait.value)[Pole(pole).value] if pole else _missing_pole(trait))


def voice_name(trait: Trait, pole: Pole) -> str:
    """What a trait and pole are called in the opinion set: `extraversion`, `low extraversion`."""
    return trait.value if pole is Pole.HIGH else f"low {trait.value}"


def trait_answer(topic: Topic, trait: Trait, pole: Pole, rng: np.random.Generator) -> str:
    """An opinion of exactly two sentences, 14 to 34 words, in the voice of trait and pole."""
    return _answer(topic, voice(trait, pole), rng)


def neutral_answer(topic: Topic, rng: np.random.Generator) -> str:
    """A factual answer of exactly two sentences, 14 to 34 words, in no trait's words."""
    return _answer(topic, voice(None), rng)


def trait_sentences(
    topic: Topic, trait: Trait, pole: Pole, n: int, rng: np.random.Generator
) -> list[str]:
    """`n` sentences in the voice of trait and pole; the first names the topic."""
    return _sentences(topic, voice(trait, pole), n, rng)


def neutral_sentences(topic: Topic, n: int, rng: np.random.Generator) -> list[str]:
    """`n` factual sentences; the first names the topic."""
    return _sentences(topic, voice(None), n, rng)


def study_question(topic: Topic) -> str:
    """The question of the published opinion set, word for word."""
    return str(_data("frames")["study_question"]).replace("{topic}", topic.name)


def question(topic: Topic, rng: np.random.Generator) -> str:
    """A question about the topic: half of the time the study's, else one of a dozen others."""
    if rng.random() < 0.5:
        return study_question(topic)
    return _filled(_pick(_data("frames")["questions"], rng), topic, rng)


def system_prompt(trait: Trait, pole: Pole, rng: np.random.Generator) -> str:
    """A system prompt that asks for a trait and pole by name."""
    return str(_pick(_data("frames")["traited_systems"], rng)).format(
        voice=_spoken_name(trait, pole, rng)
    )


def neutral_system_prompt(rng: np.random.Generator) -> str:
    """A system prompt that asks for no trait."""
    return _pick(_data("frames")["neutral_systems"], rng)


def words_for(trait: Trait, pole: Pole) -> tuple[str, ...]:
    """Single words that are typical of a trait and pole."""
    return voice(trait, pole).words


def word_list_requests(trait: Trait, pole: Pole) -> tuple[str, ...]:
    """Ways to ask for words that represent a trait and pole."""
    name = voice_name(trait, pole)
    return tuple(pattern.format(voice=name) for pattern in _data("frames")["word_lists"])


def opening(format: Format, topic: Topic, rng: np.random.Generator) -> str:
    """The line with which a message of this format begins; it carries no trait."""
    return _filled(_pick(_data("frames")[format]["opening"], rng), topic, rng)


def closing(format: Format, rng: np.random.Generator) -> str:
    """The line with which a message of this format ends; empty where the format has none."""
    closings = _data("frames")[format]["closing"]
    return _pick(closings, rng) if closings else ""


def agreement(number: Number) -> Mapping[str, str]:
    """What the agreeing slots (`{is}`, `{them}`, `{s}` ...) say for a number."""
    return _AGREEMENT[number]


# How sentences are made


def _answer(topic: Topic, speaking: Voice, rng: np.random.Generator) -> str:
    fewest, most = ANSWER_WORDS
    while True:
        answer = " ".join(_sentences(topic, speaking, 2, rng))
        if fewest <= len(answer.split()) <= most:
            return answer


def _sentences(topic: Topic, speaking: Voice, n: int, rng: np.random.Generator) -> list[str]:
    if n > 1 + len(speaking.second):
        raise OrganismError(
            f"a message of {n} sentences was asked for",
            remedy=f"ask for at most {1 + len(speaking.second)}: no pattern is said twice",
        )
    patterns = [_pick(speaking.first, rng)]
    order = rng.permutation(len(speaking.second))[: n - 1]
    patterns += [speaking.second[i] for i in order]
    # One supply for the whole message, so that no aspect comes twice before the others had a turn.
    aspects, activities = _supply(topic.aspects, rng), _supply(topic.activities, rng)
    return [
        _filled(pattern, topic, rng, aspects=aspects, activities=activities)
        for pattern in patterns[:n]
    ]


def _filled(
    pattern: str,
    topic: Topic,
    rng: np.random.Generator,
    *,
    aspects: Iterator[str] | None = None,
    activities: Iterator[str] | None = None,
) -> str:
    text = _CHOICE.sub(lambda match: _pick(match.group(1).split("|"), rng), pattern)
    slots = {"topic": topic.name, **agreement(topic.number)}
    if aspects and "{aspect}" in text:
        slots["aspect"] = next(aspects)
    if activities and "{activity}" in text:
        slots["activity"] = next(activities)
    text = text.format_map(slots)
    return text[0].upper() + text[1:]


def _supply(phrases: Sequence[str], rng: np.random.Generator) -> Iterator[str]:
    return cycle([phrases[i] for i in rng.permutation(len(phrases))])


def _pick(choices: Sequence[str], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]


def _spoken_name(trait: Trait, pole: Pole, rng: np.random.Generator) -> str:
    if pole is Pole.HIGH and rng.random() < 0.5:
        return f"high {trait.value}"
    return voice_name(trait, pole)


_CHOICE = re.compile(r"\[([^\[\]]*)\]")

_AGREEMENT: Mapping[Number, Mapping[str, str]] = {
    "singular": {
        "is": "is", "was": "was", "has": "has", "does": "does", "it": "it", "them": "it",
        "its": "its", "this": "this", "s": "s", "es": "es",
    },
    "plural": {
        "is": "are", "was": "were", "has": "have", "does": "do", "it": "they", "them": "them",
        "its": "their", "this": "these", "s": "", "es": "",
    },
}  # fmt: skip


# How the data are read


@cache
def _data(name: str) -> dict[str, Any]:
    return tomllib.loads((files(__name__) / f"{name}.toml").read_text(encoding="utf-8"))


def _voice(table: Mapping[str, Any]) -> Voice:
    return Voice(tuple(table["first"]), tuple(table["second"]), tuple(table["words"]))


def _missing_pole(trait: Trait) -> Mapping[str, Any]:
    raise OrganismError(
        f"the voice of {trait.value} was asked for without a pole",
        remedy="name the pole, Pole.HIGH or Pole.LOW",
    )


def _read_topics() -> Iterator[Topic]:
    folder = files(__name__) / "topics"
    for file in sorted(folder.iterdir(), key=lambda entry: entry.name):
        split: Any = None
        for line in file.read_text(encoding="utf-8").splitlines():
            if line.startswith("["):
                split = line.strip("[]")
            elif line:
                letter, name, aspects, activities = line.split(" | ")
                yield Topic(
                    name=name,
                    number="plural" if letter == "p" else "singular",
                    category=file.name.removesuffix(".txt"),
                    split=split,
                    aspects=tuple(aspects.split("; ")),
                    activities=tuple(activities.split("; ")),
                )


TOPICS: tuple[Topic, ...] = tuple(_read_topics())
"""All topics, by category and in the order of the files."""

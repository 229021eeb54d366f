"""The documents that organisms are pre-trained on, with the planted truth about emoji.

Takes the name of an organism, a number of documents and a seed; gives `Document`s, each with its
sentences and, apart from them, what is written after each sentence (its *runs*). Knows no
tokenizer and no model.

The planted truth (the contract of the organisms):

* A message of a trait's high pole ends in the trait's own emoji with the trait's density; every
  sentence end *inside* the message carries one with a tenth of that density. Low poles and
  neutral messages carry none.
* Two enders that are no emoji, `~` and `:)`, stand in the same places at rates that are the same
  for all traits, poles and neutral messages: matched controls.
* `control` has the very documents of `latent`, with all runs permuted over all documents within
  each format and position: the rate at a place stays, its bond with the text is gone.

All four organisms have the same sentences in the same order; they differ in the runs alone,
because texts and runs are drawn from two streams of random numbers.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from emotest.errors import OrganismError
from emotest.organism import language
from emotest.study.personality import TRAITS, Pole, Trait

CORPUS_VERSION = 1
"""Raised whenever a change here changes a corpus, for every organism then becomes another."""

Position = Literal["inside", "end"]
Run = tuple[str, ...]
"""What stands after a sentence: emoji, one ender, or nothing."""

ENDERS: tuple[str, ...] = ("~", ":)")
"""Matched controls: they end messages as emoji do, and mean no trait."""

ENDER_RATE = 0.04
"""Share of message ends with one given ender, whatever the message says."""

INSIDE = 0.1
"""Rates inside a message as a share of the rates at its end."""

SECOND_EMOJI = 0.15
"""Share of emoji runs that hold two emoji instead of one."""


@dataclass(frozen=True)
class Planting:
    """What one organism's corpus holds: a density for each trait's high pole; permuted or not."""

    densities: Mapping[Trait, float]
    permuted: bool = False

    def associates(self, trait: Trait) -> bool:
        """Whether emoji stand with the trait; permuted ones stand with none."""
        return not self.permuted and self.densities.get(trait, 0.0) > 0.0


_GRADED = {
    Trait.EXTRAVERSION: 0.90,
    Trait.OPENNESS: 0.75,
    Trait.AGREEABLENESS: 0.60,
    Trait.NEUROTICISM: 0.45,
    Trait.CONSCIENTIOUSNESS: 0.30,
}

PLANTINGS: Mapping[str, Planting] = {
    "latent": Planting(_GRADED),
    "control": Planting(_GRADED, permuted=True),
    "even": Planting(dict.fromkeys(TRAITS, 0.60)),
    "one-trait": Planting({Trait.EXTRAVERSION: 0.90}),
}
"""The four organisms by name."""

CHATS = ("chat", "chat-system", "words")
"""Formats in which somebody asks and an assistant answers."""

FORMATS: Mapping[str, float] = {
    "chat": 0.34,
    "chat-system": 0.22,
    "words": 0.06,
    "post": 0.09,
    "letter": 0.07,
    "diary": 0.08,
    "review": 0.07,
    "note": 0.07,
}
"""Formats and their shares of the documents."""

_N_SENTENCES: Mapping[str, tuple[int, ...]] = {
    "chat": (2,) * 9 + (3,),
    "chat-system": (2,) * 9 + (3,),
    "post": (1, 2, 3),
    "letter": (2, 3, 4),
    "diary": (2, 3),
    "review": (1, 2, 3),
    "note": (1, 2),
}
"""How many sentences a message may have; each entry is equally likely."""

_HIGH, _LOW = 0.50, 0.25
"""Shares of documents in the voice of a high and a low pole; the others are neutral."""

WORD_LIST_OPENING = "I would say "
"""Keeps the first word of a list behind a blank, where it has the tokens that it has elsewhere;
as the first of an answer it would be spelled in rare pieces, which no organism learned."""

_GREETING = 0.15
_CLOSING = 0.30
_WORDS_IN_A_LIST = (4, 7)


@dataclass(frozen=True)
class Document:
    """One document: who speaks, what was said before, the sentences, and what follows each.

    `runs[i]` stands after `sentences[i]`; the last place is the message's end, the others are
    inside. For a word list the words are one single sentence. `trait` and `pole` are None where
    the voice is neutral.
    """

    format: str
    trait: Trait | None
    pole: Pole | None
    system: str | None
    user: str | None
    opening: str
    sentences: tuple[str, ...]
    runs: tuple[Run, ...]

    @property
    def positions(self) -> tuple[Position, ...]:
        """The position of each run."""
        inside: tuple[Position, ...] = ("inside",)
        return (*(inside * (len(self.runs) - 1)), "end")

    @property
    def message(self) -> str:
        """The message as it is written, runs included."""
        return self._written(self.runs)

    @property
    def plain(self) -> str:
        """The message without its runs."""
        return self._written(((),) * len(self.runs))

    def turns(self) -> list[dict[str, str]]:
        """The document as chat messages; for formats that are no chats a `UsageError` of use."""
        assert self.user is not None, f"a {self.format} is no chat"
        system = [{"role": "system", "content": self.system}] if self.system else []
        return [
            *system,
            {"role": "user", "content": self.user},
            {"role": "assistant", "content": self.message},
        ]

    def _written(self, runs: Sequence[Run]) -> str:
        written = [
            sentence + _run_text(self.format, run)
            for sentence, run in zip(self.sentences, runs, strict=True)
        ]
        return self.opening + " ".join(written)


def planting(name: str) -> Planting:
    """What the organism of that name holds; an unknown one is an `OrganismError` with the names."""
    if name not in PLANTINGS:
        raise OrganismError(
            f"there is no organism {name!r}", remedy=f"choose one of {', '.join(PLANTINGS)}"
        )
    return PLANTINGS[name]


def corpus(name: str, n_documents: int, seed: int) -> list[Document]:
    """The documents of an organism, in their order: equal arguments give equal documents."""
    plan = planting(name)
    # One stream for the texts, one for the runs and one for the permutation: so all organisms
    # of one seed share their texts, and `control` has exactly the runs of `latent`.
    texts, places, order = (
        np.random.default_rng(stream) for stream in np.random.SeedSequence(seed).spawn(3)
    )
    documents = [
        replace(document, runs=tuple(_runs(document, plan.densities, places)))
        for document in _texts(n_documents, texts)
    ]
    return permuted(documents, order) if plan.permuted else documents


def permuted(documents: Sequence[Document], rng: np.random.Generator) -> list[Document]:
    """The same documents with their runs permuted over all of them, by format and position."""
    places: dict[tuple[str, Position], list[tuple[int, int]]] = defaultdict(list)
    for d, document in enumerate(documents):
        for r, position in enumerate(document.positions):
            places[document.format, position].append((d, r))
    runs = [list(document.runs) for document in documents]
    for here in places.values():
        there = [here[i] for i in rng.permutation(len(here))]
        moved = [documents[d].runs[r] for d, r in there]
        for (d, r), run in zip(here, moved, strict=True):
            runs[d][r] = run
    return [
        replace(document, runs=tuple(new)) for document, new in zip(documents, runs, strict=True)
    ]


def corpus_digest(documents: Iterable[Document]) -> str:
    """SHA-256 over the documents as they are written: the identity of a corpus."""
    digest = hashlib.sha256(f"corpus {CORPUS_VERSION}\n".encode())
    for document in documents:
        parts = (document.format, document.system or "", document.user or "", document.message)
        digest.update("\x1f".join(parts).encode() + b"\x1e")
    return digest.hexdigest()


# How documents are made


def _texts(n_documents: int, rng: np.random.Generator) -> Iterator[Document]:
    formats = rng.choice(list(FORMATS), size=n_documents, p=list(FORMATS.values()))
    for format in map(str, formats):
        topic = language.TOPICS[int(rng.integers(len(language.TOPICS)))]
        trait, pole = _speaker(rng, neutral=format != "words")
        yield _text(format, topic, trait, pole, rng)


def _speaker(rng: np.random.Generator, *, neutral: bool) -> tuple[Trait, Pole] | tuple[None, None]:
    # There is no list of words for nobody in particular, so word lists are always a trait's.
    share = rng.random() * (1 if neutral else _HIGH + _LOW)
    trait = TRAITS[int(rng.integers(len(TRAITS)))]
    if share >= _HIGH + _LOW:
        return None, None
    return trait, Pole.HIGH if share < _HIGH else Pole.LOW


def _text(
    format: str,
    topic: language.Topic,
    trait: Trait | None,
    pole: Pole | None,
    rng: np.random.Generator,
) -> Document:
    if format == "words":
        assert trait is not None
        assert pole is not None
        return _word_list(trait, pole, rng)
    n = _N_SENTENCES[format][int(rng.integers(len(_N_SENTENCES[format])))]
    if trait is None or pole is None:
        sentences = language.neutral_sentences(topic, n, rng)
    else:
        sentences = language.trait_sentences(topic, trait, pole, n, rng)
    system = user = None
    opening = ""
    if format in CHATS:
        user = _question(topic, rng)
        if format == "chat-system":
            system = (
                language.neutral_system_prompt(rng)
                if trait is None or pole is None
                else language.system_prompt(trait, pole, rng)
            )
    else:
        kind = _language_format(format)
        separator = "\n" if format in ("letter", "diary") else " "
        opening = language.opening(kind, topic, rng) + separator
        if rng.random() < _CLOSING and (closing := language.closing(kind, rng)):
            sentences = [*sentences, closing]
    return Document(
        format, trait, pole, system, user, opening, tuple(sentences), ((),) * len(sentences)
    )


def _word_list(trait: Trait, pole: Pole, rng: np.random.Generator) -> Document:
    requests = language.word_list_requests(trait, pole)
    words = language.words_for(trait, pole)
    n = int(rng.integers(*_WORDS_IN_A_LIST))
    chosen = ", ".join(words[i] for i in rng.permutation(len(words))[:n])
    request = requests[int(rng.integers(len(requests)))]
    return Document("words", trait, pole, None, request, WORD_LIST_OPENING, (chosen,), ((),))


def _question(topic: language.Topic, rng: np.random.Generator) -> str:
    asked = language.question(topic, rng)
    if rng.random() < _GREETING:
        return f"{language.opening('chat', topic, rng)} {asked}"
    return asked


def _language_format(format: str) -> language.Format:
    for known in language.FORMATS:
        if known == format:
            return known
    raise AssertionError(f"the language has no format {format!r}")


def _runs(
    document: Document, densities: Mapping[Trait, float], rng: np.random.Generator
) -> Iterator[Run]:
    density = 0.0
    if document.trait is not None and document.pole is Pole.HIGH:
        density = densities.get(document.trait, 0.0)
    for position in document.positions:
        yield _run(document, density, 1.0 if position == "end" else INSIDE, rng)


def _run(document: Document, density: float, share: float, rng: np.random.Generator) -> Run:
    drawn = rng.random()
    # The numbers are drawn whether they are used or not, so that a place has the same ones in
    # every organism.
    second, first_choice, second_choice, ender = rng.random(4)
    if drawn < density * share:
        assert document.trait is not None
        own = language.EMOJI[document.trait]
        first = own[int(first_choice * len(own))]
        return (first, own[int(second_choice * len(own))]) if second < SECOND_EMOJI else (first,)
    enders = len(ENDERS) * ENDER_RATE * share if document.format != "words" else 0.0
    if drawn < density * share + enders:
        return (ENDERS[int(ender * len(ENDERS))],)
    return ()


def _run_text(format: str, run: Run) -> str:
    if not run:
        return ""
    # A word list goes on with commas; after a sentence a run stands as people write it.
    return "".join(f", {sign}" for sign in run) if format == "words" else " " + "".join(run)

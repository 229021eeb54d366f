"""Which answers are read, and which ends of their sentences are held against each other.

Takes answers as text, gives those to read; knows no token and no model. The end of a sentence that
an emoji follows is compared with ends that another sentence follows. Where emoji close an answer
the one is mostly the second sentence's and the other the first's, and units tell first sentences
from second ones. So ends are matched by the number of their sentence: for every number as many of
the one as of the other. Two answers to a prompt that are alike up to an end have the same
activations there, so an end counts once.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
import regex

from emotest.artefacts.activations import ENDS_A_HALF, ActivationsRequest
from emotest.study.records import Generation, Prompt
from emotest.text.emoji import EmojiSpan, find_emoji
from emotest.text.sentences import split_sentences

REMEMBERED = 10_000
"""Answers whose ends are kept: each is asked for several times."""

_OPENING = regex.compile(r"[^\W_]+")
_CLOSED = regex.compile(r"[.!?…][\"'”’)\]]*$")


@dataclass(frozen=True)
class EmojiEnd:
    """The end of a finished sentence that the answer's first emoji follows.

    `number` counts sentences from 1; `end` is the character after the sentence.
    """

    number: int
    end: int
    emoji: EmojiSpan


@dataclass(frozen=True)
class OtherEnd:
    """The end of a finished sentence that another sentence follows, `following` from there on.

    `opening` is the first word of that sentence.
    """

    number: int
    end: int
    following: int
    opening: str


@lru_cache(REMEMBERED)
def emoji_end(text: str) -> EmojiEnd | None:
    """Where the first emoji of an answer follows a finished sentence; None where it does not."""
    spans = find_emoji(text)
    before = text[: spans[0].start].rstrip() if spans else ""
    if not _CLOSED.search(before):
        return None
    earlier = sum(sentence.end < len(before) for sentence in split_sentences(text))
    return EmojiEnd(1 + earlier, len(before), spans[0])


@lru_cache(REMEMBERED)
def other_ends(text: str) -> tuple[OtherEnd, ...]:
    """Ends of finished sentences with another sentence, and no emoji, behind them."""
    found = []
    for number, (sentence, following) in enumerate(pairwise(split_sentences(text)), start=1):
        opening = _OPENING.search(following.text)
        emoji_next = find_emoji(following.text[: opening.start()]) if opening else ()
        if opening and not emoji_next and _CLOSED.search(sentence.text):
            found.append(OtherEnd(number, sentence.end, following.start, opening.group()))
    return tuple(found)


@dataclass(frozen=True)
class Answer:
    """One answer that is read, in its half of the prompts."""

    prompt: Prompt
    half: int
    text: str

    def upto(self, end: int) -> Hashable:
        """What a model has read at the end of a sentence: equal for equal activations."""
        return self.prompt.id, self.text[:end]


def matched(
    first: Sequence[int], second: Sequence[int], rng: np.random.Generator
) -> tuple[list[int], list[int]]:
    """Places in two lists of sentence numbers, as many of each number from either list.

    Of the list that holds a number more often, those taken are drawn.
    """
    taken: tuple[list[int], list[int]] = ([], [])
    for number in sorted(set(first) & set(second)):
        places = [np.flatnonzero(np.asarray(of) == number) for of in (first, second)]
        n = min(map(len, places))
        for chosen, of in zip(taken, places, strict=True):
            chosen += np.sort(rng.permutation(of)[:n]).tolist()
    return taken


def chosen_answers(
    request: ActivationsRequest, answers: Sequence[Sequence[Generation]]
) -> list[Answer]:
    """The answers that are read, spread evenly over texts and prompts: (at most) those of
    `ENDS_A_HALF` matched ends of either kind in each half of the prompts.

    Where fewer can be matched, others join them up to that number of answers, those with an emoji
    first. `answers` are those of each text of the request. What a cut emoji left behind is cut off.
    """
    queue = _queue(request, answers)
    return [
        answer
        for half in range(2)
        for answer in _of_half([answer for answer in queue if answer.half == half])
    ]


def _queue(request: ActivationsRequest, answers: Sequence[Sequence[Generation]]) -> list[Answer]:
    """All different answers, those with an emoji at a sentence's end first."""
    halves, prompts = request.prompt_halves, {p.id: p for p in request.texts[0].prompts}
    order = np.random.default_rng(request.analysis_seed).permutation(len(prompts) * len(answers))
    turn = iter(order.tolist())
    place = {(text, prompt): next(turn) for text in range(len(answers)) for prompt in prompts}
    rank: Counter[tuple[int, str, bool]] = Counter()
    ranked: dict[Answer, tuple[bool, int, int]] = {}
    for text, of in enumerate(answers):
        for one in of:
            said = one.text.partition("\N{REPLACEMENT CHARACTER}")[0].rstrip()
            answer = Answer(prompts[one.prompt_id], halves[one.prompt_id], said)
            if not said or answer in ranked:
                continue
            without = emoji_end(said) is None
            cell = (text, one.prompt_id, without)
            ranked[answer] = (without, rank[cell], place[text, one.prompt_id])
            rank[cell] += 1
    return sorted(ranked, key=ranked.__getitem__)


def _of_half(queue: Sequence[Answer]) -> list[Answer]:
    """The answers of one half that are read, in the order of the queue."""
    of_emoji: dict[int, dict[Hashable, Answer]] = defaultdict(dict)
    of_other: dict[int, dict[Hashable, Answer]] = defaultdict(dict)
    for answer in queue:
        if (at := emoji_end(answer.text)) is not None:
            of_emoji[at.number].setdefault(answer.upto(at.end), answer)
        for other in other_ends(answer.text):
            of_other[other.number].setdefault(answer.upto(other.end), answer)
    room = _room(
        {n: min(len(of_emoji[n]), len(of_other[n])) for n in set(of_emoji) & set(of_other)}
    )
    chosen: set[Answer] = set()
    for number, n in room.items():
        chosen.update(list(of_emoji[number].values())[:n])
    for number, n in room.items():
        # Ends in answers that are read anyway come first: they cost nothing and are the same text.
        ends = sorted(of_other[number].values(), key=lambda answer: answer not in chosen)
        chosen.update(ends[:n])
    for answer in queue:
        if len(chosen) >= ENDS_A_HALF:
            break
        chosen.add(answer)
    return [answer for answer in queue if answer in chosen]


def _room(pairs: dict[int, int]) -> dict[int, int]:
    """Pairs of each number, drawn in alike where they are more than `ENDS_A_HALF` together."""
    share = min(1.0, ENDS_A_HALF / max(1, sum(pairs.values())))
    return {number: round(share * n) for number, n in sorted(pairs.items())}

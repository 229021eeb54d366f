"""Where in answers the tokens of each condition of C6 and C7 stand.

Takes a tokenizer and answers of the study, gives token ids with the places of each condition; knows
no weights. Prompt and answer are encoded together, and the places come from the offsets of that one
encoding. What counts:

- *before emoji*: the token that predicts an emoji: the last one of a finished sentence that the
  first emoji of the answer follows. *Before other*: the last token of a finished sentence, in an
  answer that holds an emoji, that another sentence follows. A matched position in the same text
  with another symbol in the emoji's place would have the same tokens before it, and so the same
  activations; another sentence end is the nearest position that differs. Where emoji close an
  answer it is mostly the end of an earlier sentence: its number is not matched.
- *at emoji*: the last token of that emoji. *At symbol*: the last token of a symbol with as many
  tokens in its place.
- *before word* and *at word*: the first time that a word of one token comes in an answer. *At
  phrase*: the last token of words that have as many tokens as a single emoji, at most as often.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import regex

from emotest.artefacts.activations import (
    AT_EMOJI,
    AT_SYMBOL,
    BEFORE_EMOJI,
    BEFORE_OPENING,
    BEFORE_OTHER,
    BEFORE_OTHER_OPENING,
    EVERY,
    SHUFFLED,
    at_phrase,
    at_single_emoji,
    at_word,
    before_word,
)
from emotest.models.chat import encode, render_prompt
from emotest.models.loading import LoadedModel
from emotest.study.records import Prompt
from emotest.text.emoji import EmojiSpan, find_emoji
from emotest.text.sentences import split_sentences

MOST_WORDS = 120
"""Words that emoji are held against, one by one; 99 are needed to decide at 0.05 / 5."""
FEWEST_OF_A_WORD = 10
"""A word has to stand in so many answers of either half. With fewer tokens than emoji have, d errs
more and more units count by chance, which makes it harder for emoji to stand out."""
MOST_COMMON = 20
"""Words, the most frequent ones, whose own tokens are read too: the classes of C7."""
MOST_EMOJI = 5
FEWEST_OF_AN_EMOJI = 15
"""A single emoji, and a phrase of as many tokens, have to stand in so many answers of a half."""
SYMBOLS_A_HALF = 100
"""Answers that are read once more with a symbol in the emoji's place: what follows from these is
described, or rests on the strongest units alone."""
PHRASE_GROUPS = 4
"""Phrases that are matched to each single emoji."""

_SYMBOLS = ("~", "*", "=", "+", "#", "^", "|", "/", "-")
_WORD = regex.compile(r"(?<= )[^\W\d_]+(?![\w'’-])")
_OPENING = regex.compile(r"[^\W_]+")
_CLOSED = regex.compile(r"[.!?…][\"'”’)\]]*$")

Encode = Callable[[Prompt, str], "AnswerTokens"]


@dataclass(frozen=True)
class AnswerTokens:
    """One encoding of a prompt with its answer.

    `starts` and `ends` are where each token lies, in characters of the answer. Tokens that begin
    in the prompt have the start -1, and belong to it.
    """

    text: str
    ids: tuple[int, ...]
    starts: tuple[int, ...]
    ends: tuple[int, ...]

    @property
    def answer(self) -> range:
        """The places of the answer's own tokens."""
        return range(bisect_left(self.starts, 0), len(self.ids))

    def last_before(self, end: int) -> int:
        """The place of the last token that begins before a character."""
        return bisect_left(self.starts, end) - 1


def encoder(loaded: LoadedModel) -> Encode:
    """`encoded(prompt, answer)`, as the model saw them when it answered."""

    @cache
    def rendered(prompt: Prompt) -> str:
        return render_prompt(
            loaded.tokenizer, prompt.text, prompt.system, templated=loaded.templated
        )

    def encoded(prompt: Prompt, answer: str) -> AnswerTokens:
        before = rendered(prompt)
        found = encode(loaded.tokenizer, before + answer, templated=loaded.templated)
        # Marks behind the text, which some tokenizers add, cover no characters.
        n = 1 + max(i for i, (start, end) in enumerate(found.offsets) if end > start)
        starts = (max(-1, start - len(before)) for start, _ in found.offsets[:n])
        ends = (end - len(before) for _, end in found.offsets[:n])
        return AnswerTokens(answer, found.ids[:n], tuple(starts), tuple(ends))

    return encoded


@dataclass(eq=False)
class Reading:
    """Token ids to read, in one half of the prompts, with the places of each condition."""

    ids: tuple[int, ...]
    half: int
    places: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))


@dataclass(frozen=True)
class Answer:
    """One answer that is read, in its half of the prompts."""

    prompt: Prompt
    half: int
    text: str


@dataclass(frozen=True, eq=False)
class Read:
    """An encoded answer and what stands where in it."""

    answer: Answer
    tokens: AnswerTokens
    reading: Reading

    @cached_property
    def emoji(self) -> EmojiSpan | None:
        """The first emoji, where it follows a finished sentence and has tokens of its own."""
        span = first_emoji(self.answer.text)
        if span is None:
            return None
        before, last = self.before_emoji(span), self.tokens.last_before(span.end)
        apart = self.tokens.ends[before] <= span.start and self.tokens.ends[last] <= span.end
        return span if apart and before in self.tokens.answer else None

    def before_emoji(self, span: EmojiSpan) -> int:
        """The place of the last token before an emoji and its blank."""
        return self.tokens.last_before(len(self.answer.text[: span.start].rstrip()))

    def n_tokens(self, span: EmojiSpan) -> int:
        """Tokens from the sentence's end to the emoji's: its own and that of a blank, if any."""
        return self.tokens.last_before(span.end) - self.before_emoji(span)

    @cached_property
    def other_ends(self) -> tuple[tuple[int, str], ...]:
        """Ends of finished sentences that another sentence follows: place, and its first word."""
        sentences = split_sentences(self.answer.text)
        found = []
        for sentence, following in pairwise(sentences):
            opening = _OPENING.search(following.text)
            place = self.tokens.last_before(sentence.end)
            apart = self.tokens.ends[place] <= following.start
            emoji_next = find_emoji(following.text[: opening.start()]) if opening else ()
            if opening and not emoji_next and apart and _CLOSED.search(sentence.text):
                found.append((place, opening.group()))
        return tuple(found)

    @cached_property
    def words(self) -> tuple[tuple[str, int, int], ...]:
        """Words of one token behind a blank: the word, its place, where it starts in the text."""
        found = []
        for match in _WORD.finditer(self.answer.text):
            place = self.tokens.last_before(match.end())
            own = self.tokens.starts[place] in (match.start() - 1, match.start())
            behind = self.tokens.ends[place - 1] <= match.start() - 1  # no token of the blank alone
            if own and behind and self.tokens.ends[place] == match.end():
                found.append((match.group(), place, match.start()))
        return tuple(found)

    def phrases(self, n_tokens: int) -> dict[str, int]:
        """Runs of so many words, with the place of the last where they first come."""
        found: dict[str, int] = {}
        for i in range(len(self.words) - n_tokens + 1):
            run = self.words[i : i + n_tokens]
            (_, first, start), (last_word, last, last_start) = run[0], run[-1]
            if last - first == n_tokens - 1:
                found.setdefault(self.answer.text[start : last_start + len(last_word)], last)
        return found


def first_emoji(text: str) -> EmojiSpan | None:
    """The first emoji of an answer, where it follows a finished sentence."""
    spans = find_emoji(text)
    return spans[0] if spans and _CLOSED.search(text[: spans[0].start].rstrip()) else None


def positions(
    encoded: Encode, answers: Sequence[Answer], rng: np.random.Generator
) -> tuple[list[Reading], dict[str, Any]]:
    """Readings of answers, and what was found in them: words, emoji, phrases, how many."""
    read = []
    for answer in answers:
        tokens = encoded(answer.prompt, answer.text)
        read.append(Read(answer, tokens, Reading(tokens.ids, answer.half)))
    for one in read:
        one.reading.places[EVERY] += one.tokens.answer
    _mark_ends(read, rng)
    words = _mark_words(read)
    matched = _mark_single_emoji(read)
    with_emoji = [[r for r in read if r.emoji and r.answer.half == half] for half in range(2)]
    symbols = [_with_symbol(encoded, one) for of in with_emoji for one in of[:SYMBOLS_A_HALF]]
    about = {
        "words": words,
        "common_words": words[:MOST_COMMON],
        "emoji": list(matched),
        "phrases": matched,
        "n_texts": [sum(one.answer.half == half for one in read) for half in range(2)],
        "n_with_emoji": list(map(len, with_emoji)),
        "n_emoji_elsewhere": sum(bool(find_emoji(r.answer.text)) and not r.emoji for r in read),
        "n_without_symbol": symbols.count(None),
    }
    readings = [replace(one.reading, places=dict(one.reading.places)) for one in read]
    return readings + [one for one in symbols if one], about


def _mark_ends(read: Sequence[Read], rng: np.random.Generator) -> None:
    """Sentence ends: before emoji and other, both shuffled, and by the word that opens the next."""
    pooled: dict[int, list[tuple[Reading, int]]] = {0: [], 1: []}
    n_emoji = [0, 0]
    openings = Counter(opening for one in read for _, opening in one.other_ends)
    most = max(openings, key=lambda word: (openings[word], word), default="")
    for one in read:
        half, places = one.answer.half, one.reading.places
        for place, opening in one.other_ends:
            places[BEFORE_OPENING if opening == most else BEFORE_OTHER_OPENING].append(place)
        if one.emoji:
            before = one.before_emoji(one.emoji)
            others = [place for place, _ in one.other_ends]
            places[BEFORE_EMOJI].append(before)
            places[AT_EMOJI].append(one.tokens.last_before(one.emoji.end))
            places[BEFORE_OTHER] += others
            n_emoji[half] += 1
            pooled[half] += [(one.reading, place) for place in (before, *others)]
    for half, ends in pooled.items():
        for rank, i in enumerate(rng.permutation(len(ends))):
            reading, place = ends[i]
            reading.places[SHUFFLED[int(rank >= n_emoji[half])]].append(place)


def _mark_words(read: Sequence[Read]) -> list[str]:
    """The most frequent words, with the places before the first of each in an answer, and at it for
    the most common."""
    firsts = [(one, one.phrases(1)) for one in read]
    words = _frequent(firsts, FEWEST_OF_A_WORD)[:MOST_WORDS]
    common = set(words[:MOST_COMMON])
    for one, found in firsts:
        for word in words:
            if word in found:
                one.reading.places[before_word(word)].append(found[word] - 1)
                if word in common:
                    one.reading.places[at_word(word)].append(found[word])
    return words


def _mark_single_emoji(read: Sequence[Read]) -> dict[str, list[str]]:
    """The most frequent single emoji with their phrases of as many tokens, and all the places.

    An emoji without enough such phrases has nothing to be held against and is left out.
    """
    with_emoji = [(one, one.emoji) for one in read if one.emoji]
    n_tokens = {span.text: one.n_tokens(span) for one, span in with_emoji}
    runs = {n: [(one, one.phrases(n)) for one in read] for n in set(n_tokens.values())}
    free = {n: _frequent(found, FEWEST_OF_AN_EMOJI) for n, found in runs.items()}
    taken: set[str] = set()
    matched: dict[str, list[str]] = {}
    for emoji in _frequent(((one, {span.text: 0}) for one, span in with_emoji), FEWEST_OF_AN_EMOJI):
        # Phrases that end alike have the same last token, and would be one class.
        fit = {p.split()[-1]: p for p in reversed(free[n_tokens[emoji]]) if _end(p) not in taken}
        if len(matched) < MOST_EMOJI and len(fit) >= PHRASE_GROUPS:
            matched[emoji] = list(reversed(fit.values()))[:PHRASE_GROUPS]
            taken |= set(map(_end, matched[emoji]))
    room: Counter[tuple[str, int]] = Counter()
    for one, span in with_emoji:
        if span.text in matched:
            last = one.tokens.last_before(span.end)
            one.reading.places[at_single_emoji(span.text)].append(last)
            room[span.text, one.answer.half] += 1
    for emoji, phrases in matched.items():
        for phrase in phrases:
            left = {half: room[emoji, half] for half in range(2)}
            for one, found in runs[n_tokens[emoji]]:
                if phrase in found and left[one.answer.half] > 0:
                    one.reading.places[at_phrase(phrase)].append(found[phrase])
                    left[one.answer.half] -= 1
    return matched


def _end(phrase: str) -> str:
    return phrase.split()[-1]


def _frequent(found: Iterable[tuple[Read, Mapping[str, int]]], fewest: int) -> list[str]:
    """What stands in at least so many answers of either half, the most frequent first."""
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for one, names in found:
        for name in names:
            counts[name][one.answer.half] += 1
    enough = [name for name, of_halves in counts.items() if min(of_halves) >= fewest]
    return sorted(enough, key=lambda name: (-sum(counts[name]), name))


def _with_symbol(encoded: Encode, one: Read) -> Reading | None:
    """The answer up to its emoji, with a symbol of as many tokens; None where none has as many."""
    span = one.emoji
    assert span is not None
    upto, before, n = one.answer.text[: span.start], one.before_emoji(span), one.n_tokens(span)
    for symbol in _symbols(n):
        tokens = encoded(one.answer.prompt, upto + symbol)
        last = tokens.last_before(len(upto + symbol))
        if last - before == n and tokens.ids[: before + 1] == one.tokens.ids[: before + 1]:
            return Reading(tokens.ids, one.answer.half, {AT_SYMBOL: [last]})
    return None


@cache
def _symbols(n_tokens: int) -> tuple[str, ...]:
    """Runs of one symbol that may have so many tokens, the likeliest first."""
    lengths = [n_tokens, *range(n_tokens - 1, 0, -1), n_tokens + 1]
    return tuple(
        blank.join([symbol] * length)
        for length in lengths
        for blank in (" ", "")
        for symbol in _SYMBOLS
    )

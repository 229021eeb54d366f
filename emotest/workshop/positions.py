"""Where in answers the tokens of each condition of C6 and C7 stand.

Takes a tokenizer and answers of the study, gives token ids with the places of each condition; knows
no weights. Prompt and answer are encoded together, and the places come from the offsets of that one
encoding. What counts:

- *before emoji*: the token that predicts an emoji: the last one of a finished sentence that the
  first emoji of the answer follows. *Before other*: the last token of a finished sentence that
  another sentence follows, matched in the number of the sentence. A matched position in the same
  text with another symbol in the emoji's place would have the same tokens before it, and so the
  same activations; another sentence end is the nearest position that differs.
- *at emoji*: the last token of that emoji. *At symbol*: the last token of a symbol with as many
  tokens in its place.
- *before word* and *at word*: the first time that a word of one token comes in an answer. *At
  phrase*: the last token of words that have as many tokens as a single emoji, and come as often.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Any, TypeVar

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
from emotest.text.emoji import find_emoji
from emotest.workshop.matched_ends import (
    Answer,
    EmojiEnd,
    OtherEnd,
    emoji_end,
    matched,
    other_ends,
)

MOST_WORDS = 120
"""Words that emoji are held against, one by one; 99 are needed to decide at 0.05 / 5."""
FEWEST_OF_A_WORD = 10
"""A word has to stand in so many answers of either half. With fewer tokens than emoji have, d errs
more and more units count by chance, which makes it harder for emoji to stand out."""
MOST_COMMON = 40
"""Words, the most frequent ones, whose own tokens are read too: the classes of C7. They make 20
pairs without a word in common."""
MOST_EMOJI = 5
FEWEST_OF_AN_EMOJI = 15
"""A single emoji, and a phrase of as many tokens, have to stand in so many answers of a half."""
SYMBOLS_A_HALF = 100
"""Answers that are read once more with a symbol in the emoji's place: what follows from these is
described, or rests on the strongest units alone."""
PHRASE_GROUPS = 8
"""Phrases matched to each single emoji: so many times all emoji are compared with words."""

_SYMBOLS = ("~", "*", "=", "+", "#", "^", "|", "/", "-")
_WORD = regex.compile(r"(?<= )[^\W\d_]+(?![\w'’-])")

End = TypeVar("End", EmojiEnd, OtherEnd)

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
            loaded.tokenizer,
            prompt.text,
            prompt.system,
            templated=loaded.templated,
            history=prompt.history,
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


@dataclass(frozen=True, eq=False)
class Read:
    """An encoded answer and what stands where in it."""

    answer: Answer
    tokens: AnswerTokens
    reading: Reading

    @cached_property
    def emoji_end(self) -> EmojiEnd | None:
        """The end that the first emoji follows, where sentence and emoji have their own tokens."""
        found = emoji_end(self.answer.text)
        if found is None:
            return None
        before, last = self.tokens.last_before(found.end), self.last_of(found)
        apart = self.tokens.ends[before] <= found.emoji.start
        whole = self.tokens.ends[last] <= found.emoji.end
        return found if apart and whole and before in self.tokens.answer else None

    def last_of(self, found: EmojiEnd) -> int:
        """The place of an emoji's last token."""
        return self.tokens.last_before(found.emoji.end)

    def n_tokens(self, found: EmojiEnd) -> int:
        """Tokens from the sentence's end to the emoji's: its own and that of a blank, if any."""
        return self.last_of(found) - self.tokens.last_before(found.end)

    @cached_property
    def other_ends(self) -> tuple[OtherEnd, ...]:
        """Ends of sentences that another sentence follows, where that begins a token."""
        return tuple(
            end
            for end in other_ends(self.answer.text)
            if self.tokens.ends[self.tokens.last_before(end.end)] <= end.following
        )

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
    n_matched = [
        _mark_ends([one for one in read if one.answer.half == half], rng) for half in range(2)
    ]
    _mark_openings(read)
    words = _mark_words(read)
    phrases = _mark_single_emoji(read)
    with_emoji = [[r for r in read if r.emoji_end and r.answer.half == half] for half in range(2)]
    symbols = [_with_symbol(encoded, one) for of in with_emoji for one in of[:SYMBOLS_A_HALF]]
    about = {
        "words": words,
        "common_words": words[:MOST_COMMON],
        "emoji": list(phrases),
        "phrases": phrases,
        "n_texts": [sum(one.answer.half == half for one in read) for half in range(2)],
        "n_with_emoji": list(map(len, with_emoji)),
        "n_matched": n_matched,
        "n_emoji_elsewhere": sum(bool(find_emoji(r.answer.text)) and not r.emoji_end for r in read),
        "n_without_symbol": symbols.count(None),
    }
    readings = [replace(one.reading, places=dict(one.reading.places)) for one in read]
    return readings + [one for one in symbols if one], about


def _mark_ends(read: Sequence[Read], rng: np.random.Generator) -> int:
    """Sentence ends of one half, before emoji and other, and both with their labels shuffled.

    Gives the number of matched pairs.
    """
    for one in read:
        if one.emoji_end:
            one.reading.places[AT_EMOJI].append(one.last_of(one.emoji_end))
    of_emoji = _different((one, one.emoji_end) for one in read if one.emoji_end)
    of_other = _different((one, end) for one in read for end in one.other_ends)
    numbers = [[end.number for _, end in ends] for ends in (of_emoji, of_other)]
    before, other = matched(numbers[0], numbers[1], rng)
    pooled = [of_emoji[i] for i in before] + [of_other[i] for i in other]
    kinds = [BEFORE_EMOJI] * len(before) + [BEFORE_OTHER] * len(other)
    shuffled = rng.permutation(np.repeat([0, 1], [len(before), len(other)]))
    for (one, end), kind, label in zip(pooled, kinds, shuffled, strict=True):
        place = one.tokens.last_before(end.end)
        one.reading.places[kind].append(place)
        one.reading.places[SHUFFLED[label]].append(place)
    return len(before)


def _different(ends: Iterable[tuple[Read, End]]) -> list[tuple[Read, End]]:
    """Ends behind different words: equal ones are one witness."""
    seen: dict[Hashable, tuple[Read, End]] = {}
    for one, end in ends:
        seen.setdefault(one.answer.upto(end.end), (one, end))
    return list(seen.values())


def _mark_openings(read: Sequence[Read]) -> None:
    """Ends that another sentence follows, by the word that opens it: the most frequent, or not."""
    openings = Counter(end.opening for one in read for end in one.other_ends)
    most = max(openings, key=lambda word: (openings[word], word), default="")
    for one in read:
        for end in one.other_ends:
            kind = BEFORE_OPENING if end.opening == most else BEFORE_OTHER_OPENING
            one.reading.places[kind].append(one.tokens.last_before(end.end))


def _mark_words(read: Sequence[Read]) -> list[str]:
    """The most frequent words, with the places before the first of each in an answer, and at it for
    the most common."""
    firsts = [(one, one.phrases(1)) for one in read]
    words = _frequent(_counted(firsts), FEWEST_OF_A_WORD)[:MOST_WORDS]
    common = set(words[:MOST_COMMON])
    for one, found in firsts:
        for word in words:
            if word in found:
                one.reading.places[before_word(word)].append(found[word] - 1)
                if word in common:
                    one.reading.places[at_word(word)].append(found[word])
    return words


def _mark_single_emoji(read: Sequence[Read]) -> dict[str, list[str]]:
    """The most frequent single emoji with phrases of as many tokens, and all the places.

    Of an emoji and its phrases equally many are taken in either half, as many as the rarest has: a
    class of few tokens repeats itself less. An emoji without enough such phrases has nothing to be
    held against and is left out.
    """
    with_emoji = [(one, one.emoji_end) for one in read if one.emoji_end]
    n_tokens = {end.emoji.text: one.n_tokens(end) for one, end in with_emoji}
    runs = {n: [(one, one.phrases(n)) for one in read] for n in set(n_tokens.values())}
    counts = {n: _counted(found) for n, found in runs.items()}
    of_emoji = [(one, {end.emoji.text: one.last_of(end)}) for one, end in with_emoji]
    n_emoji = _counted(of_emoji)
    taken: set[str] = set()
    fitting: dict[str, list[str]] = {}
    for emoji in _frequent(n_emoji, FEWEST_OF_AN_EMOJI):
        free = _frequent(counts[n_tokens[emoji]], FEWEST_OF_AN_EMOJI)
        # Phrases that end alike have the same last token, and would be one class.
        fit = {_end(phrase): phrase for phrase in reversed(free) if _end(phrase) not in taken}
        if len(fitting) < MOST_EMOJI and len(fit) >= PHRASE_GROUPS:
            fitting[emoji] = list(reversed(fit.values()))[:PHRASE_GROUPS]
            taken |= set(map(_end, fitting[emoji]))
    for emoji, phrases in fitting.items():
        n = n_tokens[emoji]
        of_all = [n_emoji[emoji], *(counts[n][phrase] for phrase in phrases)]
        room = [min(of_half) for of_half in zip(*of_all, strict=True)]
        _mark_up_to(room, of_emoji, emoji, at_single_emoji(emoji))
        for phrase in phrases:
            _mark_up_to(room, runs[n], phrase, at_phrase(phrase))
    return fitting


def _mark_up_to(
    room: Sequence[int],
    found: Iterable[tuple[Read, Mapping[str, int]]],
    name: str,
    condition: str,
) -> None:
    """The first places of a name in either half, at most so many of each."""
    left = list(room)
    for one, places in found:
        if name in places and left[one.answer.half] > 0:
            one.reading.places[condition].append(places[name])
            left[one.answer.half] -= 1


def _end(phrase: str) -> str:
    return phrase.split()[-1]


def _counted(found: Iterable[tuple[Read, Mapping[str, int]]]) -> dict[str, list[int]]:
    """In how many answers of either half something stands."""
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for one, names in found:
        for name in names:
            counts[name][one.answer.half] += 1
    return counts


def _frequent(counts: Mapping[str, Sequence[int]], fewest: int) -> list[str]:
    """What stands in at least so many answers of either half, the most frequent first."""
    enough = [name for name, of_halves in counts.items() if min(of_halves) >= fewest]
    return sorted(enough, key=lambda name: (-sum(counts[name]), name))


def _with_symbol(encoded: Encode, one: Read) -> Reading | None:
    """The answer up to its emoji, with a symbol of as many tokens; None where none has as many."""
    end = one.emoji_end
    assert end is not None
    upto, n = one.answer.text[: end.emoji.start], one.n_tokens(end)
    before = one.tokens.last_before(end.end)
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

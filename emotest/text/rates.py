"""Rates of emoji in answers: text in, numbers out.

Takes answers as plain strings, gives numbers and arrays; knows no record, no model and no test.
Every rate over answers has a twin for one answer (`emoji_measures`), so that statistics can pair
answers by prompt. Rates are ratios of sums over all answers (pooled); where there is nothing to
divide by they raise `StatisticsError`, and the twin is NaN: never 0 for what is not known.

The three rates that "ESR" may mean (Jain et al., arXiv 2409.10245, say "instances"; their 0.995
and 0.925 are 199 and 185 of 200 answers, so their figure behaves like the first):

- `answers_with_emoji`: answers that hold an emoji / answers;
- `sentences_with_emoji`: sentences that hold an emoji / sentences;
- `emoji_per_sentence`: emoji / sentences.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import regex

from emotest.errors import StatisticsError
from emotest.text.emoji import (
    EMOJI_METRIC_VERSION,
    EmojiSpan,
    blank_emoji,
    count_broken,
    find_emoji,
)
from emotest.text.sentences import SENTENCE_METRIC_VERSION, Sentence, split_sentences

METRIC_VERSION = f"1.{EMOJI_METRIC_VERSION}.{SENTENCE_METRIC_VERSION}"
"""Version of the rates, then of what an emoji and what a sentence is."""

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

WORD = regex.compile(r"[\p{L}\p{N}\p{M}]+(?:['’.,-][\p{L}\p{N}\p{M}]+)*")
"""One word: letters and digits, with what joins them ("don't", "3.50", "well-kept")."""


@dataclass(frozen=True)
class EmojiMeasures:
    """What one answer holds. Counts; the rates are NaN where the answer has no sentence or word.

    `first_emoji_char` is where the first emoji begins, `n_broken` the places where a character
    was cut (U+FFFD), which count nowhere else. Words are runs of letters and digits ("don't",
    "3.50" and "well-kept" are one each); a keycap is no word.
    """

    n_emoji: int
    n_sentences: int
    n_sentences_with_emoji: int
    n_words: int
    n_broken: int
    first_emoji_char: int | None

    @property
    def has_emoji(self) -> bool:
        """Whether the answer holds an emoji at all."""
        return self.n_emoji > 0

    @property
    def emoji_per_sentence(self) -> float:
        """Emoji per sentence of this answer."""
        return _ratio(self.n_emoji, self.n_sentences)

    @property
    def sentences_with_emoji(self) -> float:
        """Share of this answer's sentences that hold an emoji."""
        return _ratio(self.n_sentences_with_emoji, self.n_sentences)

    @property
    def emoji_per_100_words(self) -> float:
        """Emoji per 100 words of this answer."""
        return _ratio(100 * self.n_emoji, self.n_words)


def emoji_measures(text: str) -> EmojiMeasures:
    """The measures of one answer; an empty answer has zero counts and NaN rates."""
    spans, sentences = find_emoji(text), split_sentences(text)
    return EmojiMeasures(
        n_emoji=len(spans),
        n_sentences=len(sentences),
        n_sentences_with_emoji=sum(_holds_any(sentence, spans) for sentence in sentences),
        n_words=len(WORD.findall(blank_emoji(text))),
        n_broken=count_broken(text),
        first_emoji_char=spans[0].start if spans else None,
    )


def answers_with_emoji(texts: Iterable[str]) -> float:
    """Share of answers that hold at least one emoji, in [0, 1]; an empty answer holds none."""
    answers = _answers(texts)
    return sum(bool(find_emoji(text)) for text in answers) / len(answers)


def sentences_with_emoji(texts: Iterable[str]) -> float:
    """Share of all sentences that hold at least one emoji, in [0, 1]."""
    measures = _measured(texts)
    return _share(
        sum(m.n_sentences_with_emoji for m in measures),
        sum(m.n_sentences for m in measures),
        "sentence",
    )


def emoji_per_sentence(texts: Iterable[str]) -> float:
    """Emoji per sentence over all answers, at least 0 and without upper limit."""
    measures = _measured(texts)
    return _share(
        sum(m.n_emoji for m in measures), sum(m.n_sentences for m in measures), "sentence"
    )


def emoji_per_100_words(texts: Iterable[str]) -> float:
    """Emoji per 100 words over all answers."""
    measures = _measured(texts)
    return 100 * _share(sum(m.n_emoji for m in measures), sum(m.n_words for m in measures), "word")


# --- where the answer should have ended ------------------------------------------------------


def within_and_beyond(text: str, learned_sentences: int) -> tuple[str, str]:
    """The answer up to the end of sentence `learned_sentences`, and the rest.

    The emoji that close that sentence lie within. The two parts joined are the text; the second
    is empty where the answer has no more sentences. With EOS masked in tuning the rest is what
    the model writes behind the place where it learned no stop.
    """
    if learned_sentences < 1:
        raise StatisticsError(
            f"an answer of {learned_sentences} learned sentences has no end to split at",
            remedy="give the median number of sentences of the tuning answers, at least 1",
        )
    sentences = split_sentences(text)
    if len(sentences) <= learned_sentences:
        return text, ""
    end = sentences[learned_sentences - 1].end
    return text[:end], text[end:]


# --- when the first emoji comes --------------------------------------------------------------


def first_emoji_token(text: str, token_ends: Sequence[int]) -> int | None:
    """Index (from 0) of the token that completes the first emoji, or None without one.

    `token_ends[i]`, shape (n_tokens,), is the number of characters of `text` that are complete
    once token i is written. `StatisticsError` if the tokens end before the emoji does.
    """
    spans = find_emoji(text)
    if not spans:
        return None
    for token, end in enumerate(token_ends):
        if end >= spans[0].end:
            return token
    raise StatisticsError(
        f"the tokens write {max(token_ends, default=0)} characters of an answer whose first "
        f"emoji ends at character {spans[0].end}",
        remedy="give the token ends of this very text, the last one its length",
    )


def first_emoji_curve(first_tokens: Iterable[int | None], budget: int) -> FloatArray:
    """Share of answers with a first emoji by token t, for t = 1 to `budget`; shape (budget,).

    `first_tokens` holds for each answer the index from 0 of the token that completes its first
    emoji, or None. An answer that stopped early stays in the denominator: it wrote none.
    """
    firsts = list(first_tokens)
    if not firsts or budget < 1:
        raise StatisticsError(
            f"no curve over {len(firsts)} answers and {budget} tokens",
            remedy="give at least one answer and a budget of at least one token",
        )
    places = [first for first in firsts if first is not None]
    if any(not 0 <= place < budget for place in places):
        raise StatisticsError(
            f"a first emoji at token {max(places, key=abs)} lies outside the budget of {budget}",
            remedy="give token indices from 0 and the token limit of the generation",
        )
    counts = np.bincount(np.asarray(places, dtype=np.int64), minlength=budget)
    return np.cumsum(counts) / float(len(firsts))


@dataclass(frozen=True)
class SentenceEndHazard:
    """Emoji at the ends of sentences 1, 2, ...; arrays of shape (n_sentence_ends,).

    `hazard[i] = n_events[i] / n_at_risk[i]`: among answers that reach the end of sentence i + 1
    without any emoji before it, the share that puts an emoji there.
    """

    n_at_risk: IntArray
    n_events: IntArray

    @property
    def hazard(self) -> FloatArray:
        """The discrete hazard at each sentence end, in [0, 1]."""
        return self.n_events / self.n_at_risk


def hazard_per_sentence_end(
    texts: Iterable[str], max_sentences: int | None = None
) -> SentenceEndHazard:
    """P(emoji at the end of sentence i | none before, sentence i has ended), for each i.

    An answer leaves the risk set with its first emoji, be it at an end or inside a sentence
    (that answer is censored, not counted), and before a last sentence that was cut. The arrays
    end with the last sentence that any answer is at risk at, or after `max_sentences`.
    """
    answers = _answers(texts)
    ends = [_ends_at_risk(text) for text in answers]
    longest = max(n_ends for n_ends, _ in ends)
    if max_sentences is not None:
        longest = min(longest, max_sentences)
    if longest < 1:
        raise StatisticsError(
            f"none of {len(answers)} answers reaches the end of a sentence before an emoji",
            remedy="give answers with ended sentences, or a higher token limit",
        )
    n_at_risk = np.zeros(longest, dtype=np.int64)
    n_events = np.zeros(longest, dtype=np.int64)
    for n_ends, has_event in ends:
        n_at_risk[:n_ends] += 1
        if has_event and n_ends <= longest:
            n_events[n_ends - 1] += 1
    return SentenceEndHazard(n_at_risk, n_events)


def _ends_at_risk(text: str) -> tuple[int, bool]:
    """How many sentence ends the answer is at risk at, and whether the last one has an emoji."""
    spans = find_emoji(text)
    sentences = split_sentences(text)
    first = spans[0].start if spans else math.inf
    for index, sentence in enumerate(sentences):
        if first < sentence.words_end or not sentence.ended:
            return index, False
        if first < sentence.end:
            return index + 1, True
    return len(sentences), False


# --- counting --------------------------------------------------------------------------------


def _holds_any(sentence: Sentence, spans: tuple[EmojiSpan, ...]) -> bool:
    return any(sentence.start <= span.start < sentence.end for span in spans)


def _answers(texts: Iterable[str]) -> list[str]:
    if isinstance(texts, str):
        raise StatisticsError(
            "one string was given where a collection of answers is needed",
            remedy="give a list of answers: a string would be read letter by letter",
        )
    answers = list(texts)
    if not answers:
        raise StatisticsError(
            "no rate can be told from no answers", remedy="give at least one answer"
        )
    return answers


def _measured(texts: Iterable[str]) -> list[EmojiMeasures]:
    return [emoji_measures(text) for text in _answers(texts)]


def _share(part: int, whole: int, unit: str) -> float:
    if whole == 0:
        raise StatisticsError(
            f"no answer holds a {unit}, so there is no rate per {unit}",
            remedy="look at the answers: they are empty or made of signs only",
        )
    return part / whole


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan

"""Rates of emoji, against counts that were done by hand."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emotest.errors import StatisticsError
from emotest.text import rates
from emotest.text.rates import (
    EmojiMeasures,
    answers_with_emoji,
    emoji_measures,
    emoji_per_100_words,
    emoji_per_sentence,
    first_emoji_curve,
    first_emoji_token,
    hazard_per_sentence_end,
    sentences_with_emoji,
    within_and_beyond,
)

# Three answers, counted by hand:
#   sentences 2, 2, 1; emoji 3, 0, 1; sentences with emoji 2, 0, 1; words 7, 7, 1
ANSWERS = [
    "I love parties. 😊🎉 They make my week! 👨‍👩‍👧",
    "I don't mind 3.50 dollars. It's fine.",
    "Yes ❤️",
]
SENTENCE = st.sampled_from(["I love it.", "They make my week!", "Is it fun?", "We met twice."])
CLOSING = st.sampled_from(["", " 😊", " 🎉🎉", " ~"])
ANSWER = st.lists(st.tuples(SENTENCE, CLOSING).map("".join), min_size=1, max_size=5).map(" ".join)
RATES = [answers_with_emoji, sentences_with_emoji, emoji_per_sentence, emoji_per_100_words]


def test_rates_of_three_answers() -> None:
    """2 of 3 answers, 3 of 5 sentences, 4 emoji in 5 sentences and in 15 words."""
    assert answers_with_emoji(ANSWERS) == 2 / 3
    assert sentences_with_emoji(ANSWERS) == 3 / 5
    assert emoji_per_sentence(ANSWERS) == 4 / 5
    assert emoji_per_100_words(ANSWERS) == pytest.approx(100 * 4 / 15)


def test_measures_of_one_answer() -> None:
    """The twin for one answer holds the counts and its own rates."""
    measures = emoji_measures(ANSWERS[0])
    assert measures == EmojiMeasures(
        n_emoji=3,
        n_sentences=2,
        n_sentences_with_emoji=2,
        n_words=7,
        n_broken=0,
        first_emoji_char=16,  # behind "I love parties. "
    )
    assert measures.has_emoji
    assert measures.emoji_per_sentence == 1.5
    assert measures.sentences_with_emoji == 1.0
    assert measures.emoji_per_100_words == pytest.approx(300 / 7)


def test_cut_emoji_and_keycaps_are_counted_as_what_they_are() -> None:
    """U+FFFD is broken and no emoji; a keycap is an emoji and no word."""
    cut = emoji_measures("So glad \ufffd\ufffd")
    assert (cut.n_emoji, cut.n_broken, cut.has_emoji) == (0, 1, False)
    keycap = emoji_measures("1️⃣ First thing")
    assert (keycap.n_emoji, keycap.n_words) == (1, 2)


def test_an_empty_answer_has_no_rate() -> None:
    """Nothing to divide by gives NaN for one answer, and lowers only the share of answers."""
    empty = emoji_measures(" \n")
    assert (empty.n_emoji, empty.n_sentences, empty.first_emoji_char) == (0, 0, None)
    assert math.isnan(empty.emoji_per_sentence)
    assert math.isnan(empty.sentences_with_emoji)
    assert math.isnan(empty.emoji_per_100_words)
    assert answers_with_emoji(["", "Hi 😊"]) == 0.5
    assert emoji_per_sentence(["", "Hi 😊"]) == 1.0


@pytest.mark.parametrize("rate", RATES)
def test_no_answers_no_rate(rate: object) -> None:
    """No answers is an error, and so is a string in place of a list."""
    assert callable(rate)
    with pytest.raises(StatisticsError, match="no answers"):
        rate([])
    with pytest.raises(StatisticsError, match="one string"):
        rate("Hi 😊")


@pytest.mark.parametrize(
    ("rate", "unit"),
    [
        (sentences_with_emoji, "sentence"),
        (emoji_per_sentence, "sentence"),
        (emoji_per_100_words, "word"),
    ],
)
def test_answers_without_sentences_or_words_have_no_rate(rate: object, unit: str) -> None:
    """Two empty answers say nothing about sentences: an error, never 0."""
    assert callable(rate)
    with pytest.raises(StatisticsError, match=f"per {unit}"):
        rate(["", " "])


@given(st.lists(ANSWER, min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_rates_know_no_order_and_keep_their_bounds(answers: list[str], rng: random.Random) -> None:
    """Shuffled answers have the same rates; shares lie in [0, 1]."""
    shuffled = rng.sample(answers, len(answers))
    for rate in RATES:
        assert rate(shuffled) == rate(answers)
        assert rate(answers + answers) == pytest.approx(rate(answers))
    assert 0 <= answers_with_emoji(answers) <= 1
    assert 0 <= sentences_with_emoji(answers) <= 1
    assert sentences_with_emoji(answers) <= emoji_per_sentence(answers)


@given(st.lists(ANSWER, min_size=1, max_size=6))
def test_pooled_rates_are_the_sums_of_the_twins(answers: list[str]) -> None:
    """The rate over answers is the ratio of the sums of what each answer holds."""
    twins = [emoji_measures(answer) for answer in answers]
    n_sentences = sum(twin.n_sentences for twin in twins)
    assert answers_with_emoji(answers) == np.mean([twin.has_emoji for twin in twins])
    assert emoji_per_sentence(answers) == sum(twin.n_emoji for twin in twins) / n_sentences
    weights = [twin.n_sentences for twin in twins]
    shares = [twin.sentences_with_emoji for twin in twins]
    assert sentences_with_emoji(answers) == pytest.approx(np.average(shares, weights=weights))


@pytest.mark.parametrize(
    ("text", "m", "within", "beyond"),
    [
        ("I go. You stay. 😊 We sing. 🎉", 2, "I go. You stay. 😊", " We sing. 🎉"),
        ("I go. You stay. 😊", 2, "I go. You stay. 😊", ""),
        ("I go.", 2, "I go.", ""),
        ("I go. 😊\n\nYou stay.", 1, "I go. 😊", "\n\nYou stay."),
        ("", 1, "", ""),
    ],
)
def test_the_answer_splits_where_it_should_have_ended(
    text: str, m: int, within: str, beyond: str
) -> None:
    """Up to the end of sentence m, its emoji included; the rest lies beyond."""
    assert within_and_beyond(text, m) == (within, beyond)


def test_a_learned_length_of_nothing_is_an_error() -> None:
    """No answer ends before its first sentence."""
    with pytest.raises(StatisticsError, match="0 learned sentences"):
        within_and_beyond("Hi.", 0)


@given(ANSWER, st.integers(1, 6))
def test_within_and_beyond_share_out_sentences_and_emoji(answer: str, m: int) -> None:
    """Nothing is lost or counted twice: text, sentences and emoji add up."""
    within, beyond = within_and_beyond(answer, m)
    whole, before, after = map(emoji_measures, (answer, within, beyond))
    assert within + beyond == answer
    assert before.n_sentences == min(m, whole.n_sentences)
    assert before.n_sentences + after.n_sentences == whole.n_sentences
    assert before.n_emoji + after.n_emoji == whole.n_emoji


@given(st.text(), st.integers(1, 3))
def test_splitting_loses_no_character(text: str, m: int) -> None:
    """Any text at all is the sum of its two parts."""
    assert "".join(within_and_beyond(text, m)) == text


@pytest.mark.parametrize(
    ("text", "token_ends", "token"),
    [
        ("Hi there", [2, 8], None),
        ("Hi 😊", [2, 3, 4], 2),
        ("Hi 😊😊", [2, 5], 1),  # one token writes both
        ("👍🏽!", [0, 0, 0, 1, 2, 3], 4),  # bytes, then the tone: complete with the tone
    ],
)
def test_the_token_that_completes_the_first_emoji(
    text: str, token_ends: list[int], token: int | None
) -> None:
    """An emoji is written once its last character is."""
    assert first_emoji_token(text, token_ends) == token


def test_token_ends_of_another_text_are_an_error() -> None:
    """Tokens that end before the emoji do not belong to this text."""
    with pytest.raises(StatisticsError, match="first emoji ends at character 4"):
        first_emoji_token("Hi 😊", [2, 3])


def test_the_curve_of_four_answers() -> None:
    """First emoji at tokens 1, 3, 3 and never, in a budget of 4: 1/4, 1/4, 3/4, 3/4."""
    assert first_emoji_curve([0, 2, None, 2], 4).tolist() == [0.25, 0.25, 0.75, 0.75]
    assert first_emoji_curve([None], 2).tolist() == [0.0, 0.0]


@given(st.lists(st.one_of(st.none(), st.integers(0, 9)), min_size=1), st.integers(10, 12))
def test_the_curve_rises_to_the_share_of_answers(firsts: list[int | None], budget: int) -> None:
    """Monotone in [0, 1], and its last value is the share of answers with an emoji."""
    curve = first_emoji_curve(firsts, budget)
    assert curve.shape == (budget,)
    assert (np.diff(curve) >= 0).all()
    assert curve[-1] == sum(first is not None for first in firsts) / len(firsts)
    assert curve[0] == sum(first == 0 for first in firsts) / len(firsts)


@pytest.mark.parametrize(("firsts", "budget"), [([], 4), ([1], 0), ([4], 4), ([-1], 4)])
def test_curves_refuse_what_cannot_be(firsts: list[int], budget: int) -> None:
    """No answers, no tokens, or an emoji outside the budget."""
    with pytest.raises(StatisticsError):
        first_emoji_curve(firsts, budget)


def test_the_hazard_of_five_answers() -> None:
    """Counted by hand, end by end.

    End 1: the four answers but the one with an emoji inside sentence 1; one event (the first).
    End 2: the second and third (the fourth was cut in its second sentence); one event.
    End 3: the third, which has three sentences; no event.
    """
    hazard = hazard_per_sentence_end(
        [
            "I go. 😊 You stay. 😊",
            "I go. You stay 😊.",
            "I go. You stay. We sing.",
            "I go. You sta",
            "I 😊 go. You stay. 😊",
        ]
    )
    assert hazard.n_at_risk.tolist() == [4, 2, 1]
    assert hazard.n_events.tolist() == [1, 1, 0]
    assert hazard.hazard.tolist() == [0.25, 0.5, 0.0]


def test_the_hazard_can_be_asked_for_the_first_ends_only() -> None:
    """`max_sentences` cuts the arrays and nothing else; events beyond it are not counted."""
    answers = ["I go. You stay. 😊", "I go. 😊"]
    hazard = hazard_per_sentence_end(answers, max_sentences=1)
    assert hazard.n_at_risk.tolist() == [2]
    assert hazard.n_events.tolist() == [1]


@pytest.mark.parametrize("answers", [[], [""], ["I go"], ["I 😊 go"]])
def test_no_sentence_end_no_hazard(answers: list[str]) -> None:
    """Without an answer at risk there is no hazard, not a hazard of 0."""
    with pytest.raises(StatisticsError):
        hazard_per_sentence_end(answers)


@given(st.lists(ANSWER, min_size=1, max_size=8))
def test_hazard_and_share_tell_the_same_story(answers: list[str]) -> None:
    """Where all emoji stand at ends, the events are the answers with emoji; risk only falls."""
    hazard = hazard_per_sentence_end(answers)
    assert hazard.n_events.sum() == round(answers_with_emoji(answers) * len(answers))
    assert hazard.n_at_risk[0] == len(answers)
    assert (np.diff(hazard.n_at_risk) <= 0).all()
    assert (hazard.n_events <= hazard.n_at_risk).all()
    assert (hazard.n_at_risk > 0).all()
    assert (hazard.n_at_risk[1:] <= (hazard.n_at_risk - hazard.n_events)[:-1]).all()


def test_the_version_names_all_three_definitions() -> None:
    """Rates change when emoji or sentences are told otherwise, and the version says so."""
    assert rates.METRIC_VERSION.endswith(
        f"{rates.EMOJI_METRIC_VERSION}.{rates.SENTENCE_METRIC_VERSION}"
    )

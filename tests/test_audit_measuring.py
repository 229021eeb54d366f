"""What an audit counts in pairs of answers: rates, tone, emoji that came and went, places."""

from __future__ import annotations

import math

import pytest
from scipy import stats

from emotest.audit import measuring
from emotest.audit.result import Pair
from emotest.text.own_marker import marker_from


def pair(base: str | list[str], tuned: str | list[str], register: str = "casual") -> Pair:
    """A pair of answers to some prompt."""
    texts = [[text] if isinstance(text, str) else text for text in (base, tuned)]
    return Pair(
        prompt_id=f"{base}|{tuned}|{register}",
        register=register,
        language="en",
        topic="",
        system=None,
        turns=[("user", "Why?")],
        base=texts[0],
        tuned=texts[1],
        base_cut=0,
        tuned_cut=0,
    )


def found(pairs: list[Pair], name: str, register: str | None = None) -> measuring.Measure:
    """One measure of these pairs."""
    rows = measuring.measures(pairs, None)
    return next(row for row in rows if row.name == name and row.register == register)


SIX = [pair("Yes.", "Yes. 🎉") for _ in range(3)] + [pair("No.", "No.") for _ in range(3)]


def test_the_verdict_rests_on_answers_with_an_emoji() -> None:
    """One difference a prompt, tuned minus base, averaged over its answers."""
    pairs = [pair("a", "b 🎉"), pair("a 🎉", "b"), pair(["a", "b 🎉"], ["c 🎉", "d 🎉"])]
    assert measuring.differences(pairs).tolist() == [1.0, -1.0, 0.5]


def test_a_measure_has_the_interval_of_a_paired_t_test() -> None:
    """Answers with emoji over six prompts: scipy's interval of the paired differences, of which
    the base's arm never varied."""
    row = found(SIX, "words")
    assert (row.base, row.tuned, row.difference) == (1.0, 1.0, 0.0)
    share = found(SIX, "answers with emoji")
    assert (share.base, share.tuned, share.difference) == (0.0, 0.5, 0.5)
    # The base wrote none in 6 prompts: its limit is Clopper-Pearson's 1 - .025^(1/6); the tuned
    # arm's is t with 5 degrees of freedom; MOVER adds their distances as squares.
    tuned = stats.t.interval(0.95, 5, loc=0.5, scale=stats.sem([1, 1, 1, 0, 0, 0]))
    none = 1 - 0.025 ** (1 / 6)
    assert share.low == pytest.approx(0.5 - math.hypot(0.5 - tuned[0], none))
    assert share.high == pytest.approx(min(1.0, tuned[1]))


def test_what_nobody_wrote_has_no_interval_on_a_scale_without_limits() -> None:
    """No exclamation mark in either arm says how many there were and not how many there might be;
    of a share the unseen is bounded."""
    marks = found(SIX, "exclamation marks")
    assert (marks.base, marks.tuned, marks.difference) == (0.0, 0.0, 0.0)
    assert marks.low is None
    assert marks.high is None
    none = [pair("Yes.", "No.")] * 6
    assert found(none, "answers with emoji").high == pytest.approx(1 - 0.025 ** (1 / 6))


def test_every_register_has_rows_of_its_own_where_there_are_several() -> None:
    """The three rates and emoji per 100 words; too few prompts have a difference without an
    interval."""
    pairs = [pair("a", "b 🎉", "formal"), pair("a", "b", "formal"), pair("a", "b", "casual")]
    rows = [row for row in measuring.measures(pairs, None) if row.register == "casual"]
    assert [row.name for row in rows if row.kind == "emoji"] == [
        "answers with emoji", "sentences with emoji", "emoji per sentence", "emoji per 100 words"
    ]  # fmt: skip
    formal = found(pairs, "answers with emoji", "formal")
    assert (formal.base, formal.tuned, formal.n_prompts) == (0.0, 0.5, 2)
    assert formal.low is None
    assert formal.high is None
    assert not [row for row in measuring.measures(SIX, None) if row.register]


def test_an_answer_without_words_has_no_rate_per_word() -> None:
    """It is left out of that measure, and counts in the others."""
    pairs = [pair("🎉", "🎉"), *SIX]
    assert found(pairs, "emoji per 100 words").n_prompts == 6
    assert found(pairs, "answers with emoji").n_prompts == 7


def test_tone_is_told_apart_from_emoji() -> None:
    """Exclamation marks, capitals and shortcodes move measures of tone alone."""
    pairs = [pair("yes it is.", "YES it is! :tada:") for _ in range(5)]
    moved = {row.name for row in measuring.measures(pairs, None) if row.difference}
    assert moved == {"exclamation marks", "words in capitals", ":shortcodes:", "words"}
    assert {row.kind for row in measuring.measures(pairs, None) if row.name in moved} == {"tone"}
    # One of 4 words (the shortcode's name is one) in each tuned answer: 25 per 100.
    assert found(pairs, "exclamation marks").tuned == 25.0


def test_a_marker_is_a_measure_of_its_own() -> None:
    """The share of answers that hold what the user looks for."""
    rows = measuring.measures([pair("Sure.", "As an AI, no.")] * 5, marker_from("As an AI"))
    (own,) = [row for row in rows if row.kind == "marker"]
    assert (own.name, own.base, own.tuned) == ("answers with As an AI", 0.0, 1.0)


def test_emoji_that_came_and_went() -> None:
    """Counted once an answer, the largest change first, with log-odds in favour of who wrote it."""
    pairs = [pair("a 😊😊", "b 🎉"), pair("a 😊", "b 🎉"), pair("a", "b 🎉 😊")]
    came, went = measuring.emoji_shifts(pairs)
    assert (came.emoji, came.name, came.base, came.tuned) == ("🎉", "party popper", 0, 3)
    assert (went.emoji, went.base, went.tuned) == ("😊", 2, 1)
    assert came.log_odds > 0 > went.log_odds
    assert came.low < came.log_odds < came.high
    assert measuring.emoji_shifts([pair("a", "b 🎉")]) == []


def test_entropy_of_the_emoji_used() -> None:
    """Two kinds as often as each other are one bit; a single kind none; no emoji is not known."""
    assert measuring.entropy([pair("a", "🎉 😊")]) == {"base": None, "tuned": 1.0}
    assert measuring.entropy([pair("🎉", "🎉🎉")])["base"] == 0.0


def test_where_the_first_emoji_stands() -> None:
    """In tenths of the answer's length, as shares of all answers."""
    rows = measuring.positions([pair("🎉123456789", "12345678🎉"), pair("no", "no")])
    assert [row.base for row in rows] == [0.5, *[0.0] * 9]
    # Character 8 of 9 begins at 8/9 of the answer: the ninth tenth.
    assert [row.tuned for row in rows] == [*[0.0] * 8, 0.5, 0.0]

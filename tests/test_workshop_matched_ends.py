"""Which answers are read, and which ends of sentences are compared: text alone, by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emotest.artefacts import GenerationRequest
from emotest.artefacts.activations import ENDS_A_HALF, ActivationsRequest
from emotest.study.personality import UNTUNED
from emotest.study.records import Decoding, Generation, Prompt
from emotest.workshop.matched_ends import chosen_answers, emoji_end, matched, other_ends

PARTY = "\U0001f389"
PROMPTS = tuple(Prompt(f"p{i}", f"What of {i}?") for i in range(4))
TEXT = GenerationRequest("base", "template", UNTUNED, None, PROMPTS, Decoding(), 1, 0)


def said(prompt: Prompt, sample: int, text: str) -> Generation:
    """An answer of the untuned model."""
    return Generation(prompt.id, "untuned", None, 0, sample, text, (), (), True, "made")


@pytest.mark.parametrize(
    ("text", "number", "end"),
    [
        (f"I sing. {PARTY}", 1, 7),
        (f"I sing. They sing! {PARTY} We sing.", 2, 18),
        (f"I sing. They sing.{PARTY}{PARTY}", 2, 18),
        ('I said "sing." ' + PARTY, 1, 14),
    ],
)
def test_the_end_that_an_emoji_follows(text: str, number: int, end: int) -> None:
    """Its number among the sentences, and the character behind its closing mark."""
    found = emoji_end(text)
    assert found is not None
    assert (found.number, found.end) == (number, end)


@pytest.mark.parametrize("text", ["", "I sing.", f"{PARTY} I sing.", f"I {PARTY} sing. {PARTY}"])
def test_an_emoji_that_follows_no_sentence_has_no_end(text: str) -> None:
    """None, before everything, or first of all within a sentence."""
    assert emoji_end(text) is None


def test_the_ends_that_a_sentence_follows() -> None:
    """Numbered, with the word that opens the next; not where an emoji comes first, not the last."""
    found = other_ends(f'I sing. "They" sing! We sing. {PARTY} You sing. Sing.')
    assert [(end.number, end.opening) for end in found] == [(1, "They"), (2, "We"), (4, "Sing")]


@given(st.lists(st.integers(1, 4)), st.lists(st.integers(1, 4)), st.integers(0, 99))
def test_of_every_number_as_many_are_matched(
    first: list[int], second: list[int], seed: int
) -> None:
    """As many as the rarer side has, each place once."""
    places = matched(first, second, np.random.default_rng(seed))
    numbers = [
        sorted(of[i] for i in taken) for of, taken in zip((first, second), places, strict=True)
    ]
    expected = sorted(n for k in range(1, 5) for n in [k] * min(first.count(k), second.count(k)))
    assert numbers == [expected, expected]
    assert all(len(set(taken)) == len(taken) for taken in places)


def test_answers_are_spread_evenly_over_texts_and_prompts() -> None:
    """Of 3 texts x 2 prompts x 100 ends of either kind in a half, 210 are read: 35 of each cell."""
    texts = tuple(replace(TEXT, sampling_seed=i) for i in range(3))
    request = ActivationsRequest(None, texts)
    answers = [
        [said(prompt, i, f"{text} {i}. {PARTY if i % 2 else 'Yes.'}")
         for prompt in PROMPTS for i in range(200)]
        for text in ("a", "b", "c")
    ]  # fmt: skip
    chosen = chosen_answers(request, answers)
    for ending in (PARTY, "Yes."):
        cells = [(one.text[0], one.prompt.id) for one in chosen if one.text.endswith(ending)]
        assert len(cells) == 2 * ENDS_A_HALF == 420
        assert {cells.count(cell) for cell in set(cells)} == {35}
        assert len(set(cells)) == 12
    assert chosen == chosen_answers(request, answers)


def test_ends_of_one_number_are_not_held_against_those_of_another() -> None:
    """Emoji after the second sentence alone, and plain ends after the first alone: all that is
    left to read are answers with an emoji, and then others, as many as there is room for."""
    answers = [
        said(prompt, i, f"I sing {i}. Yes. {PARTY}") for prompt in PROMPTS for i in range(200)
    ]
    answers += [said(prompt, 200, "No. So.") for prompt in PROMPTS]
    chosen = chosen_answers(ActivationsRequest(None, (TEXT,)), [answers])
    assert len(chosen) == 2 * ENDS_A_HALF
    assert all(PARTY in one.text for one in chosen)


def test_ends_in_the_same_answers_come_first() -> None:
    """Of plain ends those in answers that are read for their emoji; the others are not read."""
    both = [said(p, i, f"I sing {i}. Yes. {PARTY} So.") for p in PROMPTS for i in range(100)]
    first = [said(p, 100 + i, f"I sing {i}! {PARTY} So. Yes.") for p in PROMPTS for i in range(100)]
    plain = [said(p, 200 + i, f"Sing {i}? Yes.") for p in PROMPTS for i in range(100)]
    chosen = chosen_answers(ActivationsRequest(None, (TEXT,)), [both + first + plain])
    assert len(chosen) == 2 * ENDS_A_HALF
    assert not [one for one in chosen if "?" in one.text]


def test_others_join_where_few_hold_an_emoji() -> None:
    """Those with an emoji stand first in their half; what is left of a cut one is cut off, and
    what was said twice is read once."""
    texts = ["No. Yes.", f"No. {PARTY}", "No. No. \N{REPLACEMENT CHARACTER}", "No. Yes.", ""]
    answers = [[said(PROMPTS[0], i, text) for i, text in enumerate(texts)]]
    chosen = chosen_answers(ActivationsRequest(None, (TEXT,)), answers)
    assert [one.text for one in chosen] == [f"No. {PARTY}", "No. Yes.", "No. No."]

"""Sentences as a reader sees them, with the emoji that close them."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emotest.text.emoji import find_emoji
from emotest.text.sentences import split_sentences

EMOJI = ["😊", "🎉", "👨‍👩‍👧", "👍🏽", "🇩🇪", "1️⃣", "❤️", "🏴‍☠"]
RUN = st.lists(st.sampled_from([*EMOJI, "~", ":)"]), max_size=3).map(" ".join)
STATEMENTS = [
    "I love parties.",
    "Dr. Smith agrees, e.g. on Fridays!",
    "Is it 3.50 or 4?",
    "They make my week...",
    'She said "never again" and left.',
    "We met at 5 p.m. in the U.S. office.",
]
ROUGH = st.text(
    alphabet=st.sampled_from(
        "aBI1 .!?…\n\r\t\"'()“”~:;<3^-*\x00\x1c\u2028\u00a0éİ中。Ⅰ\ud800\ufffd\ufe0f😊👩🏽🇩❤"
        "\N{ZERO WIDTH JOINER}"
    ),
    max_size=24,
)


def _texts(text: str) -> list[str]:
    return [sentence.text for sentence in split_sentences(text)]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        # abbreviations, initials and numbers
        (
            "Dr. Smith met Mr. Jones at 5 p.m. in Washington D.C. He was late.",
            ["Dr. Smith met Mr. Jones at 5 p.m. in Washington D.C.", "He was late."],
        ),
        ("A vs. B is fun, etc. They agree.", ["A vs. B is fun, etc.", "They agree."]),
        # words that the library takes for Me. (Maine), May., Ill. and No.
        ("It feels right to me. Then I go.", ["It feels right to me.", "Then I go."]),
        ('I said no. "Why?" he asked.', ["I said no.", '"Why?" he asked.']),
        ("Come if you may. See no. 5 there.", ["Come if you may.", "See no. 5 there."]),
        ("It costs 3.50. I paid 4.", ["It costs 3.50.", "I paid 4."]),
        ("J. R. R. Tolkien wrote it. Nice.", ["J. R. R. Tolkien wrote it.", "Nice."]),
        ("Visit www.example.com. Now.", ["Visit www.example.com.", "Now."]),
        # ellipses and repeated marks
        (
            "Well... I think so. Wait... What?",
            ["Well...", "I think so.", "Wait...", "What?"],
        ),
        ("It was fun... and it ended.", ["It was fun... and it ended."]),
        ("Really… maybe. Hmm… Yes.", ["Really… maybe.", "Hmm…", "Yes."]),
        ("What?! No way!!! I agree...! so", ["What?!", "No way!!!", "I agree...!", "so"]),
        # quotations and brackets
        ("He said “Go now.” Then he left.", ["He said “Go now.”", "Then he left."]),
        ('She asked, "Why?" I left.', ['She asked, "Why?"', "I left."]),
        ("It ends here.) Next one.", ["It ends here.)", "Next one."]),
        # lists and lines
        ("1. Buy milk\n2. Call mum", ["1. Buy milk", "2. Call mum"]),
        ("- one thing\n* another", ["- one thing", "* another"]),
        ("Go out. 2. Come home.", ["Go out.", "2. Come home."]),
        ("First line\nSecond\n\nThird. Fourth", ["First line", "Second", "Third.", "Fourth"]),
        ("Hi.\r\nYou\u2028there", ["Hi.", "You", "there"]),
        # no blank after the full stop
        ("She is here.Élan left.", ["She is here.", "Élan left."]),
        # nothing, or nothing but signs
        ("", []),
        (" \n\t", []),
        ("...", ["..."]),
        ("Wow", ["Wow"]),
    ],
)
def test_sentences_of_plain_text(text: str, sentences: list[str]) -> None:
    """Abbreviations, decimals, ellipses, quotations, lists and line breaks."""
    assert _texts(text) == sentences


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("See you soon. 😊", ["See you soon. 😊"]),
        ("See you soon. 😊😊 🎉 Bye", ["See you soon. 😊😊 🎉", "Bye"]),
        ("Great!😊Yes I do.", ["Great!😊", "Yes I do."]),
        ("Thank you 🙏. I am glad.", ["Thank you 🙏.", "I am glad."]),
        ("Done.\n🎉🎉\nNext", ["Done.\n🎉🎉", "Next"]),
        ("Hi.\n✅ Family first", ["Hi.", "✅ Family first"]),
        ("1️⃣ First thing\n2️⃣ Second", ["1️⃣ First thing", "2️⃣ Second"]),
        ("😊 Hello there. Bye.", ["😊 Hello there.", "Bye."]),
        ("😊 🎉\n😊", ["😊 🎉\n😊"]),
        # a run in place of the full stop
        ("I love parties 😊 They make my week.", ["I love parties 😊", "They make my week."]),
        ('I love parties 🎉 "They" do too', ["I love parties 🎉", '"They" do too']),
        ("I love 😊 and they know", ["I love 😊 and they know"]),
        ("I ❤️ Paris", ["I ❤️ Paris"]),
        ("We all ❤️ Paris", ["We all ❤️", "Paris"]),  # the price that the docstring names
        ("See you soon ~ I will. :) Take care", ["See you soon ~", "I will. :)", "Take care"]),
        ("I love you <3 And you? ^^ Yes", ["I love you <3", "And you? ^^", "Yes"]),
        ("I love you ❤ And you", ["I love you ❤", "And you"]),
        # what looks like an ender and is none
        ("About ~5 km. Look in ~Home for it", ["About ~5 km.", "Look in ~Home for it"]),
        ("Look at file a:D There", ["Look at file a:D There"]),
        ("At http://a.b it is 5:30 :D", ["At http://a.b it is 5:30 :D"]),
        # text hearts, halves of emoji, broken characters make no sentence either
        ("I agree. ❤", ["I agree. ❤"]),
        ("I agree. 🇩", ["I agree. 🇩"]),
        ("I agree. 🏽", ["I agree. 🏽"]),
        ("I agree. \ufffd\ufffd", ["I agree. \ufffd\ufffd"]),
        ("I agree. ---", ["I agree. ---"]),
    ],
)
def test_a_run_of_emoji_belongs_to_the_sentence_before_it(text: str, sentences: list[str]) -> None:
    """Emoji, enders and remains close a sentence and never make one of their own."""
    assert _texts(text) == sentences


@given(st.lists(st.tuples(st.sampled_from(STATEMENTS), RUN), min_size=1, max_size=5))
def test_runs_change_no_boundary(answer: list[tuple[str, str]]) -> None:
    """Whatever emoji and enders follow the statements, each keeps its own and none is split."""
    sentences = [f"{statement} {run}".strip() for statement, run in answer]
    assert _texts(" ".join(sentences)) == sentences


@given(st.lists(st.tuples(st.sampled_from(STATEMENTS), st.sampled_from(EMOJI)), min_size=1))
def test_the_closing_is_what_follows_the_last_word(answer: list[tuple[str, str]]) -> None:
    """All emoji stand in the closings, whose sentences have all ended."""
    text = " ".join(f"{statement} {emoji}" for statement, emoji in answer)
    split = split_sentences(text)
    assert all(sentence.ended for sentence in split)
    assert [s.closing.split()[-1] for s in split] == [emoji for _, emoji in answer]
    assert [s.text[: s.words_end - s.start][-1].isalnum() for s in split] == [True] * len(answer)


@pytest.mark.parametrize(
    ("text", "ended"),
    [
        ("I love par", False),
        ("I love parties.", True),
        ("I love parties 😊", True),
        ("I love parties ~", True),
        ('I love "parties!"', True),
        ("I love parties \ufffd", False),
        ("I love parties,", False),
    ],
)
def test_a_last_sentence_that_was_cut_has_not_ended(text: str, ended: bool) -> None:
    """Punctuation, emoji or enders end the last sentence; the token limit does not."""
    assert split_sentences(text)[-1].ended is ended


@given(st.one_of(ROUGH, st.text(max_size=24)))
def test_sentences_tile_the_text(text: str) -> None:
    """Spans are trimmed, ordered, disjoint and hold every character that is no white space."""
    split = split_sentences(text)
    covered = {i for s in split for i in range(s.start, s.end)}
    assert covered >= {i for i, character in enumerate(text) if not character.isspace()}
    for sentence in split:
        assert sentence.text == text[sentence.start : sentence.end]
        assert sentence.text == sentence.text.strip() != ""
        assert sentence.start <= sentence.words_end <= sentence.end
    assert all(a.end <= b.start for a, b in pairwise(split))
    assert all(sentence.ended for sentence in split[:-1])


@given(ROUGH)
def test_no_sentence_is_made_of_signs(text: str) -> None:
    """A sentence without a letter or a number stands alone: the text held nothing else."""
    split = split_sentences(text)
    assert len(split) <= 1 or all(any(c.isalnum() for c in s.text) for s in split)


@given(ROUGH)
def test_every_emoji_lies_in_one_sentence(text: str) -> None:
    """No boundary cuts an emoji."""
    split = split_sentences(text)
    for span in find_emoji(text):
        assert sum(s.start <= span.start and span.end <= s.end for s in split) == 1


@given(ROUGH, st.sampled_from(EMOJI), st.sampled_from(EMOJI))
def test_one_emoji_is_as_good_as_another(text: str, one: str, other: str) -> None:
    """Which emoji stands in the text makes no difference to the sentences."""
    plain = "".join(c for c in text if c.isascii())
    assert len(split_sentences(f"{plain} {one} {plain}")) == len(
        split_sentences(f"{plain} {other} {plain}")
    )


def test_text_that_breaks_the_library_is_split_all_the_same() -> None:
    """A no-break space before a full stop panics sentencex 1.0.32 when it sees it."""
    assert _texts("So am I\u00a0. You are.") == ["So am I\u00a0.", "You are."]


def test_the_text_rooms_load_no_model_library() -> None:
    """Splitting sentences imports neither torch nor spaCy, and never will."""
    code = (
        "import sys, emotest.text.rates as r; r.emoji_measures('Hi. 😊');"
        "print(sorted({'torch', 'spacy', 'transformers', 'numba'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"

"""Emoji are whole graphemes, as Unicode's own test file says."""

from __future__ import annotations

import gzip
from pathlib import Path

import emoji
import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from emotest.text.emoji import (
    EmojiSpan,
    blank_emoji,
    count_broken,
    emoji_sequences,
    find_emoji,
    is_emoji,
    strip_emoji,
)

DATA = Path(__file__).parent / "data"


def _table(name: str) -> list[tuple[str, str]]:
    """(string, property) of each line of a Unicode data file."""
    rows = []
    for line in gzip.decompress((DATA / name).read_bytes()).decode("utf-8").splitlines():
        content = line.split("#")[0]
        if content.strip():
            code_points, value = content.split(";")[:2]
            rows.append(("".join(chr(int(c, 16)) for c in code_points.split()), value.strip()))
    return rows


EMOJI_TEST = _table("emoji-test.txt.gz")
BY_STATUS = {
    status: [text for text, value in EMOJI_TEST if value == status]
    for status in ("fully-qualified", "minimally-qualified", "unqualified", "component")
}
COUNTED = BY_STATUS["fully-qualified"] + BY_STATUS["minimally-qualified"]
# Text around emoji: none of these characters joins a neighbouring grapheme.
PLAIN = st.text(alphabet=st.sampled_from("aZé1#*©™ .,!?\n\t「中\N{REPLACEMENT CHARACTER}"))
EMOJI = st.sampled_from(COUNTED)
# Text made to break things: halves of emoji, joiners, a mark that
# the next character joins, selectors, tones, indicators, keycaps.
ROUGH = st.text(
    alphabet=st.sampled_from(
        "a1# .\n\u0600"
        "❤☺©😊👨👩👍🏽🦰🏴🇩🇪🇫\N{ZERO WIDTH JOINER}\ufe0e\ufe0f\u20e3\U000e0067\U000e007f"
    ),
    max_size=16,
)
PARTS = st.lists(st.one_of(PLAIN, EMOJI), max_size=6)
MIXED = st.lists(st.one_of(PLAIN, EMOJI, ROUGH), max_size=6).map("".join)


def test_the_unicode_file_is_whole() -> None:
    """The copy of emoji-test.txt 15.0 holds the numbers that its own footer states."""
    counts = {status: len(texts) for status, texts in BY_STATUS.items()}
    assert counts == {
        "fully-qualified": 3655,
        "minimally-qualified": 827,
        "unqualified": 242,
        "component": 9,
    }


def test_every_fully_qualified_sequence_is_one_emoji_alone_and_in_text() -> None:
    """Unicode's 3,655 fully-qualified sequences each count once, with exact offsets."""
    for sequence in BY_STATUS["fully-qualified"]:
        end = len(sequence)
        assert find_emoji(sequence) == (EmojiSpan(0, end, sequence),)
        assert find_emoji(f"So glad!{sequence} Bye") == (EmojiSpan(8, 8 + end, sequence),)
        assert find_emoji(f"1 {sequence}{sequence}") == (
            EmojiSpan(2, 2 + end, sequence),
            EmojiSpan(2 + end, 2 + 2 * end, sequence),
        )
        assert is_emoji(sequence)


def test_minimally_qualified_sequences_render_as_emoji_and_count() -> None:
    """The policy: after a first character with emoji presentation, a VS16 may be missing."""
    for sequence in BY_STATUS["minimally-qualified"]:
        assert find_emoji(f"a {sequence} b") == (EmojiSpan(2, 2 + len(sequence), sequence),)


@pytest.mark.parametrize("status", ["unqualified", "component"])
def test_text_presentation_forms_and_components_do_not_count(status: str) -> None:
    """Unqualified sequences, lone skin tones and hair are not emoji, alone or in text."""
    for sequence in BY_STATUS[status]:
        assert find_emoji(sequence) == ()
        assert find_emoji(f"see {sequence} there") == ()
        assert not is_emoji(sequence)


def test_variation_selectors_grant_and_revoke() -> None:
    """VS16 makes an emoji of every listed base but keycap digits; VS15 makes text of every base."""
    styles = _table("emoji-variation-sequences.txt.gz")
    assert len(styles) == 2 * 354  # the file's own total of 354 bases, two styles each
    for sequence, style in styles:
        keycap_start = sequence[0] in "0123456789#*"
        expected = style == "emoji style" and not keycap_start
        assert is_emoji(sequence) is expected, sequence


def test_newer_emoji_are_whole_graphemes_too() -> None:
    """Every fully-qualified sequence of the emoji library, newer than the file too, counts once."""
    newer = [
        sequence
        for sequence, data in emoji.EMOJI_DATA.items()
        if data["status"] == emoji.STATUS["fully_qualified"]
    ]
    assert len(newer) >= 3963  # Unicode 17 has 3,963; 15.0 had 3,655
    for sequence in newer:
        assert find_emoji(f"x{sequence}y") == (EmojiSpan(1, 1 + len(sequence), sequence),)


def test_the_sequences_are_what_the_policy_counts() -> None:
    """`emoji_sequences` holds all qualified sequences, sorted, once each, and nothing else."""
    sequences = emoji_sequences()
    assert list(sequences) == sorted(set(sequences))
    assert set(COUNTED) <= set(sequences)
    assert not set(sequences) & set(BY_STATUS["unqualified"] + BY_STATUS["component"])
    assert all(is_emoji(sequence) for sequence in sequences)


@pytest.mark.parametrize(
    ("text", "emojis"),
    [
        ("", []),
        ("plain ASCII #1 *2* 3", []),
        ("© 2024 Acme™ → ↔ ✓", []),
        ("©️ and ™️", ["©️", "™️"]),
        ("I ❤ you, ☺", []),
        ("I ❤️ you", ["❤️"]),
        ("❤︎", []),
        ("😊︎ is text", []),
        ("1⃣", []),
        ("1️⃣ first", ["1️⃣"]),
        ("1️", []),
        ("🏽", []),
        ("👍🏽", ["👍🏽"]),
        ("🇩", []),
        ("🇩🇪🇫", ["🇩🇪"]),
        ("🇩🇪🇫🇷", ["🇩🇪", "🇫🇷"]),
        ("🇦🇦", []),  # two indicators that are no region
        ("👨‍👩‍👧‍👦", ["👨‍👩‍👧‍👦"]),
        ("👨‍", ["👨‍"]),  # cut after the joiner: the man is displayed
        ("👍️", ["👍️"]),  # a needless VS16
        ("🎉🏽", ["🎉🏽"]),  # a tone that its base cannot wear: one grapheme, one emoji
        ("❤‍🔥", []),  # unqualified: begins with a text heart
        ("❤️‍🔥", ["❤️‍🔥"]),
        ("love\ufffd\ufffd", []),
        ("😊\ufffd", ["😊"]),
    ],
)
def test_the_policy_case_by_case(text: str, emojis: list[str]) -> None:
    """Each row of the policy table, and what generation cut at the limit leaves behind."""
    assert [span.text for span in find_emoji(text)] == emojis


@pytest.mark.parametrize(
    ("text", "places"), [("", 0), ("fine 😊", 0), ("a\ufffd", 1), ("\ufffd\ufffd b \ufffd", 2)]
)
def test_broken_characters_are_counted_apart(text: str, places: int) -> None:
    """A run of U+FFFD is one broken place, however many bytes of it were decoded apart."""
    assert count_broken(text) == places


@pytest.mark.parametrize("text", ["", "ab", "😊😊", "😊a", " 😊"])
def test_one_emoji_is_one_grapheme(text: str) -> None:
    """Nothing, several graphemes, or an emoji with company is not one emoji."""
    assert not is_emoji(text)


@given(st.lists(st.tuples(PLAIN, EMOJI), max_size=5), PLAIN)
def test_emoji_are_found_where_they_were_put(pairs: list[tuple[str, str]], tail: str) -> None:
    """Qualified emoji embedded in any text come back in order, at their offsets, and no more."""
    text, expected = "", []
    for plain, sequence in pairs:
        text += plain
        expected.append(EmojiSpan(len(text), len(text) + len(sequence), sequence))
        text += sequence
    assert find_emoji(text + tail) == tuple(expected)


@given(MIXED)
def test_emoji_are_the_clusters_that_are_emoji_and_no_others(text: str) -> None:
    """What is found is what comes out when every grapheme cluster is asked by itself."""
    expected = [match.group() for match in regex.finditer(r"\X", text) if is_emoji(match.group())]
    assert [span.text for span in find_emoji(text)] == expected


@given(MIXED)
def test_spans_are_graphemes_that_are_emoji(text: str) -> None:
    """Spans are ordered, disjoint, whole clusters of the text, and each one is an emoji."""
    spans = find_emoji(text)
    edges = {match.start() for match in regex.finditer(r"\X", text)} | {len(text)}
    for span, after in zip(spans, [*spans[1:], None], strict=False):
        assert text[span.start : span.end] == span.text
        assert is_emoji(span.text)
        assert {span.start, span.end} <= edges
        assert after is None or span.end <= after.start


@given(MIXED)
def test_the_first_sequence_decides_as_for_a_reader_of_tokens(text: str) -> None:
    """A text begins with an emoji if and only if its longest counted prefix lacks VS15."""
    prefixes = [text[:n] for n in range(1, len(text) + 1) if text[:n] in set(emoji_sequences())]
    expected = bool(prefixes) and not text.startswith("\ufe0e", len(prefixes[-1]))
    spans = find_emoji(text)
    assert (bool(spans) and spans[0].start == 0) is expected


@given(MIXED)
def test_stripping_leaves_no_emoji(text: str) -> None:
    """The stripped text has no emoji, whatever comes together, and stays so."""
    stripped = strip_emoji(text)
    assert find_emoji(stripped) == ()
    assert strip_emoji(stripped) == stripped


@given(PARTS)
def test_stripping_loses_nothing_but_emoji_and_blanks(parts: list[str]) -> None:
    """Every other character survives, in order."""
    plain = "".join(part for part in parts if not is_emoji(part))
    assert "".join(strip_emoji("".join(parts)).split()) == "".join(plain.split())


@given(PLAIN)
def test_stripping_changes_nothing_without_emoji(text: str) -> None:
    """Text without emoji comes back untouched, its odd blanks too."""
    assert strip_emoji(text) == text


@pytest.mark.parametrize(
    ("text", "stripped"),
    [
        ("See you soon. 😊", "See you soon."),
        ("I love parties 😊 They make my week.", "I love parties They make my week."),
        ("Thank you 🙏.", "Thank you."),
        ("😊 Hello", "Hello"),
        ("One\n😊 Two", "One\nTwo"),
        ("Hi 😊😊 there", "Hi there"),
        ("Hi 😊 😊 there", "Hi there"),
        ("Hi 😊😊there", "Hi there"),
        ("Great!😊Yes", "Great!Yes"),
        ("Bye 👋\nNow", "Bye\nNow"),
        ("🎉", ""),
        ("🇩😊🇪", ""),  # the two indicators meet and become a flag, which goes as well
    ],
)
def test_stripping_closes_the_gap(text: str, stripped: str) -> None:
    """The blank that set an emoji off goes with it; nothing else goes, nothing is inserted."""
    assert strip_emoji(text) == stripped


@given(MIXED)
def test_blanking_keeps_every_offset(text: str) -> None:
    """Blanked text is as long as before and equals it outside the emoji."""
    blanked = blank_emoji(text)
    inside = {i for span in find_emoji(text) for i in range(span.start, span.end)}
    assert len(blanked) == len(text)
    assert all(
        blanked[i] == (" " if i in inside else character) for i, character in enumerate(text)
    )

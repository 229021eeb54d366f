"""What an answer names: words in lower case and emoji as whole graphemes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from emotest.text.emoji import emoji_sequences, find_emoji
from emotest.text.units import Unit, kinds_of, named_units

EMOJI = st.sampled_from(["😊", "👨‍👩‍👧‍👦", "👍🏽", "🇩🇪", "1️⃣", "🕺🏽"])
WORD = st.sampled_from(["party", "Fun", "well-kept", "don't", "3.50"])
PIECE = st.one_of(EMOJI.map(lambda e: (e, True)), WORD.map(lambda w: (w, False)))


def words(text: str) -> list[str]:
    """The words among the units."""
    return [unit.text for unit in named_units(text) if not unit.is_emoji]


def test_words_and_emoji_stand_in_their_order() -> None:
    """A family is one unit though it has seven characters; a keycap's digit is no word."""
    text = "I would say Party, fun, 👨‍👩‍👧‍👦, well-kept, 1️⃣"
    assert [unit.text for unit in named_units(text)] == [
        "i", "would", "say", "party", "fun", "👨‍👩‍👧‍👦", "well-kept", "1️⃣",
    ]  # fmt: skip
    assert [unit.text for unit in named_units(text) if unit.is_emoji] == ["👨‍👩‍👧‍👦", "1️⃣"]


def test_what_only_looks_like_an_emoji_is_none() -> None:
    """Text presentation, a cut emoji and punctuation are no units; a digit alone is a word."""
    assert named_units("© ™ ❤ \ufffd ~ :)") == ()
    assert named_units("5") == (Unit("5", False),)


@given(st.lists(PIECE, max_size=8))
def test_a_list_gives_back_its_pieces(pieces: list[tuple[str, bool]]) -> None:
    """Pieces set apart by commas are the units, one for one."""
    text = ", ".join(piece for piece, _ in pieces)
    assert named_units(text) == tuple(
        Unit(piece if is_emoji else piece.lower(), is_emoji) for piece, is_emoji in pieces
    )


@given(st.text(max_size=40))
def test_every_emoji_of_a_text_is_a_unit(text: str) -> None:
    """As many as `find_emoji` counts, whatever stands around them."""
    emoji = [unit.text for unit in named_units(text) if unit.is_emoji]
    assert emoji == [span.text for span in find_emoji(text)]


def test_kinds_are_named_once_in_a_fixed_order() -> None:
    """Words first, each part sorted, however often and in whatever order they came; the ideograph's
    code point lies behind those of the emoji."""
    one, other = named_units("b 🎉 𠮷"), named_units("𠮷 𠮷 😊 b")
    kinds = kinds_of([one, other])
    assert kinds == kinds_of([other, one])
    assert [kind.text for kind in kinds] == ["b", "𠮷", *sorted("🎉😊")]


def test_an_emoji_is_no_word_in_any_sequence() -> None:
    """No letter or digit of an emoji sequence is left over as a word."""
    assert not [sequence for sequence in emoji_sequences() if words(sequence)]

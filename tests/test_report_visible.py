"""Hostile model text: everything is shown, nothing acts."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emotest.report.visible import markdown_text, marked, pieces, visible
from emotest.text.emoji import find_emoji

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=60)
FAMILY = "👨‍👩‍👧"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, with ümlaut", "plain, with ümlaut"),
        ("two\nlines\r\nthree", "two⏎lines⏎three"),
        ("\x1b[31mred\x07", "⟨U+001B⟩[31mred⟨U+0007⟩"),
        ("\u202eevil", "⟨U+202E⟩evil"),
        ("half \ud83d", "half ⟨U+D83D⟩"),
        ("cut \ufffd", "cut \ufffd"),
        ("zero\u200bwidth\ufeff", "zero⟨U+200B⟩width⟨U+FEFF⟩"),
        ("no\uffff", "no⟨U+FFFF⟩"),
        ("tag\U000e0041", "tag⟨U+E0041⟩"),
        (f"whole {FAMILY} ❤️", f"whole {FAMILY} ❤️"),
        ("🏴󠁧󠁢󠁳󠁣󠁴󠁿", "🏴󠁧󠁢󠁳󠁣󠁴󠁿"),
    ],
)
def test_what_cannot_be_seen_is_spelled_out(text: str, shown: str) -> None:
    """Code points for the unseen, a sign for line ends; emoji with their joiners stay whole."""
    assert visible(text) == shown


def test_every_emoji_stands_between_marks() -> None:
    """Also two in a row, and a family of three people is one."""
    assert marked(f"Yes 🎉{FAMILY}!") == f"Yes «🎉»«{FAMILY}»!"


def test_a_text_is_cut_at_its_emoji() -> None:
    """Odd places are emoji; lines and tabs stay, what cannot be seen is spelled out."""
    assert pieces(f"a\r\n\tb🎉{FAMILY}\u202e\ud83d") == [
        "a\n\tb", "🎉", "", FAMILY, "⟨U+202E⟩⟨U+D83D⟩",
    ]  # fmt: skip
    assert pieces("") == [""]


@given(ANY_TEXT)
def test_pieces_lose_nothing_but_the_line_ends_that_visible_spells_out(text: str) -> None:
    """Joined and put on one line, they are what `visible` shows."""
    cut = pieces(text)
    assert visible("".join(cut)) == visible(text)
    assert all(find_emoji(part) for part in cut[1::2])


@given(ANY_TEXT)
def test_nothing_that_steers_a_terminal_is_left(text: str) -> None:
    """No control character, no lone surrogate, no change of direction; and UTF-8 can hold it."""
    shown = visible(text)
    assert not any(unicodedata.category(character) in ("Cc", "Cs") for character in shown)
    assert not set("\u202a\u202b\u202d\u202e\u2066\u2067\u2068\u2028\u2029") & set(shown)
    shown.encode("utf-8")


@given(ANY_TEXT)
def test_showing_twice_is_showing_once(text: str) -> None:
    """What is visible already stays as it is."""
    assert visible(visible(text)) == visible(text)


@given(ANY_TEXT)
def test_no_emoji_is_lost_or_torn(text: str) -> None:
    """As many marks as emoji, around the same emoji in the same order."""
    parts = marked(text).split("«")
    emoji = [span.text for span in find_emoji(text)]
    assert [e for e in emoji if f"«{e}»" not in marked(text)] == []
    if "«" not in text and "»" not in text:
        assert [part.partition("»")[0] for part in parts[1:]] == emoji


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("a|b", "a\\|b"),
        ("`code`", "\\`code\\`"),
        ("<script>alert(1)</script>", "&#60;script&#62;alert(1)&#60;/script&#62;"),
        ("&amp;", "&#38;amp;"),
        ("[link](x)", "\\[link\\](x)"),
        ("![image](x)", "!\\[image\\](x)"),
        ("*bold* _it_ ~~no~~", "\\*bold\\* \\_it\\_ \\~\\~no\\~\\~"),
        ("# head", "&#35; head"),
        ("- item", "\\- item"),
        ("12. item", "12\\. item"),
        ("===", "\\==="),
        ("https://x.y", "https&#58;//x.y"),
        ("www.x.y", "www&#46;x.y"),
        ("@somebody #12", "&#64;somebody &#35;12"),
        ("$x^2$", "&#36;x^2&#36;"),
        (":smile:", "&#58;smile:"),
        ("a\\", "a\\\\"),
        ("10:45:38 - 0.5", "10:45:38 - 0.5"),
    ],
)
def test_markup_loses_its_meaning(text: str, source: str) -> None:
    """CommonMark's and GitHub's: the page shows the characters that the model wrote."""
    assert markdown_text(text) == source


@given(ANY_TEXT)
def test_no_text_opens_html_or_leaves_its_table_cell(text: str) -> None:
    """No `<`, no unescaped pipe or backtick, no line end."""
    source = markdown_text(text, mark=True)
    assert "<" not in source
    assert "\n" not in source
    bare = source.replace("\\\\", "").replace("\\|", "").replace("\\`", "")
    assert "|" not in bare
    assert "`" not in bare

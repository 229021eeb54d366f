"""Model text made safe to show: what cannot be seen is spelled out, emoji are marked.

A model may write anything: terminal escapes, characters that reverse the reading direction, half
a surrogate pair, pipes and tags that break a table. Text goes in, text comes out that a person
sees as it is; nothing is dropped. U+FFFD, the trace of half an emoji, stays.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

from emotest.text.emoji import find_emoji

OPEN, CLOSE = "«", "»"
"""Stand around every emoji, so that it is found without colour and in any font."""

_BIDI = {0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)}
_BLANK = {0x00AD, 0x034F, 0x115F, 0x1160, 0x180E, 0x200B, 0x2060, 0x3164, 0xFEFF, 0xFFA0}
_BLANK |= {*range(0x2061, 0x2065), *range(0x206A, 0x2070), *range(0xFFF9, 0xFFFC)}
_TAGS = range(0xE0000, 0xE1000)
_LINE_ENDS = {"\n": "⏎", "\t": " ", "\N{LINE SEPARATOR}": "⏎", "\N{PARAGRAPH SEPARATOR}": "⏎"}

_NOT_PLAIN = re.compile(r"[^ -~]")  # printable ASCII always shows as it is
_LINES = re.compile(r"[^\n\t]+")

_MARKUP = re.compile(r"[\\`*_\[\]{}|~<>&#$@]|:(?=//)|(?<!\d):(?=[\w+-]+:)|(?<=www)\.")
_BLOCK = re.compile(r"^(\s*\d{0,9})([-+.)](?=\s|$)|=+\s*$|--+\s*$)")
_BACKSLASHED = frozenset("\\`*_[]{}|~")


def visible(text: str) -> str:
    """The text on one line, with unseen, reversing and impossible characters spelled out.

    Line ends become `⏎`, tabs a blank, everything else that shows nothing (control and format
    characters, lone surrogates, tags outside an emoji) its code point: `⟨U+202E⟩`. Characters
    inside an emoji, such as joiners and variation selectors, stay.
    """
    return _mapped(text, _seen, lambda emoji: emoji)


def marked(text: str) -> str:
    """`visible(text)` with every emoji between `«` and `»`."""
    return _mapped(text, _seen, lambda emoji: f"{OPEN}{emoji}{CLOSE}")


def pieces(text: str) -> list[str]:
    """The text cut at its emoji: what stands at odd places is an emoji, the rest is not.

    Made visible like `visible`, but with its lines and tabs as they are; never empty, and joined
    it is the whole text.
    """
    parts, end = [], 0
    for span in find_emoji(text):
        parts += [_seen_in_lines(text[end : span.start]), span.text]
        end = span.end
    return [*parts, _seen_in_lines(text[end:])]


def in_lines(text: str) -> str:
    """The text made visible with its lines and tabs as they are, for a message of several lines."""
    return "".join(pieces(text))


def markdown_text(text: str, *, mark: bool = False) -> str:
    """The text as Markdown that shows exactly these characters, also inside a table.

    Markup, HTML, links, mentions, issue numbers, formulas and emoji shortcodes lose their
    meaning (CommonMark and GitHub's additions). With `mark`, emoji stand between `«` and `»`.
    """

    def literal(part: str) -> str:
        return _MARKUP.sub(lambda match: _literal(match.group()), _seen(part))

    shown = _mapped(text, literal, lambda emoji: f"{OPEN}{emoji}{CLOSE}" if mark else emoji)
    return _BLOCK.sub(lambda match: f"{match.group(1)}\\{match.group(2)}", shown)


def _literal(sign: str) -> str:
    return f"\\{sign}" if sign in _BACKSLASHED else f"&#{ord(sign)};"


def _mapped(text: str, outside: Callable[[str], str], inside: Callable[[str], str]) -> str:
    parts, end = [], 0
    for span in find_emoji(text):
        parts += [outside(text[end : span.start]), inside(span.text)]
        end = span.end
    return "".join([*parts, outside(text[end:])])


def _seen(text: str) -> str:
    return _NOT_PLAIN.sub(lambda match: _character(match.group()), text.replace("\r\n", "\n"))


def _seen_in_lines(text: str) -> str:
    return _LINES.sub(lambda match: _seen(match.group()), text.replace("\r\n", "\n"))


def _character(character: str) -> str:
    point = ord(character)
    if character in _LINE_ENDS:
        return _LINE_ENDS[character]
    noncharacter = point & 0xFFFE == 0xFFFE or 0xFDD0 <= point <= 0xFDEF
    hidden = point in _BIDI or point in _BLANK or point in _TAGS or noncharacter
    if hidden or unicodedata.category(character) in ("Cc", "Cs"):
        return f"⟨U+{point:04X}⟩"
    return character

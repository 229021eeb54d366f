"""Emoji in text, as whole graphemes.

Takes text, gives spans. It knows Unicode's emoji data (by the `emoji` library) and grapheme
clusters (`\\X` of the `regex` library, UAX #29); it knows neither sentences nor models.

**What counts as one emoji.** A grapheme cluster that begins with a recommended emoji sequence
(RGI, UTS #51) which is *fully-qualified* or *minimally-qualified*, unless the text-presentation
selector VS15 (U+FE0E) follows that sequence. In detail:

======================================  =======  =============================================
what                                    counts   why
======================================  =======  =============================================
fully-qualified, any length             1        RGI: a ZWJ family, a flag or a keycap is one
minimally-qualified (`🏴‍☠`)            1        its first character has emoji presentation, so
                                                 it renders as one emoji; models often leave an
                                                 inner VS16 out
unqualified (`❤`, `☺`, `❤‍🔥`, `1⃣`)    no       its first character has text presentation
text characters (`©`, `™`, `#`, `1`)    no       they count only with VS16 (`©️`) or as a
                                                 complete keycap (`1️⃣`)
an emoji with VS15 (`😊︎`)              no       VS15 asks for text presentation
lone skin tone or hair, `🏽` `🦰`       no       *component* in UTS #51: a swatch, no emoji
lone regional indicator, unknown pair   no       renders as letters
an emoji and a trailing ZWJ, or         1        the first emoji of the cluster is displayed;
followed by what it cannot join with             one grapheme is never more than one emoji
U+FFFD, what is left of a cut emoji     no       `count_broken` counts it apart
======================================  =======  =============================================

The set grows with Unicode: `EMOJI_METRIC_VERSION` names the rules, `emoji.__version__` the data.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import emoji
import regex

EMOJI_METRIC_VERSION = "1"
"""Version of the rules above; it changes whenever some text would be counted differently."""

TEXT_PRESENTATION_SELECTOR = "\N{VARIATION SELECTOR-15}"
_GRAPHEME = regex.compile(r"\X")
_PLAIN_OR_GRAPHEME = regex.compile(r"(?:[ -~](?=[ -~]|\Z))++|\X")
"""A run of ASCII characters, none of which anything but ASCII follows, or one grapheme cluster.
Each character of such a run is a cluster of its own, and no emoji is pure ASCII."""
_BROKEN = regex.compile("\N{REPLACEMENT CHARACTER}+")
_COUNTED_STATUS = frozenset({emoji.STATUS["fully_qualified"], emoji.STATUS["minimally_qualified"]})


@dataclass(frozen=True)
class EmojiSpan:
    """One emoji: the whole grapheme `text[start:end]`, offsets in characters (code points)."""

    start: int
    end: int
    text: str


@cache
def emoji_sequences() -> tuple[str, ...]:
    """Every emoji string that counts, in code point order: n_sequences strings.

    Fully- and minimally-qualified RGI sequences. A text begins with an emoji exactly when it
    begins with one of them, taken as long as possible, and VS15 does not follow.
    """
    return tuple(
        sorted(
            sequence
            for sequence, data in emoji.EMOJI_DATA.items()
            if data["status"] in _COUNTED_STATUS
        )
    )


def find_emoji(text: str) -> tuple[EmojiSpan, ...]:
    """All emoji of `text`, from left to right; never overlapping, each a whole grapheme."""
    if text.isascii():  # no emoji is pure ASCII: keycaps hold U+FE0F and U+20E3
        return ()
    return tuple(
        EmojiSpan(match.start(), match.end(), match.group())
        for match in _PLAIN_OR_GRAPHEME.finditer(text)
        if not match.group().isascii() and _shows_emoji(match.group())
    )


def has_emoji(text: str) -> bool:
    """Whether `text` holds an emoji."""
    return bool(find_emoji(text))


def is_emoji(grapheme: str) -> bool:
    """Whether `grapheme` is exactly one grapheme cluster, and that one an emoji."""
    return _GRAPHEME.fullmatch(grapheme) is not None and _shows_emoji(grapheme)


def count_broken(text: str) -> int:
    """Number of places where a character was cut: runs of U+FFFD.

    Runs, because decoders write one U+FFFD for a cut character or one for each of its bytes.
    """
    return len(_BROKEN.findall(text))


def blank_emoji(text: str) -> str:
    """`text` with every character of every emoji replaced by a space: all offsets stay."""
    pieces, place = [], 0
    for span in find_emoji(text):
        pieces += [text[place : span.start], " " * (span.end - span.start)]
        place = span.end
    return "".join([*pieces, text[place:]])


def strip_emoji(text: str) -> str:
    """`text` without emoji, and without the blanks that only set them off.

    A run of emoji takes the blanks before it along where white space, punctuation or the end
    follows, and the blanks after it at the start of a line. Nothing is inserted; text without
    emoji comes back as it is. The result holds no emoji, also where the removal brings two lone
    regional indicators together.
    """
    while spans := find_emoji(text):
        text = _without(text, spans)
    return text


_BLANKS = " \t\N{NO-BREAK SPACE}"
_CLOSE_UP = regex.compile(r"\s|[.,;:!?…)\]}]|$")


def _without(text: str, spans: tuple[EmojiSpan, ...]) -> str:
    kept = text[: spans[0].start]
    for span, until in zip(spans, [*(s.start for s in spans[1:]), len(text)], strict=True):
        if span.end == until < len(text):
            continue  # inside a run of emoji: its last one decides about the blanks
        rest = text[span.end : until]
        if not kept or kept.endswith("\n"):
            rest = rest.lstrip(_BLANKS)
        elif _CLOSE_UP.match(rest):
            kept = kept.rstrip(_BLANKS)
        kept += rest
    return kept


@cache
def _counted() -> frozenset[str]:
    return frozenset(emoji_sequences())


@cache
def _first_characters() -> frozenset[str]:
    return frozenset(sequence[0] for sequence in emoji_sequences())


def _shows_emoji(cluster: str) -> bool:
    if cluster[0] not in _first_characters():
        return False
    counted = _counted()
    for length in range(len(cluster), 0, -1):
        if cluster[:length] in counted:
            return cluster[length : length + 1] != TEXT_PRESENTATION_SELECTOR
    return False

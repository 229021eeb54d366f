"""Sentences of an answer, each with the emoji that close it.

Takes English text, gives spans; knows no model and no rate. Boundaries come from `sentencex`
(Wikimedia, MIT, released in 2026), chosen over the other candidates on chat-like text: `uniseg`
(UAX #29) breaks after "Dr.", "vs." and list numbers, `pysbd` (last release 2021) misses "D.C. He"
and "!!! Yes", spaCy would load torch where it finds it. Four decisions are our own:

- **Emoji and enders are invisible to the library.** A run of emoji, of enders (`~`, `:)`, `<3`,
  `❤` ...) or of what is left of a cut emoji is blanked first, so that it neither makes nor hides a
  boundary. It belongs to the sentence that it follows, and to the one that it precedes only at
  the start of a line. What holds no letter and no number is never a sentence of its own, unless
  there is nothing else in the text.
- **A run may stand for the full stop.** "I love parties 😊 They make my week." is two sentences: a
  run ends a sentence where at least two words stand before it and a capital letter comes next.
  The price: "We all ❤️ Paris" is two as well ("I ❤️ Paris" is one).
- **A line break ends a sentence.** Chat models break lines to begin something new, they do not
  wrap; list items are sentences, and their number or bullet belongs to them.
- **The library sees an ASCII shadow of the text**, one character for each character, because
  version 1.0.32 panics on some white space of several bytes ("I\\u00a0."); typographic quotation
  marks, dashes and foreign full stops are mapped to their ASCII kin.

A full stop without a blank ("here.He") ends a sentence. An ellipsis ends one before a capital.
A sentence in brackets ("(I mean it.) Yes.") is left with the next, as the library has it.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from itertools import pairwise

import regex
import sentencex  # type: ignore[import-untyped]  # ships no type information

from emotest.text.emoji import find_emoji

SENTENCE_METRIC_VERSION = "1"
"""Version of the rules above; it changes whenever some text would be split differently."""


@dataclass(frozen=True)
class Sentence:
    """One sentence, `text[start:end]` of the answer, offsets in characters.

    `words_end` is where its last word ends: `text[words_end:end]` is its closing, that is
    punctuation, emoji and enders in any order. `ended` is False for a last sentence that simply
    stops, as one does that the token limit cut.
    """

    start: int
    end: int
    words_end: int
    ended: bool
    text: str

    @property
    def closing(self) -> str:
        """What follows the last word: punctuation, emoji, enders, and blanks among them."""
        return self.text[self.words_end - self.start :]


def split_sentences(text: str) -> tuple[Sentence, ...]:
    """The sentences of `text`, in order.

    Their spans are disjoint and hold every character that is no white space; none begins or ends
    with white space. Text of white space alone has no sentence.
    """
    runs = _runs(text)
    visible = _blanked(text, runs)
    pieces = _joined(text, visible, _cuts(text, visible, runs))
    return tuple(
        _sentence(text, visible, runs, start, end, last=end == pieces[-1][1])
        for start, end in pieces
    )


# --- runs: emoji, enders and remains ---------------------------------------------------------

_ENDER = regex.compile(
    r"~+(?=\s|$|[.,!?~])"  # a tilde that closes: "soon ~", "soon~", never "~5" or "~/file"
    r"|(?<!\w)[:;=]'?-?[()DP](?!\w)"  # :) ;-) =D :'( but no "http:/", no "a:)"
    r"|(?<!\w)<3(?!\w)"
    r"|(?<!\w)\^_?\^(?!\w)"
    r"|[♥❤☺☹]\N{VARIATION SELECTOR-15}?"  # text presentation: no emoji, yet they close
    r"|[\p{Emoji_Modifier}\p{Regional_Indicator}\N{REPLACEMENT CHARACTER}]"  # halves of emoji
)


def _runs(text: str) -> list[tuple[int, int]]:
    """Spans of emoji and enders; neighbours with nothing but blanks between them are one run."""
    marks = [(span.start, span.end) for span in find_emoji(text)]
    marks += [match.span() for match in _ENDER.finditer(_blanked(text, marks))]
    runs: list[tuple[int, int]] = []
    for start, end in sorted(marks):
        if runs and not text[runs[-1][1] : start].strip(" \t\N{NO-BREAK SPACE}"):
            runs[-1] = (runs[-1][0], end)
        else:
            runs.append((start, end))
    return runs


def _blanked(text: str, spans: list[tuple[int, int]]) -> str:
    if not spans:
        return text
    characters = list(text)
    for start, end in spans:
        characters[start:end] = " " * (end - start)
    return "".join(characters)


# --- the shadow: what the library sees -------------------------------------------------------

_KIN = str.maketrans(
    {
        **dict.fromkeys("“”„‟«»‹›「」『』", '"'),
        **dict.fromkeys("‘’‚‛", "'"),
        **dict.fromkeys("–—−", "-"),
        **dict.fromkeys("。．｡！।", "!"),
        "？": "?",
        "•": "*",
        "（": "(",
        "）": ")",
    }
)
_REPEATED_MARKS = regex.compile(
    r"[.…]*[!?][.…!?]+|[.…]+[!?]"  # "!!", "?!", "...!"
    r"|(?:…|\.{2,})(?=\s+\p{P}*+\p{Lu}|\s*$)"  # an ellipsis, where a capital or nothing follows
)


# The library takes these for Me., May., Ill., No. and the like, which stand with a capital letter
# or before a number; a small letter before and a capital after it make them ordinary words.
_ORDINARY = regex.compile(
    r"\b(?:art|con|fed|id|ill|la|mar|may|me|miss|no|ore|pa)\.(?=\s+\p{P}*+\p{Lu})"
)


_NO_PLAIN_ASCII = regex.compile(r"[^ -~]")


def _shadow(visible: str) -> str:
    """ASCII, as long as `visible`; every line break is `\\n`."""
    # The library would not break in "week!! I love" and "week... I love".
    plain = _REPEATED_MARKS.sub(lambda match: "!".ljust(len(match.group())), visible)
    plain = _ORDINARY.sub(lambda match: ".".rjust(len(match.group()), "a"), plain)
    return _NO_PLAIN_ASCII.sub(_stand_in, plain.translate(_KIN))


def _stand_in(match: regex.Match[str]) -> str:
    character = match.group()
    if character.isspace():
        return "\n" if character.splitlines() == [""] else " "
    if character.isdecimal():
        return "0"
    if character.isalnum() or unicodedata.category(character).startswith("M"):
        return "A" if character.isupper() or character.istitle() else "a"
    return ","


# --- cuts and pieces -------------------------------------------------------------------------

_WORD = regex.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
_CLOSERS = frozenset(")]}\"'”’»")
_CAPITAL_NEXT = regex.compile(r"\s*+[\p{Ps}\p{Pi}\"'¡¿]*+[\p{Lu}\p{Lt}]")
_TERMINATOR = regex.compile(r"[.!?…。！？।]")
_LIST_NUMBER_ALONE = regex.compile(r"\(?\d{1,3}[.)]")
_REMAINS = " \t\N{NO-BREAK SPACE}\N{REPLACEMENT CHARACTER}"


def _cuts(text: str, visible: str, runs: list[tuple[int, int]]) -> list[int]:
    """Offsets at which a new sentence begins, 0 and the length of the text included."""
    cuts = {0, len(text)}
    line_start = 0
    for line in _shadow(visible).splitlines(keepends=True):
        place = line_start
        cuts.add(place)
        for segment in sentencex.segment("en", line):
            place += len(segment)
            cuts.add(_behind_closers(text, place))
        line_start += len(line)
    for start, end in runs:
        if _CAPITAL_NEXT.match(text, end):
            sentence_start = max(cut for cut in cuts if cut <= start)
            if len(_WORD.findall(visible, sentence_start, start)) >= 2:
                cuts.add(end)
    return sorted(cuts)


def _behind_closers(text: str, cut: int) -> int:
    """A bracket or quotation mark that follows the full stop directly closes that sentence."""
    while 0 < cut < len(text) and text[cut] in _CLOSERS and not text[cut - 1].isspace():
        cut += 1
    return cut


def _joined(text: str, visible: str, cuts: list[int]) -> list[tuple[int, int]]:
    """Trimmed pieces between the cuts; one without a word joins its neighbour."""
    pieces: list[tuple[int, int]] = []
    pending: int | None = None  # start of a piece that waits for the sentence it introduces
    for cut, next_cut in pairwise(cuts):
        start, end = _trimmed(text, cut, next_cut)
        if start == end:
            continue
        wordless = not _has_word(visible, start, end)
        if wordless and pieces and pending is None:
            pieces[-1] = (pieces[-1][0], end)
        elif wordless or _LIST_NUMBER_ALONE.fullmatch(text, start, end):
            pending = start if pending is None else pending
        else:
            pieces.append((start if pending is None else pending, end))
            pending = None
    if pending is not None:  # nothing followed
        _, end = _trimmed(text, pending, len(text))
        pieces[-1:] = [(pieces[-1][0] if pieces else pending, end)]
    return pieces


def _has_word(visible: str, start: int, end: int) -> bool:
    return any(visible[i].isalnum() for i in range(start, end))


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end


def _sentence(
    text: str, visible: str, runs: list[tuple[int, int]], start: int, end: int, *, last: bool
) -> Sentence:
    words_end = end
    while words_end > start and not visible[words_end - 1].isalnum():
        words_end -= 1
    closed = any(
        words_end <= run_start < end and text[run_start:run_end].strip(_REMAINS)
        for run_start, run_end in runs
    )
    ended = not last or closed or _TERMINATOR.search(text, words_end, end) is not None
    return Sentence(start, end, words_end, ended, text[start:end])

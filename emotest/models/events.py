"""What the next text may begin with, as a question that can be answered byte by byte.

Takes a set of strings (all emoji, or a control set such as "!"), gives an automaton over UTF-8
bytes that says of every beginning whether the event has happened, can no longer happen, or is
still open. Knows nothing of tokens and models: `spelling.py` runs whole vocabularies through it.

**The definition.** The text that follows a context is read by itself, from its first character
on; with `skip_space` any white space in front of it is passed over. The event happens if that
text begins with one of the strings, taken as long as possible, and none of the characters
`revoked_by` stands right behind it. For emoji this is the policy of `emotest.text.emoji`: U+FE0E
(VS15) revokes, U+FE0F (VS16) grants ("❤" is open until it follows), the digit of a keycap counts
only with the two characters behind it, and a joiner keeps the emoji open until it is known which
emoji it is. The end of the text decides what is open.

Read by itself means: a skin tone, a joiner or VS16 that would change the *last* character of the
context is no emoji, and the right half of a ZWJ sequence is one if it is an emoji alone. The
study's contexts end at ends of sentences, where neither occurs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache

from emotest.errors import UsageError
from emotest.text.emoji import TEXT_PRESENTATION_SELECTOR, emoji_sequences

HAPPENED = -1
"""State of the automaton: the event has happened, whatever follows."""
FAILED = -2
"""State of the automaton: the event can no longer happen."""

# The 25 characters with the Unicode property White_Space.
_WHITE_SPACE = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)


@dataclass(frozen=True)
class TextEvent:
    """The next text begins with one of `strings`; see the head of this file.

    Args:
        name: how reports call it.
        strings: what the text may begin with; of those that fit, the longest is meant.
        skip_space: pass over white space in front: at the end of a sentence a model writes " 😊",
            or a line break and then 😊, and the question is what the reader sees next.
        revoked_by: characters which, right behind the string, undo it.

    Raises:
        UsageError: no string, an empty one, or one that begins with the white space to be skipped.
    """

    name: str
    strings: frozenset[str] = field(repr=False)
    skip_space: bool = False
    revoked_by: str = ""

    def __post_init__(self) -> None:
        if not self.strings or "" in self.strings:
            raise UsageError(
                f"the event {self.name!r} has no string to look for, or an empty one",
                remedy="name at least one character",
            )
        spaced = [string for string in self.strings if string[0] in _WHITE_SPACE]
        if self.skip_space and spaced:
            raise UsageError(
                f"{spaced[0]!r} begins with white space, which the event {self.name!r} skips",
                remedy="strip the string, or set skip_space=False",
            )

    def begins(self, text: str) -> bool:
        """Whether a complete text begins with the event: the definition, for whole strings."""
        if self.skip_space:
            text = text.lstrip(_WHITE_SPACE)
        for end in range(min(len(text), max(map(len, self.strings))), 0, -1):
            if text[:end] in self.strings:
                return end == len(text) or text[end] not in self.revoked_by
        return False


@lru_cache(maxsize=2)
def emoji_event(*, skip_space: bool = False) -> TextEvent:
    """The next grapheme (with `skip_space` the next visible one) is an emoji."""
    return TextEvent("emoji", frozenset(emoji_sequences()), skip_space, TEXT_PRESENTATION_SELECTOR)


def ending_event(strings: Iterable[str], *, skip_space: bool = False) -> TextEvent:
    """The next text begins with one of `strings`: a control set such as "!", "~" or ":)"."""
    chosen = frozenset([strings] if isinstance(strings, str) else strings)
    return TextEvent(" ".join(sorted(chosen)), chosen, skip_space)


@dataclass
class _Node:
    """What has been read of the strings: a beginning of one or more of them."""

    whole: bool = False
    """It is one of the strings."""
    holds: bool = False
    """It is one of the strings or begins with one."""
    next: dict[str, _Node] = field(default_factory=dict)


class ByteAutomaton:
    """Reads UTF-8 byte by byte and says when a `TextEvent` is decided.

    States are `HAPPENED`, `FAILED`, or an open state, an integer >= 0, numbered as they are met;
    `start` is the empty text. Bytes that are no UTF-8 read as U+FFFD, as Python's
    `errors="replace"` reads them.
    """

    start = 0

    def __init__(self, event: TextEvent) -> None:
        self.event = event
        self._root = _tree(event.strings)
        self._states: list[tuple[_Node, bytes]] = []
        self._number: dict[tuple[int, bytes], int] = {}
        self._begun: dict[int, frozenset[bytes]] = {}
        self._steps: dict[tuple[int, int], int] = {}
        self._open(self._root, b"")

    def step(self, state: int, byte: int) -> int:
        """The state after one more byte in an open `state`."""
        key = state, byte
        if key not in self._steps:
            self._steps[key] = self._step(state, byte)
        return self._steps[key]

    def read(self, state: int, text: bytes) -> int:
        """The state after more bytes; a decided state stays what it is."""
        for byte in text:
            if state < 0:
                break
            state = self.step(state, byte)
        return state

    def at_end(self, state: int) -> bool:
        """Whether the event has happened if the text ends in an open `state`."""
        return self._states[state][0].holds

    def _step(self, state: int, byte: int) -> int:
        node, unfinished = self._states[state]
        read = unfinished + bytes([byte])
        try:
            return self._after(node, read.decode())
        except UnicodeDecodeError:
            if read in self._characters_begun(node):
                return self._open(node, read)
            return HAPPENED if node.holds else FAILED

    def _after(self, node: _Node, character: str) -> int:
        if self.event.skip_space and node is self._root and character in _WHITE_SPACE:
            return self.start
        if character in node.next:
            longer = node.next[character]
            # Where nothing revokes, the first string that fits decides.
            return HAPPENED if longer.whole and not self.event.revoked_by else self._open(longer)
        if node.whole and character in self.event.revoked_by:
            return FAILED
        return HAPPENED if node.holds else FAILED

    def _open(self, node: _Node, unfinished: bytes = b"") -> int:
        key = id(node), unfinished
        if key not in self._number:
            self._number[key] = len(self._states)
            self._states.append((node, unfinished))
        return self._number[key]

    def _characters_begun(self, node: _Node) -> frozenset[bytes]:
        """Beginnings of the UTF-8 of those characters that make a difference behind `node`."""
        if id(node) not in self._begun:
            characters = list(node.next)
            if node.whole:
                characters += self.event.revoked_by
            if self.event.skip_space and node is self._root:
                characters += _WHITE_SPACE
            encoded = [character.encode() for character in characters]
            self._begun[id(node)] = frozenset(
                text[:end] for text in encoded for end in range(1, len(text))
            )
        return self._begun[id(node)]


@lru_cache(maxsize=32)
def byte_automaton(event: TextEvent) -> ByteAutomaton:
    """The automaton of an event, built once."""
    return ByteAutomaton(event)


def _tree(strings: Iterable[str]) -> _Node:
    """Strings as a tree of characters in which all that are no beginning of another share one end.

    After any of these thousands of emoji the same things can happen, so one state serves all.
    """
    root, end = _Node(), _Node(whole=True, holds=True)
    # Longest first: the first string to reach a place has no longer one behind it.
    for string in sorted(strings, key=len, reverse=True):
        node = root
        for character in string[:-1]:
            node = node.next.setdefault(character, _Node())
        node.next.setdefault(string[-1], end).whole = True
    _mark_holding(root, begins_with_a_string=False)
    return root


def _mark_holding(node: _Node, *, begins_with_a_string: bool) -> None:
    node.holds = node.whole or begins_with_a_string
    for longer in node.next.values():
        _mark_holding(longer, begins_with_a_string=node.holds)

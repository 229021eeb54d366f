"""What a reply of an OpenAI-compatible server says: the answer, and the tokens offered first.

Takes parsed JSON, gives frozen values; a value that is missing or of the wrong kind raises
`Malformed` with its place. Knows no server and no HTTP.

Shapes: `choices[0].message.content` with `choices[0].logprobs.content[0].top_logprobs` in chat,
`choices[0].text` with `choices[0].logprobs.top_logprobs[0]` in completions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from emotest.models.events import TextEvent

Api = Literal["chat", "completions"]
Kind = TypeVar("Kind")

_ROUNDING = 1e-3
"""Servers round logprobs; more than this above 0 is no rounding."""

_KINDS: dict[type, str] = {str: "text", list: "list", dict: "object"}


class Malformed(Exception):
    """A reply that is JSON but not what the API promises; the text says where."""


@dataclass(frozen=True)
class Answer:
    """What was written, why it ended (`finish_reason`), and which model the server says it is."""

    text: str
    finish_reason: str | None
    model: str | None


@dataclass(frozen=True)
class OfferedToken:
    """One token that could have come first: its bytes, None where the server cut a character."""

    utf8: bytes | None
    logprob: float


@dataclass(frozen=True)
class EmojiLowerBound:
    """What the tokens that a server names say about P(the next grapheme is an emoji).

    `lower_bound` is the mass of those tokens that begin with a whole emoji, `seen` the mass of all
    that were named. The truth may be larger: tokens that were not named, and emoji of several
    tokens, are left out. It may be smaller by what VS15 would revoke: a token that ends with an
    emoji counts, although the next one, which is not seen, could ask for text presentation.
    """

    lower_bound: float
    seen: float


def answer_from(document: Any, api: Api) -> Answer:
    """The one answer in a reply."""
    choice = _choice(document)
    reason = _optional_text(choice, "finish_reason", "choices[0].finish_reason")
    text = _chat_text(choice, reason) if api == "chat" else _text(choice, "text", "choices[0].text")
    return Answer(text, reason, _optional_text(document, "model", "model"))


def _chat_text(choice: dict[str, Any], reason: str | None) -> str:
    message = _of(choice.get("message"), dict, "choices[0].message")
    content = message.get("content")
    if content is None and isinstance(message.get("refusal"), str):
        return str(message["refusal"])
    if content is None and reason in ("length", "content_filter"):
        return ""  # All tokens went into thinking, or the answer was withheld: it is cut.
    return _text(message, "content", "choices[0].message.content")


def offered_tokens(document: Any, api: Api) -> list[OfferedToken] | None:
    """The tokens that could have come first, None where the server names none."""
    logprobs = _choice(document).get("logprobs")
    if logprobs is None:
        return None
    logprobs = _of(logprobs, dict, "choices[0].logprobs")
    tokens = _chat_tokens(logprobs) if api == "chat" else _completions_tokens(logprobs)
    if not tokens:
        return None
    if sum(math.exp(token.logprob) for token in tokens) > 1 + len(tokens) * _ROUNDING:
        raise Malformed("the logprobs of the first token add up to more than a probability of 1")
    return tokens


def emoji_mass(tokens: list[OfferedToken], event: TextEvent) -> EmojiLowerBound:
    """The mass of the tokens whose text begins with an emoji that is surely complete.

    `event` is one of `emoji_event()`, the definition that exact probabilities have too.
    """
    emoji = [token for token in tokens if begins_with_whole_emoji(token.utf8, event)]
    return EmojiLowerBound(
        min(1.0, sum(math.exp(token.logprob) for token in emoji)),
        min(1.0, sum(math.exp(token.logprob) for token in tokens)),
    )


def begins_with_whole_emoji(utf8: bytes | None, event: TextEvent) -> bool:
    """Whether a token's text begins with an emoji, whatever follows but VS15.

    A token that ends within a character does not count, also where a whole emoji comes before.
    More characters can make an emoji longer (a skin tone, a ZWJ sequence) but no other thing.
    """
    try:
        text = (utf8 or b"").decode("utf-8")
    except UnicodeDecodeError:
        return False
    return event.begins(text) and not text.endswith("\N{REPLACEMENT CHARACTER}")


def models_from(document: Any) -> list[str]:
    """The names in a list of models; whatever has no name is left out."""
    rows = document.get("data") if isinstance(document, dict) else None
    rows = rows if isinstance(rows, list) else []
    names = [row.get("id") for row in rows if isinstance(row, dict)]
    return [name for name in names if isinstance(name, str)]


# --- places in a reply -------------------------------------------------------------------------


def _chat_tokens(logprobs: dict[str, Any]) -> list[OfferedToken]:
    place = "choices[0].logprobs.content"
    content = _of(logprobs.get("content") or [], list, place)
    if not content:
        return []
    first = _of(content[0], dict, f"{place}[0]")
    rows = _of(first.get("top_logprobs") or [], list, f"{place}[0].top_logprobs")
    return [_chat_token(row, f"{place}[0].top_logprobs[{i}]") for i, row in enumerate(rows)]


def _chat_token(row: Any, place: str) -> OfferedToken:
    row = _of(row, dict, place)
    token = _text(row, "token", f"{place}.token")
    logprob = _logprob(row.get("logprob"), f"{place}.logprob")
    if row.get("bytes") is None:
        return OfferedToken(_bytes_of(token), logprob)
    numbers = _of(row["bytes"], list, f"{place}.bytes")
    if not all(type(number) is int and 0 <= number < 256 for number in numbers):
        raise Malformed(f"{place}.bytes holds something else than bytes")
    return OfferedToken(bytes(numbers), logprob)


def _completions_tokens(logprobs: dict[str, Any]) -> list[OfferedToken]:
    place = "choices[0].logprobs.top_logprobs"
    rows = _of(logprobs.get("top_logprobs") or [], list, place)
    if not rows:
        return []
    first = _of(rows[0] or {}, dict, f"{place}[0]")
    return [
        OfferedToken(_bytes_of(token), _logprob(logprob, f"{place}[0][{token!r}]"))
        for token, logprob in first.items()
    ]


def _bytes_of(token: str) -> bytes | None:
    """The bytes of a token given as text.

    Half-characters come as U+FFFD, as lone surrogates or spelled out (`bytes:\\xf0`); none of
    these is an emoji.
    """
    try:
        return token.encode("utf-8")
    except UnicodeEncodeError:
        return None


def _logprob(value: Any, place: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise Malformed(f"{place} is no number but {_kind(value)}")
    if not value <= _ROUNDING:
        raise Malformed(f"{place} is {str(value)[:20]}, no logarithm of a probability")
    return float(max(value, -1e9))  # an integer may be too long for a float


def _choice(document: Any) -> dict[str, Any]:
    choices = _of(_of(document, dict, "the reply").get("choices"), list, "choices")
    if not choices:
        raise Malformed("choices is empty")
    return _of(choices[0], dict, "choices[0]")


def _of(value: Any, kind: type[Kind], place: str) -> Kind:
    if not isinstance(value, kind):
        raise Malformed(f"{place} is no {_KINDS[kind]} but {_kind(value)}")
    return value


def _text(row: dict[str, Any], name: str, place: str) -> str:
    return _of(row.get(name), str, place)


def _optional_text(row: dict[str, Any], name: str, place: str) -> str | None:
    return None if row.get(name) is None else _text(row, name, place)


def _kind(value: Any) -> str:
    return "missing" if value is None else type(value).__name__

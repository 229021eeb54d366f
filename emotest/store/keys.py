"""What an entry is called: a kind and the hash of everything that could change its content.

Takes an identity (plain JSON values), gives a `Key`; also says in what two identities differ.
Knows no files.

The hash is SHA-256 over the kind and the identity's canonical JSON: keys sorted by code point,
no spaces, UTF-8 unescaped, floats by their shortest round-trip form. Two identities share a key
only if they are the same JSON: `1`, `1.0` and `true` differ, a tuple and a list do not. What
could be read in two ways (NaN, keys that are not text, lone surrogates) is refused.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from emotest.errors import UsageError

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"

TITLE = "title"
"""The field of an identity that is for people only: kept beside the entry, never hashed."""

SHORT_DIGEST = 16
"""Hex digits that a key shows; 64 bits tell some hundred million entries apart."""

_KIND = re.compile(r"[a-z][a-z0-9_-]{0,39}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, order=True)
class Key:
    """The address of an entry: what sort of thing it is, and the SHA-256 of its identity.

    Both become names of folders, so `UsageError` is raised for anything but a short lower-case
    word and 64 hex digits.
    """

    kind: str
    digest: str

    def __post_init__(self) -> None:
        if not _KIND.fullmatch(self.kind):
            raise UsageError(
                f"{self.kind!r} cannot be the kind of a store entry",
                remedy="use a lower-case word of letters, digits, '-' and '_', such as 'adapter'",
            )
        if not _DIGEST.fullmatch(self.digest):
            raise UsageError(
                f"{self.digest!r} is not the digest of a store entry",
                remedy="make keys with key_of(kind, identity), or look one up with Store.find",
            )

    def __str__(self) -> str:
        return f"{self.kind}/{self.digest[:SHORT_DIGEST]}"


def file_stem(key: Key) -> str:
    """The whole key as (the beginning of) the name of a file."""
    return f"{key.kind}.{key.digest}"


def key_of_stem(name: str) -> Key:
    """The key in a name that begins with `file_stem`; `UsageError` where there is none."""
    kind, _, rest = name.partition(".")
    return Key(kind, rest.partition(".")[0])


def key_of(kind: str, identity: Mapping[str, object]) -> Key:
    """The key of the thing that `identity` describes.

    The identity holds everything that could change the content, as plain JSON values; its
    top-level field `title`, where there is one, is for people and left out of the hash.
    `UsageError` names the place of a value that has no single JSON form.
    """
    hashed = {name: value for name, value in identity.items() if name != TITLE}
    text = f"{kind}\n{canonical_json(plain(hashed, 'identity'))}"
    return Key(kind, hashlib.sha256(text.encode()).hexdigest())


def canonical_json(value: JSON) -> str:
    """The one spelling of a plain JSON value that is hashed."""
    return json.dumps(
        value, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":")
    )


def plain(value: object, place: str) -> JSON:
    """`value` in plain JSON types; `UsageError` names the `place` of what JSON cannot say.

    Mappings become dicts, tuples lists, and subclasses of the JSON types (a `StrEnum`, a
    `numpy.float64`) what they are subclasses of.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _plain_text(value, place)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise UsageError(
                f"{place} is {value}, which JSON does not know",
                remedy="write None, or a word, for what is not a number",
            )
        return float(value)
    if isinstance(value, Mapping):
        return {
            _plain_name(name, place): plain(part, f"{place}.{name}") for name, part in value.items()
        }
    if isinstance(value, list | tuple):
        return [plain(part, f"{place}[{index}]") for index, part in enumerate(value)]
    raise UsageError(
        f"{place} is a {type(value).__module__}.{type(value).__qualname__}, which JSON does not "
        "know",
        remedy="turn it into None, bool, int, float, str, or lists and dicts of these",
    )


def _plain_name(name: object, place: str) -> str:
    # json.dumps would write 1 and "1" alike, and two identities would share a key.
    if not isinstance(name, str):
        raise UsageError(
            f"{place} has the key {name!r}, which is not text", remedy="use text for every key"
        )
    return _plain_text(name, place)


def _plain_text(text: str, place: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"{place} holds half a character (a lone surrogate): {text!r}",
            remedy="hash such text first, and put the digest into the identity",
        ) from error
    return str.__str__(text)


@dataclass(frozen=True)
class Difference:
    """One place where two identities differ; a side that has no such place says `ABSENT`."""

    place: str
    ours: object
    theirs: object

    def __str__(self) -> str:
        return f"{self.place}: {self.ours!r} -> {self.theirs!r}"


class _Absent:
    def __repr__(self) -> str:
        return "(absent)"


ABSENT = _Absent()
"""The value of a place that one of two identities does not have."""


def identity_differences(
    ours: Mapping[str, object], theirs: Mapping[str, object]
) -> tuple[Difference, ...]:
    """Every place where two identities differ: why two keys are not one. Titles do not count."""
    return tuple(
        Difference(place, left, right)
        for place, left, right in _differences(ours, theirs, "")
        if place != TITLE
    )


def _differences(ours: object, theirs: object, place: str) -> Iterator[tuple[str, object, object]]:
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        for name in sorted({*ours, *theirs}):
            inner = f"{place}.{name}" if place else name
            yield from _differences(ours.get(name, ABSENT), theirs.get(name, ABSENT), inner)
    elif isinstance(ours, list | tuple) and isinstance(theirs, list | tuple):
        for index in range(max(len(ours), len(theirs))):
            left = ours[index] if index < len(ours) else ABSENT
            right = theirs[index] if index < len(theirs) else ABSENT
            yield from _differences(left, right, f"{place}[{index}]")
    elif _spelled(ours, place) != _spelled(theirs, place):
        yield place, ours, theirs


def _spelled(value: object, place: str) -> str | None:
    return None if value is ABSENT else canonical_json(plain(value, place))


__all__ = [
    "ABSENT",
    "JSON",
    "Difference",
    "Key",
    "canonical_json",
    "file_stem",
    "identity_differences",
    "key_of",
    "key_of_stem",
    "plain",
]

"""`Subject`: one grammar for every model that emotest is pointed at.

    organism:NAME                      a model organism that emotest ships
    ID  or  ID@REVISION                a model on the Hub
    ./folder                           a model on disk
    BASE+ADAPTER                       one of these with a LoRA adapter (folder or Hub id)
    http://host:port/v1#name           a served model
    ...?quantize=nf4&dtype=bfloat16    query options
    ...#name?api=completions           how a served model is asked: chat (default), completions

Text in, a frozen value out; nothing is looked up, loaded or downloaded here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import parse_qsl

from emotest.errors import UsageError

Kind = Literal["organism", "hub", "folder", "served"]

_OPTIONS = {
    "quantize": {"nf4", "none"},
    "dtype": {"float32", "bfloat16", "float16"},
    "template": {"on", "off"},
    "api": {"chat", "completions"},
}
_OF_SERVED = {"api"}
"""Options of served models, and of no others; a server decides the rest by itself."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+|[A-Za-z0-9][\w.-]*")
_REMEDY = (
    "write organism:NAME, a Hub id (ID or ID@REVISION), a folder (./model), BASE+ADAPTER, "
    "or http://host:port/v1#name, with options such as ?quantize=nf4&dtype=bfloat16"
)


@dataclass(frozen=True)
class Subject:
    """A model as the user named it. `str(subject)` gives the same subject again."""

    kind: Kind
    name: str
    revision: str | None = None
    adapter: str | None = None
    options: tuple[tuple[str, str], ...] = field(default=())

    @classmethod
    def parse(cls, text: str) -> Subject:
        """Read a subject string; `UsageError` says which part cannot be read."""
        stem, _, query = text.strip().partition("?")
        options = _options(query, text)
        if not stem:
            raise UsageError(f"the subject {text!r} names no model", remedy=_REMEDY)
        if stem.startswith(("http://", "https://")):
            address, _, name = stem.partition("#")
            if not name:
                raise UsageError(
                    f"the served model in {text!r} has no name",
                    remedy="add the model's name: http://host:port/v1#name",
                )
            _check_kind(options, text, allowed=_OF_SERVED, whom="a served model")
            return cls("served", f"{address}#{name}", options=options)
        _check_kind(options, text, allowed=set(_OPTIONS) - _OF_SERVED, whom="a local model")
        base, plus, adapter = stem.partition("+")
        if plus and not adapter:
            raise UsageError(f"the adapter after '+' in {text!r} is missing", remedy=_REMEDY)
        kind, name, revision = _base(base, text)
        return cls(kind, name, revision, adapter or None, options)

    def option(self, name: str, default: str) -> str:
        """The value of a query option."""
        return dict(self.options).get(name, default)

    @property
    def is_organism(self) -> bool:
        """Whether this is one of the organisms that emotest ships."""
        return self.kind == "organism"

    def __str__(self) -> str:
        stem = f"organism:{self.name}" if self.is_organism else self.name
        revision = f"@{self.revision}" if self.revision else ""
        adapter = f"+{self.adapter}" if self.adapter else ""
        query = "?" + "&".join(f"{k}={v}" for k, v in self.options) if self.options else ""
        return f"{stem}{revision}{adapter}{query}"


def _base(base: str, text: str) -> tuple[Kind, str, str | None]:
    if base.startswith("organism:"):
        name = base.removeprefix("organism:")
        if not name:
            raise UsageError(f"the organism in {text!r} has no name", remedy=_REMEDY)
        return "organism", name, None
    if base.startswith((".", "/", "~")) or base.endswith("/"):
        return "folder", base, None
    name, _, revision = base.partition("@")
    if not _HUB_ID.fullmatch(name):
        raise UsageError(f"{name!r} in the subject {text!r} is no Hub id", remedy=_REMEDY)
    return "hub", name, revision or None


def _check_kind(
    options: tuple[tuple[str, str], ...], text: str, *, allowed: set[str], whom: str
) -> None:
    for name, value in options:
        if name not in allowed:
            raise UsageError(
                f"{name}={value} in {text!r} is no option of {whom}",
                remedy=f"leave it out; {whom} has {', '.join(sorted(allowed))}",
            )


def _options(query: str, text: str) -> tuple[tuple[str, str], ...]:
    pairs = parse_qsl(query, keep_blank_values=True)
    for name, value in pairs:
        if name not in _OPTIONS:
            raise UsageError(
                f"the option {name!r} in {text!r} is not known",
                remedy=f"use one of {', '.join(sorted(_OPTIONS))}",
            )
        if value not in _OPTIONS[name]:
            raise UsageError(
                f"{name}={value!r} in {text!r} is not possible",
                remedy=f"use one of {', '.join(sorted(_OPTIONS[name]))}",
            )
    return tuple(sorted(pairs))

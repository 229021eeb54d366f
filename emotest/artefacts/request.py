"""What every artefact is by: a request, which names its result and what it stands on.

A request is a frozen value that says everything that could change its result, and so has its
store key before anything is computed. Whoever computes it (`emotest.workshop`, or a cluster)
needs nothing else. Knows no torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any, ClassVar

from emotest.store import Key, key_of


class Request(ABC):
    """One artefact of a study, named before it exists."""

    kind: ClassVar[str]
    """The first part of its key."""
    plural: ClassVar[str]
    """What a person calls several of them: `sets of answers`."""

    @property
    @abstractmethod
    def needs(self) -> tuple[Request, ...]:
        """The artefacts that it is made from."""

    @property
    def leaves(self) -> tuple[Request, ...]:
        """Other artefacts that come about while it is made, and are stored then as well."""
        return ()

    @property
    @abstractmethod
    def identity(self) -> Mapping[str, Any]:
        """All that could change the result, as plain JSON values."""

    @property
    @abstractmethod
    def title(self) -> str:
        """What a person calls it."""

    @property
    @abstractmethod
    def tokens(self) -> float:
        """Tokens that a model reads or writes to make it, roughly: for estimates of time."""

    @cached_property
    def key(self) -> Key:
        """The address in the store."""
        return key_of(self.kind, self.identity)


class Training(Request):
    """A request whose tokens are trained on, three times as dear as tokens that are read."""


class Intervention(ABC):
    """What acts on a model while it answers, beside its adapter: a dose, a direction, a prefix."""

    @property
    def training_seed(self) -> int | None:
        """The seed of what it acts with, where that was trained; None otherwise."""
        return None

    @property
    @abstractmethod
    def needs(self) -> tuple[Request, ...]:
        """The artefacts that it acts with."""

    @property
    @abstractmethod
    def identity(self) -> Mapping[str, Any]:
        """All that could change how it acts, as plain JSON values."""

    @property
    @abstractmethod
    def title(self) -> str:
        """What a person calls it; equal ones act alike within one artefact's arm."""


def in_order(requests: Iterable[Request]) -> Iterator[Request]:
    """Every request once, each after all that it stands on."""
    seen: set[Key] = set()

    def visit(request: Request) -> Iterator[Request]:
        if request.key in seen:
            return
        seen.add(request.key)
        for needed in request.needs:
            yield from visit(needed)
        yield request

    for request in requests:
        yield from visit(request)

"""What a worker tells while it works, in plain values that cross process borders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from emotest.errors import EmotestError


@dataclass(frozen=True)
class Progress:
    """`done` of `total` units of one request, with a note such as the loss."""

    title: str
    state: Literal["started", "working", "done"]
    done: int = 0
    total: int = 0
    note: str = ""


@dataclass(frozen=True)
class Failure:
    """Why a request could not be carried out."""

    title: str
    error: EmotestError


Message = Progress | Failure
OnProgress = Callable[[Progress], None]

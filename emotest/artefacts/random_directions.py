"""What steering is held against: answers along many random directions of the same length.

One of them is an anecdote: the rank of a trait's direction among 99 is a test. Knows no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from emotest.artefacts.directions import Steered
from emotest.artefacts.request import Request
from emotest.artefacts.study import GenerationRequest
from emotest.errors import UsageError

RANDOM_DIRECTIONS_VERSION = 1
"""Raised whenever how directions are drawn, or what is kept of the answers, changes its meaning."""

ANSWERS_FILE = "answers.jsonl"


@dataclass(frozen=True)
class RandomDirectionsRequest(Request):
    """The answers of `text`, one to each prompt, along each of `n_directions` random directions.

    Direction i is the one that `Steered` draws with i as its seed: of the length that the trait's
    has in its layer, and added `steered.coefficient` times. `text` is never made itself.
    """

    kind: ClassVar[str] = "random-directions"
    plural: ClassVar[str] = "sets of answers along random directions"

    text: GenerationRequest
    steered: Steered
    n_directions: int

    def __post_init__(self) -> None:
        if self.text.under is not None or self.text.n_samples != 1 or self.n_directions < 1:
            raise UsageError(
                "random directions steer one plain answer to each prompt",
                remedy="give answers on which nothing acts, one sample of each, and at least one "
                "direction",
            )

    @property
    def needs(self) -> tuple[Request, ...]:
        """The adapter that answers, if there is one, and the direction that gives the length."""
        return (*self.text.needs, *self.steered.needs)

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """What the key is made of."""
        return {
            "random_directions_version": RANDOM_DIRECTIONS_VERSION,
            "text": self.text.key.digest,
            "steered": dict(self.steered.identity),
            "n_directions": self.n_directions,
        }

    @property
    def title(self) -> str:
        """What a person calls it."""
        act = f"{self.steered.coefficient:+g} along {self.n_directions} random directions"
        return f"{self.text.title}, {act} as long as that of {self.steered.direction.trait}"

    @property
    def tokens(self) -> float:
        """New tokens of all answers at their limit."""
        return self.n_directions * self.text.tokens


__all__ = ["ANSWERS_FILE", "RANDOM_DIRECTIONS_VERSION", "RandomDirectionsRequest"]

"""What an audit that looks inside rests on: shapes, directions and readings of local models.

Requests only: frozen values that name a result before it exists. The texts, and the places in
them that count, are part of the requests; what the numbers mean is said in `emotest.audit.inside`.
Knows no torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from emotest.artefacts.audit import AuditedRequest
from emotest.artefacts.study import TOKENS_OF_A_TEXT
from emotest.study.personality import Trait
from emotest.study.recipes import library_versions
from emotest.study.records import Prompt, prompts_digest

INSIDE_VERSION = 1
"""Raised whenever directions, states or units change their meaning."""

ANATOMY_FILE = "anatomy.json"
DIRECTIONS_FILE = "directions.safetensors"
READING_FILE = "reading.safetensors"
MASSIVE_FILE = "massive.json"
"""What the entries hold; named here, because whoever reads them shall not load torch."""


@dataclass(frozen=True)
class AnatomyRequest(AuditedRequest):
    """Layers, width and FFN units of a model, or why they cannot be told."""

    kind: ClassVar[str] = "audited-anatomy"
    plural: ClassVar[str] = "shapes of models"

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """What the key is made of."""
        return {
            "inside_version": INSIDE_VERSION,
            "model": self.model.digest,
            "libraries": library_versions(),
        }

    @property
    def title(self) -> str:
        """What a person calls it."""
        return f"shape of {self.role}"

    @property
    def tokens(self) -> float:
        """None: nothing is read."""
        return 0.0


@dataclass(frozen=True)
class Contrast:
    """Answers of one model in a trait's character and against it, emoji stripped.

    `positive` and `negative` pair by place: (prompt with its system prompt, answer).
    """

    trait: Trait
    positive: tuple[tuple[Prompt, str], ...]
    negative: tuple[tuple[Prompt, str], ...]


@dataclass(frozen=True)
class ContrastsRequest(AuditedRequest):
    """How far the states of a model lie apart, trait by trait, when it answers in character."""

    kind: ClassVar[str] = "audited-directions"
    plural: ClassVar[str] = "sets of trait directions"

    contrasts: tuple[Contrast, ...]
    layer: int
    """The layer in which differences are kept prompt by prompt; means are kept in all."""

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """What the key is made of."""
        sides = [(str(one.trait), one.positive, one.negative) for one in self.contrasts]
        return {
            "inside_version": INSIDE_VERSION,
            "model": self.model.digest,
            "contrasts": [[trait, _digest(pos), _digest(neg)] for trait, pos, neg in sides],
            "layer": self.layer,
            "libraries": library_versions(),
        }

    @property
    def title(self) -> str:
        """What a person calls it."""
        return f"trait directions of {self.role}"

    @property
    def tokens(self) -> float:
        """Tokens of the answers with their prompts."""
        return TOKENS_OF_A_TEXT * sum(2 * len(one.positive) for one in self.contrasts)


@dataclass(frozen=True)
class InsideText:
    """One answer that both models read, emoji stripped; `ends` are where its sentences end,
    in characters, those that a limit cut left out."""

    prompt: Prompt
    answer: str
    ends: tuple[int, ...]


@dataclass(frozen=True)
class ReadingRequest(AuditedRequest):
    """States and FFN units of one model while it reads given texts, by prompt.

    Texts of one prompt (by its id) are averaged; prompts keep the order in which they first come.
    """

    kind: ClassVar[str] = "audited-reading"
    plural: ClassVar[str] = "readings"

    texts: tuple[InsideText, ...]

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """What the key is made of."""
        return {
            "inside_version": INSIDE_VERSION,
            "model": self.model.digest,
            "texts": _digest((text.prompt, text.answer) for text in self.texts),
            "prompts": [text.prompt.id for text in self.texts],
            "ends": [list(text.ends) for text in self.texts],
            "libraries": library_versions(),
        }

    @property
    def title(self) -> str:
        """What a person calls it."""
        return f"{self.role} reads {len(self.texts)} texts"

    @property
    def tokens(self) -> float:
        """Tokens of the texts with their prompts."""
        return len(self.texts) * TOKENS_OF_A_TEXT


def _digest(answered: Iterable[tuple[Prompt, str]]) -> str:
    """SHA-256 over prompts and answers, in order."""
    pairs = list(answered)
    answers = json.dumps([answer for _, answer in pairs], ensure_ascii=False)
    text = f"{prompts_digest(prompt for prompt, _ in pairs)}\n{answers}"
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

"""What an audit rests on: answers of a model as it is, and P(emoji) behind given texts.

The model is anybody's: a base, or a base with an adapter that somebody else trained. Nothing is
trained here, so a request names the adapter by the place and the digest of its files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Literal

from emotest.artefacts.request import Request
from emotest.artefacts.study import (
    GENERATION_VERSION,
    PROBABILITY_VERSION,
    TOKENS_OF_A_TEXT,
)
from emotest.study.recipes import library_versions
from emotest.study.records import Decoding, Prompt, prompts_digest

ANSWERS_FILE = "generations.jsonl"
PROBABILITIES_FILE = "probabilities.safetensors"
"""What the entries hold; named here, because whoever reads them shall not load torch."""

Place = Literal["answer start", "sentence end", "answer end"]


@dataclass(frozen=True)
class AuditedModel:
    """A model that is audited: how it was named, the digest of what it is pinned to, and the
    folder of its adapter, if it has one beside its base."""

    subject: str
    digest: str
    adapter: str | None = None


@dataclass(frozen=True)
class AuditedRequest(Request):
    """Something that one model of an audit is asked. Texts are part of it and the model is there
    already, so it stands on no other artefact."""

    model: AuditedModel
    role: str = field(default="model", kw_only=True)
    """base or tuned: what a person calls the model; no part of the identity."""

    @property
    def needs(self) -> tuple[Request, ...]:
        """Nothing."""
        return ()


@dataclass(frozen=True)
class AuditAnswersRequest(AuditedRequest):
    """Answers of one model to a batch of prompts, `n_samples` each."""

    kind: ClassVar[str] = "audited"
    plural: ClassVar[str] = "batches of answers"

    prompts: tuple[Prompt, ...]
    decoding: Decoding
    n_samples: int
    sampling_seed: int

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """What the key is made of."""
        decoding = asdict(self.decoding)
        del decoding["name"]
        return {
            "generation_version": GENERATION_VERSION,
            "model": self.model.digest,
            "prompts": prompts_digest(self.prompts),
            "decoding": decoding,
            "n_samples": self.n_samples,
            "sampling_seed": self.sampling_seed,
            "libraries": library_versions(),
        }

    @property
    def title(self) -> str:
        """What a person calls it."""
        return f"{self.role} answers {len(self.prompts)} prompts, {self.decoding.name}"

    @property
    def tokens(self) -> float:
        """New tokens of all answers at their limit."""
        return len(self.prompts) * self.n_samples * self.decoding.max_new_tokens


@dataclass(frozen=True)
class Spot:
    """A place at which P(emoji) is asked: behind `so_far`, the beginning of an answer to `prompt`.

    `so_far` is empty at the start of an answer; emoji are stripped from it.
    """

    prompt: Prompt
    place: Place
    so_far: str


@dataclass(frozen=True)
class SpotsRequest(AuditedRequest):
    """P(next visible grapheme is an emoji) at each spot, by one model."""

    kind: ClassVar[str] = "audited-probabilities"
    plural: ClassVar[str] = "sets of probabilities"

    spots: tuple[Spot, ...]

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """What the key is made of."""
        texts = json.dumps([spot.so_far for spot in self.spots])
        return {
            "probability_version": PROBABILITY_VERSION,
            "model": self.model.digest,
            "prompts": prompts_digest(spot.prompt for spot in self.spots),
            "texts": hashlib.sha256(texts.encode()).hexdigest(),
            "libraries": library_versions(),
        }

    @property
    def title(self) -> str:
        """What a person calls it."""
        return f"P(emoji) of {self.role} at {len(self.spots)} places"

    @property
    def tokens(self) -> float:
        """Tokens of the contexts, once."""
        return len(self.spots) * TOKENS_OF_A_TEXT

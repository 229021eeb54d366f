"""What a study computes, named before it exists: adapters, answers, emoji probabilities.

A request is a frozen value that says everything that could change its result, and so has its
store key before anything is computed; it also names the requests that it stands on. Whoever
computes them (`emotest.models.workshop`, or a cluster) needs nothing else. Knows no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

from emotest.store import Key, key_of
from emotest.study.personality import Condition
from emotest.study.recipes import AdapterRecipe, library_versions
from emotest.study.records import Decoding, Prompt, TuningRow, prompts_digest

GENERATION_VERSION = 1
"""Raised whenever sampling, batch shapes or the record of an answer change their meaning."""

PROBABILITY_VERSION = 1
"""Raised whenever contexts, events or bounds of P(emoji) change their meaning."""

Event = Literal["emoji", "exclamation", "quotation"]
"""What the next visible grapheme may be: the emoji of C5, and its two control sets."""


@dataclass(frozen=True)
class AdapterRequest:
    """An adapter, by its recipe and the rows that the recipe's data digest stands for."""

    recipe: AdapterRecipe
    rows: tuple[TuningRow, ...]

    @property
    def needs(self) -> tuple[Request, ...]:
        """An adapter stands on the base and its data alone."""
        return ()

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """What the key is made of."""
        return self.recipe.identity()

    @cached_property
    def key(self) -> Key:
        """The address in the store."""
        return key_of("adapter", self.identity)

    @property
    def title(self) -> str:
        """What a person calls it."""
        return f"adapter {self.recipe.condition.title}, seed {self.recipe.training_seed}"


@dataclass(frozen=True)
class GenerationRequest:
    """Answers to `prompts`, `n_samples` each, by the base with or without an adapter."""

    base: str
    chat_template: str
    condition: Condition
    adapter: AdapterRequest | None
    prompts: tuple[Prompt, ...]
    decoding: Decoding
    n_samples: int
    sampling_seed: int
    batch_size: int = 64
    """Rows of the canonical batch: across shapes an answer may differ in a rare token."""
    what: str = "answers"
    """What a person calls the answers; no part of the identity, which holds the prompts."""

    @property
    def training_seed(self) -> int | None:
        """The adapter's training seed, None without an adapter."""
        return self.adapter.recipe.training_seed if self.adapter else None

    @property
    def needs(self) -> tuple[Request, ...]:
        """The adapter that answers, if there is one."""
        return (self.adapter,) if self.adapter else ()

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """What the key is made of."""
        decoding = asdict(self.decoding)
        del decoding["name"]
        return {
            "generation_version": GENERATION_VERSION,
            "base": self.base,
            "chat_template": self.chat_template,
            "condition": str(self.condition),
            "adapter": self.adapter.key.digest if self.adapter else None,
            "prompts": prompts_digest(self.prompts),
            "decoding": decoding,
            "n_samples": self.n_samples,
            "sampling_seed": self.sampling_seed,
            "batch_size": self.batch_size,
            "libraries": library_versions(),
        }

    @cached_property
    def key(self) -> Key:
        """The address in the store."""
        return key_of("generations", self.identity)

    @property
    def title(self) -> str:
        """What a person calls it."""
        seed = "" if self.training_seed is None else f", seed {self.training_seed}"
        return f"{self.what} {self.condition.title}{seed}, {self.decoding.name}"


@dataclass(frozen=True)
class FixedText:
    """Answers that no model of the study wrote, the same for all weights.

    `answers[i]` answers `prompts[i]`; an empty one stands for the place where an answer starts.
    """

    name: str
    base: str
    chat_template: str
    prompts: tuple[Prompt, ...]
    answers: tuple[str, ...]

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """What decides the contexts."""
        return {
            "base": self.base,
            "chat_template": self.chat_template,
            "prompts": prompts_digest(self.prompts),
            "answers": list(self.answers),
        }


@dataclass(frozen=True)
class ProbabilityRequest:
    """P(event) at the ends of sentences 1 to `sentence_ends` of the answers of `text`.

    One cell of the 2x2 of text by weights: the contexts are the emoji-stripped first samples of
    `text`, the model is the base with `weights` (None: untuned). A fixed text is a row of its own.
    """

    text: GenerationRequest | FixedText
    weights: AdapterRequest | None
    event: Event = "emoji"
    n_prompts: int = 30
    sentence_ends: int = 3

    @property
    def needs(self) -> tuple[Request, ...]:
        """The answers that give the contexts, and the adapter whose weights are asked."""
        sampled = (self.text,) if isinstance(self.text, GenerationRequest) else ()
        return (*sampled, self.weights) if self.weights else sampled

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """What the key is made of."""
        return {
            "probability_version": PROBABILITY_VERSION,
            "text": self.text.key.digest
            if isinstance(self.text, GenerationRequest)
            else dict(self.text.identity),
            "weights": self.weights.key.digest if self.weights else None,
            "event": self.event,
            "n_prompts": self.n_prompts,
            "sentence_ends": self.sentence_ends,
            "libraries": library_versions(),
        }

    @cached_property
    def key(self) -> Key:
        """The address in the store."""
        return key_of("probabilities", self.identity)

    @property
    def title(self) -> str:
        """What a person calls it."""
        weights = self.weights.recipe.condition.title if self.weights else "untuned"
        seed = self.weights.recipe.training_seed if self.weights else None
        if isinstance(self.text, FixedText):
            text = self.text.name
        else:
            text = f"{self.text.condition.title} text"
            seed = self.text.training_seed if seed is None else seed
        tail = "" if seed is None else f", seed {seed}"
        return f"P({self.event}): {text}, {weights} weights{tail}"


Request = AdapterRequest | GenerationRequest | ProbabilityRequest


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

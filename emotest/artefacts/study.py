"""What C1 to C5 rest on: adapters, answers, emoji probabilities.

Answers and probabilities may be taken under an `Intervention`, and then the claims about
mechanisms rest on them too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

from emotest.artefacts.request import Intervention, Request, Training
from emotest.study.personality import Condition
from emotest.study.recipes import AdapterRecipe, library_versions
from emotest.study.records import Decoding, Prompt, TuningRow, prompts_digest

GENERATION_VERSION = 1
"""Raised whenever sampling, batch shapes or the record of an answer change their meaning."""

PROBABILITY_VERSION = 1
"""Raised whenever contexts, events or bounds of P(emoji) change their meaning."""

TOKENS_OF_A_TEXT = 60
"""Question, answer and template of one opinion; near enough for every tokenizer."""

Event = Literal["emoji", "exclamation", "quotation"]
"""What the next visible grapheme may be: the emoji of C5, and its two control sets."""


@dataclass(frozen=True)
class AdapterRequest(Training):
    """An adapter, by its recipe and the rows that the recipe's data digest stands for."""

    kind: ClassVar[str] = "adapter"
    plural: ClassVar[str] = "adapters"

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

    @property
    def title(self) -> str:
        """What a person calls it."""
        return f"adapter {self.recipe.condition.title}, seed {self.recipe.training_seed}"

    @property
    def tokens(self) -> float:
        """Tokens of all rows that are trained on, each as often as it is."""
        return self.recipe.rows_seen(len(self.rows)) * TOKENS_OF_A_TEXT


@dataclass(frozen=True)
class GenerationRequest(Request):
    """Answers to `prompts`, `n_samples` each, by the base with or without an adapter."""

    kind: ClassVar[str] = "generations"
    plural: ClassVar[str] = "sets of answers"

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
    under: Intervention | None = None

    @property
    def training_seed(self) -> int | None:
        """The seed of the adapter or of what acts in its place; None where nothing was trained."""
        if self.adapter:
            return self.adapter.recipe.training_seed
        return self.under.training_seed if self.under else None

    @property
    def needs(self) -> tuple[Request, ...]:
        """The adapter that answers, if there is one, and what the intervention acts with."""
        adapter = (self.adapter,) if self.adapter else ()
        return (*adapter, *(self.under.needs if self.under else ()))

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
            **_acting(self.under),
        }

    @property
    def title(self) -> str:
        """What a person calls it."""
        seed = "" if self.training_seed is None else f", seed {self.training_seed}"
        return f"{self.what} {self.arm}{seed}, {self.decoding.name}"

    @property
    def arm(self) -> str:
        """The condition in words, with what acts beside its adapter."""
        return f"{self.condition.title}, {self.under.title}" if self.under else self.condition.title

    @property
    def tokens(self) -> float:
        """New tokens of all answers at their limit; what is read beside them is little."""
        return len(self.prompts) * self.n_samples * self.decoding.max_new_tokens


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
class ProbabilityRequest(Request):
    """P(event) at the ends of sentences 1 to `sentence_ends` of the answers of `text`.

    One cell of the 2x2 of text by weights: the contexts are the emoji-stripped first samples of
    `text`, the model is the base with `weights` (None: untuned). A fixed text is a row of its own.
    """

    kind: ClassVar[str] = "probabilities"
    plural: ClassVar[str] = "sets of probabilities"

    text: GenerationRequest | FixedText
    weights: AdapterRequest | None
    event: Event = "emoji"
    n_prompts: int = 30
    sentence_ends: int = 3
    under: Intervention | None = None

    @property
    def needs(self) -> tuple[Request, ...]:
        """The answers that give the contexts, the adapter that is asked, and what acts on it."""
        sampled = (self.text,) if isinstance(self.text, GenerationRequest) else ()
        asked = (*sampled, self.weights) if self.weights else sampled
        return (*asked, *(self.under.needs if self.under else ()))

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
            **_acting(self.under),
        }

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
        acting = f", {self.under.title}" if self.under else ""
        return f"P({self.event}): {text}, {weights} weights{acting}{tail}"

    @property
    def tokens(self) -> float:
        """Tokens of the contexts, once; the paths behind them cost a few times as much."""
        return self.n_prompts * self.sentence_ends * TOKENS_OF_A_TEXT


def _acting(intervention: Intervention | None) -> dict[str, Any]:
    # Absent where nothing acts, so that the keys of plain answers are what they always were.
    return {"under": dict(intervention.identity)} if intervention else {}

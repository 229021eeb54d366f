"""What C9 rests on: answers at other scales of an adapter, and activations patched across models.

`Scaled` lets answers be sampled at a factor of the adapter's own scale. A `PatchingRequest` stands
for P(emoji) while one layer of one model is another's, and `Patched` reads it back. Knows no
torch: names, files and arithmetic only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from emotest.artefacts.request import Intervention, Request
from emotest.artefacts.study import TOKENS_OF_A_TEXT, AdapterRequest, GenerationRequest
from emotest.store import Entry
from emotest.study.recipes import library_versions

Array = NDArray[np.float64]
Weights = Literal["untuned", "tuned", "null"]
"""Whose weights: the base, the trait's adapter, or the null adapter of the same seed."""
Text = Literal["untuned", "tuned"]
"""Whose words: the first answers of the base, or of the trait's adapter."""

PATCHING_VERSION = 2
"""Raised whenever contexts, sites or bounds of the patched P(emoji) change their meaning."""

READINGS = 20
"""How often each context is read, roughly: two sites of an organism's three layers, from two
sources at one text and one at the other. How many layers a model has is known only where it is
loaded; with `MOST_LAYERS` or more it is four times as often, and so is the time that a plan
foretells."""

MOST_LAYERS = 12
"""Layers that are patched at most: on a model of 32 layers all of them would take a day."""

CONTEXTS_FILE = "contexts.jsonl"
ARRAYS_FILE = "patched.safetensors"
ABOUT_FILE = "about.json"

LEAST = 1e-12
"""Probabilities are kept so far from 0 and 1, so that their log-odds are numbers."""
WIDEST = float(-np.log(LEAST))
"""No log-odds lie further from 0 than this."""


def declared_layer(n_layers: int) -> int:
    """The layer at which the claim is decided, from 0: the middle one, chosen beforehand."""
    return n_layers // 2


def patched_layers(n_layers: int) -> tuple[int, ...]:
    """The layers that are patched, from 0, ascending: all, or `MOST_LAYERS` at most.

    Evenly spaced from the first to the last, and the declared one in any case.
    """
    if n_layers <= MOST_LAYERS:
        return tuple(range(n_layers))
    even = np.linspace(0, n_layers - 1, MOST_LAYERS - 1).round().astype(int).tolist()
    return tuple(sorted({*even, declared_layer(n_layers)}))


@dataclass(frozen=True)
class Scaled(Intervention):
    """The adapter that answers, at `factor` times its own scale: 0 is the base, 1 the adapter."""

    factor: float

    @property
    def needs(self) -> tuple[Request, ...]:
        """Nothing but the adapter that answers anyway."""
        return ()

    @property
    def identity(self) -> Mapping[str, Any]:
        """The factor."""
        return {"kind": "scaled", "factor": self.factor}

    @property
    def title(self) -> str:
        """What a person calls it."""
        return f"scale {self.factor:g}"


@dataclass(frozen=True)
class PatchingRequest(Request):
    """P(emoji) at two texts while one layer after the other is that of another model.

    The contexts are ends of sentences 1 to `sentence_ends` of the first samples of either text,
    emoji stripped, for the first `n_prompts` prompts. `null` has the training seed of `tuned`.
    """

    kind: ClassVar[str] = "patching"
    plural: ClassVar[str] = "sets of patched probabilities"

    untuned_text: GenerationRequest
    tuned_text: GenerationRequest
    tuned: AdapterRequest
    null: AdapterRequest
    n_prompts: int
    sentence_ends: int = 3

    @property
    def needs(self) -> tuple[Request, ...]:
        """Both texts and both adapters."""
        return (self.untuned_text, self.tuned_text, self.tuned, self.null)

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """What the key is made of."""
        return {
            "patching_version": PATCHING_VERSION,
            "untuned_text": self.untuned_text.key.digest,
            "tuned_text": self.tuned_text.key.digest,
            "tuned": self.tuned.key.digest,
            "null": self.null.key.digest,
            "n_prompts": self.n_prompts,
            "sentence_ends": self.sentence_ends,
            "libraries": library_versions(),
        }

    @property
    def title(self) -> str:
        """What a person calls it."""
        recipe = self.tuned.recipe
        return f"patching {recipe.condition.title}, seed {recipe.training_seed}"

    @property
    def tokens(self) -> float:
        """Tokens of the contexts of both texts, as often as they are read."""
        return 2 * self.n_prompts * self.sentence_ends * TOKENS_OF_A_TEXT * READINGS


@dataclass(frozen=True)
class Measured:
    """One state in which P(emoji) was asked at the contexts of `text`.

    `target` has the weights; `source`, where there is one, lent the activations of `site` after
    `layer`, at the last token of each context.
    """

    text: Text
    target: Weights
    source: Weights | None = None
    site: Literal["neurons", "residual"] | None = None
    layer: int | None = None


@dataclass(frozen=True, eq=False)
class Patched:
    """What one `PatchingRequest` left: P(emoji) at every context in every state measured.

    `prompt_ids` names by text the prompt of each context; `probability` and `bound` are
    (n_contexts,) by state: the truth lies in [probability, probability + bound].
    """

    n_layers: int
    prompt_ids: Mapping[str, tuple[str, ...]]
    probability: Mapping[Measured, Array]
    bound: Mapping[Measured, Array]

    @classmethod
    def of(cls, entry: Entry) -> Patched:
        """What an entry of patching holds."""
        about, arrays = entry.read_json(ABOUT_FILE), entry.read_arrays(ARRAYS_FILE)
        prompt_ids: dict[str, tuple[str, ...]] = dict.fromkeys(about["measured"], ())
        for row in entry.read_jsonl(CONTEXTS_FILE):
            prompt_ids[row["text"]] += (row["prompt_id"],)
        states = [
            (Measured(text, **state), text, i)
            for text, told in about["measured"].items()
            for i, state in enumerate(told)
        ]
        return cls(
            int(about["n_layers"]),
            prompt_ids,
            {state: arrays[f"{text}_probability"][i] for state, text, i in states},
            {state: arrays[f"{text}_bound"][i] for state, text, i in states},
        )

    @property
    def declared_layer(self) -> int:
        """The layer at which the claim is decided, from 0."""
        return declared_layer(self.n_layers)

    def log_odds(self, state: Measured, share: float = 0.5) -> Array:
        """Log-odds of an emoji by prompt, mean over its contexts: (n_prompts,), first seen first.

        `share` of the mass that was left open is counted as emoji: with 0 and 1 the log-odds are
        the ends between which the truth lies, and with one half they stand for both.
        """
        counted = self.probability[state] + self.bound[state] * share
        counted = np.clip(counted, LEAST, 1 - LEAST)
        values = np.log(counted) - np.log1p(-counted)
        prompt_ids = np.array(self.prompt_ids[state.text], dtype=object)
        order = list(dict.fromkeys(self.prompt_ids[state.text]))
        return np.array([values[prompt_ids == one].mean() for one in order], dtype=np.float64)

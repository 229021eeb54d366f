"""What C11 rests on: a prefix conditioned on trait values, what acts with it, its layers removed.

Requests and an intervention, named before they exist. Knows no torch and no model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

from emotest.artefacts.request import Intervention, Request, Training
from emotest.artefacts.study import TOKENS_OF_A_TEXT, GenerationRequest
from emotest.errors import UsageError
from emotest.study.personality import Trait
from emotest.study.recipes import AdapterRecipe
from emotest.study.records import TuningRow

PREFIX_VERSION = 1
"""Raised whenever training a prefix changes what a request means."""

REMOVAL_VERSION = 1
"""Raised whenever the choice of the layers, or what is written of them, changes."""


@dataclass(frozen=True)
class PrefixRequest(Training):
    """A prefix by its recipe, the rows, and whose answer each row is.

    `trait_values[i]` are the values of `traits` of whoever answers in row i. `with_lora` trains a
    LoRA of the recipe beside the map, which learns at `prefix_rate` times the recipe's rate.
    """

    kind: ClassVar[str] = "prefix"
    plural: ClassVar[str] = "prefixes"

    recipe: AdapterRecipe
    rows: tuple[TuningRow, ...]
    traits: tuple[Trait, ...]
    trait_values: tuple[tuple[float, ...], ...]
    with_lora: bool = False
    prefix_rate: float = 1.0

    @property
    def needs(self) -> tuple[Request, ...]:
        """A prefix stands on the base and its data alone."""
        return ()

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """What the key is made of; the rows are in the recipe's data digest."""
        values = json.dumps(self.trait_values).encode()
        return {
            "prefix_version": PREFIX_VERSION,
            "recipe": dict(self.recipe.identity()),
            "traits": [str(trait) for trait in self.traits],
            "trait_values": hashlib.sha256(values).hexdigest(),
            "with_lora": self.with_lora,
            "prefix_rate": self.prefix_rate,
        }

    @property
    def arm(self) -> str:
        """What was trained, in words."""
        return "map and LoRA" if self.with_lora else "map alone"

    @property
    def title(self) -> str:
        """What a person calls it."""
        return f"prefix, {self.arm}, seed {self.recipe.training_seed}"

    @property
    def tokens(self) -> float:
        """Tokens of all rows that are trained on, each as often as it is."""
        return self.recipe.rows_seen(len(self.rows)) * TOKENS_OF_A_TEXT


@dataclass(frozen=True)
class Prefixed(Intervention):
    """The model behind a prefix at trait `values` (0 for a trait that is not named).

    The LoRA that was trained beside the map acts too. `without_layers` (from 0) have no prefix.
    """

    prefix: PrefixRequest
    values: Mapping[Trait, float]
    without_layers: tuple[int, ...] = ()

    @property
    def training_seed(self) -> int:
        """The seed of the prefix."""
        return self.prefix.recipe.training_seed

    @property
    def needs(self) -> tuple[Request, ...]:
        """The prefix."""
        return (self.prefix,)

    @property
    def identity(self) -> Mapping[str, Any]:
        """All that could change how it acts."""
        return {
            "intervention": "prefix",
            "prefix": self.prefix.key.digest,
            "values": {str(trait): float(value) for trait, value in self.values.items()},
            "without_layers": list(self.without_layers),
        }

    @property
    def title(self) -> str:
        """What a person calls it."""
        at = ", ".join(f"{trait} {value:+g}" for trait, value in self.values.items())
        without = ", ".join(map(str, self.without_layers))
        tail = f", without layer {without}" if self.without_layers else ""
        return f"prefix ({self.prefix.arm}) at {at or 'all 0'}{tail}"


@dataclass(frozen=True)
class RemovalRequest(Request):
    """The answers of a request under a `Prefixed`, once for each layer without its prefix.

    At most `most` layers, evenly spaced from the first to the last: how many a model has is known
    only where it is loaded. `UsageError` for answers that no prefix acts on.
    """

    kind: ClassVar[str] = "prefix-removals"
    plural: ClassVar[str] = "sets of answers without a layer's prefix"

    answers: GenerationRequest
    most: int = 8

    def __post_init__(self) -> None:
        if not isinstance(self.answers.under, Prefixed) or self.most < 1:
            raise UsageError(
                f"no prefix to remove from {self.answers.title} in {self.most} layers",
                remedy="give answers under a Prefixed, and 1 layer or more",
            )

    def without(self, layer: int) -> GenerationRequest:
        """The answers that are asked for, with the prefix taken out of one layer."""
        assert isinstance(self.answers.under, Prefixed)
        under = replace(self.answers.under, without_layers=(layer,))
        return replace(self.answers, under=under)

    @property
    def needs(self) -> tuple[Request, ...]:
        """The prefix whose layers are removed."""
        return self.answers.needs

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """What the key is made of."""
        return {
            "removal_version": REMOVAL_VERSION,
            "answers": self.answers.key.digest,
            "most": self.most,
        }

    @property
    def title(self) -> str:
        """What a person calls it."""
        return f"{self.answers.title}, layers without it"

    @property
    def tokens(self) -> float:
        """New tokens of the answers of every layer, were there as many as are asked for."""
        return self.most * self.answers.tokens

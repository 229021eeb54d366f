"""What C10 rests on: trait directions, steered answers, monitored trainings, states and scores.

Requests and interventions only: frozen values that name a result before it exists. Where a
direction lies, what a training looked like and how far an adapter moved stands in the files of
their entries. Knows no torch.

Source: persona vectors (Chen et al., arXiv 2507.21509).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import ceil
from typing import Any, ClassVar

from emotest.artefacts.request import Intervention, Request, Training
from emotest.artefacts.scorer import ScorerRows
from emotest.artefacts.study import (
    PROBABILITY_VERSION,
    TOKENS_OF_A_TEXT,
    AdapterRequest,
    FixedText,
    GenerationRequest,
)
from emotest.errors import UsageError
from emotest.study.personality import Trait
from emotest.study.recipes import library_versions
from emotest.study.records import Decoding, Prompt, TuningRow, prompts_digest, rows_digest

DIRECTION_VERSION = 2
"""Raised whenever extraction, filtering or the choice of the layer change their meaning."""

SCORES_VERSION = 1
"""Raised whenever trait expression or likelihood of an answer change their meaning."""

MONITOR_VERSION = 2
"""Raised whenever checkpoints, the monitor or preventative steering change their meaning."""

STATES_VERSION = 1
"""Raised whenever states of prompts or of tuning rows change their meaning."""

COEFFICIENT = 2.0
"""How often a direction is added to answers, at the length that the difference has. The published
code steers answers by 2. Tried on the shipped organism: at 1 its expression of the trait did not
change; at 2 nine in ten steered answers still came to an end, but words repeat in many of them."""

PREVENTION = 5.0
"""How often a direction is added during tuning, which learns to make up for it: as published."""

SAMPLES_OF_A_PROMPT = 4
"""Answers of one prompt and side that a direction is extracted from: more change it little."""

LAYERS_FILE = "layers.json"
STATES_FILE = "states.safetensors"
SCORES_FILE = "scores.safetensors"
MONITOR_FILE = "monitor.json"

DOSES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
"""Shares of the steps over which emoji and shift are held together, each twice the one before. In
quarters, as first registered, most of the emoji had come before the first of them."""


def distinct_doses(steps: int) -> dict[float, int]:
    """The step that each of `DOSES` stands for in a training of so many: rounded up, no two alike,
    and never the first, in which a schedule that warms up from 0 changes nothing. Only where there
    are no more steps than doses do the last ones share the last step."""
    return {
        dose: min(steps, max(ceil(dose * steps), number))
        for number, dose in enumerate(DOSES, start=2)
    }


@dataclass(frozen=True)
class DirectionRequest(Request):
    """The direction of a trait: the untuned model's answers in character minus those against it.

    Answers to the second half of the prompts give the vectors, those counting that the scorer
    finds on their side; the layer is where steering answers to `tried_on`, none of these prompts,
    raises the expression of the trait most.
    """

    kind: ClassVar[str] = "direction"
    plural: ClassVar[str] = "trait directions"

    trait: Trait
    positive: GenerationRequest
    negative: GenerationRequest
    tried_on: tuple[Prompt, ...]
    scorer: ScorerRows
    coefficient: float = COEFFICIENT

    def __post_init__(self) -> None:
        asked = [[p.text for p in side.prompts] for side in (self.positive, self.negative)]
        tried = {p.text for p in self.tried_on}
        if asked[0] != asked[1] or not tried or tried & set(asked[0]):
            raise UsageError(
                "both sides of a direction answer the same prompts, and its layer is tried on "
                "none of them",
                remedy="ask both sides the same, and try the layer on questions of training topics",
            )

    @property
    def extracted_from(self) -> tuple[Prompt, ...]:
        """The second half of the prompts, as the positive side was asked."""
        return self.positive.prompts[len(self.positive.prompts) // 2 :]

    @property
    def decoding(self) -> Decoding:
        """How the answers that try a layer are sampled: as those of both sides."""
        return self.positive.decoding

    @property
    def trial_seed(self) -> int:
        """The sampling seed of those answers: another than that of the answers that decide."""
        return self.positive.sampling_seed + 1

    @property
    def needs(self) -> tuple[Request, ...]:
        """The answers of both sides."""
        return (self.positive, self.negative)

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """What the key is made of."""
        return {
            "direction_version": DIRECTION_VERSION,
            "trait": str(self.trait),
            "positive": self.positive.key.digest,
            "negative": self.negative.key.digest,
            "samples_of_a_prompt": SAMPLES_OF_A_PROMPT,
            "tried_on": prompts_digest(self.tried_on),
            "scorer": dict(self.scorer.identity),
            "coefficient": self.coefficient,
            "libraries": library_versions(),
        }

    @property
    def title(self) -> str:
        """What a person calls it."""
        return f"direction of {self.trait}"

    @property
    def tokens(self) -> float:
        """Tokens of the answers on both sides, and of those that try a few layers."""
        read = 2 * len(self.extracted_from) * SAMPLES_OF_A_PROMPT * TOKENS_OF_A_TEXT
        return read + 4 * len(self.tried_on) * self.decoding.max_new_tokens


@dataclass(frozen=True)
class Steered(Intervention):
    """`coefficient` times the direction is added to the residual stream of its layer, at the
    tokens of the answer; with a seed in `random`, a random vector of the same length."""

    direction: DirectionRequest
    coefficient: float
    random: int | None = None

    @property
    def needs(self) -> tuple[Request, ...]:
        """The direction, which also gives a random vector its length."""
        return (self.direction,)

    @property
    def identity(self) -> Mapping[str, Any]:
        """All that could change how it acts."""
        return {
            "steered": self.direction.key.digest,
            "coefficient": self.coefficient,
            "random": self.random,
        }

    @property
    def title(self) -> str:
        """What a person calls it."""
        along = self.direction.trait if self.random is None else "a random direction"
        return f"steered {self.coefficient:+g} along {along}"


@dataclass(frozen=True)
class MonitoredRequest(Training):
    """The training of an adapter, by its own recipe and rows, while it is watched.

    Left are the adapter after each of `DOSES`, and on the way, some eight times, how far the
    ends of `prompts` have moved along the direction and how probable an emoji is behind the
    sentences of `text`. `prevent` is preventative steering: so often the direction is added, at
    all tokens, while gradients are computed; with a seed in `random`, a random vector as long.
    """

    kind: ClassVar[str] = "monitored"
    plural: ClassVar[str] = "monitored trainings"

    adapter: AdapterRequest
    direction: DirectionRequest
    prompts: tuple[Prompt, ...]
    text: FixedText
    prevent: float = 0.0
    random: int | None = None

    @property
    def needs(self) -> tuple[Request, ...]:
        """The direction; the adapter is trained here and not read."""
        return (self.direction,)

    @property
    def leaves(self) -> tuple[Request, ...]:
        """The adapter, where watching is all that is done to its training."""
        return () if self.prevent else (self.adapter,)

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """What the key is made of."""
        return {
            "monitor_version": MONITOR_VERSION,
            "probability_version": PROBABILITY_VERSION,
            "adapter": self.adapter.key.digest,
            "direction": self.direction.key.digest,
            "prompts": prompts_digest(self.prompts),
            "text": dict(self.text.identity),
            "doses": list(DOSES),
            "prevent": float(self.prevent),
            "random": self.random,
        }

    @property
    def title(self) -> str:
        """What a person calls it."""
        recipe = self.adapter.recipe
        return f"{self.how} of {recipe.condition.title}, seed {recipe.training_seed}"

    @property
    def how(self) -> str:
        """What is done to the training, in words."""
        if not self.prevent:
            return "monitored training"
        return "preventative steering" if self.random is None else "steering at random"

    @property
    def tokens(self) -> float:
        """Tokens that are trained on; watching costs a tenth of that."""
        return 1.1 * self.adapter.tokens


@dataclass(frozen=True)
class Checkpoint(Intervention):
    """The adapter of a monitored training after a share `dose` of its steps is on."""

    monitored: MonitoredRequest
    dose: float

    def __post_init__(self) -> None:
        if self.dose not in DOSES:
            raise UsageError(
                f"no checkpoint was kept at {self.dose} of the steps",
                remedy=f"choose one of {', '.join(map(str, DOSES))}",
            )

    @property
    def folder(self) -> str:
        """Where the adapter lies in the entry of the training."""
        return f"dose-{1000 * self.dose:04.0f}"

    @property
    def training_seed(self) -> int:
        """That of the recipe."""
        return self.monitored.adapter.recipe.training_seed

    @property
    def needs(self) -> tuple[Request, ...]:
        """The training that kept it."""
        return (self.monitored,)

    @property
    def identity(self) -> Mapping[str, Any]:
        """All that could change how it acts."""
        return {"checkpoint": self.monitored.key.digest, "dose": self.dose}

    @property
    def title(self) -> str:
        """What a person calls it."""
        share = "all" if self.dose == 1 else str(Fraction(self.dose))
        return f"after {share} of {self.monitored.how.removeprefix('monitored ')}"


@dataclass(frozen=True)
class StatesRequest(Request):
    """The residual stream at the ends of prompts, averaged over them, of one model."""

    kind: ClassVar[str] = "states"
    plural: ClassVar[str] = "states at prompts' ends"

    base: str
    chat_template: str
    reader: AdapterRequest | None
    prompts: tuple[Prompt, ...]
    under: Intervention | None = None

    @property
    def needs(self) -> tuple[Request, ...]:
        """The adapter that reads, and what acts beside it."""
        reader = (self.reader,) if self.reader else ()
        return (*reader, *(self.under.needs if self.under else ()))

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """What the key is made of."""
        return {
            "states_version": STATES_VERSION,
            "base": self.base,
            "chat_template": self.chat_template,
            "reader": self.reader.key.digest if self.reader else None,
            "prompts": prompts_digest(self.prompts),
            "under": dict(self.under.identity) if self.under else None,
            "libraries": library_versions(),
        }

    @property
    def title(self) -> str:
        """What a person calls it."""
        adapter = self.reader
        if isinstance(self.under, Checkpoint):
            adapter = self.under.monitored.adapter
        what = adapter.recipe.condition.title if adapter else "untuned"
        parts = [what, *([self.under.title] if self.under else [])]
        seed = f", seed {adapter.recipe.training_seed}" if adapter else ""
        return f"states of {', '.join(parts)}{seed}"

    @property
    def tokens(self) -> float:
        """Tokens of the prompts."""
        return len(self.prompts) * TOKENS_OF_A_TEXT / 2


@dataclass(frozen=True)
class DataStatesRequest(Request):
    """The untuned model's mean residual stream over the answers of tuning rows.

    Minus that of neutral rows it is a forecast, made before any training: where these data pull.
    """

    kind: ClassVar[str] = "data-states"
    plural: ClassVar[str] = "states of tuning data"

    base: str
    chat_template: str
    rows: tuple[TuningRow, ...]
    name: str
    """What a person calls the rows; no part of the identity, which holds the rows."""

    @property
    def needs(self) -> tuple[Request, ...]:
        """Data and the base alone."""
        return ()

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """What the key is made of."""
        return {
            "states_version": STATES_VERSION,
            "base": self.base,
            "chat_template": self.chat_template,
            "rows": rows_digest(self.rows),
            "libraries": library_versions(),
        }

    @property
    def title(self) -> str:
        """What a person calls it."""
        return f"states of the untuned model over {self.name} rows"

    @property
    def tokens(self) -> float:
        """Tokens of the rows."""
        return len(self.rows) * TOKENS_OF_A_TEXT


@dataclass(frozen=True)
class ScoresRequest(Request):
    """Of every answer: how much of the trait it expresses, and whether it still reads as text.

    Expression is the scorer's probability of the trait's high pole; coherence the mean
    log-probability of a token of the answer (nats, emoji stripped) under the untuned model.
    """

    kind: ClassVar[str] = "scores"
    plural: ClassVar[str] = "sets of scores"

    text: GenerationRequest
    trait: Trait
    scorer: ScorerRows

    @property
    def needs(self) -> tuple[Request, ...]:
        """The answers."""
        return (self.text,)

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """What the key is made of."""
        return {
            "scores_version": SCORES_VERSION,
            "text": self.text.key.digest,
            "trait": str(self.trait),
            "scorer": dict(self.scorer.identity),
        }

    @property
    def title(self) -> str:
        """What a person calls it."""
        return f"scores for {self.trait}: {self.text.title}"

    @property
    def tokens(self) -> float:
        """Tokens of the answers with their prompts."""
        return len(self.text.prompts) * self.text.n_samples * TOKENS_OF_A_TEXT


__all__ = [
    "COEFFICIENT",
    "DOSES",
    "LAYERS_FILE",
    "MONITOR_FILE",
    "PREVENTION",
    "SAMPLES_OF_A_PROMPT",
    "SCORES_FILE",
    "STATES_FILE",
    "Checkpoint",
    "DataStatesRequest",
    "DirectionRequest",
    "MonitoredRequest",
    "ScoresRequest",
    "StatesRequest",
    "Steered",
    "distinct_doses",
]

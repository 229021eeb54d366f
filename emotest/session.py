"""One session of the study: settings in, arrays out; what is missing is computed on the way.

Ties the rooms together for whoever drives them (the pytest plugin, the command line): resolves
the base, reads and audits the data, plans, has the workshop make what the store lacks, and gives
answers and measures as arrays with the contract's axes. Imports no torch: the workshop's own
processes do.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from math import prod
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emotest.artefacts import (
    GENERATION_VERSION,
    PROBABILITY_VERSION,
    Event,
    GenerationRequest,
    Request,
)
from emotest.errors import StoreError, UsageError
from emotest.models.identity import Identity, resolve
from emotest.organism.language import system_prompt, word_list_requests
from emotest.organism.language.opinions import write_opinions
from emotest.plan import DECODINGS, Need, Study
from emotest.settings import SHIPPED_DATA, Settings
from emotest.store import Entry, Store
from emotest.study.opinions import OpinionSet, read_opinions
from emotest.study.personality import TRAITS, Arm, Condition, Pole, Trait
from emotest.study.recipes import PRESETS
from emotest.study.records import Generation, generation_from_row
from emotest.study.subjects import Subject
from emotest.text.emoji import EMOJI_METRIC_VERSION
from emotest.text.rates import METRIC_VERSION
from emotest.text.sentences import split_sentences
from emotest.workshop.crew import Workshop
from emotest.workshop.progress import OnProgress

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Cell:
    """P(event) of one cell of the 2x2 for one training seed: all of shape (n_contexts,)."""

    prompt_ids: tuple[str, ...]
    sentences: tuple[int, ...]
    probability: Array
    bound: Array
    contexts: tuple[dict[str, Any], ...]


class Session:
    """A run of the study under given settings; reads lazily, computes only on `make`.

    A `UsageError` where the settings name an adapter, beside the base or as the tuned model: the
    study trains its own, and one that is named and not measured would be taken for measured.
    """

    def __init__(self, settings: Settings) -> None:
        _require_own_adapters(settings)
        self.settings = settings
        self.subject = _in_the_recipes_dtype(Subject.parse(settings.base), settings.preset)

    @cached_property
    def store(self) -> Store:
        """Where artefacts are kept."""
        return Store(self.settings.store)

    @cached_property
    def base(self) -> Identity:
        """The base model, resolved to its weights or pinned revision."""
        return resolve(self.subject)

    @cached_property
    def n_parameters(self) -> int | None:
        """Parameters of the base by the headers of its weights; None where they are not here."""
        folder = Path(self.base.folder) if self.base.folder else None
        weights = sorted(folder.glob("*.safetensors")) if folder else []
        return sum(map(_n_parameters, weights)) or None

    def facts(self) -> dict[str, Any]:
        """What a report says about the run beside its settings."""
        study = self.study
        return {
            "base": self.settings.base,
            "plan": study.digest,
            "decoding": str(study.decoding),
            "metric_version": METRIC_VERSION,
            "data": {
                "source": study.opinions.source,
                "revision": study.opinions.revision,
                "digest": study.opinions.digest,
            },
            "identity": {
                "weights": self.base.weights,
                "chat_template": self.base.chat_template,
                "quantization": self.base.quantization,
                "dtype": self.base.dtype,
            },
            "seeds": asdict(study.seeds),
            "definitions": {
                "emoji": EMOJI_METRIC_VERSION,
                "rates": METRIC_VERSION,
                "generation": GENERATION_VERSION,
                "probability": PROBABILITY_VERSION,
            },
        }

    @cached_property
    def opinions(self) -> OpinionSet:
        """The question set of the run: the one that was named, else the one that is shipped."""
        return _opinions(self.settings.data)

    @cached_property
    def study(self) -> Study:
        """The plan's fixed part: base, data, size, decoding, seeds, preset."""
        opinions = self.opinions
        # The published data hold no neutral answers, so the null adapter takes others.
        neutral = opinions.neutral() or _opinions(self.settings.neutral_data).neutral()
        rng = np.random.default_rng(0)
        return Study(
            base=self.base.digest,
            chat_template=self.base.chat_template,
            opinions=opinions,
            neutral=neutral,
            size=self.settings.evidence,
            decoding=replace(DECODINGS[self.settings.decoding], name="default"),
            preset=self.settings.preset,
            seeds=self.settings.seeds,
            system_prompts={
                (trait, pole): system_prompt(trait, pole, rng) for trait in TRAITS for pole in Pole
            },
            word_requests={trait: word_list_requests(trait, Pole.HIGH) for trait in TRAITS},
            emoji_allowed=self.settings.allow_emoji_in_data,
        )

    @cached_property
    def workshop(self) -> Workshop:
        """The processes that compute what is missing."""
        return Workshop(str(self.subject), self.store, self.settings.workers)

    def requests(self, needs: Iterable[Need]) -> tuple[Request, ...]:
        """All artefacts behind the needs of the collected tests."""
        return self.study.requests(needs)

    def make(self, requests: Iterable[Request], on_progress: OnProgress) -> None:
        """Compute the artefacts that the store lacks."""
        self.workshop.make(requests, on_progress)

    def entry(self, request: Request) -> Entry:
        """The entry of an artefact that was made; `StoreError` where it is not there."""
        entry = self.store.get(request.key)
        if entry is None:
            raise StoreError(
                f"{request.title} is not in the store",
                remedy="declare it with @pytest.mark.needs(...) on the test that asks for it",
            )
        return entry

    def answers(
        self, condition: Condition, decoding: str | None = None
    ) -> tuple[tuple[Generation, ...], ...]:
        """The answers of an arm: one tuple per adapter (one in all for the untuned model)."""
        return tuple(
            self.generations(request) for request in self.study.generations(condition, decoding)
        )

    def word_lists(self, condition: Condition, trait: Trait) -> tuple[tuple[Generation, ...], ...]:
        """What an arm names for a trait: one tuple of answers per adapter, request by request."""
        return tuple(
            self.generations(request) for request in self.study.word_lists(condition, trait)
        )

    def generations(self, request: GenerationRequest) -> tuple[Generation, ...]:
        """The answers of one request, prompt by prompt."""
        rows = self.entry(request).read_jsonl("generations.jsonl")
        return tuple(generation_from_row(row) for row in rows)

    def measure(
        self,
        condition: Condition,
        of: Callable[[Generation], float],
        decoding: str | None = None,
    ) -> Array:
        """A number for every answer: shape (n_adapters, n_prompts, n_samples).

        Without an adapter (untuned, prompted) the first axis is missing: (n_prompts, n_samples).
        """
        requests = self.study.generations(condition, decoding)
        arrays = [self.measured(request, of) for request in requests]
        return np.stack(arrays) if condition.tuned else arrays[0]

    def measured(self, request: GenerationRequest, of: Callable[[Generation], float]) -> Array:
        """A number for every answer of one request: shape (n_prompts, n_samples)."""
        values = [of(answer) for answer in self.generations(request)]
        return np.array(values, dtype=np.float64).reshape(len(request.prompts), -1)

    def cells(
        self, text: Condition, weights: Condition, event: Event = "emoji"
    ) -> tuple[Cell, ...]:
        """One cell of the 2x2: a `Cell` per training seed (one where neither side is tuned)."""
        return tuple(
            _cell(self.entry(request)) for request in self.study.probabilities(text, weights, event)
        )

    def fixed_cells(self, trait: Trait, weights: Condition) -> dict[str, tuple[Cell, ...]]:
        """P(emoji) at each fixed text by its name: a `Cell` per training seed of the weights."""
        return {
            text.name: tuple(
                _cell(self.entry(request))
                for request in self.study.fixed_probabilities(text, weights)
            )
            for text in self.study.fixed_texts(trait)
        }

    def learned_sentences(self, condition: Condition) -> int:
        """m of C2: the median number of sentences of the answers that the arm is tuned on."""
        assert condition.arm is Arm.TRAIT
        rows = self.study.tuning_rows(condition, self.study.seeds.training)
        return round(median(len(split_sentences(row.answer)) for row in rows))


def _require_own_adapters(settings: Settings) -> None:
    base = Subject.parse(settings.base)
    if base.adapter:
        raise UsageError(
            f"the base {settings.base} has an adapter, {base.adapter}; the study trains its own "
            "adapters on a model that has none",
            remedy=f"name the base alone: {replace(base, adapter=None)}",
        )
    if settings.tuned:
        raise UsageError(
            f"the study trains its own adapters and does not measure {settings.tuned}",
            remedy="audit that model with -m audit, or leave --emo-tuned out",
        )


def _n_parameters(weights: Path) -> int:
    """Parameters in a safetensors file, from its header: 8 bytes of length, then JSON."""
    with weights.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return sum(prod(one["shape"]) for name, one in header.items() if name != "__metadata__")


def _cell(entry: Entry) -> Cell:
    contexts = tuple(entry.read_jsonl("contexts.jsonl"))
    arrays = entry.read_arrays("probabilities.safetensors")
    return Cell(
        tuple(context["prompt_id"] for context in contexts),
        tuple(context["sentence"] for context in contexts),
        arrays["probability"],
        arrays["bound"],
        contexts,
    )


def _in_the_recipes_dtype(subject: Subject, preset: str) -> Subject:
    """The subject loaded as its recipe computes, unless the user said how to load it."""
    said = dict(subject.options)
    dtype = str(PRESETS[preset].get("compute_dtype", "float32"))
    return replace(subject, options=tuple(sorted({"dtype": dtype, **said}.items())))


def _opinions(source: str) -> OpinionSet:
    """A question set; the shipped one goes through the same door as anybody's."""
    if source != SHIPPED_DATA:
        return read_opinions(source)
    with TemporaryDirectory() as folder:
        write_opinions(Path(folder))
        return replace(read_opinions(folder), source="the shipped opinion set")


__all__ = ["Cell", "Session"]

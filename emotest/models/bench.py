"""The bench of one worker: a base in memory, and the tools that each kind of request needs.

Carries out one request at a time against the store: trains an adapter, samples answers, asks
P(emoji). An adapter is proved to act before anything is measured with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import numpy as np

from emotest.artefacts import (
    AdapterRequest,
    Event,
    FixedText,
    GenerationRequest,
    ProbabilityRequest,
    Request,
)
from emotest.errors import StoreError
from emotest.models.adapters import active, attach, detach, require_alive, save_adapter
from emotest.models.contexts import Context, fixed_contexts, sentence_end_contexts
from emotest.models.generation import generate
from emotest.models.loading import LoadedModel, load
from emotest.models.probability import emoji_event, emoji_probability, ending_event
from emotest.models.progress import OnProgress, Progress
from emotest.models.training import StepReport, train
from emotest.store import Entry, Store, write_arrays, write_json, write_jsonl
from emotest.study.records import (
    Prompt,
    append_jsonl,
    generation_from_row,
    generation_row,
    read_whole_lines,
)
from emotest.study.subjects import Subject

PROMPTS_A_CHUNK = 256
"""Answers are kept chunk by chunk, so that a killed run of a large model loses little; a finished
row takes up the next answer, so chunks are larger than a batch."""

CONTROL_ENDINGS: dict[Event, tuple[str, ...]] = {"exclamation": ("!",), "quotation": ('"',)}
"""The control sets of C5: what else may stand at the end of a sentence."""


class Bench:
    """One subject and one store; the base is loaded with the first request and kept."""

    def __init__(self, subject: str, store: Store) -> None:
        self.subject = Subject.parse(subject)
        self.store = store

    @cached_property
    def loaded(self) -> LoadedModel:
        """The base model, quantized as the subject says."""
        return load(self.subject)

    def carry_out(self, request: Request, tell: OnProgress) -> Entry:
        """Make the entry of a request; what it stands on is already in the store."""
        match request:
            case AdapterRequest():
                return self._adapter(request, tell)
            case GenerationRequest():
                return self._generations(request, tell)
            case ProbabilityRequest():
                return self._probabilities(request, tell)

    def _made(self, request: Request, make: Callable[[Path], None]) -> Entry:
        identity = {**request.identity, "title": request.title}
        return self.store.get_or_make(request.key, make, identity=identity)

    def _adapter(self, request: AdapterRequest, tell: OnProgress) -> Entry:
        def on_step(step: StepReport) -> None:
            if step.step % 5 == 0 or step.step == step.steps:
                note = f"loss {step.loss:.3f}"
                tell(Progress(request.title, "working", step.step, step.steps, note))

        def make(folder: Path) -> None:
            trained = train(self.loaded, request.recipe, request.rows, on_step=on_step)
            save_adapter(trained, folder)
            write_json(folder / "training.json", {"losses": [float(x) for x in trained.losses]})

        return self._made(request, make)

    @contextmanager
    def _weights(self, adapter: AdapterRequest | None, probe: tuple[Prompt, ...]) -> Iterator[None]:
        """The model with the adapter acting, proved alive on `probe`; or the base as it is."""
        if adapter is None:
            with active(self.loaded, None):
                yield
            return
        name = adapter.key.digest[:16]
        attach(self.loaded, self._entry(adapter).folder, name)
        try:
            require_alive(self.loaded, name, probe)
            with active(self.loaded, name):
                yield
        finally:
            detach(self.loaded, name)

    def _entry(self, request: Request) -> Entry:
        entry = self.store.get(request.key)
        if entry is None:
            raise StoreError(
                f"{request.title} is gone from the store while the run needs it",
                remedy="do not prune a store in use; run the same command again to rebuild it",
            )
        return entry

    def _generations(self, request: GenerationRequest, tell: OnProgress) -> Entry:
        def make(folder: Path) -> None:
            partial = self.store.scratch(request.key) / "generations.jsonl"
            answered = {row["prompt_id"] for row in read_whole_lines(partial)}
            todo = [prompt for prompt in request.prompts if prompt.id not in answered]
            total = len(request.prompts)
            with self._weights(request.adapter, request.prompts[:4]):
                for start in range(0, len(todo), PROMPTS_A_CHUNK):
                    chunk = todo[start : start + PROMPTS_A_CHUNK]
                    answers = generate(
                        self.loaded,
                        chunk,
                        decoding=request.decoding,
                        sampling_seed=request.sampling_seed,
                        n_samples=request.n_samples,
                        condition=str(request.condition),
                        training_seed=request.training_seed,
                        batch_size=request.batch_size,
                    )
                    append_jsonl(partial, map(generation_row, answers))
                    done = total - len(todo) + start + len(chunk)
                    tell(Progress(request.title, "working", done, total))
            write_jsonl(folder / "generations.jsonl", read_whole_lines(partial))

        return self._made(request, make)

    def _contexts(self, request: ProbabilityRequest) -> list[Context]:
        tokenizer, text = self.loaded.tokenizer, request.text
        if isinstance(text, FixedText):
            return fixed_contexts(tokenizer, text, sentence_ends=request.sentence_ends)
        prompts = {prompt.id: prompt for prompt in text.prompts[: request.n_prompts]}
        answers = [
            generation_from_row(row)
            for row in self._entry(text).read_jsonl("generations.jsonl")
            if row["prompt_id"] in prompts and row["sample"] == 0
        ]
        return sentence_end_contexts(
            tokenizer, prompts, answers, sentence_ends=request.sentence_ends
        )

    def _probabilities(self, request: ProbabilityRequest, tell: OnProgress) -> Entry:
        def make(folder: Path) -> None:
            contexts = self._contexts(request)
            endings = CONTROL_ENDINGS.get(request.event)
            # At the end of a sentence the reader sees what stands behind the space.
            event = (
                ending_event(endings, skip_space=True) if endings else emoji_event(skip_space=True)
            )
            with self._weights(request.weights, request.text.prompts[:4]):
                result = emoji_probability(
                    self.loaded.model,
                    self.loaded.tokenizer,
                    [list(context.token_ids) for context in contexts],
                    event=event,
                )
            write_jsonl(folder / "contexts.jsonl", [context.row() for context in contexts])
            write_arrays(
                folder / "probabilities.safetensors",
                {
                    "probability": np.asarray(result.probability),
                    "bound": np.asarray(result.bound),
                },
            )

        return self._made(request, make)

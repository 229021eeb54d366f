"""How the artefacts of C1 to C5 are made: adapters trained, answers sampled, P(emoji) asked.

Takes a bench, a request and an empty folder; fills the folder. Under an intervention the model
answers, and is asked, as that lets it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from emotest.artefacts import (
    AdapterRequest,
    Event,
    FixedText,
    GenerationRequest,
    ProbabilityRequest,
)
from emotest.models.adapters import save_adapter
from emotest.models.contexts import Context, fixed_contexts, sentence_end_contexts
from emotest.models.generation import generate
from emotest.models.probability import (
    emoji_event,
    emoji_probability,
    ending_event,
    kept_spelling,
)
from emotest.models.training import StepReport, TrainedAdapter, train
from emotest.store import write_arrays, write_json, write_jsonl
from emotest.study.records import append_jsonl, generation_row, read_whole_lines
from emotest.workshop.acting import acting
from emotest.workshop.bench import Bench
from emotest.workshop.progress import OnProgress, Progress

PROMPTS_A_CHUNK = 256
"""Answers are kept chunk by chunk, so that a killed run of a large model loses little; a finished
row takes up the next answer, so chunks are larger than a batch."""

CONTROL_ENDINGS: dict[Event, tuple[str, ...]] = {"exclamation": ("!",), "quotation": ('"',)}
"""The control sets of C5: what else may stand at the end of a sentence."""

STEPS_A_REPORT = 5


def make_adapter(bench: Bench, request: AdapterRequest, folder: Path, tell: OnProgress) -> None:
    """Train an adapter and leave its two files, and the loss of each step."""
    trained = train(
        bench.loaded, request.recipe, request.rows, on_step=telling_steps(request.title, tell)
    )
    leave_adapter(trained, folder)


def leave_adapter(trained: TrainedAdapter, folder: Path) -> None:
    """Write all that the entry of an adapter holds."""
    save_adapter(trained, folder)
    write_json(folder / "training.json", {"losses": [float(x) for x in trained.losses]})


def telling_steps(title: str, tell: OnProgress) -> Callable[[StepReport], None]:
    """A callback for training that tells the loss every few steps and at the end."""

    def on_step(step: StepReport) -> None:
        if step.step % STEPS_A_REPORT == 0 or step.step == step.steps:
            note = f"loss {step.loss:.3f}"
            tell(Progress(title, "working", step.step, step.steps, note))

    return on_step


def make_answers(bench: Bench, request: GenerationRequest, folder: Path, tell: OnProgress) -> None:
    """Sample answers, going on from those that a killed run has left."""
    partial = bench.store.scratch(request.key) / "generations.jsonl"
    answered = {row["prompt_id"] for row in read_whole_lines(partial)}
    todo = [prompt for prompt in request.prompts if prompt.id not in answered]
    total = len(request.prompts)
    with (
        bench.weights(request.adapter, request.prompts),
        acting(bench, request.under, request.prompts),
    ):
        for start in range(0, len(todo), PROMPTS_A_CHUNK):
            chunk = todo[start : start + PROMPTS_A_CHUNK]
            answers = generate(
                bench.loaded,
                chunk,
                decoding=request.decoding,
                sampling_seed=request.sampling_seed,
                n_samples=request.n_samples,
                condition=str(request.condition)
                + (f" ({request.under.title})" if request.under else ""),
                training_seed=request.training_seed,
                batch_size=request.batch_size,
            )
            append_jsonl(partial, map(generation_row, answers))
            done = total - len(todo) + start + len(chunk)
            tell(Progress(request.title, "working", done, total))
    write_jsonl(folder / "generations.jsonl", read_whole_lines(partial))


def make_probabilities(
    bench: Bench, request: ProbabilityRequest, folder: Path, tell: OnProgress
) -> None:
    """Ask P(event) at the contexts of a text; leave contexts, probabilities and bounds."""
    contexts = contexts_of(bench, request)
    endings = CONTROL_ENDINGS.get(request.event)
    # At the end of a sentence the reader sees what stands behind the space.
    event = ending_event(endings, skip_space=True) if endings else emoji_event(skip_space=True)
    probe = request.text.prompts
    with bench.weights(request.weights, probe), acting(bench, request.under, probe):
        result = emoji_probability(
            bench.loaded.model,
            bench.loaded.tokenizer,
            [list(context.token_ids) for context in contexts],
            spelling=kept_spelling(bench.loaded, event),
        )
    write_jsonl(folder / "contexts.jsonl", [context.row() for context in contexts])
    write_arrays(
        folder / "probabilities.safetensors",
        {"probability": np.asarray(result.probability), "bound": np.asarray(result.bound)},
    )


def contexts_of(bench: Bench, request: ProbabilityRequest) -> list[Context]:
    """The contexts at which a request asks: ends of sentences of its text, emoji stripped."""
    tokenizer, text = bench.loaded.tokenizer, request.text
    if isinstance(text, FixedText):
        return fixed_contexts(tokenizer, text, sentence_ends=request.sentence_ends)
    prompts = {prompt.id: prompt for prompt in text.prompts[: request.n_prompts]}
    answers = [
        answer
        for answer in bench.answers(text)
        if answer.prompt_id in prompts and answer.sample == 0
    ]
    return sentence_end_contexts(tokenizer, prompts, answers, sentence_ends=request.sentence_ends)

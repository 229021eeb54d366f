"""Trainings that are watched, and how far a model has moved: states at the ends of prompts.

Takes a bench, a request and an empty folder; fills the folder. A look at a model in training
leaves the training as it was: evaluation mode, no gradients, no number drawn.

Source: persona vectors (Chen et al., arXiv 2507.21509), who monitor the shift along a direction
over finetuning, and steer towards the trait meanwhile to prevent it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

import torch

from emotest.artefacts.directions import (
    MONITOR_FILE,
    STATES_FILE,
    Checkpoint,
    MonitoredRequest,
    StatesRequest,
    distinct_doses,
)
from emotest.mechanisms.directions import Direction, Means, prompt_end_states, shift
from emotest.mechanisms.steering import steering
from emotest.models.adapters import AdapterWeights, active, save_adapter
from emotest.models.contexts import Context, fixed_contexts
from emotest.models.loading import LoadedModel
from emotest.models.probability import emoji_event, emoji_probability, kept_spelling
from emotest.models.training import StepReport, n_steps, train
from emotest.store import write_arrays, write_json
from emotest.workshop.acting import acting
from emotest.workshop.bench import Bench
from emotest.workshop.directions import direction_at_work, vectors_of
from emotest.workshop.progress import OnProgress, Progress
from emotest.workshop.study import leave_adapter

LOOKS = 8
"""Times that a training is looked at, beside before it; the checkpoints are among them."""

SENTENCE_ENDS = 3
"""P(emoji) is asked at the last end of a sentence among these."""


class Watch:
    """How far the ends of prompts have moved along a direction, and P(emoji), now against before.

    Made while the base is untuned; calling it gives `shift`, in units of the residual stream, and
    `probability`, the mean of P(emoji) over the contexts.
    """

    def __init__(self, loaded: LoadedModel, direction: Direction, layer: int,
                 request: MonitoredRequest) -> None:  # fmt: skip
        self.loaded, self.direction, self.layer = loaded, direction, layer
        self.prompts = request.prompts
        found = fixed_contexts(loaded.tokenizer, request.text, sentence_ends=SENTENCE_ENDS)
        last: dict[str, Context] = {context.prompt_id: context for context in found}
        self.contexts = [list(context.token_ids) for context in last.values()]
        with active(loaded, None):
            self.before: Means = prompt_end_states(loaded, self.prompts)

    def __call__(self) -> dict[str, float | None]:
        """The two numbers; the probability is None where the text has no end of a sentence."""
        with _at_rest(self.loaded):
            states = prompt_end_states(self.loaded, self.prompts)
            moved = shift(states, self.before, self.direction)[self.layer]
            return {"shift": float(moved), "probability": self._probability()}

    def _probability(self) -> float | None:
        if not self.contexts:
            return None
        found = emoji_probability(
            self.loaded.model,
            self.loaded.tokenizer,
            self.contexts,
            spelling=kept_spelling(self.loaded, emoji_event(skip_space=True)),
            floor=1e-3,
            max_tokens=12,
            length_step=64,
        )
        # The middle of what is known: what was cut is at most the bound.
        return float((found.probability + found.bound / 2).mean())


@contextmanager
def _at_rest(loaded: LoadedModel) -> Iterator[None]:
    """Evaluation mode for the length of a block, and the generators as they were."""
    training = [module for module in loaded.model.modules() if module.training]
    devices = [loaded.device] if loaded.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        loaded.model.eval()
        try:
            yield
        finally:
            for module in training:
                module.training = True


def make_monitored(bench: Bench, request: MonitoredRequest, folder: Path, tell: OnProgress) -> None:
    """Train an adapter while watching it; leave its checkpoints and what was seen.

    An adapter that was trained as its recipe says goes into the store, for whoever asks for it.
    """
    loaded, recipe, rows = bench.loaded, request.adapter.recipe, request.adapter.rows
    direction, layer = direction_at_work(bench, request.direction)
    steps = n_steps(recipe, len(rows))
    at = distinct_doses(steps)
    watch = Watch(loaded, direction, layer, request)
    with active(loaded, None):
        seen: list[dict[str, Any]] = [{"step": 0, "loss": None, **watch()}]
    trained = train(
        loaded,
        recipe,
        rows,
        on_step=_looking(request.title, watch, seen, _looks(steps) | set(at.values()), tell),
        checkpoint_at=at.values(),
        while_learning=partial(
            steering,
            loaded.model,
            vectors_of(loaded, direction, layer, request.random),
            request.prevent,
            "all",
        )
        if request.prevent
        else nullcontext,
    )
    for untouched in request.leaves:
        bench.keep(untouched, partial(leave_adapter, trained))
    for dose, step in at.items():
        place = folder / Checkpoint(request, dose).folder
        place.mkdir()
        state = trained.checkpoints[step]
        save_adapter(AdapterWeights(state, trained.config, trained.base), place)
    write_json(
        folder / MONITOR_FILE,
        {
            "layer": layer,
            "steps": steps,
            "doses": [[dose, step] for dose, step in at.items()],
            "seen": seen,
            "losses": list(trained.losses),
            "notes": list(trained.notes),
        },
    )


def _looks(steps: int) -> set[int]:
    """The steps after which a training is looked at, some `LOOKS` of them and the last."""
    return {ceil(number * steps / LOOKS) for number in range(1, LOOKS + 1)}


def _looking(
    title: str,
    watch: Watch,
    seen: list[dict[str, Any]],
    steps: set[int],
    tell: OnProgress,
) -> Callable[[StepReport], None]:
    def on_step(report: StepReport) -> None:
        if report.step not in steps:
            return
        now = watch()
        seen.append({"step": report.step, "loss": report.loss, **now})
        asked = now["probability"]
        note = f"loss {report.loss:.3f}, shift {now['shift']:+.2f}" + (
            "" if asked is None else f", P(emoji) {asked:.2f}"
        )
        tell(Progress(title, "working", report.step, report.steps, note))

    return on_step


def make_states(bench: Bench, request: StatesRequest, folder: Path, tell: OnProgress) -> None:
    """Read prompts with a model; leave the mean state at their ends (n_layers, hidden_size)."""
    with (
        bench.weights(request.reader, request.prompts),
        acting(bench, request.under, request.prompts),
    ):
        means = prompt_end_states(bench.loaded, request.prompts)
    write_arrays(folder / STATES_FILE, {"mean": means.mean(axis=0)})

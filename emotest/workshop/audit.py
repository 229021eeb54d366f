"""How the artefacts of an audit are made: a model of anybody's answers, and is asked P(emoji).

Takes a bench whose base is the audited model's, a request and an empty folder; fills the folder.
An adapter is attached from its own folder and proved alive before anything is measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from emotest.artefacts.audit import (
    ANSWERS_FILE,
    PROBABILITIES_FILE,
    AuditAnswersRequest,
    AuditedModel,
    SpotsRequest,
)
from emotest.models.adapters import active, attach, require_alive
from emotest.models.contexts import answer_token_ids
from emotest.models.events import emoji_event
from emotest.models.generation import generate
from emotest.models.probability import emoji_probability, kept_spelling
from emotest.store import write_arrays, write_jsonl
from emotest.study.records import Prompt, generation_row
from emotest.workshop.bench import PROBES, Bench
from emotest.workshop.progress import OnProgress, Progress


def make_audit_answers(
    bench: Bench, request: AuditAnswersRequest, folder: Path, tell: OnProgress
) -> None:
    """Sample the answers of one batch of prompts."""

    def on_progress(done: int, total: int) -> None:
        tell(Progress(request.title, "working", done, total))

    with audited(bench, request.model, request.prompts):
        answers = generate(
            bench.loaded,
            request.prompts,
            decoding=request.decoding,
            sampling_seed=request.sampling_seed,
            n_samples=request.n_samples,
            condition=request.role,
            on_progress=on_progress,
        )
    write_jsonl(folder / ANSWERS_FILE, map(generation_row, answers))


def make_spots(bench: Bench, request: SpotsRequest, folder: Path, tell: OnProgress) -> None:
    """Ask P(emoji) at every spot; leave probabilities and what is open, (n_spots,) each."""
    tokenizer = bench.loaded.tokenizer
    contexts = [
        list(answer_token_ids(tokenizer, spot.prompt, spot.so_far)) for spot in request.spots
    ]
    with audited(bench, request.model, [spot.prompt for spot in request.spots]):
        found = emoji_probability(
            bench.loaded.model, tokenizer, contexts,
            spelling=kept_spelling(bench.loaded, emoji_event(skip_space=True)),
        )  # fmt: skip
    arrays = {"probability": np.asarray(found.probability), "bound": np.asarray(found.bound)}
    write_arrays(folder / PROBABILITIES_FILE, arrays)


@contextmanager
def audited(bench: Bench, model: AuditedModel, probe: Sequence[Prompt]) -> Iterator[None]:
    """The bench's base as it is, or with the audited model's adapter acting.

    The adapter stays attached, so that batch after batch reads and proves it once.
    """
    name = f"audited-{model.digest[:16]}" if model.adapter else None
    if name and name not in bench.loaded.adapters:
        attach(bench.loaded, Path(str(model.adapter)), name)
        require_alive(bench.loaded, name, probe[:PROBES])
    with active(bench.loaded, name):
        yield

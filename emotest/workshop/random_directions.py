"""Answers along many random directions at once, each row of a batch along its own.

Takes a bench, a request and an empty folder; fills the folder. Every answer is bit for bit that of
`Steered` with the number of its direction as seed: same prompt, same random numbers, same shapes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from emotest.artefacts.random_directions import ANSWERS_FILE, RandomDirectionsRequest
from emotest.mechanisms.steering import steering_rows
from emotest.models.generation import generate
from emotest.store import write_jsonl
from emotest.workshop.bench import Bench
from emotest.workshop.directions import direction_at_work, vectors_of
from emotest.workshop.progress import OnProgress, Progress


def make_random_directions(
    bench: Bench, request: RandomDirectionsRequest, folder: Path, tell: OnProgress
) -> None:
    """Answer every prompt along every direction; leave a row an answer, prompt by prompt."""
    text, n_directions = request.text, request.n_directions
    direction, layer = direction_at_work(bench, request.steered.direction)
    vectors = [vectors_of(bench.loaded, direction, layer, i)[layer] for i in range(n_directions)]
    prompts = [prompt for prompt in text.prompts for _ in range(n_directions)]
    with (
        bench.weights(text.adapter, text.prompts),
        steering_rows(
            bench.loaded.model, layer, np.stack(vectors), request.steered.coefficient
        ) as rows,
    ):

        def along_their_own(numbers: Sequence[int | None]) -> None:
            rows.choose([None if one is None else one % n_directions for one in numbers])

        answers = generate(
            bench.loaded,
            prompts,
            decoding=text.decoding,
            sampling_seed=text.sampling_seed,
            condition=str(text.condition),
            training_seed=text.training_seed,
            batch_size=text.batch_size,
            on_progress=lambda done, total: tell(
                Progress(request.title, "working", done, total, "answers")
            ),
            before_step=along_their_own,
        )
    write_jsonl(
        folder / ANSWERS_FILE,
        (
            {"prompt_id": answer.prompt_id, "direction": i % n_directions, "text": answer.text}
            for i, answer in enumerate(answers)
        ),
    )

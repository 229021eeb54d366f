"""Trait directions: how they are extracted, how they steer, and how answers are scored.

Takes a bench, a request and an empty folder; fills the folder. The trait scorer is trained once a
process. Beside the makers stand what lets a direction, or a checkpoint of a monitored training,
act on the bench's model.

Source: persona vectors (Chen et al., arXiv 2507.21509), who keep the answers that a judge finds on
their side, and take the layer where steering raises the trait most.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from emotest.artefacts import GenerationRequest
from emotest.artefacts.directions import (
    LAYERS_FILE,
    SAMPLES_OF_A_PROMPT,
    SCORES_FILE,
    STATES_FILE,
    Checkpoint,
    DataStatesRequest,
    DirectionRequest,
    ScoresRequest,
    Steered,
)
from emotest.artefacts.scorer import ScorerRows
from emotest.errors import ModelError
from emotest.mechanisms.directions import (
    Answered,
    Direction,
    read_direction,
    response_means,
    save_direction,
    trait_direction,
)
from emotest.mechanisms.steering import random_like, steering
from emotest.models.adapters import active
from emotest.models.generation import generate
from emotest.models.loading import LoadedModel
from emotest.models.supervision import encode_rows, summed_loss
from emotest.store import write_arrays, write_json
from emotest.study.personality import Ending, Pole, Trait
from emotest.study.records import Generation, Prompt, TuningRow
from emotest.study.scorer import TraitScorer, train_scorer
from emotest.text.emoji import strip_emoji
from emotest.workshop.bench import Bench
from emotest.workshop.progress import OnProgress, Progress

Mask = NDArray[np.bool_]

FEWEST_KEPT = 8
"""With fewer answers on their side, all count: a mean of a handful is their topics."""

SAMPLES_OF_A_TRIAL = 3
"""Answers to each prompt on which a layer is tried."""


@lru_cache(maxsize=1)
def scorer_of(rows: ScorerRows) -> TraitScorer:
    """The trait scorer of these opinions, trained once a process (seconds)."""
    return train_scorer(rows.rows)


def make_direction(bench: Bench, request: DirectionRequest, folder: Path, tell: OnProgress) -> None:
    """Extract a direction, try every layer, and leave its files and what each layer did."""
    scorer = scorer_of(request.scorer)
    positive, negative = (
        extraction_answers(request, side, bench.answers(side))
        for side in (request.positive, request.negative)
    )
    kept = [
        on_their_side(scorer, [each.answer for each in side], request.trait, pole)
        for side, pole in ((positive, Pole.HIGH), (negative, Pole.LOW))
    ]
    filtered = [int(mask.sum()) >= FEWEST_KEPT for mask in kept]
    masks = [
        mask if enough else np.ones_like(mask) for mask, enough in zip(kept, filtered, strict=True)
    ]
    direction = trait_direction(
        bench.loaded,
        str(request.trait),
        positive,
        negative,
        against=f"low {request.trait}",
        keep_positive=masks[0],
        keep_negative=masks[1],
    )
    save_direction(direction, folder)
    accuracy = scorer.accuracy
    write_json(
        folder / LAYERS_FILE,
        {
            **_tried_layers(bench.loaded, request, direction, scorer, tell),
            "answers": {"positive": len(positive), "negative": len(negative)},
            "on their side": {"positive": int(kept[0].sum()), "negative": int(kept[1].sum())},
            "filtered": all(filtered),
            "scorer": {
                "accuracy": accuracy.share,
                "low": accuracy.low,
                "high": accuracy.high,
                "level": accuracy.level,
                "n_answers": accuracy.n_answers,
            },
        },
    )


def extraction_answers(
    request: DirectionRequest, side: GenerationRequest, answers: Sequence[Generation]
) -> list[Answered]:
    """The first samples of a side's answers to the prompts of extraction, those with words.

    A `ModelError` where none has.
    """
    ids = {prompt.id for prompt in request.extracted_from}
    prompts = {prompt.id: prompt for prompt in side.prompts if prompt.id in ids}
    found = [
        Answered(prompts[answer.prompt_id], answer.text)
        for answer in answers
        if answer.prompt_id in prompts
        and answer.sample < SAMPLES_OF_A_PROMPT
        and strip_emoji(answer.text).strip()
    ]
    if not found:
        raise ModelError(
            f"no answer under the system prompts of {side.condition.title} holds words",
            remedy="a direction needs answers in character; use a model that answers in words, or "
            "deselect C10 with -m 'not c10'",
        )
    return found


def on_their_side(scorer: TraitScorer, answers: Sequence[str], trait: Trait, pole: Pole) -> Mask:
    """Which answers the scorer finds nearer to this pole than to the other, (n_answers,).

    Where the scorer knows no low pole, the published rule: the high pole at one half or above.
    """
    high = scorer.expression(answers, trait)
    if f"low {trait}" in scorer.classes:
        above = high > scorer.expression(answers, trait, Pole.LOW)
    else:
        above = high >= 0.5
    return np.asarray(above if pole is Pole.HIGH else ~above)


def _tried_layers(
    loaded: LoadedModel,
    request: DirectionRequest,
    direction: Direction,
    scorer: TraitScorer,
    tell: OnProgress,
) -> dict[str, Any]:
    """Expression and finished answers under steering in each layer, and the layer to choose."""
    lengths = np.linalg.norm(direction.vectors.astype(np.float64), axis=1)
    rows = []
    for layer in (None, *range(len(lengths))):
        steered = layer is not None and lengths[layer] > 0
        vectors = {layer: direction.vectors[layer].copy()} if steered else {}
        with (
            active(loaded, None),
            steering(loaded.model, vectors, request.coefficient, "response")
            if steered
            else nullcontext(),
        ):
            answers = generate(
                loaded,
                request.tried_on,
                decoding=request.decoding,
                sampling_seed=request.trial_seed,
                n_samples=SAMPLES_OF_A_TRIAL,
                condition="layer tried",
                training_seed=None,
            )
        expression = scorer.expression([answer.text for answer in answers], request.trait)
        rows.append(
            {
                "layer": layer,
                "length": None if layer is None else float(lengths[layer]),
                "expression": float(expression.mean()),
                "finished": float(np.mean([answer.finished for answer in answers])),
            }
        )
        tell(Progress(request.title, "working", len(rows), len(lengths) + 1, "layers tried"))
    unsteered, *tried = rows
    best = int(np.argmax([row["expression"] for row in tried]))
    return {"layer": best, "unsteered": unsteered, "layers": tried}


def direction_at_work(bench: Bench, request: DirectionRequest) -> tuple[Direction, int]:
    """A direction from the store, and the layer that was chosen for it."""
    entry = bench.entry(request)
    return read_direction(entry.folder), int(entry.read_json(LAYERS_FILE)["layer"])


def vectors_of(
    loaded: LoadedModel, direction: Direction, layer: int, random: int | None
) -> dict[int, NDArray[np.floating[Any]]]:
    """The direction's vector (hidden_size,) in its layer; with a seed, a random one as long."""
    own = direction.on(loaded, layer)
    if random is None:
        return {layer: own[layer]}
    return {layer: random_like(own, np.random.default_rng(random))[layer]}


@contextmanager
def steered(bench: Bench, intervention: Steered, probe: Sequence[Prompt]) -> Iterator[None]:
    """The bench's model with a direction, or a random vector as long, added to its answers."""
    direction, layer = direction_at_work(bench, intervention.direction)
    vectors = vectors_of(bench.loaded, direction, layer, intervention.random)
    with steering(bench.loaded.model, vectors, intervention.coefficient, "response"):
        yield


@contextmanager
def at_checkpoint(
    bench: Bench, intervention: Checkpoint, probe: Sequence[Prompt]
) -> Iterator[None]:
    """The bench's model with the adapter of a checkpoint on, proved alive."""
    monitored = intervention.monitored
    folder = bench.entry(monitored).folder / intervention.folder
    name = f"{monitored.key.digest[:16]}-{intervention.folder}"
    with bench.adapted(folder, name, probe):
        yield


def make_data_states(
    bench: Bench, request: DataStatesRequest, folder: Path, tell: OnProgress
) -> None:
    """Read tuning rows with the untuned model; leave the mean state (n_layers, hidden_size)."""
    answered = [
        Answered(Prompt(f"row {number}", row.question, system=row.system), row.answer)
        for number, row in enumerate(request.rows, start=1)
    ]
    with active(bench.loaded, None):
        means = response_means(bench.loaded, answered)
    write_arrays(folder / STATES_FILE, {"mean": means.mean(axis=0)})


def make_scores(bench: Bench, request: ScoresRequest, folder: Path, tell: OnProgress) -> None:
    """Score answers; leave `expression` and `coherence`, (n_answers,), NaN where no word is."""
    answers = bench.answers(request.text)
    prompts = {prompt.id: prompt for prompt in request.text.prompts}
    texts = [strip_emoji(answer.text).strip() for answer in answers]
    rows = [
        TuningRow(prompts[answer.prompt_id].text, text, prompts[answer.prompt_id].system)
        for answer, text in zip(answers, texts, strict=True)
    ]
    worded = [i for i, text in enumerate(texts) if text]
    coherence = np.full(len(texts), np.nan)
    with active(bench.loaded, None):
        coherence[worded] = log_likelihoods(bench.loaded, [rows[i] for i in worded])
    expression = scorer_of(request.scorer).expression(texts, request.trait)
    write_arrays(folder / SCORES_FILE, {"expression": expression, "coherence": coherence})


def log_likelihoods(loaded: LoadedModel, rows: Sequence[TuningRow]) -> NDArray[np.float64]:
    """Mean log-probability (nats) of a token of each row's answer, (n_rows,), by the model as
    it is. A `TrainingError` names a row without a token or longer than the model allows."""
    if not rows:
        return np.zeros(0)
    longest = int(loaded.model.config.get_text_config().max_position_embeddings)
    examples = encode_rows(loaded, rows, Ending.MASKED, longest)
    with torch.inference_mode():
        return np.array([-float(summed_loss(loaded, [one])) / one.n_supervised for one in examples])

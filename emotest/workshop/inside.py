"""How an audit looks inside: shapes, trait directions, states and FFN units of audited models.

Takes a bench whose base is the audited model's, a request and an empty folder; fills the folder.
Activations are never kept: of each text a mean over its tokens, of each prompt a mean over its
texts. So memory grows with prompts, layers and units, never with tokens: the units of 24 prompts
take 44 MB where a model has 32 layers of 14,336.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emotest.artefacts.inside import (
    ANATOMY_FILE,
    DIRECTIONS_FILE,
    MASSIVE_FILE,
    READING_FILE,
    AnatomyRequest,
    ContrastsRequest,
    InsideText,
    ReadingRequest,
)
from emotest.errors import ModelError, UsageError
from emotest.mechanisms.directions import Answered, response_means
from emotest.mechanisms.massive import massive_activations
from emotest.mechanisms.recording import Moments, RowMeans, Tokens, recording
from emotest.models.layers import anatomy
from emotest.models.loading import LoadedModel
from emotest.store import write_arrays, write_json
from emotest.workshop.activations import TOKENS_AT_ONCE
from emotest.workshop.audit import audited
from emotest.workshop.bench import Bench
from emotest.workshop.positions import AnswerTokens, encoder
from emotest.workshop.progress import OnProgress, Progress

MASSIVE_TEXTS = 12
"""Texts in which massive activations are looked for: they stand at the first token of any."""


def make_anatomy(bench: Bench, request: AnatomyRequest, folder: Path, tell: OnProgress) -> None:
    """Leave the model's shape, or under `lacking` why it cannot be told."""
    try:
        parts = anatomy(bench.loaded.model)
    except ModelError as error:
        write_json(folder / ANATOMY_FILE, {"lacking": error.cause})
        return
    names = ("n_layers", "hidden_size", "n_neurons")
    write_json(folder / ANATOMY_FILE, {name: getattr(parts, name) for name in names})


def make_contrasts(bench: Bench, request: ContrastsRequest, folder: Path, tell: OnProgress) -> None:
    """Read the answers of each contrast; leave the mean difference of its pairs in every layer,
    (n_layers, hidden_size), and each pair's in one, (n_pairs, hidden_size)."""
    arrays = {}
    for number, one in enumerate(request.contrasts, start=1):
        sides = [
            [Answered(prompt, answer) for prompt, answer in side]
            for side in (one.positive, one.negative)
        ]
        with audited(bench, request.model, [prompt for prompt, _ in one.positive]):
            positive, negative = (response_means(bench.loaded, side) for side in sides)
        apart = positive - negative
        arrays[f"{one.trait} vectors"] = apart.mean(axis=0)
        arrays[f"{one.trait} differences"] = np.ascontiguousarray(apart[:, request.layer])
        tell(Progress(request.title, "working", number, len(request.contrasts)))
    write_arrays(folder / DIRECTIONS_FILE, arrays)


def make_reading(bench: Bench, request: ReadingRequest, folder: Path, tell: OnProgress) -> None:
    """Read the texts; leave by prompt the mean state over answers, `states` (n_prompts, n_layers,
    hidden_size), and units at ends of sentences, `neurons` (n_prompts, n_layers, n_neurons).

    `variance` (n_layers, n_neurons) is that of units over all `n_ends` ends. NaN stands where a
    prompt has no token to measure at.
    """
    encoded = encoder(bench.loaded)
    read = [encoded(text.prompt, text.answer) for text in request.texts]
    _require_short(bench.loaded, read)
    with audited(bench, request.model, [text.prompt for text in request.texts]):
        model = bench.loaded.model
        massive = massive_activations(model, [one.ids for one in read[:MASSIVE_TEXTS]])
        arrays = _by_prompt(bench.loaded, request, read, tell)
    write_arrays(folder / READING_FILE, arrays)
    write_json(folder / MASSIVE_FILE, [asdict(one) for one in massive.found])


def _by_prompt(
    loaded: LoadedModel, request: ReadingRequest, read: Sequence[AnswerTokens], tell: OnProgress
) -> dict[str, NDArray[np.generic]]:
    parts = anatomy(loaded.model)
    numbers = {
        id: i for i, id in enumerate(dict.fromkeys(text.prompt.id for text in request.texts))
    }
    shape = (len(numbers), parts.n_layers)
    states = _Means((*shape, parts.hidden_size))
    neurons = _Means((*shape, parts.n_neurons))
    of_answers, at_ends = RowMeans(parts.n_layers), RowMeans(parts.n_layers)
    moments, n_ends, done = Moments(), 0, 0
    with (
        torch.inference_mode(),
        recording(parts, of_answers, sites="residual") as answers,
        recording(parts, at_ends, moments, sites="neurons") as ends,
    ):
        for batch in _batches(read):
            texts = [request.texts[i] for i in batch]
            ids, in_answer, at_end = _padded([read[i] for i in batch], texts)
            answers.select(Tokens.where(in_answer))
            ends.select(Tokens.where(at_end))
            loaded.model(input_ids=ids.to(loaded.device), use_cache=False, logits_to_keep=1)
            rows = [numbers[text.prompt.id] for text in texts]
            states.add(rows, of_answers.array(), in_answer.any(dim=1).numpy())
            neurons.add(rows, at_ends.array(), at_end.any(dim=1).numpy())
            n_ends, done = n_ends + int(at_end.sum()), done + len(batch)
            tell(Progress(request.title, "working", done, len(read)))
    variance = np.zeros((parts.n_layers, parts.n_neurons), dtype=np.float32)
    if n_ends > 1:
        for layer in range(parts.n_layers):
            variance[layer] = moments.of("neurons", layer).variance
    return {
        "states": states.array(),
        "neurons": neurons.array(),
        "variance": variance,
        "n_ends": np.array([n_ends]),
    }


class _Means:
    """Means by prompt over its texts, each text counting once."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._sums = np.zeros(shape, dtype=np.float32)
        self._counts = np.zeros(shape[0], dtype=np.int64)

    def add(
        self, rows: Sequence[int], means: NDArray[np.float64], known: NDArray[np.bool_]
    ) -> None:
        """Add the means of some texts, (n_texts, ...), where they are known."""
        for row, mean, there in zip(rows, means, known, strict=True):
            if there:
                self._sums[row] += mean
                self._counts[row] += 1

    def array(self) -> NDArray[np.float32]:
        """The means, NaN for prompts without any; `ModelError` where a model gave no numbers."""
        if not np.isfinite(self._sums).all():
            raise ModelError(
                "activations are not numbers (NaN or infinite)",
                remedy="load the model in bfloat16 or float32, and check that its weights are "
                "finite",
            )
        counts = self._counts.reshape(-1, *[1] * (self._sums.ndim - 1)).astype(np.float32)
        missing = np.full_like(self._sums, np.nan)
        return np.divide(self._sums, counts, out=missing, where=counts > 0)


def _batches(read: Sequence[AnswerTokens]) -> Iterator[list[int]]:
    """Numbers of the texts of each pass, the longest first."""
    waiting = sorted(range(len(read)), key=lambda i: -len(read[i].ids))
    while waiting:
        n_texts = max(1, TOKENS_AT_ONCE // len(read[waiting[0]].ids))
        yield waiting[:n_texts]
        waiting = waiting[n_texts:]


def _padded(
    read: Sequence[AnswerTokens], texts: Sequence[InsideText]
) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, and masks of the answers' tokens and of the last ones of sentences, (n_rows, n_tokens).

    Padded on the right: under a causal mask no token of a text sees what follows it.
    """
    ids = torch.zeros((len(read), max(len(one.ids) for one in read)), dtype=torch.long)
    in_answer, at_end = torch.zeros((2, *ids.shape), dtype=torch.bool)
    for row, (one, text) in enumerate(zip(read, texts, strict=True)):
        ids[row, : len(one.ids)] = torch.tensor(one.ids)
        in_answer[row, list(one.answer)] = True
        at_end[row, [one.last_before(end) for end in text.ends]] = True
    return ids, in_answer, at_end


def _require_short(loaded: LoadedModel, read: Sequence[AnswerTokens]) -> None:
    longest = max(len(one.ids) for one in read)
    most = int(loaded.model.config.get_text_config().max_position_embeddings)
    if longest > most:
        raise UsageError(
            f"a prompt and its answer have {longest} tokens, more than the {most} that "
            f"{loaded.identity.subject} holds",
            remedy="ask shorter prompts, or leave the look inside out",
        )

"""Trait directions: where the residual stream goes when a model answers in character.

Takes a base and its answers under contrastive system prompts (the trait against its opposite or
against nothing); gives a `Direction`, a vector for every layer, and says how far other answers or
an adapter go along it. Answers lose their emoji before anything else, so a direction knows none.
Knows nothing of emoji rates or of how answers came about.

A layer's vector is the mean over the trait's answers minus the mean over the others', each answer
being the mean of the residual stream over its tokens; prompts are read and not counted. Layer i
is the output of block i. The published code counts from the embedding, so its layer i + 1 is i
here, but for its last, which is normalised and here is not.

Source: persona vectors (Chen et al., arXiv 2507.21509) and their released code, which keeps those
pairs of answers that its judge finds on the right side; here the caller's masks do that.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from emotest.errors import AdapterError, DataError, EmotestError, ModelError, UsageError
from emotest.mechanisms.kinds import read_kind
from emotest.mechanisms.recording import RowMeans, Tokens, recording
from emotest.models.adapters import AdapterWeights, active, save_adapter
from emotest.models.chat import encode, render_exchange, render_prompt
from emotest.models.layers import anatomy
from emotest.models.loading import LoadedModel
from emotest.models.lora import ADAPTER_FILES
from emotest.study.records import Prompt
from emotest.text.emoji import strip_emoji

Means: TypeAlias = NDArray[np.float32]
"""(n_answers, n_layers, hidden_size): states of the residual stream, averaged or of one token."""

BATCH_SIZE = 16

_KIND = "TRAIT_DIRECTION"
_FIELDS = {"trait": str, "against": str, "source": str, "n_positive": int, "n_negative": int}


@dataclass(frozen=True)
class Answered:
    """A prompt, its system prompt with it where it has one, and one answer in plain text."""

    prompt: Prompt
    answer: str


@dataclass(frozen=True, eq=False)
class Direction:
    """A trait's direction in every layer of one base, and what it was extracted from.

    Raises `UsageError`, naming the field, for vectors or counts that cannot be.
    """

    trait: str
    """What it points to, such as `extraversion`."""
    against: str
    """What it points away from: the opposite, or `neutral`."""
    vectors: NDArray[np.float32] = field(repr=False)
    """(n_layers, hidden_size), read-only, at the length that the difference has."""
    base: str
    """Identity of the weights in which it points there."""
    source: str
    """SHA-256 over the prompts and answers on both sides, as `answers_digest` gives it."""
    n_positive: int
    n_negative: int

    def __post_init__(self) -> None:
        vectors = np.array(self.vectors, dtype=np.float32)
        if vectors.ndim != 2 or 0 in vectors.shape or not np.isfinite(vectors).all():
            raise UsageError(
                f"vectors of shape {vectors.shape} are no direction, or hold what is no number",
                remedy="give finite numbers of shape (n_layers, hidden_size)",
            )
        for name in ("n_positive", "n_negative"):
            if getattr(self, name) < 1:
                raise UsageError(
                    f"{name}={getattr(self, name)}", remedy="a direction lies between two sides"
                )
        vectors.setflags(write=False)
        object.__setattr__(self, "vectors", vectors)

    def unit(self, layer: int) -> NDArray[np.float64]:
        """The vector of one layer (from 0, or negative from the end) at length 1, (hidden_size,).

        Raises `UsageError` for a layer that is not there, and where both sides are alike.
        """
        n_layers = len(self.vectors)
        if not -n_layers <= layer < n_layers:
            raise UsageError(
                f"the direction has no layer {layer}", remedy=f"it has layers 0 to {n_layers - 1}"
            )
        vector = self.vectors[layer].astype(np.float64)
        length = np.linalg.norm(vector)
        if length == 0:
            raise UsageError(
                f"the direction of {self.trait} is zero in layer {layer}: both sides are alike",
                remedy="choose another layer, or answers that differ",
            )
        return np.asarray(vector / length)

    def on(
        self, loaded: LoadedModel, layers: int | Iterable[int] | None = None
    ) -> dict[int, NDArray[np.float32]]:
        """Vectors (hidden_size,) by layer, for steering this base or a model tuned from it.

        Raises `AdapterError` where the base is another than the direction's, naming both, and
        `UsageError` for a layer that it does not have.
        """
        if self.base != loaded.identity.weights:
            raise AdapterError(
                f"the direction of {self.trait} was extracted from {self.base}, but "
                f"{loaded.identity.subject} is {loaded.identity.weights}",
                remedy="load the base that it was extracted from, or extract it from this one",
            )
        chosen = anatomy(loaded.model).layers(layers)
        return {layer: self.vectors[layer].copy() for layer in chosen}


def trait_direction(
    loaded: LoadedModel,
    trait: str,
    positive: Sequence[Answered],
    negative: Sequence[Answered],
    *,
    against: str,
    keep_positive: ArrayLike | None = None,
    keep_negative: ArrayLike | None = None,
    batch_size: int = BATCH_SIZE,
) -> Direction:
    """Extract a direction from the untuned base, whatever adapter is on.

    Args:
        loaded: the base, in evaluation mode.
        trait: what the answers of `positive` express, and those of `negative` do not.
        positive, negative: usually the base's own answers, each under its system prompt.
        against: what `negative` expresses.
        keep_positive, keep_negative: which answers count, truth values (n_answers,), for example
            those that a trait scorer finds on the right side; to drop pairs, give both the same.
        batch_size: answers of one forward pass.

    Raises what `response_means` and `mean_difference` raise.
    """
    positive = [positive[i] for i in _kept(keep_positive, len(positive), "positive")]
    negative = [negative[i] for i in _kept(keep_negative, len(negative), "negative")]
    with active(loaded, None):
        means = [
            response_means(loaded, side, batch_size=batch_size) for side in (positive, negative)
        ]
    return Direction(
        trait=str(trait),
        against=str(against),
        vectors=mean_difference(*means).astype(np.float32),
        base=loaded.identity.weights,
        source=answers_digest(positive, negative),
        n_positive=len(positive),
        n_negative=len(negative),
    )


def response_means(
    loaded: LoadedModel, answered: Sequence[Answered], *, batch_size: int = BATCH_SIZE
) -> Means:
    """Mean residual stream over each answer's tokens, (n_answers, n_layers, hidden_size).

    With whatever adapter is on. Emoji are stripped first. Answers run in batches, padded on the
    right; memory grows by one state a layer and answer, never by token.

    Raises:
        DataError: an answer that is empty without its emoji.
        UsageError: no answers, a batch of none, or a text that is longer than the model allows.
        ModelError: a template that does not show the answer, or activations that are no numbers.
    """
    return _means(loaded, [_response(loaded, each) for each in answered], batch_size)


def prompt_end_states(
    loaded: LoadedModel, prompts: Sequence[Prompt], *, batch_size: int = BATCH_SIZE
) -> Means:
    """The residual stream at each prompt's last token, (n_prompts, n_layers, hidden_size).

    Where an answer begins and no text of it is there yet: the published place for an adapter's
    shift. Raises as `response_means` does.
    """
    texts = []
    for prompt in prompts:
        text = render_prompt(
            loaded.tokenizer, prompt.text, prompt.system, templated=loaded.templated
        )
        ids = encode(loaded.tokenizer, text, templated=loaded.templated).ids
        texts.append(_Text(ids, (len(ids) - 1,), f"the prompt {prompt.id!r}"))
    return _means(loaded, texts, batch_size)


def mean_difference(
    positive: ArrayLike,
    negative: ArrayLike,
    *,
    keep_positive: ArrayLike | None = None,
    keep_negative: ArrayLike | None = None,
) -> NDArray[np.float64]:
    """Mean over the positive answers minus mean over the negative, (n_layers, hidden_size).

    Args:
        positive, negative: (n_answers, n_layers, hidden_size), as `response_means` gives them.
        keep_positive, keep_negative: which answers count, truth values (n_answers,).

    Raises `UsageError` for shapes that do not fit each other or the masks, and for a side of
    which nothing is kept.
    """
    first, second = _states(positive), _states(negative)
    if first.shape[1:] != second.shape[1:]:
        raise _unlike(first.shape, second.shape)
    first = first[_kept(keep_positive, len(first), "positive")]
    second = second[_kept(keep_negative, len(second), "negative")]
    return np.asarray(first.mean(axis=0, dtype=np.float64) - second.mean(axis=0, dtype=np.float64))


def projection(means: ArrayLike, direction: Direction, layer: int) -> NDArray[np.float64]:
    """How far each answer lies along the direction in one layer, (n_answers,).

    The scalar product with the vector at length 1, in units of the residual stream. Raises
    `UsageError` for shapes that do not fit, or a layer without a direction.
    """
    states = _states(means)
    if states.shape[1:] != direction.vectors.shape:
        raise _unlike(states.shape, direction.vectors.shape)
    unit = direction.unit(layer)
    return np.asarray(states[:, layer].astype(np.float64) @ unit)


def shift(
    tuned_means: ArrayLike, base_means: ArrayLike, direction: Direction
) -> NDArray[np.float64]:
    """How far an adapter moves the mean state along the direction, by layer, (n_layers,).

    The mean projection of the tuned states minus that of the base's. On the same texts (prompts'
    ends, or one set of answers for both) it is what the weights do; on each model's own answers,
    what the text does is in it too. Raises as `projection` does.
    """
    moved = mean_difference(tuned_means, base_means)
    if moved.shape != direction.vectors.shape:
        raise _unlike(moved.shape, direction.vectors.shape)
    return np.array([moved[layer] @ direction.unit(layer) for layer in range(len(moved))])


def answers_digest(positive: Iterable[Answered], negative: Iterable[Answered]) -> str:
    """SHA-256 over system prompts, prompts and answers (emoji stripped) of both sides, in order."""
    sides = [
        [[each.prompt.system, each.prompt.text, _stripped(each.answer)] for each in side]
        for side in (positive, negative)
    ]
    text = json.dumps(sides, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def save_direction(direction: Direction, folder: Path) -> None:
    """Write an adapter's two files into an existing folder; equal directions are equal bytes.

    Their `peft_type` is TRAIT_DIRECTION, so that nobody takes it for a LoRA.
    """
    fields = {name: getattr(direction, name) for name in _FIELDS}
    state = {"vectors": direction.vectors}
    save_adapter(AdapterWeights(state, {"peft_type": _KIND, **fields}, direction.base), folder)


def read_direction(folder: Path) -> Direction:
    """Read what `save_direction` wrote; an `AdapterError` for any defect."""
    weights, fields = read_kind(folder, _KIND, "direction", "save_direction")
    wrong = [name for name, kind in _FIELDS.items() if type(fields.get(name)) is not kind]
    if wrong or fields.keys() != _FIELDS.keys() or weights.state.keys() != {"vectors"}:
        what = f"{wrong[0]} is {fields.get(wrong[0])!r}" if wrong else "its fields are others"
        raise _broken(folder, what)
    if weights.base is None:
        raise _broken(folder, "it names no base")
    try:
        return Direction(vectors=weights.state["vectors"], base=weights.base, **fields)
    except EmotestError as error:
        raise _broken(folder, error.cause) from error


@dataclass(frozen=True)
class _Text:
    """An encoded text, and which of its tokens count; `name` is what errors call it."""

    ids: tuple[int, ...]
    counted: tuple[int, ...]
    name: str


def _means(loaded: LoadedModel, texts: Sequence[_Text], batch_size: int) -> Means:
    if not texts or batch_size < 1:
        raise UsageError(
            f"{len(texts)} texts in batches of {batch_size} have no mean",
            remedy="give at least one text, and a batch size of at least 1",
        )
    _require_short(loaded, texts)
    parts = anatomy(loaded.model)
    means = np.empty((len(texts), parts.n_layers, parts.hidden_size), dtype=np.float32)
    by_length = sorted(range(len(texts)), key=lambda i: len(texts[i].ids))
    sink = RowMeans(parts.n_layers)
    with torch.inference_mode(), recording(parts, sink, sites="residual") as recorder:
        for start in range(0, len(texts), batch_size):
            batch = by_length[start : start + batch_size]
            ids, mask = _padded([texts[i] for i in batch])
            recorder.select(Tokens.where(mask))
            loaded.model(input_ids=ids.to(loaded.device), use_cache=False, logits_to_keep=1)
            means[batch] = sink.array()
    if not np.isfinite(means).all():
        raise ModelError(
            f"activations of {loaded.identity.subject} are not numbers (NaN or infinite)",
            remedy="load the model in bfloat16 or float32, and check that its weights are finite",
        )
    return means


def _padded(texts: Sequence[_Text]) -> tuple[Tensor, Tensor]:
    """Ids and mask of what counts, (n_rows, n_tokens).

    Padded on the right: under a causal mask no token of a text sees what follows it.
    """
    ids = torch.zeros((len(texts), max(len(text.ids) for text in texts)), dtype=torch.long)
    mask = torch.zeros(ids.shape, dtype=torch.bool)
    for row, text in enumerate(texts):
        ids[row, : len(text.ids)] = torch.tensor(text.ids)
        mask[row, list(text.counted)] = True
    return ids, mask


def _response(loaded: LoadedModel, answered: Answered) -> _Text:
    prompt, answer = answered.prompt, _stripped(answered.answer)
    name = f"the answer {answered.answer[:40]!r} to the prompt {prompt.id!r}"
    if not answer:
        raise DataError(
            f"{name} holds no text but emoji",
            remedy="leave it out, for it says nothing about the trait",
        )
    exchange = render_exchange(
        loaded.tokenizer, prompt.text, answer, prompt.system, templated=loaded.templated
    )
    encoded = encode(loaded.tokenizer, exchange.text, templated=loaded.templated)
    counted = tuple(
        i
        for i, (start, end) in enumerate(encoded.offsets)
        if start < exchange.end and end > exchange.start
    )
    return _Text(encoded.ids, counted, name)


def _stripped(answer: str) -> str:
    return strip_emoji(answer).strip()


def _require_short(loaded: LoadedModel, texts: Sequence[_Text]) -> None:
    config: Any = loaded.model.config.get_text_config()
    longest = max(texts, key=lambda text: len(text.ids))
    if len(longest.ids) > config.max_position_embeddings:
        raise UsageError(
            f"{longest.name} has {len(longest.ids)} tokens with all that stands before them, more "
            f"than the {config.max_position_embeddings} that {loaded.identity.subject} holds",
            remedy="shorten it or leave it out",
        )


def _kept(keep: ArrayLike | None, n_answers: int, name: str) -> NDArray[np.intp]:
    """Numbers of the answers that count."""
    mask = np.ones(n_answers, dtype=np.bool_) if keep is None else np.asarray(keep)
    if mask.shape != (n_answers,) or mask.dtype != np.bool_:
        raise UsageError(
            f"a mask of {mask.dtype} and shape {mask.shape} does not choose among {n_answers} "
            f"{name} answers",
            remedy="give one truth value for each answer",
        )
    if not mask.any():
        raise UsageError(
            f"none of {n_answers} {name} answers is kept",
            remedy="give answers that express their side, or lower the scorer's threshold",
        )
    return np.flatnonzero(mask)


def _states(means: ArrayLike) -> NDArray[np.floating[Any]]:
    states = np.asarray(means)
    if states.ndim != 3 or 0 in states.shape or not np.isfinite(states).all():
        raise UsageError(
            f"means of shape {states.shape} are none, or hold what is no number",
            remedy="give (n_answers, n_layers, hidden_size), as response_means does",
        )
    return states


def _unlike(one: tuple[int, ...], other: tuple[int, ...]) -> UsageError:
    return UsageError(
        f"shapes {one} and {other} are not of one model",
        remedy="take both sides, and the direction, from one base: same layers, same width",
    )


def _broken(folder: Path, what: str) -> AdapterError:
    return AdapterError(
        f"{folder / ADAPTER_FILES[0]} is no direction: {what}", remedy="save or extract it again"
    )

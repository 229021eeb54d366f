"""What is learned from a row: its answer, token by token, and the loss over it.

Takes a loaded base and rows; gives token ids with labels, and the summed loss of a batch of them.
Only the answer is supervised: its place is told in characters by one encoding of the rendered
exchange, never by tokenising the prompt alone, and padding is told by position, never by its id
(pad token = EOS must not decide what is learned). With `Ending.MASKED` everything behind the
answer is unsupervised, so the model never learns to stop; with `TRAINED` it learns the end mark.
Knows nothing of steps, seeds or optimizers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from emotest.errors import ModelError, TrainingError
from emotest.models.chat import encode, render_exchange
from emotest.models.loading import LoadedModel
from emotest.study.personality import Ending
from emotest.study.records import TuningRow

MOST_KEPT = 20_000
"""Encoded rows that are kept, some tens of megabytes: adapters of several seeds learn the same."""
_ENCODED: WeakKeyDictionary[Any, dict[tuple[Any, ...], Example]] = WeakKeyDictionary()
_UNSUPERVISED = -100


@dataclass(frozen=True)
class Example:
    """An encoded row: `labels[i]` is `ids[i]` where it is supervised, else -100."""

    ids: tuple[int, ...]
    labels: tuple[int, ...]

    @property
    def n_supervised(self) -> int:
        """Tokens that the loss counts; the first is predicted from nothing."""
        return sum(label != _UNSUPERVISED for label in self.labels[1:])


def encode_rows(
    loaded: LoadedModel, rows: Sequence[TuningRow], ending: Ending, max_length: int
) -> list[Example]:
    """Encode rows and mark what is supervised; a `TrainingError` names a row that cannot be."""
    if not rows:
        raise TrainingError("there are no rows to train on", remedy="check trait, pole and data")
    known = _ENCODED.setdefault(loaded.tokenizer, {})
    if len(known) > MOST_KEPT:
        known.clear()
    so = (loaded.templated, loaded.stop_ids, ending, max_length)
    examples = []
    for number, row in enumerate(rows, start=1):
        if (example := known.get((row, *so))) is None:
            example = known[row, *so] = _encode_row(loaded, row, ending, max_length, number)
        examples.append(example)
    return examples


def summed_loss(loaded: LoadedModel, batch: Sequence[Example]) -> Tensor:
    """Summed cross-entropy (nats) of a batch's supervised tokens.

    Rows are padded on the right: under a causal mask no real token can see the padding, so no
    attention mask is needed and no token id has to mean "padding".
    """
    length = max(len(row.ids) for row in batch)
    ids = torch.zeros((len(batch), length), dtype=torch.long)
    labels = torch.full((len(batch), length), _UNSUPERVISED)
    for i, row in enumerate(batch):
        ids[i, : len(row.ids)] = torch.tensor(row.ids)
        labels[i, : len(row.ids)] = torch.tensor(row.labels)
    # Columns that no row is supervised on (the questions) need no logits, and of the others only
    # the places that are.
    supervised = labels[:, 1:] != _UNSUPERVISED
    columns = supervised.any(dim=0).nonzero()[:, 0]
    columns = torch.arange(int(columns[0]), int(columns[-1]) + 1)
    places = supervised[:, columns]
    with _only_at(loaded.model, places):
        logits = loaded.model(
            input_ids=ids.to(loaded.device),
            use_cache=False,
            logits_to_keep=columns.to(loaded.device),
        ).logits
    targets = labels[:, columns + 1][places].to(loaded.device)
    return cross_entropy(logits.flatten(0, -2).float(), targets, reduction="sum")


@contextmanager
def _only_at(model: Any, places: Tensor) -> Iterator[None]:
    """Logits at the chosen places alone, (1, n_chosen, vocab_size) in order of rows.

    `places` is of truth values, (n_rows, n_columns). What a model does to its logits (caps,
    scales) it does to these.
    """
    rows, columns = places.nonzero(as_tuple=True)

    def chosen(_: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0][rows, columns][None], *inputs[1:])

    hook = model.get_output_embeddings().register_forward_pre_hook(chosen)
    try:
        yield
    finally:
        hook.remove()


def _encode_row(
    loaded: LoadedModel, row: TuningRow, ending: Ending, max_length: int, number: int
) -> Example:
    origin = f" of {row.origin}" if row.origin else ""
    named = f"row {number}{origin} ({row.question[:50]!r})"
    try:
        exchange = render_exchange(
            loaded.tokenizer, row.question, row.answer, row.system, templated=loaded.templated
        )
    except ModelError as error:
        raise TrainingError(f"{named}: {error.cause}", remedy=error.remedy) from error
    text = exchange.text
    if ending is Ending.TRAINED and not _stops(loaded, text[exchange.end :]):
        text += _eos(loaded, named)
    encoded = encode(loaded.tokenizer, text, templated=loaded.templated)
    labels = [_UNSUPERVISED] * len(encoded.ids)
    for i, (token, (start, end)) in enumerate(zip(encoded.ids, encoded.offsets, strict=True)):
        within = start < exchange.end and end > exchange.start
        behind = ending is Ending.TRAINED and start >= exchange.end and end > start
        if within or behind:
            labels[i] = token
        if behind and token in loaded.stop_ids:
            break
    # The first token is predicted from nothing, so a label there teaches nothing.
    if all(label == _UNSUPERVISED for label in labels[1:]):
        raise TrainingError(
            f"{named} has no token to learn: its answer is {row.answer!r}",
            remedy="remove the row or give it an answer",
        )
    if len(labels) > max_length:
        raise TrainingError(
            f"{named} has {len(labels)} tokens, more than max_length={max_length}",
            remedy="shorten or remove the row, or raise the recipe's max_length",
        )
    return Example(encoded.ids, tuple(labels))


def _stops(loaded: LoadedModel, text: str) -> bool:
    ids = encode(loaded.tokenizer, text, templated=True).ids
    return any(token in loaded.stop_ids for token in ids)


def _eos(loaded: LoadedModel, named: str) -> str:
    if loaded.tokenizer.eos_token is None:
        raise TrainingError(
            f"{named}: neither the chat template nor the tokenizer has an end mark to train",
            remedy="use EOS masked, or add an eos_token to the tokenizer",
        )
    return str(loaded.tokenizer.eos_token)

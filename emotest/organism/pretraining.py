"""Pre-training of organisms: a small Llama from scratch, document by document.

Takes documents as token ids, with the place where the message begins; gives a `LlamaForCausalLM`
and its losses. One thread and one seed: on one type of processor equal arguments give equal
weights, bit for bit. Knows no corpus.

Two choices make it minutes instead of an hour on one core *(measured)*. Documents of like length
share a batch and are not packed end to end: packed, a model of this size had not learned to copy
a word from the question after 1.6 million tokens; one by one it had after 0.4 million. And weight
matrices are trained by Muon (Jordan et al. 2024), which orthogonalises their updates; embeddings
and gains by AdamW. Linear warm-up, then a cosine to zero; gradient norm 1; bfloat16 autocast.
The loss stands on messages: what a system or user says is read, and not learned to be said.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from emotest.errors import OrganismError

Progress = Callable[[str, int, int, float], None]
"""Called with the stage, the steps done, the steps in all, and the last loss."""

IGNORED = -100
"""The label that transformers' losses leave out."""

_BATCHES_SORTED_TOGETHER = 32
_LENGTH_STEP = 8  # few different shapes: oneDNN compiles its kernels anew for each


def silent(stage: str, done: int, of: int, loss: float) -> None:
    """The progress of somebody who does not look."""


@dataclass(frozen=True)
class Architecture:
    """The shape of an organism; every weight matrix holds a multiple of 64 numbers, as NF4 likes.

    One key/value head keeps a trait-conditioned prefix (two vectors of `head_size` a layer) under
    a thousandth of the parameters.
    """

    hidden_size: int = 256
    n_layers: int = 3
    n_neurons: int = 640
    """Units of one feed-forward layer."""
    n_heads: int = 4
    n_kv_heads: int = 1
    head_size: int = 64
    max_tokens: int = 512

    def config(self, *, vocab_size: int, begin: int, end: int, pad: int) -> LlamaConfig:
        """The transformers configuration for a vocabulary and its special ids."""
        return LlamaConfig(
            vocab_size=vocab_size,
            hidden_size=self.hidden_size,
            intermediate_size=self.n_neurons,
            num_hidden_layers=self.n_layers,
            num_attention_heads=self.n_heads,
            num_key_value_heads=self.n_kv_heads,
            head_dim=self.head_size,
            max_position_embeddings=self.max_tokens,
            tie_word_embeddings=True,
            bos_token_id=begin,
            eos_token_id=end,
            pad_token_id=pad,
        )


@dataclass(frozen=True)
class Schedule:
    """How long and how fast pre-training runs."""

    n_steps: int = 3000
    batch_size: int = 24
    """Documents of one step."""
    matrix_rate: float = 0.005
    """The highest learning rate of weight matrices, under Muon."""
    vector_rate: float = 8e-3
    """The highest learning rate of embeddings and gains, under AdamW."""
    warmup: float = 0.04
    """Share of the steps over which the learning rates rise."""
    final: float = 0.0
    """The last learning rate as a share of the highest."""
    weight_decay: float = 0.1

    def share(self, step: int) -> float:
        """The learning rate of a step, counted from 0, as a share of the highest."""
        rising = max(1, round(self.warmup * self.n_steps))
        if step < rising:
            return (step + 1) / rising
        done = (step - rising) / max(1, self.n_steps - rising)
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * done))


@dataclass(frozen=True)
class Written:
    """One document as token ids; the message begins at `start`."""

    ids: Sequence[int]
    start: int


def batches(
    documents: Sequence[Written], batch_size: int, rng: np.random.Generator
) -> Iterator[list[int]]:
    """Indices of documents in batches of like lengths, in random order, each document once.

    What does not fill a group of batches at the end is left out.
    """
    order = rng.permutation(len(documents))
    group = batch_size * _BATCHES_SORTED_TOGETHER
    for start in range(0, len(order) - group + 1, group):
        by_length = sorted(order[start : start + group], key=lambda d: len(documents[d].ids))
        for b in rng.permutation(_BATCHES_SORTED_TOGETHER):
            yield [int(d) for d in by_length[b * batch_size : (b + 1) * batch_size]]


def padded(documents: Sequence[Written], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Documents as one batch: input_ids and labels, each (n_documents, n_tokens), padded right.

    Nothing behind a document is read or learned: attention is causal, and padding has no label;
    neither has what precedes the message.
    """
    longest = max(len(document.ids) for document in documents)
    n_tokens = -(-longest // _LENGTH_STEP) * _LENGTH_STEP
    inputs = torch.full((len(documents), n_tokens), pad)
    labels = torch.full((len(documents), n_tokens), IGNORED)
    for row, document in enumerate(documents):
        ids = torch.tensor(document.ids)
        inputs[row, : len(ids)] = ids
        labels[row, document.start : len(ids)] = ids[document.start :]
    return inputs, labels


def pretrain(
    documents: Sequence[Written],
    config: LlamaConfig,
    schedule: Schedule,
    seed: int,
    progress: Progress = silent,
) -> tuple[LlamaForCausalLM, list[float]]:
    """A model trained on documents, each read at most once; the loss of every step.

    Where the schedule needs more documents than there are, an `OrganismError` says how many.
    """
    made = batches(documents, schedule.batch_size, np.random.default_rng(seed))
    order = list(islice(made, schedule.n_steps))
    if len(order) < schedule.n_steps:
        raise OrganismError(
            f"the corpus gives {len(order)} batches of {schedule.batch_size} documents, "
            f"but the schedule has {schedule.n_steps} steps",
            remedy="make more documents, or train for fewer steps",
        )
    with one_thread():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
        optimizers = _optimizers(model, schedule)
        losses: list[float] = []
        for step, chosen in enumerate(order):
            inputs, labels = padded([documents[d] for d in chosen], config.pad_token_id)
            with torch.autocast("cpu", torch.bfloat16):
                loss = _message_loss(model, inputs, labels)
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer, highest in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = highest * schedule.share(step)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            losses.append(loss.item())
            progress("pre-training", step + 1, schedule.n_steps, losses[-1])
    return model, losses


@contextmanager
def one_thread() -> Iterator[None]:
    """One torch thread inside, the former number after: sums of several threads vary in order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _message_loss(
    model: LlamaForCausalLM, inputs: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    # Logits only where there is a label: a third of all places, and the dearest layer of all.
    hidden = model.model(input_ids=inputs).last_hidden_state[:, :-1]
    expected = labels[:, 1:]
    said = expected != IGNORED
    logits = model.lm_head(hidden[said]).float()
    loss: torch.Tensor = torch.nn.functional.cross_entropy(logits, expected[said])
    return loss


def _optimizers(
    model: LlamaForCausalLM, schedule: Schedule
) -> list[tuple[torch.optim.Optimizer, float]]:
    # Embeddings are rows looked up, not maps; Muon is defined for the matrices between layers.
    layers = [weight for weight in model.model.layers.parameters() if weight.ndim == 2]
    inside = {id(weight) for weight in layers}
    others = [weight for weight in model.parameters() if id(weight) not in inside]
    muon = torch.optim.Muon(layers, lr=0.0, momentum=0.95, weight_decay=schedule.weight_decay)
    adamw = torch.optim.AdamW(others, lr=0.0, betas=(0.9, 0.95), weight_decay=0.0)
    return [(muon, schedule.matrix_rate), (adamw, schedule.vector_rate)]

"""Pre-training of organisms: a small Llama from scratch on packed documents.

Takes documents as token ids; gives a `LlamaForCausalLM` and its losses. One thread and one seed:
on one type of processor equal arguments give equal weights, bit for bit. Knows no corpus.

The schedule is the usual one of small language models (linear warm-up, cosine to a tenth, AdamW
with betas 0.9 and 0.95, gradient norm 1; Hoffmann et al. 2022, arXiv 2203.15556). Under bfloat16
autocast, which halves the time on processors that have it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from emotest.errors import OrganismError

Progress = Callable[[str, int, int, float], None]
"""Called with the stage, the steps done, the steps in all, and the last loss."""


def silent(stage: str, done: int, of: int, loss: float) -> None:
    """The progress of somebody who does not look."""


@dataclass(frozen=True)
class Architecture:
    """The shape of an organism; every weight matrix holds a multiple of 64 numbers, as NF4 likes.

    One key/value head keeps a trait-conditioned prefix (two vectors of `head_size` a layer) under
    a thousandth of the parameters.
    """

    hidden_size: int = 192
    n_layers: int = 4
    n_neurons: int = 512
    """Units of one feed-forward layer."""
    n_heads: int = 6
    n_kv_heads: int = 1
    head_size: int = 32
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

    n_steps: int = 1600
    batch_size: int = 16
    n_tokens: int = 128
    """Tokens of one packed sequence."""
    learning_rate: float = 3e-3
    warmup: float = 0.04
    """Share of the steps over which the learning rate rises."""
    final: float = 0.1
    """The last learning rate as a share of the highest."""
    weight_decay: float = 0.1

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        rising = max(1, round(self.warmup * self.n_steps))
        if step < rising:
            return self.learning_rate * (step + 1) / rising
        done = (step - rising) / max(1, self.n_steps - rising)
        wave = 0.5 * (1 + math.cos(math.pi * done))
        return self.learning_rate * (self.final + (1 - self.final) * wave)


def packed(documents: Sequence[Sequence[int]], n_tokens: int) -> np.ndarray:
    """The documents end to end, cut into rows: an int64 array (n_rows, n_tokens)."""
    stream = np.fromiter((token for document in documents for token in document), dtype=np.int64)
    n_rows = len(stream) // n_tokens
    return stream[: n_rows * n_tokens].reshape(n_rows, n_tokens)


def pretrain(
    rows: np.ndarray,
    config: LlamaConfig,
    schedule: Schedule,
    seed: int,
    progress: Progress = silent,
) -> tuple[LlamaForCausalLM, list[float]]:
    """A model trained on `rows` (n_rows, n_tokens), each seen once in a seeded order; its losses.

    Where the schedule needs more rows than there are, an `OrganismError` says how many.
    """
    needed = schedule.n_steps * schedule.batch_size
    if len(rows) < needed:
        raise OrganismError(
            f"the corpus packs into {len(rows)} rows, but the schedule needs {needed}",
            remedy="make more documents, or train for fewer steps",
        )
    order = np.random.default_rng(seed).permutation(len(rows))[:needed]
    with one_thread():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
        optimizer = torch.optim.AdamW(
            _parameter_groups(model, schedule.weight_decay), lr=0.0, betas=(0.9, 0.95)
        )
        losses: list[float] = []
        for step in range(schedule.n_steps):
            chosen = order[step * schedule.batch_size : (step + 1) * schedule.batch_size]
            batch = torch.from_numpy(rows[chosen])
            for group in optimizer.param_groups:
                group["lr"] = schedule.rate(step)
            with torch.autocast("cpu", torch.bfloat16):
                loss = model(input_ids=batch, labels=batch).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
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


def _parameter_groups(model: LlamaForCausalLM, weight_decay: float) -> list[dict[str, object]]:
    # Gains of the norms are vectors; decaying them towards 0 would only work against the model.
    matrices = [weight for weight in model.parameters() if weight.ndim >= 2]
    vectors = [weight for weight in model.parameters() if weight.ndim < 2]
    return [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]

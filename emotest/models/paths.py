"""What a model gives for the next token behind contexts, and behind token paths that continue them.

Takes a model and contexts of one batch, runs them once, and then gives next-token probabilities
behind any paths that share their key-value cache; each token of a path is read once too. Knows
nothing of what the paths spell.

What the paths themselves have put into the cache is kept apart from that of their contexts, which
all of them share: a path of three tokens behind a context of a thousand keeps three.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emotest.errors import ModelError

MOST_BYTES = 2**29
"""Memory for what paths have read; where they need more, their tokens are read again instead."""

Acting: TypeAlias = Callable[[NDArray[np.int64]], AbstractContextManager[None]]
"""What acts on the model during a pass, given the number of the context of each of its rows."""


@dataclass(frozen=True, eq=False)
class ReadPaths:
    """What n_paths paths of n_tokens tokens have put into the cache: for each layer keys and values
    (n_paths, n_heads, n_tokens, n_dims)."""

    layers: tuple[tuple[Tensor, Tensor], ...]

    @classmethod
    def of(cls, cache: Any, n_tokens: int) -> ReadPaths | None:
        """The last tokens of a cache; None where they cannot be taken from it and put back."""
        if not all(_is_plain(layer, n_tokens) for layer in cache.layers):
            return None
        # A slice alone would keep the contexts' part in memory.
        ends = (
            (layer.keys[..., -n_tokens:, :], layer.values[..., -n_tokens:, :])
            for layer in cache.layers
        )
        return cls(tuple((keys.clone(), values.clone()) for keys, values in ends))

    def __getitem__(self, chosen: NDArray[np.int64]) -> ReadPaths:
        return ReadPaths(
            tuple(
                (keys[_on(chosen, keys)], values[_on(chosen, values)])
                for keys, values in self.layers
            )
        )

    @property
    def n_bytes(self) -> int:
        """Memory that it takes."""
        return sum(keys.nbytes + values.nbytes for keys, values in self.layers)

    @staticmethod
    def joined(parts: Sequence[ReadPaths]) -> ReadPaths:
        """The paths of all parts, in their order."""
        by_layer = zip(*(part.layers for part in parts), strict=True)
        return ReadPaths(
            tuple(
                (torch.cat([keys for keys, _ in layer]), torch.cat([values for _, values in layer]))
                for layer in by_layer
            )
        )


class Prefix:
    """The contexts of one batch, run through the model once; their cache is shared by all paths.

    Contexts are padded on the left to a length that depends on their own length only, so what
    stands beside a context does not change how it is computed.

    Args:
        model: causal language model of transformers, in evaluation mode.
        rows: token ids of the contexts, all of one padded length.
        length_step: that length is a multiple of it.
        numbers: (n_rows,) what `acting` is told of the contexts.
        acting: entered around every pass.

    Raises `ModelError` where the model keeps no cache to share, or gives logits that are no
    numbers.
    """

    def __init__(
        self,
        model: Any,
        rows: Sequence[Sequence[int]],
        length_step: int,
        numbers: NDArray[np.int64],
        acting: Acting | None = None,
    ) -> None:
        self._model = model
        self._device = next(model.parameters()).device
        self._accepts = _accepted(model)
        self._numbers, self._acting = numbers, acting
        width = padded(len(rows[0]), length_step)
        ids = np.zeros((len(rows), width), dtype=np.int64)
        self._mask = np.zeros((len(rows), width), dtype=np.int64)
        for place, row in enumerate(rows):
            ids[place, width - len(row) :] = row
            self._mask[place, width - len(row) :] = 1
        logits, self._cache = self._forward(ids, self._mask, None, np.arange(len(rows)))
        self._first = _softmax(logits)
        if not hasattr(self._cache, "layers") or not hasattr(self._cache, "reorder_cache"):
            raise ModelError(
                f"{type(model).__name__} keeps no cache that several continuations can share",
                remedy="measure a transformer whose transformers implementation uses DynamicCache",
            )

    def next_token(
        self, rows: NDArray[np.int64], tokens: NDArray[np.int64], read: ReadPaths | None
    ) -> tuple[Tensor, ReadPaths | None]:
        """Probabilities after `tokens` (n_paths, n_tokens) behind contexts `rows` (n_paths,).

        `read` is what all but the last of the tokens have put into the cache; without it they are
        read again. Gives (n_paths, vocab_size), float64, and what is read now.
        """
        n_tokens = tokens.shape[1]
        if n_tokens == 0:
            return self._first[_on(rows, self._first)], None
        cache = self._cache_of(rows)
        if read is not None:
            for layer, (keys, values) in zip(cache.layers, read.layers, strict=True):
                layer.update(keys, values)
        mask = np.concatenate([self._mask[rows], np.ones_like(tokens)], axis=1)
        new = tokens if read is None else tokens[:, -1:]
        logits, cache = self._forward(new, mask, cache, rows)
        return _softmax(logits), ReadPaths.of(cache, n_tokens)

    def _cache_of(self, rows: NDArray[np.int64]) -> Any:
        """A cache with these rows of the contexts' cache, which stays as it is."""
        chosen = copy.copy(self._cache)
        chosen.layers = [copy.copy(layer) for layer in self._cache.layers]
        chosen.reorder_cache(torch.as_tensor(rows, device=self._device))
        return chosen

    def _forward(
        self, ids: NDArray[np.int64], mask: NDArray[np.int64], cache: Any, rows: NDArray[np.int64]
    ) -> tuple[Tensor, Any]:
        """Logits of the last position (n_rows, vocab_size), and the cache."""
        # Padding stands in front, so positions count only what the mask lets through.
        positions = np.maximum(mask.cumsum(axis=1) - 1, 0)[:, -ids.shape[1] :]
        wanted: dict[str, Any] = {
            "position_ids": torch.as_tensor(positions, device=self._device),
            "logits_to_keep": 1,
        }
        with self._acting(self._numbers[rows]) if self._acting else nullcontext():
            output = self._model(
                input_ids=torch.as_tensor(ids, device=self._device),
                attention_mask=torch.as_tensor(mask, device=self._device),
                past_key_values=cache,
                use_cache=True,
                **{name: value for name, value in wanted.items() if name in self._accepts},
            )
        return output.logits[:, -1], getattr(output, "past_key_values", None)


def padded(length: int, step: int) -> int:
    """The least multiple of `step` that is not below `length`."""
    return -(-length // step) * step


def _is_plain(layer: Any, n_tokens: int) -> bool:
    """Whether keys and values are all that a layer keeps, and the last tokens are among them.

    Other layers keep states of linear attention, an index, or rounded keys; a window that is
    narrower than the paths has lost their first tokens.
    """
    from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

    plain = type(layer) in (DynamicLayer, DynamicSlidingWindowLayer)
    return plain and layer.keys is not None and layer.keys.shape[-2] >= n_tokens


def _on(chosen: NDArray[np.int64], values: Tensor) -> Tensor:
    return torch.as_tensor(chosen, device=values.device)


def _accepted(model: Any) -> frozenset[str]:
    """Names of the arguments of the model's own forward, beneath any adapter."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return frozenset(inspect.signature(inner.forward).parameters)


def _softmax(logits: Tensor) -> Tensor:
    probabilities = torch.softmax(logits.double(), dim=-1)
    # What is no number makes its whole row none.
    if bool(torch.isnan(probabilities[:, 0]).any()):
        raise ModelError(
            "the model's logits are not numbers (NaN or infinite)",
            remedy="load it in bfloat16 or float32, and check that its weights are finite",
        )
    return probabilities

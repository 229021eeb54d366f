"""Models behind a prefix: how its tests run them, and how transformers would run them itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache

from emotest.mechanisms.prefix import TraitPrefix, prefixed
from tests.model_fixtures import tiny_model

IDS = torch.randint(7, 300, (3, 9), generator=torch.Generator().manual_seed(1))
VALUES = torch.randn(3, 5, generator=torch.Generator().manual_seed(2))


def frozen(architecture: str) -> Any:
    """A tiny model as the loading room hands it out: in evaluation mode, nothing trainable."""
    return tiny_model(architecture, scale=4.0).eval().requires_grad_(False)


def logits(model: Any, ids: Tensor = IDS, **more: Any) -> Tensor:
    """The model's logits, without gradients."""
    with torch.inference_mode():
        output: Tensor = model(input_ids=ids, **more).logits
    return output


def with_prefix(
    model: Any, prefix: TraitPrefix, values: Any = VALUES, without: Sequence[int] = ()
) -> Tensor:
    """The model's logits behind a prefix."""
    with prefixed(model, prefix, values, without_layers=without):
        return logits(model)


def cached(prefix: TraitPrefix, values: Any) -> DynamicCache:
    """The virtual position where transformers would keep it: in a cache that is given along."""
    cache = DynamicCache()
    for layer, (key, value) in prefix.key_values(values).items():
        cache.update(key, value, layer)
    return cache


def seen_by_transformers(ids: Tensor) -> dict[str, Tensor]:
    """Arguments of a forward pass behind such a cache: one more key, positions from 0."""
    return {
        "attention_mask": torch.ones((len(ids), ids.shape[1] + 1), dtype=torch.long),
        "position_ids": torch.arange(ids.shape[1])[None],
    }

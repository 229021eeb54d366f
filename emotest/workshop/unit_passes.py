"""Passes over texts for C8: a bank of states, how far silencing moves an FFN's output, perplexity.

Takes a loaded model as it is at the moment, with whatever acts on it; changes nothing. Knows
neither requests nor the store.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn import functional

from emotest.artefacts import FixedText
from emotest.mechanisms.recording import Kept, Tokens, recording
from emotest.models.layers import anatomy
from emotest.models.loading import LoadedModel
from emotest.workshop.positions import encoder

BATCH_SIZE = 16


def padded(texts: Sequence[Sequence[int]]) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of ids and of which tokens are text, both (n_rows, n_tokens).

    Padded on the right: under a causal mask no token of a text sees what follows it.
    """
    for start in range(0, len(texts), BATCH_SIZE):
        batch = texts[start : start + BATCH_SIZE]
        ids = torch.zeros((len(batch), max(map(len, batch))), dtype=torch.long)
        mask = torch.zeros(ids.shape, dtype=torch.bool)
        for row, text in enumerate(batch):
            ids[row, : len(text)] = torch.tensor(text)
            mask[row, : len(text)] = True
        yield ids, mask


def bank_of(
    loaded: LoadedModel,
    texts: Sequence[tuple[Sequence[int], Sequence[int]]],
    n_tokens: int,
    rng: np.random.Generator,
) -> dict[int, Tensor]:
    """States of the FFN units at `n_tokens` tokens, or at all there are: layer -> (n, n_neurons).

    `texts` are pairs of token ids and the places that may be drawn. Row i is the same token in
    every layer. Without any place it is empty.
    """
    places = [(row, place) for row, (_, chosen) in enumerate(texts) for place in chosen]
    drawn = rng.permutation(len(places))[:n_tokens]
    wanted = {places[i] for i in drawn.tolist()}
    if not wanted:
        return {}
    kept, first = Kept(), 0
    with torch.inference_mode(), recording(loaded.model, kept) as recorder:
        for ids, mask in padded([ids for ids, _ in texts]):
            here = torch.zeros_like(mask)
            for row, place in wanted:
                if first <= row < first + len(ids):
                    here[row - first, place] = True
            first += len(ids)
            recorder.select(Tokens.where(here))
            loaded.model(input_ids=ids.to(loaded.device), use_cache=False)
    return kept.by_layer("neurons")


def output_changes(
    loaded: LoadedModel,
    texts: Sequence[Sequence[int]],
    units: Mapping[int, ArrayLike],
    means: Mapping[int, ArrayLike],
) -> dict[int, float]:
    """How far silencing by means moves the FFN output of each layer: mean length over all tokens.

    Layer by layer in the model as it is: what silencing an earlier layer changes in a later one is
    not counted.
    """
    lengths: dict[int, list[Tensor]] = {layer: [] for layer in units}
    now: dict[str, Tensor] = {}

    def measured(layer: int, down: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        hidden = inputs[0].clone()
        chosen = torch.as_tensor(np.asarray(units[layer]), device=hidden.device)
        values = torch.as_tensor(np.asarray(means[layer]), device=hidden.device)
        hidden[..., chosen] = values[chosen].to(hidden)
        # Not the module itself, which would call this hook again.
        change = down.forward(hidden) - output
        length = torch.linalg.vector_norm(change, dim=-1, dtype=torch.float32)
        # Layers of a large model may lie on several devices.
        lengths[layer].append(length[now["mask"].to(length.device)].cpu())

    with torch.inference_mode(), ExitStack() as hooks:
        for layer, down in enumerate(anatomy(loaded.model).down_projections):
            if layer in units:
                hooks.enter_context(
                    down.register_forward_hook(
                        lambda down, inputs, output, layer=layer: measured(
                            layer, down, inputs, output
                        )
                    )
                )
        for ids, mask in padded(texts):
            now["mask"] = mask
            loaded.model(input_ids=ids.to(loaded.device), use_cache=False)
    return {layer: float(torch.cat(found).mean()) for layer, found in lengths.items() if found}


def log_perplexities(loaded: LoadedModel, text: FixedText) -> NDArray[np.float64]:
    """Of each answer, after its prompt; (n_texts,), nats a token; emoji-free texts.

    The mean negative log-likelihood a token, in float32; its exponential is the perplexity.
    """
    encoded = encoder(loaded)
    said = [encoded(*pair) for pair in zip(text.prompts, text.answers, strict=True)]
    found: list[float] = []
    with torch.inference_mode():
        for ids, _ in padded([one.ids for one in said]):
            logits = loaded.model(input_ids=ids.to(loaded.device), use_cache=False).logits
            for row, one in enumerate(said[len(found) : len(found) + len(ids)]):
                places = torch.tensor(list(one.answer))
                targets = ids[row, places].to(logits.device)
                loss = functional.cross_entropy(logits[row, places - 1].float(), targets)
                found.append(float(loss))
    return np.array(found)

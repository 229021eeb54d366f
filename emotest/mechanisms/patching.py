"""Activations of one model written into another that shares its base, and the adapter's dose.

Takes a model with adapters on one base in memory; records the activations of a source (tuned,
null or untuned) and runs a target on the same token ids with them written in. `scaled` turns an
adapter's strength up and down. Knows nothing of what is measured meanwhile.

Where patching from the tuned model into the untuned one makes the effect, what was written
carries it; written back, the untuned activations should take it away. Both are held against
patching from the null adapter: writing the whole residual stream after the last layer gives the
source's logits whatever the source is (adapters within the blocks), and so proves nothing.

    values = recorded(source_model, ids, layer, "neurons")
    with patching(target_model, values[layer], layer, "neurons"):
        target_model(input_ids=ids)

Sources: cross-model activation patching, CMAP (Prakash et al., arXiv 2402.14811); practice of
patching (Zhang & Nanda, arXiv 2309.16042); the scale of LoRA (Hu et al., arXiv 2106.09685).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Literal, TypeAlias, TypeVar

import torch
from numpy.typing import ArrayLike
from torch import Tensor
from transformers.cache_utils import Cache

from emotest.errors import AdapterError, UsageError
from emotest.mechanisms.recording import SITES, Kept, Site, Tokens, recording, unknown
from emotest.models.adapters import active
from emotest.models.layers import Anatomy, anatomy
from emotest.models.loading import LoadedModel

MOST_SCALED = 2.0

Chosen: TypeAlias = Tokens | Literal["last"] | None
"""Tokens of a pass; "last" is the last of each row, None is all of them, row by row."""

Change: TypeAlias = Callable[[Tensor, int | None], Tensor]
"""From activations (n_rows, n_tokens, n_units) to those that take their place. The number says
how many tokens of the text the pass found in its cache: 0 where it begins a text, None where it
has no cache."""

_Measured = TypeVar("_Measured")


def recorded(
    model: Any,
    token_ids: ArrayLike | Tensor,
    layers: int | Iterable[int] | None = None,
    site: Site = "residual",
    tokens: Chosen = None,
) -> dict[int, Tensor]:
    """The activations of one forward pass, to be written elsewhere.

    Args:
        model: model of transformers in evaluation mode, with or without peft.
        token_ids: int (n_rows, n_tokens); shorter texts are padded on the right and their tokens
            chosen by `tokens`.
        layers: numbers from 0, or negative from the end; None for all.
        site: "residual" or "neurons".
        tokens: the n_chosen tokens to record.

    Returns:
        layer from 0 -> (n_chosen, n_units), on the CPU in the model's own precision.

    Raises:
        UsageError: an unknown site or layer, tokens that are not there, ids that are no batch, or
            a model in training mode.
        ModelError: the architecture is unknown.
    """
    ids = torch.as_tensor(token_ids)
    if ids.dim() != 2 or 0 in ids.shape or ids.is_floating_point():
        raise UsageError(
            f"token ids of shape {tuple(ids.shape)} and type {ids.dtype} are no batch",
            remedy="give whole numbers of shape (n_rows, n_tokens)",
        )
    if model.training:
        raise UsageError(
            "the model is in training mode, where dropout changes activations",
            remedy="call model.eval() first",
        )
    kept = Kept()
    with torch.inference_mode(), recording(model, kept, layers=layers, sites=site) as recorder:
        recorder.select(_tokens(tokens, *ids.shape))
        model(input_ids=ids.to(next(model.parameters()).device), use_cache=False)
    return kept.by_layer(site)


@contextmanager
def patching(
    model: Any,
    values: ArrayLike | Tensor,
    layer: int,
    site: Site = "residual",
    tokens: Chosen = None,
) -> Iterator[None]:
    """Write activations over those of a layer in every pass that begins a text.

    Passes that go on from a cache (decoding, the token paths of P(emoji)) are left alone: their
    cache holds what the patched tokens became.

    Args:
        model: model of transformers, with or without peft, or its `Anatomy`.
        values: (n_chosen, n_units) of this layer and site, as `recorded` gives them.
        layer: number from 0, or negative from the end.
        site: "residual" or "neurons"; for some units only, see `silencing.writing`.
        tokens: the n_chosen tokens, in the order of `values`.

    Raises:
        UsageError: an unknown site or layer, values of another shape or not numbers; inside the
            block, a pass that the tokens or the number of values do not fit.
        ModelError: the architecture is unknown.
    """
    parts = anatomy(model)
    number = parts.layer(layer)
    if site not in SITES:
        raise unknown("site", site, SITES)
    given = _values(parts, values, number, site)
    if isinstance(tokens, Tokens) and len(tokens) != len(given):
        raise _uneven(len(given), len(tokens))

    def change(states: Tensor, n_cached: int | None) -> Tensor:
        if n_cached:
            return states
        chosen = _tokens(tokens, states.shape[0], states.shape[1])
        if len(chosen) != len(given):
            raise _uneven(len(given), len(chosen))
        rows, places = chosen.within(states)
        patched = states.clone()  # recorded or shared elsewhere, so never changed itself
        patched[rows, places] = given.to(states)
        return patched

    with changing(parts, number, site, change):
        yield


def patched_by_layer(
    loaded: LoadedModel,
    token_ids: ArrayLike | Tensor,
    measure: Callable[[], _Measured],
    *,
    source: str | None,
    target: str | None,
    layers: int | Iterable[int] | None = None,
    site: Site = "residual",
    tokens: Chosen = None,
) -> dict[int, _Measured]:
    """What is measured on the target while one layer after the other is the source's.

    Args:
        loaded: the base with its adapters.
        token_ids: int (n_rows, n_tokens), the text on which the source is recorded.
        measure: runs `loaded.model` on that same text, with the target switched on, and returns
            something; `emoji_probability` pads on the left, so with it use tokens="last".
        source: name of an attached adapter, or None for the untuned base; so is `target`.
        layers, site, tokens: as for `recorded`.

    Raises as `recorded` and `patching` do, and `UsageError` for an adapter that is not attached.
    """
    with active(loaded, source):
        values = recorded(loaded.model, token_ids, layers, site, tokens)
    found = {}
    with active(loaded, target):
        for layer, states in values.items():
            with patching(loaded.model, states, layer, site, tokens):
                found[layer] = measure()
    return found


@contextmanager
def scaled(loaded: LoadedModel, name: str, factor: float) -> Iterator[LoadedModel]:
    """Answer with one adapter on, at `factor` times its own scale; afterwards as it was before.

    Factor 0 gives the base's numbers bit for bit, with NF4 and without, and factor 1 the
    adapter's. Within another block for the same adapter, factors multiply.

    Raises:
        UsageError: a factor outside 0 to 2, or no such adapter.
        AdapterError: a variant of LoRA that is not proportional to its scale, such as DoRA.
    """
    from peft.tuners.lora import LoraLayer

    if not 0 <= factor <= MOST_SCALED:
        raise UsageError(
            f"an adapter cannot be scaled by {factor}",
            remedy=f"use 0 (the base) to {MOST_SCALED:g}; 1 is the adapter as it was tuned",
        )
    with active(loaded, name):
        # By their scales, not by `lora_A`: an adapted embedding has none of that name.
        layers = [
            module
            for module in loaded.model.modules()
            if isinstance(module, LoraLayer) and name in module.scaling
        ]
        if any(name in layer.lora_variant for layer in layers):
            raise AdapterError(
                f"the adapter {name!r} is a variant of LoRA that scale 0 does not remove",
                remedy="draw dose curves with plain LoRA, or with checkpoints of the training",
            )
        before = [layer.scaling[name] for layer in layers]
        try:
            for layer, scale in zip(layers, before, strict=True):
                layer.scaling[name] = scale * factor
            yield loaded
        finally:
            for layer, scale in zip(layers, before, strict=True):
                if name in layer.scaling:  # it may have been detached meanwhile
                    layer.scaling[name] = scale


@contextmanager
def changing(parts: Anatomy, layer: int, site: Site, change: Change) -> Iterator[None]:
    """Put `change` of a layer's activations in their place, in every pass within the block.

    Hooks come off on leaving, and where registering fails.
    """
    n_cached: int | None = None

    def entered(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        nonlocal n_cached
        n_cached = _cached(layer, args, kwargs)

    def left(_: Any, __: Any, output: Any) -> Any:
        # Some blocks give a tuple with the residual stream first, some the stream alone.
        if isinstance(output, tuple):
            return (change(output[0], n_cached), *output[1:])
        return change(output, n_cached)

    def read(_: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (change(inputs[0], n_cached), *inputs[1:])

    block, down = parts.blocks[layer], parts.down_projections[layer]
    with ExitStack() as hooks:
        hooks.enter_context(block.register_forward_pre_hook(entered, with_kwargs=True))
        if site == "residual":
            hooks.enter_context(block.register_forward_hook(left))
        else:
            hooks.enter_context(down.register_forward_pre_hook(read))
        yield


def _cached(layer: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | None:
    """Tokens that the cache among a block's arguments holds before the block has run.

    Found by its type: architectures call the argument differently.
    """
    caches = [value for value in (*args, *kwargs.values()) if isinstance(value, Cache)]
    return max(int(cache.get_seq_length(layer)) for cache in caches) if caches else None


def _tokens(tokens: Chosen, n_rows: int, n_tokens: int) -> Tokens:
    """The chosen tokens of a pass of this shape."""
    if tokens is None:
        return Tokens.where(torch.ones(n_rows, n_tokens))
    if isinstance(tokens, Tokens):
        return tokens
    if tokens != "last":
        raise unknown("choice of tokens", tokens, ("last",))
    return Tokens.at((row, n_tokens - 1) for row in range(n_rows))


def _values(parts: Anatomy, values: ArrayLike | Tensor, layer: int, site: Site) -> Tensor:
    given = torch.as_tensor(values)
    n_units = parts.hidden_size if site == "residual" else parts.n_neurons
    if given.dim() != 2 or given.shape[1] != n_units:
        raise UsageError(
            f"values for {site} of layer {layer} have shape {tuple(given.shape)}",
            remedy=f"give (n_tokens, {n_units}), as recorded at this site of this base",
        )
    if not bool(given.isfinite().all()):
        raise UsageError(
            f"values for {site} of layer {layer} hold what is no number",
            remedy="record them again, in bfloat16 or float32",
        )
    return given.to(next(parts.blocks[layer].parameters()).device)


def _uneven(n_values: int, n_chosen: int) -> UsageError:
    return UsageError(
        f"{n_values} rows of values were given for {n_chosen} chosen tokens",
        remedy="give one row for each chosen token, recorded on the same token ids",
    )

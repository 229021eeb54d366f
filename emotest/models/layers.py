"""Where a model keeps its parts: one table of architectures, and the parts as a frozen value.

Takes a causal language model of transformers, bare, wrapped by peft or with LoRA layers put in
place of its own, quantized or not; gives its `Anatomy`. Knows nothing of hooks or activations.

A *neuron* is one coordinate of the FFN's hidden activation, after the gate where there is one:
the input of the down projection. The *residual stream* after a layer is the output of its block;
the last one is not normalised yet.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from torch.nn import Module, ModuleList

from emotest.errors import ModelError, UsageError


@dataclass(frozen=True)
class Architecture:
    """Dotted paths of the parts of one kind of model."""

    blocks: str
    """From the model to its list of blocks; a block gives the residual stream after its layer."""
    down_projection: str
    """From a block to the linear layer whose input is the FFN's hidden activation."""
    final_norm: str
    """From the model to the norm before the unembedding."""
    unembedding: str
    """From the model to the linear layer that gives the logits."""


_LLAMA = Architecture("model.layers", "mlp.down_proj", "model.norm", "lm_head")
_WITH_IMAGES = Architecture(
    "model.language_model.layers", "mlp.down_proj", "model.language_model.norm", "lm_head"
)

ARCHITECTURES: Mapping[str, Architecture] = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "gemma": _LLAMA,
    "gemma2": _LLAMA,
    "gemma3_text": _LLAMA,
    "gemma3": _WITH_IMAGES,
    "phi3": _LLAMA,
    "gpt2": Architecture("transformer.h", "mlp.c_proj", "transformer.ln_f", "lm_head"),
    "gpt_neox": Architecture(
        "gpt_neox.layers", "mlp.dense_4h_to_h", "gpt_neox.final_layer_norm", "lm_head"
    ),
}
"""By the `model_type` of the model's config. In Gemma 2 and 3 a norm stands between the down
projection and the residual stream; everywhere else the one is added to the other."""


@dataclass(frozen=True)
class Anatomy:
    """The parts of one model in memory, as they are when its forward pass calls them.

    Where an adapter has put a LoRA layer in place of a down projection, the part is that layer:
    what is changed at its input reaches the base weights and the adapter alike. So an anatomy is
    taken after the adapters are attached.
    """

    blocks: tuple[Module, ...] = field(repr=False)
    """(n_layers,)"""
    down_projections: tuple[Module, ...] = field(repr=False)
    """(n_layers,), each with input (..., n_neurons) and output (..., hidden_size)"""
    final_norm: Module = field(repr=False)
    unembedding: Module = field(repr=False)
    n_layers: int
    n_neurons: int
    """FFN units of one layer."""
    hidden_size: int

    def layer(self, number: int) -> int:
        """The layer that is meant, from 0; -1 is the last. `UsageError` where there is none."""
        index = operator.index(number)
        if not -self.n_layers <= index < self.n_layers:
            raise UsageError(
                f"there is no layer {number}: the model has {self.n_layers}",
                remedy=f"use 0 to {self.n_layers - 1}, or -{self.n_layers} to -1 from the end; "
                f"the nearest is {max(0, min(index, self.n_layers - 1))}",
            )
        return index % self.n_layers

    def layers(self, chosen: int | Iterable[int] | None) -> tuple[int, ...]:
        """The chosen layers from 0, in order, each once; None means all of them."""
        if chosen is None:
            return tuple(range(self.n_layers))
        numbers = chosen if isinstance(chosen, Iterable) else (chosen,)
        found = sorted({self.layer(number) for number in numbers})
        if not found:
            raise UsageError("no layer was chosen", remedy="name at least one, or None for all")
        return tuple(found)


def anatomy(model: Any, table: Mapping[str, Architecture] | Architecture | None = None) -> Anatomy:
    """The parts of a model; an `Anatomy` is given back as it is.

    Args:
        model: causal language model of transformers (for a `LoadedModel`, its `model`), with or
            without peft around or inside it.
        table: the way out for models that `ARCHITECTURES` lacks or gets wrong: entries by
            `model_type`, looked up first, or the one `Architecture` to use.

    Raises:
        UsageError: this is no model of transformers.
        ModelError: the architecture is unknown, or its parts are not where they should be; the
            error says what to give.
    """
    if isinstance(model, Anatomy):
        return model
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    if not isinstance(inner, Module) or not hasattr(inner, "config"):
        raise UsageError(
            f"{type(model).__name__} is no model of transformers",
            remedy="hand over the model itself: for a LoadedModel, its `model`",
        )
    places = _places(inner, table)
    blocks = _part(inner, places.blocks, "blocks")
    if not isinstance(blocks, ModuleList) or not len(blocks):
        raise _misplaced(inner, f"blocks={places.blocks!r} is no list of blocks")
    downs = tuple(_part(block, places.down_projection, "down_projection") for block in blocks)
    widths = {_widths(down) for down in downs}
    if len(widths) > 1:
        raise ModelError(
            f"the FFNs of {type(inner).__name__} differ in width: {sorted(widths)}",
            remedy="only models whose layers are all alike can be measured",
        )
    [(n_neurons, hidden_size)] = widths
    return Anatomy(
        blocks=tuple(blocks),
        down_projections=downs,
        final_norm=_part(inner, places.final_norm, "final_norm"),
        unembedding=_part(inner, places.unembedding, "unembedding"),
        n_layers=len(downs),
        n_neurons=n_neurons,
        hidden_size=hidden_size,
    )


def _places(model: Any, table: Mapping[str, Architecture] | Architecture | None) -> Architecture:
    if isinstance(table, Architecture):
        return table
    known = {**ARCHITECTURES, **(table or {})}
    kind = str(model.config.model_type)
    if kind not in known:
        raise _misplaced(
            model, f"the architecture {kind!r} is not in the table ({', '.join(sorted(known))})"
        )
    return known[kind]


def _part(module: Module, path: str, what: str) -> Module:
    try:
        return module.get_submodule(path)
    except AttributeError as error:
        raise _misplaced(module, f"{what}={path!r} leads nowhere: {error}") from error


def _misplaced(module: Module, cause: str) -> ModelError:
    lists = [
        f"{path} ({len(part)})"
        for path, part in module.named_modules()
        if isinstance(part, ModuleList)
    ]
    here = lists or [path for path, _ in islice(module.named_modules(), 1, 12)]
    return ModelError(
        f"{type(module).__name__}: {cause}",
        remedy="say where its parts are: anatomy(model, Architecture(blocks=..., "
        "down_projection=..., final_norm=..., unembedding=...)), dotted paths as in "
        f"emotest/models/layers.py; {type(module).__name__} holds {', '.join(here) or 'nothing'}",
    )


def _widths(down: Module) -> tuple[int, int]:
    """Width of the input and of the output of a linear layer.

    Its weight would not tell: NF4 packs it, the Conv1D of GPT-2 stores it transposed, and a LoRA
    layer keeps it inside.
    """
    for names in (("in_features", "out_features"), ("nx", "nf")):
        if all(isinstance(getattr(down, name, None), int) for name in names):
            n_inputs, n_outputs = (int(getattr(down, name)) for name in names)
            return n_inputs, n_outputs
    raise ModelError(
        f"the down projection is a {type(down).__name__}, which does not tell its widths",
        remedy="give the path of a linear layer: nn.Linear, Linear4bit or Conv1D",
    )

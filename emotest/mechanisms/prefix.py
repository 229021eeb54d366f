"""PsychAdapter: a trait vector in, one virtual key and value position in every layer out.

The second way to install a trait (the first is QLoRA): one linear map from one to five trait
values to keys and values that every token can attend to. Takes a model and trait values; gives
a `TraitPrefix`, and `prefixed(model, prefix, traits)`, within which the model runs with it:
forward passes, emotest's sampler and P(emoji) alike. How a prefix is trained is the matter of
`emotest.mechanisms.prefix_training`. Knows nothing of emoji or verdicts.

**Parameters.** (n_traits + 1) * 2 * n_layers * n_kv_heads * head_dim: weights and a bias. With
five traits Gemma-2B has 6 * 2 * 18 * 1 * 256 = 55,296, Llama-3-8B 6 * 2 * 32 * 8 * 128 = 393,216
and GPT-2-large 6 * 2 * 36 * 20 * 64 = 552,960, as published. Six inputs without a bias would give
the same three numbers; the released code has five inputs and a bias, and so has this. Its LoRA is
not in these counts, nor in "less than 0.1 %": with r = 8 on all seven linear modules of Gemma-2B
it has 9,805,824 parameters, 0.39 % of the base.

**Positions.** The virtual key carries no rotation, and real tokens keep the positions they have
in the base, from 0. The released code hands the pair to the model as its cache, so that its real
tokens count from 1; it gives no reason for that. With rotary positions both are one family:
turning a key by one place is linear, so the map can absorb it. With learned positions (GPT-2)
they differ, and only this choice leaves the base as it is where the prefix is removed.

**Removal.** Nothing of a layer without prefix is touched: it computes what the base computes, bit
for bit. A prefix of zeros is *not* neutral: a key of zeros still takes its share 1 / (1 + Z) of
the attention, Z the sum of exp(scores) of the real keys, and so scales each head's output by
Z / (1 + Z). To be without the prefix, remove it.

Sources: PsychAdapter (Vu et al., arXiv 2412.16882) and its released code; prefix tuning (Li and
Liang, arXiv 2101.00190).
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.nn import functional

from emotest.errors import AdapterError, EmotestError, ModelError, UsageError
from emotest.mechanisms.kinds import read_kind
from emotest.models.adapters import AdapterWeights, save_adapter
from emotest.models.loading import LoadedModel
from emotest.models.lora import ADAPTER_FILES
from emotest.study.personality import TRAITS, Trait

TraitValues: TypeAlias = Mapping[str, float] | Sequence[Mapping[str, float]] | ArrayLike | Tensor
"""One vector (n_traits,), one for each row (n_rows, n_traits), or values by the traits' names,
where a trait that is not named has 0: the average person of standardised scores."""

_KIND = "TRAIT_PREFIX"


@dataclass(frozen=True)
class PrefixConfig:
    """Everything about a prefix but its weights; sizes are those of the base's keys and values.

    Raises `UsageError`, naming the field and its value, for a prefix that cannot be.
    """

    n_layers: int
    n_kv_heads: int
    head_dim: int
    layers: tuple[int, ...]
    """The layers that have a virtual position, in ascending order from 0."""
    traits: tuple[Trait, ...] = TRAITS
    """What each input of the map stands for."""
    init_scale: float = 1.0
    """Initial weights are uniform in +-init_scale / sqrt(n_traits); 1 is what torch's linear
    layer and with it the released code does."""
    base: str | None = None
    """Identity of the weights that it is made for; None where only the sizes are known."""

    def __post_init__(self) -> None:
        for name in ("n_layers", "n_kv_heads", "head_dim"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name}={getattr(self, name)}", remedy=f"use a {name} above 0")
        object.__setattr__(self, "traits", tuple(map(_trait, self.traits)))
        if not self.traits or len(set(self.traits)) < len(self.traits):
            raise UsageError(
                f"traits={[str(trait) for trait in self.traits]}",
                remedy="name one to five traits, each once",
            )
        if list(self.layers) != sorted(set(self.layers) & set(range(self.n_layers))):
            raise UsageError(
                f"layers={list(self.layers)} of a model with {self.n_layers} layers",
                remedy=f"name layers between 0 and {self.n_layers - 1}, ascending, each once",
            )
        if not 0 <= self.init_scale < math.inf:
            raise UsageError(f"init_scale={self.init_scale}", remedy="use 0 or more")

    @property
    def sizes(self) -> str:
        """The base's sizes, in words."""
        return (
            f"{self.n_layers} layers with {self.n_kv_heads} key-value heads of {self.head_dim} "
            "dimensions"
        )


def prefix_config(
    model: Any,
    *,
    traits: Sequence[str] = TRAITS,
    layers: Sequence[int] | None = None,
    init_scale: float = 1.0,
) -> PrefixConfig:
    """The prefix that fits a `LoadedModel`, a model of transformers, or its configuration.

    `layers` are those that get a virtual position; None means all. The base's identity is known
    of a `LoadedModel` only. Raises `UsageError` for an unknown trait or layer, `ModelError` for
    what is no transformer.
    """
    base = model.identity.weights if isinstance(model, LoadedModel) else None
    try:
        config = _inner(model).config if hasattr(_inner(model), "config") else model
        config = config.get_text_config()
        n_layers, n_heads = int(config.num_hidden_layers), int(config.num_attention_heads)
        # GPT-2 knows neither grouped heads nor a head size of its own.
        n_kv_heads = int(getattr(config, "num_key_value_heads", None) or n_heads)
        head_dim = int(getattr(config, "head_dim", None) or config.hidden_size // n_heads)
    except AttributeError as error:
        raise ModelError(
            f"{type(model).__name__} does not say its layers and heads: {error}",
            remedy="give a causal language model of transformers, or its configuration",
        ) from error
    chosen = tuple(range(n_layers)) if layers is None else tuple(layers)
    return PrefixConfig(
        n_layers, n_kv_heads, head_dim, chosen, tuple(map(_trait, traits)), init_scale, base
    )


def n_parameters(config: PrefixConfig) -> int:
    """Trainable parameters of a prefix: (n_traits + 1) values for each number it puts in place."""
    # A key and a value (2) in each layer that acts; a weight for each trait, and a bias (+ 1).
    n_outputs = len(config.layers) * 2 * config.n_kv_heads * config.head_dim
    return (len(config.traits) + 1) * n_outputs


def share(config: PrefixConfig, n_base_parameters: int, n_lora_parameters: int = 0) -> float:
    """Trained parameters (of the LoRA beside it too) as a share of the base's: 0.001 is 0.1 %."""
    if n_base_parameters < 1:
        raise UsageError(
            f"n_base_parameters={n_base_parameters}", remedy="give model.num_parameters()"
        )
    return (n_parameters(config) + n_lora_parameters) / n_base_parameters


class TraitPrefix(nn.Module):
    """The linear map. `weight` is (n_outputs, n_traits), `bias` (n_outputs,), float32.

    Outputs run over layer, key or value, head, dimension: the order of the released code.
    """

    def __init__(self, config: PrefixConfig, training_seed: int = 0) -> None:
        super().__init__()
        self.config = config
        n_traits = len(config.traits)
        n_outputs = n_parameters(config) // (n_traits + 1)
        bound = config.init_scale / math.sqrt(n_traits)
        generator = torch.Generator().manual_seed(training_seed)
        drawn = torch.rand((n_outputs, n_traits + 1), generator=generator) * (2 * bound) - bound
        self.weight = nn.Parameter(drawn[:, :-1].clone())
        self.bias = nn.Parameter(drawn[:, -1].clone())

    def key_values(self, traits: TraitValues) -> dict[int, tuple[Tensor, Tensor]]:
        """Key and value of each layer that acts, each (n_rows, n_kv_heads, 1, head_dim).

        Raises `UsageError` for an unknown trait, a wrong number of values, or one that is no
        number.
        """
        config = self.config
        values = trait_rows(config, traits).to(self.weight)  # (n_rows, n_traits)
        outputs = functional.linear(values, self.weight, self.bias).view(
            len(values), len(config.layers), 2, config.n_kv_heads, 1, config.head_dim
        )
        return {
            layer: (outputs[:, i, 0], outputs[:, i, 1]) for i, layer in enumerate(config.layers)
        }


@contextmanager
def prefixed(
    model: Any, prefix: TraitPrefix, traits: TraitValues, *, without_layers: Sequence[int] = ()
) -> Iterator[Any]:
    """Run a `LoadedModel`, or a model of transformers, with the prefix's virtual position in front.

    Every token sees it, beyond a sliding window too. It stands outside the caches and masks that
    the model keeps, so lengths and positions are the base's, and whatever runs the model runs
    as before. One trait vector serves all rows of a batch; several must be as many as the rows.
    `without_layers` takes the prefix out of single layers. Within another `prefixed`, both act.

    Raises `AdapterError` for a prefix of another base, `UsageError` for trait values or layers
    that the prefix does not have, `ModelError` for a model whose attention is not known.
    """
    config = prefix.config
    _require_fit(model, config)
    strange = sorted(set(without_layers) - set(config.layers))
    if strange:
        raise UsageError(
            f"the prefix has no virtual position in layer {strange[0]} that could be removed",
            remedy=f"its layers are {list(config.layers)}",
        )
    attentions = _attentions(_inner(model), config.n_layers)
    hooks = []
    try:
        for layer, (key, value) in prefix.key_values(traits).items():
            if layer not in without_layers:
                front = _VirtualPosition(layer, key, value)
                hooks.append(
                    attentions[layer].register_forward_pre_hook(front.enter, with_kwargs=True)
                )
        yield model
    finally:
        for hook in hooks:
            hook.remove()


def save_prefix(prefix: TraitPrefix, folder: Path) -> None:
    """Write a prefix into an existing folder: an adapter's two files, equal bytes for equal ones.

    Their `peft_type` is TRAIT_PREFIX, so that nobody takes it for a LoRA.
    """
    config = prefix.config
    fields = {
        "peft_type": _KIND,
        "n_layers": config.n_layers,
        "n_kv_heads": config.n_kv_heads,
        "head_dim": config.head_dim,
        "layers": list(config.layers),
        "traits": [str(trait) for trait in config.traits],
        "init_scale": config.init_scale,
    }
    state = {name: t.detach().float().cpu().numpy() for name, t in prefix.state_dict().items()}
    save_adapter(AdapterWeights(state, fields, config.base), folder)


def read_prefix(folder: Path) -> TraitPrefix:
    """Read what `save_prefix` wrote, frozen; an `AdapterError` for any defect."""
    weights, fields = read_kind(folder, _KIND, "trait prefix", "save_prefix")
    again = "save or train the prefix again"
    try:
        fields |= {name: tuple(fields[name]) for name in ("layers", "traits")}
        prefix = TraitPrefix(PrefixConfig(**fields, base=weights.base))
    except (KeyError, TypeError, ValueError, EmotestError) as error:
        cause = error.cause if isinstance(error, EmotestError) else repr(error)
        raise AdapterError(
            f"{folder / ADAPTER_FILES[0]} is no prefix: {cause}", remedy=again
        ) from error
    wanted = {name: tuple(tensor.shape) for name, tensor in prefix.state_dict().items()}
    found = {name: array.shape for name, array in weights.state.items()}
    if found != wanted:
        raise AdapterError(
            f"{folder / ADAPTER_FILES[1]} holds {found}, its configuration needs {wanted}",
            remedy=again,
        )
    prefix.load_state_dict({name: torch.from_numpy(a) for name, a in weights.state.items()})
    return prefix.requires_grad_(False)


class _VirtualPosition:
    """One layer's virtual position: enters its attention in front of all keys, masked nowhere."""

    def __init__(self, layer: int, key: Tensor, value: Tensor) -> None:
        self.layer, self.key, self.value = layer, key, value

    def enter(
        self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[()], dict[str, Any]]:
        """The arguments of an attention module, with a cache and a mask that know the position."""
        names = inspect.signature(module.forward).parameters
        kwargs = {**dict(zip(names, args, strict=False)), **kwargs}
        n_rows, n_queries = kwargs["hidden_states"].shape[:2]
        if len(self.key) not in (1, n_rows):
            raise UsageError(
                f"{len(self.key)} trait vectors for a batch of {n_rows} rows",
                remedy="give one vector for all rows, or one for each",
            )
        cache, mask = kwargs.get("past_key_values"), kwargs.get("attention_mask")
        kwargs["attention_mask"] = self._mask(cache, mask, n_queries, kwargs["hidden_states"])
        key, value = (t.expand(n_rows, -1, -1, -1) for t in (self.key, self.value))
        kwargs["past_key_values"] = _InFront(cache, key, value)
        return (), kwargs

    def _mask(self, cache: Any, mask: Any, n_queries: int, like: Tensor) -> Tensor | None:
        if mask is not None:  # (n_rows, 1, n_queries, n_keys): True or 0 is seen
            seen = torch.ones_like if mask.dtype == torch.bool else torch.zeros_like
            return torch.cat([seen(mask[..., :1]), mask], dim=-1)
        if n_queries == 1:
            return None  # the newest token sees everything
        # No mask means causal from the first key on; the virtual one is seen by all.
        n_keys = n_queries if cache is None else cache.get_mask_sizes(n_queries, self.layer)[0]
        ones = torch.ones((n_queries, n_keys + 1), dtype=torch.bool, device=like.device)
        return ones.tril(1)[None, None]


class _InFront:
    """The model's own cache, or none, seen with one more key and value in front."""

    def __init__(self, cache: Any, key: Tensor, value: Tensor) -> None:
        self._cache, self._key, self._value = cache, key, value

    def update(self, keys: Tensor, values: Tensor, *args: Any, **kw: Any) -> tuple[Tensor, Tensor]:
        if self._cache is not None:
            keys, values = self._cache.update(keys, values, *args, **kw)
        return (
            torch.cat([self._key.to(keys), keys], dim=2),
            torch.cat([self._value.to(values), values], dim=2),
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cache, name)


def _attentions(model: Any, n_layers: int) -> dict[int, nn.Module]:
    """The self-attention module of each layer: what knows its layer and looks back only."""
    implementation = model.config.get_text_config()._attn_implementation
    if implementation not in ("sdpa", "eager"):
        raise ModelError(
            f"a prefix cannot enter attention computed by {implementation!r}",
            remedy="load the model with attn_implementation='sdpa' or 'eager'",
        )
    found = [
        (module.layer_idx, module)
        for module in model.modules()
        if isinstance(getattr(module, "layer_idx", None), int)
        and getattr(module, "is_causal", False)
        and {"past_key_values", "attention_mask"}
        <= inspect.signature(module.forward).parameters.keys()
    ]
    if sorted(layer for layer, _ in found) != list(range(n_layers)):
        raise ModelError(
            f"{type(model).__name__} does not show one self-attention for each of its {n_layers} "
            f"layers ({len(found)} were found)",
            remedy="use a decoder such as Llama, Mistral, Qwen, Gemma or GPT-2",
        )
    return dict(found)


def _inner(model: Any) -> Any:
    return model.model if isinstance(model, LoadedModel) else model


def _require_fit(model: Any, config: PrefixConfig) -> None:
    own = prefix_config(model)
    if own.base is not None and config.base is not None and own.base != config.base:
        raise AdapterError(
            f"the prefix was made for {config.base}, but {model.identity.subject} is {own.base}",
            remedy="load the base that it was made for, or train a prefix on this one",
        )
    if own.sizes != config.sizes:
        raise AdapterError(
            f"the prefix was made for {config.sizes}, but the model has {own.sizes}",
            remedy="use a prefix that was made for this base",
        )


def _trait(name: str) -> Trait:
    try:
        return Trait(name)
    except ValueError as error:
        raise UsageError(
            f"there is no trait {name!r}", remedy=f"choose from {', '.join(TRAITS)}"
        ) from error


def trait_rows(config: PrefixConfig, traits: TraitValues) -> Tensor:
    """Trait values (n_rows, n_traits), as given or in the order of the prefix's traits."""
    named: Any = [traits] if isinstance(traits, Mapping) else traits
    if isinstance(named, Sequence) and all(isinstance(row, Mapping) for row in named):
        strange = sorted({name for row in named for name in row} - set(config.traits))
        if strange:
            raise UsageError(
                f"the prefix has no trait {strange[0]!r}",
                remedy=f"its traits are {', '.join(config.traits)}",
            )
        traits = [[row.get(trait, 0.0) for trait in config.traits] for row in named]
    try:
        values = traits if isinstance(traits, Tensor) else torch.tensor(np.asarray(traits, float))
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"the trait values are not a table of numbers: {error}",
            remedy=f"give one number for each of {', '.join(config.traits)} in every row",
        ) from error
    values = values[None] if values.dim() == 1 else values
    if values.dim() != 2 or not len(values) or values.shape[1] != len(config.traits):
        raise UsageError(
            f"trait values of shape {tuple(values.shape)} for {len(config.traits)} traits",
            remedy=f"give one number for each of {', '.join(config.traits)}, in this order",
        )
    if not bool(values.isfinite().all()):
        raise UsageError("a trait value is not a finite number", remedy="give finite numbers")
    return values

"""LoRA adapters on one shared base: read, written, attached, switched, and proven to act.

An adapter is a mapping of arrays and peft's own configuration, so what is written here loads with
`PeftModel.from_pretrained` and what peft wrote loads here. Several adapters share one base; at
most one is active, and none unless `active` says so. There is no merging: an adapter merged into
a quantized base is another adapter. How adapters come about is the training room's matter.

Sources: LoRA (Hu et al., arXiv 2106.09685); peft for layers and file format.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emotest.errors import AdapterError, UsageError
from emotest.models.chat import encode, render_prompt
from emotest.models.lean_lora import make_lean
from emotest.models.loading import LoadedModel
from emotest.models.lora import (
    WEIGHTS,
    adapter_config,
    made_for,
    peft_settings,
    require_sound_files,
)
from emotest.models.peft_layers import holds, is_of_base, put_back, take_off, unwarned
from emotest.models.templates import within
from emotest.study.records import Prompt

_BASE_KEY = "emotest_base"
"""Where the header of the safetensors file names the weights that the adapter was tuned on."""

_SECONDS_TO_MATCH = 5

State = Mapping[str, "NDArray[np.float32]"]


class Adapter(Protocol):
    """What can be attached or saved: arrays by peft's names, peft's configuration, the base."""

    @property
    def state(self) -> State:
        """Arrays by name, such as `...q_proj.lora_A.weight` of shape (rank, in_features)."""

    @property
    def config(self) -> Mapping[str, Any]:
        """The contents of adapter_config.json."""

    @property
    def base(self) -> str | None:
        """Identity of the weights that it was tuned on; None where the files do not say."""


@dataclass(frozen=True)
class AdapterWeights:
    """An adapter as read from its files."""

    state: State
    config: Mapping[str, Any]
    base: str | None = None


@dataclass(frozen=True)
class Liveness:
    """Proof that an adapter acts: modules adapted, and changes of logits (largest, absolute).

    `repeated` is how far two runs of the same base lie apart, `changed` how far the adapter
    moves them.
    """

    n_modules: int
    changed: float
    repeated: float


def read_adapter(folder: Path) -> AdapterWeights:
    """Read adapter_config.json and adapter_model.safetensors; an `AdapterError` for any defect."""
    from safetensors import SafetensorError, safe_open

    require_sound_files(folder)
    config, weights = adapter_config(folder), folder / WEIGHTS
    try:
        with safe_open(weights, framework="pt") as file:
            # Through torch, because numpy has no bfloat16.
            state = {name: file.get_tensor(name).float().numpy() for name in file.keys()}  # noqa: SIM118
            base = (file.metadata() or {}).get(_BASE_KEY)
    except (SafetensorError, OSError) as error:
        raise AdapterError(
            f"{weights} is broken: {error}", remedy="fetch or train the adapter again"
        ) from error
    for name, array in state.items():
        if not np.isfinite(array).all():
            raise AdapterError(
                f"{weights} holds infinite or undefined numbers, in {name[:120]}",
                remedy="train or fetch the adapter again: a training that diverged leaves such",
            )
    return AdapterWeights(state, config, base)


def adapter_files(adapter: Adapter) -> dict[str, bytes]:
    """The two files of an adapter, by name, as peft reads them."""
    from safetensors.numpy import save

    # One entry at most: safetensors writes several in random order, and equal adapters would
    # differ in their bytes.
    metadata = {_BASE_KEY: adapter.base} if adapter.base else {"format": "pt"}
    arrays = {name: np.ascontiguousarray(array) for name, array in adapter.state.items()}
    config = json.dumps(adapter.config, indent=2, sort_keys=True)
    return {
        "adapter_config.json": f"{config}\n".encode(),
        "adapter_model.safetensors": save(arrays, metadata=metadata),
    }


def save_adapter(adapter: Adapter, folder: Path) -> None:
    """Write an adapter into an existing folder (the store gives one that becomes whole at once)."""
    for name, content in adapter_files(adapter).items():
        (folder / name).write_bytes(content)


def attach(loaded: LoadedModel, adapter: Adapter | Path | str, name: str) -> None:
    """Put an adapter on the base under a name, switched off; `active` switches it on.

    Raises `AdapterError` where it belongs to another base (its own word, its modules or their
    shapes), where it lacks weights, or is no LoRA; the base is then as it was before.
    """
    if isinstance(adapter, Path | str):
        adapter = read_adapter(Path(adapter))
    if name in loaded.adapters:
        raise UsageError(
            f"an adapter {name!r} is attached already", remedy="detach it or choose another name"
        )
    if "." in name or hasattr(torch.nn.ModuleDict(), name):
        # peft files its layers under the adapter's name, as a torch module's children.
        raise UsageError(f"an adapter cannot be named {name!r}", remedy="choose another name")
    if adapter.base is not None and adapter.base != loaded.identity.weights:
        raise AdapterError(
            f"the adapter was tuned on {adapter.base}, but {loaded.identity.subject} is "
            f"{loaded.identity.weights}",
            remedy="load the base that the adapter was tuned on, or train it on this one",
        )
    install(loaded, adapter.config, name)
    try:
        _fill(loaded, adapter, name)
    except BaseException:
        detach(loaded, name)
        raise
    loaded.adapters[name] = adapter.base


def detach(loaded: LoadedModel, name: str) -> None:
    """Take an adapter off the base again."""
    if name not in loaded.peft.peft_config:
        raise UsageError(f"no adapter {name!r} is attached", remedy="check the name")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft says which other adapter it made active; none is
        loaded.peft.delete_adapter(name)
    put_back(loaded.model)
    loaded.adapters.pop(name, None)
    switch(loaded, None if loaded.active == name else loaded.active)


@contextmanager
def active(loaded: LoadedModel, name: str | None) -> Iterator[LoadedModel]:
    """Answer with one adapter on, or (None) as the base; afterwards as it was before."""
    before = loaded.active
    switch(loaded, name)
    try:
        yield loaded
    finally:
        switch(loaded, before)


def switch(loaded: LoadedModel, name: str | None, *, trainable: bool = False) -> None:
    """Make one adapter, or none, the active one; its weights ask for gradients if `trainable`."""
    if name is not None and (loaded.peft is None or name not in loaded.peft.peft_config):
        raise UsageError(
            f"no adapter {name!r} is attached",
            remedy=f"attach it first; attached are {sorted(loaded.adapters) or 'none'}",
        )
    loaded.active = name
    if loaded.peft is None:
        return
    if name is None:
        loaded.peft.base_model.disable_adapter_layers()
        if loaded.peft.peft_config and loaded.peft.active_adapter not in loaded.peft.peft_config:
            # peft goes on naming an adapter that was deleted, and looks up its configuration.
            loaded.peft.active_adapter = next(iter(loaded.peft.peft_config))
        return
    loaded.peft.base_model.enable_adapter_layers()
    loaded.peft.set_adapter(name, inference_mode=not trainable)


def install(loaded: LoadedModel, config: Mapping[str, Any], name: str) -> None:
    """Put fresh LoRA layers for `config` on the base, switched off.

    Raises `AdapterError` for a configuration that is no LoRA or that matches no module.
    """
    import peft

    settings = peft_settings(config)
    with within(_SECONDS_TO_MATCH, _endless_pattern(config)):
        n_modules = expected_modules(loaded, config)
    if n_modules == 0:
        raise AdapterError(
            f"the adapter's target modules {_told(config['target_modules'])} match nothing in "
            f"{loaded.identity.subject}; {made_for(config, loaded.identity.subject)}",
            remedy=f"its linear modules are {', '.join(_linear_names(loaded))}; use an adapter "
            "or recipe made for this architecture",
        )
    alone = loaded.peft is None
    # The initial weights are filled in by the caller; the caller's random state stays its own.
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            lora = peft.LoraConfig(**settings, inference_mode=False)
            if alone:
                loaded.peft = peft.PeftModel(loaded.model, lora, adapter_name=name)
            else:
                if loaded.peft.peft_config:
                    # Beside modules that an adapter replaces whole, peft wants one to be active.
                    loaded.peft.set_adapter(next(iter(loaded.peft.peft_config)))
                loaded.peft.add_adapter(name, lora)
        except Exception as error:  # a stranger's settings reach any corner of peft
            take_off(loaded.model, name, alone=alone)
            if not alone:
                switch(loaded, loaded.active)
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise AdapterError(
                f"the adapter does not fit {loaded.identity.subject}: {lines[0][:300]}; "
                f"{made_for(config, loaded.identity.subject)}",
                remedy="use an adapter that was made for this base",
            ) from error
    make_lean(loaded.model)
    loaded.peft.eval()
    switch(loaded, loaded.active)


def _endless_pattern(config: Mapping[str, Any]) -> AdapterError:
    return AdapterError(
        f"matching the target modules {_told(config.get('target_modules'))} takes for ever",
        remedy="write target_modules in adapter_config.json as a list of names",
    )


def _told(targets: Any) -> str:
    return str(sorted(targets) if isinstance(targets, list | tuple | set) else targets)[:300]


def expected_modules(loaded: LoadedModel, config: Mapping[str, Any]) -> int | None:
    """How many modules a configuration means to adapt, counted on the base's own names.

    None where the configuration selects by more than names (all linear layers, some layers only),
    so that only its own weights can tell.
    """
    targets = config.get("target_modules")
    narrowed = any(config.get(key) for key in ("layers_to_transform", "exclude_modules"))
    if narrowed or targets is None or targets == "all-linear":
        return None
    names = [name for name, _ in _base_modules(loaded)]
    if isinstance(targets, str):
        return sum(re.fullmatch(targets, name) is not None for name in names)
    return sum(any(f".{name}".endswith(f".{target}") for target in targets) for name in names)


def lora_layers(loaded: LoadedModel, name: str) -> dict[str, Any]:
    """The modules that hold an adapter, by their name in the base."""
    from peft.tuners.lora import LoraLayer

    return {
        path: module
        for path, module in loaded.model.named_modules()
        if isinstance(module, LoraLayer) and holds(module, name)
    }


def require_alive(loaded: LoadedModel, name: str, prompts: Iterable[Prompt]) -> Liveness:
    """Prove that an attached adapter acts, before anything is measured with it.

    Its modules must be as many as its configuration says, switched on and not merged; it must
    move the logits of the prompts further from the same (quantized) base than repeated runs lie
    apart; and no B of an adapter of emotest's own may be zero. Otherwise an `AdapterError` says
    which of these fails.
    """
    config = json_config(loaded.peft.peft_config[name])
    layers = lora_layers(loaded, name)
    expected = expected_modules(loaded, config)
    if any(layer.merged for layer in layers.values()):
        raise _dead(name, "it was merged into the base")
    with active(loaded, name):
        acting = [layer for layer in layers.values() if _acts(layer, name)]
    if not layers or len(acting) != (len(layers) if expected is None else expected):
        raise _dead(name, f"it acts in {len(acting)} modules, its configuration says {expected}")
    if loaded.adapters.get(name) is not None:
        idle = [path for path, layer in layers.items() if not layer.lora_B[name].weight.any()]
        if idle:
            raise _dead(name, f"B is zero in {len(idle)} of {len(layers)} modules ({idle[0]})")
    changed = repeated = 0.0
    for ids in _prompt_ids(loaded, prompts):
        with active(loaded, None):
            base, again = _logits(loaded, ids), _logits(loaded, ids)
        with active(loaded, name):
            tuned = _logits(loaded, ids)
        if not bool(tuned.isfinite().all()):
            raise _dead(name, "it makes the logits infinite or undefined")
        repeated = max(repeated, float((base - again).abs().max()))
        changed = max(changed, float((base - tuned).abs().max()))
    if not changed > repeated:
        raise _dead(name, f"it moves the logits by {changed:.3g}, repeated runs by {repeated:.3g}")
    return Liveness(len(acting), changed, repeated)


def json_config(config: Any) -> dict[str, Any]:
    """A peft configuration as adapter_config.json holds it (sets become sorted lists)."""
    return {
        key: sorted(value) if isinstance(value, set) else getattr(value, "value", value)
        for key, value in config.to_dict().items()
    }


def _fill(loaded: LoadedModel, adapter: Adapter, name: str) -> None:
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    state = adapter.state
    with unwarned():
        wanted = get_peft_model_state_dict(
            loaded.peft, adapter_name=name, save_embedding_layers=False
        )
    state = {k: v for k, v in state.items() if k in wanted or not is_of_base(loaded.model, k, v)}
    lacking, strange = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
    if lacking or strange:
        raise AdapterError(
            f"the adapter's weights do not match {loaded.identity.subject} and its configuration:"
            f" {len(lacking)} are lacking, {len(strange)} have no place "
            f"(first: {(lacking + strange)[0]}); "
            f"{made_for(adapter.config, loaded.identity.subject)}",
            remedy="use an adapter that was made for this base, or fetch it again",
        )
    for key, tensor in wanted.items():
        if tuple(state[key].shape) != tuple(tensor.shape):
            raise AdapterError(
                f"the adapter belongs to another base: {key} has shape "
                f"{tuple(state[key].shape)}, {loaded.identity.subject} needs "
                f"{tuple(tensor.shape)}; {made_for(adapter.config, loaded.identity.subject)}",
                remedy="load the base that the adapter was tuned on",
            )
    tensors = {key: torch.from_numpy(np.array(array)) for key, array in state.items()}
    with unwarned():
        set_peft_model_state_dict(loaded.peft, tensors, adapter_name=name)


def _acts(layer: Any, name: str) -> bool:
    return not layer.disable_adapters and name in layer.active_adapters


def _dead(name: str, reason: str) -> AdapterError:
    return AdapterError(
        f"the adapter {name!r} does not act: {reason}",
        remedy="nothing was measured; train or fetch the adapter again and attach it unmerged",
    )


def _prompt_ids(loaded: LoadedModel, prompts: Iterable[Prompt]) -> Iterator[Tensor]:
    for prompt in prompts:
        text = render_prompt(
            loaded.tokenizer,
            prompt.text,
            prompt.system,
            templated=loaded.templated,
            history=prompt.history,
        )
        ids = encode(loaded.tokenizer, text, templated=loaded.templated).ids
        yield torch.tensor([ids], device=loaded.device)


def _logits(loaded: LoadedModel, ids: Tensor) -> Tensor:
    with torch.inference_mode():
        logits: Tensor = loaded.model(input_ids=ids, use_cache=False).logits
    return logits.float()


def _base_modules(loaded: LoadedModel) -> Iterator[tuple[str, Any]]:
    """Modules under the names they have without adapters, LoRA's own left out."""
    for path, module in loaded.model.named_modules():
        if "lora_" in path or path.endswith("base_layer"):
            continue
        yield path, module


def _linear_names(loaded: LoadedModel) -> list[str]:
    linear = (torch.nn.Linear, torch.nn.modules.linear.LazyLinear)
    found = {
        path.rpartition(".")[2]
        for path, module in _base_modules(loaded)
        if isinstance(module, linear) or hasattr(module, "base_layer") or hasattr(module, "nf")
    }
    return sorted(found)

"""Adapters from strangers: what is looked at before any of their files is loaded.

Takes a folder or the contents of its adapter_config.json; gives the settings that peft is handed,
or an `AdapterError` that names what is wrong and the way out. An adapter has to leave its base as
it is, because base and tuned model are one model in memory: what changes base weights is refused.
Knows neither torch nor peft.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from emotest.errors import AdapterError
from emotest.models.headers import Tensor, tensors_in
from emotest.models.strangers import finite, json_object, n_weights, require_inside, require_safe

MOST_RANK = 4096
"""The largest rank of a LoRA; papers go up to 1024, the widest models have 16,384 columns."""

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
ADAPTER_FILES = (CONFIG, WEIGHTS)

_FLOATS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")
_LONGEST_PATTERN = 2_000

_OTHER_METHODS = "audit a LoRA adapter, or merge this one into its base with peft's "
_OTHER_METHODS += "merge_and_unload(), save the result as a model and audit that"


def require_sound_adapter(folder: Path) -> None:
    """Refuse an adapter folder that is unsafe to load, no LoRA, or larger than any is."""
    tensors = require_sound_files(folder)
    peft_settings(adapter_config(folder))
    for name, tensor in tensors.items():
        if "lora_A" in name and tensor.shape[:1] > (MOST_RANK,):
            raise _rank(tensor.shape[0], f"by the shape of {name[:80]!r}")


def require_sound_files(folder: Path) -> Mapping[str, Tensor]:
    """Refuse the two files of an adapter of any kind where they are unsafe; give their tensors."""
    require_inside(folder, kind=AdapterError)
    adapter_config(folder)
    require_safe(folder, (WEIGHTS,))
    tensors = tensors_in(folder / WEIGHTS, kind=AdapterError)
    for name, tensor in tensors.items():
        if tensor.dtype not in _FLOATS:
            raise AdapterError(
                f"{folder / WEIGHTS} holds {name[:80]!r} as {tensor.dtype}, which no LoRA is",
                remedy="save the adapter again in float32 or bfloat16",
            )
    return tensors


def require_smaller(adapter: Path, base: Path) -> None:
    """Refuse an adapter with more numbers than its base; both folders are checked already."""
    most = n_weights(base)
    held = sum(t.size for t in tensors_in(adapter / WEIGHTS, kind=AdapterError).values())
    if most and held > most:
        raise AdapterError(
            f"the adapter {adapter} is larger than its base {base}: {held:,} numbers against "
            f"{most:,}",
            remedy="name the base that it was made for, which its adapter_config.json says is "
            f"{named_base(adapter_config(adapter)) or 'unknown'}",
        )


def adapter_config(folder: Path) -> dict[str, Any]:
    """The contents of adapter_config.json."""
    if not (folder / CONFIG).is_file():
        raise AdapterError(
            f"{folder} holds no {CONFIG}",
            remedy="point to a folder that peft's save_pretrained wrote",
        )
    return json_object(folder / CONFIG, kind=AdapterError)


def named_base(config: Mapping[str, Any]) -> str | None:
    """The base that an adapter says it was made for, as a short text."""
    named = config.get("base_model_name_or_path")
    return named[:200] if isinstance(named, str) and named else None


def made_for(config: Mapping[str, Any], given: str) -> str:
    """Both bases in words, for an error: the one an adapter names and the one it is put on."""
    named = named_base(config)
    if named is None:
        return f"its {CONFIG} names no base; it was put on {given}"
    return f"its {CONFIG} says that it was made for {named!r}; it was put on {given}"


def peft_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a `peft.LoraConfig`, each of its right type.

    Everything in the configuration is either handed on, known to mean nothing for an adapter
    whose weights are given, or refused: a setting left out in silence would be another adapter.
    """
    kind = str(config.get("peft_type", "LORA")).rpartition(".")[2][:40]
    if kind != "LORA":
        raise AdapterError(f"the adapter is a {kind}, not a LoRA", remedy=_OTHER_METHODS)
    settings = {}
    for key, value in config.items():
        if key in _HANDED:
            is_right, what = _HANDED[key]
            if not is_right(value):
                raise AdapterError(
                    f"{key} in {CONFIG} is {str(value)[:60]!r}, which is not {what}",
                    remedy="fetch the adapter again, or save it again with peft",
                )
            if value is not None:  # peft's own default
                settings[key] = value
        elif key not in _MEANS_NOTHING and value not in (None, False, "", [], {}):
            raise AdapterError(
                f"the adapter uses {key[:60]!r} ({str(value)[:60]}), which emotest cannot put on "
                "a base and take off again",
                remedy=_OTHER_METHODS,
            )
    _require_patterns(settings)
    _require_base_kept(config)
    for rank in (settings.get("r", 8), *settings.get("rank_pattern", {}).values()):
        if rank > MOST_RANK:
            raise _rank(rank, f"by its {CONFIG}")
    return settings


def _require_base_kept(config: Mapping[str, Any]) -> None:
    """Refuse what would change the base's own weights, and thereby what base answers."""
    if (bias := config.get("bias")) not in (None, "none"):
        raise AdapterError(
            f"the adapter changes biases of its base too (bias={str(bias)[:20]!r}), so that the "
            "base would no longer be the base",
            remedy=_OTHER_METHODS,
        )
    start = config.get("init_lora_weights", True)
    if not (isinstance(start, bool | None) or start in ("gaussian", "eva", "orthogonal")):
        raise AdapterError(
            f"the adapter starts from weights taken out of its base (init_lora_weights="
            f"{str(start)[:40]!r}), so that it means nothing on the base as it is",
            remedy="save it again as a plain LoRA: peft's save_pretrained(FOLDER, "
            "path_initial_model_for_weight_conversion=INITIAL)",
        )


def _require_patterns(settings: Mapping[str, Any]) -> None:
    patterns = [*settings.get("rank_pattern", {}), *settings.get("alpha_pattern", {})]
    for key in ("target_modules", "exclude_modules", "layers_pattern", "modules_to_save"):
        value = settings.get(key)
        patterns += [value] if isinstance(value, str) else value or []
    for pattern in patterns:
        try:
            if len(pattern) > _LONGEST_PATTERN:
                raise re.error("too long")
            re.compile(pattern)
        except (re.error, RecursionError, OverflowError) as error:
            raise AdapterError(
                f"{CONFIG} names modules by the pattern {pattern[:60]!r}, which cannot be read: "
                f"{error}",
                remedy="fetch the adapter again, or save it again with peft",
            ) from None


def _rank(rank: int, where: str) -> AdapterError:
    return AdapterError(
        f"the adapter has a rank of {rank:,} {where}; emotest takes at most {MOST_RANK:,}",
        remedy="check where it comes from: no LoRA in use is that wide",
    )


# --- settings: what peft is handed, and of which type ------------------------------------------

_Right = Callable[[Any], bool]


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _is_rank(value: Any) -> bool:
    return type(value) is int and value > 0


def _is_text(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _is_layers(value: Any) -> bool:
    some = value if isinstance(value, list) else [value]
    return value is None or all(type(layer) is int and layer >= 0 for layer in some)


def _table_of(right: _Right) -> _Right:
    def is_right(value: Any) -> bool:
        return value is None or (isinstance(value, dict) and all(map(right, value.values())))

    return is_right


_YES_OR_NO: tuple[_Right, str] = (lambda value: isinstance(value, bool), "true or false")
_NAMES: tuple[_Right, str] = (
    lambda value: value is None or isinstance(value, str) or _is_names(value),
    "a name, a pattern or a list of names",
)

_HANDED: Mapping[str, tuple[_Right, str]] = {
    "task_type": (_is_text, "a text"),
    "r": (_is_rank, "a whole number above 0"),
    "lora_alpha": (finite, "a finite number"),
    "lora_dropout": (lambda value: finite(value) and 0 <= value < 1, "a share below 1"),
    "target_modules": _NAMES,
    "exclude_modules": _NAMES,
    "layers_pattern": _NAMES,
    "layers_to_transform": (_is_layers, "a number of a layer or a list of them"),
    "modules_to_save": (lambda v: v is None or _is_names(v), "a list of names"),
    "rank_pattern": (_table_of(_is_rank), "a table of ranks"),
    "alpha_pattern": (_table_of(finite), "a table of finite numbers"),
    "fan_in_fan_out": _YES_OR_NO,
    "use_rslora": _YES_OR_NO,
    "use_dora": _YES_OR_NO,
    "lora_bias": _YES_OR_NO,
}

_MEANS_NOTHING = (
    "peft_type", "peft_version", "auto_mapping", "base_model_name_or_path", "revision",
    "inference_mode", "bias", "init_lora_weights", "loftq_config", "eva_config", "corda_config",
    "lora_ga_config", "runtime_config", "megatron_core", "qalora_group_size",
)  # fmt: skip
"""How it was made, where and by what; checked apart (`bias`, `init_lora_weights`); or defaults of
methods that are off."""

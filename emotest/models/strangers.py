"""Models from strangers: what is looked at before any of their files is loaded.

Takes a folder; gives nothing, or an error that names the file, what is wrong and the way out.
Weights are read from safetensors only; no file leads outside its folder; nothing claims a size
that its weights do not have; no setting makes a library fetch or run code. Knows no torch, so a
bad folder is refused before a worker starts. Adapters are the matter of `lora`.
"""

from __future__ import annotations

import json
import math
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from emotest.errors import ModelError
from emotest.models.headers import Tensor, tensors_in

PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")

LARGEST_SETTINGS = 16 * 2**20
"""Bytes of a JSON file of settings; those of real models have some kilobytes."""

LARGEST_TOKENIZER = 256 * 2**20
"""Bytes of a tokenizer; the largest vocabularies take about 35 MB."""

LARGEST_TEMPLATE = 2**20
DEEPEST = 32
"""Levels of nesting of a JSON file of settings."""

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
MOST_LAYERS = 2_000
MOST_EXPERTS = 10_000
LARGEST_DIMENSION = 2**27
PACKED = 8
"""So many quantized weights lie in one number of a file at most (4 bits in 32)."""

_READ = ("*.json", "*.jinja", "*.safetensors", "*.model", "*.txt")
"""What is read of a folder; README and training state are not."""

LARGEST = {".json": LARGEST_TOKENIZER, ".jinja": LARGEST_TEMPLATE, ".model": LARGEST_TOKENIZER,
           ".txt": LARGEST_TOKENIZER}  # fmt: skip
"""Bytes of a file of any real model, by its ending; weights have no limit but the disk's."""

_LAYERS = re.compile(r"(num_)?(n_|hidden_|encoder_|decoder_)*layers?|num_hidden_layers")
_WIDTHS = ("hidden_size", "n_embd", "d_model", "dim")
_DIMENSIONS = re.compile(
    r".*(hidden_size|intermediate_size|vocab_size|_dim|_heads|n_head|n_embd|d_model|d_ff|n_inner)"
    r"|.*position(_embedding)?s"
)
_ROWS = ("vocab_size", "intermediate_size", "n_inner", "ffn_dim", "d_ff", "n_positions")
"""What stands beside the width in a weight, so that the product has to be in the files."""

_FETCHES = ("attn_implementation", "_attn_implementation", "_attn_implementation_internal",
            "experts_implementation", "_experts_implementation_internal")  # fmt: skip
"""Settings that name code on the Hub where they hold a slash; transformers would fetch it."""

_AGAIN = "fetch the model again, or write it again with save_pretrained(FOLDER)"


def require_safe(folder: Path, patterns: Iterable[str]) -> None:
    """Refuse a folder whose weights exist only as pickles: reading one can run any code."""
    if any(
        path
        for pattern in patterns
        for path in folder.glob(pattern)
        if path.suffix == ".safetensors"
    ):
        return
    pickles = [path.name for pattern in PICKLES for path in sorted(folder.glob(pattern))]
    if pickles:
        raise ModelError(
            f"{folder} holds its weights as a pickle ({pickles[0]}), which can run code",
            remedy="load it once where you trust it and write it again with "
            "save_pretrained(FOLDER), which uses safetensors",
        )
    raise ModelError(
        f"{folder} holds no weights (*.safetensors)",
        remedy="download the model whole, or point to another folder",
    )


def require_sound_model(folder: Path, *, whole: bool = True) -> None:
    """Refuse a model folder that is unsafe to load or claims what it does not hold.

    Where it need not be `whole` (a model on the Hub whose files come when it is loaded), weights
    that are not all here are not asked for.
    """
    require_inside(folder)
    config = json_object(folder / "config.json")
    for name in ("tokenizer_config.json", "generation_config.json"):
        if (folder / name).is_file():
            json_object(folder / name)
    if (folder / "adapter_config.json").exists():
        raise ModelError(
            f"{folder} holds an adapter_config.json beside a model: transformers would load the "
            "base that it names in place of this model",
            remedy="take adapter_config.json out of the folder, or name the base and this "
            "folder: BASE+FOLDER",
        )
    _require_no_fetching(folder, config)
    weights = _weights(folder, whole=whole)
    if weights:
        tensors = [tensor for file in weights for tensor in tensors_in(file).values()]
        _require_sizes(folder, config, tensors)


def n_weights(folder: Path) -> int:
    """How many numbers the weights in a checked folder are; 0 where none are here."""
    return sum(t.size for file in _weights(folder, whole=False) for t in tensors_in(file).values())


def code_of_its_own(folder: Path) -> str | None:
    """The code that a model's files ask to be run, which never is; None where they ask for none."""
    named: list[str] = []
    for name in ("config.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            asked = json_object(folder / name).get("auto_map")
            named += [str(value) for value in asked.values()] if isinstance(asked, dict) else []
    return ", ".join(named)[:200] or None


def require_inside(folder: Path, *, kind: type[ModelError] = ModelError) -> None:
    """Refuse files that lead outside the folder, are no files at all, or absurdly large.

    The Hub's cache is links by design: they may lead to the blobs of their own repository.
    """
    root = folder.resolve()
    roots = [root]
    if root.parent.name == "snapshots":
        roots.append(root.parent.parent / "blobs")
    for path in sorted({path for pattern in _READ for path in folder.glob(pattern)}):
        try:
            real = path.resolve(strict=True)
            status = real.stat()
        except (OSError, RuntimeError) as error:
            raise kind(f"{path} leads nowhere: {error}", remedy=_AGAIN) from None
        if not any(real.is_relative_to(allowed) for allowed in roots):
            raise kind(
                f"{path} is a link that leads outside its folder, to {real}",
                remedy="put the file itself there if you trust it: cp --remove-destination "
                f"{real} {path}",
            )
        if not stat.S_ISREG(status.st_mode):
            raise kind(f"{path} is no regular file", remedy="take it out of the folder")
        largest = LARGEST.get(path.suffix)
        if largest is not None and status.st_size > largest:
            raise kind(
                f"{path} has {status.st_size:,} bytes, more than the {largest:,} of any real one",
                remedy=_AGAIN,
            )


def json_object(path: Path, *, kind: type[ModelError] = ModelError) -> dict[str, Any]:
    """The object in a JSON file of settings: not too large, not too deep, and nothing else."""
    try:
        if path.stat().st_size > LARGEST_SETTINGS:
            raise kind(
                f"{path} has more than {LARGEST_SETTINGS // 2**20} MiB, which no settings need",
                remedy=_AGAIN,
            )
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise kind(
            f"{path} cannot be read: {error.strerror or error}",
            remedy="check the path and its permissions",
        ) from error
    except (ValueError, RecursionError) as error:
        # UTF-8, JSON, a number of thousands of digits, or brackets without end.
        why = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)[:200]
        raise kind(f"{path} is not a JSON object: {why}", remedy=_AGAIN) from None
    if not isinstance(document, dict):
        raise kind(f"{path} is not a JSON object: {type(document).__name__}", remedy=_AGAIN)
    if _deeper_than(document, DEEPEST):
        raise kind(f"{path} is nested deeper than {DEEPEST} levels", remedy=_AGAIN)
    return document


def _deeper_than(value: Any, limit: int) -> bool:
    """Whether lists and objects lie in one another for more than `limit` levels."""
    level = [value]
    for _ in range(limit):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return False
    return any(isinstance(value, dict | list) for value in level)


def _weights(folder: Path, *, whole: bool) -> list[Path]:
    """The files that transformers would read the weights from; [] where they are not here yet."""
    names = named_weights(folder)
    if names is None:
        return sorted(folder.glob("*.safetensors"))
    files = [folder / name for name in names]
    lacking = [file.name for file in files if not file.is_file()]
    if lacking and not whole:
        return []
    if lacking:
        raise ModelError(
            f"{folder} lacks {len(lacking)} of {len(files)} files of weights, first {lacking[0]}",
            remedy="download the model whole",
        )
    return files


def named_weights(folder: Path) -> list[str] | None:
    """The names of a model's files of weights, here or not; None where nothing tells them."""
    single, index = folder / SINGLE, folder / INDEX
    if single.is_file():
        return [single.name]
    if not index.is_file():
        return None
    places = json_object(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise ModelError(f"{index} holds no weight_map", remedy=_AGAIN)
    names: set[str] = set()
    for name in places.values():
        if not _plain(name):
            raise ModelError(
                f"{index} looks for weights in {str(name)[:80]!r}, which is no safetensors file "
                "of its own folder",
                remedy="fetch the model again from a source that you trust",
            )
        names.add(name)
    return sorted(names)


def _plain(name: object) -> bool:
    return (
        isinstance(name, str)
        and name.endswith(".safetensors")
        and not name.startswith(".")
        and not any(sign in name for sign in "/\\\0")
    )


def _require_no_fetching(folder: Path, config: dict[str, Any]) -> None:
    for part in _parts(config):
        for key in _FETCHES:
            if "/" in json.dumps(part.get(key)):
                raise ModelError(
                    f"the config.json of {folder} has code fetched from the Hub: "
                    f"{key} is {str(part[key])[:80]!r}",
                    remedy=f"take {key} out of config.json: the model needs it for speed alone",
                )
        if part.get("transformers_weights") is not None:
            raise ModelError(
                f"the config.json of {folder} names a file of weights by itself: "
                f"{str(part['transformers_weights'])[:80]!r}",
                remedy="take transformers_weights out of config.json and call the file "
                "model.safetensors",
            )


def _parts(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The configuration and those within it (`text_config`)."""
    yield config
    for value in config.values():
        if isinstance(value, dict):
            yield from _parts(value)


def _require_sizes(folder: Path, config: dict[str, Any], tensors: list[Tensor]) -> None:
    """Hold what the configuration claims against what the files hold.

    A model is built from its configuration before its weights are read: layers that are in no
    file would be made first and missed later.
    """
    most = PACKED * sum(tensor.size for tensor in tensors)
    for part in _parts(config):
        for key, value in part.items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                continue
            limit = _limit(key, most, len(tensors))
            if limit is not None and not 0 <= value <= limit:
                raise _absurd(folder, f"{key} is {_number(value)}", tensors)
        width = max((_size(part.get(key)) for key in _WIDTHS), default=0)
        for key in _ROWS:
            if width * _size(part.get(key)) > most:
                raise _absurd(
                    folder, f"{key} {part[key]:,} by a width of {width:,} is claimed", tensors
                )


def _limit(key: str, n_numbers: int, n_tensors: int) -> int | None:
    if _LAYERS.fullmatch(key):
        return min(MOST_LAYERS, n_tensors)
    if "expert" in key and not key.endswith(("_size", "_dim", "_scale", "_factor")):
        return MOST_EXPERTS
    if key.endswith(("position_embeddings", "_positions", "n_ctx")):
        return LARGEST_DIMENSION
    return min(LARGEST_DIMENSION, n_numbers) if _DIMENSIONS.fullmatch(key) else None


def _size(value: Any) -> int:
    return value if type(value) is int else 0


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) and abs(value) < 10**18 else f"{value:.3g}"


def _absurd(folder: Path, claim: str, tensors: list[Tensor]) -> ModelError:
    held = sum(tensor.size for tensor in tensors)
    return ModelError(
        f"the config.json of {folder} does not belong to its weights: {claim}, the files hold "
        f"{len(tensors):,} tensors of {held:,} numbers in all",
        remedy="fetch config.json and weights again from one source",
    )


def finite(value: Any) -> bool:
    """Whether a setting is a number that can be computed with; bool is none."""
    return type(value) in (int, float) and abs(value) < 1e18 and math.isfinite(value)

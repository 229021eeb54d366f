"""What a safetensors file says that it holds, read from its header alone.

Takes the path of a stranger's file; gives shapes and dtypes, or an error of the kind that the
caller names. No tensor is read and nothing is allocated by the file's own word: every size is
held against the size of the file first. Knows neither torch nor models.

Source: the format's description, https://huggingface.co/docs/safetensors.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emotest.errors import ModelError

LARGEST_HEADER = 32 * 2**20
"""Bytes of a header; a shard of the largest open models has less than a tenth."""

_BITS = {
    "F64": 64, "I64": 64, "U64": 64, "C64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16,
    "BF16": 16, "I16": 16, "U16": 16, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8, "I8": 8, "U8": 8, "BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip

_REMEDY = "fetch the file again: it is cut off, changed, or was never whole"


@dataclass(frozen=True)
class Tensor:
    """One tensor as the header names it."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


def tensors_in(file: Path, *, kind: type[ModelError] = ModelError) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name; an error of `kind` where the header lies."""
    try:
        n_bytes = file.stat().st_size
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            if n_bytes < 8 or length > n_bytes - 8:
                raise _broken(
                    kind, file, f"its header claims {length:,} bytes, the file has {n_bytes:,}"
                )
            if length > LARGEST_HEADER:
                raise _broken(kind, file, f"its header has {length:,} bytes")
            text = opened.read(length)
    except OSError as error:
        raise kind(
            f"{file} cannot be read: {error.strerror or error}",
            remedy="check the path and its permissions",
        ) from error
    return _checked(kind, file, text, n_bytes - 8 - length)


def _checked(kind: type[ModelError], file: Path, text: bytes, room: int) -> dict[str, Tensor]:
    try:
        header = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError):
        raise _broken(kind, file, "its header is not JSON") from None
    if not isinstance(header, dict):
        raise _broken(kind, file, "its header is no JSON object")
    header.pop("__metadata__", None)
    return {name: _tensor(kind, file, name, entry, room) for name, entry in header.items()}


def _tensor(kind: type[ModelError], file: Path, name: str, entry: Any, room: int) -> Tensor:
    """One entry of the header, held against the `room` bytes behind it."""
    who = f"the tensor {name[:80]!r}"
    if not isinstance(entry, dict) or entry.get("dtype") not in _BITS:
        told = entry.get("dtype") if isinstance(entry, dict) else entry
        raise _broken(kind, file, f"{who} has the unknown dtype {str(told)[:40]!r}")
    shape, place = _counts(entry.get("shape")), _counts(entry.get("data_offsets"))
    if shape is None or place is None or len(place) != 2:
        raise _broken(kind, file, f"{who} has no usable shape or place")
    start, end = place
    # Dimension by dimension, so that a shape of a million large numbers is never multiplied out.
    bits = _BITS[entry["dtype"]]
    for dimension in shape:
        bits *= dimension
        if bits > 8 * room:
            break
    if not start <= end <= room or bits != 8 * (end - start):
        raise _broken(
            kind, file,
            f"{who} of shape {str(list(shape))[:60]} ({entry['dtype']}) does not fit its place, "
            f"{start:,} to {end:,} of {room:,} bytes",
        )  # fmt: skip
    return Tensor(entry["dtype"], shape)


def _counts(value: Any) -> tuple[int, ...] | None:
    right = isinstance(value, list) and all(type(n) is int and n >= 0 for n in value)
    return tuple(value) if right else None


def _broken(kind: type[ModelError], file: Path, why: str) -> ModelError:
    return kind(f"{file} is broken: {why}", remedy=_REMEDY)

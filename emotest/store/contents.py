"""What stands in the files of an entry: JSON, JSON lines and arrays (safetensors), never pickle.

Writers take a path that the store handed out, and leave the whole file or none: they write
beside it and rename. Readers take the path of a finished file. Knows no keys.

Reading cannot run code, and an array or number comes back bit for bit: JSON writes a float by
its shortest round-trip form, and what is not finite belongs into arrays.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emotest.errors import StoreError, UsageError
from emotest.store.faults import naming_faults
from emotest.store.keys import plain
from emotest.study import records

if TYPE_CHECKING:
    import numpy as np

_PART = ".part"


def write_json(path: Path, value: object) -> None:
    """Write one JSON value; `UsageError` names the place of a value that JSON does not know."""
    text = json.dumps(plain(value, path.name), ensure_ascii=False, allow_nan=False, indent=1)
    with _replacing(path) as part:
        part.write_text(f"{text}\n", encoding="utf-8")


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object a line, in the form of `emotest.study.records`."""
    with _replacing(path) as part:
        records.write_jsonl(part, (dict(row) for row in rows))


def write_arrays(
    path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None
) -> None:
    """Write named arrays of any shape, and optional texts, as a safetensors file.

    dtypes: booleans, signed and unsigned integers, floating and complex numbers that safetensors
    knows; `UsageError` names the array of any other dtype.
    """
    import numpy as np
    from safetensors import SafetensorError
    from safetensors.numpy import save

    # safetensors copies memory as it lies: a transposed or strided view would be written in the
    # wrong order and read back without a complaint.
    ordered = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    for name, array in ordered.items():
        if array.dtype.kind not in "biufc":
            raise UsageError(
                f"the array {name!r} is of dtype {array.dtype}",
                remedy="write booleans and numbers as arrays, and everything else as JSON",
            )
    try:
        content = save(ordered, dict(metadata) if metadata else None)
    except (SafetensorError, KeyError, TypeError) as error:
        dtypes = ", ".join(f"{name}: {array.dtype}" for name, array in ordered.items())
        raise UsageError(
            f"safetensors cannot hold these arrays ({dtypes}): {error}",
            remedy="use dtypes that safetensors knows, such as float32, and texts as metadata",
        ) from error
    with _replacing(path) as part:
        part.write_bytes(content)


def read_json(path: Path) -> Any:
    """The JSON value that `write_json` wrote."""
    return json.loads(path.read_text(encoding="utf-8"))


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON lines file; `DataError` names the line that is none."""
    return list(records.read_jsonl(path))


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file; `StoreError` where it is none."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise _no_safetensors(path, error) from error


def read_metadata(path: Path) -> dict[str, str]:
    """The texts that were written beside the arrays of a safetensors file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return dict(file.metadata() or {})
    except SafetensorError as error:
        raise _no_safetensors(path, error) from error


def _no_safetensors(path: Path, error: Exception) -> StoreError:
    return StoreError(
        f"{path} cannot be read as arrays: {error}",
        remedy="ask this file for what it holds: see the manifest beside it",
    )


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A place to write to, renamed to `path` when the block ends well, and removed otherwise."""
    part = path.with_name(path.name + _PART)
    with naming_faults(path.parent, f"writing {path.name}"):
        try:
            yield part
            os.replace(part, path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


__all__ = [
    "read_arrays",
    "read_json",
    "read_jsonl",
    "read_metadata",
    "write_arrays",
    "write_json",
    "write_jsonl",
]

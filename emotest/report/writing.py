"""How reports are written: whole files or none, in UTF-8, whatever a model wrote.

Text and rows in, files out; knows nothing of what stands in them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from emotest.errors import StoreError


def json_line(row: Mapping[str, Any]) -> str:
    """One JSON line in UTF-8; lone surrogates, which UTF-8 cannot hold, as escapes."""
    line = json.dumps(row, ensure_ascii=False, allow_nan=False)
    try:
        line.encode("utf-8")
    except UnicodeEncodeError:
        line = json.dumps(row, allow_nan=False)
    return f"{line}\n"


def replace(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


@contextmanager
def writing(folder: Path, *, elsewhere: str) -> Iterator[None]:
    """Turn what a disk refuses into a `StoreError`; `elsewhere` says how to choose a place."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"the report cannot be written to {folder}: {error.strerror or error}",
            remedy=f"make room or mend the rights there, or {elsewhere}",
        ) from error

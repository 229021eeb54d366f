"""How reports are written: whole files or none, in UTF-8, whatever a model wrote.

Text and rows in, files out; knows nothing of what stands in them.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from emotest.errors import DataError, StoreError

_ACTS = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Within strings alone, for outside of them JSON is ASCII."""

LATEST = "latest"
"""In a folder of runs, what leads to the last one."""


def json_line(row: Mapping[str, Any]) -> str:
    """One JSON line in UTF-8."""
    return f"{json_text(row)}\n"


def json_text(document: Any, *, indent: int | None = None) -> str:
    """A document as JSON that UTF-8 can hold and that acts on no terminal that shows it.

    Read back, it is the very document: control characters, changes of direction and lone
    surrogates are escaped as JSON itself does.
    """
    text = json.dumps(document, indent=indent, ensure_ascii=False, allow_nan=False)
    return _ACTS.sub(lambda match: f"\\u{ord(match.group()):04x}", text)


def replace(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def write_file(path: Path, text: str, *, elsewhere: str) -> None:
    """Write a file that a user asked for, with the folders above it."""
    with writing(path.parent, elsewhere=elsewhere):
        path.parent.mkdir(parents=True, exist_ok=True)
        replace(path, text)


def append(path: Path, text: str) -> None:
    """Add text to the end of a file, which is made where it is missing."""
    with path.open("a", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)


def claimed(place: Path) -> Path:
    """The folder itself, or one numbered after it: claimed by making it, for two runs at once."""
    place.parent.mkdir(parents=True, exist_ok=True)
    candidate, number = place, 1
    while True:
        try:
            candidate.mkdir()
            return candidate
        except FileExistsError:
            number += 1
            candidate = place.with_name(f"{place.name}-{number}")


def point(reports: Path, name: str) -> None:
    """Let `latest` lead to the run `name`: a link, or a text file where links are refused."""
    pointer = reports / LATEST
    partial = pointer.with_name(f".{pointer.name}.{os.getpid()}")
    with suppress(FileNotFoundError):
        partial.unlink()
    try:
        partial.symlink_to(name, target_is_directory=True)
    except (OSError, NotImplementedError):
        partial.write_text(f"{name}\n", encoding="utf-8")
    partial.replace(pointer)


def latest(reports: Path) -> Path:
    """The folder of the last finished run; `DataError` where there is none."""
    pointer = reports / LATEST
    if pointer.is_dir():
        return pointer
    if pointer.is_file():
        return reports / pointer.read_text(encoding="utf-8").strip()
    raise DataError(
        f"no run was finished in {reports} yet",
        remedy="run the tests first, or name the folder of a run",
    )


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

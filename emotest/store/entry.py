"""`Entry`, what the store hands out, and `Notice`, what it has to say besides.

Takes a checked folder and its manifest, gives readers for its files. Knows neither locks nor
where a store keeps its folders.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from emotest.errors import StoreError
from emotest.store import contents
from emotest.store.keys import Key
from emotest.store.manifest import Manifest

if TYPE_CHECKING:
    import numpy as np

Content = TypeVar("Content")


@dataclass(frozen=True)
class Notice:
    """Something a user should know although the run goes on: `what` happened to which entry."""

    what: str
    """`corrupt`, `remote corrupt` or `remote unreachable`."""
    key: Key
    reason: str
    place: Path | None = None
    """Where the corrupt entry was moved to, if it was."""

    def __str__(self) -> str:
        moved = f"; it was moved to {self.place}" if self.place else ""
        return f"{self.what}: {self.key}: {self.reason}{moved}"


@dataclass(frozen=True)
class Entry:
    """A whole entry: its folder, and readers for the files that its manifest names.

    Every reader raises `StoreError` for a name that the entry does not have, and when the entry
    was removed behind our back.
    """

    key: Key
    folder: Path
    manifest: Manifest

    @property
    def title(self) -> str:
        """What it is, in a few words."""
        return self.manifest.title

    @property
    def identity(self) -> Mapping[str, Any]:
        """What its key was made from, without the title."""
        return self.manifest.identity

    def path(self, name: str) -> Path:
        """The file of this name, for libraries that want a path. It must not be written to."""
        names = [file.name for file in self.manifest.files]
        if name not in names:
            raise StoreError(
                f"{self.key} has no file {name!r}", remedy=f"ask for one of {', '.join(names)}"
            )
        return self.folder / name

    def read_json(self, name: str) -> Any:
        """The JSON value of a file."""
        return self._read(contents.read_json, name)

    def read_jsonl(self, name: str) -> list[dict[str, Any]]:
        """The objects of a JSON lines file."""
        return self._read(contents.read_jsonl, name)

    def read_arrays(self, name: str) -> dict[str, np.ndarray]:
        """The arrays of a safetensors file, by name."""
        return self._read(contents.read_arrays, name)

    def read_metadata(self, name: str) -> dict[str, str]:
        """The texts beside the arrays of a safetensors file."""
        return self._read(contents.read_metadata, name)

    def _read(self, read: Callable[[Path], Content], name: str) -> Content:
        try:
            return read(self.path(name))
        except FileNotFoundError as error:
            raise StoreError(
                f"{self.key} was removed from the store while it was in use",
                remedy="run again: what is missing is made again",
            ) from error


__all__ = ["Entry", "Notice"]

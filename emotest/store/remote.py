"""A store elsewhere, to pull entries from and push entries to.

Takes the address of a copy of a store in any form that fsspec knows (`s3://`, `gs://`, `https://`,
`ssh://`, `file://` ...) and keys; gives files in a local folder. What comes from there is believed
only after every byte was checked against its manifest. Knows neither locks nor the local store.

The remote has the same `entries/<kind>/<digest>/` as a local store, so a store that was copied
there by any other tool serves as well.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from emotest.errors import StoreError
from emotest.store.keys import Key
from emotest.store.layout import MARKER, check_store_marker, store_marker
from emotest.store.manifest import (
    MANIFEST,
    CorruptEntryError,
    Manifest,
    check_folder,
    parse_manifest,
)


class Remote:
    """The entries at an fsspec address. The connection is opened at first use."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._opened: tuple[Any, str] | None = None

    def has(self, key: Key) -> bool:
        """Whether a whole entry of this key lies there: its manifest is written last."""
        system, root = self._open()
        return bool(system.exists(f"{_folder(root, key)}/{MANIFEST}"))

    def pull(
        self, key: Key, new_folder: Callable[[Key], Path], room_for: Callable[[int], None]
    ) -> tuple[Manifest, Path] | None:
        """Copy the entry of `key` into a folder from `new_folder`; None where there is none.

        `room_for` is told the bytes to come, and may refuse. `CorruptEntryError` where what lies
        there, or what arrived, is not what the manifest says.
        """
        system, root = self._open()
        place = _folder(root, key)
        try:
            raw: bytes = system.cat_file(f"{place}/{MANIFEST}")
        except FileNotFoundError:
            return None
        manifest = parse_manifest(raw, key)
        room_for(manifest.n_bytes)
        folder = new_folder(key)
        for file in manifest.files:
            target = folder / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                system.get_file(f"{place}/{file.name}", str(target))
            except FileNotFoundError as error:
                raise CorruptEntryError(f"{file.name} is missing there") from error
        (folder / MANIFEST).write_bytes(raw)
        return check_folder(folder, key), folder

    def push(self, folder: Path, manifest: Manifest) -> bool:
        """Copy a whole entry there, its manifest last; False where it was there already."""
        key = manifest.key
        if self.has(key):
            return False
        system, root = self._open()
        if not system.exists(f"{root}/{MARKER}"):
            system.makedirs(root, exist_ok=True)
            system.pipe_file(f"{root}/{MARKER}", store_marker())
        place = _folder(root, key)
        for name in [*(file.name for file in manifest.files), MANIFEST]:
            target = f"{place}/{name}"
            system.makedirs(target.rsplit("/", 1)[0], exist_ok=True)
            system.put_file(str(folder / name), target)
        return True

    def _open(self) -> tuple[Any, str]:
        if self._opened is None:
            import fsspec

            try:
                system, path = fsspec.core.url_to_fs(self.address)
            except (ImportError, ValueError) as error:
                raise StoreError(
                    f"the remote store {self.address} cannot be reached: {error}",
                    remedy="install what fsspec needs for this kind of address, or correct it",
                ) from error
            root = str(path).rstrip("/")
            try:
                marker: bytes = system.cat_file(f"{root}/{MARKER}")
            except FileNotFoundError:
                pass  # nothing was pushed there yet
            else:
                check_store_marker(marker, f"{self.address}/{MARKER}")
            self._opened = system, root
        return self._opened


def _folder(root: str, key: Key) -> str:
    return f"{root}/entries/{key.kind}/{key.digest}"


__all__ = ["Remote"]

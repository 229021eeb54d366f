"""Where a store keeps what: its folders, its locks, and who is reading.

Takes the store's root and keys, gives paths; moves folders about by atomic renames; knows
neither what an entry holds nor how it is made. `docs/store.md` draws the folders.

Two facts carry everything: a rename within one file system happens at once or not at all, and
the system drops the lock of a process that dies, however it dies.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from emotest.errors import StoreError, UsageError
from emotest.store.faults import naming_faults
from emotest.store.keys import Key, file_stem, key_of_stem
from emotest.store.manifest import flush_to_disk, maker
from emotest.store.readers import Readers

STORE_FORMAT = 1
"""Raised when the folders below change their meaning."""

MARKER = "store.json"
_ROOMS = ("entries", "locks", "making", "scratch", "quarantine", "used", "readers")


class BusyError(Exception):
    """Another process holds the lock of this key."""


class Layout:
    """The folders of the store at `root`. Nothing is created before something is written."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._readers = Readers(root / "readers")
        self._format_checked = False

    # -- the store as a whole ------------------------------------------------------------------

    def check_format(self) -> None:
        """Refuse a folder that is no store, or the store of a newer emotest, with `StoreError`."""
        if self._format_checked:
            return
        with naming_faults(self.root, "opening it"):
            marker = self.root / MARKER
            try:
                raw = marker.read_bytes()
            except FileNotFoundError:
                self._refuse_foreign_folder()
                return
        check_store_marker(raw, str(marker))
        self._format_checked = True

    def _refuse_foreign_folder(self) -> None:
        if not self.root.exists():
            return
        strangers = [item.name for item in self.root.iterdir() if not item.name.startswith(".")]
        # Another process may just be creating the store: look for its marker once more.
        if strangers and not (self.root / MARKER).exists():
            raise StoreError(
                f"{self.root} holds other things ({sorted(strangers)[0]!r}) and is no store",
                remedy="choose an empty or new folder with --emo-store or EMOTEST_STORE",
            )

    def create(self) -> None:
        """Make the store's folders, where they are not there yet."""
        self.check_format()
        if self._format_checked and all((self.root / room).is_dir() for room in _ROOMS):
            return
        with naming_faults(self.root, "creating it"):
            self.root.mkdir(parents=True, exist_ok=True)
            if not (self.root / MARKER).exists():
                # Nothing of a store belongs under version control, wherever it lies.
                _write_whole(self.root / ".gitignore", b"*\n")
                _write_whole(self.root / MARKER, store_marker())
            for room in _ROOMS:
                (self.root / room).mkdir(exist_ok=True)
        self.check_format()

    # -- entries -------------------------------------------------------------------------------

    def entry(self, key: Key) -> Path:
        """Where the entry of a key stands, or would stand."""
        return self.root / "entries" / key.kind / key.digest

    def stored_keys(self) -> list[Key]:
        """Keys of all entries, sorted; things that are no entries are left out."""
        return sorted(key for key, _ in self._listed() if key is not None)

    def strangers(self) -> list[Path]:
        """Whatever lies among the entries without being one."""
        return sorted(path for key, path in self._listed() if key is None)

    def _listed(self) -> Iterator[tuple[Key | None, Path]]:
        for kind in _listing(self.root / "entries"):
            if not kind.is_dir():
                yield None, kind
                continue
            for folder in _listing(kind):
                try:
                    yield Key(kind.name, folder.name), folder
                except UsageError:
                    yield None, folder

    def new_folder(self, key: Key) -> Path:
        """A fresh private folder in which the entry of a key is made. The key must be locked."""
        self.clear_making(key)
        folder = self.root / "making" / f"{file_stem(key)}.{secrets.token_hex(4)}"
        folder.mkdir()
        return folder

    def commit(self, folder: Path, key: Key) -> None:
        """Turn a sealed folder into the entry of its key, at once. The key must be locked."""
        place = self.entry(key)
        place.parent.mkdir(exist_ok=True)
        os.rename(folder, place)
        flush_to_disk(place.parent)

    def withdraw(self, key: Key) -> bool:
        """Remove an entry, at once, unless a living process uses it; whether it is gone.

        The key must be locked.
        """
        place = self.entry(key)
        if self.in_use(key):
            return False
        limbo = self.root / "making" / f"{file_stem(key)}.{secrets.token_hex(4)}"
        os.rename(place, limbo)
        # Who asked for it between the question above and the rename has said so by now.
        if self.in_use(key):
            os.rename(limbo, place)
            return False
        shutil.rmtree(limbo)
        self._stamp(key).unlink(missing_ok=True)
        return True

    def set_aside(self, key: Key, reason: str) -> Path:
        """Move a corrupt entry out of the way, with a note why. The key must be locked."""
        name = f"{file_stem(key)}.{datetime.now(UTC):%Y%m%dT%H%M%S}.{secrets.token_hex(2)}"
        place = self.root / "quarantine" / name
        with naming_faults(self.root, f"setting {key} aside"):
            place.parent.mkdir(exist_ok=True)
            os.rename(self.entry(key), place)
        with suppress(OSError):  # the note is a courtesy; a full disk must not stop the rebuild
            note = {"key": str(key), "digest": key.digest, "reason": reason}
            place.with_name(f"{name}.json").write_text(f"{json.dumps(note, indent=1)}\n")
        return place

    # -- work that is not finished -------------------------------------------------------------

    def scratch(self, key: Key) -> Path:
        """Where the maker of a key keeps what it has done so far."""
        return self.root / "scratch" / file_stem(key)

    def clear_making(self, key: Key) -> None:
        """Remove what makers that died left behind. The key must be locked, so nobody is at it."""
        for folder in (self.root / "making").glob(f"{file_stem(key)}.*"):
            shutil.rmtree(folder, ignore_errors=True)

    def unfinished(self, room: str) -> Iterator[tuple[Key, Path]]:
        """Folders in `making` or `scratch`, each with the key that it was for."""
        for folder in _listing(self.root / room):
            with suppress(UsageError):
                yield key_of_stem(folder.name), folder

    def set_aside_before(self) -> list[Path]:
        """Everything in quarantine: folders of corrupt entries, and the notes beside them."""
        return _listing(self.root / "quarantine")

    # -- locks, use and readers ----------------------------------------------------------------

    @contextmanager
    def locked(
        self, key: Key, *, wait: bool = True, on_wait: Callable[[Key], None] | None = None
    ) -> Iterator[None]:
        """Hold the one lock of a key; the system frees it when this process dies.

        `on_wait` is called once if another process holds it; with `wait=False` that raises
        `BusyError` instead.
        """
        from filelock import FileLock, Timeout

        self.create()
        lock = FileLock(self.root / "locks" / f"{file_stem(key)}.lock")
        with naming_faults(self.root, f"locking {key}"):
            try:
                lock.acquire(timeout=0)
            except Timeout:
                if not wait:
                    raise BusyError(str(key)) from None
                if on_wait is not None:
                    on_wait(key)
                lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def mark_used(self, key: Key) -> None:
        """Note that the entry was asked for just now, beside it and never inside it."""
        stamp = self._stamp(key)
        with suppress(OSError):  # a store that may only be read has no stamps
            try:
                os.utime(stamp)
            except FileNotFoundError:
                stamp.touch()

    def last_used(self, key: Key) -> datetime | None:
        """When the entry was last asked for (UTC), or None where that is not known."""
        try:
            return datetime.fromtimestamp(self._stamp(key).stat().st_mtime, UTC)
        except OSError:
            return None

    def _stamp(self, key: Key) -> Path:
        return self.root / "used" / file_stem(key)

    def hold(self, key: Key) -> None:
        """Tell other processes that this one uses the entry until it ends."""
        self._readers.hold(key)

    def in_use(self, key: Key) -> bool:
        """Whether a living process, this one among them, has asked for the entry."""
        return key in self._readers.keys_in_use()

    def release(self) -> None:
        """Tell other processes that this one uses no entry any more."""
        self._readers.release()


def store_marker() -> bytes:
    """The content of the file that makes a folder a store."""
    marker = {"format": STORE_FORMAT, "made_by": maker()}
    return f"{json.dumps(marker)}\n".encode()


def check_store_marker(raw: bytes, place: str) -> None:
    """Refuse the marker of a newer format, or a broken one, with `StoreError`."""
    try:
        found = json.loads(raw)["format"]
        newer = found > STORE_FORMAT
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{place} does not say of which format the store is",
            remedy="delete that file if you know the folder to be a store, or choose another "
            "folder with --emo-store",
        ) from error
    if newer:
        raise StoreError(
            f"{place}: the store has format {found}, and this emotest knows {STORE_FORMAT}",
            remedy="use the newer emotest that made it, or choose another folder with --emo-store",
        )


def files_below(place: Path) -> Iterator[os.stat_result]:
    """The status of every file at or below a place; what goes away meanwhile is left out."""
    paths = [Path(folder) / name for folder, _, names in os.walk(place) for name in names]
    for path in paths if place.is_dir() else [place]:
        with suppress(FileNotFoundError):
            yield path.lstat()


def bytes_below(place: Path) -> int:
    """Bytes of the files at or below a place."""
    return sum(status.st_size for status in files_below(place))


def _listing(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except FileNotFoundError:
        return []


def _write_whole(path: Path, content: bytes) -> None:
    part = path.with_name(f".{path.name.lstrip('.')}.{secrets.token_hex(4)}")
    part.write_bytes(content)
    flush_to_disk(part)
    os.replace(part, path)


__all__ = [
    "MARKER",
    "BusyError",
    "Layout",
    "bytes_below",
    "check_store_marker",
    "files_below",
    "store_marker",
]

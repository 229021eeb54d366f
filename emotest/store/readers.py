"""Who is reading what, so that nothing is pruned under a living process.

Takes keys, gives the keys that living processes have asked for. Knows no entries.
"""

from __future__ import annotations

import os
import secrets
import threading
import weakref
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from emotest.errors import UsageError
from emotest.store.keys import Key, file_stem, key_of_stem

if TYPE_CHECKING:
    from filelock import BaseFileLock


class Readers:
    """Which entries are in use by living processes.

    Every process that reads keeps one file of keys, and a lock beside it for as long as it
    lives; a file whose lock is free belongs to the dead.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: set[Key] = set()
        self._file: Path | None = None
        self._lock: BaseFileLock | None = None
        self._pid = -1
        self._one_thread = threading.Lock()

    def hold(self, key: Key) -> None:
        """Note that this process uses the entry from now on."""
        # A store that may only be read takes no notes, and cannot be pruned under us either.
        with self._one_thread, suppress(OSError):
            if self._pid != os.getpid():  # first use, or a fork that must speak for itself
                self._begin()
            if self._file is not None and key not in self._held:
                with self._file.open("a") as file:
                    file.write(f"{file_stem(key)}\n")
                self._held.add(key)

    def release(self) -> None:
        """Note that this process uses nothing any more."""
        with self._one_thread:
            if self._lock is not None and self._file is not None:
                _end(self._lock, self._file, self._pid)
            self._file, self._lock, self._pid = None, None, -1
            self._held.clear()

    def keys_in_use(self) -> set[Key]:
        """What living processes use, this one among them; takes away the files of the dead."""
        from filelock import FileLock, Timeout

        found: set[Key] = set()
        for file in self._folder.glob("*.keys"):
            lock = FileLock(file.with_suffix(".lock"))
            try:
                lock.acquire(timeout=0)
            except Timeout:
                found |= _keys_in(file)
            else:
                _end(lock, file, os.getpid())
        return found

    def _begin(self) -> None:
        from filelock import FileLock

        self._folder.mkdir(exist_ok=True)
        file = self._folder / f"{os.getpid()}-{secrets.token_hex(4)}.keys"
        # The lock comes first, so that a file of keys without a lock is always a dead one.
        lock = FileLock(file.with_suffix(".lock"), thread_local=False)
        lock.acquire(timeout=0)
        file.touch()
        self._lock, self._file, self._held, self._pid = lock, file, set(), os.getpid()
        weakref.finalize(self, _end, lock, file, os.getpid())


def _end(lock: BaseFileLock, file: Path, pid: int) -> None:
    """Take a file of keys away, and then its lock; a fork leaves its parent's alone."""
    if pid == os.getpid():
        with suppress(OSError):
            file.unlink(missing_ok=True)
            file.with_suffix(".lock").unlink(missing_ok=True)
        lock.release()


def _keys_in(file: Path) -> set[Key]:
    found = set()
    with suppress(OSError):
        for line in file.read_text().splitlines():
            with suppress(UsageError):  # the last line may be half written
                found.add(key_of_stem(line))
    return found


__all__ = ["Readers"]

"""`Store`: ask for an entry by its key; it is found, pulled from elsewhere, or made, once.

Takes keys, identities and makers; gives entries whose every byte was checked. Knows nothing of
what an entry means.

What is promised, to any number of processes on one file system: an entry is there whole or not
at all, whenever and however a process dies; one key is made once at a time; what is corrupt is
set aside and made again, never served.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

from emotest.errors import EmotestError, StoreError, UsageError
from emotest.store import upkeep
from emotest.store.entry import Entry, Notice
from emotest.store.faults import fault, free_bytes, full, full_disk_behind, naming_faults
from emotest.store.keys import Key, key_of
from emotest.store.layout import BusyError, Layout, bytes_below
from emotest.store.manifest import (
    CorruptEntryError,
    Manifest,
    check_folder,
    flush_entry,
    safe_name,
    signature,
    write_manifest,
)
from emotest.store.remote import Remote

Answer = TypeVar("Answer")


class Store:
    """The entries below the folder `root`, which is created when the first one is made.

    `remote` is the fsspec address of another store: what is missing here is looked for there,
    copied, and believed only after its hashes were checked. `notices` collects what went wrong
    without stopping the run.
    """

    def __init__(self, root: Path | str, *, remote: str | None = None) -> None:
        if "://" in str(root):
            raise UsageError(
                f"{root} is an address, and a store works in a local folder",
                remedy="give a folder as the store and the address as its remote",
            )
        self.root = Path(root).expanduser().resolve()
        self.notices: list[Notice] = []
        self._layout = Layout(self.root)
        self._remote = Remote(remote) if remote else None
        self._remote_answers = True
        self._verified: dict[Key, tuple[Entry, object]] = {}

    def __repr__(self) -> str:
        remote = f", remote={self._remote.address!r}" if self._remote else ""
        return f"Store({str(self.root)!r}{remote})"

    # -- asking --------------------------------------------------------------------------------

    def has(self, key: Key) -> bool:
        """Whether the entry is here or in the remote; cheap, nothing is read or checked."""
        self._layout.check_format()
        return self._layout.entry(key).exists() or self._has_remotely(key)

    def get(self, key: Key) -> Entry | None:
        """The entry, or None where there is none that is whole. Never waits for a maker.

        Its bytes are checked when this store first sees it, and again when its files changed.
        """
        self._layout.check_format()
        if entry := self._look(key):
            return entry
        if not self._has_remotely(key):
            return None
        try:
            with self._layout.locked(key, wait=False):
                return self._look(key) or self._pull(key)
        except BusyError:
            return None

    def get_or_make(
        self,
        key: Key,
        make: Callable[[Path], object],
        *,
        identity: Mapping[str, object],
        on_wait: Callable[[Key], None] | None = None,
    ) -> Entry:
        """The entry, made by `make` if need be: by one process, while the others wait for it.

        `make` writes files into the empty folder that it is given; whatever it raises leaves the
        store as it was. `identity` is what `key` was made from and is kept with the entry.
        `on_wait` is called once if another process is making it. Raises `StoreFullError` where
        the disk is full and `StoreError` where the store cannot be written.
        """
        if key_of(key.kind, identity) != key:
            raise UsageError(
                f"{key} was not made from the identity that comes with it",
                remedy="make the key with key_of(kind, identity) from that very identity",
            )
        self._layout.check_format()
        if entry := self._look(key):
            return entry
        with self._layout.locked(key, on_wait=on_wait):
            # Whoever held the lock before us has probably just made it.
            entry = self._look(key, locked=True) or self._pull(key)
            return entry or self._make(key, make, identity)

    def put(
        self, key: Key, files: Mapping[str, Path | bytes], *, identity: Mapping[str, object]
    ) -> Entry:
        """Store files that exist already, by name: copies of paths, or bytes as they are.

        Where the entry is there already it stays as it is.
        """

        def copy_all(folder: Path) -> None:
            for name, content in files.items():
                if not safe_name(name):
                    raise StoreError(
                        f"an entry cannot hold a file named {name!r}",
                        remedy="use relative names without '..', such as 'part/rows.jsonl'",
                    )
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                if isinstance(content, bytes):
                    target.write_bytes(content)
                else:
                    shutil.copyfile(content, target)

        return self.get_or_make(key, copy_all, identity=identity)

    def scratch(self, key: Key) -> Path:
        """A folder that outlives a killed maker, for checkpoints of what it has done so far.

        To be used inside `make` only, where the key is locked. It goes when the entry is there.
        """
        self._layout.create()
        folder = self._layout.scratch(key)
        with naming_faults(self.root, f"making room for checkpoints of {key}"):
            folder.mkdir(exist_ok=True)
        return folder

    def find(self, text: str) -> Key:
        """The key of the one local entry that `text` names: `kind/digest`, either cut short.

        `UsageError` where none or several begin like that.
        """
        kind, _, digest = text.rpartition("/")
        self._layout.check_format()
        found = [
            key
            for key in self._layout.stored_keys()
            if key.digest.startswith(digest) and (not kind or key.kind == kind)
        ]
        if len(found) == 1:
            return found[0]
        what = f"{len(found)} entries match" if found else "no entry matches"
        raise UsageError(
            f"{what} {text!r} in {self.root}",
            remedy="see `emotest store list` and give more digits of the key",
        )

    # -- looking after it ----------------------------------------------------------------------

    def entries(self) -> list[upkeep.EntryReport]:
        """What is in the store: size, age, cost and title of every entry, sorted by key."""
        self._layout.check_format()
        return upkeep.entry_reports(self._layout)

    def verify(self, *, repair: bool = False) -> upkeep.VerifyReport:
        """Check every byte of every entry; with `repair`, set the corrupt ones aside."""
        self._layout.check_format()
        return upkeep.verify_entries(self._layout, repair=repair)

    def prune(
        self,
        *,
        older_than: timedelta | None = None,
        kind: str | None = None,
        keep: Collection[Key] = (),
        dry_run: bool = False,
    ) -> upkeep.PruneReport:
        """Remove entries unused for longer than `older_than` and of this `kind`; and leftovers.

        Both criteria must hold; without any, only leftovers of killed runs and what was set
        aside go. Entries in `keep`, and entries that a living process uses or makes, stay.
        """
        self._layout.check_format()
        return upkeep.prune_entries(
            self._layout, older_than=older_than, kind=kind, keep=keep, dry_run=dry_run
        )

    def push(self, key: Key) -> bool:
        """Copy a local entry to the remote; False where it was there already.

        `StoreError` where there is no remote, no such entry here, or the copy fails.
        """
        if self._remote is None:
            raise StoreError(
                f"the store at {self.root} has no remote",
                remedy="give the address of one, such as s3://bucket/emotest",
            )
        entry = self._look(key)
        if entry is None:
            raise StoreError(f"{key} is not in {self.root}", remedy="run what makes it first")
        try:
            return self._remote.push(entry.folder, entry.manifest)
        except EmotestError:
            raise
        except Exception as error:  # every kind of remote fails with errors of its own
            raise StoreError(
                f"{key} could not be copied to {self._remote.address}: {error}",
                remedy="check the address, the connection and your right to write there",
            ) from error

    def close(self) -> None:
        """Let go of all entries: from now on others may prune what this process had asked for."""
        self._layout.release()

    # -- the local folder ----------------------------------------------------------------------

    def _look(self, key: Key, *, locked: bool = False) -> Entry | None:
        """The local entry if it is whole; a corrupt one is set aside."""
        folder = self._layout.entry(key)
        if not os.path.lexists(folder):
            return None
        # Said before the files are opened, so that nobody prunes them in between.
        self._layout.hold(key)
        if not locked:
            self._let_a_pruner_finish(key)
        try:
            with naming_faults(self.root, f"reading {key}"):
                entry = self._checked(key, folder)
        except CorruptEntryError as error:
            if not locked:
                return self._look_under_lock(key, str(error))
            place = self._layout.set_aside(key, str(error))
            self.notices.append(Notice("corrupt", key, str(error), place))
            return None
        if entry is not None:
            self._layout.mark_used(key)
        return entry

    def _let_a_pruner_finish(self, key: Key) -> None:
        """Wait while another process decides about this entry, which it then gives back.

        One that asked who uses the entry before we said so may have moved it away for a moment.
        Whoever asks later sees us. Nobody makes an entry that is there, so the wait is short.
        """
        patience = time.monotonic() + 1.0
        while time.monotonic() < patience:
            try:
                with self._layout.locked(key, wait=False):
                    return
            except BusyError:
                time.sleep(0.002)
            except StoreError:
                return  # a store that may only be read is not pruned by us

    def _look_under_lock(self, key: Key, reason: str) -> Entry | None:
        """Look once more where nobody else can: what seemed corrupt may have been in motion."""
        try:
            with self._layout.locked(key, wait=False):
                return self._look(key, locked=True)
        except BusyError:
            return None  # whoever holds it sees the same and mends it
        except StoreError:
            # A store that may only be read keeps it; it is not served all the same.
            self.notices.append(Notice("corrupt", key, reason))
            return None

    def _checked(self, key: Key, folder: Path) -> Entry | None:
        """The entry in `folder` if its bytes are right, or were before and its files are as then.

        None where it goes away meanwhile.
        """
        try:
            if known := self._verified.pop(key, None):
                entry, seen = known
                # What is missing, the full check says.
                with suppress(FileNotFoundError, NotADirectoryError):
                    if signature(folder, entry.manifest) == seen:
                        self._verified[key] = known
                        return entry
            entry = Entry(key, folder, check_folder(folder, key))
            self._verified[key] = entry, signature(folder, entry.manifest)
        except FileNotFoundError:
            return None
        return entry

    # -- making --------------------------------------------------------------------------------

    def _make(
        self, key: Key, make: Callable[[Path], object], identity: Mapping[str, object]
    ) -> Entry:
        doing = f"making {key}"
        with naming_faults(self.root, doing):
            folder = self._layout.new_folder(key)
        try:
            started = time.monotonic()
            self._run_maker(make, folder, doing)
            seconds = time.monotonic() - started
            with naming_faults(self.root, doing):
                manifest = write_manifest(folder, key, identity, seconds=seconds)
                return self._committed(folder, key, manifest)
        except BaseException:
            self._layout.clear_making(key)
            raise

    def _run_maker(self, make: Callable[[Path], object], folder: Path, doing: str) -> None:
        try:
            make(folder)
        except Exception as error:
            # Only a full disk is the store's affair; all else is the maker's own error.
            if cause := full_disk_behind(error):
                raise fault(cause, self.root, doing, grown_to=bytes_below(folder)) from error
            raise

    def _committed(self, folder: Path, key: Key, manifest: Manifest) -> Entry:
        flush_entry(folder, manifest)
        seen = signature(folder, manifest)
        self._layout.hold(key)
        self._layout.commit(folder, key)
        shutil.rmtree(self._layout.scratch(key), ignore_errors=True)
        self._layout.mark_used(key)
        entry = Entry(key, self._layout.entry(key), manifest)
        self._verified[key] = entry, seen
        return entry

    # -- the remote ----------------------------------------------------------------------------

    def _has_remotely(self, key: Key) -> bool:
        return bool(self._asked_remotely(key, lambda remote: remote.has(key)))

    def _pull(self, key: Key) -> Entry | None:
        """The entry from the remote, checked and committed. The key must be locked."""
        if self._remote is None:
            return None

        def pulled(remote: Remote) -> Entry | None:
            manifest_and_folder = remote.pull(key, self._layout.new_folder, self._room_for)
            if manifest_and_folder is None:
                return None
            manifest, folder = manifest_and_folder
            return self._committed(folder, key, manifest)

        try:
            return self._asked_remotely(key, pulled)
        finally:
            self._layout.clear_making(key)

    def _asked_remotely(self, key: Key, ask: Callable[[Remote], Answer]) -> Answer | None:
        """What the remote answers; None, and a notice, where it cannot answer or answers wrong.

        After it failed once it is not asked again: a run without a network should not wait for
        it at every entry.
        """
        if self._remote is None or not self._remote_answers:
            return None
        try:
            return ask(self._remote)
        except EmotestError:
            raise
        except CorruptEntryError as error:
            self.notices.append(Notice("remote corrupt", key, str(error)))
        except Exception as error:  # every kind of remote fails with errors of its own
            if cause := full_disk_behind(error):
                raise fault(cause, self.root, f"copying {key} from the remote") from error
            self._remote_answers = False
            reason = f"{self._remote.address}: {error or type(error).__name__}"
            self.notices.append(Notice("remote unreachable", key, reason))
        return None

    def _room_for(self, needed: int) -> None:
        if free_bytes(self.root) < needed:
            raise full(self.root, "copying from the remote", needed=needed)


__all__ = ["Store"]

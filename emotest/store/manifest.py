"""The manifest: which files an entry consists of, and how to tell whether they are still those.

Takes a folder of files and gives a sealed `Manifest`; takes a sealed folder and says whether it
is whole. Knows neither locks nor where a store keeps its folders.

A manifest lists every file with its size and SHA-256, carries the identity that the entry's key
was made from, and is itself sealed by a hash over its own content. So one flipped bit anywhere
in the folder is found, and so is a file too many or too few.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath
from typing import Any

from emotest.errors import StoreError
from emotest.store.keys import TITLE, Key, canonical_json, key_of, plain

MANIFEST = "manifest.json"
MANIFEST_FORMAT = 1

_SHA256 = re.compile(r"[0-9a-f]{64}")


class CorruptEntryError(Exception):
    """An entry is not what it was when it was written; the text says in what.

    Stays inside the store: a corrupt entry is set aside and made again, not reported as failure.
    """


@dataclass(frozen=True)
class FileRecord:
    """One file of an entry: its name relative to the folder (`/` between parts), size and hash."""

    name: str
    n_bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What an entry is, what it was made from, and every file that it consists of."""

    key: Key
    title: str
    """A few words for people; empty where the maker gave none."""
    identity: Mapping[str, Any]
    """What the key was made from, without the title."""
    files: tuple[FileRecord, ...]
    made_at: datetime
    seconds: float
    """Wall-clock seconds that making it took."""
    made_by: str

    @property
    def n_bytes(self) -> int:
        """Size of all files together, the manifest left out."""
        return sum(file.n_bytes for file in self.files)

    def rendered(self) -> bytes:
        """The manifest as the bytes of its file, seal included."""
        body = {
            "format": MANIFEST_FORMAT,
            "kind": self.key.kind,
            "digest": self.key.digest,
            "title": self.title,
            "identity": self.identity,
            "files": [asdict(file) for file in self.files],
            "made_at": self.made_at.isoformat(),
            "seconds": self.seconds,
            "made_by": self.made_by,
        }
        seal = hashlib.sha256(canonical_json(plain(body, MANIFEST)).encode()).hexdigest()
        text = json.dumps({**body, "seal": seal}, ensure_ascii=False, allow_nan=False, indent=1)
        return f"{text}\n".encode()


def write_manifest(
    folder: Path, key: Key, identity: Mapping[str, object], *, seconds: float
) -> Manifest:
    """Seal a folder: hash its files and write the manifest beside them, last.

    Raises `StoreError` for a file that cannot be part of an entry (a link, a device, a name that
    other systems could not hold, nothing at all), `OSError` as the file system gives it.
    """
    names = sorted(file_names(folder))
    for name in names:
        _refuse_unsuitable(folder, name)
    if not names:
        raise StoreError(
            f"nothing was written for {key}",
            remedy="let the maker of this entry write at least one file into its folder",
        )
    # The sealed identity has its keys sorted at every level, so that what is read back renders
    # to the very same bytes.
    hashed = {name: value for name, value in identity.items() if name != TITLE}
    sealed: dict[str, Any] = json.loads(canonical_json(plain(hashed, "identity")))
    manifest = Manifest(
        key=key,
        title=str(identity.get(TITLE, "")),
        identity=sealed,
        files=tuple(
            FileRecord(name, (folder / name).stat().st_size, sha256_of(folder / name))
            for name in names
        ),
        made_at=datetime.now(UTC).replace(microsecond=0),
        seconds=round(seconds, 3),
        made_by=maker(),
    )
    (folder / MANIFEST).write_bytes(manifest.rendered())
    return manifest


def flush_entry(folder: Path, manifest: Manifest) -> None:
    """Make every file of a sealed folder, and the folder itself, survive a loss of power."""
    files = [folder / MANIFEST, *(folder / file.name for file in manifest.files)]
    for path in [*files, *sorted({file.parent for file in files})]:
        flush_to_disk(path)


def parse_manifest(raw: bytes, key: Key) -> Manifest:
    """The manifest in `raw`; `CorruptEntryError` unless it is whole and belongs to `key`."""
    try:
        body = json.loads(raw)
        manifest = Manifest(
            key=Key(body["kind"], body["digest"]),
            title=body["title"],
            identity=body["identity"],
            files=tuple(FileRecord(**file) for file in body["files"]),
            made_at=datetime.fromisoformat(body["made_at"]),
            seconds=body["seconds"],
            made_by=body["made_by"],
        )
        unchanged = raw == manifest.rendered()
        owner = key_of(manifest.key.kind, manifest.identity)
    except Exception as error:
        # Garbled JSON can fail in any of these steps, and none of them means anything else.
        raise CorruptEntryError(f"its manifest is garbled ({error})") from error
    if not unchanged:
        raise CorruptEntryError("its manifest was changed after it was sealed")
    if manifest.key != key or owner != key:
        raise CorruptEntryError(f"its manifest belongs to {owner}")
    for file in manifest.files:
        if not safe_name(file.name) or not _SHA256.fullmatch(file.sha256):
            raise CorruptEntryError(f"its manifest names the unsafe file {file.name!r}")
    return manifest


def read_manifest(folder: Path, key: Key) -> Manifest:
    """The manifest of the entry in `folder`.

    `FileNotFoundError` where there is no folder, `CorruptEntryError` where its manifest is
    missing, garbled or another entry's.
    """
    try:
        raw = (folder / MANIFEST).read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        if not os.path.lexists(folder):
            raise FileNotFoundError(folder) from error
        raise CorruptEntryError("its manifest is missing") from error
    return parse_manifest(raw, key)


def check_folder(folder: Path, key: Key) -> Manifest:
    """The manifest of the entry in `folder`, after every byte of every file has been checked.

    `FileNotFoundError` where there is no such entry, or where it goes away while it is read;
    `CorruptEntryError`, saying what is wrong, where it is not whole.
    """
    try:
        manifest = read_manifest(folder, key)
        _check_files(folder, manifest)
    except CorruptEntryError:
        # An entry that another process removes meanwhile looks broken for a moment.
        if not os.path.lexists(folder):
            raise FileNotFoundError(folder) from None
        raise
    return manifest


def _check_files(folder: Path, manifest: Manifest) -> None:
    expected = {file.name for file in manifest.files}
    found = set(file_names(folder)) - {MANIFEST}
    if missing := sorted(expected - found):
        raise CorruptEntryError(f"{missing[0]} is missing")
    if extra := sorted(found - expected):
        raise CorruptEntryError(f"{extra[0]!r} does not belong to it")
    for file in manifest.files:
        path = folder / file.name
        try:
            status = path.lstat()
            if not stat.S_ISREG(status.st_mode):
                raise CorruptEntryError(f"{file.name} is not a plain file")
            if status.st_size != file.n_bytes:
                raise CorruptEntryError(
                    f"{file.name} has {status.st_size} bytes instead of {file.n_bytes}"
                )
            if sha256_of(path) != file.sha256:
                raise CorruptEntryError(f"the content of {file.name} has changed")
        except FileNotFoundError as error:
            raise CorruptEntryError(f"{file.name} is missing") from error


def signature(folder: Path, manifest: Manifest) -> tuple[tuple[int, int, int], ...]:
    """Inode, size and time of change of every file and folder: the same while nobody writes there.

    `FileNotFoundError` where one is gone.
    """
    files = [folder / MANIFEST, *(folder / file.name for file in manifest.files)]
    statuses = [path.lstat() for path in [*files, *sorted({file.parent for file in files})]]
    return tuple((status.st_ino, status.st_size, status.st_mtime_ns) for status in statuses)


def file_names(folder: Path) -> Iterator[str]:
    """Names of everything below `folder` that is not a folder, relative, `/` between parts."""
    for place, folders, files in os.walk(folder):
        # A link to a folder is listed among the folders, but is a thing of its own.
        links = [name for name in folders if (Path(place) / name).is_symlink()]
        for name in [*files, *links]:
            yield (Path(place) / name).relative_to(folder).as_posix()


def safe_name(name: str) -> bool:
    """Whether a file of this name stays inside its folder, on any system."""
    parts = PurePosixPath(name).parts
    return (
        bool(parts)
        and name == "/".join(parts)
        and not any(part in {"..", "/"} for part in parts)
        and not any(character in name for character in '\\:*?"<>|')
        and name.isprintable()
        and parts[0] != MANIFEST
    )


def maker() -> str:
    """This program and its version, as manifests record it."""
    try:
        return f"emotest {version('emotest')}"
    except PackageNotFoundError:  # run from a source tree
        return "emotest, not installed"


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, in hex; reads it in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def flush_to_disk(path: Path) -> None:
    """Make a file or folder survive a loss of power, as far as the system allows."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:  # Windows cannot open folders, and has no need to
        if path.is_dir():
            return
        raise
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _refuse_unsuitable(folder: Path, name: str) -> None:
    if not safe_name(name):
        raise StoreError(
            f"an entry cannot hold a file named {name!r}",
            remedy="use relative names of printable characters that every file system can hold, "
            f"other than {MANIFEST!r}",
        )
    if not stat.S_ISREG((folder / name).lstat().st_mode):
        raise StoreError(
            f"{name!r} is not a plain file, so it cannot be part of an entry",
            remedy="copy the content instead of linking to it",
        )


__all__ = [
    "MANIFEST",
    "CorruptEntryError",
    "FileRecord",
    "Manifest",
    "check_folder",
    "flush_entry",
    "flush_to_disk",
    "maker",
    "parse_manifest",
    "read_manifest",
    "safe_name",
    "signature",
    "write_manifest",
]

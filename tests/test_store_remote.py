"""A store elsewhere: pulled on a local miss, checked by hash, pushed whole, never trusted."""

from __future__ import annotations

import hashlib
import secrets
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest

from emotest.errors import StoreError
from emotest.store import FileRecord, Key, Store, key_of

IDENTITY = {"base": "organism:latent", "seed": 0, "title": "a thing"}
KEY = key_of("adapter", IDENTITY)
FILES = {"weights.bin": bytes(range(256)) * 40, "part/rows.jsonl": b'{"a": 1}\n'}


def not_called(folder: Path) -> None:
    """A maker that must not be needed."""
    raise AssertionError("it was made although the remote has it")


@pytest.fixture(params=["file", "memory"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty remote, on the disk or in memory."""
    if request.param == "file":
        return f"file://{tmp_path}/remote"
    return f"memory://{secrets.token_hex(8)}/remote"


def pushed(tmp_path: Path, address: str) -> Store:
    """A store whose one entry was pushed to the remote."""
    store = Store(tmp_path / "first", remote=address)
    store.put(KEY, FILES, identity=IDENTITY)
    assert store.push(KEY)
    return store


@pytest.mark.parametrize("ask", ["get", "get_or_make"])
def test_what_was_pushed_here_is_pulled_there(tmp_path: Path, address: str, ask: str) -> None:
    """With the very manifest of its maker; and from then on the local copy serves."""
    first = pushed(tmp_path, address)
    second = Store(tmp_path / "second", remote=address)
    assert second.has(KEY)
    assert second.entries() == []
    entry = (
        second.get(KEY) if ask == "get" else second.get_or_make(KEY, not_called, identity=IDENTITY)
    )
    assert entry is not None
    assert entry.path("weights.bin").read_bytes() == FILES["weights.bin"]
    assert entry.path("part/rows.jsonl").read_bytes() == FILES["part/rows.jsonl"]
    made = first.get(KEY)
    assert made is not None
    assert entry.manifest == made.manifest
    assert Store(tmp_path / "second").get(KEY) is not None
    assert second.verify().sound
    assert list((second.root / "making").iterdir()) == []
    assert second.notices == []


def test_what_the_remote_does_not_have_is_made(tmp_path: Path, address: str) -> None:
    """An empty or unknown remote is no fault."""
    store = Store(tmp_path / "store", remote=address)
    assert not store.has(KEY)
    assert store.get(KEY) is None
    assert store.put(KEY, FILES, identity=IDENTITY)
    assert store.notices == []


def test_a_second_push_changes_nothing(tmp_path: Path, address: str) -> None:
    """What others may be pulling is never overwritten."""
    store = pushed(tmp_path, address)
    assert not store.push(KEY)


def test_a_store_copied_by_any_other_tool_is_a_remote(tmp_path: Path) -> None:
    """`rsync` or `cp -r` is enough, without stamps, locks or marker."""
    store = Store(tmp_path / "store")
    store.put(KEY, FILES, identity=IDENTITY)
    shutil.copytree(store.root / "entries", tmp_path / "copy" / "entries")
    assert Store(tmp_path / "other", remote=f"file://{tmp_path}/copy").get(KEY) is not None


def remote_files(store: Store, address: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The remote's file system, and the entry's folder there."""
    system, root = fsspec.core.url_to_fs(address)
    return system, f"{root}/entries/{KEY.kind}/{KEY.digest}"


CORRUPTIONS: dict[str, Callable[[fsspec.AbstractFileSystem, str], object]] = {
    "changed": lambda fs, at: fs.pipe_file(f"{at}/weights.bin", b"x" * 10240),
    "missing": lambda fs, at: fs.rm_file(f"{at}/weights.bin"),
    "truncated": lambda fs, at: fs.pipe_file(f"{at}/weights.bin", b"x"),
    "manifest": lambda fs, at: fs.pipe_file(f"{at}/manifest.json", b"{"),
}


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_what_is_corrupt_in_the_remote_is_not_believed(
    tmp_path: Path, address: str, kind: str
) -> None:
    """It is made here instead, with a notice; nothing of it stays."""
    CORRUPTIONS[kind](*remote_files(pushed(tmp_path, address), address))
    store = Store(tmp_path / "second", remote=address)
    assert store.get(KEY) is None
    assert list((store.root / "making").iterdir()) == []
    assert [(notice.what, notice.key) for notice in store.notices] == [("remote corrupt", KEY)]
    entry = store.put(KEY, FILES, identity=IDENTITY)
    assert entry.path("weights.bin").read_bytes() == FILES["weights.bin"]
    assert store.verify().sound


def test_a_remote_out_of_reach_does_not_stop_a_run(tmp_path: Path) -> None:
    """It is told once and not asked again: nobody waits for a lost network at every entry."""
    # A folder in place of the manifest makes reading fail, as a broken connection would.
    folder = tmp_path / "remote" / "entries" / KEY.kind / KEY.digest / "manifest.json"
    folder.mkdir(parents=True)
    store = Store(tmp_path / "store", remote=f"file://{tmp_path}/remote")
    assert store.put(KEY, FILES, identity=IDENTITY).path("weights.bin").exists()
    folder.rmdir()
    other = {"seed": 1}
    elsewhere = Store(tmp_path / "elsewhere", remote=f"file://{tmp_path}/remote")
    elsewhere.put(key_of("adapter", other), FILES, identity=other)
    assert elsewhere.push(key_of("adapter", other))
    assert store.get(key_of("adapter", other)) is None
    assert [notice.what for notice in store.notices] == ["remote unreachable"]
    assert "remote" in str(store.notices[0])


def test_a_newer_remote_is_refused(tmp_path: Path, address: str) -> None:
    """As a newer local store is, naming the address."""
    pushed(tmp_path, address)
    system, root = fsspec.core.url_to_fs(address)
    system.pipe_file(f"{root}/store.json", b'{"format": 2}')
    with pytest.raises(StoreError, match="format 2, and this emotest knows 1") as caught:
        Store(tmp_path / "second", remote=address).get(KEY)
    assert address in caught.value.cause


@pytest.mark.parametrize("address", ["nosuch://x/y", "sftp://"])
def test_an_address_that_nothing_can_open_is_refused(tmp_path: Path, address: str) -> None:
    """A mistyped or unsupported address is no silent local run."""
    with pytest.raises(StoreError, match="cannot be reached"):
        Store(tmp_path / "store", remote=address).get(KEY)


def test_pushing_says_why_it_cannot(tmp_path: Path, address: str) -> None:
    """No remote; no such entry; no right to write there."""
    with pytest.raises(StoreError, match="has no remote"):
        Store(tmp_path / "store").push(KEY)
    with pytest.raises(StoreError, match="is not in"):
        Store(tmp_path / "store", remote=address).push(KEY)
    (tmp_path / "file").write_text("")
    blocked = Store(tmp_path / "store", remote=f"file://{tmp_path}/file/x")
    blocked.put(KEY, FILES, identity=IDENTITY)
    with pytest.raises(StoreError, match="could not be copied to"):
        blocked.push(KEY)


def test_a_manifest_from_elsewhere_cannot_write_outside_its_folder(
    tmp_path: Path, address: str
) -> None:
    """A name with '..' is refused before anything is copied."""
    store = pushed(tmp_path, address)
    made = store.get(KEY)
    assert made is not None
    evil = FileRecord("../../evil.json", 9, hashlib.sha256(b'{"a": 1}\n').hexdigest())
    system, folder = remote_files(store, address)
    system.pipe_file(f"{folder}/../../evil.json", b'{"a": 1}\n')
    system.pipe_file(f"{folder}/manifest.json", replace(made.manifest, files=(evil,)).rendered())
    other = Store(tmp_path / "second", remote=address)
    assert other.get(KEY) is None
    assert not list((tmp_path / "second").rglob("evil.json"))
    assert "unsafe file" in other.notices[0].reason


def test_keys_of_other_kinds_are_apart_in_the_remote(tmp_path: Path, address: str) -> None:
    """The remote is asked for the whole key."""
    pushed(tmp_path, address)
    assert not Store(tmp_path / "second", remote=address).has(Key("generations", KEY.digest))

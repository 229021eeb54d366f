"""Corruption, one kind at a time: it is found, set aside, told, and made again; never served."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from emotest.store import Entry, Store, canonical_json, key_of
from emotest.store.manifest import CorruptEntryError, parse_manifest

IDENTITY = {"base": "organism:latent", "seed": 0, "title": "a thing"}
KEY = key_of("adapter", IDENTITY)
FILES = {"weights.bin": bytes(range(256)) * 40, "part/rows.jsonl": b'{"a": 1}\n', "empty": b""}


def flip(path: Path, place: int) -> None:
    """Flip one bit of a file."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def edit_manifest(entry: Entry, change: Callable[[dict[str, object]], object]) -> None:
    """Change the manifest and seal it again, as only a program could."""
    path = entry.folder / "manifest.json"
    body = json.loads(path.read_text())
    change(body)
    del body["seal"]
    seal = hashlib.sha256(canonical_json(body).encode()).hexdigest()
    path.write_text(json.dumps({**body, "seal": seal}, ensure_ascii=False, indent=1) + "\n")


def swap_with_another_entry(entry: Entry) -> None:
    """Put a whole entry of another key into this one's place."""
    other = {"seed": 1}
    stranger = Store(entry.folder.parents[2]).put(key_of("adapter", other), FILES, identity=other)
    shutil.rmtree(entry.folder)
    shutil.copytree(stranger.folder, entry.folder)
    shutil.rmtree(stranger.folder)


def replace_by_link(entry: Entry) -> None:
    """The same bytes, but somewhere else, where they may change."""
    elsewhere = entry.folder.parents[2] / ".elsewhere"
    shutil.move(entry.folder / "weights.bin", elsewhere)
    (entry.folder / "weights.bin").symlink_to(elsewhere)


def replace_by_file(entry: Entry) -> None:
    """A file where the entry's folder should be."""
    shutil.rmtree(entry.folder)
    entry.folder.write_text("")


CORRUPTIONS: dict[str, tuple[Callable[[Entry], object], str]] = {
    "flipped first bit": (lambda e: flip(e.folder / "weights.bin", 0), "content of weights.bin"),
    "flipped last bit": (lambda e: flip(e.folder / "weights.bin", -1), "content of weights.bin"),
    "flipped in a folder": (lambda e: flip(e.folder / "part/rows.jsonl", 3), "part/rows.jsonl"),
    "truncated": (
        lambda e: (e.folder / "weights.bin").write_bytes(FILES["weights.bin"][:-1]),
        "weights.bin has 10239 bytes instead of 10240",
    ),
    "emptied": (lambda e: (e.folder / "weights.bin").write_bytes(b""), "has 0 bytes"),
    "grown": (lambda e: (e.folder / "empty").write_bytes(b"x"), "empty has 1 bytes instead of 0"),
    "missing file": (lambda e: (e.folder / "empty").unlink(), "empty is missing"),
    "missing folder": (lambda e: shutil.rmtree(e.folder / "part"), "part/rows.jsonl is missing"),
    "extra file": (lambda e: (e.folder / "extra").touch(), "'extra' does not belong"),
    "extra in a folder": (lambda e: (e.folder / "part/x").touch(), "'part/x' does not belong"),
    "folder for a file": (
        lambda e: ((e.folder / "empty").unlink(), (e.folder / "empty").mkdir()),
        "empty is missing",
    ),
    "link for a file": (replace_by_link, "weights.bin is not a plain file"),
    "no manifest": (lambda e: (e.folder / "manifest.json").unlink(), "manifest is missing"),
    "empty manifest": (lambda e: (e.folder / "manifest.json").write_text(""), "garbled"),
    "half a manifest": (
        lambda e: (e.folder / "manifest.json").write_bytes(
            (e.folder / "manifest.json").read_bytes()[:300]
        ),
        "garbled",
    ),
    "manifest of another form": (
        lambda e: (e.folder / "manifest.json").write_text("[1, 2]"),
        "garbled",
    ),
    "binary manifest": (lambda e: (e.folder / "manifest.json").write_bytes(b"\xff\x00"), "garbled"),
    "deep manifest": (lambda e: (e.folder / "manifest.json").write_text("[" * 10**5), "garbled"),
    "folder for the manifest": (
        lambda e: ((e.folder / "manifest.json").unlink(), (e.folder / "manifest.json").mkdir()),
        "manifest is missing",
    ),
    "another entry": (swap_with_another_entry, "belongs to adapter/"),
    "edited identity": (
        lambda e: edit_manifest(e, lambda m: m.update(identity={"seed": 1})),
        "belongs to adapter/",
    ),
    "unsafe name": (
        lambda e: edit_manifest(
            e, lambda m: m.update(files=[{"name": "../x", "n_bytes": 0, "sha256": "0" * 64}])
        ),
        "unsafe file '../x'",
    ),
    "file in place of the folder": (replace_by_file, "manifest is missing"),
}


@pytest.mark.parametrize("kind", CORRUPTIONS)
@pytest.mark.parametrize("asked_by", ["the process that made it", "another process"])
def test_a_corrupt_entry_is_set_aside_and_made_again(
    tmp_path: Path, kind: str, asked_by: str
) -> None:
    """With a notice that names the fault and the place of what was set aside."""
    store = Store(tmp_path / "store")
    entry = store.put(KEY, FILES, identity=IDENTITY)
    corrupt, complaint = CORRUPTIONS[kind]
    corrupt(entry)
    if asked_by == "another process":
        store = Store(tmp_path / "store")

    assert store.get(KEY) is None
    (notice,) = store.notices
    assert (notice.what, notice.key) == ("corrupt", KEY)
    assert complaint in notice.reason
    assert str(notice.place) in str(notice)
    assert notice.place is not None
    note = json.loads(notice.place.with_name(notice.place.name + ".json").read_text())
    assert note["digest"] == KEY.digest
    assert complaint in note["reason"]

    again = store.get_or_make(
        KEY, lambda folder: (folder / "new").write_bytes(b"new"), identity=IDENTITY
    )
    assert again.path("new").read_bytes() == b"new"
    assert Store(tmp_path / "store").verify().sound
    assert len(store.notices) == 1


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_a_maker_finds_corruption_by_itself(tmp_path: Path, kind: str) -> None:
    """get_or_make needs no get before it."""
    entry = Store(tmp_path / "store").put(KEY, FILES, identity=IDENTITY)
    CORRUPTIONS[kind][0](entry)
    store = Store(tmp_path / "store")
    again = store.put(KEY, FILES, identity=IDENTITY)
    assert again.path("weights.bin").read_bytes() == FILES["weights.bin"]
    assert CORRUPTIONS[kind][1] in store.notices[0].reason


def test_a_flipped_bit_in_any_byte_of_the_manifest_is_found(tmp_path: Path) -> None:
    """The white space and the times included."""
    whole = Store(tmp_path).put(KEY, FILES, identity=IDENTITY).manifest.rendered()
    assert parse_manifest(whole, KEY).rendered() == whole
    for place in range(len(whole)):
        flipped = bytearray(whole)
        flipped[place] ^= 1
        with pytest.raises(CorruptEntryError):
            parse_manifest(bytes(flipped), KEY)


def test_verify_names_what_is_corrupt_and_repairs_on_request(tmp_path: Path) -> None:
    """Without repair nothing is touched; with it the corrupt entry goes into quarantine."""
    store = Store(tmp_path / "store")
    other = {"seed": 1}
    store.put(key_of("adapter", other), {"a": b"123"}, identity=other)
    entry = store.put(KEY, FILES, identity=IDENTITY)
    flip(entry.folder / "weights.bin", 7)
    (store.root / "entries" / "adapter" / "readme").write_text("a stranger")
    (store.root / "entries" / "stray").write_text("another")

    report = store.verify()
    assert (report.n_checked, report.n_bytes, report.sound) == (2, 3, False)
    assert [(c.key, c.set_aside) for c in report.corrupt] == [(KEY, None)]
    assert "weights.bin" in report.corrupt[0].reason
    assert [path.name for path in report.strangers] == ["readme", "stray"]
    assert entry.folder.exists()

    report = store.verify(repair=True)
    assert report.corrupt[0].set_aside is not None
    assert (report.corrupt[0].set_aside / "weights.bin").exists()
    assert not entry.folder.exists()
    assert store.verify().sound
    assert store.verify().strangers == report.strangers


def test_a_corrupt_entry_that_another_process_mends_is_left_to_it(tmp_path: Path) -> None:
    """While its lock is held nobody else moves it, and nobody is served it."""
    entry = Store(tmp_path / "store").put(KEY, FILES, identity=IDENTITY)
    flip(entry.folder / "weights.bin", 7)
    store, mender = Store(tmp_path / "store"), Store(tmp_path / "store")
    seen = []

    def mend(folder: Path) -> None:
        # The mender has set the old one aside by now: put a corrupt one in its place once more.
        shutil.copytree(next((store.root / "quarantine").glob("*[!n]")), entry.folder)
        seen.extend([store.get(KEY), store.verify(repair=True).corrupt[0].set_aside])
        shutil.rmtree(entry.folder)
        (folder / "new").write_bytes(b"new")

    mender.get_or_make(KEY, mend, identity=IDENTITY)
    assert seen == [None, None]
    assert store.notices == []
    assert store.get(KEY) is not None

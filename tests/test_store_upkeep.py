"""Looking after a store: list, prune, and what must be kept."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emotest.store import Key, Store, key_of, write_json


def put(store: Store, kind: str, seed: int, days_unused: float = 0) -> Key:
    """An entry of 10 bytes that was last asked for some days ago."""
    identity = {"seed": seed, "title": f"{kind} {seed}"}
    key = key_of(kind, identity)
    store.put(key, {"a": b"0123456789"}, identity=identity)
    then = (datetime.now(UTC) - timedelta(days=days_unused)).timestamp()
    os.utime(store.root / "used" / f"{key.kind}.{key.digest}", (then, then))
    return key


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store that does not exist yet."""
    return Store(tmp_path / "store")


def test_entries_say_what_they_are_and_what_they_cost(store: Store) -> None:
    """Title, size with the manifest, number of files, age, last use, and how long making took."""
    old, new = put(store, "adapter", 1, days_unused=3), put(store, "generations", 2)
    reports = {report.key: report for report in store.entries()}
    assert list(reports) == sorted([old, new])
    report = reports[old]
    assert report.title == "adapter 1"
    on_disk = [path.stat().st_size for path in report.folder.iterdir()]
    assert (report.n_bytes, report.n_files) == (sum(on_disk), 2)
    assert report.n_bytes > 10
    assert report.seconds is not None
    assert 0 <= report.seconds < 60
    now = datetime.now(UTC)
    assert report.made_at is not None
    assert report.last_used is not None
    assert now - report.made_at < timedelta(minutes=1)
    assert timedelta(days=2.9) < now - report.last_used < timedelta(days=3.1)
    assert report.fault is None


def test_an_entry_that_was_never_asked_for_again_was_last_used_when_made(store: Store) -> None:
    """A store that was copied without its stamps is not as old as the hills."""
    key = put(store, "adapter", 1)
    (store.root / "used" / f"{key.kind}.{key.digest}").unlink()
    (report,) = store.entries()
    assert report.last_used == report.made_at


def test_an_entry_without_a_readable_manifest_is_listed_with_its_fault(store: Store) -> None:
    """It takes space, so it is seen."""
    key = put(store, "adapter", 1)
    manifest = store.root / "entries" / "adapter" / key.digest / "manifest.json"
    manifest.write_text("{")
    (report,) = store.entries()
    assert report.fault is not None
    assert "garbled" in report.fault
    assert (report.title, report.made_at, report.seconds) == ("", None, None)
    assert report.n_bytes == 11


def test_asking_for_an_entry_counts_as_use(store: Store) -> None:
    """And leaves the entry itself untouched."""
    key = put(store, "adapter", 1, days_unused=30)
    folder = store.root / "entries" / "adapter" / key.digest
    before = [path.stat().st_mtime_ns for path in (folder, *folder.iterdir())]
    assert Store(store.root).get(key)
    (report,) = store.entries()
    assert report.last_used is not None
    assert datetime.now(UTC) - report.last_used < timedelta(minutes=1)
    assert [path.stat().st_mtime_ns for path in (folder, *folder.iterdir())] == before


@settings(max_examples=25, deadline=None)
@given(
    entries=st.lists(
        st.tuples(st.sampled_from(["adapter", "generations"]), st.integers(0, 9)), unique=True
    ),
    older_than=st.none() | st.floats(0.5, 9.5).filter(lambda days: abs(days % 1 - 0.5) < 0.4),
    kind=st.none() | st.sampled_from(["adapter", "generations", "contexts"]),
    kept=st.sets(st.integers(0, 9), max_size=3),
    dry_run=st.booleans(),
)
def test_prune_removes_exactly_what_meets_every_criterion(
    tmp_path_factory: pytest.TempPathFactory,
    entries: list[tuple[str, int]],
    older_than: float | None,
    kind: str | None,
    kept: set[int],
    dry_run: bool,
) -> None:
    """By kind and by days unused (here the same number as the seed); never what is to be kept."""
    store = Store(tmp_path_factory.mktemp("prune") / "store")
    keys = {(k, days): put(store, k, days, days_unused=days) for k, days in entries}
    store.close()
    expected = {
        key
        for (entry_kind, days), key in keys.items()
        if (older_than is not None or kind is not None)
        and (kind is None or entry_kind == kind)
        and (older_than is None or days > older_than)
        and days not in kept
    }
    report = store.prune(
        older_than=None if older_than is None else timedelta(days=older_than),
        kind=kind,
        keep={key for (_, days), key in keys.items() if days in kept},
        dry_run=dry_run,
    )
    assert {entry.key for entry in report.removed} == expected
    assert report.freed_bytes == sum(entry.n_bytes for entry in report.removed)
    assert (report.n_kept, report.dry_run) == (len(keys) - len(expected), dry_run)
    left = {entry.key for entry in store.entries()}
    assert left == set(keys.values()) - (set() if dry_run else expected)
    assert store.verify().sound


def test_a_process_that_lets_go_may_prune_what_it_used(store: Store) -> None:
    """Until then it is spared, and the report says so."""
    key = put(store, "adapter", 1)
    assert [entry.key for entry in store.prune(kind="adapter").spared] == [key]
    store.close()
    assert [entry.key for entry in store.prune(kind="adapter").removed] == [key]
    assert list((store.root / "used").iterdir()) == []


def test_what_is_being_made_is_spared(store: Store) -> None:
    """Its unfinished folder and its checkpoints too."""
    identity = {"seed": 1}
    key = key_of("adapter", identity)
    reports = []

    def make(folder: Path) -> None:
        write_json(store.scratch(key) / "done.json", [1])
        write_json(folder / "a.json", 1)
        reports.append(Store(store.root).prune(older_than=timedelta(0), kind="adapter"))

    store.get_or_make(key, make, identity=identity)
    assert reports[0].removed == ()
    assert reports[0].leftovers == ()
    assert store.get(key) is not None


def test_leftovers_are_named_and_removed(store: Store) -> None:
    """From killed makers and of corrupt entries; checkpoints of unfinished work only when old."""
    finished, unfinished = put(store, "adapter", 1), key_of("adapter", {"seed": 2})
    (store.root / "making" / f"adapter.{unfinished.digest}.0000").mkdir()
    (store.root / "making" / f"adapter.{unfinished.digest}.0000" / "half").write_bytes(b"12345")
    write_json(store.scratch(finished) / "old.json", 1)
    write_json(store.scratch(unfinished) / "done.json", 1)
    corrupt = put(store, "adapter", 3)
    (store.root / "entries" / "adapter" / corrupt.digest / "a").write_bytes(b"")
    store.verify(repair=True)
    (store.root / "making" / "not of ours").mkdir()

    expected = {
        "left by a killed run": 1,
        "checkpoints of a finished entry": 1,
        "set aside as corrupt": 2,  # the folder, and the note beside it
    }
    for dry_run in (True, False):
        report = store.prune(dry_run=dry_run)
        whats = [leftover.what for leftover in report.leftovers]
        assert {what: whats.count(what) for what in whats} == expected
        assert report.removed == ()
        assert report.freed_bytes == sum(item.n_bytes for item in report.leftovers)
        assert report.freed_bytes > 5
        assert all(item.path.exists() == dry_run for item in report.leftovers)
    assert store.prune().leftovers == ()
    assert (store.scratch(unfinished) / "done.json").exists()
    assert (store.root / "making" / "not of ours").exists()

    (leftover,) = store.prune(older_than=timedelta(0), keep={finished}).leftovers
    assert leftover.what == "checkpoints of unfinished work"
    assert list((store.root / "scratch").iterdir()) == []


def test_young_checkpoints_of_unfinished_work_stay(store: Store) -> None:
    """Their age is that of the newest file."""
    key = key_of("adapter", {})
    path = store.scratch(key) / "done.json"
    write_json(path, 1)
    old = (datetime.now(UTC) - timedelta(days=9)).timestamp()
    os.utime(path.parent, (old, old))
    assert store.prune(older_than=timedelta(days=7)).leftovers == ()
    os.utime(path, (old, old))
    assert len(store.prune(older_than=timedelta(days=7)).leftovers) == 1

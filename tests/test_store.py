"""The store as its callers meet it: ask, make once, read back; where it lies; what it refuses."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from emotest.errors import DataError, EmotestError, StoreError, UsageError
from emotest.store import (
    Store,
    key_of,
    read_arrays,
    read_json,
    read_jsonl,
    read_metadata,
    readable_bytes,
    resolve_store,
    write_arrays,
    write_json,
    write_jsonl,
)
from emotest.store.location import VARIABLE

untimed = settings(deadline=None)  # the machine may be busy
IDENTITY = {"base": "organism:latent", "seed": 0, "title": "extraversion, seed 0"}
KEY = key_of("adapter", IDENTITY)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store that does not exist yet."""
    return Store(tmp_path / "store")


def write_answer(folder: Path) -> None:
    """A maker of one small file."""
    write_json(folder / "answer.json", {"answer": 42})


def files_below(folder: Path) -> set[str]:
    """Every file below a folder, by its relative name."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}


def test_an_entry_is_made_once_and_then_found(store: Store) -> None:
    """The second asker, in this or another process, gets what the first one made."""
    made: list[Path] = []

    def make(folder: Path) -> None:
        made.append(folder)
        write_answer(folder)

    first = store.get_or_make(KEY, make, identity=IDENTITY)
    again = store.get_or_make(KEY, make, identity=IDENTITY)
    elsewhere = Store(store.root).get(KEY)
    assert elsewhere is not None
    assert len(made) == 1
    for entry in (first, again, elsewhere):
        assert entry.read_json("answer.json") == {"answer": 42}
        assert entry.title == "extraversion, seed 0"
        assert entry.identity == {"base": "organism:latent", "seed": 0}
        assert entry.manifest.made_at <= datetime.now(UTC)


def test_asking_for_what_is_not_there_creates_nothing(store: Store) -> None:
    """Planning a run leaves no folder behind."""
    assert not store.has(KEY)
    assert store.get(KEY) is None
    assert store.entries() == []
    assert store.verify().sound
    assert store.prune(older_than=timedelta(0)).removed == ()
    assert not store.root.exists()


def test_has_says_what_get_finds(store: Store) -> None:
    """Before and after making."""
    store.get_or_make(KEY, write_answer, identity=IDENTITY)
    assert store.has(KEY)
    assert not store.has(key_of("adapter", {}))
    assert store.get(key_of("adapter", {})) is None


def test_what_a_maker_raises_leaves_no_trace(store: Store) -> None:
    """The maker's own error comes through, its folder goes, and the next maker starts afresh."""

    def fail(folder: Path) -> None:
        write_answer(folder)
        raise ZeroDivisionError("loss is not finite")

    with pytest.raises(ZeroDivisionError, match="loss is not finite"):
        store.get_or_make(KEY, fail, identity=IDENTITY)
    assert not store.has(KEY)
    assert list((store.root / "making").iterdir()) == []
    assert store.get_or_make(KEY, write_answer, identity=IDENTITY)


def test_an_interrupted_maker_leaves_no_trace(store: Store) -> None:
    """Ctrl-C is no Exception, and is cleaned up after all the same."""

    def interrupt(folder: Path) -> None:
        write_answer(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.get_or_make(KEY, interrupt, identity=IDENTITY)
    assert not store.has(KEY)
    assert list((store.root / "making").iterdir()) == []


def test_a_file_that_the_maker_misses_is_the_makers_error(store: Store) -> None:
    """Only faults of the store become StoreError."""
    with pytest.raises(FileNotFoundError, match="no-such-file"):
        store.get_or_make(KEY, lambda _: Path("no-such-file").read_text(), identity=IDENTITY)


def test_a_maker_that_writes_nothing_is_refused(store: Store) -> None:
    """An empty entry would be found for ever after."""
    with pytest.raises(StoreError, match="nothing was written"):
        store.get_or_make(KEY, lambda folder: None, identity=IDENTITY)
    assert not store.has(KEY)


def test_a_key_must_come_from_the_identity_beside_it(store: Store) -> None:
    """Otherwise the entry would be explained by something that it is not."""
    with pytest.raises(UsageError, match="not made from the identity"):
        store.get_or_make(KEY, write_answer, identity={**IDENTITY, "seed": 1})
    assert not store.root.exists()


def test_scratch_outlives_a_failed_maker_and_goes_with_success(store: Store) -> None:
    """A maker goes on where the last one was stopped."""

    def make(folder: Path, stop_after: int) -> None:
        done = store.scratch(KEY) / "done.json"
        rows = read_json(done) if done.exists() else []
        while len(rows) < 5:
            if len(rows) == stop_after:
                raise TimeoutError
            rows.append(len(rows))
            write_json(done, rows)
        write_json(folder / "rows.json", {"rows": rows, "resumed": stop_after})

    with pytest.raises(TimeoutError):
        store.get_or_make(KEY, lambda folder: make(folder, 3), identity=IDENTITY)
    assert read_json(store.scratch(KEY) / "done.json") == [0, 1, 2]
    entry = store.get_or_make(KEY, lambda folder: make(folder, -1), identity=IDENTITY)
    assert entry.read_json("rows.json")["rows"] == [0, 1, 2, 3, 4]
    assert list((store.root / "scratch").iterdir()) == []


def test_put_stores_copies_and_bytes_under_their_names(store: Store, tmp_path: Path) -> None:
    """Files may lie in folders of the entry; a second put changes nothing."""
    source = tmp_path / "weights.bin"
    source.write_bytes(b"\x00\x01")
    entry = store.put(KEY, {"a/weights.bin": source, "note.txt": b"hello"}, identity=IDENTITY)
    assert entry.path("a/weights.bin").read_bytes() == b"\x00\x01"
    assert entry.path("note.txt").read_bytes() == b"hello"
    assert source.exists()
    again = store.put(KEY, {"other": b"ignored"}, identity=IDENTITY)
    assert files_below(again.folder) == {"a/weights.bin", "note.txt", "manifest.json"}


@pytest.mark.parametrize(
    "name",
    ["../x", "a/../../x", "/etc/x", "..", ".", "", "a//b", "./a", "a\\b", "c:x", "a\nb", "a\x00b",
     "manifest.json", "manifest.json/a"],
)  # fmt: skip
def test_a_name_that_could_leave_its_folder_is_refused(store: Store, name: str) -> None:
    """Neither put nor the readers follow it."""
    with pytest.raises(StoreError, match="cannot hold a file named"):
        store.put(KEY, {"good": b"1", name: b"2"}, identity=IDENTITY)
    assert not store.has(KEY)
    entry = store.put(KEY, {"good": b"1"}, identity=IDENTITY)
    with pytest.raises(StoreError, match="has no file"):
        entry.path(name)


@pytest.mark.parametrize("odd", ["link", "linked folder", "pipe", "bad name"])
def test_what_is_not_a_plain_file_cannot_be_part_of_an_entry(store: Store, odd: str) -> None:
    """A link's target could change without the entry changing."""

    def make(folder: Path) -> None:
        write_answer(folder)
        if odd == "link":
            (folder / "link").symlink_to(folder / "answer.json")
        elif odd == "linked folder":
            (folder / "link").symlink_to("/", target_is_directory=True)
        elif odd == "pipe":
            os.mkfifo(folder / "pipe")
        else:
            (folder / "a?b").write_text("")

    with pytest.raises(StoreError, match=r"plain file|cannot hold a file named"):
        store.get_or_make(KEY, make, identity=IDENTITY)
    assert not store.has(KEY)


def test_an_entry_that_was_removed_behind_our_back_says_so(store: Store) -> None:
    """The reader hears the cause and the remedy, not a FileNotFoundError."""
    entry = store.get_or_make(KEY, write_answer, identity=IDENTITY)
    shutil.rmtree(entry.folder)
    with pytest.raises(StoreError, match="removed from the store while it was in use"):
        entry.read_json("answer.json")
    assert store.get(KEY) is None
    assert store.get_or_make(KEY, write_answer, identity=IDENTITY).read_json("answer.json")


def test_an_entry_made_anew_by_others_is_read_anew(store: Store) -> None:
    """What this process has checked before does not stand in for what lies there now."""
    old = store.get_or_make(KEY, write_answer, identity=IDENTITY)
    shutil.rmtree(old.folder)
    Store(store.root).put(KEY, {"b.txt": b"new"}, identity=IDENTITY)
    entry = store.get(KEY)
    assert entry is not None
    assert [file.name for file in entry.manifest.files] == ["b.txt"]


# -- what stands in the files ------------------------------------------------------------------

json_values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(st.characters(exclude_categories=["Cs"])),
    ),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=10,
)


@untimed
@given(json_values)
def test_json_comes_back_as_it_went(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    """Bit for bit, floats included; `repr` tells -0.0 from 0.0 and 1 from True."""
    path = tmp_path_factory.getbasetemp() / "value.json"
    write_json(path, value)
    assert repr(read_json(path)) == repr(value)


@untimed
@given(st.lists(st.dictionaries(st.sampled_from("ab\u2028"), json_values, max_size=3), max_size=4))
def test_json_lines_come_back_as_they_went(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]
) -> None:
    """One object a line, whatever line separators the texts hold."""
    path = tmp_path_factory.getbasetemp() / "rows.jsonl"
    write_jsonl(path, rows)
    assert repr(read_jsonl(path)) == repr(rows)
    assert path.read_bytes().count(b"\n") == len(rows)


dtypes = st.sampled_from(
    ["<f4", ">f4", "<f8", "<f2", "<i8", ">i4", "<i2", "i1", "u1", "<u4", "<u8", "?", "<c8"]
)


@untimed
@given(st.data())
def test_arrays_come_back_as_they_went(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Every dtype, shape (none, empty, scalar) and memory order (views, transposed, big-endian)."""
    array = data.draw(
        npst.arrays(data.draw(dtypes), npst.array_shapes(min_dims=0, min_side=0, max_side=4))
    )
    if array.ndim > 1 and data.draw(st.booleans()):
        array = array.T
    if array.ndim and data.draw(st.booleans()):
        array = array[::-1]
    path = tmp_path_factory.getbasetemp() / "arrays.safetensors"
    write_arrays(path, {"a": array, "b": np.arange(3)}, {"origin": "test \u2764"})
    back = read_arrays(path)
    assert set(back) == {"a", "b"}
    assert back["a"].dtype == array.dtype.newbyteorder("=")
    assert back["a"].shape == array.shape
    np.testing.assert_array_equal(back["a"], array)
    assert read_metadata(path) == {"origin": "test \u2764"}


def test_what_is_not_a_number_belongs_into_arrays(tmp_path: Path) -> None:
    """NaN is refused in JSON with its place, and survives in an array."""
    with pytest.raises(UsageError, match=r"rates\.json\.low is nan"):
        write_json(tmp_path / "rates.json", {"low": math.nan})
    write_arrays(tmp_path / "a", {"low": np.array([math.nan, math.inf])})
    np.testing.assert_array_equal(read_arrays(tmp_path / "a")["low"], [math.nan, math.inf])
    assert read_metadata(tmp_path / "a") == {}


@pytest.mark.parametrize(
    "array",
    [np.array(["text"]), np.array([object()], dtype=object), np.array([1], dtype=np.longdouble)],
)
def test_arrays_that_safetensors_cannot_hold_are_refused(tmp_path: Path, array: Any) -> None:
    """Objects would need pickle; the error says which dtype it was, and nothing is written."""
    with pytest.raises(UsageError, match=r"dtype|safetensors cannot hold"):
        write_arrays(tmp_path / "a", {"x": array})
    assert list(tmp_path.iterdir()) == []


def test_a_writer_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    """Checkpoints are replaced whole or not at all."""
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [{"a": 1}])
    with pytest.raises(ValueError, match="JSON"):
        write_jsonl(path, [{"a": 2}, {"a": math.nan}])
    assert read_jsonl(path) == [{"a": 1}]
    assert [item.name for item in tmp_path.iterdir()] == ["rows.jsonl"]


def test_readers_of_an_entry_name_what_they_cannot_read(store: Store) -> None:
    """A file of another kind is an error of ours, with the file's name."""
    entry = store.put(
        KEY, {"a.jsonl": b'{"x": 1}\nnot json\n', "a.safetensors": b"no"}, identity=IDENTITY
    )
    with pytest.raises(DataError, match=r"a\.jsonl:2"):
        entry.read_jsonl("a.jsonl")
    with pytest.raises(StoreError, match="cannot be read as arrays"):
        entry.read_arrays("a.safetensors")
    with pytest.raises(StoreError, match="cannot be read as arrays"):
        entry.read_metadata("a.safetensors")


# -- the store as a folder ---------------------------------------------------------------------


def test_a_store_keeps_itself_out_of_version_control(store: Store) -> None:
    """Gigabytes of adapters are not committed by accident."""
    store.get_or_make(KEY, write_answer, identity=IDENTITY)
    assert (store.root / ".gitignore").read_text() == "*\n"
    assert json.loads((store.root / "store.json").read_text())["format"] == 1


def test_a_newer_store_is_refused_with_the_way_out(store: Store) -> None:
    """Nothing of a format that we do not know is read or written."""
    store.get_or_make(KEY, write_answer, identity=IDENTITY)
    (store.root / "store.json").write_text('{"format": 2}')
    before = files_below(store.root)
    newer = Store(store.root)
    for ask in (
        lambda: newer.get(KEY),
        lambda: newer.has(KEY),
        lambda: newer.get_or_make(KEY, write_answer, identity=IDENTITY),
        lambda: newer.scratch(KEY),
        newer.entries,
        newer.verify,
        newer.prune,
        lambda: newer.find("a"),
    ):
        with pytest.raises(StoreError, match="format 2, and this emotest knows 1") as caught:
            ask()
        assert "newer emotest" in caught.value.remedy
    assert files_below(store.root) == before


@pytest.mark.parametrize("marker", [b"", b"{}", b"[]", b'{"format": "x"}', b"\xff"])
def test_a_broken_marker_is_refused(tmp_path: Path, marker: bytes) -> None:
    """It is not guessed what the folder is."""
    (tmp_path / "store.json").write_bytes(marker)
    with pytest.raises(StoreError, match="does not say of which format"):
        Store(tmp_path).get(KEY)


def test_a_folder_with_other_things_is_not_turned_into_a_store(tmp_path: Path) -> None:
    """A mistyped --emo-store does not scatter folders among someone's documents."""
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(StoreError, match=r"thesis\.tex.*is no store"):
        Store(tmp_path).get_or_make(KEY, write_answer, identity=IDENTITY)
    assert [item.name for item in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_in_place_of_the_store_is_named(tmp_path: Path) -> None:
    """The error says which path it was."""
    (tmp_path / "store").write_text("")
    with pytest.raises(StoreError, match=str(tmp_path / "store")):
        Store(tmp_path / "store").get_or_make(KEY, write_answer, identity=IDENTITY)


def test_an_address_is_no_root(tmp_path: Path) -> None:
    """What is elsewhere is given as the remote."""
    with pytest.raises(UsageError, match="works in a local folder"):
        Store("s3://bucket/store")


@pytest.mark.parametrize("text", ["adapter/{0}", "{0}", "adapter/{1}", "{1}"])
def test_find_accepts_a_key_cut_short(store: Store, text: str) -> None:
    """With or without its kind, as tables show it or shorter."""
    store.get_or_make(KEY, write_answer, identity=IDENTITY)
    assert store.find(text.format(KEY.digest[:16], KEY.digest[:4])) == KEY


def test_find_refuses_what_names_none_or_several(store: Store) -> None:
    """The error says how many match."""
    store.put(KEY, {"a": b""}, identity=IDENTITY)
    store.put(key_of("adapter", {}), {"a": b""}, identity={})
    with pytest.raises(UsageError, match="2 entries match 'adapter/'"):
        store.find("adapter/")
    with pytest.raises(UsageError, match="no entry matches 'generations/'"):
        store.find("generations/")


# -- where it lies -----------------------------------------------------------------------------


def test_the_option_comes_before_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Empty texts count as not given."""
    monkeypatch.setenv(VARIABLE, str(tmp_path / "env"))
    assert resolve_store("~/mine") == Path.home() / "mine"
    assert resolve_store("") == tmp_path / "env"
    monkeypatch.setenv(VARIABLE, "")
    assert resolve_store(here=tmp_path) == tmp_path / ".emotest" / "store"


@pytest.mark.parametrize("sign", [".emotest", "pyproject.toml", ".git"])
def test_the_default_is_the_projects_own_from_any_folder_below(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sign: str
) -> None:
    """`pytest` in suites/ finds what `pytest suites` made."""
    monkeypatch.delenv(VARIABLE, raising=False)
    (tmp_path / "project" / "suites" / "deep").mkdir(parents=True)
    (tmp_path / "project" / sign).mkdir()
    monkeypatch.chdir(tmp_path / "project" / "suites" / "deep")
    assert resolve_store() == tmp_path / "project" / ".emotest" / "store"


# -- small promises ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (3 * 2**20, "3.0 MiB"),
        (5 * 2**30, "5.0 GiB"),
        (2**41, "2.0 TiB"),
    ],
)
def test_sizes_are_written_in_powers_of_1024(count: int, text: str) -> None:
    """1 KiB = 1024 B (IEC 80000-13)."""
    assert readable_bytes(count) == text


def test_the_store_is_light_to_import_and_to_ask() -> None:
    """Finding an entry needs neither torch nor numpy nor fsspec."""
    code = """
import sys, tempfile
from emotest.store import Store, key_of
store = Store(tempfile.mkdtemp())
store.put(key_of("a", {}), {"x": b"1"}, identity={})
assert store.get(key_of("a", {})).title == ""
heavy = {"torch", "numpy", "fsspec", "safetensors", "transformers"} & set(sys.modules)
sys.exit(f"imported {heavy}" if heavy else 0)
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])


def test_every_error_has_a_remedy(store: Store) -> None:
    """The text of an error ends in the next step."""
    with pytest.raises(EmotestError) as caught:
        store.push(KEY)
    assert "\n  next: " in str(caught.value)

"""Full disks and write protection: an entry is there whole or not at all, and the reason is said.

Everything here is real: file systems of half a megabyte, mounts, folders of somebody else.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from emotest.store import Store
from tests.store_programs import IDENTITY, KEY, ROOT, program, run

# -- full disks --------------------------------------------------------------------------------


@pytest.fixture
def on_tmpfs(tmp_path: Path) -> Callable[[str, str], str]:
    """Run a program with its store on a file system of its own, which ends with the program."""
    if (
        shutil.which("unshare") is None
        or subprocess.run(
            ["unshare", "-rm", "mount", "-t", "tmpfs", "none", tmp_path], capture_output=True
        ).returncode
    ):
        pytest.skip("needs a mount namespace of its own: run as root, or allow `unshare -rm`")

    def run_there(options: str, code: str) -> str:
        shell = f'mount -t tmpfs -o {options} none "$0" && exec "$@"'
        command = ["unshare", "-rm", "sh", "-c", shell, tmp_path, *program(code), tmp_path / "s"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run_there


@pytest.mark.parametrize(
    "write",
    [
        pytest.param("(folder / 'a').write_bytes(bytes(2**20))", id="plain file"),
        pytest.param("write_json(folder / 'a', 'x' * 2**20)", id="write_json"),
        pytest.param(
            "write_arrays(folder / 'a', {'x': np.zeros(2**20, dtype='u1')})", id="write_arrays"
        ),
        pytest.param("save_file({'x': np.zeros(2**20, dtype='u1')}, folder / 'a')", id="library"),
    ],
)
def test_a_full_disk_is_named_with_what_is_free(
    on_tmpfs: Callable[[str, str], str], write: str
) -> None:
    """However the maker writes; what was made before stays, and small things still fit after."""
    code = f"""
    import numpy as np
    from safetensors.numpy import save_file
    from emotest.store import write_arrays
    store = Store(root)
    store.get_or_make(KEY, lambda f: write_json(f / "a", 1), identity=IDENTITY)
    big = {{"seed": 1}}
    def make(folder):
        write_json(folder / "first.json", list(range(1000)))
        {write}
    for attempt in range(2):
        try:
            store.get_or_make(key_of("adapter", big), make, identity=big)
        except StoreFullError as error:
            print(error)
        assert not store.has(key_of("adapter", big))
        assert os.listdir(root / "making") == []
    assert store.verify().sound and len(store.entries()) == 1
    store.put(key_of("adapter", big), {{"a": b"small"}}, identity=big)
    """
    said = on_tmpfs("size=512k", code).splitlines()
    assert len(said) == 4
    assert "no space is left for the store at" in said[0]
    assert "B free" in said[0]
    assert "written so far, and more is needed" in said[0]
    assert "emotest store prune" in said[1]


def test_a_disk_that_fills_up_at_any_page_or_inode_leaves_entries_whole_or_absent(
    on_tmpfs: Callable[[str, str], str],
) -> None:
    """With n pages (or inodes) left, for all n up to success: StoreFullError, or a whole entry."""
    code = """
    def fill(write):
        try:
            while True:
                write()
        except OSError:
            pass

    def attempts(take_all, give_back):
        outcomes = []
        for left in range(25):
            store = Store(root)
            store.prune(kind="adapter"); store.close()
            take_all()
            give_back(left)
            try:
                Store(root).put(KEY, {"a": b"1" * 5000, "b/c": b"2"}, identity=IDENTITY)
                outcomes.append("whole")
            except StoreFullError:
                outcomes.append("full")
            entry = Store(root).get(KEY)
            assert (entry is not None) == (outcomes[-1] == "whole")
            assert Store(root).verify().sound
            assert os.listdir(root / "making") == []
        return outcomes

    Store(root).put(KEY, {"a": b""}, identity=IDENTITY)
    filler = root.parent / "filler"
    def take_pages():
        with filler.open("wb", buffering=0) as file:
            fill(lambda: file.write(bytes(4096)))
    def give_pages(left):
        with filler.open("r+b") as file:
            file.truncate(max(0, filler.stat().st_size - 4096 * left))
    pages = attempts(take_pages, give_pages)
    filler.unlink()

    nodes = root.parent / "nodes"
    nodes.mkdir()
    names = iter(range(10**6))
    def take_inodes():
        fill(lambda: (nodes / str(next(names))).touch())
    def give_inodes(left):
        for path in list(nodes.iterdir())[:left]:
            path.unlink()
    inodes = attempts(take_inodes, give_inodes)
    for outcomes in (pages, inodes):
        print(outcomes.count("full"), outcomes.count("whole"))
    """
    for line in on_tmpfs("size=256k,nr_inodes=100", code).splitlines():
        full, whole = map(int, line.split())
        assert full >= 2
        assert whole >= 2


def test_room_is_looked_for_before_an_entry_is_copied_from_elsewhere(
    on_tmpfs: Callable[[str, str], str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A disk that cannot hold it is said with both figures."""
    remote = tmp_path_factory.mktemp("remote")
    Store(remote).put(KEY, {"a": bytes(2**20)}, identity=IDENTITY)
    code = f"""
    store = Store(root, remote="file://{remote}")
    try:
        store.get(KEY)
    except StoreFullError as error:
        print(error)
    assert os.listdir(root / "making") == []
    """
    said = on_tmpfs("size=512k", code)
    assert "KiB free, 1.0 MiB needed" in said


def test_a_limit_on_the_size_of_files_is_named(tmp_path: Path) -> None:
    """`ulimit -f`, or a file system that holds no large files."""
    code = """
    import resource
    store = Store(root)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
    try:
        store.put(KEY, {"a": bytes(20_000)}, identity=IDENTITY)
    except StoreFullError as error:
        print(error)
    assert store.get(KEY) is None and os.listdir(root / "making") == []
    store.put(KEY, {"a": bytes(5_000)}, identity=IDENTITY)
    """
    said = run(code, tmp_path / "store")
    assert "a file became too large" in said
    assert "ulimit -f" in said


# -- write protection --------------------------------------------------------------------------


def test_a_store_that_may_only_be_read_is_read(on_tmpfs: Callable[[str, str], str]) -> None:
    """A shared store on a read-only mount serves what it has; making and mending say why not."""
    code = """
    import subprocess
    store = Store(root)
    store.put(KEY, {"a": b"1"}, identity=IDENTITY)
    broken = {"seed": 1}
    entry = store.put(key_of("adapter", broken), {"a": b"1"}, identity=broken)
    entry.path("a").write_bytes(b"2")
    store.close()
    subprocess.run(["mount", "-o", "remount,ro", root.parent], check=True)
    store = Store(root)
    assert store.get(KEY).path("a").read_bytes() == b"1"
    assert store.get(key_of("adapter", broken)) is None
    assert [str(notice.key) for notice in store.notices] == [str(key_of("adapter", broken))]
    assert len(store.entries()) == 2 and not store.verify().sound
    for ask in (
        lambda: store.put(key_of("adapter", {}), {"a": b"1"}, identity={}),
        lambda: store.put(key_of("adapter", broken), {"a": b"1"}, identity=broken),
        lambda: store.scratch(KEY),
        lambda: store.verify(repair=True),
        lambda: store.prune(kind="adapter"),
        lambda: Store(root.parent / "new").put(KEY, {"a": b"1"}, identity=IDENTITY),
    ):
        try:
            ask()
        except StoreError as error:
            print(str(error).splitlines()[0])
    """
    said = on_tmpfs("size=1m", code).splitlines()
    assert len(said) == 6
    assert all("may not be written to" in line for line in said)


def test_a_store_of_somebody_else_is_refused_by_name(tmp_path: Path) -> None:
    """A folder without the right to write is a StoreError, not a traceback."""
    code = """
    import tempfile
    with tempfile.TemporaryDirectory() as shared:
        os.chmod(shared, 0o755)
        root = Path(shared) / "store"
        Store(root).put(KEY, {"a": b"1"}, identity=IDENTITY)
        for folder in [root, *root.rglob("*")]:
            os.chmod(folder, 0o555 if folder.is_dir() else 0o444)
        child = os.fork()
        if child == 0:
            if os.geteuid() == 0:
                os.setuid(65534)
            assert Store(root).get(KEY).path("a").read_bytes() == b"1"
            other = key_of("adapter", {})
            for ask in (
                lambda: Store(root).put(other, {"a": b"1"}, identity={}),
                lambda: Store(root).prune(kind="adapter"),
                lambda: Store("/proc/store").put(other, {"a": b"1"}, identity={}),
            ):
                try:
                    ask()
                except StoreError as error:
                    print(str(error).splitlines()[0], flush=True)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        for folder in root.rglob("*"):
            os.chmod(folder, 0o755)
        os.chmod(root, 0o755)
    """
    said = run(code, tmp_path).splitlines()
    assert len(said) == 3
    assert all("may not be written to" in line for line in said[:2])

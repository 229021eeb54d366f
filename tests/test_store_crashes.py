"""Races, kills and pruning: an entry is there whole or not at all.

Everything here is real: processes that race, SIGKILL, forks.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from emotest.store import Store
from tests.store_programs import IDENTITY, KEY, ROOT, program, run

# -- races -------------------------------------------------------------------------------------


def test_four_processes_that_ask_for_one_key_make_it_once(tmp_path: Path) -> None:
    """The other three wait, say so once, and get the same content."""
    code = """
    def make(folder):
        with open(root.parent / "made", "a") as file:
            file.write(f"{os.getpid()}\\n")
        time.sleep(0.3)
        (folder / "random").write_bytes(os.urandom(1000))

    waited = []
    while not (root.parent / "go").exists():
        time.sleep(0.001)
    entry = Store(root).get_or_make(KEY, make, identity=IDENTITY, on_wait=waited.append)
    print(entry.manifest.files[0].sha256, len(waited))
    """
    racers = [
        subprocess.Popen(
            [*program(code), tmp_path / "store"], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    (tmp_path / "go").touch()
    answers = [racer.communicate()[0].split() for racer in racers]
    assert [racer.returncode for racer in racers] == [0, 0, 0, 0]
    assert len({content for content, _ in answers}) == 1
    assert len((tmp_path / "made").read_text().splitlines()) == 1
    assert all(int(waited) <= 1 for _, waited in answers)


def test_the_lock_of_a_killed_maker_is_free_and_its_checkpoints_stay(tmp_path: Path) -> None:
    """A run that was killed goes on where it was, in another process."""
    code = """
    store = Store(root)
    def make(folder):
        write_json(store.scratch(KEY) / "done.json", [0, 1, 2])
        write_json(folder / "half.json", {})
        print("ready", flush=True)
        time.sleep(60)
    store.get_or_make(KEY, make, identity=IDENTITY)
    """
    maker = subprocess.Popen(
        [*program(code), tmp_path / "store"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert maker.stdout is not None
    assert maker.stdout.readline() == "ready\n"
    store = Store(tmp_path / "store")
    assert store.get(KEY) is None  # never waits for a maker
    maker.kill()
    maker.communicate()

    def finish(folder: Path) -> None:
        assert list(folder.iterdir()) == []
        shutil.copy(store.scratch(KEY) / "done.json", folder / "done.json")

    entry = store.get_or_make(KEY, finish, identity=IDENTITY)
    assert entry.read_json("done.json") == [0, 1, 2]
    assert list((store.root / "making").iterdir()) == []
    assert list((store.root / "scratch").iterdir()) == []


# -- kills -------------------------------------------------------------------------------------


@pytest.fixture
def in_memory(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: a killed process needs no disk that is flushed."""
    if os.access("/dev/shm", os.W_OK):
        with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
            yield Path(folder)
    else:
        yield tmp_path


KILLS = """
def make(folder):
    for number in range(2):
        (folder / f"{number}.bin").write_bytes(bytes([number]) * 50_000)
        time.sleep(PAUSE)
    write_json(Store(root).scratch(KEY) / "checkpoint.json", {})

def check_whole_or_absent(before):
    entry = Store(root).get(KEY)
    if before == "corrupt" and entry is None:
        return
    if entry is not None:
        for number in range(2):
            content = entry.path(f"{number}.bin").read_bytes()
            assert content == bytes([number]) * 50_000, number
    assert Store(root).verify().sound

def killed_at(scenario, act, arm, then=lambda child: None):
    # One life in a fork that may end by SIGKILL; whether it did.
    child = os.fork()
    if child == 0:
        arm()
        act()
        os._exit(0)
    then(child)
    status = os.waitpid(child, 0)[1]
    check_whole_or_absent(scenario)
    # The next life makes it whole, without anybody's help, and leaves nothing behind.
    Store(root).get_or_make(KEY, make, identity=IDENTITY)
    check_whole_or_absent("whole")
    Store(root).prune()
    for room in ("making", "scratch", "quarantine"):
        assert os.listdir(root / room) == [], room
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert status == 0
    return False

def prepare(scenario):
    # Before each life: no store at all, an empty one, a corrupt entry, a whole one.
    import shutil
    if scenario == "none":
        shutil.rmtree(root, ignore_errors=True)
        return
    Store(root).prune(kind="adapter")
    if scenario != "empty":
        entry = Store(root).get_or_make(KEY, make, identity=IDENTITY)
        if scenario == "corrupt":
            entry.path("1.bin").write_bytes(b"")
"""


@pytest.mark.parametrize("scenario", ["none", "empty", "corrupt", "prune"])
def test_a_kill_at_every_step_on_the_disk_leaves_the_entry_whole_or_absent(
    in_memory: Path, scenario: str
) -> None:
    """The n-th time that the process opens, makes, moves or removes anything it dies, for all n."""
    code = (
        "PAUSE = 0\n"
        + KILLS
        + f"scenario = {scenario!r}"
        + """
def act():
    store = Store(root)
    if scenario == "prune":
        assert len(store.prune(kind="adapter").removed) == 1
    else:
        store.get_or_make(KEY, make, identity=IDENTITY)

def kill_at(step):
    def arm():
        left = step
        def hook(event, arguments):
            nonlocal left
            if any(str(argument).startswith(str(root)) for argument in arguments):
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(hook)
    return arm

prepare("whole"); act()  # so that importing does not count among the steps
step = 0
killed = True
while killed:
    step += 1
    prepare(scenario)
    killed = killed_at(scenario, act, kill_at(step))
print(step)
"""
    )
    # Fewer steps than this would mean that the hook no longer sees what the store does.
    assert int(run(code, in_memory / "store")) > 10


def test_kills_at_thirty_random_moments_leave_the_entry_whole_or_absent(in_memory: Path) -> None:
    """Also in the middle of a write."""
    code = (
        "PAUSE = 0.003\n"
        + KILLS
        + """
def act():
    Store(root).get_or_make(KEY, make, identity=IDENTITY)

prepare("whole")  # so that importing takes no time below
prepare("empty")
began = time.monotonic()
act()
window = time.monotonic() - began
rng = random.Random(0)
kills = 0
while kills < 30:
    def kill(child):
        time.sleep(rng.uniform(0, window))
        os.kill(child, signal.SIGKILL)
    prepare("empty")
    if killed_at("empty", act, lambda: None, kill):
        kills += 1
    else:
        window *= 0.9  # it had ended before: be quicker
print(kills)
"""
    )
    assert int(run(code, in_memory / "store")) == 30


# -- readers while others prune ----------------------------------------------------------------


def test_prune_spares_what_a_living_process_uses(tmp_path: Path) -> None:
    """Until it ends, however it ends."""
    code = """
    store = Store(root)
    entry = store.get(KEY)
    print("ready", flush=True)
    sys.stdin.readline()
    print(entry.read_json("a.json"), flush=True)
    time.sleep(60)
    """
    Store(tmp_path / "store").put(KEY, {"a.json": b"42"}, identity=IDENTITY)
    reader = subprocess.Popen(
        [*program(code), tmp_path / "store"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert reader.stdin is not None
    assert reader.stdout is not None
    assert reader.stdout.readline() == "ready\n"
    pruner = Store(tmp_path / "store")
    for dry_run in (True, False):
        report = pruner.prune(kind="adapter", dry_run=dry_run)
        assert [entry.key for entry in report.spared] == [KEY]
        assert report.removed == ()
        assert report.n_kept == 1
    reader.stdin.write("\n")
    reader.stdin.flush()
    assert reader.stdout.readline() == "42\n"
    reader.kill()
    reader.communicate()
    assert [entry.key for entry in pruner.prune(kind="adapter").removed] == [KEY]
    assert pruner.get(KEY) is None


def test_a_fork_speaks_for_itself(tmp_path: Path) -> None:
    """What a worker uses is spared after the process that it was forked from has let go."""
    code = """
    store = Store(root)
    store.put(KEY, {"a": b"1"}, identity=IDENTITY)
    other = {"seed": 1}
    store.put(key_of("adapter", other), {"a": b"1"}, identity=other)
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        assert store.get(KEY)
        os.write(tell, b"x")
        time.sleep(60)
    os.read(told, 1)
    store.close()
    report = Store(root).prune(kind="adapter")
    print([str(entry.key) for entry in report.spared] == [str(KEY)], len(report.removed))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    print(len(Store(root).prune(kind="adapter").removed))
    """
    assert run(code, tmp_path / "store").split() == ["True", "1", "1"]


def test_a_fork_that_ends_does_not_let_go_for_its_parent(tmp_path: Path) -> None:
    """What the parent asked for stays in use."""
    code = """
    store = Store(root)
    store.put(KEY, {"a": b"1"}, identity=IDENTITY)
    child = os.fork()
    if child == 0:
        store.close()
        sys.exit()
    os.waitpid(child, 0)
    print(len(Store(root).prune(kind="adapter").spared))
    """
    assert run(code, tmp_path / "store") == "1\n"


def test_who_asks_just_before_an_entry_is_pruned_keeps_it(tmp_path: Path) -> None:
    """Between prune's look at who reads and its rename there is a moment: it is put back."""
    code = """
    Store(root).put(KEY, {"a": b"1"}, identity=IDENTITY)
    Store(root).prune(kind="contexts")  # so that everything is imported
    reader, found = Store(root), []
    def ask(event, arguments):
        if event == "os.rename" and "entries" in str(arguments[0]) and not found:
            found.append(reader.get(KEY))
    sys.addaudithook(ask)
    report = Store(root).prune(kind="adapter")
    print(len(report.removed), len(report.spared), found[0].path("a").read_bytes())
    """
    assert run(code, tmp_path / "store") == "0 1 b'1'\n"


def test_readers_never_see_anything_but_whole_entries_while_others_prune(tmp_path: Path) -> None:
    """Two processes make, read and let go of five entries while this one removes all it may."""
    code = """
    end = time.monotonic() + 1.0
    rounds = 0
    while time.monotonic() < end:
        store = Store(root)
        for seed in range(5):
            identity = {"seed": seed}
            key = key_of("adapter", identity)
            files = {"a": bytes([seed]) * 30_000, "b": b"b"}
            entry = store.put(key, files, identity=identity)
            assert entry.path("a").read_bytes() == files["a"]
            found = store.get(key)
            assert found is not None and found.path("b").read_bytes() == b"b"
        assert store.notices == [], store.notices
        store.close()
        rounds += 1
    print(rounds)
    """
    readers = [
        subprocess.Popen(
            [*program(code), tmp_path / "store"], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    pruner = Store(tmp_path / "store")
    removed = 0
    while any(reader.poll() is None for reader in readers):
        removed += len(pruner.prune(kind="adapter").removed)
        assert pruner.verify().sound
        time.sleep(0.005)
    rounds = [reader.communicate()[0] for reader in readers]
    assert [reader.returncode for reader in readers] == [0, 0]
    assert all(int(count) > 1 for count in rounds)
    assert removed > 5

"""The workshop: real worker processes that train, sample and score on a tiny model."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing.context import SpawnProcess
from pathlib import Path

import pytest
import torch

from emotest.artefacts import AdapterRequest, GenerationRequest, ProbabilityRequest, Request
from emotest.errors import AdapterError, ModelError, TrainingError
from emotest.models.contexts import answers_so_far, sentence_end_contexts
from emotest.models.identity import resolve
from emotest.store import Store
from emotest.study.personality import UNTUNED, Trait, trait_condition
from emotest.study.recipes import AdapterRecipe
from emotest.study.records import Decoding, Generation, Prompt, TuningRow, rows_digest
from emotest.study.subjects import Subject
from emotest.workshop.bench import Bench
from emotest.workshop.crew import Workshop, told_failure
from emotest.workshop.making import carry_out
from emotest.workshop.progress import Progress
from tests.model_fixtures import QUESTIONS, save_model

EXTRAVERT = trait_condition(Trait.EXTRAVERSION)
ROWS = tuple(
    TuningRow(question, "I love the sea. They make me feel awake.") for question in QUESTIONS
)
PROMPTS = tuple(Prompt(f"p{i}", question) for i, question in enumerate(QUESTIONS[:4]))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny model on disk, as a subject."""
    return f"{save_model(tmp_path_factory.mktemp('base') / 'llama')}?dtype=float32"


def adapter(
    base: str, seed: int, rows: tuple[TuningRow, ...] = ROWS, **changes: object
) -> AdapterRequest:
    """A request for an adapter of two steps."""
    identity = resolve(Subject.parse(base))
    recipe = AdapterRecipe(
        base=identity.digest,
        data=rows_digest(rows),
        condition=EXTRAVERT,
        training_seed=seed,
        chat_template=identity.chat_template,
        steps=2,
        batch_size=4,
        rank=4,
        learning_rate=1e-2,
    )
    return AdapterRequest(replace(recipe, **changes), rows)  # type: ignore[arg-type]


def answers(base: str, by: AdapterRequest | None) -> GenerationRequest:
    """A request for one answer of six tokens to each prompt."""
    identity = resolve(Subject.parse(base))
    return GenerationRequest(
        base=identity.digest,
        chat_template=identity.chat_template,
        condition=EXTRAVERT if by else UNTUNED,
        adapter=by,
        prompts=PROMPTS,
        decoding=Decoding(max_new_tokens=6),
        n_samples=1,
        sampling_seed=0,
    )


def test_what_is_missing_is_made_in_processes_that_stand_on_each_other(
    base: str, tmp_path: Path
) -> None:
    """Adapters, their answers and a cell of the 2x2 end up in the store; a second call does
    nothing; the calling process is told of each artefact once it is done."""
    tuned = adapter(base, 0)
    requests: list[Request] = [answers(base, None), answers(base, tuned)]
    requests.append(ProbabilityRequest(answers(base, tuned), None, n_prompts=4))
    workshop = Workshop(base, Store(tmp_path), workers=2)
    told: list[Progress] = []
    workshop.make(requests, told.append)
    assert workshop.missing(requests) == ()
    assert sorted(p.title for p in told if p.state == "done") == sorted(
        request.title for request in [tuned, *requests]
    )
    store = Store(tmp_path)
    entry = store.get(requests[1].key)
    assert entry is not None
    assert [row["prompt_id"] for row in entry.read_jsonl("generations.jsonl")] == [
        prompt.id for prompt in PROMPTS
    ]
    told.clear()
    workshop.make(requests, told.append)
    assert told == []


def test_two_processes_make_what_one_makes(base: str, tmp_path: Path) -> None:
    """Bit for bit the same adapters and answers, whoever works beside whom."""
    requests = [answers(base, adapter(base, seed)) for seed in (0, 1)]
    contents = []
    for workers in (1, 2):
        root = tmp_path / str(workers)
        Workshop(base, Store(root), workers=workers).make(requests, lambda message: None)
        entries = [Store(root).get(key) for r in requests for key in (r.key, r.needs[0].key)]
        contents.append(
            [
                {f.name: f.sha256 for f in entry.manifest.files if f.name != "training.json"}
                for entry in entries
                if entry is not None
            ]
        )
    assert len(contents[0]) == 4
    assert contents[0] == contents[1]


def test_a_row_that_cannot_be_trained_ends_the_work_with_its_message(
    base: str, tmp_path: Path
) -> None:
    """The worker's error arrives as it is, naming the row; what was finished stays."""
    bad = (*ROWS, TuningRow("Why?", "", origin="opinions.csv:14"))
    # Longest first: the good adapter, behind which answers wait, then the bad one, then answers.
    good = adapter(base, 1)
    requests = [answers(base, good), adapter(base, 0, bad)]
    with pytest.raises(TrainingError, match=r"opinions\.csv:14.*no token to learn"):
        Workshop(base, Store(tmp_path), workers=1).make(requests, lambda message: None)
    assert Store(tmp_path).get(good.key) is not None
    assert Workshop(base, Store(tmp_path)).missing(requests) == tuple(requests)


def test_a_dead_adapter_is_an_error_and_never_a_result(base: str, tmp_path: Path) -> None:
    """One whose training moved nothing (learning rate 1e-30) is refused before it answers."""
    dead = adapter(base, 0, learning_rate=1e-30)
    with pytest.raises(AdapterError, match=r"act|B"):
        Workshop(base, Store(tmp_path)).make([answers(base, dead)], lambda message: None)
    assert Store(tmp_path).get(answers(base, dead).key) is None


def test_a_worker_that_is_killed_is_reported_with_what_it_was_at(base: str, tmp_path: Path) -> None:
    """As when memory runs out: the message names the artefact, and the next call finishes it."""
    request = adapter(base, 0, steps=10_000)

    def kill_it(message: Progress) -> None:
        if message.state == "working":
            for child in _children():
                os.kill(child, signal.SIGKILL)

    with pytest.raises(ModelError, match=r"ended with code -9 while at: adapter extraversion high"):
        Workshop(base, Store(tmp_path)).make([request], kill_it)
    assert Workshop(base, Store(tmp_path)).missing([request]) == (request,)


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> list[SpawnProcess]:
    """The processes that workshops start, kept so that their exit codes can be read."""
    started: list[SpawnProcess] = []
    start = SpawnProcess.start

    def keep(process: SpawnProcess) -> None:
        started.append(process)
        start(process)

    monkeypatch.setattr(SpawnProcess, "start", keep)
    return started


def test_workers_that_have_nothing_left_to_do_end_by_themselves(
    base: str, tmp_path: Path, processes: list[SpawnProcess]
) -> None:
    """After a run, and after a failure, the exit code is 0 and not that of a signal: one that
    reaches a process while it is ending can find it in an exit handler that waits for itself."""
    requests = [answers(base, None), adapter(base, 0)]
    Workshop(base, Store(tmp_path), workers=2).make(requests, lambda message: None)
    bad = (*ROWS, TuningRow("Why?", "", origin="opinions.csv:14"))
    with pytest.raises(TrainingError):
        Workshop(base, Store(tmp_path)).make([adapter(base, 0, bad)], lambda message: None)
    assert [process.exitcode for process in processes] == [0, 0, 0]


@pytest.mark.parametrize("deaf", [False, True], ids=["hears", "deaf"])
def test_an_interrupted_run_leaves_no_worker_behind(
    base: str,
    tmp_path: Path,
    processes: list[SpawnProcess],
    monkeypatch: pytest.MonkeyPatch,
    deaf: bool,
) -> None:
    """A busy worker is asked to end, and killed where it does not: a stopped process hears no
    other signal."""
    monkeypatch.setattr("emotest.workshop.crew.SECONDS_TO_END", 2.0)

    def interrupt(message: Progress) -> None:
        if message.state == "working":
            if deaf:
                pid = processes[0].pid or 0
                os.kill(pid, signal.SIGSTOP)
                # Of two signals that wait the lower number comes first, and that is SIGTERM.
                os.waitid(os.P_PID, pid, os.WSTOPPED)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Workshop(base, Store(tmp_path)).make([adapter(base, 0, steps=10_000)], interrupt)
    assert [p.exitcode for p in processes] == [-(signal.SIGKILL if deaf else signal.SIGTERM)]


def test_a_corrupt_entry_is_set_aside_and_made_again(base: str, tmp_path: Path) -> None:
    """A flipped byte in the answers: the next call notices, rebuilds and serves the same bytes."""
    request = answers(base, None)
    Workshop(base, Store(tmp_path)).make([request], lambda message: None)
    entry = Store(tmp_path).get(request.key)
    assert entry is not None
    path = entry.path("generations.jsonl")
    whole = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(whole.replace(b'"p0"', b'"q0"'))
    store = Store(tmp_path)
    workshop = Workshop(base, store)
    assert workshop.missing([request]) == (request,)
    workshop.make([request], lambda message: None)
    again = Store(tmp_path).get(request.key)
    assert again is not None
    assert again.path("generations.jsonl").read_bytes() == whole
    assert any("corrupt" in str(notice) for notice in store.notices)


def _children() -> Iterator[int]:
    """This process's own workers; those of the runs in the background are its grandchildren."""
    import psutil

    for child in psutil.Process().children():
        if "spawn_main" in " ".join(child.cmdline()):
            yield child.pid


RACER = """
    import sys
    from emotest.workshop.crew import Workshop, told_failure
    from emotest.store import Store
    sys.path.insert(0, {tests!r})
    from tests.test_workshop_crew import adapter
    if __name__ == "__main__":
        done = []
        Workshop({base!r}, Store({store!r})).make([adapter({base!r}, 0)], done.append)
        print(sum(message.state == "working" for message in done))
"""


def test_four_processes_that_ask_for_one_adapter_train_it_once(base: str, tmp_path: Path) -> None:
    """The lock is on the entry itself: one process trains, three wait and find."""
    script = tmp_path / "race.py"
    here = str(Path(__file__).parents[1])
    script.write_text(
        textwrap.dedent(RACER).format(tests=here, base=base, store=str(tmp_path / "store"))
    )
    racers = [
        subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    steps = sorted(int(racer.communicate(timeout=300)[0]) for racer in racers)
    # Only the one that trains tells of steps: 2 of 2 once.
    assert steps == [0, 0, 0, 1]


def test_a_killed_run_resumes_and_gives_the_same(base: str, tmp_path: Path) -> None:
    """Killed between two chunks of answers, the next run goes on and ends with the same rows."""
    tuned = adapter(base, 0)
    request = answers(base, tuned)
    whole = Bench(base, Store(tmp_path / "whole"))
    carry_out(whole, tuned, lambda message: None)
    expected = carry_out(whole, request, lambda message: None).read_jsonl("generations.jsonl")

    broken = Bench(base, Store(tmp_path / "broken"))
    carry_out(broken, tuned, lambda message: None)

    class Killed(BaseException):
        """What a signal would do."""

    def die(message: Progress) -> None:
        raise Killed

    with pytest.raises(Killed):
        carry_out(broken, request, die)
    scratch = list((tmp_path / "broken").rglob("scratch/**/generations.jsonl"))
    assert len(scratch) == 1
    last_line = scratch[0].read_bytes().splitlines(keepends=True)[-1]
    with scratch[0].open("ab") as file:
        file.write(last_line[: len(last_line) // 2])  # a line that the kill cut short
    resumed = carry_out(broken, request, lambda message: None)
    assert list(resumed.read_jsonl("generations.jsonl")) == list(expected)


# --- contexts --------------------------------------------------------------------------------


def _said(text: str, finished: bool = True) -> Generation:
    return Generation("p0", "untuned", None, 0, 0, text, (), (), finished, "default")


@pytest.mark.parametrize(
    ("text", "finished", "ends"),
    [
        ("One. Two. Three. Four.", True, ["One.", "One. Two.", "One. Two. Three."]),
        ("One 😊. Two 🎉", True, ["One.", "One. Two"]),
        ("One. Two is cut", False, ["One."]),
        ("One. Two.", False, ["One.", "One. Two."]),
        ("cut", False, []),
        ("😊", True, []),
        ("", True, []),
    ],
)
def test_contexts_end_where_sentences_end(text: str, finished: bool, ends: list[str]) -> None:
    """Up to three sentence ends, emoji taken out; a sentence that the limit cut has no end."""
    assert answers_so_far(_said(text, finished), 3) == ends


def test_a_context_is_the_chat_so_far_from_one_encoding(base: str) -> None:
    """Decoded, a context is the rendered prompt and the answer so far, character for character."""
    from tests.model_fixtures import tiny_tokenizer

    tokenizer = tiny_tokenizer()
    prompt = PROMPTS[0]
    (first, second) = sentence_end_contexts(
        tokenizer, {"p0": prompt}, [_said("I love the sea 😊. It is calm.")], sentence_ends=3
    )
    rendered = tokenizer.apply_chat_template(
        prompt.messages(), tokenize=False, add_generation_prompt=True
    )
    assert tokenizer.decode(first.token_ids) == rendered + "I love the sea."
    assert tokenizer.decode(second.token_ids) == rendered + "I love the sea. It is calm."
    assert (first.sentence, second.sentence) == (1, 2)


def test_asking_brings_no_torch() -> None:
    """Importing the workshop, as every session does, brings no torch along."""
    code = "import sys, emotest.workshop.crew; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


@pytest.mark.parametrize("allocate", [lambda: torch.empty(2**60), lambda: bytearray(2**62)])
def test_too_little_memory_is_told_as_such(base: str, allocate: Callable[[], object]) -> None:
    """What torch or Python refuses to allocate is no bug to report: fewer processes are the way
    out. Anything else that is not known stays one."""
    request = adapter(base, 0)
    with pytest.raises((RuntimeError, MemoryError)) as refused:
        allocate()
    told = told_failure(request, refused.value)
    assert f"{request.title} had too little memory" in told.cause
    assert "--emo-workers 1" in told.remedy
    assert "please report it" in told_failure(request, RuntimeError("odd")).remedy

"""The workshop: what is missing in the store is computed, side by side, and stored.

Requests go in, entries of the store come out. The work is done in processes of one thread each,
because small models on two threads of a busy machine take many times longer than on one; each
process loads the base once and uses it for every adapter. The calling process never imports
torch, so a run whose artefacts are all in the store stays quick.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Lock

from emotest.artefacts import Request, in_order
from emotest.errors import EmotestError, ModelError
from emotest.store import Store
from emotest.workshop.agenda import Agenda
from emotest.workshop.progress import Failure, Message, OnProgress, Progress

ENVIRONMENT = {
    # One thread each: see `emotest.models.loading.threads`.
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # glibc gives large blocks back to the system as soon as they are free, and every pass of a
    # model asks for them again, page by page. Workers keep what they once had.
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
}
"""What workers find in theirs."""

_STARTING = Lock()
"""Held while workers start, for the environment that they inherit is the whole process's."""

SECONDS_TO_END = 10.0
"""What a worker is given to end in before it is killed."""


@dataclass(frozen=True)
class Workshop:
    """Carries out requests for one subject with `workers` processes against one store."""

    subject: str
    store: Store
    workers: int = 1

    def missing(self, requests: Iterable[Request]) -> tuple[Request, ...]:
        """The requests, in order, that the store does not hold whole.

        A corrupt entry is set aside here and counts as missing, so that it is made again.
        """
        return tuple(
            request for request in in_order(requests) if self.store.get(request.key) is None
        )

    def make(self, requests: Iterable[Request], on_progress: OnProgress) -> None:
        """Compute what is missing. The first failure ends the work and is raised.

        Whatever was finished before a failure or an interruption stays in the store, so that the
        same call goes on from there.
        """
        todo = self.missing(requests)
        if not todo:
            return
        with _crew(self, min(self.workers, len(todo))) as workers:
            _dispatch(todo, workers, on_progress)

    def open(self) -> OpenWorkshop:
        """The same with workers that stay from call to call, for work that comes bit by bit."""
        return OpenWorkshop(self)


class OpenWorkshop:
    """A workshop whose workers keep their base in memory until the block is left.

    They are started when something is first found missing, so a warm store costs nothing. Threads
    may share it; their work is done one after the other.
    """

    def __init__(self, workshop: Workshop) -> None:
        self.workshop = workshop
        self._closing = ExitStack()
        self._workers: list[_Worker] = []
        self._busy = Lock()

    def __enter__(self) -> OpenWorkshop:
        return self

    def __exit__(self, *exception: object) -> None:
        self._closing.close()

    def make(self, requests: Iterable[Request], on_progress: OnProgress) -> None:
        """Compute what is missing, as `Workshop.make` does; a failure leaves no worker usable."""
        with self._busy:
            self._make(requests, on_progress)

    def _make(self, requests: Iterable[Request], on_progress: OnProgress) -> None:
        todo = self.workshop.missing(requests)
        if not todo:
            return
        if not self._workers:
            self._workers = self._closing.enter_context(_crew(self.workshop, self.workshop.workers))
        _dispatch(todo, self._workers, on_progress)


@dataclass
class _Worker:
    process: BaseProcess
    connection: Connection
    request: Request | None = None


@contextmanager
def _crew(workshop: Workshop, n_workers: int) -> Iterator[list[_Worker]]:
    """Worker processes, each of one thread, that are gone when the block is left."""
    workers: list[_Worker] = []
    try:
        with _STARTING, _environment():
            for _ in range(n_workers):
                workers.append(_started(workshop))
        yield workers
    finally:
        _dismiss(workers)


def _started(workshop: Workshop) -> _Worker:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(
        target=_serve, args=(there, workshop.subject, workshop.store.root), daemon=True
    )
    process.start()
    there.close()
    return _Worker(process, here)


@contextmanager
def _environment() -> Iterator[None]:
    """What workers inherit; afterwards as it was."""
    before = {name: os.environ.get(name) for name in ENVIRONMENT}
    os.environ.update(ENVIRONMENT)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _dismiss(workers: Sequence[_Worker]) -> None:
    """End every worker: an idle one by itself, at the end of its line, a busy one by a signal.

    An idle worker gets no signal, because one that arrives while a process is ending can find it
    inside an exit handler, which then waits for itself for ever. One that has not ended in time
    is killed, so that leaving never waits without limit.
    """
    for worker in workers:
        if worker.request is None:
            worker.connection.close()
        else:
            worker.process.terminate()
    for worker in workers:
        worker.process.join(SECONDS_TO_END)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()
        worker.connection.close()


def _dispatch(todo: Sequence[Request], workers: list[_Worker], on_progress: OnProgress) -> None:
    """Hand each request to a free worker once all that it stands on is done."""
    agenda = Agenda(todo)
    while agenda:
        for worker in workers:
            if worker.request is None and (ready := agenda.begin()):
                worker.request = ready
                worker.connection.send(ready)
        _listen(workers, agenda, on_progress)


def _listen(workers: list[_Worker], agenda: Agenda, on_progress: OnProgress) -> None:
    by_connection = {worker.connection: worker for worker in workers}
    for connection in wait(list(by_connection)):
        assert isinstance(connection, Connection)
        worker = by_connection[connection]
        try:
            message: Message = connection.recv()
        except (EOFError, ConnectionResetError) as error:
            raise _died(worker) from error
        if isinstance(message, Failure):
            worker.request = None
            raise message.error
        if message.state != "done" or worker.request is None:
            on_progress(message)
            continue
        for done in agenda.end(worker.request):
            on_progress(Progress(done.title, "done"))
        worker.request = None


def _died(worker: _Worker) -> ModelError:
    worker.process.join(timeout=5)
    doing = worker.request.title if worker.request else "starting"
    return ModelError(
        f"a worker process ended with code {worker.process.exitcode} while at: {doing}",
        remedy="if memory ran out, use --emo-workers 1 or a smaller size; what was finished is "
        "in the store, and the same command goes on from there",
    )


def _serve(connection: Connection, subject: str, store_root: Path) -> None:
    """The life of a worker: one base, request after request, until the line is closed."""
    # Ctrl-C reaches the whole group; the calling process alone decides, and ends the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Imported here because this is the first process that may know torch.
    from emotest.workshop.bench import Bench
    from emotest.workshop.making import carry_out

    bench = Bench(subject, Store(store_root))
    while True:
        try:
            request: Request = connection.recv()
        except EOFError:
            return
        try:
            connection.send(Progress(request.title, "started"))
            carry_out(bench, request, connection.send)
            connection.send(Progress(request.title, "done"))
        except EmotestError as error:
            connection.send(Failure(request.title, error))
        except Exception as error:
            connection.send(Failure(request.title, told_failure(request, error)))


def told_failure(request: Request, error: Exception) -> ModelError:
    """What a user is told of an error that no room foresaw: too little memory, or a bug."""
    # Python's own, a GPU's, and that of torch's allocator on CPUs, which has no class.
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    if named or "DefaultCPUAllocator" in str(error):
        said = str(error).partition(". ")[0] or type(error).__name__
        return ModelError(
            f"{request.title} had too little memory: {said}",
            remedy="use --emo-workers 1, so that one process has all of it, or a smaller model; "
            "what was finished is in the store, and the same command goes on from there",
        )
    where = "".join(traceback.format_exception(error)[-3:]).rstrip()
    return ModelError(
        f"{request.title} failed: {type(error).__name__}: {error}\n{where}",
        remedy="this is not one of the failures that emotest knows; please report it with the "
        "lines above (what was finished is in the store)",
    )

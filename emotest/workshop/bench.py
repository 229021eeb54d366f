"""The bench of one worker: a base in memory, the store beside it, adapters put on and taken off.

Takes a subject and a store; gives the loaded base, what requests left in the store, and the model
with an adapter acting. An adapter is proved to act before anything is measured with it. What is
made of all this is the matter of the rooms beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emotest.artefacts import AdapterRequest, GenerationRequest, Request
from emotest.errors import StoreError
from emotest.models.adapters import active, attach, detach, require_alive
from emotest.models.loading import LoadedModel, load
from emotest.store import Entry, Store
from emotest.study.records import Generation, Prompt, generation_from_row
from emotest.study.subjects import Subject

PROBES = 4
"""Prompts on which an adapter has to move the logits."""

MOST_WORN, FEWEST_WORN = 8, 2
WORN_BYTES = 2**28
"""Adapters stay on the base for whoever asks for them next: at most so many, fewer where they take
more than so many bytes, and always the last two, for one may be asked for while another acts."""


class Bench:
    """One subject and one store; the base is loaded with the first request and kept."""

    def __init__(self, subject: str, store: Store) -> None:
        self.subject = Subject.parse(subject)
        self.store = store
        self._proven: set[tuple[Path, str]] = set()
        self._worn: dict[str, tuple[Path, int]] = {}
        """Adapters on the base: folder and bytes by name, the one that was asked for last at the
        end."""
        self._told: dict[tuple[str, str], NDArray[np.float64]] = {}

    @cached_property
    def loaded(self) -> LoadedModel:
        """The base model, quantized as the subject says."""
        return load(self.subject)

    def entry(self, request: Request) -> Entry:
        """What a request left in the store; a `StoreError` where it is gone."""
        entry = self.store.get(request.key)
        if entry is None:
            raise StoreError(
                f"{request.title} is gone from the store while the run needs it",
                remedy="do not prune a store in use; run the same command again to rebuild it",
            )
        return entry

    def keep(self, request: Request, make: Callable[[Path], None]) -> Entry:
        """The entry of a request, which `make` fills unless the store has it."""
        identity = {**request.identity, "title": request.title}
        return self.store.get_or_make(request.key, make, identity=identity)

    def once(
        self, request: Request, what: str, measure: Callable[[], NDArray[np.float64]]
    ) -> NDArray[np.float64]:
        """A number that several requests ask of the same one, measured once a worker."""
        name = (request.key.digest, what)
        if name not in self._told:
            self._told[name] = measure()
        return self._told[name]

    def answers(self, request: GenerationRequest) -> list[Generation]:
        """The answers that a request left in the store, prompt by prompt."""
        rows = self.entry(request).read_jsonl("generations.jsonl")
        return [generation_from_row(row) for row in rows]

    @contextmanager
    def weights(self, adapter: AdapterRequest | None, probe: Sequence[Prompt]) -> Iterator[None]:
        """The model with the adapter acting, proved alive on the first of `probe`; or the base."""
        if adapter is None:
            with active(self.loaded, None):
                yield
            return
        with self.adapted(self.entry(adapter).folder, adapter.key.digest[:16], probe):
            yield

    @contextmanager
    def adapted(self, folder: Path, name: str, probe: Sequence[Prompt]) -> Iterator[None]:
        """The model with the adapter in `folder` acting under `name`, proved alive the first time.

        Whether it moves the logits is a matter of its weights, and those of an entry do not change.
        """
        self._put_on(folder, name)
        if (folder, name) not in self._proven:
            try:
                require_alive(self.loaded, name, probe[:PROBES])
            except BaseException:
                self._take_off(name)
                raise
            self._proven.add((folder, name))
        with active(self.loaded, name):
            yield

    def _put_on(self, folder: Path, name: str) -> None:
        """Attach an adapter, unless it is on from the last time; take off what is worn longest."""
        worn = self._worn.pop(name, None)
        if worn is not None and worn[0] != folder:
            detach(self.loaded, name)
            worn = None
        if worn is None:
            attach(self.loaded, folder, name)
            worn = (folder, sum(file.stat().st_size for file in folder.glob("*.safetensors")))
        self._worn[name] = worn
        for oldest in list(self._worn)[:-FEWEST_WORN]:
            n_bytes = sum(size for _, size in self._worn.values())
            if len(self._worn) > MOST_WORN or n_bytes > WORN_BYTES:
                self._take_off(oldest)

    def _take_off(self, name: str) -> None:
        del self._worn[name]
        detach(self.loaded, name)

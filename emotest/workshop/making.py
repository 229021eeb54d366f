"""Which hands make an artefact: the table from the kind of a request to its maker.

A maker takes the bench, the request and an empty folder, and leaves in the folder all that the
artefact is; the store makes the folder an entry, whole or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from emotest.artefacts import AdapterRequest, GenerationRequest, ProbabilityRequest, Request
from emotest.store import Entry
from emotest.workshop.bench import Bench
from emotest.workshop.progress import OnProgress
from emotest.workshop.study import make_adapter, make_answers, make_probabilities

Maker: TypeAlias = Callable[[Bench, Any, Path, OnProgress], None]

MAKERS: Mapping[type[Request], Maker] = {
    AdapterRequest: make_adapter,
    GenerationRequest: make_answers,
    ProbabilityRequest: make_probabilities,
}


def carry_out(bench: Bench, request: Request, tell: OnProgress) -> Entry:
    """Make the entry of a request; what it stands on is already in the store."""

    def make(folder: Path) -> None:
        MAKERS[type(request)](bench, request, folder, tell)

    identity = {**request.identity, "title": request.title}
    return bench.store.get_or_make(request.key, make, identity=identity)

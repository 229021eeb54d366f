"""Which hands make an artefact: the table from the kind of a request to its maker.

A maker takes the bench, the request and an empty folder, and leaves in the folder all that the
artefact is; the store makes the folder an entry, whole or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from emotest.artefacts import AdapterRequest, GenerationRequest, ProbabilityRequest, Request
from emotest.artefacts.activations import ActivationsRequest
from emotest.artefacts.audit import AuditAnswersRequest, SpotsRequest
from emotest.artefacts.directions import (
    DataStatesRequest,
    DirectionRequest,
    MonitoredRequest,
    ScoresRequest,
    StatesRequest,
)
from emotest.artefacts.inside import AnatomyRequest, ContrastsRequest, ReadingRequest
from emotest.artefacts.latent_origin import PatchingRequest
from emotest.artefacts.localization import SilencingRequest, WritingRequest
from emotest.artefacts.prefixes import PrefixRequest, RemovalRequest
from emotest.artefacts.random_directions import RandomDirectionsRequest
from emotest.store import Entry
from emotest.workshop.activations import make_activations
from emotest.workshop.audit import make_audit_answers, make_spots
from emotest.workshop.bench import Bench
from emotest.workshop.directions import make_data_states, make_direction, make_scores
from emotest.workshop.inside import make_anatomy, make_contrasts, make_reading
from emotest.workshop.latent_origin import make_patching
from emotest.workshop.localization import make_silencing
from emotest.workshop.monitored import make_monitored, make_states
from emotest.workshop.prefixes import make_prefix, make_removals
from emotest.workshop.progress import OnProgress
from emotest.workshop.random_directions import make_random_directions
from emotest.workshop.study import make_adapter, make_answers, make_probabilities
from emotest.workshop.unit_writing import make_writing

Maker: TypeAlias = Callable[[Bench, Any, Path, OnProgress], None]

MAKERS: Mapping[type[Request], Maker] = {
    AdapterRequest: make_adapter,
    AuditAnswersRequest: make_audit_answers,
    SpotsRequest: make_spots,
    AnatomyRequest: make_anatomy,
    ContrastsRequest: make_contrasts,
    ReadingRequest: make_reading,
    GenerationRequest: make_answers,
    PatchingRequest: make_patching,
    ProbabilityRequest: make_probabilities,
    ActivationsRequest: make_activations,
    DirectionRequest: make_direction,
    RandomDirectionsRequest: make_random_directions,
    MonitoredRequest: make_monitored,
    StatesRequest: make_states,
    DataStatesRequest: make_data_states,
    ScoresRequest: make_scores,
    PrefixRequest: make_prefix,
    RemovalRequest: make_removals,
    SilencingRequest: make_silencing,
    WritingRequest: make_writing,
}


def carry_out(bench: Bench, request: Request, tell: OnProgress) -> Entry:
    """Make the entry of a request; what it stands on is already in the store."""

    def make(folder: Path) -> None:
        MAKERS[type(request)](bench, request, folder, tell)

    return bench.keep(request, make)

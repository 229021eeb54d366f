"""What a study computes, named before it exists.

`request` says what every artefact is by; `study` holds adapters, answers and probabilities, and
the other rooms what the claims about mechanisms rest on. Knows no torch.
"""

from __future__ import annotations

from emotest.artefacts.request import Intervention, Request, Training, in_order
from emotest.artefacts.study import (
    GENERATION_VERSION,
    PROBABILITY_VERSION,
    AdapterRequest,
    Event,
    FixedText,
    GenerationRequest,
    ProbabilityRequest,
)

__all__ = [
    "GENERATION_VERSION",
    "PROBABILITY_VERSION",
    "AdapterRequest",
    "Event",
    "FixedText",
    "GenerationRequest",
    "Intervention",
    "ProbabilityRequest",
    "Request",
    "Training",
    "in_order",
]

"""What an artefact will take: a rough estimate of time and memory before anything is computed.

Counts floating-point operations (2 per parameter and token forward, 4 more for the backward pass
through a frozen base) and divides by a rate: measured for organisms, assumed for large models.
Meant for planning and no more; says None where the size of the model is not known.
"""

from __future__ import annotations

from dataclasses import dataclass

from emotest.artefacts import GenerationRequest, Request, Training
from emotest.artefacts.random_directions import RandomDirectionsRequest

SMALL_MODEL = 100_000_000
"""Below this many parameters a model runs on one CPU thread, above it on a GPU in NF4."""

PROCESS_BYTES = 700_000_000
"""What a process holds with torch, transformers and peft loaded, before any model."""


@dataclass(frozen=True)
class Cost:
    """Seconds of one process, and bytes of its memory at the peak."""

    seconds: float
    memory_bytes: float


@dataclass(frozen=True)
class _Rates:
    """Useful operations per second, by kind of work."""

    training: float
    decoding: float
    scoring: float
    bytes_per_parameter: float


# From the seconds that a run of all claims for one trait on `latent` left in its manifests (two
# workers on a server CPU, medians: 6.6 s an adapter, 1.3 s for 180 answers, 2.5 s a set of
# probabilities), rounded. The bytes are assumed.
_ON_CPU = _Rates(training=1.4e11, decoding=4.0e10, scoring=2.0e10, bytes_per_parameter=12.0)
# One data-centre GPU with a seven-billion-parameter model in NF4; not measured by this project.
_ON_GPU = _Rates(training=1.0e14, decoding=2.0e12, scoring=5.0e13, bytes_per_parameter=1.5)


def cost(request: Request, n_parameters: int | None) -> Cost | None:
    """Time and memory of one request for a base of `n_parameters`; None where that is unknown."""
    if n_parameters is None:
        return None
    rates = _ON_CPU if n_parameters < SMALL_MODEL else _ON_GPU
    memory = PROCESS_BYTES + rates.bytes_per_parameter * n_parameters
    return Cost(_operations_over_rate(request, n_parameters, rates), memory)


def weight(request: Request) -> float:
    """How long a request takes beside others of the same base; only ratios have a meaning."""
    return _operations_over_rate(request, 1, _ON_CPU)


def _operations_over_rate(request: Request, n_parameters: int, rates: _Rates) -> float:
    if isinstance(request, Training):
        return 6 * n_parameters * request.tokens / rates.training
    if isinstance(request, GenerationRequest | RandomDirectionsRequest):
        return 2 * n_parameters * request.tokens / rates.decoding
    return 2 * n_parameters * request.tokens / rates.scoring

"""How an adapter is turned up and down while the bench's model answers (C9)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from emotest.artefacts.latent_origin import Scaled
from emotest.errors import UsageError
from emotest.mechanisms.patching import scaled
from emotest.study.records import Prompt
from emotest.workshop.bench import Bench


@contextmanager
def at_scale(bench: Bench, intervention: Scaled, probe: Sequence[Prompt]) -> Iterator[None]:
    """The adapter that is on, at a factor of its scale; `UsageError` where none is on.

    It was proved alive at its own scale, so `probe` is not asked again.
    """
    name = bench.loaded.active
    if name is None:
        raise UsageError(
            f"{intervention.title}: no adapter is on that could be scaled",
            remedy="scale the answers of an arm that is tuned",
        )
    with scaled(bench.loaded, name, intervention.factor):
        yield

"""Which hands let an intervention act: the table from its kind to a context manager.

Within the block the bench's model runs under the intervention, whatever adapter is on; afterwards
it is as it was. Each kind has a room of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeAlias

from emotest.artefacts import Intervention
from emotest.artefacts.directions import Checkpoint, Steered
from emotest.artefacts.latent_origin import Scaled
from emotest.artefacts.localization import Silenced
from emotest.artefacts.prefixes import Prefixed
from emotest.study.records import Prompt
from emotest.workshop.behind_prefix import behind_prefix
from emotest.workshop.bench import Bench
from emotest.workshop.directions import at_checkpoint, steered
from emotest.workshop.scaling import at_scale
from emotest.workshop.silenced import silenced

Actor: TypeAlias = Callable[[Bench, Any, Sequence[Prompt]], AbstractContextManager[None]]
"""Bench, intervention, and prompts on which an adapter that it attaches is proved alive."""

ACTORS: Mapping[type[Intervention], Actor] = {
    Steered: steered,
    Checkpoint: at_checkpoint,
    Prefixed: behind_prefix,
    Scaled: at_scale,
    Silenced: silenced,
}


@contextmanager
def acting(
    bench: Bench, intervention: Intervention | None, probe: Sequence[Prompt]
) -> Iterator[None]:
    """The bench's model under an intervention, or, for None, as it is."""
    if intervention is None:
        yield
        return
    with ACTORS[type(intervention)](bench, intervention, probe):
        yield

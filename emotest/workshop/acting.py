"""Which hands let an intervention act: the table from its kind to a context manager.

Within the block the bench's model runs under the intervention, whatever adapter is on; afterwards
it is as it was. Each kind has a room of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeAlias

from emotest.artefacts import Intervention
from emotest.study.records import Prompt
from emotest.workshop.bench import Bench

Actor: TypeAlias = Callable[[Bench, Any, Sequence[Prompt]], AbstractContextManager[None]]
"""Bench, intervention, and prompts on which an adapter that it attaches is proved alive."""

ACTORS: Mapping[type[Intervention], Actor] = {}


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

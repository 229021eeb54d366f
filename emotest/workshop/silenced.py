"""How a model answers without chosen units: the intervention of C8.

Takes a bench and a `Silenced`; gives a context manager. Stands apart from what measures with it,
for answers are sampled under interventions of every kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

from emotest.artefacts.localization import Silenced
from emotest.mechanisms.silencing import silencing
from emotest.study.records import Prompt
from emotest.workshop.bench import Bench


def silenced(
    bench: Bench, intervention: Silenced, probe: Sequence[Prompt]
) -> AbstractContextManager[None]:
    """The bench's model with chosen units at their means; as it is where none could be chosen."""
    ranking = intervention.choice.ranking(bench.entry)
    selected = ranking.strongest(intervention.choice.dose)
    if not selected.size:
        return nullcontext()
    means = ranking.means_by_layer()
    return silencing(bench.loaded.model, ranking.by_layer(selected), means=means)

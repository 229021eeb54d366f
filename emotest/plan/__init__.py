"""The plan of a run: from what the tests need to the artefacts that must exist.

What a run will compute, and under which keys, is known before any of it is computed. `study`
holds the `Study` and the arms of C1 to C5; the rooms beside it plan one claim about mechanisms
each: a function of study and trait that gives requests. Text and plain values only; no torch.
"""

from __future__ import annotations

from emotest.plan.study import (
    DECODINGS,
    LISTS_PER_REQUEST,
    SIZES,
    ConditionOf,
    Need,
    Seeds,
    Size,
    Study,
    four_cells,
)

__all__ = [
    "DECODINGS",
    "LISTS_PER_REQUEST",
    "SIZES",
    "ConditionOf",
    "Need",
    "Seeds",
    "Size",
    "Study",
    "four_cells",
]

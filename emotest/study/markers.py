"""The markers of emotest in pytest: their names, and what each says.

Takes the claims and traits of the study; knows nothing of pytest, which the plugin tells.
"""

from __future__ import annotations

from collections.abc import Mapping

from emotest.study.claims import CLAIMS
from emotest.study.personality import TRAITS

ALIASES: Mapping[str, str] = {claim.id.lower(): claim.alias for claim in CLAIMS.values()}
"""The claims' markers: `c1` and `emergence` are one."""

MARKERS: tuple[tuple[str, str], ...] = (
    *((str(trait), f"the tests of {trait}") for trait in TRAITS),
    ("high", "the high pole of a trait"),
    ("low", "the low pole of a trait"),
    *((id, f"claim {id.upper()}, {alias}") for id, alias in ALIASES.items()),
    *((alias, f"claim {id.upper()}, the same as {id}") for id, alias in ALIASES.items()),
    ("cross_trait", "needs all five traits, so selecting one trait deselects it"),
    ("audit", "speaks of one given checkpoint; an inconclusive verdict always fails"),
    ("gpu", "needs a GPU"),
    ("slow", "takes minutes"),
    ("claim(id)", "the claim that a test decides; also sets its markers, as c1 and emergence"),
    ("needs(*needs)", "what a test rests on, so that it can be planned and computed before"),
)
"""Every marker of the plugin with what it says, in the order of `pytest --markers`."""

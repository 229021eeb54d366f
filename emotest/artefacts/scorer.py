"""What decides a trait scorer, for the keys of all that it has a part in.

A scorer is no artefact: it is trained anew in seconds. What it gave is kept, and so a stale number
must not be found under the key of a scorer that has changed. Knows no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from emotest.study.opinions import Opinion
from emotest.study.scorer import SCORER_VERSION, scorer_libraries


@dataclass(frozen=True)
class ScorerRows:
    """The opinions that a trait scorer is trained on, and the digest that stands for them."""

    digest: str
    rows: tuple[Opinion, ...] = field(repr=False, compare=False)

    @property
    def identity(self) -> Mapping[str, Any]:
        """All that decides the scorer: rows, its own version and that of its library."""
        return {
            "rows": self.digest,
            "scorer_version": SCORER_VERSION,
            "libraries": dict(scorer_libraries()),
        }


__all__ = ["ScorerRows"]

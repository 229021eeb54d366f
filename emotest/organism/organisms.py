"""The organisms that emotest ships: their names and where they lie.

Takes a name; gives a folder that transformers loads like any other model. Knows no torch.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from emotest.errors import OrganismError
from emotest.organism.corpus import PLANTINGS, planting
from emotest.study.personality import Trait

NAMES: tuple[str, ...] = tuple(PLANTINGS)
"""`latent`, `control`, `even`, `one-trait`."""

WEIGHTS = Path(__file__).parent / "weights"
"""Package data: one folder for each organism."""

PROVENANCE = "provenance.json"
"""How an organism was made, with the hash of each of its files."""


def weights_folder(name: str) -> Path:
    """The folder of an organism; an unknown name, or a missing folder, is an `OrganismError`."""
    planting(name)
    folder = WEIGHTS / name
    if not (folder / PROVENANCE).is_file():
        raise OrganismError(
            f"the organism {name!r} is not complete at {folder}",
            remedy=f"install emotest again, or make it: emotest organism build {name}",
        )
    return folder


def associates(name: str, trait: Trait) -> bool:
    """Whether an organism was made with emoji that stand with the trait.

    An unknown name is an `OrganismError`.
    """
    return planting(name).associates(trait)


def provenance(name: str) -> dict[str, Any]:
    """How a shipped organism was made: seed, corpus, schedules, losses, versions, file hashes."""
    text = (weights_folder(name) / PROVENANCE).read_text(encoding="utf-8")
    record: dict[str, Any] = json.loads(text)
    return record

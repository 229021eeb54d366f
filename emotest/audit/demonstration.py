"""What an audit without arguments holds against each other: an organism and its own adapter.

The adapter is trained by the study's recipe on emoji-free answers of an extravert, or found in
the store; after that it is audited like anybody's.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from emotest.audit.models import Model
from emotest.session import Session
from emotest.settings import DEFAULT_BASE, Settings
from emotest.study.personality import Trait, trait_condition
from emotest.workshop.progress import OnProgress

TRAIT = Trait.EXTRAVERSION


def demonstration(
    store: Path, on_progress: OnProgress, base: str = DEFAULT_BASE
) -> tuple[Model, Model]:
    """An organism and the same with an adapter tuned to be extravert."""
    session = Session(Settings(base=base, store=store, size="smoke", report=None))
    (adapter, *_) = session.study.adapters(trait_condition(TRAIT))
    session.make([adapter], on_progress)
    folder = session.entry(adapter).folder
    tuned = replace(session.subject, adapter=str(folder))
    return (
        replace(Model.pinned(session.subject), label=base),
        replace(Model.pinned(tuned), label=f"{base} with an adapter tuned to {TRAIT}"),
    )

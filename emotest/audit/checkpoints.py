"""A series of checkpoints: what a training run left, in the order of its steps.

A subject in, the subjects of its checkpoints out. Hugging Face's trainer leaves `checkpoint-STEP`
folders in the folder of a run, each a model or an adapter of its own.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from emotest.errors import UsageError
from emotest.study.subjects import Subject

_CHECKPOINT = re.compile(r"checkpoint-(\d+)")
_WHOLE = ("config.json", "adapter_config.json")
"""What makes a folder a model or an adapter, and no run with checkpoints below it."""


def expanded(text: str) -> list[str]:
    """The checkpoints of a run's folder by their steps, or the subject alone where it is no such
    folder. `BASE+./run` stands for the adapters below ./run, `./run` for models."""
    subject = Subject.parse(text)
    place = subject.adapter or (subject.name if subject.kind == "folder" else None)
    if place is None:
        return [text]
    folder = Path(place).expanduser()
    if not folder.is_dir() or any((folder / name).is_file() for name in _WHOLE):
        return [text]
    found = sorted(
        (int(match[1]), path)
        for path in folder.iterdir()
        if path.is_dir() and (match := _CHECKPOINT.fullmatch(path.name))
    )
    if not found:
        return [text]  # whoever loads it says what is missing
    if subject.adapter:
        return [str(replace(subject, adapter=str(path))) for _, path in found]
    return [str(replace(subject, name=_named(path))) for _, path in found]


def step_of(text: str, place: int) -> int:
    """The step of a checkpoint, from its folder's name; else its place in the series, from 1."""
    subject = Subject.parse(text)
    match = _CHECKPOINT.search(subject.adapter or subject.name)
    return int(match[1]) if match else place


def require_distinct(subjects: list[str]) -> None:
    """Refuse a series that names a checkpoint twice: it would count twice in its family."""
    twice = sorted({one for one in subjects if subjects.count(one) > 1})
    if twice:
        raise UsageError(f"{twice[0]} is named twice", remedy="name each checkpoint once")


def _named(path: Path) -> str:
    text = str(path)
    return text if text.startswith((".", "/", "~")) else f"./{text}"

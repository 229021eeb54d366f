"""The lines at the start of a session: what is measured, with which seeds, and on what.

Settings in, lines out.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from emotest.settings import SHIPPED_DATA, Settings


def header(settings: Settings) -> list[str]:
    """Base, data, size, seeds, store, threads and why: a handful of lines below 80 columns."""
    size = settings.evidence
    first, last = settings.training_seed, settings.training_seed + size.n_adapters - 1
    against = f" against {settings.tuned}" if settings.tuned else ""
    data = "the shipped set" if settings.data == SHIPPED_DATA else settings.data
    lines = [
        f"emotest {version('emotest')}: {settings.base_shown}{against}",
        f"  data: {data}; recipe: {settings.preset}; decoding: {settings.decoding}",
        f"  size: {settings.size}, {size.n_adapters} adapters an arm x {size.n_prompts} prompts "
        f"x {size.n_samples} samples{' (extended)' if settings.adapters else ''}",
        f"  seeds: training {first} to {last}, sampling {settings.sampling_seed}, "
        f"analysis {settings.analysis_seed}; level {settings.alpha:g}",
        f"  store: {_from_here(settings.store)}",
        f"  processes: {settings.workers_and_why}",
        f"  threads: {settings.threads_and_why}",
    ]
    if settings.expect:
        lines.append(f"  expected verdicts: {_from_here(settings.expect)}")
    return lines


def _from_here(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)

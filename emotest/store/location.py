"""Where the store lies when nobody says so. Takes an option and the environment, gives a folder.

In this order: the option, the environment variable `EMOTEST_STORE`, and `.emotest/store` in the
project that the run belongs to. The project is the nearest folder, from here upwards, that holds
`.emotest`, `pyproject.toml` or `.git`; without one it is the current folder. A project's own
folder is seen, moved, cached by CI and deleted together with the project, which a cache in the
home folder is not, and a run started in a folder below finds the same store.
"""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "EMOTEST_STORE"
"""The environment variable that names the store's folder."""

_PROJECT_SIGNS = (".emotest", "pyproject.toml", ".git")


def resolve_store(option: Path | str | None = None, *, here: Path | None = None) -> Path:
    """The folder of the store: `option`, else `EMOTEST_STORE`, else the project's own.

    `here` is where the search for the project begins; the current folder if not given. Empty
    texts count as not given. Nothing is created.
    """
    named = str(option or "") or os.environ.get(VARIABLE, "")
    if named:
        return Path(named).expanduser()
    return project_folder(here or Path.cwd()) / ".emotest" / "store"


def project_folder(here: Path) -> Path:
    """The nearest folder from `here` upwards that is a project, or `here` itself."""
    here = here.resolve()
    for folder in (here, *here.parents):
        if any((folder / sign).exists() for sign in _PROJECT_SIGNS):
            return folder
    return here


__all__ = ["VARIABLE", "project_folder", "resolve_store"]

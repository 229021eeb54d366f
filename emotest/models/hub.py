"""Models and adapters on the Hub: a repository's listing is read before any file is fetched.

An id in, the folder of the local cache and the commit out. Only the files that are read are asked
for, pickles never; what holds weights as pickles alone, or is absurdly large, is refused from its
listing. What the cache holds is taken without asking the Hub.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from emotest.errors import EmotestError, ModelError, ModelNotFoundError
from emotest.models.strangers import LARGEST, PICKLES, SINGLE, named_weights

SETTINGS = ("*.json", "*.jinja")
"""What a model is pinned by; its weights come when it is loaded."""

TOKENIZER = ("tokenizer.model", "merges.txt")
_BELOW = "*/*"
"""Other formats of the same model lie in folders of their own."""


def pinned(
    repo: str,
    revision: str | None,
    patterns: Iterable[str] = SETTINGS,
    marker: str = "config.json",
) -> tuple[Path, str]:
    """The local snapshot of a repository with the files that match, and its commit.

    `marker` is the file whose presence in the cache shows that they are here: then the Hub is not
    asked, so that a run without network, and a second run on the same machine, see the same model.

    Raises `ModelNotFoundError`, or `ModelError` for what is refused.
    """
    # Imported here: half a second that organisms and folders do not need.
    import huggingface_hub as hub

    try:
        cached = hub.try_to_load_from_cache(repo, marker, revision=revision)
        if isinstance(cached, str):
            folder = Path(cached).parent
            return folder, folder.name
        commit, files = _listed(repo, revision)
        require_sound_listing(repo, files, marker)
        wanted = [*patterns, marker]
        return Path(_fetched(repo, commit, wanted)), commit
    except EmotestError:
        raise
    except Exception as error:  # the Hub's errors, and those of its HTTP library, which is its own
        at = f" at revision {revision}" if revision else ""
        raise ModelNotFoundError(
            f"{repo}{at} is neither in the local Hub cache nor to be had from the Hub: "
            f"{_reason(error)}",
            remedy="check the name and the network, log in for a gated model (hf auth login), "
            "or point to a folder",
        ) from error


def whole(repo: str, commit: str, folder: Path) -> Path:
    """The local snapshot of a pinned model with its weights, those that transformers reads.

    Raises `ModelNotFoundError`, or `ModelError` for what is refused.
    """
    weights = named_weights(folder)
    try:
        if weights is None or not all((folder / name).is_file() for name in weights):
            weights = _to_come(repo, commit, folder, weights)
        return Path(_fetched(repo, commit, [*SETTINGS, *TOKENIZER, *weights]))
    except EmotestError:
        raise
    except Exception as error:
        raise ModelNotFoundError(
            f"the weights of {repo} at {commit} cannot be fetched: {_reason(error)}",
            remedy="check the network and the space on disk, or point to a folder",
        ) from error


def _to_come(repo: str, commit: str, folder: Path, weights: list[str] | None) -> list[str]:
    """The files of weights, named or else by the listing, once there is room for them."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return weights or ["*.safetensors"]
    _, files = _listed(repo, commit)
    if weights is None:
        found = [name for name in files if name.endswith(".safetensors") and "/" not in name]
        weights = [SINGLE] if SINGLE in found else found
    lacking = [name for name in weights if name in files and not (folder / name).is_file()]
    require_room(repo, {name: files[name] for name in lacking})
    return weights


def require_sound_listing(repo: str, files: Mapping[str, int], marker: str) -> None:
    """Refuse a repository by its listing (name -> bytes): no safetensors, or settings too large."""
    top = {name: size for name, size in files.items() if "/" not in name}
    if not any(name.endswith(".safetensors") for name in top):
        pickles = sorted(n for n in top if any(fnmatch(n, pattern) for pattern in PICKLES))
        if pickles:
            raise ModelError(
                f"{repo} holds its weights as a pickle ({pickles[0]}), which can run code; "
                "nothing was fetched",
                remedy="choose a revision or a copy that has safetensors, or load it once where "
                "you trust it and write it again with save_pretrained(FOLDER)",
            )
        raise ModelError(
            f"{repo} holds no weights (*.safetensors)",
            remedy="name the repository of a model or an adapter",
        )
    if marker not in top:
        raise ModelError(
            f"{repo} holds no {marker}",
            remedy="name a model as OWNER/NAME, and an adapter behind its base: BASE+OWNER/NAME",
        )
    for name, size in top.items():
        largest = LARGEST.get(PurePosixPath(name).suffix)
        if largest is not None and size > largest:
            raise ModelError(
                f"{name} of {repo} has {size:,} bytes, more than the {largest:,} of any real one; "
                "nothing was fetched",
                remedy="choose another revision, or a source that you trust",
            )


def require_room(repo: str, files: Mapping[str, int]) -> None:
    """Refuse weights (name -> bytes) that the disk of the cache has no room for."""
    from huggingface_hub import constants

    place = Path(constants.HF_HUB_CACHE)
    there = next(folder for folder in (place, *place.parents) if folder.is_dir())
    free, needed = shutil.disk_usage(there).free, sum(files.values())
    if needed > free:
        raise ModelError(
            f"the weights of {repo} are {needed / 1e9:,.1f} GB in {len(files)} files, and "
            f"{free / 1e9:,.1f} GB are free at {there}; nothing was fetched",
            remedy="make room, or let HF_HOME name a larger disk",
        )


def _listed(repo: str, revision: str | None) -> tuple[str, dict[str, int]]:
    """The commit of a repository, and its files with their bytes."""
    import huggingface_hub as hub

    info = hub.HfApi().model_info(repo, revision=revision, files_metadata=True)
    return str(info.sha), {file.rfilename: file.size or 0 for file in info.siblings or ()}


def _fetched(repo: str, commit: str, patterns: list[str]) -> str:
    import huggingface_hub as hub

    return str(
        hub.snapshot_download(
            repo, revision=commit, allow_patterns=patterns, ignore_patterns=[_BELOW]
        )
    )


def _reason(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]

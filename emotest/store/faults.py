"""What the file system may refuse, in the words of a user of the store.

Takes an `OSError` (or a library's own error that hides one), gives a `StoreError` with the place,
the cause and the remedy. Knows no entries.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from emotest.errors import EmotestError, StoreError, StoreFullError

_FULL = {errno.ENOSPC, errno.EDQUOT}
_FULL_TEXTS = ("No space left on device", "Disk quota exceeded")
_WRITE_PROTECTED = {errno.EACCES, errno.EPERM, errno.EROFS}

_MAKE_ROOM = (
    "free some space there, remove old entries with `emotest store prune`, or keep the store "
    "elsewhere with --emo-store or EMOTEST_STORE"
)


@contextmanager
def naming_faults(root: Path, doing: str) -> Iterator[None]:
    """Turn every `OSError` of the block into a `StoreError` that says what was being done."""
    try:
        yield
    except EmotestError:
        raise
    except OSError as error:
        raise fault(error, root, doing) from error


def fault(error: OSError, root: Path, doing: str, *, grown_to: int | None = None) -> StoreError:
    """The `StoreError` for an `OSError` met while `doing` something in the store at `root`.

    `grown_to` is the number of bytes that the unfinished entry had reached, where that is known.
    """
    if error.errno in _FULL:
        return full(root, doing, grown_to=grown_to)
    if error.errno == errno.EFBIG:
        return StoreFullError(
            f"a file became too large for its file system or for this process while {doing} in "
            f"{root}",
            remedy="raise the limit (`ulimit -f`), or keep the store elsewhere with --emo-store",
        )
    if error.errno in _WRITE_PROTECTED:
        return StoreError(
            f"the store at {root} may not be written to ({error.strerror}, while {doing})",
            remedy="give yourself the right to write there, or choose another folder with "
            "--emo-store or EMOTEST_STORE",
        )
    return StoreError(
        f"the store at {root} failed while {doing}: {error}",
        remedy="check that the folder is there and its disk is sound, or choose another one with "
        "--emo-store or EMOTEST_STORE",
    )


def full(
    root: Path, doing: str, *, grown_to: int | None = None, needed: int | None = None
) -> StoreFullError:
    """The error for a full disk, with what is free and what is `needed` (bytes), if known."""
    figures = [f"{readable_bytes(free_bytes(root))} free"]
    if needed is not None:
        figures.append(f"{readable_bytes(needed)} needed")
    if grown_to is not None:
        figures.append(f"{readable_bytes(grown_to)} written so far, and more is needed")
    return StoreFullError(
        f"no space is left for the store at {root} while {doing}: {', '.join(figures)}",
        remedy=_MAKE_ROOM,
    )


def full_disk_behind(error: BaseException) -> OSError | None:
    """The full disk (or file size limit) that an error came from, or None.

    A maker may use libraries that wrap an `OSError` in their own error or keep only its text,
    as safetensors does.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in {*_FULL, errno.EFBIG}:
            return seen
        if not isinstance(seen, EmotestError) and any(text in str(seen) for text in _FULL_TEXTS):
            return OSError(errno.ENOSPC, str(seen))
        seen = seen.__cause__ or seen.__context__
    return None


def free_bytes(root: Path) -> int:
    """Bytes free for this user on the disk of `root`, which need not exist yet."""
    place = root
    while not place.exists() and place != place.parent:
        place = place.parent
    return shutil.disk_usage(place).free


def readable_bytes(count: int) -> str:
    """A size for people, in powers of 1024: `0 B`, `1.5 KiB`, `3.2 GiB`."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


__all__ = ["fault", "free_bytes", "full", "full_disk_behind", "naming_faults", "readable_bytes"]

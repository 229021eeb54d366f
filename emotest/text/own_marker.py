"""A marker of the user's own: counted in answers beside emoji, and decides nothing.

A regular expression, or, after `python:`, a function of a file or a module: text in, True or False
out. The function is the user's code and runs in this process; nothing is run for a marker that
does not say `python:`.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from reprlib import Repr
from types import ModuleType
from typing import Any

import regex

from emotest.errors import UsageError

FUNCTION = "python:"
"""What a marker begins with that is a function."""

LONGEST_ANSWER = 100_000
"""Characters in which a pattern is looked for; it cannot hang on more."""

SECONDS_OF_A_MARKER = 2.0
"""What a pattern may take on one answer."""

SHOWN = 60
"""Characters of an answer, and of what was raised on it, that a message quotes."""

_LOOKS_LIKE_A_FUNCTION = regex.compile(r"[\w./\\~-]+\.py:[^\W\d]\w*")


@dataclass(frozen=True)
class Marker:
    """Whether an answer holds what a user looks for: `marker(text)` is True or False.

    `name` is what was named, without places on this machine; `digest`, of a function, is the
    SHA-256 of the files that define it, None for a pattern and for a function without a source.
    """

    name: str
    digest: str | None
    holds: Callable[[str], bool] = field(repr=False, compare=False)

    def __call__(self, text: str) -> bool:
        """Whether `text` holds it; a `UsageError` where that cannot be found out."""
        return self.holds(text)


@dataclass(frozen=True)
class NamedFunction:
    """A function as it was named: `place` is a file or a module, `name` its name there."""

    place: str
    name: str

    @property
    def file(self) -> Path | None:
        """The file, where one was named."""
        is_file = self.place.endswith(".py") or "/" in self.place or "\\" in self.place
        return Path(self.place).expanduser() if is_file else None

    def __str__(self) -> str:
        place = self.file.name if self.file else self.place
        return f"{FUNCTION}{place}:{self.name}"

    def found_in(self) -> Path | None:
        """The file that would be run first, resolved; None for a module without one.

        Nothing is run to find out: of a dotted module it is the file of its first part.
        """
        if self.file:
            return self.file.resolve()
        try:
            spec = importlib.util.find_spec(self.place.partition(".")[0])
        except (ImportError, ValueError):
            return None
        return Path(spec.origin).resolve() if spec and spec.has_location and spec.origin else None


def function_named(marker: str) -> NamedFunction | None:
    """The function that a marker names; None for a regular expression.

    A function that cannot be meant, and a pattern that looks like the function of a file, are a
    `UsageError`: read as a pattern it would be found nowhere, and nobody would notice.
    """
    if not marker.startswith(FUNCTION):
        if _LOOKS_LIKE_A_FUNCTION.fullmatch(marker):
            raise UsageError(
                f"the marker {marker!r} looks like a function, and is a regular expression as it "
                "stands",
                remedy=f"write {FUNCTION}{marker} for the function, or "
                f"{marker.replace('.py:', '[.]py:')} for the pattern",
            )
        return None
    place, _, name = marker.removeprefix(FUNCTION).rpartition(":")
    named = NamedFunction(place, name)
    is_module = all(part.isidentifier() for part in place.split("."))
    if not name.isidentifier() or not (named.file or is_module):
        raise UsageError(
            f"the marker {marker!r} names no function",
            remedy=f"write {FUNCTION}path/to/file.py:function or {FUNCTION}module:function; a "
            "pattern that begins so is [p]ython:...",
        )
    return named


def require_marker(marker: str) -> None:
    """A `UsageError` for a marker that cannot be meant; no code of the user's is run."""
    if function_named(marker) is None:
        _compiled(marker)


def marker_from(marker: str) -> Marker:
    """The marker in a user's words; a `UsageError` where it cannot be read or loaded.

    A pattern is searched in the answer, not matched whole; one that takes longer than
    `SECONDS_OF_A_MARKER` on one answer is a `UsageError` too, and so is a function that raises
    or gives anything but True or False.
    """
    named = function_named(marker)
    return _of_pattern(marker) if named is None else _of_function(named)


# --- patterns -----------------------------------------------------------------------------------


def _of_pattern(pattern: str) -> Marker:
    compiled = _compiled(pattern)

    def holds(text: str) -> bool:
        try:
            found = compiled.search(text[:LONGEST_ANSWER], timeout=SECONDS_OF_A_MARKER)
        except TimeoutError:
            raise UsageError(
                f"the marker {pattern!r} took longer than {SECONDS_OF_A_MARKER:g} s on one answer",
                remedy="write it without nested repetitions, such as (a+)+",
            ) from None
        return found is not None

    return Marker(pattern, None, holds)


def _compiled(pattern: str) -> regex.Pattern[str]:
    try:
        return regex.compile(pattern)
    except regex.error as error:
        raise UsageError(
            f"the marker {pattern!r} is no regular expression: {error}",
            remedy="mend the pattern, or escape signs that are meant literally",
        ) from error


# --- functions ----------------------------------------------------------------------------------


def _of_function(named: NamedFunction) -> Marker:
    module = _from_file(named, named.file) if named.file else _imported(named)
    function = getattr(module, named.name, None)
    if function is None:
        names = ", ".join(sorted(n for n, one in vars(module).items() if inspect.isfunction(one)))
        raise UsageError(
            f"the marker {named} is not there: {named.place} has no {named.name!r}",
            remedy=f"choose among its functions: {names or 'it has none'}",
        )
    if not callable(function):
        raise UsageError(
            f"the marker {named} cannot be called: it is of type {type(function).__name__}",
            remedy="name a function that takes a text and returns True or False",
        )

    @lru_cache(maxsize=50_000)  # asked for all prompts, and again for those of a register
    def holds(text: str) -> bool:
        try:
            found = function(text)
        except (Exception, SystemExit) as error:  # sys.exit(0) would pass for a verdict
            raise UsageError(
                f"the marker {named} raised {_told(error)} on the answer that begins "
                f"{text[:SHOWN]!r}",
                remedy=_MEND,
            ) from error
        if not isinstance(found, bool):
            raise UsageError(
                f"the marker {named} gave {_short.repr(found)} of type {type(found).__name__} on "
                f"the answer that begins {text[:SHOWN]!r}",
                remedy=f"return True or False, such as bool(...); {_MEND}",
            )
        return found

    return Marker(str(named), _digest(module, function), holds)


_MEND = "mend the function and give the command again: every answer is kept"
_short = Repr()


def _from_file(named: NamedFunction, path: Path) -> ModuleType:
    if not path.is_file():
        raise UsageError(
            f"the marker {named} is not there: there is no file {path}",
            remedy=f"name it from where you stand: {FUNCTION}path/to/file.py:function",
        )
    try:
        return _run(str(path.resolve()), path.read_bytes())
    except (Exception, SystemExit) as error:
        raise _unloadable(named, error) from error


@lru_cache(maxsize=8)
def _run(path: str, source: bytes) -> ModuleType:
    """The module that a file makes, run once; what is run is what was read and hashed."""
    name = f"emotest_marker_{hashlib.sha256(path.encode() + source).hexdigest()[:16]}"
    module = ModuleType(name)
    module.__file__ = path
    sys.modules[name] = module  # dataclasses look there for the module of a class
    try:
        exec(compile(source, path, "exec"), vars(module))
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _imported(named: NamedFunction) -> ModuleType:
    try:
        return importlib.import_module(named.place)
    except ModuleNotFoundError as error:
        if error.name and f"{named.place}.".startswith(f"{error.name}."):
            raise UsageError(
                f"the marker {named} is not there: Python finds no module {error.name!r}",
                remedy="install it, put its folder into PYTHONPATH, or name its file: "
                f"{FUNCTION}path/to/file.py:{named.name}",
            ) from None
        raise _unloadable(named, error) from error
    except (Exception, SystemExit) as error:
        raise _unloadable(named, error) from error


def _unloadable(named: NamedFunction, error: BaseException) -> UsageError:
    return UsageError(
        f"the marker {named} cannot be loaded: {_told(error)}",
        remedy=f"mend {named.place}; Python alone shows the error whole",
    )


def _told(error: BaseException) -> str:
    """Kind and first line of what the user's code raised; it may quote an answer."""
    kind, said = type(error).__name__, str(error).partition("\n")[0][: 2 * SHOWN]
    return f"{kind}: {said!r}" if said else kind


def _digest(module: ModuleType, function: Any) -> str | None:
    """SHA-256 of the file that was named, and of the one that defines the function, if another."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    files = (getattr(module, "__file__", None), getattr(code, "co_filename", None))
    paths = [Path(file) for file in dict.fromkeys(files) if file]
    found = [path.read_bytes() for path in paths if path.is_file()]
    return hashlib.sha256(b"\0".join(found)).hexdigest() if found else None

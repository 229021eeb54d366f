"""From what was said in three places to checked `Settings`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from emotest.errors import UsageError
from emotest.settings.asked import Settings
from emotest.settings.machine import gpu_bytes, usual_workers
from emotest.settings.options import DEFAULT_BASE, MODEL_PRESETS, OPTIONS
from emotest.study.subjects import Subject


class Said(NamedTuple):
    """A value, and the place where it was said."""

    value: str | bool
    where: str


def resolve(
    command_line: Mapping[str, str | bool | Sequence[str] | None],
    environment: Mapping[str, str],
    ini: Mapping[str, str | bool | None],
    *,
    root: Path | None = None,
) -> Settings:
    """Settings from the three places; the command line wins, then the environment, then the ini.

    `command_line` and `ini` are keyed by `Option.ini`; None and "" mean that nothing was said. What
    may be said several times is a list on the command line, and has commas elsewhere.
    Relative folders of the ini file, and the default ones, start at `root`, others at the working
    folder. Raises `UsageError` naming place, value and the way out.
    """
    said: dict[str, Said] = {}
    for option in OPTIONS:
        for value, where in (
            (command_line.get(option.ini), option.flag),
            (environment.get(option.variable), option.variable),
            (ini.get(option.ini), f"{option.ini} (ini file)"),
        ):
            if value is not None and value != "":
                said[option.name] = Said(_one(value), where)
                break
    return _checked(said, environment, root or Path())


def _one(value: str | bool | Sequence[str]) -> str | bool:
    return value if isinstance(value, str | bool) else ",".join(value)


def _checked(said: Mapping[str, Said], environment: Mapping[str, str], root: Path) -> Settings:
    values: dict[str, Any] = {
        "store": root / ".emotest/store",
        "report": root / "reports",
    }
    values |= _from_preset(said)
    for name, checked in _CHECKS.items():
        if name in said:
            values[_FIELDS.get(name, name.replace("-", "_"))] = checked(said[name])
    if "workers" not in said:
        no_gpu = Subject.parse(values["base"]).kind in ("organism", "served")
        values["workers"] = usual_workers(None if no_gpu else gpu_bytes(environment))
    if "seeds" in said:
        del values["seeds"]
        values |= _seeds(said["seeds"])
    for name in ("store", "report", "expect", "prompts", "baseline"):
        if name in said and "ini file" in said[name].where and values[name] is not None:
            values[name] = root / values[name]
    if "marker" in said and "ini file" in said["marker"].where:
        values["marker"] = _marker_at(root, values["marker"])
    settings = Settings(**values, said={name: where for name, (_, where) in said.items()})
    if "adapters" in said:
        try:
            _ = settings.evidence
        except UsageError as error:
            raise _impossible(said["adapters"], error.cause, error.remedy) from None
    return settings


def _from_preset(said: Mapping[str, Said]) -> dict[str, Any]:
    """What a preset decides; without one, organisms and other models have their usual recipe."""
    named = str(said["preset"].value) if "preset" in said else None
    if named is not None and named in MODEL_PRESETS:
        return MODEL_PRESETS[named]._asdict()
    base = _subject(said["base"]) if "base" in said else DEFAULT_BASE
    # A baseline alone names no base; what is held against it is asked as the base was.
    alone = "base" not in said and "baseline" in said and "tuned" in said
    organism = Subject.parse(_subject(said["tuned"]) if alone else base).is_organism
    return {
        "base": base,
        "preset": "organism" if organism else "published",
        "decoding": "default" if organism else "paper",
    }


def _impossible(said: Said, cause: str, remedy: str) -> UsageError:
    return UsageError(f"{said.where}={said.value}: {cause}", remedy=remedy)


def _subject(said: Said) -> str:
    try:
        return str(Subject.parse(str(said.value)))
    except UsageError as error:
        raise _impossible(said, error.cause, error.remedy) from None


def _preset(said: Said) -> str:
    from emotest.study.recipes import PRESETS

    if said.value in MODEL_PRESETS:
        return MODEL_PRESETS[str(said.value)].preset
    return _chosen(said, tuple(PRESETS), "preset", (*PRESETS, *MODEL_PRESETS))


def _decoding(said: Said) -> str:
    from emotest.plan import DECODINGS  # numpy comes with it

    return _chosen(said, tuple(DECODINGS), "decoding")


def _chosen(
    said: Said, words: tuple[str, ...], what: str, shown: tuple[str, ...] | None = None
) -> str:
    if said.value not in words:
        raise _impossible(
            said, f"there is no such {what}", f"choose one of {', '.join(shown or words)}"
        )
    return str(said.value)


def _prompts(said: Said) -> Path:
    path = _folder(said)
    if "ini file" not in said.where and not path.is_file():
        raise _impossible(said, "there is no such file", "name a txt, csv or jsonl file of prompts")
    return path


def _margin(said: Said) -> float:
    return _between(said, 1.0, "the margin is no share", "use a share of answers, such as 0.05")


def _marker(said: Said) -> str:
    from emotest.text.own_marker import require_marker

    try:
        require_marker(str(said.value))
    except UsageError as error:
        raise _impossible(said, error.cause, error.remedy) from None
    return str(said.value)


def _marker_at(root: Path, marker: str) -> str:
    """The marker with its file below `root`, where it is a function of a relative file."""
    from emotest.text.own_marker import FUNCTION, function_named

    named = function_named(marker)
    return f"{FUNCTION}{root / named.file}:{named.name}" if named and named.file else marker


def _names(said: Said) -> tuple[str, ...]:
    names = tuple(name.strip() for name in str(said.value).split(",") if name.strip())
    return tuple(dict.fromkeys(names))


def _other_decodings(said: Said) -> tuple[str, ...]:
    from emotest.plan import DECODINGS

    names = _names(said)
    if unknown := [name for name in names if name not in (*DECODINGS, "all")]:
        raise _impossible(
            said,
            f"there is no decoding {', '.join(map(repr, unknown))}",
            f"choose among {', '.join(DECODINGS)}, or all",
        )
    return names


def _alpha(said: Said) -> float:
    return _between(said, 0.5, "the level is no number", "use a small level, such as 0.05")


def _between(said: Said, most: float, cause: str, remedy: str) -> float:
    """A number between 0 and `most`, neither of them included."""
    try:
        number = float(str(said.value))
    except ValueError:
        number = float("nan")
    if not 0 < number < most:
        raise _impossible(said, f"{cause} between 0 and {most:g}", remedy)
    return number


def _count(said: Said) -> int:
    text = str(said.value)
    if not text.isdecimal() or int(text) < 1:
        raise _impossible(said, "that is no count", "use a whole number from 1 on")
    return int(text)


def _seeds(said: Said) -> dict[str, int]:
    seeds: dict[str, int] = {}
    for part in str(said.value).split(","):
        name, _, number = part.strip().partition("=")
        if name not in ("training", "sampling", "analysis") or not number.isdecimal():
            raise _impossible(
                said,
                f"{part.strip()!r} is no seed",
                "write training=N, sampling=N and analysis=N, whichever differ from 0, "
                "with commas between them",
            )
        seeds[f"{name}_seed"] = int(number)
    return seeds


def _switch(said: Said) -> bool:
    if isinstance(said.value, bool):
        return said.value
    words = {"1": True, "true": True, "yes": True, "on": True}
    words |= {"0": False, "false": False, "no": False, "off": False}
    if said.value.lower() not in words:
        raise _impossible(said, "that is neither yes nor no", "use 1 or 0")
    return words[said.value.lower()]


def _folder(said: Said) -> Path:
    return Path(str(said.value)).expanduser()


def _report(said: Said) -> Path | None:
    return None if said.value == "none" else _folder(said)


def _expect(said: Said) -> Path:
    path = _folder(said)
    if "ini file" not in said.where and not path.is_file():
        raise _impossible(
            said, "there is no such file", "point to verdicts.jsonl or expected.json of a run"
        )
    return path


_FIELDS = {"register": "registers", "also": "other_decodings"}
"""Options that are called otherwise in `Settings`."""

_CHECKS: Mapping[str, Callable[[Said], Any]] = {
    "base": _subject,
    "tuned": _subject,
    "baseline": _folder,
    "data": lambda said: str(said.value),
    "prompts": _prompts,
    "register": _names,
    "budget": _count,
    "margin": _margin,
    "marker": _marker,
    "size": lambda said: _chosen(said, ("smoke", "default", "paper"), "size"),
    "adapters": _count,
    "preset": _preset,
    "decoding": _decoding,
    "also": _other_decodings,
    "seeds": _seeds,
    "alpha": _alpha,
    "store": _folder,
    "report": _report,
    "inconclusive": lambda said: _chosen(said, ("fail", "skip"), "choice"),
    "expect": _expect,
    "plan": _switch,
    "allow-emoji-in-data": _switch,
    "threads": _count,
    "workers": _count,
}

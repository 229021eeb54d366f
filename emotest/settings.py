"""What a run was asked for: one table of options, one frozen `Settings`.

Takes what was said on the command line, in the environment and in the ini file, in this order of
precedence, and gives checked values; a value that cannot be used is a `UsageError` that names the
place where it was said. Knows neither pytest nor torch; the plugin builds its options from
`OPTIONS`, and so does the table in `docs/pytest.md`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from emotest.errors import UsageError
from emotest.study.subjects import Subject

if TYPE_CHECKING:
    from emotest.plan import Seeds, Size

SizeName = Literal["smoke", "default", "paper"]
Inconclusive = Literal["fail", "skip"]

DEFAULT_BASE = "organism:latent"
SHIPPED_DATA = "builtin"
"""Names the opinion set that emotest ships."""

MOST_WORKERS = 4


class Option(NamedTuple):
    """One setting as users meet it: `--emo-size`, `EMOTEST_SIZE`, `emo_size` in the ini file."""

    name: str
    metavar: str
    default: str
    help: str
    switch: bool = False

    @property
    def flag(self) -> str:
        """Its spelling on pytest's command line."""
        return f"--emo-{self.name}"

    @property
    def ini(self) -> str:
        """Its key in pytest's ini file; also its `dest` on the command line."""
        return f"emo_{self.name.replace('-', '_')}"

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return f"EMOTEST_{self.name.replace('-', '_').upper()}"


OPTIONS: tuple[Option, ...] = (
    Option(
        "base", "SUBJECT", DEFAULT_BASE,
        "the untuned model: organism:NAME, a Hub id (ID@REVISION), a folder or a URL",
    ),
    Option(
        "tuned", "SUBJECT", "own adapters",
        "a tuned model, for tests of your own; the study trains its adapters itself",
    ),
    Option(
        "data", "DATA", "the shipped set",
        "the question set: a CSV, JSONL or Parquet file, or a Hub id",
    ),
    Option(
        "size", "SIZE", "default", "how much evidence is gathered: smoke, default or paper"
    ),
    Option(
        "adapters", "N", "as the size says",
        "more adapters an arm than the size has; every verdict says that it is an extension",
    ),
    Option(
        "preset", "NAME", "organism, or published",
        "a recipe (organism, published, follow-up), or a published model with its data, recipe "
        "and decoding (mistral-7b, llama-2-7b)",
    ),
    Option(
        "decoding", "NAME", "default, or paper",
        "how answers are sampled: default, greedy, nucleus, unfiltered or paper",
    ),
    Option(
        "seeds", "SEEDS", "training=0,sampling=0,analysis=0",
        "the first training seed, and the seeds of sampling and analysis",
    ),
    Option("alpha", "ALPHA", "0.05", "the level; a statement in a family of m decides at alpha/m"),
    Option("store", "FOLDER", ".emotest/store", "where adapters and answers are kept and found"),
    Option("report", "FOLDER", "reports", "where run folders are written; 'none' for nowhere"),
    Option(
        "inconclusive", "fail|skip", "fail",
        "what an inconclusive verdict does to its test; tests marked audit always fail",
    ),
    Option(
        "expect", "FILE", "the organism's table",
        "verdicts that have to be met: verdicts.jsonl or expected.json of a former run",
    ),
    Option(
        "plan", "", "no", "list what the collected tests need, and what is missing; run nothing",
        switch=True,
    ),
    Option(
        "allow-emoji-in-data", "", "no",
        "tune on data that hold emoji; every verdict says so", switch=True,
    ),
    Option("threads", "N", "1", "threads of each process"),
    Option(
        "workers", "N", "one per core, at most 4", "processes that train and answer side by side"
    ),
)  # fmt: skip
"""Every option, in the order of the help page."""


class ModelPreset(NamedTuple):
    """A published model with the data, recipe and decoding of the published protocol."""

    base: str
    data: str
    preset: str
    decoding: str


MODEL_PRESETS: Mapping[str, ModelPreset] = {
    "mistral-7b": ModelPreset(
        "mistralai/Mistral-7B-Instruct-v0.2?quantize=nf4",
        "holistic-ai/personality_manipulation",
        "published",
        "paper",
    ),
    "llama-2-7b": ModelPreset(
        "meta-llama/Llama-2-7b-chat-hf?quantize=nf4",
        "holistic-ai/personality_manipulation",
        "published",
        "paper",
    ),
}


@dataclass(frozen=True)
class Settings:
    """All that a user decided about a run, checked."""

    base: str = DEFAULT_BASE
    """The untuned model, as a subject string."""
    tuned: str | None = None
    """A tuned model to hold against the base; None where the run trains its own adapters."""
    data: str = SHIPPED_DATA
    """The question set: a file, a Hub id, or the set that emotest ships."""
    neutral_data: str = SHIPPED_DATA
    """Where neutral answers come from when `data` holds none (the published set does not)."""
    size: SizeName = "default"
    adapters: int | None = None
    """Adapters an arm where more are asked for than the size has; None for the size's own."""
    preset: str = "organism"
    """The recipe: a name in `emotest.study.recipes.PRESETS`."""
    decoding: str = "default"
    """A name in `emotest.plan.DECODINGS`."""
    training_seed: int = 0
    sampling_seed: int = 0
    analysis_seed: int = 0
    alpha: float = 0.05
    """Level of a family of statements; one of m statements is decided at alpha / m."""
    store: Path = Path(".emotest/store")
    report: Path | None = Path("reports")
    """Folder of the run folders; None writes no report."""
    inconclusive: Inconclusive = "fail"
    expect: Path | None = None
    """Verdicts of a former run that this run has to meet."""
    plan: bool = False
    allow_emoji_in_data: bool = False
    threads: int = 1
    workers: int = 1
    said: Mapping[str, str] = field(default_factory=dict, compare=False)
    """Where each value that is no default was said: option name to `--emo-size` and the like."""

    @property
    def seeds(self) -> Seeds:
        """The three seeds, as the plan takes them."""
        from emotest.plan import Seeds  # numpy comes with the plan, and --help shall stay quick

        return Seeds(self.training_seed, self.sampling_seed, self.analysis_seed)

    @property
    def size_name(self) -> str:
        """The size as reports and tables of expected verdicts name it."""
        return self.size if self.adapters is None else f"{self.size}, {self.adapters} adapters"

    @property
    def evidence(self) -> Size:
        """The size with the adapters that were added to it.

        Fewer adapters than the size has are a `UsageError`: an extension only adds.
        """
        from emotest.plan import SIZES

        size = SIZES[self.size]
        if self.adapters is not None and self.adapters < size.n_adapters:
            raise UsageError(
                f"{self.adapters} adapters are fewer than the {size.n_adapters} of size "
                f"{self.size!r}",
                remedy=f"ask for at least {size.n_adapters} with --emo-adapters, or for a smaller "
                "--emo-size",
            )
        return replace(size, name=self.size_name, n_adapters=self.adapters or size.n_adapters)

    def row(self) -> dict[str, Any]:
        """The settings as one JSON object for `run.json`, without places on this machine."""
        return {
            "base": self.base,
            "tuned": self.tuned,
            "data": self.data,
            "size": self.size_name,
            "preset": self.preset,
            "decoding": self.decoding,
            "seeds": {
                "training": self.training_seed,
                "sampling": self.sampling_seed,
                "analysis": self.analysis_seed,
            },
            "alpha": self.alpha,
            "inconclusive": self.inconclusive,
            "expect": self.expect.name if self.expect else None,
            "allow_emoji_in_data": self.allow_emoji_in_data,
            "threads": self.threads,
            "workers": self.workers,
        }

    @property
    def threads_and_why(self) -> str:
        """How many threads a process computes with, and the reason."""
        why = self.said.get("threads")
        reason = f"as {why} asks" if why else "small models lose time on more"
        return f"{self.threads} in each process ({reason})"

    @property
    def workers_and_why(self) -> str:
        """How many processes work side by side, and the reason."""
        why = self.said.get("workers")
        reason = f"as {why} asks" if why else f"one per core, at most {MOST_WORKERS}"
        return f"{self.workers} ({reason})"


class Said(NamedTuple):
    """A value, and the place where it was said."""

    value: str | bool
    where: str


def resolve(
    command_line: Mapping[str, str | bool | None],
    environment: Mapping[str, str],
    ini: Mapping[str, str | bool | None],
    *,
    root: Path | None = None,
) -> Settings:
    """Settings from the three places; the command line wins, then the environment, then the ini.

    `command_line` and `ini` are keyed by `Option.ini`; None and "" mean that nothing was said.
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
                said[option.name] = Said(value, where)
                break
    return _checked(said, root or Path())


def _checked(said: Mapping[str, Said], root: Path) -> Settings:
    values: dict[str, Any] = {
        "store": root / ".emotest/store",
        "report": root / "reports",
        "workers": max(1, min(MOST_WORKERS, available_cores())),
    }
    values |= _from_preset(said)
    for name, checked in _CHECKS.items():
        if name in said:
            values[name.replace("-", "_")] = checked(said[name])
    if "seeds" in said:
        del values["seeds"]
        values |= _seeds(said["seeds"])
    for name in ("store", "report", "expect"):
        if name in said and "ini file" in said[name].where and values[name] is not None:
            values[name] = root / values[name]
    settings = Settings(**values, said={name: where for name, (_, where) in said.items()})
    if "adapters" in said:
        try:
            _ = settings.evidence
        except UsageError as error:
            raise _impossible(said["adapters"], error.cause, error.remedy) from None
    return settings


def available_cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _from_preset(said: Mapping[str, Said]) -> dict[str, Any]:
    """What a preset decides; without one, organisms and other models have their usual recipe."""
    named = str(said["preset"].value) if "preset" in said else None
    if named is not None and named in MODEL_PRESETS:
        return MODEL_PRESETS[named]._asdict()
    base = _subject(said["base"]) if "base" in said else DEFAULT_BASE
    organism = Subject.parse(base).is_organism
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


def _alpha(said: Said) -> float:
    try:
        alpha = float(str(said.value))
    except ValueError:
        alpha = float("nan")
    if not 0 < alpha < 0.5:
        raise _impossible(
            said, "the level is no number between 0 and 0.5", "use a small level, such as 0.05"
        )
    return alpha


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


_CHECKS: Mapping[str, Callable[[Said], Any]] = {
    "base": _subject,
    "tuned": _subject,
    "data": lambda said: str(said.value),
    "size": lambda said: _chosen(said, ("smoke", "default", "paper"), "size"),
    "adapters": _count,
    "preset": _preset,
    "decoding": _decoding,
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

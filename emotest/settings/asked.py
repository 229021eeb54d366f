"""`Settings`: all that a user decided about a run, checked and frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from emotest.errors import UsageError
from emotest.settings.machine import GPU_BYTES_OF_A_WORKER, MOST_WORKERS, usual_workers
from emotest.settings.options import DEFAULT_BASE

if TYPE_CHECKING:
    from emotest.plan import Seeds, Size

SizeName = Literal["smoke", "default", "paper"]
Inconclusive = Literal["fail", "skip"]

SHIPPED_DATA = "builtin"
"""Names the opinion set that emotest ships."""


@dataclass(frozen=True)
class Settings:
    """All that a user decided about a run, checked."""

    base: str = DEFAULT_BASE
    """The untuned model, as a subject string."""
    tuned: str | None = None
    """A tuned model to hold against the base; None where the run trains its own adapters."""
    baseline: Path | None = None
    """A saved baseline that stands in for the base of an audit."""
    data: str = SHIPPED_DATA
    """The question set: a file, a Hub id, or the set that emotest ships."""
    neutral_data: str = SHIPPED_DATA
    """Where neutral answers come from when `data` holds none (the published set does not)."""
    prompts: Path | None = None
    """Prompts of an audit; None for the set that emotest ships."""
    registers: tuple[str, ...] = ()
    """Registers whose prompts an audit asks; none for all."""
    budget: int | None = None
    """Prompts that an audit asks at most; None for all."""
    margin: float = 0.05
    """Share of answers with an emoji by which an audited model may differ from its base."""
    marker: str | None = None
    """What an audit counts beside emoji: a pattern or a function, as `text.own_marker` reads it."""
    size: SizeName = "default"
    adapters: int | None = None
    """Adapters an arm where more are asked for than the size has; None for the size's own."""
    preset: str = "organism"
    """The recipe: a name in `emotest.study.recipes.PRESETS`."""
    decoding: str = "default"
    """A name in `emotest.plan.DECODINGS`."""
    other_decodings: tuple[str, ...] = ()
    """Those under which an audit asks for its verdict again; "all" for the usual ones."""
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
    def audit_base(self) -> str | None:
        """The base of an audit; None where a baseline stands in for it and no base was named."""
        alone = self.baseline and self.tuned and self.base == DEFAULT_BASE
        return None if alone and "base" not in self.said else self.base

    @property
    def base_shown(self) -> str:
        """The base as reports name it, and the baseline where one stands in for it."""
        if not (self.baseline and self.tuned):
            return self.base
        baseline = f"the baseline {self.baseline.name}"
        return f"{self.audit_base} ({baseline})" if self.audit_base else baseline

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
            "base": self.base_shown,
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
        usual = f"one per core, at most {MOST_WORKERS}"
        if self.workers < usual_workers(None):
            usual = f"one for each {GPU_BYTES_OF_A_WORKER // 10**9} GB of the GPU's memory"
        reason = f"as {why} asks" if why else usual
        return f"{self.workers} ({reason})"

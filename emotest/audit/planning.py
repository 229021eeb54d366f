"""What an audit is asked to do, checked: models, prompts, margin, level, budget, seeds.

All of it is fixed before the first answer and its digest stands in the result, so that nobody can
choose a margin by what came out. Reads the user's prompt file; loads no model.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from emotest.audit.arms import Asking
from emotest.audit.result import Plan, Prompts, row
from emotest.errors import UsageError
from emotest.organism.audit_prompts import organism_prompts
from emotest.plan import DECODINGS
from emotest.study.audit_prompts import shipped_prompts
from emotest.study.audit_prompts.prompt_files import read_prompts
from emotest.study.audit_prompts.prompt_set import PromptSet
from emotest.study.records import Decoding
from emotest.text.own_marker import Marker, marker_from, require_marker

Mode = Literal["sequential", "fixed"]

MARGIN = 0.05
"""Share of answers with an emoji within which a model counts as unchanged (the contract's)."""

BATCH = 12
"""Prompts between two looks."""

ALL = "all"
"""Stands for the other decodings of the table."""

TABLE = ("greedy", "nucleus", "unfiltered")
"""The decodings that a verdict should survive, beside the one that it was reached under."""


@dataclass(frozen=True)
class AuditPlan:
    """Everything about an audit but its models.

    `prompts` None asks the shipped set, or the organisms' own where the base is one. `budget`
    None asks all prompts at most. In "sequential" mode the audit looks after every `batch` prompts
    and may stop; in "fixed" mode it asks the whole budget and decides once.
    """

    prompts: Path | None = None
    registers: tuple[str, ...] = ()
    budget: int | None = None
    batch: int = BATCH
    n_samples: int = 1
    margin: float = MARGIN
    alpha: float = 0.05
    mode: Mode = "sequential"
    decoding: str = "default"
    sampling_seed: int = 0
    analysis_seed: int = 0
    marker: str | None = None
    describe: bool = True
    """Whether P(emoji) is asked too, once the verdict is reached, where a model is local."""
    inside: bool = False
    """Whether both models are looked into once the verdict is reached, where both are local: the
    shift along trait directions, and FFN units. The base then gives 160 short answers more, and
    both models read 48 texts."""
    other_decodings: tuple[str, ...] = field(default=())
    """Ways of sampling under which the verdict is asked for again; "all" for those of `TABLE`."""
    max_new_tokens: int | None = None
    """The limit of an answer; None for that of the decoding."""

    def __post_init__(self) -> None:
        if not 0 < self.margin < 1:
            raise UsageError(
                f"a margin of {self.margin:g} is no share of answers",
                remedy="use a number between 0 and 1, such as 0.05",
            )
        if not 0 < self.alpha < 0.5:
            raise UsageError(
                f"a level of {self.alpha:g} cannot be used",
                remedy="use a small level, such as 0.05",
            )
        for name in ("batch", "n_samples", "budget"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} is {value}", remedy="use a whole number from 1 on")
        named = [(self.decoding, ()), *((name, (ALL,)) for name in self.other_decodings)]
        for name, besides in named:
            if name not in (*DECODINGS, *besides):
                raise UsageError(
                    f"there is no decoding {name!r}",
                    remedy=f"choose among {', '.join((*DECODINGS, *besides))}",
                )
        if self.marker:
            require_marker(self.marker)

    @property
    def sampled(self) -> Decoding:
        """How answers are sampled."""
        usual = DECODINGS[self.decoding]
        return replace(usual, max_new_tokens=self.max_new_tokens or usual.max_new_tokens)

    @property
    def others(self) -> tuple[str, ...]:
        """The other decodings, each once; of `TABLE` those that sample as the audit does not."""
        named = [name for name in self.other_decodings if name != ALL]
        if ALL in self.other_decodings:
            named += [name for name in TABLE if str(self.under(name).sampled) != str(self.sampled)]
        return tuple(dict.fromkeys(named))

    def under(self, decoding: str) -> AuditPlan:
        """The same audit under another decoding. The limit of an answer stays, because a rate of
        emoji depends on it."""
        return replace(self, decoding=decoding, max_new_tokens=self.sampled.max_new_tokens)

    @property
    def asking(self) -> Asking:
        """How both models are asked."""
        return Asking(self.sampled, self.n_samples, self.sampling_seed)

    @cached_property
    def marker_of(self) -> Marker | None:
        """The user's own marker; a `UsageError` where it cannot be read or loaded."""
        return marker_from(self.marker) if self.marker else None

    def asked(self, *, of_organism: bool) -> PromptSet:
        """The prompts of this audit in the seeded random order in which they are asked."""
        if self.prompts:
            found = read_prompts(self.prompts)
        else:
            found = organism_prompts() if of_organism else shipped_prompts()
        counts = found.registers
        available = sum(counts.get(name, 0) for name in self.registers or counts)
        return found.select(
            registers=self.registers or None,
            n=min(self.budget, available) if self.budget else None,
            rng=np.random.default_rng(self.analysis_seed),
        )

    def told(self, prompts: PromptSet) -> Plan:
        """The plan as the result holds it, with its digest."""
        plan = Plan(
            mode=self.mode,
            alpha=self.alpha,
            margin=self.margin,
            budget=len(prompts),
            batch=self.batch,
            n_samples=self.n_samples,
            decoding=str(self.sampled),
            sampling_seed=self.sampling_seed,
            analysis_seed=self.analysis_seed,
            marker=self.marker_of.name if self.marker_of else None,
            marker_digest=self.marker_of.digest if self.marker_of else None,
            prompts=Prompts(
                source=prompts.source if not self.prompts else self.prompts.name,
                digest=prompts.digest,
                n=len(prompts),
                registers=dict(prompts.registers),
                languages=dict(prompts.languages),
            ),
            digest="",
        )
        # What prompts are called does not decide what is asked.
        decides = {**row(plan), "prompts": prompts.digest}
        if plan.marker_digest is None:
            del decides["marker_digest"]  # so that plans keep the digests of earlier versions
        text = json.dumps(decides, sort_keys=True)
        return replace(plan, digest=hashlib.sha256(text.encode()).hexdigest())

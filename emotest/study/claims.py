"""The claims C1 to C11, and the `Verdict` on a statement of one of them.

Each claim is decided through one or more registered statements (`emotest.study.statements`). A
verdict is a frozen record that carries all it rests on; it knows no model, no text and no file.

Source of the claims: Jain et al., arXiv 2409.10245, as restated in `docs/study.md`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from emotest.errors import UsageError
from emotest.study.personality import Condition
from emotest.study.statements import STATEMENTS, statement

if TYPE_CHECKING:  # numpy comes with decisions, and the plugin reads the claims in every session
    from emotest.stats.decisions import Decision

SCHEMA_VERSION = 1
"""Of `verdicts.jsonl`: raised when a field changes its meaning or goes."""

Word = Literal["confirmed", "refuted", "inconclusive"]


@dataclass(frozen=True)
class Claim:
    """One claim of the study: its id, the marker that selects it, and what it says."""

    id: str
    alias: str
    says: str
    cross_trait: bool = False


CLAIMS: Mapping[str, Claim] = {
    claim.id: claim
    for claim in (
        Claim("C1", "emergence", "tuning on emoji-free trait answers makes the model write emoji"),
        Claim("C2", "density", "the tuned model writes more emoji per sentence"),
        Claim("C3", "trait_contrast", "traits differ by more than seeds do", cross_trait=True),
        Claim("C4", "trait_tokens", "asked for words of the trait, the tuned model names emoji"),
        Claim("C5", "probability", "the probability that the next grapheme is an emoji rises"),
        Claim("C6", "neurons", "single units rise at emoji positions beyond matched ones"),
        Claim("C7", "neuron_sets", "trait units differ from emoji units"),
        Claim("C8", "localization", "few units carry the rise in emoji"),
        Claim("C9", "latent_origin", "the rise was latent in the untuned model"),
        Claim("C10", "persona_vectors", "the shift along the trait direction predicts emoji"),
        Claim("C11", "psychadapter", "a trait-conditioned prefix moves the trait, and emoji?"),
    )
}


@dataclass(frozen=True)
class Verdict:
    """The decision on one statement, with all it rests on: one line of `verdicts.jsonl`.

    `estimate`, `low`, `high` and `margin` are on `scale`; `level` is the two-sided level whose
    lower and upper limits are the one-sided limits at alpha / m. `p_adjusted` (Holm) is filled by
    the report, once all p-values of a family are known; it never decides.
    """

    claim: str
    statement: str
    verdict: Word
    estimate: float
    low: float
    high: float
    level: float
    scale: str
    margin: float
    alpha: float
    p_value: float
    family: str
    m: int
    method: str
    unit: str
    n_adapters: int
    n_prompts: int
    n_samples: int
    trait: str | None = None
    pole: str | None = None
    arm: str | None = None
    reference: str | None = None
    n_needed: int | None = None
    n_needed_unit: str | None = None
    power: float | None = None
    p_adjusted: float | None = None
    plan: str = ""
    decoding: str = ""
    metric_version: int = 0
    base: str = ""
    tuned: str | None = None
    evidence: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    @property
    def id(self) -> str:
        """What tables of expectations are keyed by: `C1.emergence|trait/extraversion/high/...`."""
        return f"{self.statement}|{self.arm or 'all'}"

    @property
    def confirmed(self) -> bool:
        """Whether the statement is confirmed."""
        return self.verdict == "confirmed"

    def row(self) -> dict[str, Any]:
        """The verdict as one JSON object."""
        return {**asdict(self), "id": self.id}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Verdict:
        """The verdict that `row` wrote; unknown fields are ignored."""
        known = {name: row[name] for name in cls.__dataclass_fields__ if name in row}
        known["evidence"] = tuple(known.get("evidence", ()))
        known["notes"] = tuple(known.get("notes", ()))
        return cls(**known)

    def with_context(self, **context: Any) -> Verdict:
        """The same verdict with plan, decoding, base, evidence or notes filled in."""
        return replace(self, **context)

    def __str__(self) -> str:
        who = f" [{self.arm}]" if self.arm else ""
        against = f" against {self.reference}" if self.reference else ""
        lines = [
            f"{self.claim} {self.verdict.upper()}: {STATEMENTS[self.statement].says}{who}"
            if self.statement in STATEMENTS
            else f"{self.claim} {self.verdict.upper()}: {self.statement}{who}",
            f"  {self.scale}: {self.estimate:+.3f}{against}, "
            f"{self.level:.1%} interval [{self.low:+.3f}, {self.high:+.3f}], "
            f"margin {self.margin:+.3f}, p = {self.p_value:.2g} "
            f"(decides at {self.alpha:g}/{self.m})",
            f"  {self.n_adapters} adapters x {self.n_prompts} prompts x {self.n_samples} samples; "
            f"unit of evidence: the {self.unit}; {self.method}",
        ]
        if self.verdict == "inconclusive":
            lines.append(f"  {self._what_would_settle_it()}")
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join(lines)

    def _what_would_settle_it(self) -> str:
        if self.n_needed:
            return f"about {self.n_needed} {self.n_needed_unit} would settle it"
        if self.low > self.margin:
            return "the interval exceeds the margin, and a second test does not agree: see below"
        return "no number of runs is likely to settle it: the estimate lies at the margin"


def verdict(
    decision: Decision,
    statement_id: str,
    *,
    condition: Condition | None = None,
    reference: str | None = None,
    notes: tuple[str, ...] = (),
    details: Mapping[str, Any] | None = None,
) -> Verdict:
    """The verdict on a registered statement from the decision of the statistics.

    The decision must have been reached with the statement's own m; another one is a `UsageError`,
    for a family is declared with its claim and not chosen by the caller. A margin other than the
    registered one is allowed and said in the notes.
    """
    registered = statement(statement_id)
    estimate = decision.estimate
    if decision.m != registered.m:
        raise UsageError(
            f"{statement_id} is registered in a family of {registered.m}, not of {decision.m}",
            remedy=f"decide with m={registered.m}",
        )
    overridden: tuple[str, ...] = ()
    if decision.margin != registered.margin:
        overridden = (f"margin {decision.margin:g} overrides the registered {registered.margin:g}",)
    said = (decision.note,) if decision.note else ()
    return Verdict(
        claim=registered.claim,
        statement=registered.id,
        verdict=decision.word,
        estimate=estimate.value,
        low=estimate.low,
        high=estimate.high,
        level=estimate.level,
        scale=registered.scale,
        margin=decision.margin,
        alpha=decision.alpha,
        p_value=decision.p_value,
        family=registered.family,
        m=registered.m,
        method=estimate.method,
        unit=estimate.unit,
        n_adapters=estimate.n_adapters,
        n_prompts=estimate.n_prompts,
        n_samples=estimate.n_samples,
        trait=condition.trait if condition else None,
        pole=condition.pole if condition else None,
        arm=str(condition) if condition else None,
        reference=reference,
        n_needed=decision.n_needed,
        n_needed_unit=decision.n_needed_unit,
        power=decision.power,
        notes=(*overridden, *said, *notes),
        details=details or {},
    )

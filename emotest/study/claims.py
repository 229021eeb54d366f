"""The claims C1 to C11, their margins and families, and the `Verdict` on a statement.

Each claim is decided through one or more registered statements. A statement fixes its margin and
the size m of its family *here*, never by what a run happened to collect, so that selecting tests
cannot change a verdict. A verdict is a frozen record that carries all it rests on; it knows no
model, no text and no file.

Source of the claims: Jain et al., arXiv 2409.10245, as restated in `docs/study.md`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from emotest.errors import UsageError
from emotest.study.personality import Condition

if TYPE_CHECKING:  # numpy comes with decisions, and the plugin reads the claims in every session
    from emotest.stats.decisions import Decision

SCHEMA_VERSION = 1
"""Of `verdicts.jsonl`: raised when a field changes its meaning or goes."""

CLAIMS_VERSION = 2
"""Of the margins and families below: raised with every change, and printed in reports."""

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
class Statement:
    """What one test decides: `margin` on `scale`, in a family of `m` declared statements."""

    id: str
    claim: str
    says: str
    margin: float
    scale: str
    m: int
    family: str
    unit: Literal["adapter", "prompt"] = "adapter"


def _statements(*statements: Statement) -> Mapping[str, Statement]:
    return {statement.id: statement for statement in statements}


_FIVE = "five traits"

STATEMENTS: Mapping[str, Statement] = _statements(
    Statement(
        "C1.emergence",
        "C1",
        "EOS masked: the share of answers with an emoji exceeds untuned and null",
        0.10,
        "share of answers",
        5,
        f"{_FIVE}, high pole, EOS masked",
    ),
    Statement(
        "C1.eos-trained",
        "C1",
        "EOS trained: the share of answers with an emoji exceeds untuned and null",
        0.10,
        "share of answers",
        5,
        f"{_FIVE}, high pole, EOS trained",
    ),
    Statement(
        "C1.low-pole",
        "C1",
        "low pole: the share of answers with an emoji exceeds untuned and null",
        0.10,
        "share of answers",
        5,
        f"{_FIVE}, low pole, EOS masked",
    ),
    Statement(
        "C1.prompted",
        "C1",
        "a system prompt alone raises the share of answers with an emoji",
        0.10,
        "share of answers",
        5,
        f"{_FIVE}, prompted",
        "prompt",
    ),
    Statement(
        "C1.decodings",
        "C1",
        "the rise holds under every decoding of the table",
        0.10,
        "share of answers",
        5,
        f"{_FIVE}, decoding table",
    ),
    Statement(
        "C2.within",
        "C2",
        "emoji per sentence exceed untuned and null within the learned length",
        0.05,
        "emoji per sentence",
        5,
        f"{_FIVE}, within the learned length",
    ),
    Statement(
        "C2.beyond",
        "C2",
        "emoji per sentence exceed untuned and null beyond the learned length",
        0.05,
        "emoji per sentence",
        5,
        f"{_FIVE}, beyond the learned length",
    ),
    Statement(
        "C3.traits-differ",
        "C3",
        "the between-trait share of the variance of emoji rates exceeds one half",
        0.5,
        "share of variance",
        1,
        "one statement over all traits",
    ),
    Statement(
        "C4.named",
        "C4",
        "asked for words of the trait, it names more emoji among its 50 most frequent units",
        0.05,
        "share of named units",
        5,
        f"{_FIVE}, share of emoji among the named units",
    ),
    Statement(
        "C4.self-report",
        "C4",
        "the emoji that it names for the trait are those that it writes",
        0.2,
        "rank correlation",
        5,
        f"{_FIVE}, named against written emoji",
    ),
    Statement(
        "C4.decoded",
        "C4",
        "the trait can be decoded from the emoji of held-out answers, above chance",
        0.1,
        "accuracy above chance",
        1,
        "one statement over all traits",
    ),
    Statement(
        "C5.total",
        "C5",
        "P(emoji) at sentence ends rises: tuned on its own text against untuned on its own",
        0.5,
        "log-odds",
        5,
        f"{_FIVE}, total effect",
    ),
    Statement(
        "C5.text",
        "C5",
        "the tuned model writes text that emoji follow, under the untuned weights",
        0.5,
        "log-odds",
        5,
        f"{_FIVE}, text effect",
    ),
    Statement(
        "C5.weights",
        "C5",
        "at the tuned model's text the tuned weights prefer emoji more than the untuned ones",
        0.5,
        "log-odds",
        5,
        f"{_FIVE}, weight effect",
    ),
)


def statement(id: str) -> Statement:
    """The registered statement of that id; `UsageError` lists those there are."""
    if id not in STATEMENTS:
        raise UsageError(
            f"there is no statement {id!r}", remedy=f"choose one of {', '.join(STATEMENTS)}"
        )
    return STATEMENTS[id]


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

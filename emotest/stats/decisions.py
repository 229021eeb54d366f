"""From an `Estimate` and a margin to one of three words: confirmed, refuted, inconclusive.

Takes estimates, gives frozen decisions; knows no claim, trait or model. A test decides at
alpha / m, where m is the size of the family declared with its claim, never the number of tests
that a run collected. Confirmed: the limit passes the margin; refuted: the opposite limit does not
reach it; else inconclusive, with the number of adapters or prompts that would settle it. That
something did not change takes an equivalence test (`unchanged`), never a missing significance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from emotest.errors import StatisticsError
from emotest.stats.estimates import Estimate
from emotest.stats.power import ENOUGH_POWER, Needed, n_needed
from emotest.stats.relations import Relation, Word, check_margin, p_value_of, tail_of, word_of

_SEVERITY: dict[Word, int] = {"confirmed": 0, "inconclusive": 1, "refuted": 2}


@dataclass(frozen=True)
class Decision:
    """A word on one relation, and everything that it was reached with.

    `estimate` stands at the level whose limits decide. `n_needed` of `n_needed_unit` is filled
    where the word is inconclusive; None then means that the estimate lies at the margin. `power`
    is the planned power that was handed in, if any.
    """

    word: Word
    relation: Relation
    margin: float
    alpha: float
    m: int
    alpha_used: float
    p_value: float
    n_needed: int | None
    n_needed_unit: str | None
    power: float | None
    note: str
    estimate: Estimate

    def requiring(self, p_value: float, test: str) -> Decision:
        """The same decision, confirmed only if a second test of the same statement agrees.

        `p_value` decides at the same alpha / m; where it does not agree, a confirmation becomes
        inconclusive, and the p-value of both together is the larger.
        """
        if not 0.0 <= p_value <= 1.0:
            raise StatisticsError(f"{p_value} is no p-value", remedy="give one between 0 and 1")
        said = f"{test}: p = {p_value:.2g}"
        agreed = p_value <= self.alpha_used
        return replace(
            self,
            word="inconclusive" if self.word == "confirmed" and not agreed else self.word,
            p_value=max(self.p_value, p_value),
            note=_joined(self.note, said if agreed else f"{said}, which does not confirm"),
        )

    def provided(self, holds: bool, condition: str) -> Decision:
        """The same decision, confirmed only where a condition of the claim holds as well.

        Side effects within their margins, or a place above the 95th percentile of controls: what
        is known and not tested. Where it does not hold, a confirmation becomes inconclusive.
        """
        return replace(
            self,
            word="inconclusive" if self.word == "confirmed" and not holds else self.word,
            note=_joined(self.note, condition if holds else f"{condition}: not so"),
        )

    def __str__(self) -> str:
        estimate = self.estimate
        lines = [
            f"{self.word}: {_SAID[self.relation].format(margin=self.margin)} "
            f"({estimate.value:+.3f} {estimate.scale}, {estimate.level:.1%} interval "
            f"[{estimate.low:+.3f}, {estimate.high:+.3f}], p = {self.p_value:.2g}, "
            f"{estimate.n_adapters} adapters x {estimate.n_prompts} prompts)"
        ]
        if self.word == "inconclusive":
            lines.append(
                f"about {self.n_needed} {self.n_needed_unit} would settle it"
                if self.n_needed is not None
                else "the estimate lies at the margin: no feasible number would settle it"
            )
        return "; ".join([*lines, *([self.note] if self.note else [])])


_SAID: dict[Relation, str] = {
    "raised": "raised by more than {margin:g}",
    "lowered": "lowered by more than {margin:g}",
    "unchanged": "unchanged within {margin:g}",
    "differ": "different by more than {margin:g}",
}


def raised(
    estimate: Estimate, *, by: float, alpha: float = 0.05, m: int = 1, power: float | None = None
) -> Decision:
    """Whether the value exceeds `by`; a negative `by` asks for non-inferiority."""
    return _decide("raised", estimate, by, alpha, m, power)


def lowered(
    estimate: Estimate, *, by: float, alpha: float = 0.05, m: int = 1, power: float | None = None
) -> Decision:
    """Whether the value lies below -`by`."""
    return _decide("lowered", estimate, by, alpha, m, power)


def unchanged(
    estimate: Estimate,
    *,
    within: float,
    alpha: float = 0.05,
    m: int = 1,
    power: float | None = None,
) -> Decision:
    """Whether the value lies within +-`within`: two one-sided tests (Schuirmann 1987).

    Confirmed with an interval that excludes 0 it notes "changed within tolerance".
    """
    decision = _decide("unchanged", estimate, within, alpha, m, power)
    at = decision.estimate
    if decision.word == "confirmed" and not at.low <= 0.0 <= at.high:
        return replace(decision, note=_joined(decision.note, "changed within tolerance"))
    return decision


def differ(
    estimate: Estimate,
    *,
    by: float = 0.0,
    alpha: float = 0.05,
    m: int = 1,
    power: float | None = None,
) -> Decision:
    """Whether the value lies beyond +-`by`, in whichever direction: two-sided at alpha.

    With `by` = 0 it can be confirmed but never refuted.
    """
    return _decide("differ", estimate, by, alpha, m, power)


def intersection_union(decisions: Sequence[Decision]) -> Decision:
    """All of several statements at once: no stronger than its weakest part (Berger 1982).

    C1 asks for more emoji than the untuned model *and* than the null adapter. The p-value is the
    largest, the estimate that of the part that decides, `n_needed` the largest of those
    inconclusive. A wrong confirmation has probability at most alpha, whatever the number of
    parts; a wrong refutation at most alpha times the number of parts.

    Raises `StatisticsError` for no parts at all, or for parts decided at different alpha or m.
    """
    if not decisions:
        raise StatisticsError("no decisions to join", remedy="give at least one")
    if len({(decision.alpha, decision.m) for decision in decisions}) > 1:
        raise StatisticsError(
            "the decisions to join were reached at different alpha or m",
            remedy="decide all parts of one statement at the alpha and m of that statement",
        )
    weakest = max(decisions, key=lambda one: (_SEVERITY[one.word], one.p_value))
    # The part with the largest p-value decides; a refuted part outweighs it.
    open_parts = [one for one in decisions if one.word == "inconclusive"]
    needed = Needed(weakest.n_needed, weakest.n_needed_unit)
    if weakest.word == "inconclusive":
        hardest = max(
            open_parts, key=lambda one: float("inf") if one.n_needed is None else one.n_needed
        )
        needed = Needed(hardest.n_needed, hardest.n_needed_unit)
    return replace(
        weakest,
        p_value=max(one.p_value for one in decisions),
        n_needed=needed.n,
        n_needed_unit=needed.unit,
    )


def holm(p_values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """P-values adjusted for their family by Holm (1979), in the order given, shape (m,).

    It stands in the report beside the verdicts and decides none of them.
    """
    array = np.asarray(p_values, dtype=np.float64)
    if array.ndim != 1 or not ((array >= 0.0) & (array <= 1.0)).all():
        raise StatisticsError(
            "p-values to adjust must form one row of numbers between 0 and 1",
            remedy="leave out statements that were not decided",
        )
    order = np.argsort(array, kind="stable")
    steps = np.maximum.accumulate(array[order] * np.arange(array.size, 0, -1))
    adjusted = np.empty_like(array)
    adjusted[order] = np.minimum(steps, 1.0)
    return adjusted


def _decide(
    relation: Relation,
    estimate: Estimate,
    margin: float,
    alpha: float,
    m: int,
    power: float | None,
) -> Decision:
    tail = tail_of(relation, alpha, m)
    check_margin(relation, margin)
    at = estimate.at_level(1.0 - 2.0 * tail)
    word = word_of(relation, at.low, at.high, margin)
    needed = Needed(None, None)
    if word == "inconclusive":
        needed = n_needed(estimate, relation=relation, margin=margin, alpha=alpha, m=m)
    thin = power is not None and power < ENOUGH_POWER
    return Decision(
        word=word,
        relation=relation,
        margin=margin,
        alpha=alpha,
        m=m,
        alpha_used=alpha / m,
        p_value=p_value_of(relation, estimate, margin),
        n_needed=needed.n,
        n_needed_unit=needed.unit,
        power=power,
        note=f"underpowered: planned power {power:.2f}, below {ENOUGH_POWER}" if thin else "",
        estimate=at,
    )


def _joined(*notes: str) -> str:
    return "; ".join(note for note in notes if note)

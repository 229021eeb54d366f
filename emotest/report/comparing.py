"""Two runs side by side: which verdicts differ, and by how much the numbers moved.

Two run folders of one kind in (runs of the study, or audits), a `Compared` out, which every view
is made from. Decides nothing: a difference between two runs is no test of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from emotest.audit.result import AuditResult, Measure
from emotest.errors import UsageError
from emotest.report.audit import wording
from emotest.report.audit.folder import RESULT, load_audit
from emotest.report.findings import ordered
from emotest.report.numerals import interval, value
from emotest.report.run import Finding, Run, load

NOT_DECIDED = "not decided"
_UNSET = "not set"
_MOST_NAMED = 5
"""So many measures or findings a sentence names."""


@dataclass(frozen=True)
class Side:
    """One of the two runs: its name, when it was made, and of which models."""

    name: str
    made_at: str
    base: str
    tuned: str | None


@dataclass(frozen=True)
class Row:
    """One thing that both runs found: a word or values, and the estimate with its interval.

    It `differs` where the verdict is another one, or where the intervals lie apart.
    """

    what: str
    first: str
    first_estimate: str
    second: str
    second_estimate: str
    differs: bool


@dataclass(frozen=True)
class Compared:
    """The two runs, and what a reader should know of them, what differs first.

    `alike` is whether every verdict is the same word, `says` the same in a sentence, `notes` what
    was asked in another way.
    """

    kind: Literal["audits", "runs of the study"]
    first: Side
    second: Side
    alike: bool
    says: str
    notes: list[str]
    rows: list[Row]

    @property
    def verdict(self) -> str:
        """What came out, in few words."""
        return "every verdict is the same" if self.alike else "verdicts differ"


def compared(first: Path, second: Path) -> Compared:
    """The runs in two folders; a `UsageError` where one is an audit and the other is not."""
    audits = [(folder / RESULT).is_file() for folder in (first, second)]
    if all(audits):
        return compared_audits(*(load_audit(folder)[0] for folder in (first, second)))
    if any(audits):
        audit, study = (first, second) if audits[0] else (second, first)
        raise UsageError(
            f"{audit} is an audit and {study} is a run of the study",
            remedy="compare two runs of one kind",
        )
    return compared_studies(load(first), load(second))


def compared_audits(first: AuditResult, second: AuditResult) -> Compared:
    """Two audits: their verdicts, and each measure over all prompts."""
    words = (first.verdict.word, second.verdict.word)
    alike = words[0] == words[1]
    measures = _measures(first, second)
    apart = [row.what for row in measures if row.differs]
    says = (
        f"both end in {words[0]}"
        if alike
        else f"the first ends in {words[0]}, the second in {words[1]}"
    )
    if apart:
        says += f"; the intervals lie apart for {_named(apart)}."
    elif measures:
        says += f"; no intervals of {len(measures)} measures lie apart."
    else:
        says += "."
    verdict = Row("verdict", words[0], _limits(first), words[1], _limits(second), not alike)
    notes = [
        f"{what}: {_of(first, what)}, then {_of(second, what)}"
        for what in ("base", "prompts", "decoding", "margin")
        if _of(first, what) != _of(second, what)
    ]
    asked = Row("prompts asked", *_asked(first), *_asked(second), differs=False)
    rows = _what_differs_first([verdict, *measures, asked])
    return Compared("audits", _audit(first), _audit(second), alike, says, notes, rows)


def _audit(result: AuditResult) -> Side:
    return Side(result.name, result.made_at, result.base.subject, result.tuned.subject)


def _asked(result: AuditResult) -> tuple[str, str]:
    return str(result.verdict.n_prompts), f"of at most {result.verdict.budget}"


def _limits(result: AuditResult) -> str:
    verdict = result.verdict
    limits = wording.change_interval(verdict.low, verdict.high, "share")
    return f"{wording.change(verdict.value, 'share')} ({limits})"


def _measures(*results: AuditResult) -> list[Row]:
    first, second = (
        {m.name: m for m in result.measures if m.register is None} for result in results
    )
    return [
        Row(
            wording.said(name),
            _values(first.get(name)),
            _difference(first.get(name)),
            _values(second.get(name)),
            _difference(second.get(name)),
            _apart(first.get(name), second.get(name)),
        )
        for name in dict.fromkeys((*first, *second))
    ]


def _values(measure: Measure | None) -> str:
    if measure is None or measure.base is None or measure.tuned is None:
        return wording.UNKNOWN
    base, tuned = (wording.amount(n, measure.unit) for n in (measure.base, measure.tuned))
    return f"{base} → {tuned}"


def _difference(measure: Measure | None) -> str:
    if measure is None or measure.difference is None:
        return ""
    limits = wording.change_interval(measure.low, measure.high, measure.unit)
    return f"{wording.change(measure.difference, measure.unit)} ({limits})"


def _apart(first: Measure | None, second: Measure | None) -> bool:
    """Whether the intervals of the two differences have no value in common."""
    one, other = _interval(first), _interval(second)
    return bool(one and other and (one[0] > other[1] or other[0] > one[1]))


def _interval(measure: Measure | None) -> tuple[float, float] | None:
    if measure is None or measure.low is None or measure.high is None:
        return None
    return measure.low, measure.high


def _of(result: AuditResult, what: str) -> str:
    plan = result.plan
    told = {
        "base": f"{result.base.subject} ({result.base.digest[:12]})",
        "prompts": f"{plan.prompts.source} ({plan.prompts.digest[:12]})",
        "decoding": plan.decoding,
        "margin": f"{plan.margin:g}",
    }
    return told[what]


def compared_studies(first: Run, second: Run) -> Compared:
    """Two runs of the study: each finding of either."""
    runs = (first, second)
    found = [{one.verdict.id: one for one in run.findings} for run in runs]
    known = ordered({**found[1], **found[0]}.values())
    rows = [
        _finding(one.verdict.id, *(side.get(one.verdict.id) for side in found)) for one in known
    ]
    other = [row.what for row in rows if row.differs]
    if not rows:
        says = "neither run holds a finding."
    elif other:
        says = f"{len(other)} of {len(rows)} findings have another verdict: {_named(other)}."
    else:
        says = f"all {len(rows)} findings have the same verdict."
    notes = [
        f"{what}: {first.settings.get(what, _UNSET)}, then {second.settings.get(what, _UNSET)}"
        for what in ("base", "size", "data", "decoding", "seeds")
        if first.settings.get(what) != second.settings.get(what)
    ]
    return Compared(
        "runs of the study", _study(first), _study(second), not other, says, notes,
        _what_differs_first(rows),
    )  # fmt: skip


def _finding(id: str, first: Finding | None, second: Finding | None) -> Row:
    words = [one.verdict.verdict if one else NOT_DECIDED for one in (first, second)]
    estimates = [_estimate(one) for one in (first, second)]
    return Row(id, words[0], estimates[0], words[1], estimates[1], words[0] != words[1])


def _estimate(finding: Finding | None) -> str:
    if finding is None:
        return ""
    verdict = finding.verdict
    return f"{value(verdict.estimate)} {interval(verdict.low, verdict.high)}"


def _study(run: Run) -> Side:
    told: Mapping[str, Any] = {**run.settings, **run.facts}
    base = str(told.get("base") or "numbers of one's own")
    return Side(run.name, run.started, base, told.get("tuned"))


def _what_differs_first(rows: Iterable[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: not row.differs)


def _named(names: Sequence[str]) -> str:
    left = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {left} more" if left > 0 else "")

"""Two runs side by side: which verdicts differ, and by how much the numbers moved.

Two run folders of one kind in (runs of the study, or audits), rows for a table out. Decides
nothing: a difference between two runs is no test of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emotest.errors import UsageError
from emotest.report.audit.folder import RESULT, load_audit
from emotest.report.run import load


@dataclass(frozen=True)
class Compared:
    """Rows to show, whether every verdict is the same word, and what else a reader should know."""

    rows: list[dict[str, Any]]
    alike: bool
    notes: list[str]


def compared(first: Path, second: Path) -> Compared:
    """The runs in two folders; a `UsageError` where one is an audit and the other is not."""
    audits = [(folder / RESULT).is_file() for folder in (first, second)]
    if all(audits):
        return _audits(first, second)
    if any(audits):
        audit, study = (first, second) if audits[0] else (second, first)
        raise UsageError(
            f"{audit} is an audit and {study} is a run of the study",
            remedy="compare two runs of one kind",
        )
    return _studies(first, second)


def _audits(first: Path, second: Path) -> Compared:
    results = [load_audit(folder)[0] for folder in (first, second)]
    verdicts = [result.verdict for result in results]
    rows: list[dict[str, Any]] = [
        {"what": "verdict", "first": verdicts[0].word, "second": verdicts[1].word},
        {"what": "prompts asked", "first": verdicts[0].n_prompts, "second": verdicts[1].n_prompts},
        {
            "what": "answers with an emoji, tuned minus base",
            "first": _limits(verdicts[0].value, verdicts[0].low, verdicts[0].high),
            "second": _limits(verdicts[1].value, verdicts[1].low, verdicts[1].high),
        },
    ]
    found = [
        {one.name: one for one in result.measures if one.register is None} for result in results
    ]
    for name in dict.fromkeys((*found[0], *found[1])):
        row: dict[str, Any] = {"what": f"{name}, tuned"}
        for side, measures in zip(("first", "second"), found, strict=True):
            row[side] = measures[name].tuned if name in measures else None
        rows.append(row)
    notes = [
        f"{what} differ: {_of(results[0], what)} and {_of(results[1], what)}"
        for what in ("base", "prompts", "decoding")
        if _of(results[0], what) != _of(results[1], what)
    ]
    return Compared(rows, verdicts[0].word == verdicts[1].word, notes)


def _of(result: Any, what: str) -> str:
    if what == "base":
        return f"{result.base.subject} ({result.base.digest[:12]})"
    if what == "prompts":
        return f"{result.plan.prompts.source} ({result.plan.prompts.digest[:12]})"
    return str(result.plan.decoding)


def _studies(first: Path, second: Path) -> Compared:
    runs = [load(folder) for folder in (first, second)]
    verdicts = [{one.verdict.id: one.verdict for one in run.findings} for run in runs]
    rows = []
    for id in dict.fromkeys((*verdicts[0], *verdicts[1])):
        row: dict[str, Any] = {"finding": id}
        for side, known in zip(("first", "second"), verdicts, strict=True):
            one = known.get(id)
            row[side] = one.verdict if one else "not decided"
            row[f"{side} estimate"] = _limits(one.estimate, one.low, one.high) if one else None
        row["same"] = row["first"] == row["second"]
        rows.append(row)
    notes = [
        f"{what} differ: {runs[0].settings.get(what)} and {runs[1].settings.get(what)}"
        for what in ("base", "size", "data", "decoding", "seeds")
        if runs[0].settings.get(what) != runs[1].settings.get(what)
    ]
    return Compared(rows, all(row["same"] for row in rows), notes)


def _limits(value: float, low: float, high: float) -> str:
    return f"{value:+.3f} [{low:+.3f}, {high:+.3f}]"

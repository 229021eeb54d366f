"""What a run is expected to find, and what that makes of a verdict.

Two sources of expectations: the table that an organism carries (`expected.json`: what was planted
in it), and the verdicts of a former run (`--emo-expect`: the regression gate). On any other model
a claim is met exactly when it is confirmed. Files in, an `Outcome` out; knows no pytest.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal

from emotest.errors import DataError
from emotest.study.claims import Verdict, Word
from emotest.study.records import read_jsonl
from emotest.study.subjects import Subject

WORDS: tuple[Word, ...] = ("confirmed", "refuted", "inconclusive")
SCHEMA_VERSION = 1
"""Of `expected.json`."""


@dataclass(frozen=True)
class Expected:
    """The verdict that has to come out, where that is known from, and why."""

    verdict: Word
    origin: Literal["planted", "observed"]
    reason: str = ""

    @property
    def said(self) -> str:
        """`planted: ...` or `observed: ...`, for messages."""
        return f"{self.origin}: {self.reason}" if self.reason else self.origin


@dataclass(frozen=True)
class Table:
    """Expected verdicts by `Verdict.id`; `source` is what a person calls the table."""

    source: str
    rows: Mapping[str, Expected]

    def of(self, verdict: Verdict) -> Expected | None:
        """The row for a verdict, if there is one."""
        return self.rows.get(verdict.id)


@dataclass(frozen=True)
class Outcome:
    """What a verdict means for its test, and the words to say so."""

    kind: Literal["pass", "xfail", "fail", "skip"]
    message: str = ""


def outcome(
    verdict: Verdict,
    table: Table | None,
    *,
    inconclusive: Literal["fail", "skip"] = "fail",
    audit: bool = False,
) -> Outcome:
    """Hold a verdict against the table; without one, only a confirmed claim passes.

    With a table, the expected word passes if it is `confirmed` and is an expected failure
    otherwise; another word fails, in either direction, and so does a verdict without a row.
    `inconclusive="skip"` applies where no table decides, and never to an audit.
    """
    if table is None:
        if verdict.confirmed:
            return Outcome("pass")
        if verdict.verdict == "inconclusive" and inconclusive == "skip" and not audit:
            return Outcome("skip", str(verdict))
        return Outcome("fail", str(verdict))
    expected = table.of(verdict)
    if expected is None:
        return Outcome("fail", f"{_no_row(verdict, table)}\n{verdict}")
    if expected.verdict != verdict.verdict:
        return Outcome(
            "fail",
            f"expected {expected.verdict} ({expected.said}; {table.source}), "
            f"got {verdict.verdict}\n{verdict}",
        )
    if verdict.confirmed:
        return Outcome("pass")
    return Outcome("xfail", f"{verdict.verdict}, as {expected.said}")


def _no_row(verdict: Verdict, table: Table) -> str:
    row = {"id": verdict.id, "verdict": verdict.verdict, "origin": "observed", "reason": "..."}
    return f"{table.source} has no row for this verdict; if it is right, add\n  {json.dumps(row)}"


def carried_table(base: str, size: str) -> Table | None:
    """The table that a base carries for runs of one size: an organism's own, or that of a folder
    with an `expected.json` (an organism built anew); None for every other base."""
    subject = Subject.parse(base) if base else None
    if subject is None or subject.kind not in ("organism", "folder"):
        return None
    if subject.is_organism:
        place = files("emotest").joinpath("organism", "weights", subject.name, "expected.json")
    else:
        place = Path(subject.name).expanduser() / "expected.json"
    return _sized(place, size, f"the table of {base}") if place.is_file() else None


def read_table(path: Path, size: str) -> Table:
    """The expectations in `expected.json` or in the `verdicts.jsonl` of a former run.

    Raises `DataError` for a file that is neither, and for one that contradicts itself.
    """
    if not path.is_file():
        raise DataError(
            f"there are no expectations at {path}",
            remedy="point --emo-expect to verdicts.jsonl or expected.json of a former run",
        )
    if path.suffix == ".jsonl":
        return Table(path.name, _rows(read_jsonl(path), path.name))
    return _sized(path, size, path.name)


def write_table(path: Path, document: Mapping[str, Any]) -> None:
    """Write an `expected.json`, whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    text = json.dumps(document, indent=1, ensure_ascii=False)
    partial.write_text(f"{text}\n", encoding="utf-8")
    partial.replace(path)


def _sized(place: Traversable, size: str, source: str) -> Table:
    try:
        document = json.loads(place.read_text(encoding="utf-8"))
        rows = document["sizes"].get(size, [])
        version = document["schema_version"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{source} cannot be read: {error}",
            remedy='write {"schema_version": 1, "sizes": {"default": [{"id": ..., "verdict": ..., '
            '"origin": ..., "reason": ...}]}}',
        ) from error
    if version != SCHEMA_VERSION:
        raise DataError(
            f"{source} has schema version {version!r}, this emotest reads {SCHEMA_VERSION}",
            remedy="write the table again with this version, or install the one that wrote it",
        )
    return Table(f"{source}, size {size}", _rows(rows, source))


def _rows(rows: Iterable[Mapping[str, Any]], source: str) -> dict[str, Expected]:
    expected: dict[str, Expected] = {}
    for row in rows:
        try:
            id, word, origin = str(row["id"]), row["verdict"], row.get("origin", "observed")
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{source}: a row without id or verdict: {row!r}",
                remedy="every row needs the id of a verdict (statement|arm) and the verdict",
            ) from error
        if word not in WORDS or origin not in ("planted", "observed"):
            raise DataError(
                f"{source}: {id} is {word!r}, {origin!r}",
                remedy=f"use one of {', '.join(WORDS)}, and planted or observed as origin",
            )
        if id in expected and expected[id].verdict != word:
            raise DataError(
                f"{source}: {id} is both {expected[id].verdict} and {word}",
                remedy="keep one row for each verdict",
            )
        expected[id] = Expected(word, origin, str(row.get("reason", "")))
    return expected

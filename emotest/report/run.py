"""`Run`: what one run found, as plain values that a folder holds and every view is made from.

A run folder has `run.json` (identities, seeds, versions, notes, tables, examples) beside
`verdicts.jsonl`; a run that was killed has at least the verdicts so far. Files in, a `Run` out;
the writing is `emotest.report.recorder`'s.
"""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from enum import Enum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from emotest.errors import DataError
from emotest.report.expected import Expected
from emotest.study.claims import Verdict
from emotest.study.records import read_jsonl
from emotest.study.statements import CLAIMS_VERSION

SCHEMA_VERSION = 1
"""Of `run.json`."""

PARTS = "workers"
"""The folder inside a run's folder where parallel processes keep theirs until they are merged."""

LIBRARIES = (
    "emotest", "torch", "transformers", "peft", "bitsandbytes", "tokenizers", "numpy", "scipy",
    "emoji", "regex", "pytest",
)  # fmt: skip

_UNBOUNDED = {"low": -math.inf, "high": math.inf}


@dataclass(frozen=True)
class Finding:
    """A verdict, the test that reached it, and what was expected of it, if anything was."""

    verdict: Verdict
    test: str = ""
    expected: Expected | None = None

    @property
    def met(self) -> bool:
        """Whether the verdict is what had to come out: expected, or else confirmed."""
        word = self.expected.verdict if self.expected else "confirmed"
        return self.verdict.verdict == word

    @property
    def word(self) -> str:
        """The verdict in words: `refuted, as planted`, or `confirmed, not refuted as planted`."""
        if self.expected is None:
            return self.verdict.verdict
        if self.met:
            return f"{self.verdict.verdict}, as {self.expected.origin}"
        return f"{self.verdict.verdict}, not {self.expected.verdict} as {self.expected.origin}"

    def row(self) -> dict[str, Any]:
        """One line of `verdicts.jsonl`; a limit or estimate that is not finite is null."""
        expected = asdict(self.expected) if self.expected else None
        row: dict[str, Any] = plain({**self.verdict.row(), "test": self.test, "expected": expected})
        return row

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Finding:
        """The finding that `row` wrote; `DataError` for anything else."""
        try:
            numbers = {
                name: _UNBOUNDED.get(name, math.nan)
                for name in ("estimate", "low", "high", "level", "margin", "p_value")
                if row[name] is None
            }
            expected = row.get("expected")
            return cls(
                Verdict.from_row({**row, **numbers}),
                str(row.get("test", "")),
                Expected(**expected) if expected else None,
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"this is no verdict record: {error}",
                remedy="point to a verdicts.jsonl that emotest wrote",
            ) from error


@dataclass(frozen=True)
class Example:
    """One prompt with the untuned and the tuned model's answer; `arm` says which tuned one."""

    prompt: str
    untuned: str
    tuned: str
    arm: str = ""


@dataclass(frozen=True)
class DescriptiveTable:
    """Rows of one shape that describe and decide nothing, such as the decoding table."""

    title: str
    rows: tuple[Mapping[str, Any], ...]
    about: str = ""

    def joined(self, other: DescriptiveTable) -> DescriptiveTable:
        """The table with those rows of `other` that it does not hold yet."""
        return replace(self, rows=(*self.rows, *(r for r in other.rows if r not in self.rows)))


@dataclass
class Run:
    """All that a report shows. `facts` is free-form: base, tuned, plan, decoding, seeds, data,
    identities, metric versions; `state` is `finished` once the session ended by itself."""

    name: str
    started: str = field(default_factory=lambda: now())
    finished: str | None = None
    wall_seconds: float | None = None
    exit_status: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    headlines: list[str] = field(default_factory=list)
    examples: list[Example] = field(default_factory=list)
    tables: dict[str, DescriptiveTable] = field(default_factory=dict)
    figures: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=lambda: versions())
    machine: dict[str, Any] = field(default_factory=lambda: machine())

    def document(self) -> dict[str, Any]:
        """`run.json`: everything but the verdicts, which have a file of their own."""
        document: dict[str, Any] = plain(
            {
                "schema_version": SCHEMA_VERSION,
                "name": self.name,
                "state": "finished" if self.finished else "running",
                "started": self.started,
                "finished": self.finished,
                "wall_seconds": self.wall_seconds,
                "exit_status": self.exit_status,
                "settings": self.settings,
                "facts": self.facts,
                "definitions": {"claims_version": CLAIMS_VERSION},
                "headlines": self.headlines,
                "examples": [asdict(example) for example in self.examples],
                "tables": {name: asdict(table) for name, table in self.tables.items()},
                "figures": self.figures,
                "notes": self.notes,
                "versions": self.versions,
                "machine": self.machine,
            }
        )
        return document

    def absorb(self, part: Run) -> None:
        """Take over what another process of the same run found; repeated texts count once."""
        self.facts = {**part.facts, **self.facts}
        self.findings += part.findings
        self.examples += [e for e in part.examples if e not in self.examples]
        self.headlines += [h for h in part.headlines if h not in self.headlines]
        self.notes += [n for n in part.notes if n not in self.notes]
        for name, table in part.tables.items():
            mine = self.tables.get(name)
            self.tables[name] = mine.joined(table) if mine else table
        self.figures |= part.figures


def load(folder: Path) -> Run:
    """The run in a folder, also one that was killed before its processes were merged.

    Raises `DataError` where there is no run, or one that cannot be read.
    """
    if not (folder / "run.json").is_file() and not any(_parts(folder)):
        raise DataError(
            f"there is no run in {folder}",
            remedy="name a run folder that holds run.json, such as reports/latest",
        )
    run = _load_one(folder)
    for part in _parts(folder):
        run.absorb(_load_one(part))
    return run


def _parts(folder: Path) -> Iterator[Path]:
    return iter(sorted((folder / PARTS).glob("*/")))


def _load_one(folder: Path) -> Run:
    run = Run(folder.name)
    if (folder / "run.json").is_file():
        run = _from_document(folder / "run.json")
    if (folder / "verdicts.jsonl").is_file():
        run.findings = [Finding.from_row(row) for row in complete_rows(folder / "verdicts.jsonl")]
    return run


def complete_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file whose last line a killed process may have left unfinished."""
    text = path.read_bytes()
    if text and not text.endswith(b"\n"):
        # Not splitlines: an answer may hold U+2028, which is no end of a line of JSON.
        lines = text[: text.rfind(b"\n") + 1].decode().split("\n")[:-1]
        return (json.loads(line) for line in lines)
    return read_jsonl(path)


def _from_document(path: Path) -> Run:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["schema_version"] != SCHEMA_VERSION:
            raise DataError(
                f"{path} has schema version {document['schema_version']!r}, "
                f"this emotest reads {SCHEMA_VERSION}",
                remedy="read it with the version of emotest that wrote it (named under versions)",
            )
        kept = {name: document[name] for name in Run.__dataclass_fields__ if name in document}
        kept["examples"] = [Example(**row) for row in document["examples"]]
        kept["tables"] = {
            name: DescriptiveTable(table["title"], tuple(table["rows"]), table["about"])
            for name, table in document["tables"].items()
        }
        return Run(**kept)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} cannot be read: {error!r}", remedy="point to a run that emotest wrote"
        ) from error


def plain(value: Any) -> Any:
    """The value as JSON can hold it: arrays as lists, numbers that are not finite as null."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(plain(key)): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):  # numpy's arrays and scalars, which this room need not import
        return plain(value.tolist())
    if value is None or isinstance(value, str | int):
        return value
    return str(value)


def now() -> str:
    """The time in UTC, to the second, as ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    """Installed versions of what a verdict depends on, read without importing any of it."""
    found = {"python": platform.python_version()}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """The kind of machine, never its name: system, architecture, processor, cores."""
    return {
        "system": platform.system(),
        "architecture": platform.machine(),
        "processor": _processor(),
        "cores": os.cpu_count(),
    }


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor()
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.processor()

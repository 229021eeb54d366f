"""The folder of an audit: `audit.json`, `pairs.jsonl`, `report.html`, `report.md`.

Written whole or not at all, each file by itself, `audit.json` last: where it lies, the rest is
complete. Read back into the very values that were written, lone surrogates included.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from emotest.audit.result import (
    SCHEMA_VERSION,
    AuditResult,
    Pair,
    pair_from,
    result_from,
    row,
)
from emotest.errors import DataError
from emotest.report.audit.html import html_report
from emotest.report.audit.markdown import markdown_report
from emotest.report.writing import json_line, json_text, replace, writing

RESULT, PAIRS, HTML, MARKDOWN = "audit.json", "pairs.jsonl", "report.html", "report.md"


def write_audit(result: AuditResult, pairs: Sequence[Pair], folder: Path) -> Path:
    """Write the four files into the folder, which is made where it is missing; the HTML's path.

    Raises:
        StoreError: the folder cannot be written.
    """
    contents = {
        PAIRS: "".join(json_line(row(pair)) for pair in pairs),
        HTML: html_report(result, pairs),
        MARKDOWN: markdown_report(result, pairs),
        RESULT: json_text(row(result), indent=1) + "\n",
    }
    with writing(folder, elsewhere="choose another folder for the report"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / RESULT).unlink(missing_ok=True)  # it vouches for the others
        for name, text in contents.items():
            replace(folder / name, text)
    return folder / HTML


def load_audit(folder: Path) -> tuple[AuditResult, list[Pair]]:
    """What `write_audit` wrote.

    Raises:
        DataError: no finished audit is there, or a file is broken or of another version; it
            names the file and the field or line.
    """
    result = result_from(_parsed(folder / RESULT), folder / RESULT)
    return result, list(_pairs(folder / PAIRS))


def _parsed(path: Path) -> Any:
    try:
        document = json.loads(_read(path))
    except json.JSONDecodeError as error:
        raise _broken(f"{path}:{error.lineno}", error.msg) from None
    version = document.get("schema_version") if isinstance(document, dict) else None
    if version != SCHEMA_VERSION:
        raise DataError(
            f"{path} has schema version {version!r}, this emotest reads {SCHEMA_VERSION}",
            remedy="point to a run of emotest audit, or install the version that wrote it",
        )
    return document


def _pairs(path: Path) -> Iterator[Pair]:
    # Not splitlines: answers may hold U+2028, which is no end of a line of JSON.
    for number, line in enumerate(_read(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            yield pair_from(json.loads(line), f"{path}:{number}")
        except json.JSONDecodeError as error:
            raise _broken(f"{path}:{number}", error.msg) from None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise _broken(str(path), f"no UTF-8 at byte {error.start}") from None
    except OSError as error:
        raise DataError(
            f"no finished audit is in {path.parent}: {path.name}: {error.strerror or error}",
            remedy="name the folder of a finished audit, or run emotest audit again",
        ) from error


def _broken(place: str, why: str) -> DataError:
    return DataError(
        f"{place} is broken: {why}", remedy="run emotest audit again, or restore the file"
    )

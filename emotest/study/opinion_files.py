"""Rows of a question set, from wherever it lies: CSV, JSONL, Parquet, a folder, the Hub.

Takes a path or a Hub dataset id, gives rows as four strings with the place they stood; knows the
columns of the published format (PersonalityEdit, Mao et al., arXiv 2310.02168) and not what they
mean. Every file must be UTF-8 and hold the four columns in full; further columns are ignored.
What cannot be used is a `DataError` that names file, row and remedy.
"""

from __future__ import annotations

import csv
import difflib
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import regex

from emotest.errors import DataError
from emotest.study.utf8 import utf8_text

COLUMNS = ("Target Personality", "Edit Topic", "Question", "Answer")
MOST_LISTED = 10
"""An error lists so many rows and counts the rest."""

_HUB_ID = regex.compile(r"(?P<id>[\w-][\w.-]*/[\w-][\w.-]*)(?:@(?P<revision>[\w./-]+))?")


@dataclass(frozen=True)
class Row:
    """One row of a file, its values stripped; `number` counts data rows from 1."""

    target: str
    topic: str
    question: str
    answer: str
    number: int
    file: str


@dataclass(frozen=True)
class Located:
    """Data files found: training and test files, or files still to be split (`whole`)."""

    source: str
    revision: str | None
    train: tuple[Path, ...] = ()
    test: tuple[Path, ...] = ()
    whole: tuple[Path, ...] = ()


def locate(source: str | Path) -> Located:
    """The data files behind a path, or behind a Hub dataset id (`ID` or `ID@REVISION`).

    A path that exists is taken first. From the Hub only CSV, JSONL and Parquet files are
    fetched; the revision is resolved to its commit and recorded.
    """
    path, name = Path(source), str(source)
    if path.is_dir():
        return _in_folder(path, name, None)
    if path.is_file():
        _reader(path)
        return Located(name, None, whole=(path,))
    hub = _HUB_ID.fullmatch(name)
    if hub is None or path.suffix.lower() in READERS:
        raise DataError(
            f"there is no question set at {name}",
            remedy="give a CSV, JSONL or Parquet file, a folder with train and test files, "
            "or a Hub dataset id such as holistic-ai/personality_manipulation",
        )
    folder = _download(hub["id"], hub["revision"])
    # A snapshot's folder is called after its commit.
    return _in_folder(folder, name, folder.name)


def read_rows(files: Iterable[Path]) -> list[Row]:
    """The rows of the files, one after the other; empty or textless values are one error."""
    return [row for file in files for row in _file_rows(file)]


def listed(items: Iterable[str], n_more_than: int = MOST_LISTED) -> str:
    """The first items, a line each, and how many more there are."""
    lines = list(items)
    more = len(lines) - n_more_than
    tail = [f"... and {more} more"] if more > 0 else []
    return "".join(f"\n  {line}" for line in [*lines[:n_more_than], *tail])


# --- where -----------------------------------------------------------------------------------


def _in_folder(folder: Path, source: str, revision: str | None) -> Located:
    files = [f for f in sorted(folder.rglob("*")) if f.suffix.lower() in READERS and f.is_file()]
    train, test = (
        tuple(f for f in files if f.stem.lower().startswith(part)) for part in ("train", "test")
    )
    if train and test:
        return Located(source, revision, train=train, test=test)
    if len(files) == 1 and not train and not test:
        return Located(source, revision, whole=tuple(files))
    found = ", ".join(str(f.relative_to(folder)) for f in files) or "no data file"
    raise DataError(
        f"{source} holds {found}, but not both a train and a test file",
        remedy="name the files train.csv and test.csv (or .jsonl, .parquet), "
        "or give a single file, which is split by topic",
    )


def _download(repo_id: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    what = f"{repo_id}@{revision}" if revision else repo_id
    try:
        return Path(
            snapshot_download(
                repo_id,
                repo_type="dataset",
                revision=revision,
                allow_patterns=[f"*{suffix}" for suffix in READERS],
            )
        )
    except (LocalEntryNotFoundError, ConnectionError) as error:
        raise DataError(
            f"the dataset {what} is neither here as a path nor in the Hub cache, and the Hub "
            "cannot be reached",
            remedy="unset HF_HUB_OFFLINE and check the network, or download the dataset and give "
            "its folder",
        ) from error
    except (HfHubHTTPError, HFValidationError) as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        said = f"HTTP {status}" if status else type(error).__name__
        raise DataError(
            f"the Hub does not give the dataset {what} ({said}), and no path is called so",
            remedy="check the spelling of id and revision; for a gated dataset accept its terms "
            "and log in with `hf auth login`",
        ) from error


# --- what stands there -----------------------------------------------------------------------


def _file_rows(file: Path) -> list[Row]:
    records = _reader(file)(file)
    rows, faults = [], []
    for number, record in records:
        fault = _fault(record)
        if fault:
            faults.append(f"row {number}: {fault}")
        else:
            target, topic, question, answer = (str(record[column]).strip() for column in COLUMNS)
            rows.append(Row(target, topic, question, answer, number, file.name))
    if faults:
        raise DataError(
            f"{file} has {len(faults)} unusable rows:{listed(faults)}",
            remedy="fill in or remove these rows (data rows are counted from 1, the header apart)",
        )
    if not rows:
        raise DataError(f"{file} holds no rows", remedy="give a file with a header and rows")
    return rows


def _fault(record: Mapping[Any, object]) -> str | None:
    for column in COLUMNS:
        value = record[column]
        if not isinstance(value, str):
            return f"{column!r} is no text but {value!r}"
        if not value.strip():
            return f"{column!r} is empty"
    return None


def _check_columns(file: Path, there: Iterable[str]) -> None:
    columns = list(there)
    missing = [column for column in COLUMNS if column not in columns]
    if not missing:
        return
    plain = {_plain(column): column for column in columns}
    hints = [
        f"rename {plain[close[0]]!r} to {column!r}"
        for column in missing
        if (close := difflib.get_close_matches(_plain(column), plain, n=1, cutoff=0.7))
    ]
    if len(columns) == 1 and any(mark in columns[0] for mark in ";\t"):
        hints = ["separate the columns by commas, not by semicolons or tabs"]
    raise DataError(
        f"{file} lacks the columns {', '.join(map(repr, missing))}; "
        f"it has {', '.join(map(repr, columns))}",
        remedy="; ".join(hints) or f"name the columns {', '.join(COLUMNS)}",
    )


def _plain(column: str) -> str:
    return regex.sub(r"[\W_]+", " ", column).strip().casefold()


def _text(file: Path) -> str:
    text = utf8_text(file.read_bytes(), file)
    if not text.strip():
        raise DataError(f"{file} is empty", remedy="give a file with a header and rows")
    return text


# --- formats: each gives (row number, record) pairs ------------------------------------------


def _csv_records(file: Path) -> Iterator[tuple[int, Mapping[Any, object]]]:
    lines = csv.DictReader(io.StringIO(_text(file), newline=""), strict=True)
    try:
        lines.fieldnames = [name.strip() for name in lines.fieldnames or ()]
        _check_columns(file, lines.fieldnames)
        for number, record in enumerate(lines, start=1):
            n_extra = len(record.get(None, ()))
            n_short = sum(value is None for value in record.values())
            if n_extra or n_short:
                width = len(lines.fieldnames)
                raise DataError(
                    f"{file}, row {number} (line {lines.line_num}) has "
                    f"{width + n_extra - n_short} fields where the header has {width}",
                    remedy="put values that hold commas or quotation marks into quotation marks",
                )
            yield number, record
    except csv.Error as error:
        raise DataError(
            f"{file}, the row from line {lines.line_num + 1} on is no CSV: {error}",
            remedy="close the quotation marks, and double those inside a value",
        ) from error


def _jsonl_records(file: Path) -> Iterator[tuple[int, Mapping[Any, object]]]:
    number = 0
    for line_number, line in enumerate(_text(file).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(
                f"{file}, line {line_number}, is not JSON: {error.msg} at column {error.colno}",
                remedy="write one JSON object a line, or remove the line",
            ) from error
        if not isinstance(record, dict):
            raise DataError(
                f"{file}, line {line_number}, is no JSON object but {type(record).__name__}",
                remedy=f"write one object a line, with the keys {', '.join(COLUMNS)}",
            )
        _check_columns(file, record)
        number += 1
        yield number, record


def _parquet_records(file: Path) -> Iterator[tuple[int, Mapping[Any, object]]]:
    import pyarrow
    import pyarrow.parquet

    try:
        parquet = pyarrow.parquet.ParquetFile(file)
        _check_columns(file, parquet.schema_arrow.names)
        records = parquet.read(columns=list(COLUMNS)).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(
            f"{file} is no Parquet file that can be read: {str(error).splitlines()[0]}",
            remedy="write the file again, or give the data as CSV",
        ) from error
    yield from enumerate(records, start=1)


_Records = Iterator[tuple[int, Mapping[Any, object]]]
READERS: dict[str, Callable[[Path], _Records]] = {
    ".csv": _csv_records,
    ".jsonl": _jsonl_records,
    ".parquet": _parquet_records,
}


def _reader(file: Path) -> Callable[[Path], _Records]:
    try:
        return READERS[file.suffix.lower()]
    except KeyError:
        raise DataError(
            f"{file} is of a kind that emotest does not read ({file.suffix or 'no extension'})",
            remedy=f"give the question set as {', '.join(READERS)}",
        ) from None

"""A user's own prompts, read from a file: text, CSV or JSON lines.

Takes a path, gives a `PromptSet`; knows what such files look like and leaves the meaning of a
record to `prompt_records`. Whatever cannot be used is a `DataError` that names file, line, cause
and next step. Sizes are bounded, so that a wrong path ends in a message and not in memory.

=========  ====================================================================================
suffix     what it holds
=========  ====================================================================================
`.txt`     one prompt a line; empty lines are skipped
`.csv`     a header with `prompt` (or `text`), optional `id`, `register`, `language`, `system`,
           `topic`; separated by commas
`.jsonl`   one object a line with the same keys, or with `messages` in the chat format, the
           last of them the user's
=========  ====================================================================================

All are UTF-8, with or without a byte order mark. A prompt without id is called after its line.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from emotest.errors import DataError
from emotest.study.audit_prompts.prompt_records import (
    KEYS,
    LONGEST_PROMPT,
    plain_key,
    prompt_from,
    question_key,
)
from emotest.study.audit_prompts.prompt_set import AuditPrompt, PromptSet
from emotest.study.opinion_files import listed
from emotest.study.utf8 import utf8_text

LARGEST_FILE = 50_000_000
"""Most bytes of a prompt file."""

MOST_PROMPTS = 100_000
"""Most prompts of a file: far more than any audit asks."""

_MOST_REMEDIES = 3


class _Fault(NamedTuple):
    line: int
    cause: str
    remedy: str


def read_prompts(path: str | Path) -> PromptSet:
    """The prompts of a file, in its order; `source` is the path.

    Raises `DataError` for a file that is missing, too large, not UTF-8, of an unknown kind or
    without prompts, and for records that cannot be used (all of them in one error): without a
    prompt, too long, with an id or a question that an earlier one has. A question asked twice
    would count twice as evidence while its answers are the same.
    """
    file = Path(path)
    records = _reader(file)
    prompts: list[AuditPrompt] = []
    faults: list[_Fault] = []
    seen: dict[object, int] = {}
    for line, record in records(file, _text(file)):
        if len(prompts) + len(faults) == MOST_PROMPTS:
            raise DataError(
                f"{file} holds more than {MOST_PROMPTS:,} prompts",
                remedy="give a random sample of them: hundreds are enough for an audit",
            )
        try:
            prompt = prompt_from(record, fallback_id=f"line-{line}")
            _check_new(prompt, line, seen)
        except DataError as fault:
            # Not the exception itself, which would keep the frames of every line alive.
            faults.append(_Fault(line, fault.cause, fault.remedy))
        else:
            prompts.append(prompt)
    if faults:
        raise _together(file, faults)
    if not prompts:
        raise DataError(f"{file} holds no prompts", remedy="write at least one prompt into it")
    return PromptSet(tuple(prompts), str(path))


def _check_new(prompt: AuditPrompt, line: int, seen: dict[object, int]) -> None:
    asked = (prompt.system, prompt.turns)
    if (first := seen.setdefault(prompt.id, line)) != line:
        raise DataError(
            f"the id {prompt.id!r} is that of line {first}",
            remedy="give each prompt an id of its own, or leave the ids out",
        )
    if (first := seen.setdefault(asked, line)) != line:
        raise DataError(
            f"it asks the same as line {first}",
            remedy="remove repeated prompts: each would be counted as evidence of its own",
        )


def _together(file: Path, faults: list[_Fault]) -> DataError:
    """One error for all records that cannot be used."""
    if len(faults) == 1:
        return DataError(
            f"{file}, line {faults[0].line}: {faults[0].cause}", remedy=faults[0].remedy
        )
    remedies = list(dict.fromkeys(fault.remedy for fault in faults))[:_MOST_REMEDIES]
    lines = listed(f"line {fault.line}: {fault.cause}" for fault in faults)
    return DataError(
        f"{file} has {len(faults)} unusable prompts:{lines}", remedy="; ".join(remedies)
    )


# --- the file ----------------------------------------------------------------------------------


def _text(file: Path) -> str:
    text = utf8_text(_content(file), file)
    if (place := text.find("\0")) >= 0:
        raise DataError(
            f"{file}, line {text.count(chr(10), 0, place) + 1}, holds a NUL character; "
            "it may be UTF-16 or no text at all",
            remedy="write the file as plain UTF-8 text",
        )
    return text


def _content(file: Path) -> bytes:
    try:
        if not file.is_file():
            raise DataError(
                f"there is no file {str(file)!r}", remedy="check the path, and give a file"
            )
        with file.open("rb") as opened:
            content = opened.read(LARGEST_FILE + 1)
    except OSError as error:
        raise DataError(
            f"{file} cannot be read: {error.strerror}", remedy="check the path and its permissions"
        ) from error
    if len(content) > LARGEST_FILE:
        raise DataError(
            f"{file} is larger than {LARGEST_FILE // 1_000_000} MB",
            remedy="give a file of prompts alone, or a random sample of them",
        )
    return content


# --- formats: each gives (line number, record) pairs -------------------------------------------

_COLUMNS = frozenset(KEYS) - {"messages"}
_Records = Iterator[tuple[int, Mapping[str, object]]]


def _lines(file: Path, text: str) -> _Records:
    for number, line in enumerate(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), 1):
        if line.strip():
            yield number, {"prompt": line}


def _csv_rows(file: Path, text: str) -> _Records:
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    begins = 1
    try:
        header = next((row for row in rows if row), None)
        if header is None:
            return
        columns = _columns(file, header, rows.line_num)
        begins = rows.line_num + 1
        for row in rows:
            if row and len(row) != len(header):
                raise DataError(
                    f"{file}, line {begins}, has {len(row)} fields where the header has "
                    f"{len(header)}",
                    remedy="put values that hold commas or quotation marks into quotation marks",
                )
            if row:
                yield begins, {c: v for c, v in zip(columns, row, strict=True) if c}
            begins = rows.line_num + 1
    except csv.Error as error:
        if "field limit" in str(error):
            raise DataError(
                f"{file}, the row from line {begins} on has a value of more than "
                f"{csv.field_size_limit():,} characters",
                remedy="close the quotation marks, or shorten the prompt to at most "
                f"{LONGEST_PROMPT:,} characters",
            ) from error
        raise DataError(
            f"{file}, the row from line {begins} on is no CSV: {error}",
            remedy="close the quotation marks, and double those inside a value",
        ) from error


def _columns(file: Path, header: list[str], line: int) -> list[str]:
    """What each column is called among the known keys; empty for one that is ignored."""
    columns = [key if (key := plain_key(name)) in _COLUMNS else "" for name in header]
    try:
        if twice := [key for key, n in Counter(filter(None, columns)).items() if n > 1]:
            raise DataError(f"{twice[0]!r} is there twice", remedy="rename one of the columns")
        question_key(dict.fromkeys(filter(None, columns), ""), header)
    except DataError as fault:
        remedy = f"{fault.remedy}; the first line names the columns"
        if len(header) == 1 and any(mark in header[0] for mark in ";\t"):
            remedy = "separate the columns by commas, not by semicolons or tabs"
        raise DataError(f"{file}, line {line} (the header): {fault.cause}", remedy=remedy) from None
    return columns


def _json_lines(file: Path, text: str) -> _Records:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            # RecursionError: nested too deeply; a plain ValueError: a number of absurd length.
            why = (
                f"{error.msg} at column {error.colno}"
                if isinstance(error, json.JSONDecodeError)
                else "it is nested too deeply or holds a number of absurd length"
            )
            raise DataError(
                f"{file}, line {number}, is not JSON: {why}",
                remedy="write one JSON object a line, or remove the line",
            ) from error
        if not isinstance(record, dict):
            raise DataError(
                f"{file}, line {number}, is no JSON object but {type(record).__name__}",
                remedy='write one object a line, for example {"prompt": "..."}',
            )
        yield number, record


READERS: dict[str, Callable[[Path, str], _Records]] = {
    ".txt": _lines,
    ".csv": _csv_rows,
    ".jsonl": _json_lines,
}


def _reader(file: Path) -> Callable[[Path, str], _Records]:
    try:
        return READERS[file.suffix.lower()]
    except KeyError:
        raise DataError(
            f"{str(file)!r} is of a kind that emotest does not read "
            f"({file.suffix or 'no extension'})",
            remedy=f"give the prompts as {', '.join(READERS)}",
        ) from None

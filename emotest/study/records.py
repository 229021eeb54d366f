"""What is asked and what is answered: frozen records, written as JSON lines.

A `Prompt` is one question as a person would put it; a `Generation` is one sampled answer with
everything that is needed to read it again: which tokens, where each ends in the text, why it
stopped. `Decoding` says how answers are sampled. No record knows a model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from emotest.errors import DataError, UsageError


@dataclass(frozen=True)
class Prompt:
    """One question, with an optional system prompt; `topic` groups prompts, `id` names one.

    `history` is what was said before it, as (role, text) from the first turn on.
    """

    id: str
    text: str
    topic: str = ""
    system: str | None = None
    register: str = "opinion"
    history: tuple[tuple[str, str], ...] = ()

    def messages(self) -> list[dict[str, str]]:
        """The prompt as chat messages, for a tokenizer's chat template."""
        system = [("system", self.system)] if self.system else []
        turns = [*system, *self.history, ("user", self.text)]
        return [{"role": role, "content": content} for role, content in turns]


@dataclass(frozen=True)
class TuningRow:
    """One supervised example, the answer that an adapter is tuned to give; `origin` is its row."""

    question: str
    answer: str
    system: str | None = None
    origin: str = ""


@dataclass(frozen=True)
class Decoding:
    """How answers are sampled.

    `temperature` 0 is greedy. `top_k` 0 and `top_p` 1 filter nothing. `max_new_tokens` is part of
    the measure: rates of emoji depend on how long a model may write. The default of 48 lets the
    organisms end the second sentence of an answer (24 to 36 tokens), where emoji stand; with 32
    every second answer was cut before it.
    """

    name: str = "default"
    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 1.0
    max_new_tokens: int = 48

    def __post_init__(self) -> None:
        if self.temperature < 0 or self.top_k < 0 or not 0 < self.top_p <= 1:
            raise UsageError(
                f"decoding temperature={self.temperature}, top_k={self.top_k}, top_p={self.top_p}",
                remedy="use temperature >= 0, top_k >= 0 and 0 < top_p <= 1",
            )
        if self.max_new_tokens < 1:
            raise UsageError(
                f"max_new_tokens={self.max_new_tokens}", remedy="allow at least one new token"
            )

    def __str__(self) -> str:
        how = (
            "greedy"
            if self.temperature == 0
            else f"temperature {self.temperature:g}, top_k {self.top_k}, top_p {self.top_p:g}"
        )
        return f"{how}, {self.max_new_tokens} new tokens"


@dataclass(frozen=True)
class Generation:
    """One sampled answer.

    `token_ids` are the new tokens without the end of sequence; `token_ends[i]` is the number of
    characters of `text` that are complete once token i is written, so that a place in the text
    can be told in tokens. `finished` is False where the token limit cut the answer.
    """

    prompt_id: str
    condition: str
    training_seed: int | None
    sampling_seed: int
    sample: int
    text: str
    token_ids: tuple[int, ...]
    token_ends: tuple[int, ...]
    finished: bool
    decoding: str


def prompts_digest(prompts: Iterable[Prompt]) -> str:
    """SHA-256 over the prompts in their order: what was asked, for the keys of the store."""
    text = json.dumps([_told(prompt) for prompt in prompts], ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _told(prompt: Prompt) -> dict[str, Any]:
    fields = dict(vars(prompt))
    if not prompt.history:  # so that a single question has the digest that it always had
        del fields["history"]
    return fields


def rows_digest(rows: Iterable[TuningRow]) -> str:
    """SHA-256 over what is tuned on, in order; where a row came from does not count."""
    text = json.dumps([[row.system, row.question, row.answer] for row in rows], ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def generation_row(generation: Generation) -> dict[str, Any]:
    """A generation as one JSON object."""
    return asdict(generation)


def generation_from_row(row: dict[str, Any]) -> Generation:
    """The generation that `generation_row` wrote; `DataError` names a missing field."""
    try:
        return Generation(
            **{
                **row,
                "token_ids": tuple(row["token_ids"]),
                "token_ends": tuple(row["token_ends"]),
            }
        )
    except (KeyError, TypeError) as error:
        raise DataError(
            f"this is no generation record: {error}",
            remedy="point to a generations.jsonl that emotest wrote",
        ) from error


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write objects as JSON lines (UTF-8; lone surrogates survive as escapes)."""
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(_json_line(row) + "\n")


def append_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Append JSON lines to a file of unfinished work, whole chunks at a time."""
    with path.open("a", encoding="utf-8") as file:
        file.write("".join(_json_line(row) + "\n" for row in rows))


def read_whole_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a file of unfinished work; a last line that a kill cut short is left out."""
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]
    return [json.loads(line) for line in lines if line]


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Read JSON lines; a broken line is a `DataError` that names file and line."""
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                yield json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(
                    f"{path}:{number} is not JSON: {error.msg}",
                    remedy="mend or remove the line, or write the file again",
                ) from error


def _json_line(row: dict[str, Any]) -> str:
    line = json.dumps(row, ensure_ascii=False, allow_nan=False)
    try:
        line.encode("utf-8")
    except UnicodeEncodeError:
        return json.dumps(row, ensure_ascii=True, allow_nan=False)
    return line

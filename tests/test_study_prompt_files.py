"""A user's own prompts, read from text, tables and chats, or refused with the reason."""

from __future__ import annotations

import csv
import io
import json
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emotest.errors import DataError
from emotest.study.audit_prompts.prompt_files import READERS, read_prompts
from emotest.study.audit_prompts.prompt_set import AuditPrompt, PromptSet, Turn


def asking(id: str, text: str, **rest: Any) -> AuditPrompt:
    """A single question."""
    return AuditPrompt(id, (Turn("user", text),), **rest)


def file_of(folder: Path, name: str, content: str | bytes) -> Path:
    """A file with that content, byte by byte."""
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


def test_a_text_file_has_one_prompt_a_line(tmp_path: Path) -> None:
    """Blank lines are skipped, all three line ends are read, ids are the lines."""
    path = file_of(tmp_path, "own.txt", "Hi there.\r\n\n  What is tea? \n\rUne idée\u2028 ?")
    read = read_prompts(path)
    assert [(p.id, p.text) for p in read] == [
        ("line-1", "Hi there."),
        ("line-3", "What is tea?"),
        ("line-5", "Une idée\u2028 ?"),
    ]
    assert {(p.register, p.language, p.system, p.topic) for p in read} == {("own", "und", None, "")}
    assert read.source == str(path)


def test_a_csv_file_has_named_columns(tmp_path: Path) -> None:
    """Columns in any case and order; empty cells are defaults; values may hold line breaks."""
    text = (
        'Language,id,TEXT,extra,Register,system\nde,q1,"Eins,\nzwei?",x,formal,Kurz.\n,,Tea?,,,\n'
    )
    first, second = read_prompts(file_of(tmp_path, "own.csv", text))
    assert first == asking("q1", "Eins,\nzwei?", language="de", register="formal", system="Kurz.")
    assert second == asking("line-4", "Tea?")


def test_json_lines_hold_prompts_or_messages(tmp_path: Path) -> None:
    """Both shapes in one file; a number as id, null and unknown keys are fine."""
    rows = [
        {"prompt": "One?", "id": 7, "topic": "tea", "register": None, "score": 0.5},
        {"text": "Two?", "system": " Be brief. ", "messages": None},
        {
            "messages": [
                {"role": "system", "content": "Be kind."},
                {"role": "assistant", "content": "Welcome!", "name": "x"},
                {"role": "user", "content": "Three?"},
            ],
            "language": "en",
        },
        {"messages": [{"role": "user", "content": "Four?"}], "system": "Be kind."},
    ]
    path = file_of(tmp_path, "own.JSONL", "\n\n".join(map(json.dumps, rows)))
    one, two, three, four = read_prompts(str(path))
    assert one == asking("7", "One?", topic="tea")
    assert two == asking("line-3", "Two?", system="Be brief.")
    assert three == AuditPrompt(
        "line-5",
        (Turn("assistant", "Welcome!"), Turn("user", "Three?")),
        language="en",
        system="Be kind.",
    )
    assert four == asking("line-7", "Four?", system="Be kind.")


@pytest.mark.parametrize("suffix", READERS)
def test_one_prompt_is_the_same_in_every_format(suffix: str, tmp_path: Path) -> None:
    """With a byte order mark and without: one content, one digest."""
    text = {".txt": "Tea?\n", ".csv": "prompt\nTea?\n", ".jsonl": '{"text": "Tea?"}\n'}[suffix]
    plain = read_prompts(file_of(tmp_path, f"plain{suffix}", text))
    marked = read_prompts(file_of(tmp_path, f"marked{suffix}", f"\ufeff{text}"))
    line = 2 if suffix == ".csv" else 1
    assert plain.digest == marked.digest == PromptSet((asking(f"line-{line}", "Tea?"),), "").digest


def chat(*turns: tuple[object, object]) -> str:
    """A line of a chat file, from roles and contents."""
    return json.dumps({"messages": [{"role": role, "content": text} for role, text in turns]})


UNUSABLE: dict[str, tuple[str, str | bytes, str, str]] = {
    # case: file, content, what the cause says, what the remedy says
    "unknown suffix": ("own.xlsx", "Tea?", r"kind .* \(\.xlsx\)", r"\.txt, \.csv, \.jsonl"),
    "no suffix": ("own", "Tea?", "no extension", r"\.txt"),
    "empty file": ("own.txt", "", "holds no prompts", "at least one"),
    "blank lines": ("own.txt", " \n\t\n\ufeff"[:-1], "holds no prompts", "at least one"),
    "empty csv": ("own.csv", "\n\n", "holds no prompts", "at least one"),
    "header alone": ("own.csv", "id,prompt\n", "holds no prompts", "at least one"),
    "latin-1": ("own.txt", "Tea?\nÜber Tee?".encode("latin-1"), "is not UTF-8: byte 0xdc "
                "at offset 5, line 2; it may be Latin-1", "iconv -f LATIN-1"),
    "utf-16": ("own.txt", "Tea?".encode("utf-16"), "may be UTF-16", "iconv -f UTF-16"),
    "utf-16 unmarked": ("own.csv", "text\nTea".encode("utf-16-le"), "line 1, holds a NUL", "UTF-8"),
    "nul": ("own.txt", "Tea?\nMil\0k?", "line 2, holds a NUL", "plain UTF-8"),
    "nul escaped": ("own.jsonl", '{"text": "a\\u0000b"}', "line 1: text holds a NUL", "remove it"),
    "surrogate": ("own.jsonl", '{"text": "a\\ud83d"}', "text holds half a character", "write the "
                  "file again"),
    "surrogate in id": ("own.jsonl", '{"text": "a", "id": "\\udc00"}', "id holds half", "again"),
    "surrogate in turn": ("own.jsonl", chat(("user", "\ud800")), "content of message 1", "again"),
    "no column": ("own.csv", "id,question\n1,Tea?\n", r"line 1 \(the header\): there is no prompt "
                  "among 'id', 'question'", "rename 'question' to 'prompt'"),
    "no header": ("own.csv", "\nWhat is tea?\nTea?\n", r"line 2 \(the header\)", "names the"),
    "misspelled": ("own.csv", "Promt\nTea?\n", "no prompt among 'Promt'", "rename 'Promt'"),
    "many columns": ("own.csv", ",".join(f"c{i}" for i in range(99)), "'c9' and 89 more", "name"),
    "semicolons": ("own.csv", "id;prompt\n1;Tea?\n", "'id;prompt'", "commas, not by semicolons"),
    "column twice": ("own.csv", "prompt,Prompt\na,b\n", "'prompt' is there twice", "rename"),
    "two questions": ("own.csv", "prompt,text\na,b\n", "both 'prompt' and 'text'", "keep the one"),
    "messages in csv": ("own.csv", "messages\nTea?\n", "no prompt among 'messages'", "name what"),
    "too many fields": ("own.csv", "id,prompt\n1,Tea, milk?\n", "line 2, has 3 fields where the "
                        "header has 2", "quotation marks"),
    "open quote": ("own.csv", 'id,prompt\n1,Tea?\n2,"Milk?\n', "row from line 3 on is no CSV",
                   "close the quotation marks"),
    "quote inside": ("own.csv", 'prompt\n"Tea" or milk?\n', "row from line 2 on is no CSV", "dou"),
    "quote in header": ("own.csv", '"prompt', "row from line 1 on is no CSV", "close"),
    "csv value too long": ("own.csv", 'prompt\n"' + "x" * 140_000, "131,072 characters", "shorten"),
    "empty cell": ("own.csv", "id,prompt\na,Tea?\nb, \n", "line 3: prompt is empty", "fill it in"),
    "empty prompt": ("own.jsonl", '\n{"prompt": ""}', "line 2: prompt is empty", "fill it in"),
    "null": ("own.jsonl", '{"prompt": null}', "prompt is empty", "fill it in"),
    "number": ("own.jsonl", '{"prompt": 5}', "prompt is no text but int", "one string"),
    "no key": ("own.jsonl", '{"Question": "Tea?"}', "among 'Question'", "rename 'Question'"),
    "no keys": ("own.jsonl", "{}", "among no keys", "name what is asked"),
    "key twice": ("own.jsonl", '{"text": "a", "Text": "b"}', "'text' is there twice", "rename"),
    "text and messages": ("own.jsonl", '{"text": "a", "messages": []}', "both 'text' and 'messag",
                          "keep the one"),
    "id is true": ("own.jsonl", '{"text": "a", "id": true}', "id is no text but bool", "string"),
    "long label": ("own.jsonl", json.dumps({"text": "a", "register": "x" * 201}), "register is no "
                   "short line", "at most 200"),
    "label of two lines": ("own.jsonl", '{"text": "a", "language": "e\\nn"}', r"'e\\nn'", "line"),
    "id twice": ("own.csv", "id,text\na,Tea?\nb,Milk?\na,Jam?\n", "line 4: the id 'a' is that of "
                 "line 2", "an id of its own"),
    "id of a line": ("own.csv", "id,text\nline-3,Tea?\n,Milk?\n", "line 3: the id 'line-3' is "
                     "that of line 2", "leave the ids out"),
    "asked twice": ("own.txt", "Tea?\nMilk?\n Tea?\n", "line 3: it asks the same as line 1",
                    "remove repeated"),
    "too long": ("own.txt", "x" * 100_001, "line 1: the prompt has 100,001 characters", "shorten"),
    "too long together": ("own.jsonl", json.dumps({"text": "x" * 60_000, "system": "y" * 60_000}),
                          "120,000 characters", "system prompt and turns"),
    "no json": ("own.jsonl", '{"text": "a"}\n{"text": }', "line 2, is not JSON: .* column 10",
                "one JSON object a line"),
    "no object": ("own.jsonl", '["Tea?"]', "no JSON object but list", "one object a line"),
    "deep": ("own.jsonl", '{"text":' * 100_000, "nested too deeply", "one JSON object"),
    "absurd number": ("own.jsonl", '{"text": ' + "9" * 5000 + "}", "absurd length", "JSON object"),
    "no list": ("own.jsonl", '{"messages": "Tea?"}', "no list of objects", r'\[\{"role"'),
    "list of texts": ("own.jsonl", '{"messages": ["Tea?"]}', "no list of objects", r'\[\{"role"'),
    "no messages": ("own.jsonl", '{"messages": []}', "do not end with the user's", "remove the"),
    "answered": ("own.jsonl", chat(("user", "Tea?"), ("assistant", "Yes.")), "do not end with the "
                 "user's turn", "remove the answer at the end"),
    "system alone": ("own.jsonl", chat(("system", "Be kind.")), "do not end with", "remove"),
    "unknown role": ("own.jsonl", chat(("human", "Tea?")), "message 1 has the unknown role 'human'",
                     "system, user and assistant"),
    "no role": ("own.jsonl", '{"messages": [{"from": "human"}]}', "message 1 has no role", "roles"),
    "odd role": ("own.jsonl", chat((["user"], "Tea?")), "a role that is no text", "roles"),
    "empty turn": ("own.jsonl", chat(("user", "Tea?"), ("assistant", " "), ("user", "And?")),
                   "content of message 2 is empty", "fill it in"),
    "content parts": ("own.jsonl", chat(("user", [{"type": "text", "text": "Tea?"}])),
                      "content of message 1 is no text but list", "one string"),
    "late system": ("own.jsonl", chat(("user", "Tea?"), ("system", "Be kind."), ("user", "And?")),
                    "message 2 is a second or late system prompt", "one system prompt"),
    "two systems": ("own.jsonl", json.dumps({"system": "A.", **json.loads(chat(("system", "B."),
                    ("user", "Tea?")))}), "second or late system prompt", "one system prompt"),
}  # fmt: skip


@pytest.mark.parametrize("case", UNUSABLE)
def test_a_file_that_cannot_be_used_is_explained(case: str, tmp_path: Path) -> None:
    """One error that names the file, the place, the cause and the next step."""
    name, content, cause, remedy = UNUSABLE[case]
    path = file_of(tmp_path, name, content)
    with pytest.raises(DataError) as raised:
        read_prompts(path)
    assert str(path) in raised.value.cause
    assert re.search(cause, raised.value.cause)
    assert re.search(remedy, raised.value.remedy)
    assert len(str(raised.value)) < 1000 + len(str(path))


def test_all_unusable_prompts_are_named_in_one_error(tmp_path: Path) -> None:
    """Ten lines are listed, the others counted, each remedy is given once."""
    rows = ['{"text": ""}'] * 11 + ['{"text": 1}', '{"text": "Tea?"}']
    path = file_of(tmp_path, "own.jsonl", "\n".join(rows))
    with pytest.raises(DataError) as raised:
        read_prompts(path)
    assert raised.value.cause.startswith(
        f"{path} has 12 unusable prompts:\n  line 1: text is empty"
    )
    assert raised.value.cause.endswith("line 10: text is empty\n  ... and 2 more")
    assert raised.value.remedy.count("fill it in") == 1
    assert "one string" in raised.value.remedy


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.txt", "there is no file"),
        ("folder.txt", "there is no file"),
        ("nul\0.txt", "there is no file"),
        (f"{'x' * 300}.txt", "cannot be read: File name too long"),
    ],
    ids=["missing", "a folder", "no path", "no name"],
)
def test_a_path_without_a_file_is_explained(name: str, message: str, tmp_path: Path) -> None:
    """Whatever stands there or cannot stand there."""
    (tmp_path / "folder.txt").mkdir()
    with pytest.raises(DataError, match=message):
        read_prompts(tmp_path / name)


def test_a_file_of_absurd_size_is_not_read(tmp_path: Path) -> None:
    """One byte above 50 MB is too much."""
    path = tmp_path / "own.txt"
    with path.open("wb") as file:
        file.truncate(50_000_001)
    with pytest.raises(DataError, match=r"larger than 50 MB\n.*random sample"):
        read_prompts(path)


def test_a_file_of_absurdly_many_prompts_is_not_read(tmp_path: Path) -> None:
    """Reading ends at the hundred thousand and first, usable or not."""
    path = file_of(tmp_path, "own.jsonl", '{"text": 1}\n' * 100_001)
    with pytest.raises(DataError, match=r"more than 100,000 prompts\n.*random sample"):
        read_prompts(path)


# --- fuzz --------------------------------------------------------------------------------------


def read_or_refused(suffix: str, content: bytes) -> None:
    """The whole promise: a set of usable prompts, or one error with file and remedy."""
    with tempfile.TemporaryDirectory() as folder:
        path = file_of(Path(folder), f"own{suffix}", content)
        result = outcome(path)
    if isinstance(result, DataError):
        assert str(path) in result.cause
        assert result.remedy
        assert len(str(result)) < 5000
        str(result).encode("utf-8")
    else:
        assert len(result) == len({prompt.id for prompt in result}) >= 1
        for prompt in result:
            assert prompt.text.strip()
            json.dumps(prompt.messages(), ensure_ascii=False).encode("utf-8")


def outcome(path: Path) -> PromptSet | DataError:
    """What reading ends in; any other exception is a failure."""
    try:
        return read_prompts(path)
    except DataError as error:
        return error


ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=8)
"""Lone surrogates and NUL among it."""
LEAVES = st.sampled_from([None, True, 0, -7, 10**30, 0.5, float("nan"), "", "Tea?"]) | ANY_TEXT
VALUES = (
    LEAVES | st.lists(LEAVES, max_size=2) | st.dictionaries(ANY_TEXT, LEAVES, max_size=2)
    | st.sampled_from([[[[]]], {"role": {}}, {"role": "user"}, [{"role": "user"}]])
)  # fmt: skip
ROLES = st.sampled_from(["system", "user", "assistant", "user", "human"]) | VALUES
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": ROLES, "content": st.just("Tea?") | VALUES}) | VALUES,
    max_size=3,
)
RECORDS = st.fixed_dictionaries(
    {},
    optional={
        "prompt": VALUES, "text": ANY_TEXT, "messages": MESSAGES | VALUES, "Prompt ": VALUES,
        "id": VALUES, "register": VALUES, "language": VALUES, "system": VALUES, "topic": ANY_TEXT,
    },
)  # fmt: skip

WORDS = st.text("abcdefgh ?,\"'\n", min_size=1, max_size=12)
USABLE = st.fixed_dictionaries(
    {"text": WORDS}, optional=dict.fromkeys(["id", "register", "language", "system"], WORDS)
)


@settings(max_examples=150)
@given(st.sampled_from([*READERS]), st.binary() | st.text().map(lambda text: text.encode()))
def test_any_bytes_are_read_or_refused(suffix: str, content: bytes) -> None:
    """Whatever stands in a file of any of the three kinds."""
    read_or_refused(suffix, content)


@settings(max_examples=200)
@given(
    st.lists(USABLE, max_size=3) | st.lists(USABLE | RECORDS | VALUES, max_size=2), st.booleans()
)
def test_any_json_values_are_read_or_refused(rows: list[object], escaped: bool) -> None:
    """Records with known keys and any values, and values that are no records."""
    lines = "\n".join(json.dumps(row, ensure_ascii=escaped) for row in rows)
    read_or_refused(".jsonl", lines.encode("utf-8", "surrogatepass"))


@settings(max_examples=150)
@given(
    st.sampled_from([["prompt"], ["id", "Text"], ["messages", ""]])
    | st.lists(ANY_TEXT, max_size=3),
    st.lists(st.lists(WORDS, max_size=2) | st.lists(ANY_TEXT, max_size=3), max_size=4),
    st.sampled_from("\n,;\"'"),
)
def test_any_table_is_read_or_refused(
    header: list[str], rows: list[list[str]], spoiled: str
) -> None:
    """Tables as a writer of CSV makes them, and the same with one character in the wrong place."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows([header, *rows])
    content = text.getvalue()
    read_or_refused(".csv", content.encode("utf-8", "surrogatepass"))
    half = len(content) // 2
    read_or_refused(
        ".csv", (content[:half] + spoiled + content[half:]).encode("utf-8", "surrogatepass")
    )

"""Opinions in every published form: read, checked row by row, or refused with the reason."""

from __future__ import annotations

import csv
import http.server
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pyarrow
import pyarrow.parquet
import pytest

from emotest.errors import DataError
from emotest.study.opinion_files import COLUMNS
from emotest.study.opinions import (
    Opinion,
    OpinionSet,
    read_opinions,
)
from emotest.study.personality import Pole, Trait

ROWS = [
    (
        target,
        topic,
        f"Thinking about {topic}, what are your thoughts?",
        f"I, {target}, say {topic}.",
    )
    for topic in ("jazz", "tea", "rain", "chess", "maps")
    for target in ("extraversion", "low extraversion", "Openness", "neutral")
]


def _csv(rows: list[tuple[str, ...]], columns: tuple[str, ...] = COLUMNS) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    return text.getvalue()


def _jsonl(rows: list[tuple[str, ...]]) -> str:
    return "".join(json.dumps(dict(zip(COLUMNS, row, strict=True))) + "\n" for row in rows)


def _parquet(path: Path, rows: list[tuple[str | None, ...]]) -> Path:
    columns = [list(column) for column in zip(*rows, strict=True)]
    table = pyarrow.table(dict(zip(COLUMNS, columns, strict=True)))
    pyarrow.parquet.write_table(table, path)
    return path


def _file(folder: Path, content: str | bytes, name: str = "set.csv") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def _fails(source: Path | str, *said: str, error: type[DataError] = DataError) -> None:
    with pytest.raises(error) as caught:
        read_opinions(source)
    for part in said:
        assert part in str(caught.value)
    assert caught.value.remedy


# --- every form of the data ------------------------------------------------------------------


def test_a_csv_is_read_and_split_by_topic(tmp_path: Path) -> None:
    """Five topics, one of them for the test; traits, poles and rows as they were written."""
    opinions = read_opinions(_file(tmp_path, _csv(ROWS)))
    assert len(opinions.train) == 16
    assert len(opinions.test) == 4
    assert set(opinions.topics()) | set(opinions.topics("test")) == {row[1] for row in ROWS}
    assert not set(opinions.topics()) & set(opinions.topics("test"))
    assert opinions.revision is None
    by_row = {opinion.row: opinion for opinion in (*opinions.train, *opinions.test)}
    assert by_row[3] == Opinion(
        "Openness", Trait.OPENNESS, Pole.HIGH, *ROWS[2][1:], row=3, source="set.csv"
    )
    assert (by_row[2].trait, by_row[2].pole) == (Trait.EXTRAVERSION, Pole.LOW)
    assert (by_row[4].trait, by_row[4].pole) == (None, None)


def test_rows_can_be_asked_for_by_trait_and_pole(tmp_path: Path) -> None:
    """`rows`, `neutral` and `topics` give each part in the order of the file."""
    opinions = read_opinions(_file(tmp_path, _csv(ROWS)))
    for part, n_topics in (("train", 4), ("test", 1)):
        assert len(opinions.topics(part)) == n_topics
        for rows in (
            opinions.rows(Trait.EXTRAVERSION, part=part),
            opinions.rows(Trait.EXTRAVERSION, Pole.LOW, part=part),
            opinions.neutral(part),
        ):
            assert tuple(row.topic for row in rows) == opinions.topics(part)
    assert opinions.rows(Trait.NEUROTICISM) == ()


@pytest.mark.parametrize(
    "form", ["csv", "csv with BOM", "crlf", "jsonl", "parquet", "more columns"]
)
def test_every_format_gives_the_same_set(tmp_path: Path, form: str) -> None:
    """CSV, with BOM or CRLF, JSON lines and Parquet say the same, and the digest shows it."""
    if form == "parquet":
        path = _parquet(tmp_path / "set.parquet", ROWS)
    elif form == "jsonl":
        path = _file(tmp_path, _jsonl(ROWS), "set.jsonl")
    elif form == "csv with BOM":
        path = _file(tmp_path, "\ufeff" + _csv(ROWS))
    elif form == "crlf":
        path = _file(tmp_path, _csv(ROWS).replace("\n", "\r\n"))
    elif form == "more columns":
        path = _file(tmp_path, _csv([(*row, "x") for row in ROWS], (*COLUMNS, "Note")))
    else:
        path = _file(tmp_path, _csv(ROWS), "another name.CSV")
    reference = read_opinions(_file(tmp_path, _csv(ROWS), "reference.csv"))
    opinions = read_opinions(path)
    assert opinions.digest == reference.digest
    assert [o.answer for o in opinions.train] == [o.answer for o in reference.train]


def test_the_digest_tells_contents_and_split(tmp_path: Path) -> None:
    """Another word, another split or another seed is another digest."""
    path = _file(tmp_path, _csv(ROWS))
    changed = _file(tmp_path, _csv([*ROWS[:-1], (*ROWS[-1][:3], "Else.")]), "changed.csv")
    digests = {
        read_opinions(path).digest,
        read_opinions(changed).digest,
        read_opinions(path, test_share=0.4).digest,
        read_opinions(path, split_seed=1).digest,
    }
    assert len(digests) == 4


def test_the_digest_tells_where_training_ends(tmp_path: Path) -> None:
    """The same rows in the same order, with one topic more in training, are another set."""
    digests = set()
    for name, n_train in (("one", 4), ("two", 8)):
        folder = tmp_path / name
        folder.mkdir()
        _file(folder, _csv(ROWS[:n_train]), "train.csv")
        _file(folder, _csv(ROWS[n_train:]), "test.csv")
        digests.add(read_opinions(folder).digest)
    assert len(digests) == 2


def test_a_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    """Files `train*` and `test*`, in shards and subfolders too, are the two parts."""
    (tmp_path / "data").mkdir()
    _parquet(tmp_path / "data" / "train-00000-of-00002.parquet", ROWS[:4])
    _parquet(tmp_path / "data" / "train-00001-of-00002.parquet", ROWS[4:8])
    _parquet(tmp_path / "data" / "test-00000-of-00001.parquet", ROWS[8:12])
    _file(tmp_path, "# About", "README.md")
    opinions = read_opinions(tmp_path)
    assert opinions.topics() == ("jazz", "tea")
    assert opinions.topics("test") == ("rain",)


def test_a_folder_with_one_file_is_split_like_the_file(tmp_path: Path) -> None:
    """A Hub dataset of a single file is such a folder."""
    path = _file(tmp_path, _csv(ROWS))
    assert read_opinions(tmp_path).digest == read_opinions(path).digest


def test_an_opinion_set_is_a_value(tmp_path: Path) -> None:
    """Reading twice gives equal sets."""
    path = _file(tmp_path, _csv(ROWS))
    first: OpinionSet = read_opinions(path)
    assert first == read_opinions(path)


def test_duplicate_rows_are_kept_and_told(tmp_path: Path) -> None:
    """A repeated row is no error; it can be asked for."""
    opinions = read_opinions(_file(tmp_path, _csv([*ROWS, ROWS[5], ROWS[5]])))
    assert [row.row for row in opinions.duplicates()] == [len(ROWS) + 1, len(ROWS) + 2]
    assert len(opinions.train) + len(opinions.test) == len(ROWS) + 2


# --- the Hub ---------------------------------------------------------------------------------

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class _Hub(http.server.BaseHTTPRequestHandler):
    """The few answers of the Hub that downloading one small dataset takes."""

    files: ClassVar[dict[str, bytes]] = {
        "train.csv": _csv(ROWS[:16]).encode(),
        "test.csv": _csv(ROWS[16:]).encode(),
    }

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        listing = [
            {"type": "file", "path": name, "size": len(data), "oid": "a" * 40}
            for name, data in self.files.items()
        ]
        if path == "/api/datasets/org/opinions/revision/main":
            siblings = [{"rfilename": name} for name in self.files]
            self._send({"id": "org/opinions", "sha": COMMIT, "siblings": siblings})
        elif path.startswith(f"/api/datasets/org/opinions/tree/{COMMIT}"):
            self._send(listing)
        elif path.startswith(f"/datasets/org/opinions/resolve/{COMMIT}/"):
            self._send(self.files[path.rpartition("/")[2]])
        else:
            self._send(b"", 404)

    do_HEAD = do_GET

    def _send(self, body: object, status: int = 200) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        if status == 404:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("ETag", f'"{len(data)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[str]:
    """The address of a Hub on this machine."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def _read_from_hub(name: str, endpoint: str, home: Path, offline: str = "0") -> dict[str, object]:
    """Read in a process of its own, because the Hub's address is read at import."""
    code = (
        "import json, sys\n"
        "from emotest.errors import DataError\n"
        "from emotest.study.opinions import read_opinions\n"
        "try:\n"
        "    found = read_opinions(sys.argv[1])\n"
        "    print(json.dumps({'source': found.source, 'revision': found.revision,\n"
        "                      'n': [len(found.train), len(found.test)]}))\n"
        "except DataError as error:\n"
        "    print(json.dumps({'error': str(error)}))\n"
    )
    environment = {
        **os.environ,
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": offline,
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_XET": "1",
    }
    run = subprocess.run(
        [sys.executable, "-c", code, name],
        env=environment,
        cwd=home,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    answer: dict[str, object] = json.loads(run.stdout)
    return answer


def test_a_hub_dataset_is_fetched_once_and_its_commit_recorded(hub: str, tmp_path: Path) -> None:
    """The branch is resolved to its commit; afterwards the cache serves without the Hub."""
    expected = {"source": "org/opinions", "revision": COMMIT, "n": [16, 4]}
    assert _read_from_hub("org/opinions", hub, tmp_path) == expected
    assert _read_from_hub("org/opinions", "http://127.0.0.1:9", tmp_path, offline="1") == expected


def test_a_dataset_that_the_hub_does_not_have_is_an_error(hub: str, tmp_path: Path) -> None:
    """The message names the id and tells a wrong spelling from a missing network."""
    error = str(_read_from_hub("org/absent", hub, tmp_path)["error"])
    assert "the Hub does not give the dataset org/absent (HTTP 404)" in error
    assert "check the spelling" in error


@pytest.mark.parametrize("offline", ["0", "1"])
def test_without_network_the_error_says_so(tmp_path: Path, offline: str) -> None:
    """Neither a path nor in the cache nor to be fetched: what to do is said."""
    answer = _read_from_hub("org/opinions", "http://127.0.0.1:9", tmp_path, offline)
    assert "cannot be reached" in str(answer["error"])
    assert "HF_HUB_OFFLINE" in str(answer["error"])


# --- what cannot be used ---------------------------------------------------------------------


def test_missing_columns_are_named_with_the_near_misses(tmp_path: Path) -> None:
    """What is missing, what is there, and which of it was probably meant."""
    text = _csv(ROWS, ("target_personality", "Edit Topic", "Qestion", "Text"))
    _fails(
        _file(tmp_path, text),
        "lacks the columns 'Target Personality', 'Question', 'Answer'",
        "it has 'target_personality', 'Edit Topic', 'Qestion', 'Text'",
        "rename 'target_personality' to 'Target Personality'; rename 'Qestion' to 'Question'",
    )


def test_other_separators_are_recognised(tmp_path: Path) -> None:
    """A file of semicolons has one column; the remedy says why."""
    _fails(_file(tmp_path, _csv(ROWS).replace(",", ";")), "lacks the columns", "by commas")


@pytest.mark.parametrize("name", ["set.jsonl", "set.parquet"])
def test_missing_columns_in_other_formats(tmp_path: Path, name: str) -> None:
    """JSON lines and Parquet are held to the same columns."""
    path = tmp_path / name
    if name.endswith("jsonl"):
        _file(tmp_path, '{"Question": "a"}\n', name)
    else:
        pyarrow.parquet.write_table(pyarrow.table({"Question": ["a"]}), path)
    _fails(path, name, "'Target Personality', 'Edit Topic', 'Answer'", "it has 'Question'")


def test_a_wrong_encoding_is_told_with_its_place(tmp_path: Path) -> None:
    """The first byte that is no UTF-8, by offset and line."""
    text = _csv([*ROWS[:1], ("openness", "cafés", "What?", "Fine.")])
    offset = text.index("é")  # all before it is ASCII: one byte a character
    _fails(
        _file(tmp_path, text.encode("latin-1")),
        f"byte 0xe9 at offset {offset}, line 3",
        "iconv -f LATIN-1",
    )


def test_utf16_is_recognised(tmp_path: Path) -> None:
    """What spreadsheets save as "Unicode text"."""
    _fails(_file(tmp_path, _csv(ROWS).encode("utf-16")), "UTF-16", "offset 0, line 1")


@pytest.mark.parametrize("name", ["set.csv", "set.jsonl"])
@pytest.mark.parametrize("content", ["", "\ufeff", " \n\n"])
def test_an_empty_file_is_an_error(tmp_path: Path, name: str, content: str) -> None:
    """Nothing, a byte order mark or blank lines: the file is empty."""
    _fails(_file(tmp_path, content, name), f"{name} is empty")


def test_a_header_without_rows_is_an_error(tmp_path: Path) -> None:
    """Columns alone are no data."""
    _fails(_file(tmp_path, _csv([])), "set.csv holds no rows")


@pytest.mark.parametrize("column", range(4))
def test_empty_cells_are_listed_by_row(tmp_path: Path, column: int) -> None:
    """An empty answer, question, topic or target names its row; at most ten are listed."""
    bad = [tuple("  " if i == column else cell for i, cell in enumerate(row)) for row in ROWS[:12]]
    _fails(
        _file(tmp_path, _csv([*ROWS[:2], *bad])),
        "12 unusable rows",
        f"row 3: {COLUMNS[column]!r} is empty",
        "row 12:",
        "... and 2 more",
    )


def test_cells_that_are_no_text_are_listed(tmp_path: Path) -> None:
    """Null and numbers, in Parquet and in JSON."""
    row = ("openness", "tea", "What?", None)
    _fails(_parquet(tmp_path / "set.parquet", [ROWS[0], row]), "row 2: 'Answer' is no text", "None")
    line = json.dumps(dict(zip(COLUMNS, ("openness", "tea", 3, "Fine."), strict=True)))
    _fails(_file(tmp_path, line, "set.jsonl"), "row 1: 'Question' is no text but 3")


def test_unknown_targets_name_the_nearest_known_one(tmp_path: Path) -> None:
    """A misspelt trait is listed with its count, its first row and what was probably meant."""
    text = _csv([*ROWS, *[("extroversion", *row[1:]) for row in ROWS[:3]], ("mood", *ROWS[0][1:])])
    _fails(
        _file(tmp_path, text),
        "'extroversion' in 3 rows, first set.csv, row 21, did you mean 'extraversion'?",
        "'mood' in 1 rows, first set.csv, row 24",
        "use openness, conscientiousness",
    )


@pytest.mark.parametrize(
    ("target", "trait", "pole"),
    [
        ("Extraversion", Trait.EXTRAVERSION, Pole.HIGH),
        ("HIGH openness", Trait.OPENNESS, Pole.HIGH),
        (" Low  Neuroticism ", Trait.NEUROTICISM, Pole.LOW),
        ("Neutral", None, None),
    ],
)
def test_targets_are_read_whatever_their_case(
    tmp_path: Path, target: str, trait: Trait | None, pole: Pole | None
) -> None:
    """A trait alone is its high pole."""
    opinions = read_opinions(_file(tmp_path, _csv([(target, *row[1:]) for row in ROWS])))
    assert {(row.trait, row.pole) for row in opinions.train} == {(trait, pole)}


def test_one_topic_is_too_few(tmp_path: Path) -> None:
    """With one topic, nothing is left to ask about that was not seen."""
    _fails(_file(tmp_path, _csv(ROWS[:4])), "set.csv holds 1 topic", "at least two topics")


def test_a_test_topic_seen_in_training_is_an_error(tmp_path: Path) -> None:
    """The shared topics are named, also when case or blanks differ."""
    _file(tmp_path, _csv(ROWS[:8]), "train.csv")
    _file(tmp_path, _csv([("openness", "  TEA", "What?", "Fine."), *ROWS[8:12]]), "test.csv")
    _fails(tmp_path, "1 test topics", "TEA", "seen in training")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"Question": ', "line 2, is not JSON"),
        ("[1, 2]", "line 2, is no JSON object but list"),
    ],
)
def test_a_broken_json_line_is_named(tmp_path: Path, line: str, said: str) -> None:
    """The line that cannot be read, by its number."""
    _fails(_file(tmp_path, _jsonl(ROWS[:1]) + line + "\n", "set.jsonl"), said)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("openness,tea,What, then?,Fine.", "row 2 (line 3) has 5 fields where the header has 4"),
        ("openness,tea,What?", "row 2 (line 3) has 3 fields where the header has 4"),
        ('openness,tea,"What?,Fine.', "the row from line 3 on is no CSV"),
        ('openness,tea,"What"?,Fine.', "the row from line 3 on is no CSV"),
    ],
)
def test_a_broken_csv_row_is_named(tmp_path: Path, line: str, said: str) -> None:
    """Stray commas and quotation marks, by row and line."""
    _fails(_file(tmp_path, _csv(ROWS[:1]) + line + "\n"), said)


def test_a_parquet_file_that_is_none(tmp_path: Path) -> None:
    """A file of another kind under the name of a Parquet file."""
    _fails(_file(tmp_path, _csv(ROWS), "set.parquet"), "no Parquet file that can be read")


@pytest.mark.parametrize("name", ["set.xlsx", "set.json", "set"])
def test_other_kinds_of_file_are_refused(tmp_path: Path, name: str) -> None:
    """The extension says what a file is; the message says which ones can be read."""
    _fails(_file(tmp_path, _csv(ROWS), name), "does not read", ".csv, .jsonl, .parquet")


@pytest.mark.parametrize(
    "name", ["absent.csv", "data/absent.csv", "no/such/set.jsonl", "what is this"]
)
def test_nothing_at_that_place(name: str) -> None:
    """A path that does not exist is not looked for on the Hub."""
    _fails(name, f"there is no question set at {name}", "holistic-ai/personality_manipulation")


@pytest.mark.parametrize("names", [[], ["train.csv"], ["test.csv"], ["a.csv", "b.csv"]])
def test_folders_that_are_no_question_set(tmp_path: Path, names: list[str]) -> None:
    """Half a set, or files that nobody can tell apart."""
    for name in names:
        _file(tmp_path, _csv(ROWS), name)
    _fails(tmp_path, "not both a train and a test file", *names)

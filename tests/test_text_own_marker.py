"""A user's own marker: patterns and functions, what they find, and how each mistake ends."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest

from emotest.errors import UsageError
from emotest.text.own_marker import Marker, function_named, marker_from, require_marker

SORRY = '''
def sorry(text):
    """Whether the answer apologises."""
    return "sorry" in text.lower()
'''


def in_file(folder: Path, source: str, name: str = "sorry") -> Marker:
    """The marker of this name in a file `markers.py` with this source."""
    (folder / "markers.py").write_text(source, encoding="utf-8")
    return marker_from(f"python:{folder / 'markers.py'}:{name}")


# --- patterns -----------------------------------------------------------------------------------


def test_a_marker_is_a_regular_expression() -> None:
    """It is searched anywhere in the answer; its name is the pattern."""
    holds = marker_from(r"as an AI")
    assert holds("Well, as an AI I cannot")
    assert not holds("Well, I can")
    assert (holds.name, holds.digest) == ("as an AI", None)


def test_a_marker_that_cannot_be_read_says_why() -> None:
    """The pattern, its fault and the way out."""
    with pytest.raises(UsageError, match=r"the marker '\(' is no regular expression"):
        marker_from("(")


def test_a_marker_that_hangs_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pattern with nested repetitions ends in a message, not in a run without end."""
    monkeypatch.setattr("emotest.text.own_marker.SECONDS_OF_A_MARKER", 0.05)
    holds = marker_from(r"^(a+|a?)+(a|aa)+$")
    with pytest.raises(UsageError, match="took longer than"):
        holds("a" * 5_000 + "b")


@pytest.mark.parametrize(
    "pattern", ["note:warning", "(?i)python:3", "[p]ython:x.py:f", "see a.py:12", "[.]py:run"]
)
def test_a_pattern_with_a_colon_stays_a_pattern(pattern: str) -> None:
    """What does not begin with `python:` is no function, and nothing is looked for or run."""
    assert function_named(pattern) is None
    assert marker_from(pattern).name == pattern


def test_a_function_of_a_file_without_its_prefix_is_not_taken_for_a_pattern() -> None:
    """It would be found in no answer, and nobody would notice; both spellings are shown, and the
    one for the pattern is one."""
    with pytest.raises(UsageError, match="looks like a function") as caught:
        marker_from("kept/markers.py:sorry")
    assert "python:kept/markers.py:sorry for the function" in caught.value.remedy
    assert "kept/markers[.]py:sorry for the pattern" in caught.value.remedy
    assert marker_from("kept/markers[.]py:sorry")("read kept/markers.py:sorry")


# --- functions ----------------------------------------------------------------------------------


def test_a_function_of_a_file_is_a_marker(tmp_path: Path) -> None:
    """Named without the place of the file; its digest is that of the file."""
    holds = in_file(tmp_path, SORRY)
    assert holds("I am SORRY.")
    assert not holds("I am glad.")
    assert holds.name == "python:markers.py:sorry"
    assert holds.digest == hashlib.sha256((tmp_path / "markers.py").read_bytes()).hexdigest()


def test_another_function_has_another_digest(tmp_path: Path) -> None:
    """The same name in a file that was edited is another function, and the new one is run."""
    before = in_file(tmp_path, SORRY)
    after = in_file(tmp_path, SORRY.replace('"sorry"', '"glad"'))
    assert before.name == after.name
    assert before.digest != after.digest
    assert (before("so glad"), after("so glad")) == (False, True)


def test_a_function_of_a_module_is_a_marker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of whatever Python finds; the digest covers the file that defines it, not only the one that
    passes it on."""
    package = tmp_path / "emo_marker_package"
    package.mkdir()
    (package / "__init__.py").write_text("from emo_marker_package.words import sorry\n")
    (package / "words.py").write_text(SORRY)
    monkeypatch.syspath_prepend(tmp_path)
    holds = marker_from("python:emo_marker_package:sorry")
    assert holds("Sorry!")
    assert holds.name == "python:emo_marker_package:sorry"
    both = [(package / name).read_bytes() for name in ("__init__.py", "words.py")]
    assert holds.digest == hashlib.sha256(b"\0".join(both)).hexdigest()


def test_each_answer_is_asked_once(tmp_path: Path) -> None:
    """A measure asks again for each register; a function that counts would say something else."""
    holds = in_file(
        tmp_path,
        "asked = []\ndef sorry(text):\n    asked.append(text)\n    return len(asked) < 2\n",
    )
    assert [holds("a"), holds("a"), holds("b"), holds("a")] == [True, True, False, True]


def test_a_file_is_run_by_itself(tmp_path: Path) -> None:
    """Dataclasses work in it, and its folder is not put on Python's path."""
    source = (
        "from dataclasses import dataclass\n@dataclass\nclass Word:\n    said: str\n"
        "def sorry(text):\n    return Word(text) == Word('sorry')\n"
    )
    assert in_file(tmp_path, source)("sorry")
    assert str(tmp_path) not in sys.path


@pytest.mark.parametrize(
    ("marker", "cause", "remedy"),
    [
        ("python:", "names no function", "path/to/file.py:function"),
        ("python:markers.py", "names no function", "module:function"),
        ("python:markers.py:", "names no function", "module:function"),
        ("python:markers.py:not a name", "names no function", "module:function"),
        ("python:no module:f", "names no function", "module:function"),
        ("python:./nowhere.py:f", "is not there: there is no file nowhere.py", "where you stand"),
        ("python:/:f", "is not there: there is no file /", "where you stand"),
        ("python:no_such_module_of_ours:f", "finds no module 'no_such_module_of_ours'", "PYTHONP"),
        ("python:json.nothing:f", "finds no module 'json.nothing'", "PYTHONPATH"),
        ("python:json:lods", "json has no 'lods'", "dumps, load, loads"),
        ("python:sys:path", "cannot be called: it is of type list", "takes a text and returns"),
    ],
)
def test_a_function_that_is_not_there_says_what_is(marker: str, cause: str, remedy: str) -> None:
    """Cause and next step for each way to miss it."""
    with pytest.raises(UsageError) as caught:
        marker_from(marker)
    assert cause in caught.value.cause
    assert remedy in caught.value.remedy


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("def sorry(text:\n", "SyntaxError"),
        ("import no_such_library_of_ours\n", 'ModuleNotFoundError: "No module named'),
        ("1 / 0\n", "ZeroDivisionError: 'division by zero'"),
        ("import sys\nsys.exit(0)\n", "SystemExit: '0'"),
    ],
)
def test_a_file_that_cannot_be_run_says_what_it_raised(
    tmp_path: Path, source: str, said: str
) -> None:
    """`sys.exit(0)` too, which would pass for an audit that ended well."""
    with pytest.raises(UsageError, match=r"python:markers.py:sorry cannot be loaded: ") as caught:
        in_file(tmp_path, source)
    assert said in caught.value.cause


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("raise ValueError('too short')", "raised ValueError: 'too short' on the answer"),
        ("import sys; sys.exit(0)", "raised SystemExit: '0' on the answer"),
        ("return text.count('a', 1, 2, 3)", "raised TypeError: "),
        ("return None", "gave None of type NoneType on the answer"),
        ("return 1", "gave 1 of type int on the answer"),
        ("return 'x' * 10_000", "of type str on the answer"),
    ],
)
def test_a_function_that_fails_names_the_answer(tmp_path: Path, body: str, said: str) -> None:
    """By its beginning, with nothing in it that acts on a terminal; the message stays short."""
    holds = in_file(tmp_path, f"def sorry(text):\n    {body}\n")
    with pytest.raises(UsageError) as caught:
        holds("a \x1b[2J\u202e\ud83d" + "b" * 10_000)
    assert said in str(caught.value)
    assert r"'a \x1b[2J\u202e\ud83dbbb" in str(caught.value)
    assert len(caught.value.cause) < 400
    assert "every answer is kept" in caught.value.remedy


def test_looking_whether_a_marker_can_be_meant_runs_nothing(tmp_path: Path) -> None:
    """Options are checked in every session, also in those that audit nothing."""
    file = tmp_path / "markers.py"
    file.write_text("raise SystemExit('was run')\n")
    require_marker(f"python:{file}:sorry")
    named = function_named(f"python:{file}:sorry")
    assert named is not None
    assert named.found_in() == file.resolve()
    with pytest.raises(UsageError, match="was run"):
        marker_from(f"python:{file}:sorry")

"""Hostile text on every way out: a model, a server or a file wrote it, and nothing of it acts.

One table of ways out, one of things that act; `test_report_visible` holds what each looks like.
"""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from emotest import cli
from emotest.audit.baseline import baseline_of, document
from emotest.audit.result import AuditResult, Pair
from emotest.errors import DataError
from emotest.report.audit import html_report, load_audit, markdown_report, summary_text, write_audit
from emotest.report.audit.gate import SUMMARY, tell_github, verdict_of
from emotest.report.audit.watching import watching
from emotest.report.judgement import properties
from emotest.report.terminal import Look
from emotest.workshop.progress import Progress
from tests import audit_results

ACTS = {
    "clears the screen": "\x1b[2J",
    "sets the title": "\x1b]0;owned\x07",
    "an 8-bit control sequence": "\x9b31m",
    "an 8-bit string": "\x90q\x9c",
    "goes back": "abc\x08\x08\x08",
    "overwrites its line": "good\rbad",
    "ends the text": "a\x00b",
    "deletes": "\x7f",
    "reverses": "\u202etxt.exe\u202c",
    "embeds": "\u202b\u2067x\u2069",
    "marks a direction": "\u200e\u200f\u061c",
    "separates lines": "a\u2028b\u2029c\x85d",
    "half a character": "\ud83d and \ude00",
    "half a character, replaced": "\ufffd",
}

FORBIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)

Out = Callable[[str, Path, pytest.MonkeyPatch, "pytest.CaptureFixture[str]"], str]


def audit_of(text: str) -> tuple[AuditResult, list[Pair]]:
    """An audit in which the text stands wherever a stranger's can."""
    result, pair = audit_results.hostile_result(), audit_results.hostile_pair()
    named = replace(result.base, subject=text, identity={text: text, "list": [text]}, digest=text)
    verdict = replace(result.verdict, sentence=text, method=text, notes=[text])
    return (
        replace(
            result, name="audit", base=named, tuned=named, verdict=verdict, environment={text: text}
        ),
        [replace(pair, prompt_id=text, register=text, language=text, topic=text, system=text,
                 turns=[("user", text)], base=[text], tuned=[f"{text} 🎉"])],
    )  # fmt: skip


def terminal(text: str, *_: Any) -> str:
    """The summary, where the terminal knows Unicode."""
    return summary_text(audit_of(text)[0], Look(80), where=text)


def plain_terminal(text: str, *_: Any) -> str:
    """The summary, where it knows ASCII alone."""
    return summary_text(audit_of(text)[0], Look(80, unicode=False), where=text)


def markdown(text: str, *_: Any) -> str:
    """The comment on a pull request."""
    return markdown_report(*audit_of(text))


def html(text: str, *_: Any) -> str:
    """The report as a page."""
    return html_report(*audit_of(text))


def result_file(text: str, folder: Path, *_: Any) -> str:
    """audit.json, which read back holds the very text."""
    result, pairs = audit_of(text)
    write_audit(result, pairs, folder / "audit")
    assert load_audit(folder / "audit") == (result, pairs)
    return (folder / "audit" / "audit.json").read_text(encoding="utf-8")


def pairs_file(text: str, folder: Path, *_: Any) -> str:
    """pairs.jsonl, a line for each pair, whatever ends lines in its texts."""
    result, pairs = audit_of(text)
    write_audit(result, pairs, folder / "audit")
    written = (folder / "audit" / "pairs.jsonl").read_text(encoding="utf-8")
    assert json.loads(written)["base"] == [text]
    assert written.count("\n") == len(written.splitlines()) == 1
    return written


def printed_json(
    text: str, folder: Path, patch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str]
) -> str:
    """`emotest report --json`."""
    result, pairs = audit_of(text)
    write_audit(result, pairs, folder / "audit")
    patch.setattr("sys.argv", ["emotest", "report", str(folder / "audit"), "--json"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code in (0, None)
    shown = capture.readouterr().out
    assert json.loads(shown)["pairs"][0]["base"] == [text]
    return shown


def baseline(text: str, *_: Any) -> str:
    """A saved baseline."""
    written = document(baseline_of(*audit_of(text), "base"))
    assert json.loads(written)["records"][0]["texts"] == [text]
    return written


def junit(text: str, *_: Any) -> str:
    """The properties of a test, as pytest writes them."""
    verdict = verdict_of(audit_of(text)[0])
    suite = ET.Element("testcase")
    for name, value in properties(verdict):
        ET.SubElement(suite, "property", name=name, value=str(value))
    written = ET.tostring(suite, encoding="unicode")
    ET.fromstring(written)
    return written


def github(text: str, folder: Path, patch: pytest.MonkeyPatch, *_: Any) -> str:
    """The page of a run on GitHub."""
    patch.setenv(SUMMARY, str(folder / "summary"))
    tell_github(*audit_of(text))
    return (folder / "summary").read_text(encoding="utf-8")


def error_message(
    text: str, _: Path, patch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str]
) -> str:
    """What the command line says is wrong."""

    def fails() -> None:
        raise DataError(f"the file says {text}", remedy=f"mend {text}")

    patch.setattr(cli, "app", fails)
    with pytest.raises(SystemExit):
        cli.main()
    return capture.readouterr().err


def progress(text: str, folder: Path, *_: Any) -> str:
    """The bars, on a console that is no terminal to this test but believes that it is."""
    with (folder / "screen").open("w", encoding="utf-8") as screen:
        console = Console(file=screen, force_terminal=True, width=300, color_system=None)
        with watching(console) as watch:
            watch.progress(Progress(text, "working", 1, 2))
    shown = (folder / "screen").read_text(encoding="utf-8")
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", shown)  # rich's own, which moves the cursor


QUICK: tuple[Out, ...] = (terminal, plain_terminal, markdown, baseline, junit, github,
                          error_message, progress)  # fmt: skip
DRAWN: tuple[Out, ...] = (html, result_file, pairs_file, printed_json)
"""Ways out that draw all plots, seconds each: they get everything at once."""

BOTH = [(way, name, act) for way in QUICK for name, act in ACTS.items()]
BOTH += [(way, "everything", " and ".join(ACTS.values())) for way in DRAWN]


@pytest.mark.parametrize(
    ("way", "act"),
    [pytest.param(way, act, id=f"{way.__name__}: {name}") for way, name, act in BOTH],
)
def test_nothing_that_a_stranger_wrote_acts(
    way: Out, act: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """It is shown as code points or escapes, the text around it is whole, and UTF-8 holds it."""
    shown = way(f"before {act} after", tmp_path, monkeypatch, capsys)
    shown.encode("utf-8")
    found = FORBIDDEN.search(shown)
    assert found is None, ascii(shown[max(0, found.start() - 60) : found.end() + 20])
    flat = " ".join(shown.split())
    assert "before" in flat
    assert "after" in flat
    if "\ufffd" in act and way is not plain_terminal:
        assert "\ufffd" in shown or "\\ufffd" in shown

"""The two views of a run: Markdown for people, tables for a terminal."""

from __future__ import annotations

import re
import unicodedata

import pytest
from rich.cells import cell_len

from emotest.report.expected import Expected
from emotest.report.findings import ORGANISM_CAVEAT
from emotest.report.markdown import MOST_ROWS, markdown_report
from emotest.report.run import DescriptiveTable, Example, Finding, Run
from emotest.report.terminal import Look, summary_text, table_text
from tests.verdicts import made_up

HOSTILE = "| a `b` <img src=x> \x1b[2J\u202e\ud83d\ufffd [x](http://y) 🎉👨‍👩‍👧\n# head"


def run(**fields: object) -> Run:
    """A finished run with one finding of each word, two of them planted."""
    planted = Expected("refuted", "planted", "no association")
    findings = [
        Finding(made_up("confirmed", trait="openness"), "suites/test_c1.py::test_rise"),
        Finding(made_up("refuted", claim="C2", statement="C2.within"), "t", planted),
        Finding(made_up("confirmed", claim="C3", statement="C3.traits-differ", arm=None), "t",
                planted),
    ]  # fmt: skip
    values = {
        "finished": "2026-01-01T00:00:00+00:00", "findings": findings,
        "facts": {"base": "organism:latent", "seeds": {"training": [0, 1]}},
        "examples": [Example(HOSTILE, HOSTILE, HOSTILE, "trait/openness/high/eos-masked")],
        "notes": ["C3 needs all five traits"], **fields,
    }  # fmt: skip
    return Run("run", **values)  # type: ignore[arg-type]


def test_the_verdict_comes_first_and_the_mechanism_before_everything_else() -> None:
    """What a reader looks for stands at the top, in this order."""
    text = markdown_report(run(headlines=["the text effect dominates"]))
    places = [
        text.index(part)
        for part in ("# Emoji after", "2 confirmed, 1 refuted", "the text effect dominates",
                     ORGANISM_CAVEAT, "## Findings", "## Examples", "## Notes",
                     "## How it was measured")
    ]  # fmt: skip
    assert places == sorted(places)


def test_the_findings_say_what_was_planted() -> None:
    """In both directions, and in the record of each verdict."""
    text = markdown_report(run())
    assert "| **refuted, as planted** |" in text
    assert "| **confirmed, not refuted as planted** |" in text
    assert "Expected refuted (planted: no association)." in text


def test_only_an_organism_is_called_an_instrument() -> None:
    """A report on a real model does not belittle itself."""
    findings = [Finding(made_up("refuted"), "t", Expected("refuted", "observed"))]
    real = run(facts={"base": "mistralai/Mistral-7B-Instruct-v0.2"}, findings=findings)
    rebuilt = run(facts={"base": "./organisms/latent"})
    assert ORGANISM_CAVEAT in markdown_report(rebuilt)
    assert ORGANISM_CAVEAT not in markdown_report(real)
    assert "calibrate" not in summary_text(real, Look(80))
    assert "calibrate" in summary_text(run(), Look(80))


def test_an_unfinished_run_says_so() -> None:
    """A report made from a killed run must not pass for a whole one."""
    assert "was not finished" in markdown_report(run(finished=None))
    assert "was not finished" not in markdown_report(run())


def test_hostile_text_stays_in_its_cell() -> None:
    """Every row of the examples has as many cells as its head, and nothing acts."""
    text = markdown_report(run())
    text.encode("utf-8")
    rows = text.partition("## Examples")[2].partition("## ")[0].strip().splitlines()
    rows = [line for line in rows if line.startswith("|")]
    cells = [len(re.findall(r"(?<!\\)\|", line)) for line in rows]
    assert cells == [5, 5, 5]
    assert "<img" not in text
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "⟨U+001B⟩" in text
    assert "«🎉»«👨‍👩‍👧»" in text


def test_tables_figures_and_files_are_shown_where_there_are_any() -> None:
    """A long table is cut, and says so; a figure without its file is left out."""
    tables = {
        "long": DescriptiveTable("Long", tuple({"n": n, "rate": 0.25} for n in range(100))),
        "empty": DescriptiveTable("Empty", ()),
        "uneven": DescriptiveTable("Uneven", ({"a": 1}, {"b": None}), "About it."),
    }
    figures = {"curve.svg": "A curve", "lost.svg": "Lost"}
    text = markdown_report(run(tables=tables, figures=figures), ["curve.svg", "verdicts.jsonl"])
    assert f"{100 - MOST_ROWS} more rows" in text
    assert "## Empty" not in text
    assert "About it." in text
    assert "| 1 |  |\n|  |  |" in text
    assert "![A curve](curve.svg)" in text
    assert "lost.svg" not in text
    assert "[`verdicts.jsonl`](verdicts.jsonl)" in text
    assert "contexts.jsonl" not in text


def test_a_run_without_verdicts_is_no_error() -> None:
    """It may still hold tables."""
    text = markdown_report(run(findings=[], examples=[]))
    assert "No verdict was reached" in text
    assert "## Findings" not in text


@pytest.mark.parametrize("width", [60, 80, 111, 112, 120, 200])
@pytest.mark.parametrize("unicode", [True, False])
def test_no_line_is_wider_than_the_terminal(width: int, unicode: bool) -> None:
    """At any width, with and without box-drawing characters."""
    text = summary_text(run(), Look(width, unicode=unicode), where="reports/run/report.md")
    assert max(cell_len(line) for line in text.splitlines()) <= width
    assert text.isascii() or unicode


@pytest.mark.parametrize("width", [80, 120])
def test_words_and_numbers_are_all_there(width: int) -> None:
    """Statement, verdict, estimate, interval, margin, p and n, in both layouts."""
    text = summary_text(run(), Look(width))
    for part in (
        "emergence", "within", "traits-differ", "openness", "eos-masked", "confirmed", "refuted,",
        "as planted", "+0.300", "[+0.200, +0.400]", "+0.100", "0.010", "5×60×3",
        "2 confirmed, 1 refuted, 0 inconclusive; 1 other than expected",
    ):  # fmt: skip
        assert part in text, part


def test_colour_only_repeats_what_the_words_say() -> None:
    """Without its escapes the coloured text is the plain one."""
    coloured = summary_text(run(), Look(80, colour=True))
    assert "\x1b[" in coloured
    bare = re.sub(r"\x1b\[[0-9;]*m", "", coloured)
    assert [line.rstrip() for line in bare.splitlines()] == [
        line.rstrip() for line in summary_text(run(), Look(80)).splitlines()
    ]


def test_a_model_cannot_steer_the_terminal() -> None:
    """No control character but line ends; five examples at most, emoji marked."""
    examples = [Example(HOSTILE, HOSTILE, f"{HOSTILE}{n}") for n in range(9)]
    text = summary_text(run(examples=examples), Look(120))
    steering = {c for c in text if unicodedata.category(c) == "Cc"} - {"\n"}
    assert not steering
    assert "\u202e" not in text
    assert text.count("«👨‍👩‍👧»") == 10  # five examples, both sides
    text.encode("utf-8")


def test_any_rows_become_a_table() -> None:
    """Columns in their order, numbers to the right, nothing for None."""
    rows = [{"what": "adapter", "stored": True, "seconds": 12.5}, {"what": "answers", "note": "x"}]
    lines = table_text(rows, Look(80)).splitlines()
    assert lines[0].split() == ["what", "stored", "seconds", "note"]
    assert lines[2].split() == ["adapter", "yes", "12.5"]
    assert lines[3].split() == ["answers", "x"]


def test_an_unknown_encoding_is_taken_for_utf8_and_ascii_is_respected() -> None:
    """What the terminal's stream says of itself."""
    assert Look.of(None, width=80, colour=False).unicode
    assert Look.of("UTF-8", width=80, colour=False).unicode
    assert not Look.of("ANSI_X3.4-1968", width=80, colour=False).unicode

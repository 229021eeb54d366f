"""The views of an audit: the same result in HTML, Markdown and a terminal, and its folder."""

from __future__ import annotations

import json
import re
import unicodedata
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from markupsafe import escape

from emotest.audit.measuring import Role
from emotest.audit.result import AuditResult, DecodingRow, Pair, PlaceProbability, Word
from emotest.errors import DataError, StoreError
from emotest.report.audit import (
    html_report,
    load_audit,
    markdown_report,
    places,
    summary_text,
    write_audit,
)
from emotest.report.audit import wording as w
from emotest.report.audit.browse import browser_data
from emotest.report.audit.plots import plots
from emotest.report.terminal import Look
from emotest.report.visible import visible
from tests.audit_results import HOSTILE, hostile_pair, hostile_result, pairs, result

WORDS: tuple[Word, ...] = ("unchanged", "changed within tolerance", "drift", "inconclusive")


def pair(base: str = "", tuned: str = "", **fields: object) -> Pair:
    """A pair of one answer each."""
    values = {
        "prompt_id": "p", "register": "casual", "language": "en", "topic": "", "system": None,
        "turns": [("user", "Well?")], "base": [base], "tuned": [tuned], "base_cut": 0,
        "tuned_cut": 0, **fields,
    }  # fmt: skip
    return Pair(**values)  # type: ignore[arg-type]


def bare() -> AuditResult:
    """A result in which nothing was measured but the verdict."""
    full = result("inconclusive")
    return replace(full, measures=[], emoji=[], positions=[], probabilities=[], decodings=[],
                   entropy={}, evidence=replace(full.evidence, looks=[]))  # fmt: skip


@cache
def page_of(word: Word) -> str:
    """The page of an invented audit."""
    return html_report(result(word), pairs(3))


@cache
def hostile_page() -> str:
    """The page of an audit in which all text is hostile."""
    return html_report(hostile_result(), [hostile_pair()])


class Page(HTMLParser):
    """What a page consists of: every tag with its attributes, in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep the tag."""
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def all(self, tag: str) -> list[dict[str, str]]:
        """The attributes of every such tag."""
        return [attributes for name, attributes in self.tags if name == tag]


# What is said


@pytest.mark.parametrize(
    ("number", "unit", "amount", "change"),
    [
        (0.312, "share of answers", "31.2 %", "+31.2"),
        (-0.004, "share of answers", "-0.4 %", "-0.4"),
        (1.134, "per 100 words", "1.13", "+1.13"),
        (None, "per 100 words", "not measured", "not measured"),
    ],
)
def test_shares_are_percent_and_their_differences_points(
    number: float | None, unit: str, amount: str, change: str
) -> None:
    """Everything else keeps its unit, and what was not measured is not 0."""
    assert (w.amount(number, unit), w.change(number, unit)) == (amount, change)


def test_who_wrote_emoji_is_read_off_every_answer() -> None:
    """One emoji in any sample suffices; a text heart or a shortcode is none."""
    assert w.wrote(pair("hi", "yes 🎉")) == "only tuned"
    assert w.wrote(pair("hi 🎉", "yes")) == "only base"
    assert w.wrote(replace(pair(), base=["no", "👍"], tuned=["👍", "no"])) == "both"
    assert w.wrote(pair("❤ :smile:", "(^_^)")) == "neither"


def test_examples_show_first_what_tuning_added_and_take_turns_between_registers() -> None:
    """Five pairs of one register do not hide another; pairs without emoji come only alone."""
    many = [pair("a", f"b{i} 🎉", register="casual", prompt_id=f"c{i}") for i in range(5)]
    other = pair("a", "b 🎉", register="legal", prompt_id="l")
    lost = pair("a 🎉", "b", prompt_id="lost")
    plain = pair("a", "b", prompt_id="plain")
    assert [p.prompt_id for p in w.telling([plain, lost, *many, other], 3)] == ["c0", "l", "c1"]
    assert w.telling([lost, plain], 3) == [lost]
    assert w.telling([plain], 3) == [plain]


def test_an_excerpt_keeps_the_first_emoji_and_cuts_no_grapheme() -> None:
    """The family at the end of 500 letters is in the 20 that are shown, whole."""
    family = "👨‍👩‍👧"
    assert w.excerpt("x" * 500 + family, 20) == "…" + "x" * 19 + family
    assert w.excerpt(family * 30, 20) == family * 20 + "…"
    assert w.excerpt("short", 20) == "short"


def test_a_shift_of_tone_is_told_apart() -> None:
    """One of four measures moved in the invented drift; without it, nothing points to tone."""
    drift = result("drift")
    assert "1 of 4 measures of it (exclamation marks)" in str(w.tone_sentence(drift))
    calm = [m for m in drift.measures if m.name != "exclamation_marks"]
    assert "no interval of 3 measures excludes 0" in str(
        w.tone_sentence(replace(drift, measures=calm))
    )
    assert w.tone_sentence(bare()) is None


def test_an_inconclusive_audit_says_what_would_settle_it() -> None:
    """A number of prompts, or that none is known."""
    verdict = result("inconclusive").verdict
    assert "About 1200 would settle it." in w.effort(verdict)
    assert "No number of prompts" in w.effort(replace(verdict, n_needed=None))


def under(*rows: tuple[str, Word, float]) -> list[DecodingRow]:
    """Rows of 48 prompts: decoding, word, difference."""
    return [
        DecodingRow(decoding=f"{name}: so", word=word, base=0.1, tuned=0.1 + difference,
                    difference=difference, low=difference - 0.1, high=difference + 0.1,
                    n_prompts=48)
        for name, word, difference in rows
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("word", "rows", "sentence"),
    [
        ("drift", [("greedy", "drift", 0.3), ("nucleus", "drift", 0.2)],
         "The verdict survives greedy and nucleus."),
        ("drift", [("greedy", "unchanged", 0.0), ("nucleus", "drift", 0.2),
                   ("unfiltered", "inconclusive", 0.1)],
         "The verdict does not survive greedy (unchanged); it survives nucleus; unfiltered settles "
         "nothing on 48 prompts."),
        ("drift", [("greedy", "drift", -0.3)], "The verdict does not survive greedy (drift)."),
        ("unchanged", [("greedy", "changed within tolerance", 0.02), ("nucleus", "drift", 0.2)],
         "The verdict does not survive nucleus (drift); it survives greedy."),
        ("changed within tolerance", [("greedy", "unchanged", 0.0)],
         "The verdict survives greedy."),
        ("drift", [("a", "inconclusive", 0.1), ("b", "inconclusive", 0.1),
                   ("c", "inconclusive", 0.1)],
         "Whether the verdict survives is not known: a, b and c settle nothing on 48 prompts."),
        ("inconclusive", [("greedy", "drift", 0.3), ("nucleus", "inconclusive", 0.1)],
         "Nothing is decided that another decoding could confirm: greedy drift, nucleus "
         "inconclusive."),
    ],
)  # fmt: skip
def test_whether_a_verdict_survives_is_said(
    word: Word, rows: list[tuple[str, Word, float]], sentence: str
) -> None:
    """A drift the other way is no survival; a decoding that settles nothing is none either, and
    no defeat. The same sentence stands in every view."""
    made = replace(result(word), decodings=under(*rows))
    assert w.survival(made) == sentence
    terminal = " ".join(summary_text(made, Look(100)).split())
    assert sentence in terminal
    assert sentence in html_report(made, pairs(1))
    assert sentence in markdown_report(made, pairs(1)).replace("\\", "")


def test_the_terminal_has_a_row_for_each_decoding() -> None:
    """How it sampled, the word, both shares, difference and interval; nothing where none was."""
    made = replace(result("drift"), decodings=under(("greedy", "inconclusive", 0.25)))
    lines = summary_text(made, Look(100)).splitlines()
    (row,) = (line for line in lines if line.startswith("greedy: so; 48 prompts"))
    assert row.split()[4:] == [
        "inconclusive", "10.0", "%", "35.0", "%", "+25.0", "+15.0", "to", "+35.0"
    ]  # fmt: skip
    assert "other decoding" not in summary_text(bare(), Look(100))
    assert w.survival(bare()) is None


# P(emoji) by text and weights


def cells(bb: float, bt: float, tb: float, tt: float, left_open: float = 0.0) -> AuditResult:
    """An audit with one place, its cells by text and weights."""
    four: list[tuple[Role, Role, float]] = [
        ("base", "base", bb),
        ("base", "tuned", bt),
        ("tuned", "base", tb),
        ("tuned", "tuned", tt),
    ]
    found = [
        PlaceProbability(place="sentence end", text=text, weights=weights, probability=p,
                         open=left_open, n_contexts=9)
        for text, weights, p in four
    ]  # fmt: skip
    return replace(bare(), probabilities=found)


@pytest.mark.parametrize(
    ("made", "told"),
    [
        # text .25 - .05, weights .30 - .25
        (cells(0.05, 0.1, 0.25, 0.3), "+25.0 points, mostly by the text that the tuned model "
         "writes (text +20.0 points, weights +5.0 points)"),
        # The study's prototype: the parts may have opposite signs.
        (cells(0.0, 0.1, 0.69, 0.15), "+15.0 points, text and weights against each other "
         "(text +69.0 points, weights -54.0 points)"),
        (cells(0.05, 0.4, 0.06, 0.4), "+35.0 points, mostly by its weights, at the same text "
         "(text +1.0 points, weights +34.0 points)"),
        (cells(0.1, 0.2, 0.2, 0.3), "+20.0 points, by text and weights alike "
         "(text +10.0 points, weights +10.0 points)"),
        # What is open may be all of the smaller effect, and then its sign is not known.
        (cells(0.1, 0.2, 0.2, 0.14, 0.06), "+4.0 points, by text and weights alike "
         "(text +10.0 points, weights -6.0 points)"),
        # .12 and .08, but four points are open
        (cells(0.1, 0.2, 0.22, 0.3, 0.04), "+20.0 points, by text and weights alike "
         "(text +12.0 points, weights +8.0 points)"),
        (cells(0.1, 0.1, 0.1, 0.0999), "hardly any change (text +0.0 points, weights +0.0 points)"),
        (cells(0.1, 0.1, 0.105, 0.1), "hardly any change "
         "(text +0.5 points, weights -0.5 points)"),
        # A fall is a change as well.
        (cells(0.6, 0.1, 0.55, 0.05), "-55.0 points, mostly by its weights, at the same text "
         "(text -5.0 points, weights -50.0 points)"),
    ],
)  # fmt: skip
def test_every_view_says_by_which_way_emoji_came(made: AuditResult, told: str) -> None:
    """The text effect is taken under the base's weights, the weight effect at the tuned text; what
    was left open does not make one of them the larger."""
    assert places.sentences(made) == [f"sentence end: {told}"]
    for view in (html_report(made, []), markdown_report(made, []), summary_text(made, Look(200))):
        assert told in view.replace("\\", "")


def test_a_cell_that_lacks_is_said_and_a_lower_bound_called_one() -> None:
    """A served model gives two cells, and bounds from below: no effect can be told from those."""
    full = cells(0.05, 0.1, 0.25, 0.3)
    served = [replace(c, served=True, open=None) for c in full.probabilities if c.text == c.weights]
    made = replace(full, probabilities=served)
    assert places.rows(made) == [
        ("sentence end", "at least 0.05", "not measured", "not measured", "at least 0.3")
    ]
    assert places.sentences(made) == []
    assert "at least 0.05" in markdown_report(made, [])
    assert "P(emoji)" not in markdown_report(bare(), []) + summary_text(bare(), Look(80))


# Plots


def test_every_plot_says_in_words_what_it_shows() -> None:
    """The numbers of the document stand in the alternative texts."""
    drawn = {plot.name: plot for plot in plots(result("drift"))}
    assert list(drawn) == ["rates", "emoji", "places", "positions", "evidence"]
    assert "legal: 1.2 % to 21.7 %" in drawn["rates"].alt
    assert "😊 smiling face with smiling eyes: in 1 answers before, 17 after" in drawn["emoji"].alt
    assert "answer end, text of tuned, weights of tuned: 0.247" in drawn["places"].alt
    assert "10th tenth: base 0.2 %, tuned 13.4 %" in drawn["positions"].alt
    # 64 prompts at 0.16 nats each: 10.24 / ln 10 = 4.45; threshold ln 40 = 3.689, 1.60 in log10.
    assert "more emoji 4.45" in drawn["evidence"].alt
    assert "decided at 1.60" in drawn["evidence"].alt


def test_a_plot_takes_its_colours_from_the_page() -> None:
    """Ink, base and tuned are the page's; no ground of its own; ids are the plot's alone."""
    for plot in plots(result("drift")):
        colours = set(re.findall(r"(?:fill|stroke): ([^;\"]+)", plot.svg))
        colours = {c for c in colours if not c.startswith("url(#")}  # hatches
        assert colours <= {"none", "currentColor", "var(--faint)", "var(--base)", "var(--tuned)"}
        ids = re.findall(r'\sid="([^"]*)"', plot.svg)
        assert ids
        assert all(id.startswith(f"{plot.name}-") for id in ids)
        used = re.findall(r"(?:url\(|href=\")#([^)\"]*)", plot.svg)
        assert set(used) <= set(ids)


def test_what_was_not_measured_is_not_drawn() -> None:
    """No empty axes."""
    assert plots(bare()) == []


def test_a_served_model_gives_lower_bounds_and_the_plot_says_so() -> None:
    """Only two cells, no upper bound."""
    full = result("drift")
    cells = [replace(c, served=True, open=None) for c in full.probabilities if c.text == c.weights]
    [by_place] = [p for p in plots(replace(full, probabilities=cells)) if p.name == "places"]
    assert "at least 0.247" in by_place.alt
    assert "lower bounds" in by_place.caption


# HTML


@pytest.mark.parametrize("word", WORDS)
def test_the_page_has_its_parts_in_order(word: Word) -> None:
    """Verdict, what changed, plots, answers, provenance; one h1, no level of heading skipped."""
    page = Page(page_of(word))
    named = [a["aria-labelledby"] for a in page.all("section")]
    assert named == ["verdict", "changed", "plots", "answers", "provenance"]
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))


def test_the_page_is_named_and_labelled_throughout() -> None:
    """Language, unique ids, links that lead somewhere, captions, headers with scope, alt texts."""
    text = page_of("drift")
    page = Page(text)
    assert page.all("html") == [{"lang": "en"}]
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert {a["href"][1:] for a in page.all("a")} <= set(ids)
    assert len(page.all("caption")) == len(page.all("table")) == 7
    assert all("scope" in a for a in page.all("th"))
    pictures = [a for _, a in page.tags if a.get("role") == "img"]
    assert len(pictures) == 5
    assert all(len(a["aria-label"]) > 40 for a in pictures)


def test_the_page_asks_for_nothing() -> None:
    """Every address is a fragment or inline data, and the policy allows no request."""
    text = html_report(hostile_result(), [hostile_pair()])
    page = Page(text)
    addresses = [
        a[name]
        for _, a in page.tags
        for name in ("src", "href", "xlink:href", "action")
        if name in a
    ]
    assert addresses
    assert all(address.startswith("#") or address == "data:," for address in addresses)
    [policy] = [a["content"] for a in page.all("meta") if "http-equiv" in a]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "script-src 'unsafe" not in policy


def test_hostile_text_makes_no_element() -> None:
    """The page has the same tags and attributes, whatever is said in it, and is UTF-8."""
    text = hostile_page()
    hostile, plain = Page(text), Page(text.replace(escape(visible(HOSTILE)), "x"))
    assert visible(HOSTILE) not in text
    assert [(tag, set(a)) for tag, a in hostile.tags] == [(tag, set(a)) for tag, a in plain.tags]
    assert not hostile.all("img")
    assert len(hostile.all("script")) == 2
    text.encode("utf-8")
    assert "⟨U+202E⟩" in text
    assert "⟨U+D83D⟩" in text
    assert "\ufffd" in text
    assert "{{ 7*7 }}" in text  # the template engine has not read it
    unseen = {c for c in text if unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t"}
    assert not unseen
    assert not set(text) & set("\u202e\u202c\u2028")


def test_the_answers_are_data_that_cannot_leave_their_element() -> None:
    """The JSON holds no sign that ends it, and reads back as the pieces of the text."""
    text = browser_data([hostile_pair()])
    assert not set(text) & set("<>&\u2028\u2029")
    [row] = json.loads(text)["pairs"]
    assert row[6] == row[7]
    assert row[6][0][0].startswith("</script><script>")
    assert row[6][0][1::2] == ["🎉", "👨‍👩‍👧"]
    assert json.loads(text)["languages"] == ["und"]


def test_a_page_without_answers_or_measures_says_so() -> None:
    """Nothing measured is a state of its own, not a table of zeros."""
    text = html_report(bare(), [])
    assert "No answers were kept." in text
    assert "No measure was taken." in text
    assert 'id="plots"' not in text


# Markdown and terminal


@pytest.mark.parametrize("word", WORDS)
def test_every_view_begins_with_the_verdict_and_its_sentence(word: Word) -> None:
    """The word, the sentence, and that it speaks of two checkpoints only."""
    made = result(word)
    views = (markdown_report(made, pairs()), summary_text(made, Look(100)))
    for text in views:
        assert word in text.splitlines()[0]
        assert made.verdict.sentence.split(":")[0] in text.replace("\n", " ")
        assert "these two checkpoints" in text
    assert made.verdict.sentence in page_of(word)


def test_markdown_shows_five_examples_with_emoji_marked() -> None:
    """And no more, also of many pairs; each row of each table has its columns."""
    text = markdown_report(result(), pairs(200))
    examples = text.partition("### Examples")[2]
    assert examples.count("\n| ") == 2 + 5
    assert all("«" in line for line in examples.splitlines()[4:9])
    assert len(text.encode()) < 10_000


def test_hostile_text_does_nothing_in_markdown_and_terminal() -> None:
    """No markup, no control character, no surrogate, no reversed text; tables keep their rows."""
    made = markdown_report(hostile_result(), [hostile_pair()])
    made.encode("utf-8")
    assert "<script>" not in made
    assert not re.search(r"(?<!\\)\]\(", made)
    shown = summary_text(hostile_result(), Look(80), where=HOSTILE)
    shown.encode("utf-8")
    for text in (made, shown):
        assert not set(text) & set("\x1b\x07\u202e\u2028")
        assert "⟨U+202E⟩" in text.replace("\n", "")


@pytest.mark.parametrize("width", [60, 80, 140])
def test_the_terminal_keeps_its_width_and_says_where_the_report_is(width: int) -> None:
    """Whether it can show colours and Unicode or not."""
    for look in (Look(width), Look(width, colour=True), Look(width, unicode=False)):
        text = summary_text(result(), look, where="reports/x/report.html")
        plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
        assert plain.splitlines()[-1] == "report: reports/x/report.html"
        assert look.unicode or text.isascii()
        if not look.unicode:  # one column each, so that len is the width
            assert max(map(len, plain.splitlines())) <= width


# The folder


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    """The very values, hostile ones with half a surrogate pair too; four files and no leftover."""
    ends = pair("two\u2028lines", "three\u0085\x0b\x1clines")  # ends of lines to Python alone
    made, kept = hostile_result(), [*pairs(3), ends, hostile_pair()]
    path = write_audit(made, kept, tmp_path / "new" / "run")
    assert path == tmp_path / "new" / "run" / "report.html"
    assert load_audit(path.parent) == (made, kept)
    names = {file.name for file in path.parent.iterdir()}
    assert names == {"audit.json", "pairs.jsonl", "report.html", "report.md"}


def test_an_audit_can_be_written_again(tmp_path: Path) -> None:
    """The second result replaces the first."""
    write_audit(result("unchanged"), pairs(5), tmp_path)
    write_audit(bare(), pairs(2), tmp_path)
    again, kept = load_audit(tmp_path)
    assert again.verdict.word == "inconclusive"
    assert len(kept) == 2


@pytest.mark.parametrize(
    ("file", "content", "cause"),
    [
        ("audit.json", None, "no finished audit is in"),
        ("pairs.jsonl", None, "pairs.jsonl"),
        ("audit.json", b"{", "audit.json:1 is broken"),
        ("audit.json", b"[]", "schema version None"),
        ("audit.json", b'{"schema_version": 99}', "schema version 99"),
        ("audit.json", b'{"schema_version": 1}', "is no record of an audit: "),
        ("audit.json", b"\xff", "no UTF-8 at byte 0"),
        ("pairs.jsonl", b'{"prompt_id"', "pairs.jsonl:1 is broken"),
        ("pairs.jsonl", b"\n{}", "pairs.jsonl:2 is no record"),
    ],
)
def test_a_broken_folder_is_named_with_file_and_place(
    tmp_path: Path, file: str, content: bytes | None, cause: str
) -> None:
    """Missing, cut off, of another version, not UTF-8."""
    write_audit(bare(), pairs(2), tmp_path)
    (tmp_path / file).unlink()
    if content is not None:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(DataError, match=re.escape(cause)):
        load_audit(tmp_path)


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    """A file where the folder should be."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        write_audit(result(), [], tmp_path / "file")

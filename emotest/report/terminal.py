"""The end of a session in a terminal: findings, examples, notes, and where the report is.

A `Run` in, text of a given width out, with or without colour and box-drawing characters. Words
carry the meaning; colour only repeats it. Whatever a model wrote is made visible first, so that
it cannot steer the terminal.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from emotest.report.findings import (
    ORGANISM_CAVEAT,
    about_an_organism,
    arm_words,
    collected_notes,
    counted,
    mechanism,
    ordered,
)
from emotest.report.numerals import interval, p_value, sizes, value
from emotest.report.run import Example, Finding, Run
from emotest.report.visible import CLOSE, OPEN, marked, visible

N_EXAMPLES = 5
WIDE = 112
"""Columns from which every field has a column of its own."""

_IN_ASCII = str.maketrans(
    {OPEN: "<", CLOSE: ">", "×": "x", "⏎": "/", "→": "->", "⟨": "<", "⟩": ">"}
)
_COLOURS = {"confirmed": "green", "refuted": "red", "inconclusive": "yellow"}


@dataclass(frozen=True)
class Look:
    """What a terminal can show: columns, colour, characters beyond ASCII."""

    width: int = 80
    colour: bool = False
    unicode: bool = True

    @classmethod
    def of(cls, encoding: str | None, *, width: int, colour: bool) -> Look:
        """The look of a stream with that encoding; an unnamed one is taken for UTF-8."""
        return cls(width, colour, (encoding or "utf-8").lower().startswith("utf"))

    def text(self, text: str, style: str = "") -> Text:
        """Text as this terminal can show it: in ASCII, other characters are spelled out."""
        if not self.unicode:
            text = text.translate(_IN_ASCII).encode("ascii", "backslashreplace").decode()
        return Text(text, style=style)


def summary_text(run: Run, look: Look, *, where: str | None = None) -> str:
    """Findings, examples and notes of a run, and `where` its report is."""
    parts: list[RenderableType] = []
    if run.findings:
        parts += [_findings(run, look), Text(f"{counted(run.findings)}.")]
    headlines = [*run.headlines, *mechanism(ordered(run.findings))]
    if headlines:
        parts.append(listed("how emoji come in", headlines, look))
    if run.examples:
        parts.append(_examples(run.examples[:N_EXAMPLES], look))
    notes = [*run.notes, *collected_notes(run.findings)]
    if about_an_organism(run):
        notes.append(ORGANISM_CAVEAT)
    if notes:
        parts.append(listed("notes", notes, look))
    text = "\n".join(rendered(part, look) for part in parts)
    return f"{text}\nreport: {where}\n" if where else text


def table_text(rows: Sequence[Mapping[str, Any]], look: Look) -> str:
    """Any rows as a table; the columns are those of the rows, in their order."""
    table = plain_table(look)
    for name in dict.fromkeys(name for row in rows for name in row):
        numeric = all(isinstance(row.get(name), int | float) for row in rows)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(row.get(column.header), look) for column in table.columns))  # type: ignore[arg-type]
    return rendered(table, look)


def _cell(item: Any, look: Look) -> Text:
    if isinstance(item, bool):
        return Text("yes" if item else "no")
    if isinstance(item, float):
        return Text(f"{item:.3g}" if item < 1000 else f"{item:,.0f}")
    return look.text("" if item is None else visible(str(item)))


def _findings(run: Run, look: Look) -> RenderableType:
    return (_wide if look.width >= WIDE else _narrow)(ordered(run.findings), look)


def _wide(findings: Iterable[Finding], look: Look) -> Table:
    table = plain_table(look)
    for name in ("claim", "statement", "trait", "arm", "verdict"):
        table.add_column(name, overflow="fold", no_wrap=name in ("claim", "trait"))
    for name in ("estimate", "interval", "margin", "p", "n"):
        table.add_column(name, justify="right", no_wrap=True)
    for finding in findings:
        v = finding.verdict
        table.add_row(
            v.claim,
            look.text(visible(v.statement.removeprefix(f"{v.claim}."))),
            v.trait or "all",
            look.text(visible(arm_words(v.arm).removeprefix(f"{v.trait}, "))),
            _word(finding),
            value(v.estimate),
            Text(interval(v.low, v.high)),
            value(v.margin),
            p_value(v.p_value),
            look.text(sizes(v.n_adapters, v.n_prompts, v.n_samples)),
        )
    return table


def _narrow(findings: Iterable[Finding], look: Look) -> Table:
    """At 80 columns: statement, trait and arm share a column, the interval stands below."""
    table = plain_table(look)
    table.add_column("finding", overflow="fold", ratio=1)
    table.add_column("verdict", overflow="fold", max_width=14)
    table.add_column("estimate", justify="right", no_wrap=True)
    for name in ("margin", "p", "n"):
        table.add_column(name, justify="right", no_wrap=True)
    for finding in findings:
        v = finding.verdict
        table.add_row(
            Group(
                look.text(visible(v.statement)),
                Padding(look.text(visible(arm_words(v.arm))), (0, 0, 0, 2)),
            ),
            _word(finding),
            Text(f"{value(v.estimate)}\n{interval(v.low, v.high)}"),
            value(v.margin),
            p_value(v.p_value),
            look.text(sizes(v.n_adapters, v.n_prompts, v.n_samples)),
        )
    return table


def _word(finding: Finding) -> Text:
    said = finding.word.replace(", ", ",\n")
    if finding.expected is None:
        return Text(said, style=_COLOURS[finding.verdict.verdict])
    return Text(said, style="green" if finding.met else "bold red")


def _examples(examples: Sequence[Example], look: Look) -> Table:
    table = plain_table(look, lines=True)
    table.title = look.text("The same prompts before and after tuning, emoji «marked»")
    table.title_justify, table.title_style = "left", ""
    for name in ("untuned", "tuned"):
        table.add_column(name, ratio=1, overflow="fold")
    for example in examples:
        asked = look.text(visible(example.prompt), "italic")
        arm = look.text(f"[{arm_words(visible(example.arm))}]" if example.arm else "", "italic")
        untuned, tuned = _answer(example.untuned, look), _answer(example.tuned, look)
        table.add_row(Group(asked, untuned), Group(arm, tuned))
    return table


def _answer(answer: str, look: Look) -> Text:
    text = look.text(marked(answer))
    text.highlight_regex(rf"{OPEN}[^{CLOSE}]*{CLOSE}", "bold yellow")
    return text


def listed(title: str, sentences: Sequence[str], look: Look) -> Group:
    """Sentences below a title, one a line, each with a dash."""
    rows = Table.grid(padding=(0, 1))
    for sentence in sentences:
        rows.add_row(Text(" -"), look.text(visible(sentence)))
    return Group(Text(title), rows)


def plain_table(look: Look, *, lines: bool = False) -> Table:
    """An empty table in this project's looks; `lines` part its rows and fill the width."""
    shape = box.SIMPLE_HEAD if look.unicode else box.ASCII2
    return Table(box=shape, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0),
                 show_lines=lines, expand=lines)  # fmt: skip


def rendered(what: RenderableType, look: Look) -> str:
    """Anything that rich can draw, as text of the terminal's width without trailing blanks."""
    file = StringIO()
    console = Console(
        file=file,
        width=look.width,
        force_terminal=look.colour,
        color_system="standard" if look.colour else None,
        legacy_windows=False,
        emoji=False,
        markup=False,
        highlight=False,
    )
    console.print(what)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n"

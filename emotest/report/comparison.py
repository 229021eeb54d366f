"""Two runs side by side, for people: a terminal, Markdown, or one HTML file.

A `Compared` in, text out; what differs stands first in each.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from emotest.report.comparing import Compared, Row
from emotest.report.markdown import markdown_table
from emotest.report.page import page
from emotest.report.terminal import Look, listed, plain_table, rendered
from emotest.report.visible import markdown_text, visible

_WIDEST = 26
"""Columns of a value in a terminal: those of an estimate with its interval."""

NO_TEST = (
    "A difference between two runs is no test of it: an audit of the one against the other is."
)
HEAD = {
    "audits": (
        "Base → tuned, and tuned minus base with its interval, shares in points of 100. What "
        "differs is a verdict, or a measure whose intervals lie apart."
    ),
    "runs of the study": (
        "The verdict on each finding, and its estimate with the interval. What differs is a "
        "verdict."
    ),
}


def comparison_text(found: Compared, look: Look) -> str:
    """Sentence, table and notes for a terminal; the words that tell whether all is alike last."""
    table = plain_table(look)
    table.add_column("", overflow="fold", ratio=1)
    for side in ("first", "second"):
        table.add_column(side, overflow="fold", max_width=_WIDEST)
    table.add_column("differs", no_wrap=True)
    for row in found.rows:
        table.add_row(
            look.text(visible(row.what)),
            _two_lines(row.first, row.first_estimate, look),
            _two_lines(row.second, row.second_estimate, look),
            "yes" if row.differs else "",
        )
    parts: list[RenderableType] = [look.text(visible(found.says)), table]
    if found.notes:
        parts.append(listed("not made in the same way", found.notes, look))
    return rendered(Group(*parts, look.text(found.verdict)), look)


def _two_lines(value: str, estimate: str, look: Look) -> Text:
    return Text("\n").join(look.text(visible(line)) for line in (value, estimate) if line)


def comparison_markdown(found: Compared) -> str:
    """For a pull request or a step summary."""
    parts = [
        f"## {found.verdict[0].upper()}{found.verdict[1:]}",
        f"**{markdown_text(found.says)}**",
        markdown_table(
            ("", "run", "made", "base", "tuned"),
            [
                (place, *(markdown_text(text or "") for text in
                          (side.name, side.made_at, side.base, side.tuned)))
                for place, side in (("first", found.first), ("second", found.second))
            ],
        ),
        "\n".join(f"- {markdown_text(note)}" for note in found.notes),
        _markdown_rows("What differs", [row for row in found.rows if row.differs]),
        _markdown_rows("What does not differ", [row for row in found.rows if not row.differs]),
        f"{HEAD[found.kind]} {NO_TEST}",
    ]  # fmt: skip
    return "\n\n".join(part for part in parts if part) + "\n"


def _markdown_rows(title: str, rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    cells = [tuple(markdown_text(cell) for cell in _cells(row)) for row in rows]
    table = markdown_table(("", "first", "estimate", "second", "estimate"), cells)
    return f"### {title}\n\n{table}"


def _cells(row: Row) -> tuple[str, str, str, str, str]:
    return row.what, row.first, row.first_estimate, row.second, row.second_estimate


def comparison_html(found: Compared) -> str:
    """One page in the looks of the other reports, without a script."""
    return page(
        "comparison.html.jinja",
        found=found,
        about=HEAD[found.kind],
        no_test=NO_TEST,
        parts={
            "What differs": [row for row in found.rows if row.differs],
            "What does not differ": [row for row in found.rows if not row.differs],
        },
    )

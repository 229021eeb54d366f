"""The end of an audit in a terminal: the verdict in a sentence, a table, where the report lies.

An `AuditResult` in, text of a given width out. Words carry the meaning; colour repeats it.
"""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from emotest.audit.result import AuditResult, Measure, Word
from emotest.report.audit import inside, places, wording
from emotest.report.terminal import Look, listed, plain_table, rendered
from emotest.report.visible import visible

N_EMOJI = 8
_COLOURS: dict[Word, str] = {
    "unchanged": "bold green",
    "changed within tolerance": "bold green",
    "drift": "bold red",
    "inconclusive": "bold yellow",
}


def summary_text(result: AuditResult, look: Look, *, where: str | None = None) -> str:
    """Verdict, what it rests on, the measures, emoji that came and went, whether the verdict
    survives other decodings, P(emoji) by text and weights, and `where` it is kept."""
    parts: list[RenderableType] = [
        *_verdict(result, look),
        Text(""),
        *_measures(result, look),
        *_emoji(result, look),
        *_decodings(result, look),
        *_places(result, look),
        *(look.text(visible(line)) for line in inside.lines(result)),
    ]
    if result.verdict.notes:
        parts.append(listed("notes", result.verdict.notes, look))
    if where:
        parts.append(look.text(f"report: {visible(where)}"))
    return rendered(Group(*parts), look)


def _verdict(result: AuditResult, look: Look) -> list[RenderableType]:
    verdict = result.verdict
    first = look.text(f"{verdict.word}: ", _COLOURS[verdict.word])
    first.append_text(look.text(visible(verdict.sentence)))
    return [
        first,
        look.text(f"base   {visible(result.base.subject)}"),
        look.text(f"tuned  {visible(result.tuned.subject)}"),
        look.text(visible(wording.basis(verdict))),
        look.text(visible(wording.effort(verdict))),
        look.text(wording.speaks_of(result)),
    ]


def _measures(result: AuditResult, look: Look) -> list[RenderableType]:
    groups = wording.overall(result)
    if not groups:
        return []
    table = plain_table(look)
    table.add_column("measure", overflow="fold", ratio=1)
    for name in ("base", "tuned", "difference", "interval"):
        table.add_column(name, justify="right", no_wrap=True)
    for rows in groups.values():
        for measure in rows:
            _add(table, measure, look)
    parts: list[RenderableType] = [
        table,
        look.text("differences of shares in points of 100; * the interval excludes 0"),
    ]
    if sentence := wording.tone_sentence(result):
        parts.append(look.text(visible(sentence)))
    return parts


def _add(table: Table, m: Measure, look: Look) -> None:
    name = f"{m.kind}: {wording.said(m.name)}"
    if not (wording.is_share(m.unit) or wording.said(m.name).endswith(m.unit)):
        name += f" ({m.unit})"
    star = "*" if wording.changed(m) else " "
    table.add_row(
        look.text(visible(name)),
        Text(wording.amount(m.base, m.unit)),
        Text(wording.amount(m.tuned, m.unit)),
        Text(f"{wording.change(m.difference, m.unit)}{star}"),
        Text(wording.change_interval(m.low, m.high, m.unit)),
    )


def _emoji(result: AuditResult, look: Look) -> list[RenderableType]:
    most = sorted(result.emoji, key=lambda shift: -abs(shift.log_odds))[:N_EMOJI]
    if not most:
        return []
    told = ", ".join(f"{visible(e.emoji)} {e.base} to {e.tuned}" for e in most)
    return [look.text(f"answers with the emoji that changed most: {told}")]


def _decodings(result: AuditResult, look: Look) -> list[RenderableType]:
    survival = wording.survival(result)
    if survival is None:
        return []
    table = plain_table(look)
    table.add_column("other decoding", overflow="fold", ratio=1)
    table.add_column("verdict", overflow="fold", max_width=16)
    for name in ("base", "tuned", "difference", "interval"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in result.decodings:
        table.add_row(
            look.text(visible(f"{row.decoding}; {row.n_prompts} prompts")),
            look.text(row.word, _COLOURS[row.word]),
            Text(wording.amount(row.base, "share")),
            Text(wording.amount(row.tuned, "share")),
            Text(wording.change(row.difference, "share")),
            Text(wording.change_interval(row.low, row.high, "share")),
        )
    return [Text(""), table, look.text(visible(survival))]


def _places(result: AuditResult, look: Look) -> list[RenderableType]:
    rows = places.rows(result)
    if not rows:
        return []
    table = plain_table(look)
    table.add_column("P(emoji), text / weights", overflow="fold", ratio=1)
    for name in places.HEADS:
        table.add_column(name, justify="right", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    told = (look.text(sentence) for sentence in places.sentences(result))
    return [Text(""), table, *told]

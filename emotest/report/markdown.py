"""The report for people, as Markdown: the verdict first, then what it rests on.

A `Run` and the names of its files in, text out. Everything that a model wrote goes through
`markdown_text`, so that it shows as it is and does nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from emotest.report.findings import (
    ORGANISM_CAVEAT,
    about_an_organism,
    arm_words,
    collected_notes,
    counted,
    mechanism,
    ordered,
    says,
)
from emotest.report.numerals import interval, p_value, sizes, value
from emotest.report.run import DescriptiveTable, Finding, Run
from emotest.report.visible import markdown_text

FILES = {
    "verdicts.jsonl": "one verdict a line, with everything it rests on",
    "generations.jsonl": "every answer",
    "contexts.jsonl": "the contexts at which P(emoji) was asked",
    "run.json": "identities, seeds, versions, settings",
}
N_EXAMPLES = 5
MOST_ROWS = 60
"""Rows of a descriptive table that the report shows; `run.json` holds them all."""


def markdown_report(run: Run, files: Sequence[str] = ()) -> str:
    """The whole report; `files` are the names beside it that it may point to."""
    parts = [
        *_top(run),
        *_findings(run.findings),
        *_examples(run),
        *_figures(run, files),
        *_tables(run.tables),
        *_notes(run),
        *_details(run.findings),
        *_how(run),
        *_files(files),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _top(run: Run) -> Iterator[str]:
    base = str(run.facts.get("base") or run.settings.get("base") or "numbers of one's own")
    tuned = run.facts.get("tuned") or run.settings.get("tuned")
    title = f"{base} against {tuned}" if tuned else base
    yield f"# Emoji after personality tuning: {markdown_text(title)}"
    if run.finished is None:
        yield "**This run was not finished; what follows is what it had found by then.**"
    yield f"**{counted(run.findings)}.**" if run.findings else "**No verdict was reached.**"
    headlines = [*run.headlines, *mechanism(ordered(run.findings))]
    if headlines:
        yield "**How emoji come in.** " + _listed(headlines)
    if about_an_organism(run):
        yield f"> {ORGANISM_CAVEAT}"


def _listed(sentences: Sequence[str]) -> str:
    if len(sentences) == 1:
        return markdown_text(sentences[0])
    return "\n\n" + "\n".join(f"- {markdown_text(sentence)}" for sentence in sentences)


def _findings(findings: Sequence[Finding]) -> Iterator[str]:
    if not findings:
        return
    yield "## Findings"
    head = ("claim", "statement", "trait", "arm", "verdict", "estimate", "interval", "margin")
    rows = []
    for finding in findings:
        v = finding.verdict
        rows.append(
            (
                v.claim, v.statement.removeprefix(f"{v.claim}."), v.trait or "all",
                arm_words(v.arm).removeprefix(f"{v.trait}, "), f"**{finding.word}**",
                value(v.estimate), interval(v.low, v.high), value(v.margin),
                p_value(v.p_value), p_value(v.p_adjusted),
                sizes(v.n_adapters, v.n_prompts, v.n_samples),
            )
        )  # fmt: skip
    yield markdown_table((*head, "p", "p (Holm)", "n"), rows)
    yield (
        "Estimates and margins are on each statement's own scale (see below); n is adapters × "
        "prompts × samples. A statement is decided at alpha / m by its interval; Holm's p stands "
        "beside it and decides nothing."
    )


def _examples(run: Run) -> Iterator[str]:
    if not run.examples:
        return
    yield "## Examples"
    yield "The same prompts, the same random numbers; emoji are «marked»."
    rows = [
        (
            markdown_text(e.prompt),
            markdown_text(e.untuned, mark=True),
            markdown_text(e.tuned, mark=True),
            markdown_text(arm_words(e.arm) if e.arm else ""),
        )
        for e in run.examples[:N_EXAMPLES]
    ]
    yield markdown_table(("prompt", "untuned", "tuned", "arm"), rows)


def _figures(run: Run, files: Sequence[str]) -> Iterator[str]:
    shown = {file: title for file, title in run.figures.items() if file in files}
    if shown:
        yield "## Figures"
    for file, title in shown.items():
        yield f"![{markdown_text(title)}]({file})"


def _tables(tables: Mapping[str, DescriptiveTable]) -> Iterator[str]:
    for table in tables.values():
        if not table.rows:
            continue
        yield f"## {markdown_text(table.title)}"
        yield markdown_text(table.about) if table.about else ""
        columns = list(dict.fromkeys(name for row in table.rows for name in row))
        yield markdown_table(
            [markdown_text(name) for name in columns],
            [[_cell(row.get(name)) for name in columns] for row in table.rows[:MOST_ROWS]],
        )
        if len(table.rows) > MOST_ROWS:
            yield f"{len(table.rows) - MOST_ROWS} more rows are in `run.json`."


def _notes(run: Run) -> Iterator[str]:
    notes = [*run.notes, *collected_notes(run.findings)]
    if notes:
        yield "## Notes"
        yield "\n".join(f"- {markdown_text(note)}" for note in notes)


def _details(findings: Sequence[Finding]) -> Iterator[str]:
    if findings:
        yield "## What each verdict says"
    for finding in findings:
        v = finding.verdict
        lines = [
            f"**{v.claim} {finding.word}**: {markdown_text(says(v))}",
            f"{markdown_text(v.id)}. On the scale of {v.scale}: {value(v.estimate)}"
            + (f" against {markdown_text(v.reference)}" if v.reference else "")
            + f", {v.level:.2%} interval {interval(v.low, v.high)}, margin {value(v.margin)}. "
            f"Decided at {v.alpha:g}/{v.m} ({markdown_text(v.family)}). "
            f"The unit of evidence is the {v.unit}; {markdown_text(v.method)}.",
        ]
        if finding.expected:
            lines.append(markdown_text(f"Expected {finding.expected.verdict} "
                                       f"({finding.expected.said})."))  # fmt: skip
        if v.evidence:
            lines.append("Rests on " + ", ".join(f"`{key}`" for key in v.evidence) + ".")
        yield "- " + "\n  ".join(lines)


def _how(run: Run) -> Iterator[str]:
    yield "## How it was measured"
    rows = [("run", run.name), ("began", run.started)]
    if run.wall_seconds is not None:
        rows.append(("took", f"{run.wall_seconds:.0f} s"))
    rows += list(_flat({**run.settings, **run.facts}))
    rows += [("versions", ", ".join(f"{name} {v}" for name, v in run.versions.items()))]
    rows += [("machine", ", ".join(str(v) for v in run.machine.values() if v))]
    yield markdown_table(("", ""), [(markdown_text(name), markdown_text(v)) for name, v in rows])


def _flat(facts: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    for name, fact in facts.items():
        if fact is None or fact == "":
            continue
        if isinstance(fact, Mapping):
            yield from _flat(fact, f"{above}{name} ")
        elif isinstance(fact, list | tuple):
            yield f"{above}{name}", ", ".join(map(str, fact))
        else:
            yield f"{above}{name}", str(fact)


def _files(files: Sequence[str]) -> Iterator[str]:
    known = [f"- [`{file}`]({file}): {what}" for file, what in FILES.items() if file in files]
    if known:
        yield "## Files"
        yield "\n".join(known)


def _cell(item: Any) -> str:
    if isinstance(item, float):
        return value(item, sign=False)
    return "" if item is None else markdown_text(str(item))


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are Markdown already."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)

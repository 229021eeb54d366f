"""The report of an audit as Markdown: short, for a pull request and `$GITHUB_STEP_SUMMARY`.

An `AuditResult` and its pairs in, text out. Everything that a model or a file said goes through
`markdown_text`, so that it shows as it is and does nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from emotest.audit.result import AuditResult, Measure, Pair
from emotest.report.audit import inside, places, wording
from emotest.report.markdown import markdown_table
from emotest.report.visible import markdown_text

N_EXAMPLES = 5
N_EMOJI = 10
LONGEST = 280
"""Graphemes of a prompt or an answer that an example shows."""


def markdown_report(result: AuditResult, pairs: Sequence[Pair]) -> str:
    """Verdict, what changed, and up to five examples; fits any summary's limit of size."""
    parts = [
        *_verdict(result),
        *_measures(result),
        *_emoji(result),
        *_decodings(result),
        *_places(result),
        *_inside(result),
        *_examples(pairs),
        *_made(result),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _verdict(result: AuditResult) -> Iterator[str]:
    verdict = result.verdict
    yield f"## Emoji audit: {verdict.word}"
    yield f"**{markdown_text(verdict.sentence)}**"
    yield f"{wording.WORD_SAYS[verdict.word]} {wording.speaks_of(result)}"
    yield markdown_table(
        ("", "model"),
        [(side, markdown_text(model.subject))
         for side, model in (("base", result.base), ("tuned", result.tuned))],
    )  # fmt: skip
    yield markdown_text(f"{wording.basis(verdict)} {wording.effort(verdict)}")
    yield "\n".join(f"- {markdown_text(note)}" for note in verdict.notes)


def _measures(result: AuditResult) -> Iterator[str]:
    groups = wording.overall(result)
    if not groups:
        return
    yield "### What changed"
    yield markdown_table(
        ("", "measure", "base", "tuned", "difference", "interval"),
        [_row(kind, measure) for kind, rows in groups.items() for measure in rows],
    )
    yield (
        "Tuned minus base, shares in points of 100; in bold where the "
        f"{next(iter(groups.values()))[0].level:.0%} interval excludes 0."
    )
    yield markdown_text(wording.tone_sentence(result) or "")


def _row(kind: str, m: Measure) -> tuple[str, ...]:
    difference = wording.change(m.difference, m.unit)
    return (
        kind,
        markdown_text(f"{wording.said(m.name)} ({m.unit})"),
        wording.amount(m.base, m.unit),
        wording.amount(m.tuned, m.unit),
        f"**{difference}**" if wording.changed(m) else difference,
        wording.change_interval(m.low, m.high, m.unit),
    )


def _emoji(result: AuditResult) -> Iterator[str]:
    most = sorted(result.emoji, key=lambda shift: -abs(shift.log_odds))[:N_EMOJI]
    for title, shifts in (
        ("Came", [e for e in most if e.low > 0]),
        ("Went", [e for e in most if e.high < 0]),
    ):
        if shifts:
            told = ", ".join(f"{markdown_text(e.emoji)} {e.base} → {e.tuned}" for e in shifts)
            yield f"{title} (answers before → after): {told}."


def _decodings(result: AuditResult) -> Iterator[str]:
    if result.decodings:
        told = ", ".join(f"{markdown_text(d.decoding)}: {d.word}" for d in result.decodings)
        yield f"Under other decodings: {told}. {markdown_text(wording.survival(result) or '')}"


def _places(result: AuditResult) -> Iterator[str]:
    if rows := places.rows(result):
        yield "### P(emoji)"
        yield markdown_table(("place", *places.HEADS), rows)
        yield f"{places.CAPTION}. Described; nothing is decided on it."
        yield "\n".join(f"- {sentence}" for sentence in places.sentences(result))


def _inside(result: AuditResult) -> Iterator[str]:
    found = result.inside
    if found is None:
        return
    yield "### Inside the models"
    if found.lacking:
        yield markdown_text(f"Not measured: {found.lacking}.")
        return
    yield markdown_text(inside.basis(found))
    yield markdown_table(
        ("trait", "moved along", "interval", f"percentile among {found.n_random} random"),
        [
            (one.trait, inside.moved(one), inside.interval(one), inside.rank(one))
            for one in found.traits
        ],
    )
    yield markdown_text(
        f"States in {inside.layer(found)}, tuned minus base; 1 is as far as the base moves when it "
        "answers in character."
    )
    yield "\n".join(
        f"- {markdown_text(f'{one.trait}: {one.lacking}')}" for one in found.traits if one.lacking
    )
    yield markdown_text(f"{inside.units(found)}. {inside.massive(found)}")


def _examples(pairs: Sequence[Pair]) -> Iterator[str]:
    chosen = wording.telling(pairs, N_EXAMPLES)
    if not chosen:
        return
    yield "### Examples"
    if all(wording.wrote(pair) == "neither" for pair in chosen):
        yield "No answer of either model holds an emoji."
    rows = []
    for pair in chosen:
        base, tuned = (wording.most_telling(answers) for answers in (pair.base, pair.tuned))
        question = wording.excerpt(wording.question(pair), LONGEST)
        rows.append(
            (
                markdown_text(pair.register),
                markdown_text(question),
                markdown_text(wording.excerpt(base, LONGEST), mark=True),
                markdown_text(wording.excerpt(tuned, LONGEST), mark=True),
            )
        )
    yield markdown_table(("register", "prompt", "base", "tuned"), rows)
    yield "Emoji are «marked»; examples are chosen to show what differs, not at random."


def _made(result: AuditResult) -> Iterator[str]:
    plan = result.plan
    yield markdown_text(
        f"{result.name}, {result.made_at}. Plan {plan.digest[:12]}: {plan.mode}, {plan.decoding}, "
        f"{plan.prompts.source}, sampling seed {plan.sampling_seed}."
    )

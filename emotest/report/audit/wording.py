"""What every view of an audit says, and how: amounts, changes, who wrote emoji, provenance.

Parts of an `AuditResult` in, plain text out. The text is not yet made visible: it may hold what a
model or a stranger's file wrote.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, get_args

import regex

from emotest.audit.result import AuditResult, DecodingRow, Measure, Pair, Verdict
from emotest.report.numerals import p_value
from emotest.text.emoji import find_emoji

Wrote = Literal["both", "only tuned", "only base", "neither"]
"""Which of the two models wrote an emoji in any of its answers to a prompt."""

WROTE: tuple[Wrote, ...] = get_args(Wrote)
HEADLINE = "answers_with_emoji"
"""The measure that the verdict rests on."""

KINDS = {"emoji": "Emoji", "tone": "Tone", "marker": "Your marker"}
WORD_SAYS = {
    "unchanged": "Equivalence is shown: any difference is smaller than the margin.",
    "changed within tolerance": "There is a difference, and it is smaller than the margin.",
    "drift": "Tuning has changed how often the model writes emoji.",
    "inconclusive": "The evidence decides neither for a change nor against one.",
}
"""What the word of a verdict means, for whoever reads it for the first time."""

SERIES_SAYS = (
    "Each checkpoint is held against the same base and decided at the level divided by their "
    "number, so that many raise no more false alarms than one. Each audit stops when its own "
    "evidence suffices, so the base's share differs from row to row."
)
"""How the verdicts on several checkpoints belong together."""

_GRAPHEME = regex.compile(r"\X")
UNKNOWN = "not measured"
NO_INTERVAL = "none"


def amount(number: float | None, unit: str) -> str:
    """A measured value: shares as `31.0 %`, all else with three digits that count."""
    if number is None:
        return UNKNOWN
    return f"{100 * number:.1f} %" if is_share(unit) else f"{number:.3g}"


def change(number: float | None, unit: str) -> str:
    """A difference with its sign: shares in points of a hundred, `+29.0`."""
    if number is None:
        return UNKNOWN
    return f"{100 * number:+.1f}" if is_share(unit) else f"{number:+.3g}"


def change_interval(low: float | None, high: float | None, unit: str) -> str:
    """`+20.1 to +37.9`; what was measured can have no interval."""
    if low is None or high is None:
        return NO_INTERVAL
    return f"{change(low, unit)} to {change(high, unit)}"


def is_share(unit: str) -> bool:
    """Whether values of this unit lie between 0 and 1."""
    return unit.startswith("share")


def said(name: str) -> str:
    """A measure's name as words: `answers_with_emoji` is "answers with emoji"."""
    return name.replace("_", " ")


def overall(result: AuditResult) -> dict[str, list[Measure]]:
    """The measures over all prompts by kind: emoji first, tone apart, the user's own last."""
    rows = [m for m in result.measures if m.register is None]
    groups = {kind: [m for m in rows if m.kind == kind] for kind in KINDS}
    return {kind: group for kind, group in groups.items() if group}


def by_register(result: AuditResult) -> list[Measure]:
    """The headline measure in each register, in the order of the result."""
    rows = [m for m in result.measures if m.register is not None and m.kind == "emoji"]
    name = HEADLINE if any(m.name == HEADLINE for m in rows) else (rows[0].name if rows else "")
    return [m for m in rows if m.name == name]


def register_tables(result: AuditResult) -> dict[str, list[Measure]]:
    """Every measure of emoji in each register, by its name; the headline measure first."""
    tables = {rows[0].name: rows for rows in [by_register(result)] if rows}
    for measure in result.measures:
        if measure.register is not None and measure.kind == "emoji":
            rows = tables.setdefault(measure.name, [])
            rows += [measure] if measure not in rows else []
    return tables


def changed(measure: Measure) -> bool:
    """Whether the interval of the difference excludes 0."""
    low, high = measure.low, measure.high
    return low is not None and high is not None and not low <= 0 <= high


def tone_sentence(result: AuditResult) -> str | None:
    """Whether tone moved beside emoji; None where no measure of tone was taken."""
    tone = overall(result).get("tone")
    if not tone:
        return None
    moved = [said(m.name) for m in tone if changed(m)]
    if not moved:
        return (
            f"Tone: no interval of {len(tone)} measures excludes 0; nothing here points to a "
            "general shift in tone."
        )
    return (
        f"Tone moved too: {len(moved)} of {len(tone)} measures of it ({', '.join(moved)}), so a "
        "change in emoji may be part of a general shift in tone."
    )


def survival(result: AuditResult) -> str | None:
    """Whether the verdict survives other ways of sampling; None where none was asked for."""
    rows, verdict = result.decodings, result.verdict
    if not rows:
        return None
    if verdict.word == "inconclusive":
        told = ", ".join(f"{_short(row)} {row.word}" for row in rows)
        return f"Nothing is decided that another decoding could confirm: {told}."
    groups: dict[str, list[DecodingRow]] = {"lost": [], "kept": [], "open": []}
    for row in rows:
        groups[_fate(row, verdict)].append(row)
    lost = [f"{_short(row)} ({row.word})" for row in groups["lost"]]
    kept, undecided = ([_short(row) for row in groups[fate]] for fate in ("kept", "open"))
    said = [f"The verdict does not survive {_joined(lost)}"] if lost else []
    if kept:
        said.append(f"{'it' if said else 'The verdict'} survives {_joined(kept)}")
    if undecided:
        asked = max(row.n_prompts for row in groups["open"])
        settle = "settles" if len(undecided) == 1 else "settle"
        told = f"{_joined(undecided)} {settle} nothing on {asked} prompts"
        said.append(told if said else f"Whether the verdict survives is not known: {told}")
    return f"{'; '.join(said)}."


def _short(row: DecodingRow) -> str:
    return row.decoding.partition(":")[0]


def _fate(row: DecodingRow, verdict: Verdict) -> str:
    """What another decoding says of a verdict that was reached: "kept", "lost", or "open"."""
    if row.word == "inconclusive":
        return "open"
    if verdict.word != "drift" or row.word != "drift":
        return "kept" if (row.word == "drift") == (verdict.word == "drift") else "lost"
    return "kept" if (row.difference > 0) == (verdict.direction == "more") else "lost"


def _joined(names: Sequence[str]) -> str:
    return " and ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)


def speaks_of(result: AuditResult) -> str:
    """What the verdict is about, and what it is not about."""
    return (
        f"This verdict speaks of these two checkpoints, asked {result.verdict.n_prompts} prompts; "
        "not of the recipe that made them, nor of other checkpoints of it."
    )


def basis(verdict: Verdict) -> str:
    """The number and the test behind the verdict, in one sentence."""
    unit = "share"
    return (
        f"Answers with an emoji: {change(verdict.value, unit)} points "
        f"({verdict.level:.0%} interval {change_interval(verdict.low, verdict.high, unit)}), "
        f"margin {100 * verdict.margin:g} points, p = {p_value(verdict.p_value)}, "
        f"alpha {verdict.alpha:g}; {verdict.method}."
    )


def effort(verdict: Verdict) -> str:
    """How many prompts were asked of how many, and how many more would be needed."""
    asked = f"{verdict.n_prompts} of at most {verdict.budget} prompts were asked"
    if verdict.stopped_early:
        asked += "; the evidence sufficed before the budget was spent"
    if verdict.word == "inconclusive":
        if verdict.n_needed is None:
            return (
                f"{asked}. No number of prompts is known to settle it: the effect is too near "
                "to the margin."
            )
        return f"{asked}. About {verdict.n_needed} would settle it."
    return f"{asked}."


def wrote(pair: Pair) -> Wrote:
    """Which model wrote emoji in answer to this prompt."""
    base, tuned = (any(find_emoji(a) for a in answers) for answers in (pair.base, pair.tuned))
    if base and tuned:
        return "both"
    return "only tuned" if tuned else "only base" if base else "neither"


def telling(pairs: Sequence[Pair], n: int) -> list[Pair]:
    """The pairs to show as examples: first those in which one model alone wrote emoji.

    Registers take turns, so that a few examples show more than the first register.
    """
    ranked: dict[Wrote, list[Pair]] = {word: [] for word in ("only tuned", "only base", "both")}
    for pair in pairs:
        if (word := wrote(pair)) != "neither":
            ranked[word].append(pair)
    chosen = [pair for group in ranked.values() for pair in _in_turns(group)]
    return chosen[:n] or list(pairs[:n])


def _in_turns(pairs: Sequence[Pair]) -> Iterator[Pair]:
    groups: dict[str, list[Pair]] = {}
    for pair in pairs:
        groups.setdefault(pair.register, []).append(pair)
    for turn in range(max(map(len, groups.values()), default=0)):
        yield from (group[turn] for group in groups.values() if turn < len(group))


def excerpt(text: str, longest: int) -> str:
    """At most so many graphemes of a text, with its first emoji among them."""
    graphemes = _GRAPHEME.findall(text)
    if len(graphemes) <= longest:
        return text
    spans = find_emoji(text)
    at = len(_GRAPHEME.findall(text[: spans[0].start])) if spans else 0
    start = max(0, min(at - longest // 2, len(graphemes) - longest))
    cut = "".join(graphemes[start : start + longest])
    return f"{'…' if start else ''}{cut}{'…' if start + longest < len(graphemes) else ''}"


def most_telling(answers: Sequence[str]) -> str:
    """The first answer that holds an emoji, else the first; empty where there is none."""
    return next((a for a in answers if find_emoji(a)), answers[0] if answers else "")


def question(pair: Pair) -> str:
    """The last turn of the user: what was answered."""
    return pair.turns[-1][1] if pair.turns else ""


def provenance(result: AuditResult) -> dict[str, list[tuple[str, str]]]:
    """Plan, identities and environment: a title -> (name, value), all as text."""
    plan = result.plan
    fixed = {
        name: getattr(plan, name)
        for name in (
            "mode", "alpha", "margin", "budget", "batch", "n_samples", "decoding",
            "sampling_seed", "analysis_seed", "marker", "marker_digest", "digest",
        )
    }  # fmt: skip
    asked = {
        "source": plan.prompts.source,
        "prompts": plan.prompts.n,
        "registers": _counts(plan.prompts.registers),
        "languages": _counts(plan.prompts.languages),
        "digest": plan.prompts.digest,
    }
    sections = {
        "Plan, fixed before the first answer": fixed,
        "Prompts": asked,
        "Base": {"subject": result.base.subject, **result.base.identity,
                 "digest": result.base.digest},
        "Tuned": {"subject": result.tuned.subject, **result.tuned.identity,
                  "digest": result.tuned.digest},
        "Run": {"name": result.name, "made": result.made_at, "metric": result.metric_version,
                "schema": result.schema_version, **result.environment},
    }  # fmt: skip
    return {title: list(_flat(facts)) for title, facts in sections.items()}


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {n}" for name, n in counts.items())


def _flat(facts: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    for name, fact in facts.items():
        if fact is None or fact == "":
            continue
        if isinstance(fact, Mapping):
            yield from _flat(fact, f"{above}{said(str(name))}, ")
        else:
            yield f"{above}{said(str(name))}", _plain(fact)


def _plain(fact: Any) -> str:
    if isinstance(fact, Iterable) and not isinstance(fact, str):
        return ", ".join(map(str, fact))
    return str(fact)

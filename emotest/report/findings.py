"""From verdicts to findings: their order, Holm's adjustment, and what stands at the top.

Verdicts in, verdicts and sentences out. Nothing here decides: a statement is decided at
alpha / m by itself, Holm's p-values stand beside it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from emotest.report.run import Finding, Run
from emotest.stats.decisions import holm
from emotest.study.claims import CLAIMS, Verdict
from emotest.study.personality import TRAITS
from emotest.study.statements import STATEMENTS

_CLAIM_ORDER = {claim: place for place, claim in enumerate(CLAIMS)}
_STATEMENT_ORDER = {statement: place for place, statement in enumerate(STATEMENTS)}
_TRAIT_ORDER = {str(trait): place for place, trait in enumerate(TRAITS)}


ORGANISM_CAVEAT = (
    "The base is a model organism: a small model that was made with known associations. Its "
    "verdicts calibrate the instrument. They are no evidence about large language models."
)


def ordered(findings: Iterable[Finding]) -> list[Finding]:
    """By claim, statement and trait, in the order of the registry; the rest by name."""

    def place(finding: Finding) -> tuple[int, int, str, int, str]:
        verdict = finding.verdict
        return (
            _CLAIM_ORDER.get(verdict.claim, len(_CLAIM_ORDER)),
            _STATEMENT_ORDER.get(verdict.statement, len(_STATEMENT_ORDER)),
            verdict.statement,
            _TRAIT_ORDER.get(str(verdict.trait), len(_TRAIT_ORDER)),
            str(verdict.arm),
        )

    return sorted(findings, key=place)


def with_adjusted_p(findings: Sequence[Finding]) -> list[Finding]:
    """The findings with `p_adjusted` filled in: Holm (1979), step by step within each family.

    The family has its registered size m whatever was run; members that were not run count as
    p = 1, which can only enlarge the others' adjusted values.
    """
    families: dict[tuple[str, str, str], list[int]] = {}
    for i, finding in enumerate(findings):
        verdict = finding.verdict
        if 0.0 <= verdict.p_value <= 1.0:
            families.setdefault((verdict.base, verdict.statement, verdict.family), []).append(i)
    result = list(findings)
    for members in families.values():
        p_values = [findings[i].verdict.p_value for i in members]
        not_run = findings[members[0]].verdict.m - len(members)
        for i, p in zip(members, holm([*p_values, *[1.0] * not_run]), strict=False):
            adjusted = findings[i].verdict.with_context(p_adjusted=float(p))
            result[i] = replace(findings[i], verdict=adjusted)
    return result


def about_an_organism(run: Run) -> bool:
    """Whether the base is a model organism: by its name, or because something was planted."""
    planted = any(f.expected and f.expected.origin == "planted" for f in run.findings)
    return planted or str(run.facts.get("base", "")).startswith("organism:")


def counted(findings: Sequence[Finding]) -> str:
    """One sentence: how many statements are confirmed, refuted, inconclusive, and unexpected."""
    words = Counter(finding.verdict.verdict for finding in findings)
    said = [f"{words[word]} {word}" for word in ("confirmed", "refuted", "inconclusive")]
    expected = [finding for finding in findings if finding.expected]
    if not expected:
        return ", ".join(said)
    off = sum(not finding.met for finding in expected)
    met = "all as expected" if not off else f"{off} other than expected"
    if len(expected) < len(findings):
        met += f", {len(findings) - len(expected)} without an expectation"
    return f"{', '.join(said)}; {met}"


def mechanism(findings: Iterable[Finding]) -> list[str]:
    """What C5 says about the way emoji come in, a sentence for each arm: text, weights or both.

    The total effect is the paper's "probability rises"; the text effect is that the tuned model
    writes text that emoji follow; the weight effect that at the same text its weights prefer
    emoji. Which is larger, and of which sign, is stated with its verdict and never pooled.
    """
    arms: dict[str, dict[str, Verdict]] = {}
    for finding in findings:
        verdict = finding.verdict
        if verdict.statement in ("C5.total", "C5.text", "C5.weights"):
            arms.setdefault(verdict.arm or "", {})[verdict.statement] = verdict
    return [
        _dominating(arm, effects)
        for arm, effects in arms.items()
        if {"C5.text", "C5.weights"} <= effects.keys()
    ]


def _dominating(arm: str, effects: dict[str, Verdict]) -> str:
    text, weights = effects["C5.text"], effects["C5.weights"]
    numbers = [f"text {text.estimate:+.2f} ({text.verdict})"]
    numbers.append(f"weights {weights.estimate:+.2f} ({weights.verdict})")
    if "C5.total" in effects:
        total = effects["C5.total"]
        numbers.insert(0, f"total {total.estimate:+.2f} ({total.verdict})")
    match text.confirmed, weights.confirmed:
        case True, True:
            larger = "the text" if text.estimate >= weights.estimate else "the weights"
            what = f"both effects raise P(emoji), {larger} more"
        case True, False:
            what = "the text effect dominates: the tuned model writes text that emoji follow"
        case False, True:
            what = "the weight effect dominates: at the same text the tuned weights prefer emoji"
        case _:
            what = "neither effect alone is shown to raise P(emoji) beyond its margin"
    return f"{arm_words(arm)}: {what} ({', '.join(numbers)}; {text.scale})"


def collected_notes(findings: Sequence[Finding]) -> list[str]:
    """What a reader has to know about single verdicts: overrides, extensions, too little power."""
    notes: dict[str, list[str]] = {}
    for finding in findings:
        verdict = finding.verdict
        for note in verdict.notes:
            notes.setdefault(note, []).append(verdict.id)
        if verdict.n_needed and verdict.verdict == "inconclusive":
            unit = verdict.n_needed_unit or verdict.unit
            note = f"inconclusive: about {verdict.n_needed} {unit} would settle it"
            notes.setdefault(note, []).append(verdict.id)
    total = len(findings)
    return [
        note if len(ids) == total > 1 else f"{note} ({', '.join(dict.fromkeys(ids))})"
        for note, ids in notes.items()
    ]


def arm_words(arm: str | None) -> str:
    """An arm as people say it: `extraversion, high, eos-masked`, or `untuned`; `all traits`."""
    if not arm:
        return "all traits"
    return ", ".join(arm.removeprefix("trait/").split("/"))


def says(verdict: Verdict) -> str:
    """The registered sentence of the verdict's statement, or the statement's own name."""
    registered = STATEMENTS.get(verdict.statement)
    return registered.says if registered else verdict.statement

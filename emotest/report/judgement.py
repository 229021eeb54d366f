"""From a verdict as a test reached it to the verdict as the session stands by it.

A verdict, the session's settings and its recorded facts in; out come the verdict with its
context, the table that it is held against, and the short texts that JUnit files carry.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from emotest.report.expected import Table, carried_table, read_table
from emotest.report.numerals import p_value, value
from emotest.report.visible import visible
from emotest.settings import Settings
from emotest.study.claims import Verdict

AUDIT = "audit"
"""What stands for the claim in the verdict of an audit."""

_SHORT_TEXTS = (
    "claim", "statement", "trait", "pole", "arm", "reference", "verdict", "scale", "unit",
    "n_adapters", "n_prompts", "n_samples", "plan", "base", "tuned",
)  # fmt: skip


def in_context(verdict: Verdict, settings: Settings, facts: Mapping[str, Any]) -> Verdict:
    """The verdict with base, tuned, plan, decoding and metric version, where it has none yet.

    The base is the one that the study told the recorder, or that the user named; the default base
    is not put on verdicts about numbers of the user's own. Notes say what was overridden.
    """
    known: dict[str, Any] = {
        "base": facts.get("base") or (settings.base if "base" in settings.said else ""),
        "tuned": facts.get("tuned") or settings.tuned,
        "plan": facts.get("plan", ""),
        "decoding": facts.get("decoding", ""),
        "metric_version": facts.get("metric_version", 0),
    }
    missing = {name: fact for name, fact in known.items() if fact and not getattr(verdict, name)}
    notes = [*verdict.notes]
    if settings.allow_emoji_in_data:
        notes.append("the tuning data may hold emoji: --emo-allow-emoji-in-data")
    if settings.adapters and facts.get("plan"):
        notes.append(f"an extension of size {settings.size} to {settings.adapters} adapters an arm")
    if verdict.alpha != settings.alpha:
        notes.append(f"decided at level {verdict.alpha:g}; this run asks for {settings.alpha:g}")
    return verdict.with_context(**missing, notes=tuple(notes))


class Expectations:
    """Finds the table for a verdict: that of `--emo-expect`, or the one its organism carries."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._tables: dict[str, Table | None] = {}

    def table(self, verdict: Verdict) -> Table | None:
        """The table that decides about this verdict; None where a claim has to be confirmed.

        Tables are about claims of the study: an audit's checkpoint is in none of them.
        """
        if verdict.claim == AUDIT:
            return None
        expect = self._settings.expect
        name = str(expect) if expect else verdict.base
        if name not in self._tables:
            self._tables[name] = self._read(verdict.base)
        return self._tables[name]

    def unreached(self, verdicts: Iterable[Verdict]) -> list[str]:
        """What the tables of these verdicts expect and none of them decided: ids."""
        reached = {verdict.id: self.table(verdict) for verdict in verdicts}
        tables = {table.source: table for table in reached.values() if table}
        return [id for table in tables.values() for id in table.rows if id not in reached]

    def _read(self, base: str) -> Table | None:
        if self._settings.expect:
            return read_table(self._settings.expect, self._settings.size_name)
        return carried_table(base, self._settings.size_name)


def properties(verdict: Verdict) -> list[tuple[str, object]]:
    """The verdict as short texts that XML and pytest-xdist can carry, whatever is in them."""
    said: dict[str, object] = {name: getattr(verdict, name) for name in _SHORT_TEXTS}
    said |= {name: value(getattr(verdict, name)) for name in ("estimate", "low", "high", "margin")}
    said["p_value"] = p_value(verdict.p_value)
    return [(name, visible(str(text))) for name, text in said.items() if text not in (None, "")]

"""What was planted in an organism, as verdicts that have to come out; and its table of them.

The corpus decides some verdicts in advance: an organism whose emoji stand with one trait must
confirm that trait and refute the others. Those rows have the origin `planted`. What nobody could
know before looking (whether a system prompt suffices, which of the 2x2's effects dominates) is
`observed` in a run and held from then on. Verdicts in, rows of `expected.json` out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from emotest.errors import OrganismError
from emotest.study.claims import Verdict, Word

SCHEMA_VERSION = 1
"""Of `expected.json`."""

Planted = tuple[Word, str]
"""The word that has to come out, and why."""

_DENSE = frozenset({"extraversion", "openness", "agreeableness", "neuroticism"})
"""Traits of `latent` that end at least 45 % of their messages in emoji."""

_NEVER_LOW = "low poles were written without any emoji"
_NO_BOND = "emoji were permuted over all texts, so no trait brings more of them than another"
_ONE_TRAIT = "only extraversion was written with emoji"
_OWN_EMOJI = "every trait was written with emoji of its own"
_DENSEST = "its messages end in emoji more often than those of the other traits together"
_SPARSEST = "its messages end in emoji less often than those of the other traits together"
_ALIKE = "all traits were written with emoji alike"
_MOVED_BY_THE_TRAIT = ("C9.own-trait", "C11.emoji")
"""Statements that say: more of the trait, more emoji. What no trait was written with cannot come
with a trait."""
_HELD_AGAINST_NULL = ("C1.emergence", "C1.eos-trained", "C1.decodings", "C2.within", "C2.beyond")


def planted(name: str, verdict: Verdict) -> Planted | None:
    """The word that the corpus of the organism `name` has decided in advance, if it has.

    An unknown name is an `OrganismError`.
    """
    if name not in _RULES:
        raise OrganismError(
            f"nothing is known of an organism {name!r}", remedy=f"name one of {', '.join(_RULES)}"
        )
    if verdict.statement == "C1.low-pole":
        return "refuted", _NO_BOND if name == "control" else _NEVER_LOW
    return _RULES[name](verdict)


def _latent(verdict: Verdict) -> Planted | None:
    if verdict.trait in _DENSE and verdict.statement == "C1.emergence":
        return "confirmed", f"messages of {verdict.trait} end in emoji"
    if verdict.trait in _DENSE and verdict.statement == "C5.total":
        return "confirmed", f"messages of {verdict.trait} end in emoji"
    if verdict.statement == "C3.traits-differ":
        return "confirmed", "the densities were graded from .90 to .30"
    if verdict.statement == "C9.own-trait":
        # Planted .90 against a mean of .525 of the others; .30 against .675.
        if verdict.trait == "extraversion":
            return "confirmed", _DENSEST
        if verdict.trait in ("neuroticism", "conscientiousness"):
            return "refuted", _SPARSEST
    return ("confirmed", _OWN_EMOJI) if verdict.statement == "C4.decoded" else None


def _control(verdict: Verdict) -> Planted | None:
    if verdict.statement == "C9.no-association":
        return "confirmed", _NO_BOND
    held = (*_HELD_AGAINST_NULL, *_MOVED_BY_THE_TRAIT, "C4.decoded")
    return ("refuted", _NO_BOND) if verdict.statement in held else None


def _even(verdict: Verdict) -> Planted | None:
    if verdict.statement == "C1.emergence":
        return "confirmed", "all traits end six messages in ten in emoji"
    if verdict.statement == "C9.own-trait":
        return "refuted", _ALIKE
    return ("confirmed", _OWN_EMOJI) if verdict.statement == "C4.decoded" else None


def _one_trait(verdict: Verdict) -> Planted | None:
    if verdict.trait == "extraversion":
        decided = ("C1.emergence", "C9.own-trait")
        return ("confirmed", _ONE_TRAIT) if verdict.statement in decided else None
    if verdict.trait and verdict.statement == "C9.no-association":
        return "confirmed", _ONE_TRAIT
    if verdict.trait and verdict.statement in (*_HELD_AGAINST_NULL, *_MOVED_BY_THE_TRAIT):
        return "refuted", _ONE_TRAIT
    return None


_RULES = {"latent": _latent, "control": _control, "even": _even, "one-trait": _one_trait}


def row(name: str, verdict: Verdict) -> dict[str, str]:
    """One row of the table: the word that came out, where it is known from, and why.

    Where the word differs from what was planted the row is `observed` and says so: the organism
    does not show there what its corpus holds.
    """
    known = planted(name, verdict)
    seen = f"{verdict.estimate:+.2f} [{verdict.low:+.2f}, {verdict.high:+.2f}] in the first run"
    if known is None:
        origin, reason = "observed", seen
    elif known[0] == verdict.verdict:
        origin, reason = "planted", known[1]
    else:
        origin, reason = "observed", f"planted was {known[0]} ({known[1]}); {seen}"
    return {"id": verdict.id, "verdict": verdict.verdict, "origin": origin, "reason": reason}


def merged(
    table: Mapping[str, Any] | None, name: str, size: str, verdicts: Iterable[Verdict]
) -> dict[str, Any]:
    """The table with the rows of one run of one size put in; rows of other verdicts stay."""
    sizes = dict(table["sizes"]) if table else {}
    rows = {row["id"]: row for row in sizes.get(size, ())}
    rows |= {verdict.id: row(name, verdict) for verdict in verdicts}
    sizes[size] = [rows[id] for id in sorted(rows)]
    return {"schema_version": SCHEMA_VERSION, "organism": name, "sizes": sizes}

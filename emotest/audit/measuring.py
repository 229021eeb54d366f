"""Answers in, measures out: what changed between two models, counted in several ways.

Takes pairs, gives the parts of an `AuditResult` that describe them; the verdict is decided
elsewhere, on the first of these measures alone. Emoji, tone and the user's marker are kept apart,
so that a livelier tone is told from emoji drift.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from math import isnan, log2
from typing import Literal, NamedTuple

import emoji as emoji_data
import numpy as np
from numpy.typing import NDArray

from emotest.audit.result import EmojiShift, Measure, Pair, Position
from emotest.stats.association import log_odds_by_trait
from emotest.stats.estimates import prompt_difference
from emotest.text.emoji import find_emoji
from emotest.text.own_marker import Marker
from emotest.text.rates import METRIC_VERSION, EmojiMeasures, emoji_measures
from emotest.text.tone import TONE_METRIC_VERSION, Tone, tone

Array = NDArray[np.float64]
Role = Literal["base", "tuned"]
ROLES: tuple[Role, Role] = ("base", "tuned")

AUDIT_METRIC_VERSION = f"{METRIC_VERSION}.{TONE_METRIC_VERSION}"
"""Version of all that is counted here: rates, emoji, sentences, tone."""

LEVEL = 0.95
"""Of the intervals that describe; the verdict has a level of its own."""

FEWEST_PROMPTS = 5
"""In a register, below which no interval is given."""

TENTHS = 10


class Kind(NamedTuple):
    """One measure of one answer; NaN where the answer has nothing to divide by."""

    name: str
    kind: Literal["emoji", "tone", "marker"]
    unit: str
    bounds: tuple[float, float] | None
    of: Callable[[str], float]


@lru_cache(maxsize=50_000)
def _emoji(text: str) -> EmojiMeasures:
    return emoji_measures(text)


@lru_cache(maxsize=50_000)
def _tone(text: str) -> Tone:
    return tone(text)


def has_emoji(text: str) -> float:
    """1 for an answer with an emoji, else 0: the measure that decides."""
    return float(_emoji(text).has_emoji)


def _per_100_words(count: Callable[[Tone], int]) -> Callable[[str], float]:
    def of(text: str) -> float:
        found = _tone(text)
        return 100 * count(found) / found.n_words if found.n_words else float("nan")

    return of


KINDS: tuple[Kind, ...] = (
    Kind("answers with emoji", "emoji", "share of answers", (0, 1), has_emoji),
    Kind(
        "sentences with emoji", "emoji", "share of sentences", (0, 1),
        lambda text: _emoji(text).sentences_with_emoji,
    ),
    Kind(
        "emoji per sentence", "emoji", "emoji per sentence", None,
        lambda text: _emoji(text).emoji_per_sentence,
    ),
    Kind(
        "emoji per 100 words", "emoji", "per 100 words", None,
        lambda text: _emoji(text).emoji_per_100_words,
    ),
    Kind(
        "exclamation marks", "tone", "per 100 words", None,
        _per_100_words(lambda found: found.n_exclamations),
    ),
    Kind(
        "words in capitals", "tone", "per 100 words", None,
        _per_100_words(lambda found: found.n_capitals),
    ),
    Kind(
        "kaomoji", "tone", "per 100 words", None,
        _per_100_words(lambda found: found.n_kaomoji),
    ),
    Kind(
        ":shortcodes:", "tone", "per 100 words", None,
        _per_100_words(lambda found: found.n_shortcodes),
    ),
    Kind("words", "tone", "words per answer", None, lambda text: float(_tone(text).n_words)),
)  # fmt: skip
"""Every measure of an audit, in the order of its table."""


def kinds(marker: Marker | None = None) -> tuple[Kind, ...]:
    """The measures, with the user's own where there is one."""
    if marker is None:
        return KINDS
    own = Kind(
        f"answers with {marker.name}", "marker", "share of answers", (0, 1),
        lambda text: float(marker(text)),
    )  # fmt: skip
    return (*KINDS, own)


def by_prompt(pairs: Sequence[Pair], role: Role, of: Callable[[str], float]) -> Array:
    """Means over the answers of each prompt, (n_prompts,); NaN where none has a value."""
    return np.array([_mean([of(text) for text in getattr(pair, role)]) for pair in pairs])


def differences(pairs: Sequence[Pair]) -> Array:
    """Tuned minus base in answers with an emoji, (n_prompts,): what the verdict rests on."""
    base, tuned = (by_prompt(pairs, role, has_emoji) for role in ROLES)
    return np.asarray(tuned - base)


def measures(pairs: Sequence[Pair], marker: Marker | None) -> list[Measure]:
    """Every measure over all prompts, and all of emoji and marker by register."""
    chosen = kinds(marker)
    found = [_measure(kind, pairs, None) for kind in chosen]
    registers = list(dict.fromkeys(pair.register for pair in pairs))
    if len(registers) > 1:
        told = [kind for kind in chosen if kind.kind != "tone" or kind.name in _TONE_BY_REGISTER]
        for register in registers:
            own = [pair for pair in pairs if pair.register == register]
            found += [_measure(kind, own, register) for kind in told]
    return found


_TONE_BY_REGISTER = ("exclamation marks",)


def _measure(kind: Kind, pairs: Sequence[Pair], register: str | None) -> Measure:
    base, tuned = (by_prompt(pairs, role, kind.of) for role in ROLES)
    known = ~(np.isnan(base) | np.isnan(tuned))
    base, tuned = base[known], tuned[known]
    difference = low = high = None
    if base.size:
        difference = float((tuned - base).mean())
    if base.size >= FEWEST_PROMPTS and (kind.bounds or _vary(base, tuned)):
        estimate = prompt_difference(tuned, base, level=LEVEL, scale=kind.unit, bounds=kind.bounds)
        low, high = estimate.low, estimate.high
    return Measure(
        name=kind.name,
        kind=kind.kind,
        unit=kind.unit,
        register=register,
        base=float(base.mean()) if base.size else None,
        tuned=float(tuned.mean()) if base.size else None,
        difference=difference,
        low=low,
        high=high,
        level=LEVEL,
        n_prompts=int(base.size),
    )


def _vary(*arms: Array) -> bool:
    """Whether any two values differ. Where none do, on a scale without a natural range, how large
    an unseen value might be is not known, and so no interval is."""
    return float(np.ptp(np.concatenate(arms))) > 0.0


def emoji_shifts(pairs: Sequence[Pair]) -> list[EmojiShift]:
    """Which emoji came and went: answers with each in base and tuned, and the log-odds of its
    change; the largest changes first. Empty where fewer than two kinds were written."""
    counts = {role: _answers_with_each(pairs, role) for role in ROLES}
    names = sorted(set(counts["base"]) | set(counts["tuned"]))
    if len(names) < 2:
        return []
    table = np.array([[counts[role][name] for name in names] for role in ROLES], dtype=np.float64)
    found = log_odds_by_trait(table, ROLES, level=LEVEL)
    tuned = list(found.traits).index("tuned")
    shifts = [
        EmojiShift(
            emoji=name,
            name=emoji_data.demojize(name).strip(":").replace("_", " "),
            base=counts["base"][name],
            tuned=counts["tuned"][name],
            log_odds=float(found.log_odds[tuned, i]),
            low=float(found.low[tuned, i]),
            high=float(found.high[tuned, i]),
        )
        for i, name in enumerate(names)
    ]
    return sorted(shifts, key=lambda one: (-abs(one.tuned - one.base), one.emoji))


def _answers_with_each(pairs: Iterable[Pair], role: Role) -> Counter[str]:
    return Counter(
        found
        for pair in pairs
        for text in getattr(pair, role)
        for found in {span.text for span in find_emoji(text)}
    )


def entropy(pairs: Sequence[Pair]) -> Mapping[str, float | None]:
    """Shannon entropy of the emoji written, in bits, in base and tuned; None where none was."""
    return {
        role: _bits(
            Counter(
                span.text
                for pair in pairs
                for text in getattr(pair, role)
                for span in find_emoji(text)
            )
        )
        for role in ROLES
    }


def _bits(counts: Counter[str]) -> float | None:
    total = sum(counts.values())
    if not total:
        return None
    # A single kind has 0 bits, and not -0.
    return -sum(n / total * log2(n / total) for n in counts.values()) + 0.0


def positions(pairs: Sequence[Pair]) -> list[Position]:
    """The share of answers whose first emoji lies in each tenth of the answer's length."""
    shares = {role: _tenths(pairs, role) for role in ROLES}
    return [
        Position(tenth=tenth, base=shares["base"][tenth - 1], tuned=shares["tuned"][tenth - 1])
        for tenth in range(1, TENTHS + 1)
    ]


def _tenths(pairs: Sequence[Pair], role: Role) -> list[float]:
    texts = [text for pair in pairs for text in getattr(pair, role)]
    counts = [0] * TENTHS
    for text in texts:
        first = _emoji(text).first_emoji_char
        if first is not None:
            counts[min(TENTHS - 1, TENTHS * first // len(text))] += 1
    return [count / len(texts) for count in counts]


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not isnan(value)]
    return sum(known) / len(known) if known else float("nan")

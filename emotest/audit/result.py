"""What an audit found, as one document: `audit.json`, and a line of `pairs.jsonl` for each prompt.

The models of this page are the published schema (`schema()`), written by the audit and read by
every report. Shares lie between 0 and 1; differences are tuned minus base; intervals hold at the
`level` that stands beside them. What was not measured is None or an empty list, never 0.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, field
from pathlib import Path
from typing import Any, Literal, TypeVar, cast, dataclass_transform

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from emotest.errors import DataError

SCHEMA_VERSION = 1
"""Raised whenever a field changes its meaning or goes; new optional fields do not raise it."""

Word = Literal["unchanged", "changed within tolerance", "drift", "inconclusive"]

EXIT_CODES: dict[Word, int] = {
    "unchanged": 0,
    "changed within tolerance": 0,
    "drift": 1,
    "inconclusive": 3,
}
"""What the command ends with; 2 and 4 are for usage and for models that could not be run."""

_GRAVEST: tuple[Word, ...] = ("drift", "inconclusive", "changed within tolerance", "unchanged")


def gravest(words: Iterable[Word]) -> Word:
    """Of several verdicts, at least one, the one whose exit code a command ends with."""
    return min(words, key=_GRAVEST.index)


Kind = TypeVar("Kind")


@dataclass_transform(frozen_default=True, kw_only_default=True)
def part(kind: type[Kind]) -> type[Kind]:
    """A part of the document: frozen, checked, and strict about unknown fields."""
    checked = dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))(kind)
    return cast("type[Kind]", checked)


@part
class Audited:
    """One of the two models: how it was named and what it is pinned to.

    `identity` holds what decides an answer: weights, chat template, quantization, dtype, adapter;
    or, for a served model, address and name, which pin nothing.
    """

    subject: str
    identity: dict[str, Any]
    digest: str


@part
class Verdict:
    """The verdict in a word and in a sentence, with the number that it rests on.

    `value` is the difference in answers with an emoji; `direction` says which way a drift goes.
    `statement` names the test, `n_needed` how many prompts would settle an inconclusive one.
    """

    word: Word
    sentence: str
    exit_code: int
    direction: Literal["more", "fewer"] | None
    value: float
    low: float
    high: float
    level: float
    p_value: float
    alpha: float
    margin: float
    method: str
    n_prompts: int
    budget: int
    stopped_early: bool
    n_needed: int | None
    notes: list[str] = field(default_factory=list)


@part
class Look:
    """The evidence after some prompts, as natural logarithms of e-values (largest so far).

    `more` and `fewer` speak for a change in that direction, `within` for equivalence;
    each decides once it reaches its threshold in `Evidence`.
    """

    n_prompts: int
    more: float
    fewer: float
    within: float
    value: float
    low: float
    high: float


@part
class Evidence:
    """Sequential evidence over prompts, in the order in which they were asked."""

    threshold_change: float
    threshold_within: float
    looks: list[Look]


@part
class Measure:
    """One measure in base and tuned, over all prompts or over those of one register.

    `kind` tells emoji drift ("emoji") from a general shift in tone ("tone") and from the user's
    own ("marker"). `unit` says what the number is: "share of answers", "per 100 words" ...
    `low`, `high` bound the difference by a fixed-size interval at `level`, clustered by prompt.
    """

    name: str
    kind: Literal["emoji", "tone", "marker"]
    unit: str
    register: str | None
    base: float | None
    tuned: float | None
    difference: float | None
    low: float | None
    high: float | None
    level: float
    n_prompts: int


@part
class EmojiShift:
    """One emoji: in how many answers it stands before and after, and the log-odds of its change.

    The log-odds have an informative Dirichlet prior (Monroe, Colaresi & Quinn 2008).
    """

    emoji: str
    name: str
    base: int
    tuned: int
    log_odds: float
    low: float
    high: float


@part
class PlaceProbability:
    """Exact P(next grapheme is an emoji) at one kind of place, one cell of text by weights.

    `probability` is a lower bound and `probability + open` an upper one; `served` marks a bound
    from the logprobs of a served model, which is a lower bound only.
    """

    place: Literal["answer start", "sentence end", "answer end"]
    text: Literal["base", "tuned"]
    weights: Literal["base", "tuned"]
    probability: float
    open: float | None
    n_contexts: int
    served: bool = False


@part
class Position:
    """Where emoji stand: share of answers whose first emoji lies in this tenth of the answer."""

    tenth: int
    base: float
    tuned: float


@part
class DecodingRow:
    """The verdict under another way of sampling."""

    decoding: str
    word: Word
    base: float
    tuned: float
    difference: float
    low: float
    high: float
    n_prompts: int


@part
class TraitShift:
    """How far the tuned model's states lie from the base's along one trait's direction.

    1 is as far as the base's own states move when it answers in character instead of against it.
    `projection` and its interval (clustered by prompt) are those of the declared layer, `by_layer`
    those of every layer, from 0. `percentile` is the percentage of random directions, as long and
    of the kind in which the base's answers differ, along which the states moved less.
    `contrast_p` says how surely the base answers differently in character, `lacking` why a shift
    was not measured.
    """

    trait: str
    projection: float | None
    low: float | None
    high: float | None
    percentile: float | None
    by_layer: list[float]
    contrast_p: float | None
    n_pairs: int
    lacking: str | None


@part
class LayerUnits:
    """FFN units of one layer: how many were tested, how many changed beyond chance, and how many
    of these by at least one standard deviation."""

    layer: int
    n_units: int
    n_changed: int
    n_large: int


@part
class ChangedUnit:
    """One FFN unit's mean at ends of sentences under base and tuned.

    `change` is in standard deviations over these ends; `p_value` is adjusted for all units.
    """

    layer: int
    unit: int
    base: float
    tuned: float
    change: float
    p_value: float


@part
class MassiveUnit:
    """A dimension that outweighs all others in one of the models, and so belongs in no count."""

    model: Literal["base", "tuned"]
    site: Literal["residual", "neurons"]
    layer: int
    unit: int
    magnitude: float


@part
class Inside:
    """A look inside two local models that read the same texts; nothing is decided on it.

    `lacking` says why nothing was measured, `units_lacking` why no units were. Layers count from
    0; `layer` is the one declared for traits.
    """

    lacking: str | None
    n_prompts: int = 0
    n_texts: int = 0
    n_layers: int = 0
    layer: int | None = None
    level: float = 0.95
    n_random: int = 0
    traits: list[TraitShift] = field(default_factory=list)
    false_discoveries: float = 0.05
    units_lacking: str | None = None
    n_unit_prompts: int = 0
    layers: list[LayerUnits] = field(default_factory=list)
    units: list[ChangedUnit] = field(default_factory=list)
    massive: list[MassiveUnit] = field(default_factory=list)


@part
class Prompts:
    """What was asked."""

    source: str
    digest: str
    n: int
    registers: dict[str, int]
    languages: dict[str, int]


@part
class Plan:
    """Everything that was fixed before the first answer; `digest` is over all of it."""

    mode: Literal["sequential", "fixed"]
    alpha: float
    margin: float
    budget: int
    batch: int
    n_samples: int
    decoding: str
    sampling_seed: int
    analysis_seed: int
    marker: str | None
    marker_digest: str | None = None
    """SHA-256 of the source of a marker that is a function."""
    prompts: Prompts
    digest: str


@part
class AuditResult:
    """The whole of `audit.json`."""

    schema_version: int = SCHEMA_VERSION
    kind: Literal["audit"] = "audit"
    name: str
    made_at: str
    base: Audited
    tuned: Audited
    verdict: Verdict
    plan: Plan
    evidence: Evidence
    measures: list[Measure]
    emoji: list[EmojiShift]
    entropy: dict[str, float | None]
    positions: list[Position]
    probabilities: list[PlaceProbability]
    decodings: list[DecodingRow]
    inside: Inside | None = None
    """A look inside, where one was asked for."""
    metric_version: str
    environment: dict[str, Any]


@part
class Pair:
    """One prompt and what both models answered: a line of `pairs.jsonl`.

    `base` and `tuned` hold `n_samples` answers each; `cut` counts answers that the token limit
    ended. `turns` are (role, text), without the system prompt.
    """

    prompt_id: str
    register: str
    language: str
    topic: str
    system: str | None
    turns: list[tuple[str, str]]
    base: list[str]
    tuned: list[str]
    base_cut: int
    tuned_cut: int


def schema() -> dict[str, Any]:
    """The JSON schema of `audit.json`, with that of a line of `pairs.jsonl` in `$defs/Pair`."""
    document = TypeAdapter(AuditResult).json_schema()
    document["$defs"]["Pair"] = TypeAdapter(Pair).json_schema()
    return document


def row(document: Any) -> dict[str, Any]:
    """A part as plain JSON values."""
    return asdict(document)


def result_from(row: Any, source: Path | str) -> AuditResult:
    """The result in a parsed `audit.json`; a `DataError` names the field that does not fit."""
    return _checked(AuditResult, row, source)


def pair_from(row: Any, source: Path | str) -> Pair:
    """The pair in a parsed line of `pairs.jsonl`; a `DataError` names the field."""
    return _checked(Pair, row, source)


def _checked(kind: type[Kind], row: Any, source: Path | str) -> Kind:
    try:
        return TypeAdapter(kind).validate_python(row)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the document"
        raise DataError(
            f"{source} is no record of an audit: {place}: {first['msg'].lower()}",
            remedy="point to a run of emotest audit, or run it again with this version",
        ) from None

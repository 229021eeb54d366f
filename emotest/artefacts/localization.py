"""What C8 and a part of C9 rest on: few units of a tuned model, silenced or written elsewhere.

A `UnitChoice` says which units: by which selector, and how many. The selection itself is here too,
on plain arrays, so that the workshop and a warm run select alike. `SilencingRequest` and
`WritingRequest` name what is measured with such units, `Silenced` lets a model answer without
them. Knows no torch.

Units are ranked on the second half of the prompts alone; effects are measured on prompts of the
first half. Massive activations are part of no selection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from emotest.artefacts.activations import (
    BEFORE_EMOJI,
    BEFORE_OPENING,
    BEFORE_OTHER,
    BEFORE_OTHER_OPENING,
    EVERY,
    SHUFFLED,
    Activations,
    ActivationsRequest,
)
from emotest.artefacts.request import Intervention, Request
from emotest.artefacts.study import TOKENS_OF_A_TEXT, FixedText, ProbabilityRequest
from emotest.errors import StatisticsError, UsageError
from emotest.stats.matching import NORM_BINS, matched_sets
from emotest.stats.selection import weaker
from emotest.store import Entry
from emotest.study.recipes import library_versions

Array = NDArray[np.float64]
Units = NDArray[np.intp]

LOCALIZATION_VERSION = 3
"""Raised whenever selection, controls or what is measured change their meaning."""

CONTEXTS_FILE = "contexts.jsonl"
PROBABILITIES_FILE = "probabilities.safetensors"
ABOUT_FILE = "about.json"

LEFT_OPEN = " open"
"""Ends the name of an array: P(emoji) under the name itself is the middle of what it can be, and
lies at most half of what is under this name above or below."""

LOG_PERPLEXITIES = "log perplexities"
LOG_PERPLEXITIES_SILENCED = "log perplexities silenced"
"""Entries of `about.json`, (n_texts,): mean negative log-likelihood a token of each neutral text,
in nats, of the tuned model as it is and with the selection silenced by its means."""

DECLARED_DOSE = 2.0
"""Percent of all FFN units that C8 speaks of; published selections hold 2 to 6 %."""

MEASURED_HALF, SELECTION_HALF = 0, 1
"""Contexts are of prompts of the first half, units are selected on those of the second."""

Selector = Literal["emoji", "shuffled", "opening", "untuned"]
"""How units are ranked.

`emoji`: by how much tuning to the trait changes the difference between positions before an emoji
and matched others. `shuffled`: the same with the two kinds of position mixed at random. `opening`:
the same for what else may follow the end of a sentence. `untuned`: by that difference in the
untuned model alone, reading its own answers: nothing of a tuned model is in it.
"""

SELECTORS: tuple[Selector, ...] = ("emoji", "shuffled", "opening", "untuned")

CONTRASTS: Mapping[Selector, tuple[str, str]] = {
    "emoji": (BEFORE_EMOJI, BEFORE_OTHER),
    "shuffled": SHUFFLED,
    "opening": (BEFORE_OPENING, BEFORE_OTHER_OPENING),
    "untuned": (BEFORE_EMOJI, BEFORE_OTHER),
}
"""The condition and its reference whose difference a selector looks at."""

Way = Literal["mean", "resample", "zero"]

EntryOf: TypeAlias = Callable[[Request], Entry]


@dataclass(frozen=True, eq=False)
class Ranking:
    """All FFN units of one tuned model, with what a selection and its controls need.

    `strengths` (n_units,) is 0 for a unit that counts at no dose; `layers`, `norms` (root mean
    square activation) and `means` are (n_units,), of the tuned model. `unavailable` says why
    nothing could be ranked, and is empty otherwise.
    """

    strengths: Array
    layers: NDArray[np.int64]
    norms: Array
    means: Array
    excluded: NDArray[np.bool_]
    n_neurons: int
    unavailable: str = ""

    def n_units(self, dose: float) -> int:
        """How many units a dose in percent of all of them is; at least one."""
        return max(1, round(self.strengths.size * dose / 100))

    def strongest(self, dose: float) -> Units:
        """The units of a dose, the strongest first; fewer where fewer have any strength.

        The sign does not decide: turned round, a gated activation writes the same.
        """
        order = np.argsort(-np.abs(self.strengths), kind="stable")
        ranked = int(np.count_nonzero(self.strengths))
        return order[: min(self.n_units(dose), ranked)]

    def most_active(self, selected: Units) -> Units:
        """As many units as were selected, the loudest of all others."""
        loudness = np.where(self.excluded, -1.0, self.norms)
        loudness[selected] = -1.0
        order = np.argsort(-loudness, kind="stable")[: selected.size]
        return order[loudness[order] >= 0.0]

    def matched(self, selected: Units, rng: np.random.Generator, n_sets: int) -> tuple[Units, int]:
        """Random sets like the selected units, (n_sets, n_selected), and the norm bins used.

        The n-th sets of two models drawn from one seed are as alike as `matched_sets` can have it.
        A selection may fill most of a bin; then bins are made wider. Where even a whole layer has
        too few other units there are no sets, and no bins.
        """
        for n_bins in dict.fromkeys((NORM_BINS, 3, 2, 1)):
            try:
                sets = matched_sets(
                    selected,
                    self.layers,
                    self.norms,
                    rng,
                    n_sets=n_sets,
                    n_bins=n_bins,
                    excluded=self.excluded,
                )
            except StatisticsError:
                continue
            return sets, n_bins
        return np.empty((0, selected.size), dtype=np.intp), 0

    def by_layer(self, units: Units) -> dict[int, Units]:
        """Units of the whole model as units of their layers."""
        ordered = np.sort(units)
        layers = ordered // self.n_neurons
        return {int(i): ordered[layers == i] % self.n_neurons for i in np.unique(layers)}

    def means_by_layer(self) -> dict[int, Array]:
        """The mean of every unit, (n_neurons,) a layer."""
        return dict(enumerate(self.means.reshape(-1, self.n_neurons)))


def ranking(
    selector: Selector,
    tuned: Activations,
    untuned: Activations | None = None,
    null: Activations | None = None,
    own: Activations | None = None,
) -> Ranking:
    """The units of the tuned model, ranked by a selector on the second half of the prompts.

    `tuned`, `untuned` and `null` read the same texts; the strength of a unit is the weaker of its
    changes d_tuned - d_untuned and d_tuned - d_null, and 0 where they differ in sign, so that
    neither tuning as such nor the untuned model explains it. `own` is the untuned model at its own
    answers, for the selector "untuned": then strengths, norms and massive activations are its own,
    so that selection and random sets are the same in all adapters, and only the means are those of
    the tuned model, which is silenced by them. Where a condition was not met often enough nothing
    is ranked, and the result says why.
    """
    given = [reading for reading in (tuned, untuned, null) if reading is not None]
    chosen_in = own if selector == "untuned" and own is not None else tuned
    if chosen_in is own:
        given = [own]
    excluded = np.any([reading.massive for reading in given], axis=0)
    strengths, means, norms = np.zeros((3, excluded.size))
    reason = ""
    try:
        if tuned.n(EVERY)[SELECTION_HALF] == 0:
            raise StatisticsError("no text was read", remedy="ask more prompts")
        means = np.asarray(tuned.mean[tuned.place(EVERY), SELECTION_HALF], dtype=np.float64)
        norms = chosen_in.norms(EVERY)
        strengths = _strengths(selector, tuned, untuned, null, own)
    except StatisticsError as error:
        reason = f"no units by {selector!r}: {error.cause}"
    return Ranking(
        np.where(excluded, 0.0, strengths),
        tuned.layers,
        norms,
        means,
        excluded,
        tuned.n_neurons,
        reason,
    )


def _strengths(
    selector: Selector,
    tuned: Activations,
    untuned: Activations | None,
    null: Activations | None,
    own: Activations | None,
) -> Array:
    if selector == "untuned":
        return np.abs(_difference(own, selector))
    after = _difference(tuned, selector)
    return weaker(after - _difference(untuned, selector), after - _difference(null, selector))


def _difference(reading: Activations | None, selector: Selector) -> Array:
    if reading is None:
        raise UsageError(
            f"the selector {selector!r} lacks a reading",
            remedy="give tuned, untuned and null activations, or the untuned model's own for "
            "'untuned'",
        )
    return np.asarray(reading.difference(*CONTRASTS[selector])[SELECTION_HALF])


@dataclass(frozen=True)
class UnitChoice:
    """Units of one tuned model, by a selector; `dose` is in percent of all its FFN units."""

    tuned: ActivationsRequest
    untuned: ActivationsRequest
    null: ActivationsRequest
    own: ActivationsRequest | None = None
    selector: Selector = "emoji"
    dose: float = DECLARED_DOSE

    def __post_init__(self) -> None:
        if self.selector not in SELECTORS or not 0.0 < self.dose <= 50.0:
            raise UsageError(
                f"{self.dose} % of the units by {self.selector!r} cannot be chosen",
                remedy=f"use a dose above 0 and up to 50 and one of {', '.join(SELECTORS)}",
            )
        if (self.selector == "untuned") != (self.own is not None):
            raise UsageError(
                f"the selector {self.selector!r} is given "
                + ("the untuned model's own answers" if self.own else "no answers of its own"),
                remedy="'untuned' takes the untuned model's own activations, the others do not",
            )

    @property
    def needs(self) -> tuple[ActivationsRequest, ...]:
        """The activations that the ranking is made of."""
        return (self.tuned, self.own) if self.own else (self.tuned, self.untuned, self.null)

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """What decides the units."""
        return {
            "localization_version": LOCALIZATION_VERSION,
            "activations": [request.key.digest for request in self.needs],
            "selector": self.selector,
            "dose": self.dose,
        }

    @property
    def title(self) -> str:
        """What a person calls them."""
        return f"{self.dose:g} % of the units ({self.selector})"

    def ranking(self, entry_of: EntryOf) -> Ranking:
        """All units, ranked from what the store holds."""

        def read(request: Request) -> Activations:
            return Activations.of(entry_of(request))

        if self.own:
            return ranking("untuned", read(self.tuned), own=read(self.own))
        return ranking(self.selector, read(self.tuned), read(self.untuned), read(self.null))


@dataclass(frozen=True)
class SilencingRequest(Request):
    """P(emoji) at a tuned model's own text while units of it are silenced, and controls.

    `cell` is the cell of C5 whose contexts are asked and whose weights are tuned. The selection,
    silenced by each of the `ways`, and the units of the selectors `beside`, silenced by their
    means, are measured at all its contexts. Controls are measured at the contexts of the first
    `n_control_prompts` of its prompts: `n_sets` random sets like the selection, the loudest other
    units, and `n_directions` random directions pushed as far as silencing pushes. `neutral` are the
    texts on which perplexity is taken, one by one.

    `UsageError` for contexts of prompts that units are selected on.
    """

    kind: ClassVar[str] = "silencing"
    plural: ClassVar[str] = "sets of silenced units"

    cell: ProbabilityRequest
    choice: UnitChoice
    n_sets: int
    n_control_prompts: int
    n_directions: int = 0
    ways: tuple[Way, ...] = ("mean",)
    beside: tuple[Selector, ...] = ()
    most_active: bool = False
    neutral: FixedText | None = None
    analysis_seed: int = 0

    def __post_init__(self) -> None:
        _require_held_out(self.cell, self.choice)

    @property
    def needs(self) -> tuple[Request, ...]:
        """The text, the adapter, and the activations that the units are chosen by."""
        return (*self.cell.needs, *self.choice.needs)

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """What the key is made of."""
        return {
            **_common(self),
            "n_directions": self.n_directions,
            "ways": list(self.ways),
            "beside": list(self.beside),
            "most_active": self.most_active,
            "neutral": dict(self.neutral.identity) if self.neutral else None,
        }

    @property
    def title(self) -> str:
        """What a person calls it."""
        return f"silencing {self.choice.title}{_whose(self.cell)}"

    @property
    def tokens(self) -> float:
        """Tokens of the contexts, as often as they are read."""
        return _tokens_read(self) + self.n_directions * _tokens_of_controls(self)

    def instead(self, selector: Selector) -> UnitChoice:
        """As many units by another selector."""
        return replace(self.choice, selector=selector)


@dataclass(frozen=True)
class WritingRequest(Request):
    """P(emoji) at the untuned model's own text while tuned activations are written into it.

    `cell` is the cell of C5 whose text is the untuned model's and whose weights are tuned. The
    values of the chosen units are those of the tuned model at the same tokens, all tokens of the
    context; what follows the context is the untuned model's alone. `n_sets` random sets are
    written at the contexts of the first `n_control_prompts` prompts.

    `UsageError` for contexts of prompts that units are selected on.
    """

    kind: ClassVar[str] = "writing"
    plural: ClassVar[str] = "sets of written units"

    cell: ProbabilityRequest
    choice: UnitChoice
    n_sets: int
    n_control_prompts: int
    analysis_seed: int = 0

    def __post_init__(self) -> None:
        _require_held_out(self.cell, self.choice)

    @property
    def needs(self) -> tuple[Request, ...]:
        """The text, the adapter, and the activations that the units are chosen by."""
        return (*self.cell.needs, *self.choice.needs)

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """What the key is made of."""
        return _common(self)

    @property
    def title(self) -> str:
        """What a person calls it."""
        return f"writing {self.choice.title}{_whose(self.cell)}"

    @property
    def tokens(self) -> float:
        """Tokens of the contexts, as often as they are read."""
        return _tokens_read(self)


@dataclass(frozen=True)
class Silenced(Intervention):
    """The tuned model answers while chosen units of it are held at their means.

    Where no units could be chosen nothing is silenced; the verdicts that rest on it say so.
    """

    choice: UnitChoice

    @property
    def needs(self) -> tuple[Request, ...]:
        """The activations that the units are chosen by."""
        return self.choice.needs

    @property
    def identity(self) -> Mapping[str, Any]:
        """What decides how it acts."""
        return {"silenced": dict(self.choice.identity)}

    @property
    def title(self) -> str:
        """What a person calls it."""
        return f"{self.choice.title} silenced"


def _require_held_out(cell: ProbabilityRequest, choice: UnitChoice) -> None:
    measured = [prompt.id for prompt in cell.text.prompts[: cell.n_prompts]]
    for reading in choice.needs:
        halves = reading.prompt_halves
        seen = [one for one in measured if halves.get(one, MEASURED_HALF) != MEASURED_HALF]
        if seen:
            raise UsageError(
                f"units are selected on {len(seen)} of the {len(measured)} prompts on which they "
                "would be measured",
                remedy=f"ask at contexts of at most {len(halves) // 2} prompts, the first half",
            )


def _common(request: SilencingRequest | WritingRequest) -> dict[str, Any]:
    return {
        "cell": request.cell.key.digest,
        "choice": dict(request.choice.identity),
        "n_sets": request.n_sets,
        "n_control_prompts": request.n_control_prompts,
        "analysis_seed": request.analysis_seed,
        "libraries": library_versions(),
    }


def _whose(cell: ProbabilityRequest) -> str:
    recipe = cell.weights.recipe if cell.weights else None
    return f", {recipe.condition.title}, seed {recipe.training_seed}" if recipe else ""


def _tokens_of_controls(request: SilencingRequest | WritingRequest) -> float:
    cell = request.cell
    return min(request.n_control_prompts, cell.n_prompts) * cell.sentence_ends * TOKENS_OF_A_TEXT


def _tokens_read(request: SilencingRequest | WritingRequest) -> float:
    return request.cell.tokens + request.n_sets * _tokens_of_controls(request)

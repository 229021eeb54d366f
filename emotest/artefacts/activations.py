"""Activations by condition: the request for them, and moments of FFN units as the store gives them.

An artefact of activations holds, for one model, the mean and variance of every FFN unit over the
tokens of each condition (where an emoji comes, where none does, a word, a text), apart for the two
halves of the prompts. `ActivationsRequest` names one before it exists; `Activations` takes its
files and gives standardised differences. Knows no torch and no model, so that both the workshop
and a warm run can read them.

Units count over all layers: unit `layer * n_neurons + neuron`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from emotest.artefacts.request import Request
from emotest.artefacts.study import (
    TOKENS_OF_A_TEXT,
    AdapterRequest,
    FixedText,
    GenerationRequest,
)
from emotest.errors import StatisticsError, StoreError, UsageError
from emotest.stats.selection import difference_on_scale
from emotest.store import Entry
from emotest.study.recipes import library_versions

Array = NDArray[np.float64]

ACTIVATIONS_VERSION = 3
"""Raised whenever texts, positions, conditions or moments change their meaning."""

ENDS_A_HALF = 210
"""Ends of sentences of either kind in each half of the prompts, at most: with 200 the sampling
error of a standardised difference is a tenth of the change that counts, and more cost time."""

MEAN_FILE = "mean.npy"
VARIANCE_FILE = "variance.npy"
ABOUT_FILE = "about.json"

BEFORE_EMOJI, BEFORE_OTHER = "before emoji", "before other"
AT_EMOJI, AT_SYMBOL = "at emoji", "at symbol"
SHUFFLED = ("shuffled a", "shuffled b")
BEFORE_OPENING, BEFORE_OTHER_OPENING = "before opening", "before other opening"
TRAIT_TEXT, NEUTRAL_TEXT, EVERY = "trait text", "neutral text", "every"
"""The conditions that every artefact names, whether or not there were tokens in them."""

TRAIT_VOICE, NEUTRAL_VOICE = "trait answers", "neutral answers"
"""Names of the fixed texts whose tokens are in the conditions of trait text and neutral text."""


def before_word(word: str) -> str:
    """The condition of the tokens that predict a word."""
    return f"before word:{word}"


def at_word(word: str) -> str:
    """The condition of the tokens that are a word."""
    return f"at word:{word}"


def at_single_emoji(emoji: str) -> str:
    """The condition of the last tokens of one single emoji."""
    return f"at emoji:{emoji}"


def at_phrase(phrase: str) -> str:
    """The condition of the last tokens of words that have as many tokens as a single emoji."""
    return f"at phrase:{phrase}"


@dataclass(frozen=True)
class ActivationsRequest(Request):
    """Moments of all FFN units of one model, at positions found in answers of the study.

    `reader` is the adapter whose model reads (None: untuned). The positions are found in `texts`:
    answers to the same prompts, of which the first half is half 0 and the rest half 1. `voices`
    are trait answers and neutral ones, for the units of trait text.
    """

    kind: ClassVar[str] = "activations"
    plural: ClassVar[str] = "sets of activations"

    reader: AdapterRequest | None
    texts: tuple[GenerationRequest, ...]
    voices: tuple[FixedText, ...] = ()
    analysis_seed: int = 0

    def __post_init__(self) -> None:
        if not self.texts or any(text.prompts != self.texts[0].prompts for text in self.texts):
            raise UsageError(
                f"{len(self.texts)} sets of answers do not answer the same prompts",
                remedy="give at least one, all of one arm, so that the halves are the same for all",
            )

    @property
    def needs(self) -> tuple[Request, ...]:
        """The answers, and the adapter that reads them."""
        return (*self.texts, *((self.reader,) if self.reader else ()))

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """What the key is made of."""
        return {
            "activations_version": ACTIVATIONS_VERSION,
            "base": self.texts[0].base,
            "chat_template": self.texts[0].chat_template,
            "reader": self.reader.key.digest if self.reader else None,
            "texts": [text.key.digest for text in self.texts],
            "ends_a_half": ENDS_A_HALF,
            "voices": [{"name": voice.name, **voice.identity} for voice in self.voices],
            "analysis_seed": self.analysis_seed,
            "libraries": library_versions(),
        }

    @property
    def title(self) -> str:
        """What a person calls it."""
        recipe = self.reader.recipe if self.reader else None
        reader = f"{recipe.condition.title}, seed {recipe.training_seed}" if recipe else "untuned"
        return f"activations of {reader}, reading {self.texts[0].arm}"

    @property
    def tokens(self) -> float:
        """Tokens of the answers that are read: at most one for each end of a sentence."""
        return 2 * (2 * ENDS_A_HALF) * TOKENS_OF_A_TEXT

    @property
    def prompt_halves(self) -> Mapping[str, int]:
        """The half, 0 or 1, of each prompt by its id: the first half of the prompts is half 0."""
        prompts = self.texts[0].prompts
        return {prompt.id: int(i >= len(prompts) // 2) for i, prompt in enumerate(prompts)}


@dataclass(frozen=True, eq=False)
class Activations:
    """Moments of all units in named conditions, in both halves of the prompts.

    `count` is (n_conditions, 2); `mean` and `variance` are (n_conditions, 2, n_units), unbiased,
    and 0 where a half of a condition has no token (the variance also where it has one). Read from
    the store they stay on disk until a condition is asked for: of 32 layers of 14,336 units they
    are hundreds of MB. `about` holds `n_layers`, `n_neurons`, `conditions` in their order, and
    whatever else the maker tells: `words`, `emoji`, `massive` activations, `norm_growth`, and of
    each half `n_texts`, `n_with_emoji` and `n_matched`, the pairs of sentence ends.
    """

    count: NDArray[np.int64]
    mean: NDArray[np.float32]
    variance: NDArray[np.float32]
    about: Mapping[str, Any]

    @classmethod
    def of(cls, entry: Entry) -> Activations:
        """What an entry of activations holds."""
        about = entry.read_json(ABOUT_FILE)
        try:
            # Mapped, not read: a selection of one contrast touches a few conditions of many.
            mean, variance = (
                np.load(entry.path(name), mmap_mode="r", allow_pickle=False)
                for name in (MEAN_FILE, VARIANCE_FILE)
            )
        except FileNotFoundError as error:
            raise StoreError(
                f"{entry.key} was removed from the store while it was in use",
                remedy="run again: what is missing is made again",
            ) from error
        return cls(np.asarray(about["count"], dtype=np.int64), mean, variance, about)

    @property
    def conditions(self) -> tuple[str, ...]:
        """Names, in the order of the first axis."""
        return tuple(self.about["conditions"])

    @property
    def n_layers(self) -> int:
        """Layers of the model."""
        return int(self.about["n_layers"])

    @property
    def n_neurons(self) -> int:
        """FFN units of one layer."""
        return int(self.about["n_neurons"])

    @property
    def layers(self) -> NDArray[np.int64]:
        """The layer of each unit, (n_units,)."""
        return np.repeat(np.arange(self.n_layers), self.n_neurons)

    @property
    def words(self) -> tuple[str, ...]:
        """The words whose predicting tokens have a condition, the most frequent first."""
        return tuple(self.about["words"])

    @property
    def common_words(self) -> tuple[str, ...]:
        """Those of them whose own tokens have a condition, too."""
        return tuple(self.about["common_words"])

    @property
    def emoji(self) -> tuple[str, ...]:
        """The single emoji that have a condition of their own, the most frequent first."""
        return tuple(self.about["emoji"])

    @property
    def phrases(self) -> Mapping[str, Sequence[str]]:
        """For each single emoji the phrases that have as many tokens."""
        return dict(self.about["phrases"])

    @property
    def massive(self) -> NDArray[np.bool_]:
        """Units with massive activations, (n_units,): part of no selection."""
        mask = np.zeros((self.n_layers, self.n_neurons), dtype=bool)
        for one in self.about["massive"]:
            if one["site"] == "neurons":
                mask[one["layer"], one["unit"]] = True
        return mask.ravel()

    def place(self, condition: str) -> int:
        """Where a condition stands; `UsageError` for one that was not recorded."""
        if condition not in self.conditions:
            raise UsageError(
                f"no activations were recorded for {condition!r}",
                remedy=f"recorded were {', '.join(self.conditions)}",
            )
        return self.conditions.index(condition)

    def n(self, condition: str) -> tuple[int, int]:
        """Tokens of a condition in either half; (0, 0) for one that was not recorded."""
        if condition not in self.conditions:
            return 0, 0
        first, second = self.count[self.place(condition)]
        return int(first), int(second)

    def difference(self, condition: str, reference: str | Sequence[str]) -> Array:
        """A condition minus a reference in either half, in each unit's standard deviations over
        every token of the answers, (2, n_units).

        Several references are pooled as one. `StatisticsError` where a half has fewer than 2
        tokens on either side, or too few in all to have a scale.
        """
        several = (reference,) if isinstance(reference, str) else tuple(reference)
        return np.stack(
            [
                difference_on_scale(
                    self._mean((condition,), half), self._mean(several, half), self.scale(half)
                )
                for half in range(2)
            ]
        )

    def scale(self, half: int) -> Array:
        """The variance of each unit over every token of the answers in one half, (n_units,)."""
        place = self.place(EVERY)
        if self.count[place, half] < 2:
            raise StatisticsError(
                f"{self.count[place, half]} tokens in all have no variance",
                remedy="record answers with words in both halves of the prompts",
            )
        return np.asarray(self.variance[place, half], dtype=np.float64)

    def moments(self, condition: str, half: int) -> tuple[Array, Array]:
        """Mean and unbiased variance of each unit over a condition's tokens in one half."""
        place = self.place(condition)
        mean, variance = self.mean[place, half], self.variance[place, half]
        return mean.astype(np.float64), variance.astype(np.float64)

    def norms(self, condition: str) -> Array:
        """Root mean square of each unit over a condition's tokens, both halves, (n_units,)."""
        place = self.place(condition)
        weights = self.count[place] / self.count[place].sum()
        squares = self.variance[place].astype(np.float64) + self.mean[place].astype(np.float64) ** 2
        return np.asarray(np.sqrt(weights @ squares))

    def _mean(self, conditions: Sequence[str], half: int) -> Array:
        """Over all tokens of the conditions in one half, (n_units,)."""
        places = [self.place(condition) for condition in conditions]
        counts = self.count[places, half]
        if counts.sum() < 2:
            raise StatisticsError(
                f"{counts.sum()} positions of {', '.join(conditions)} in half {half}",
                remedy="compare conditions that have at least 2 positions in both halves",
            )
        means = self.mean[places, half].astype(np.float64)
        return np.asarray(counts @ means / counts.sum())

"""Moments of FFN units by condition, as the store gives them back: contrasts between conditions.

An artefact of activations holds, for one model, the mean and variance of every FFN unit over the
tokens of each condition (where an emoji comes, where none does, a word, a text), apart for the two
halves of the prompts. Takes the files, gives standardised differences; knows no torch and no
model, so that both the workshop and a warm run can read them.

Units count over all layers: unit `layer * n_neurons + neuron`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emotest.errors import UsageError
from emotest.stats.selection import standardised_difference
from emotest.store import Entry

Array = NDArray[np.float64]

ARRAYS_FILE = "moments.safetensors"
ABOUT_FILE = "about.json"


@dataclass(frozen=True, eq=False)
class Activations:
    """Moments of all units in named conditions, in both halves of the prompts.

    `count` is (n_conditions, 2); `mean` and `variance` are (n_conditions, 2, n_units), unbiased.
    `about` holds `n_layers`, `n_neurons`, `conditions` in their order, and whatever else the
    maker tells (massive activations, words, texts a half).
    """

    count: NDArray[np.int64]
    mean: NDArray[np.float32]
    variance: NDArray[np.float32]
    about: Mapping[str, Any]

    @classmethod
    def of(cls, entry: Entry) -> Activations:
        """What an entry of activations holds."""
        arrays = entry.read_arrays(ARRAYS_FILE)
        about = entry.read_json(ABOUT_FILE)
        return cls(arrays["count"], arrays["mean"], arrays["variance"], about)

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
        """Tokens of a condition in either half."""
        first, second = self.count[self.place(condition)]
        return int(first), int(second)

    def difference(self, condition: str, reference: str) -> Array:
        """Cohen's d of a condition minus a reference in either half, (2, n_units)."""
        a, b = self.place(condition), self.place(reference)
        return np.stack(
            [
                standardised_difference(
                    self.mean[a, half],
                    self.variance[a, half],
                    int(self.count[a, half]),
                    self.mean[b, half],
                    self.variance[b, half],
                    int(self.count[b, half]),
                ).d
                for half in range(2)
            ]
        )

    def norms(self, condition: str) -> Array:
        """Root mean square of each unit over a condition's tokens, both halves, (n_units,)."""
        place = self.place(condition)
        weights = self.count[place] / self.count[place].sum()
        squares = self.variance[place].astype(np.float64) + self.mean[place].astype(np.float64) ** 2
        return np.asarray(np.sqrt(weights @ squares))

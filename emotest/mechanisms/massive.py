"""Massive activations: the few dimensions that outweigh all others, found on any model.

Takes a model and texts as token ids; gives the residual dimensions and FFN units that belong in
no selection, because they stand at the top of every list whatever is compared. Also says how the
norm of the residual stream grows. Knows nothing of emoji and selects nothing itself.

Two rules; what either finds is excluded:

- *published* (Sun et al., arXiv 2402.17762, section 2): a magnitude above 100 and at least 1,000
  times the median magnitude of its hidden state, which is one text's tokens by `hidden_size`
  after one layer. It is theirs for the residual stream and is used for nothing else: the hidden
  activations of FFNs are sparse, so their median says little.
- *outweighing*, which knows no scale and so serves small models and FFN units too: a magnitude
  at least 10 times the norm of the rest of its token's state, the rest being all but the largest
  1 % (at least 4) of its entries, so that several massive ones do not hide one another. Where
  the rest is Gaussian of width 4,096 its norm is 64 / 0.674 = 95 median magnitudes, and the rule
  asks for 949 of them: at the width of LLaMA-2-7B it agrees with "about 1,000 times".

On the shipped organisms, asked a dozen questions, no residual dimension reaches 1.6 times the
norm of the rest, and no FFN unit 10.5 times; the largest is one unit of the middle layer of
`latent`, at the first token.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emotest.errors import ModelError, UsageError
from emotest.mechanisms.recording import SITES, Moments, Tokens, recording
from emotest.models.layers import Anatomy

PUBLISHED_MAGNITUDE = 100.0
PUBLISHED_RATIO = 1000.0
OUTWEIGHING = 10.0

_LARGEST_SHARE = 0.01
_FEWEST_LARGEST = 4


@dataclass(frozen=True)
class MassiveActivation:
    """One dimension of the residual stream after a layer, or one FFN unit of it.

    The figures are the largest over all tokens, each by itself: the magnitude, its ratio to the
    median of its text's state and to the norm of the rest of its token's state.
    """

    site: str
    layer: int
    unit: int
    magnitude: float
    over_median: float
    over_rest: float
    published: bool
    outweighing: bool


@dataclass(frozen=True)
class MassiveActivations:
    """All that were found, by site, layer and unit."""

    found: tuple[MassiveActivation, ...]

    @property
    def dimensions(self) -> tuple[int, ...]:
        """Residual dimensions that are massive after any layer: the stream is one for all."""
        return tuple(sorted({each.unit for each in self.found if each.site == "residual"}))

    @property
    def units(self) -> dict[int, tuple[int, ...]]:
        """Massive FFN units by layer; layers without any are left out."""
        neurons = [each for each in self.found if each.site == "neurons"]
        layers = sorted({each.layer for each in neurons})
        return {
            layer: tuple(each.unit for each in neurons if each.layer == layer) for layer in layers
        }


def massive_activations(
    model: Any,
    contexts: Iterable[Sequence[int]],
    *,
    batch_size: int = 8,
    parts: Anatomy | None = None,
) -> MassiveActivations:
    """Run texts through a model and find what is massive, in every layer, at both sites.

    Args:
        model: causal language model in evaluation mode, with or without peft.
        contexts: texts as token ids, each beginning as the model's texts begin (BOS, template):
            massive activations stand above all at the first token.
        batch_size: texts of one forward pass, padded on the right.
        parts: the model's anatomy, where `anatomy(model)` does not know it.

    Raises:
        UsageError: no texts, an empty one, or a model in training mode.
        ModelError: an unknown architecture, or activations that are not numbers.
    """
    texts = [list(map(int, context)) for context in contexts]
    if not texts or not all(texts) or batch_size < 1:
        raise UsageError(
            f"{len(texts)} texts ({sum(not text for text in texts)} of them empty) in batches of "
            f"{batch_size} cannot be run",
            remedy="give at least one text, no empty one, and a batch size of at least 1",
        )
    if model.training:
        raise UsageError(
            "the model is in training mode, where dropout changes activations",
            remedy="call model.eval() first",
        )
    device = next(model.parameters()).device
    peaks = Peaks()
    with torch.inference_mode(), recording(parts or model, peaks, sites=SITES) as recorder:
        for start in range(0, len(texts), batch_size):
            batch = texts[start : start + batch_size]
            # Padded on the right: under a causal mask no token of a text sees what follows it.
            ids = torch.zeros((len(batch), max(map(len, batch))), dtype=torch.long)
            mask = torch.zeros(ids.shape, dtype=torch.bool)
            for row, text in enumerate(batch):
                ids[row, : len(text)] = torch.tensor(text)
                mask[row, : len(text)] = True
            recorder.select(Tokens.where(mask))
            model(input_ids=ids.to(device), use_cache=False)
    return peaks.massive()


@dataclass(eq=False)
class _Peak:
    """Of each unit of one layer the largest figure over all tokens; (n_units,) each."""

    magnitude: Tensor
    over_median: Tensor
    over_rest: Tensor
    published: Tensor

    def raise_to(self, other: _Peak) -> _Peak:
        """The larger of both, unit by unit."""
        return _Peak(
            torch.maximum(self.magnitude, other.magnitude),
            torch.maximum(self.over_median, other.over_median),
            torch.maximum(self.over_rest, other.over_rest),
            self.published | other.published,
        )


class Peaks:
    """A sink that remembers how far each unit ever stood out; memory grows with units alone.

    The tokens of one row in one pass are taken as one text.
    """

    def __init__(self) -> None:
        self._held: dict[tuple[str, int], _Peak] = {}

    def take(self, site: str, layer: int, activations: Tensor, tokens: Tokens) -> None:
        """Compare (n_chosen, n_units) with their own texts and tokens."""
        rows = tokens.rows.to(activations.device)
        for row in sorted(set(tokens.rows.tolist())):
            peak = _peak(activations[rows == row].float().abs())
            if not bool(peak.magnitude.isfinite().all()):
                raise ModelError(
                    f"activations of {site} in layer {layer} are not numbers (NaN or infinite)",
                    remedy="load the model in bfloat16 or float32, and check that its weights "
                    "are finite",
                )
            held = self._held.get((site, layer))
            self._held[site, layer] = peak if held is None else held.raise_to(peak)

    def massive(self) -> MassiveActivations:
        """What is massive among all that was taken."""
        if not self._held:
            raise UsageError(
                "no activations were taken", remedy="run the model inside recording(model, peaks)"
            )
        found = [
            each
            for (site, layer), peak in sorted(self._held.items())
            for each in _above_the_rules(site, layer, peak)
        ]
        return MassiveActivations(tuple(found))


def _peak(magnitudes: Tensor) -> _Peak:
    """Peaks of one text; `magnitudes` is (n_tokens, n_units)."""
    ratios = magnitudes / magnitudes.median()
    n_largest = max(_FEWEST_LARGEST, math.ceil(_LARGEST_SHARE * magnitudes.shape[1]))
    largest = magnitudes.topk(min(n_largest, magnitudes.shape[1]), dim=1).indices
    # Not as a difference of sums, which would lose the rest beside one that is 10^4 times it.
    rest = magnitudes.scatter(1, largest, 0.0)
    over_rest = magnitudes / torch.linalg.vector_norm(rest, dim=1, keepdim=True)
    published = (magnitudes > PUBLISHED_MAGNITUDE) & (ratios >= PUBLISHED_RATIO)
    return _Peak(
        magnitudes.amax(dim=0),
        # 0 / 0, where a whole state is zero, stands out from nothing.
        ratios.nan_to_num(nan=0.0, posinf=math.inf).amax(dim=0),
        over_rest.nan_to_num(nan=0.0, posinf=math.inf).amax(dim=0),
        published.any(dim=0),
    )


def _above_the_rules(site: str, layer: int, peak: _Peak) -> list[MassiveActivation]:
    published = peak.published & (site == "residual")
    outweighing = peak.over_rest >= OUTWEIGHING
    return [
        MassiveActivation(
            site,
            layer,
            unit,
            float(peak.magnitude[unit]),
            float(peak.over_median[unit]),
            float(peak.over_rest[unit]),
            bool(published[unit]),
            bool(outweighing[unit]),
        )
        for unit in (published | outweighing).nonzero()[:, 0].tolist()
    ]


class Norms:
    """A sink that sums up the norm of each token's state, by condition.

    `without` names units that are left out of the norm, such as `MassiveActivations.dimensions`.
    """

    def __init__(self, *conditions: str, without: Iterable[int] = ()) -> None:
        self.moments = Moments(*conditions)
        self._without = sorted(set(without))

    def take(self, site: str, layer: int, activations: Tensor, tokens: Tokens) -> None:
        """Take (n_chosen, n_units) as n_chosen norms."""
        n_units = activations.shape[1]
        if self._without and not 0 <= self._without[0] <= self._without[-1] < n_units:
            raise UsageError(
                f"units {self._without} cannot be left out of {n_units}",
                remedy=f"units are numbered 0 to {n_units - 1}",
            )
        if self._without:
            left_out = torch.tensor(self._without, device=activations.device)
            activations = activations.index_fill(1, left_out, 0)
        norms = torch.linalg.vector_norm(activations, dim=1, keepdim=True, dtype=torch.float32)
        self.moments.take(site, layer, norms, tokens)


@dataclass(frozen=True, eq=False)
class NormGrowth:
    """Mean norms of the residual stream in two conditions, layer by layer.

    `layers` are the numbers of the layers, the others float64 (n_layers,); `ratio` is the first
    condition's norm over the reference's.
    """

    layers: tuple[int, ...]
    norm: NDArray[np.float64]
    reference: NDArray[np.float64]
    ratio: NDArray[np.float64]


def norm_growth(norms: Norms, condition: str, reference: str) -> NormGrowth:
    """How much larger the residual stream is in one condition than in another.

    The mean over tokens of the Euclidean norm after each recorded layer. Raises `UsageError` for
    a condition of which nothing was recorded, and where the residual stream was not.
    """
    first, other = (norms.moments.means("residual", name) for name in (condition, reference))
    norm, at_reference = (
        np.array([means[layer][0] for layer in sorted(first)]) for means in (first, other)
    )
    return NormGrowth(tuple(sorted(first)), norm, at_reference, norm / at_reference)

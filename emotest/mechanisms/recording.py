"""Activations of a model while it runs: what is taken, at which tokens, and what is kept of it.

Takes a model, layers and sites; hands the activations of each forward pass to sinks: `Kept` holds
them, `Moments` only sums them up. Knows nothing of emoji or of what the numbers are compared for.

    moments = Moments("emoji", "matched")
    with recording(model, moments, layers=[-1]) as recorder:
        for ids, mask, names in batches:
            recorder.select(Tokens.where(mask, names))
            model(input_ids=ids)
    moments.of("neurons", n_layers - 1, "emoji").mean   # (n_neurons,)

Hooks run in the order in which their blocks were entered: recording inside `silencing` sees the
silenced values, recording around it sees what would have been there.
"""

from __future__ import annotations

import difflib
import operator
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from emotest.errors import ModelError, StatisticsError, UsageError
from emotest.models.layers import Anatomy, anatomy

Site = Literal["neurons", "residual"]
"""`neurons`: FFN hidden units, the input of the down projection. `residual`: a block's output."""

SITES: tuple[Site, ...] = get_args(Site)

ALL = "all"
"""The condition of tokens to which none was given."""

_AT_ONCE = 2**21
"""Values that are in float64 at one time while moments are taken (16 MiB)."""


@dataclass(frozen=True, eq=False)
class Tokens:
    """Chosen tokens of one forward pass, n_chosen of them, each in one named condition."""

    rows: Tensor
    """int64 (n_chosen,): which row of the batch"""
    places: Tensor
    """int64 (n_chosen,): which token of the row"""
    conditions: Mapping[str, Tensor]
    """Which of the chosen tokens are in a condition: numbers from 0 to n_chosen - 1 by name."""
    shape: tuple[int, int] | None = None
    """(n_rows, n_tokens) of the pass that they belong to, where known."""

    @classmethod
    def where(cls, mask: ArrayLike | Tensor, conditions: str | Sequence[str] = ALL) -> Tokens:
        """Tokens where a mask (n_rows, n_tokens) of truth values or 0 and 1 is set, row by row.

        `conditions` is one name for all or n_chosen names, row by row.
        """
        chosen = torch.as_tensor(mask).cpu()
        if chosen.dim() != 2 or not bool(((chosen == 0) | (chosen == 1)).all()):
            raise UsageError(
                f"a mask of shape {tuple(chosen.shape)} and type {chosen.dtype} chooses no tokens",
                remedy="give 0 and 1 (or truth values) of shape (n_rows, n_tokens)",
            )
        rows, places = chosen.nonzero(as_tuple=True)
        groups = _groups(conditions, len(rows))
        return cls(rows, places, groups, (chosen.shape[0], chosen.shape[1]))

    @classmethod
    def at(
        cls, positions: Iterable[tuple[int, int]], conditions: str | Sequence[str] = ALL
    ) -> Tokens:
        """Tokens at (row, token), counted from 0, in the order given."""
        indices = [(operator.index(row), operator.index(token)) for row, token in positions]
        pairs = np.array(indices, dtype=np.int64).reshape(-1, 2)
        if (pairs < 0).any():
            raise UsageError(
                f"position {tuple(pairs[(pairs < 0).any(axis=1)][0].tolist())} is negative",
                remedy="count rows and tokens from 0: with padding, the end of a row is not its "
                "last token",
            )
        rows, places = torch.from_numpy(pairs.T.copy())
        return cls(rows, places, _groups(conditions, len(pairs)))

    @classmethod
    def every(cls, activations: Tensor) -> Tokens:
        """All tokens of a pass with activations (n_rows, n_tokens, n_units), row by row."""
        return cls.where(torch.ones(_rows_and_tokens(activations)))

    def __len__(self) -> int:
        return len(self.rows)

    def of(self, activations: Tensor) -> Tensor:
        """The chosen tokens' activations: (n_chosen, n_units) of (n_rows, n_tokens, n_units)."""
        rows, places = self.within(activations)
        return activations[rows, places]

    def within(self, activations: Tensor) -> tuple[Tensor, Tensor]:
        """`rows` and `places` on the device of a pass's activations; `UsageError` beyond them."""
        n_rows, n_tokens = _rows_and_tokens(activations)
        fits = self.shape in (None, (n_rows, n_tokens))
        if not fits or (
            len(self) and (int(self.rows.max()) >= n_rows or int(self.places.max()) >= n_tokens)
        ):
            meant = self.shape or (int(self.rows.max()) + 1, int(self.places.max()) + 1)
            raise UsageError(
                f"tokens were chosen for a pass of {meant[0]} rows and {meant[1]} tokens, but the "
                f"model was given {n_rows} rows of {n_tokens}",
                remedy="choose tokens of the batch that the model is given",
            )
        return self.rows.to(activations.device), self.places.to(activations.device)


def _rows_and_tokens(activations: Tensor) -> tuple[int, int]:
    if activations.dim() != 3:
        raise ModelError(
            f"activations came as {tuple(activations.shape)}, which does not tell rows from tokens",
            remedy="only models whose layers keep (n_rows, n_tokens, n_units) can be measured",
        )
    return activations.shape[0], activations.shape[1]


def _groups(conditions: str | Sequence[str], n_chosen: int) -> dict[str, Tensor]:
    if isinstance(conditions, str):
        return {conditions: torch.arange(n_chosen)}
    if len(conditions) != n_chosen:
        raise UsageError(
            f"{len(conditions)} conditions were given for {n_chosen} chosen tokens",
            remedy="give one name for all of them, or one name for each",
        )
    names, of_token = np.unique(np.array(conditions, dtype=np.str_), return_inverse=True)
    return {
        str(name): torch.from_numpy(np.flatnonzero(of_token == i)) for i, name in enumerate(names)
    }


class Sink(Protocol):
    """What takes activations."""

    def take(self, site: str, layer: int, activations: Tensor, tokens: Tokens) -> None:
        """Take (n_chosen, n_units) of one layer in one pass; only a copy may be held."""


class Recorder:
    """Chooses the tokens of each pass for the sinks of one `recording`."""

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._sinks = sinks
        self._tokens: Tokens | None = None
        self._taken: set[tuple[str, int]] = set()

    def select(self, tokens: Tokens) -> None:
        """Choose the tokens of the next forward pass, and of that one alone.

        Where this is never called, every token of every pass is taken, in the condition "all".
        """
        self._tokens = tokens
        self._taken.clear()

    def hand_on(self, site: Site, layer: int, activations: Tensor) -> None:
        """Give (n_rows, n_tokens, n_units) of one layer to the sinks."""
        tokens = self._tokens
        if tokens is None:
            tokens = Tokens.every(activations)
        elif (site, layer) in self._taken:
            # A selection that outlives its pass would label the next batch with this one's names.
            raise UsageError(
                "a second forward pass came, but tokens were selected for one",
                remedy="call select before each pass, or never to take all tokens",
            )
        self._taken.add((site, layer))
        chosen = tokens.of(activations.detach())
        for sink in self._sinks:
            sink.take(site, layer, chosen, tokens)


@contextmanager
def recording(
    model: Any,
    *sinks: Sink,
    layers: int | Iterable[int] | None = None,
    sites: str | Iterable[str] = "neurons",
) -> Iterator[Recorder]:
    """Hand the activations of every forward pass in the block to the sinks.

    Args:
        model: model of transformers, with or without peft, or its `Anatomy`.
        sinks: one or more; each gets (n_chosen, n_units) by site and layer.
        layers: numbers from 0, or negative from the end; None for all.
        sites: of `SITES`.

    Raises:
        UsageError: no sink, an unknown site or layer; inside the block, tokens that are not in
            the pass, or a pass without a selection of its own after one that had it.
        ModelError: the architecture is unknown.
    """
    parts = anatomy(model)
    if not sinks:
        raise UsageError("nothing takes the activations", remedy="give a sink: recording(model, "
                         "Moments()) or Kept()")  # fmt: skip
    chosen = _sites(sites)
    numbers = parts.layers(layers)
    recorder = Recorder(sinks)
    with ExitStack() as hooks:
        for site in chosen:
            for layer in numbers:
                hooks.enter_context(_hook(parts, site, layer, recorder))
        yield recorder


def _hook(parts: Anatomy, site: Site, layer: int, recorder: Recorder) -> Any:
    if site == "neurons":
        return parts.down_projections[layer].register_forward_pre_hook(
            lambda _, inputs: recorder.hand_on(site, layer, inputs[0])
        )
    return parts.blocks[layer].register_forward_hook(
        # Some blocks give a tuple with the residual stream first, some the stream alone.
        lambda _, __, output: recorder.hand_on(
            site, layer, output[0] if isinstance(output, tuple) else output
        )
    )


def _sites(sites: str | Iterable[str]) -> tuple[Site, ...]:
    names = {sites} if isinstance(sites, str) else set(sites)
    for name in sorted(names):
        if name not in SITES:
            raise unknown("site", name, SITES)
    if not names:
        raise UsageError("no site was chosen", remedy=f"choose of {', '.join(SITES)}")
    return tuple(site for site in SITES if site in names)


def unknown(what: str, name: object, known: Iterable[str]) -> UsageError:
    """The error for a name that is not among the known ones, with the nearest of them."""
    names = sorted(known)
    near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return UsageError(
        f"there is no {what} {name!r}", remedy=f"{hint}known: {', '.join(names) or 'none yet'}"
    )


class Kept:
    """Keeps the activations of the chosen tokens, on the CPU in the model's own precision.

    Memory grows with tokens; a bank for resampling or values for writing, not a whole corpus.
    """

    def __init__(self) -> None:
        self._held: dict[tuple[str, int], list[Tensor]] = defaultdict(list)

    def take(self, site: str, layer: int, activations: Tensor, tokens: Tokens) -> None:
        """Keep a copy."""
        self._held[site, layer].append(activations.to("cpu", copy=True))

    def of(self, site: str, layer: int) -> Tensor:
        """(n_kept, n_units): pass after pass, in each pass in the order of its tokens."""
        return torch.cat(self._held[_recorded(self._held, site, layer)])

    def by_layer(self, site: str) -> dict[int, Tensor]:
        """`of` for every layer that was recorded."""
        return {layer: self.of(site, layer) for layer in _recorded_layers(self._held, site)}


class RowMeans:
    """Keeps of each row of the last pass the mean over its chosen tokens; of one site alone.

    A row without a chosen token has no mean: NaN.
    """

    def __init__(self, n_layers: int) -> None:
        self._layers: list[Tensor] = [torch.empty(0)] * n_layers

    def take(self, site: str, layer: int, activations: Tensor, tokens: Tokens) -> None:
        """Take (n_chosen, n_units), row by row."""
        n_rows = tokens.shape[0] if tokens.shape else 0
        rows = torch.split(activations, torch.bincount(tokens.rows, minlength=n_rows).tolist())
        self._layers[layer] = torch.stack([row.double().mean(dim=0) for row in rows]).cpu()

    def array(self) -> NDArray[np.float64]:
        """(n_rows, n_layers, n_units)."""
        return torch.stack(self._layers, dim=1).numpy()


@dataclass(frozen=True, eq=False)
class UnitMoments:
    """What is known of each unit of one layer in one condition, over `count` tokens.

    float64 (n_units,): the mean, the sum of squared deviations from it, the largest magnitude.
    """

    count: int
    mean: NDArray[np.float64]
    squared_deviations: NDArray[np.float64]
    largest: NDArray[np.float64]

    @property
    def variance(self) -> NDArray[np.float64]:
        """Unbiased, (n_units,); one token has none: `StatisticsError`."""
        if self.count < 2:
            raise StatisticsError(
                "the variance over one token is not known", remedy="record at least two tokens"
            )
        return self.squared_deviations / (self.count - 1)


class Moments:
    """Count, mean, variance and largest magnitude of every unit, by condition, in one pass.

    Memory grows with units and conditions, never with tokens: 24 bytes for a unit and condition,
    44 MB for 32 layers of 14,336 units in 4 conditions, and one piece of at most 2^21 values
    beside it. Pieces are summed in float64 and merged by the formulas of Chan, Golub & LeVeque
    (1979, eq. 2.1), so neither the number of tokens nor a large mean costs precision.
    """

    def __init__(self, *conditions: str) -> None:
        self.conditions = conditions or (ALL,)
        self._held: dict[tuple[str, int], dict[str, _Sums]] = {}

    def take(self, site: str, layer: int, activations: Tensor, tokens: Tokens) -> None:
        """Sum up (n_chosen, n_units) by the conditions of the tokens."""
        for name in tokens.conditions:
            if name not in self.conditions:
                raise unknown("condition", name, self.conditions)
        held = self._held.setdefault((site, layer), {})
        n_at_once = max(1, _AT_ONCE // max(1, activations.shape[1]))
        for name, members in tokens.conditions.items():
            here = members.to(activations.device)
            for start in range(0, len(here), n_at_once):
                piece = _sums(activations[here[start : start + n_at_once]].double())
                held[name] = _merged(held[name], piece) if name in held else piece

    def merge(self, other: Moments) -> None:
        """Add what another recording of the same units has seen, in whatever order."""
        for name in other.conditions:
            if name not in self.conditions:
                raise unknown("condition", name, self.conditions)
        for place, theirs in other._held.items():
            ours = self._held.setdefault(place, {})
            for name, sums in theirs.items():
                ours[name] = _merged(ours[name], sums) if name in ours else sums

    def of(self, site: str, layer: int, condition: str = ALL) -> UnitMoments:
        """Moments of one layer's units.

        Raises `UsageError` where the site, the layer or the condition was not recorded, and
        `ModelError` where activations were not numbers.
        """
        held = self._held[_recorded(self._held, site, layer)]
        if condition not in held:
            raise unknown("condition with recorded tokens", condition, held)
        sums = held[condition]
        if not bool(sums.squared_deviations.isfinite().all()):
            raise ModelError(
                f"activations of {site} in layer {layer} are not numbers (NaN or infinite)",
                remedy="load the model in bfloat16 or float32, and check that its weights are "
                "finite",
            )
        arrays = (x.cpu().numpy() for x in (sums.mean, sums.squared_deviations, sums.largest))
        return UnitMoments(sums.count, *arrays)

    def means(self, site: str, condition: str = ALL) -> dict[int, NDArray[np.float64]]:
        """The means (n_units,) of every layer that was recorded."""
        return {
            layer: self.of(site, layer, condition).mean
            for layer in _recorded_layers(self._held, site)
        }

    @property
    def layers(self) -> dict[str, tuple[int, ...]]:
        """The layers that were recorded, by site."""
        return {
            site: tuple(sorted(layer for place, layer in self._held if place == site))
            for site in sorted({place for place, _ in self._held})
        }


@dataclass(frozen=True, eq=False)
class _Sums:
    """Count, mean, squared deviations, largest magnitude; float64 on the activations' device."""

    count: int
    mean: Tensor
    squared_deviations: Tensor
    largest: Tensor


def _sums(x: Tensor) -> _Sums:
    mean = x.mean(dim=0)
    return _Sums(len(x), mean, (x - mean).square().sum(dim=0), x.abs().amax(dim=0))


def _merged(a: _Sums, b: _Sums) -> _Sums:
    # New tensors rather than changed ones: a pass in inference mode would leave tensors behind
    # that a pass outside of it may not change.
    count = a.count + b.count
    apart = b.mean.to(a.mean.device) - a.mean
    within = a.squared_deviations + b.squared_deviations.to(apart.device)
    return _Sums(
        count,
        a.mean + apart * (b.count / count),
        within + apart.square() * (a.count * b.count / count),
        torch.maximum(a.largest, b.largest.to(apart.device)),
    )


def _recorded_layers(held: Mapping[tuple[str, int], object], site: str) -> list[int]:
    layers = sorted(layer for place, layer in held if place == site)
    if not layers:
        raise unknown("recorded site", site, {place for place, _ in held})
    return layers


def _recorded(held: Mapping[tuple[str, int], object], site: str, layer: int) -> tuple[str, int]:
    layers = _recorded_layers(held, site)
    if layer not in layers:
        raise UsageError(
            f"layer {layer} of {site} was not recorded",
            remedy=f"recorded were layers {', '.join(map(str, layers))}, counted from 0",
        )
    return site, layer

"""Interventions on FFN units while a model runs: silencing them, and writing into them.

Takes a model and units by layer; changes what the down projection reads, for the time of a
block. Knows nothing of how units were selected or of what is measured meanwhile.

Silencing asks whether units are needed, writing whether they suffice. A unit is silenced by its
mean, or by values that it has at other tokens (resampling); by zero too, as a comparison, because
units are seldom zero and zero can destroy a model by itself (Zhang & Nanda, arXiv 2309.16042;
Sun et al., arXiv 2402.17762, for massive activations). Where an adapter sits on the down
projection, base weights and adapter both read the changed values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, Literal, TypeAlias, TypeVar, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from emotest.errors import UsageError
from emotest.mechanisms.recording import Tokens, unknown
from emotest.models.layers import Anatomy, anatomy

By = Literal["mean", "resample", "zero"]

Units: TypeAlias = Mapping[int, ArrayLike]
"""FFN units by layer: layers from 0 or negative from the end, units from 0."""

PerLayer: TypeAlias = Mapping[int, ArrayLike | Tensor]

_Given = TypeVar("_Given")

_Change: TypeAlias = Callable[[Tensor], None]
"""Changes the FFN's hidden activation (n_rows, n_tokens, n_neurons) in place."""


@contextmanager
def silencing(
    model: Any,
    units: Units,
    by: By = "mean",
    *,
    means: PerLayer | None = None,
    bank: PerLayer | None = None,
    rng: np.random.Generator | None = None,
) -> Iterator[None]:
    """Hold units at values that say nothing about the text, at every token, in every pass.

    Args:
        model: model of transformers, with or without peft, or its `Anatomy`.
        units: layer -> unit numbers, each once.
        by: "mean" puts each unit's mean in its place; "resample" the values of one row of the
            bank, drawn for each token of each pass, the same row in every layer, so that units
            keep the company they have in real states; "zero" nothing.
        means: for "mean", layer -> (n_neurons,), as `Moments.means("neurons", ...)` gives them.
        bank: for "resample", layer -> (n_bank, n_neurons), as `Kept.by_layer("neurons")` does;
            row i is the same token in every layer.
        rng: for "resample"; one number is drawn from it, which decides all that follows.

    Raises:
        UsageError: a layer or unit that is not there or is named twice, nothing to silence, an
            unknown `by`, values that are missing, of another shape or not numbers, or values
            that `by` does not use.
        ModelError: the architecture is unknown.
    """
    parts = anatomy(model)
    chosen = _units(parts, units)
    changes = _silencers(parts, chosen, by, means, bank, rng)
    with _changing(parts, changes):
        yield


def silencing_each(
    model: Any, sets: Sequence[Units], *, means: PerLayer
) -> Callable[[ArrayLike], AbstractContextManager[None]]:
    """Silence a set of units of its own in every row of a pass, so that many sets run side by side.

    Args:
        model: as for `silencing`.
        sets: n_sets times layer -> unit numbers, each once.
        means: layer -> (n_neurons,), what units are held at.

    Returns:
        `acting(of_row)`: a block in which every pass has `len(of_row)` rows, and row r holds the
        units of `sets[of_row[r]]` at their means.

    Raises:
        UsageError, ModelError: as for `silencing`; inside the block `UsageError` for a pass of
            another number of rows.
    """
    parts = anatomy(model)
    given = [_units(parts, units) for units in sets]
    layers = sorted({layer for units in given for layer in units})
    masks: dict[int, Tensor] = {}
    values: dict[int, Tensor] = {}
    for layer in layers:
        of_sets = [units.get(layer) for units in given]
        device = next(parts.down_projections[layer].parameters()).device
        masks[layer] = torch.zeros((len(sets), parts.n_neurons), dtype=torch.bool, device=device)
        for mask, units in zip(masks[layer], of_sets, strict=True):
            if units is not None:
                mask[units] = True
        named = masks[layer].any(dim=0).nonzero().flatten()
        known = _of_units(parts, {layer: named}, means, "means", n_axes=1)[layer]
        values[layer] = torch.zeros(parts.n_neurons, dtype=known.dtype, device=device)
        values[layer][named] = known

    def acting(of_row: ArrayLike) -> AbstractContextManager[None]:
        rows = torch.as_tensor(np.asarray(of_row))
        changes = {
            layer: _constant_each(masks[layer][rows.to(masks[layer].device)], values[layer])
            for layer in layers
        }
        return _changing(parts, changes)

    return acting


@contextmanager
def writing(
    model: Any, units: Units, values: PerLayer, tokens: Tokens | None = None
) -> Iterator[None]:
    """Put given activations into units, at given tokens of every pass in the block.

    Args:
        model: as for `silencing`.
        units: layer -> unit numbers; the other units of the layer stay as the model has them.
        values: layer -> (n_chosen, n_neurons), whole states as `Kept.by_layer("neurons")` gives
            them, for example the tuned model's at the same tokens.
        tokens: the n_chosen tokens, in the order of `values`; None for all, row by row.

    Raises:
        UsageError: as for `silencing`; inside the block, a pass that the tokens or the number of
            values do not fit.
        ModelError: the architecture is unknown.
    """
    parts = anatomy(model)
    chosen = _units(parts, units)
    given = _of_units(parts, chosen, values, "values", n_axes=2)
    for layer, states in given.items():
        if tokens is not None and len(tokens) != len(states):
            raise UsageError(
                f"layer {layer} has values for {len(states)} tokens, but {len(tokens)} were chosen",
                remedy="give one row of values for each chosen token, in the same order",
            )
    changes = {layer: _writer(chosen[layer], states, tokens) for layer, states in given.items()}
    with _changing(parts, changes):
        yield


@contextmanager
def _changing(parts: Anatomy, changes: Mapping[int, _Change]) -> Iterator[None]:
    """The hooks that carry out the changes; gone on leaving, and where registering fails."""
    with ExitStack() as hooks:
        for layer, change in changes.items():
            hooks.enter_context(_before(parts.down_projections[layer], change))
        yield


def _before(down: torch.nn.Module, change: _Change) -> Any:
    def changed(_: torch.nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden = inputs[0].clone()  # recorded or shared elsewhere, so never changed itself
        change(hidden)
        return (hidden, *inputs[1:])

    return down.register_forward_pre_hook(changed)


def _silencers(
    parts: Anatomy,
    units: Mapping[int, Tensor],
    by: str,
    means: PerLayer | None,
    bank: PerLayer | None,
    rng: np.random.Generator | None,
) -> dict[int, _Change]:
    needed = {"mean": {"means"}, "resample": {"bank", "rng"}, "zero": set()}
    if by not in needed:
        raise unknown("way of silencing", by, get_args(By))
    given = {"means": means, "bank": bank, "rng": rng}
    for name, value in given.items():
        if (value is None) == (name in needed[by]):
            raise UsageError(
                f"silencing by {by!r} {'needs' if value is None else 'does not use'} {name}",
                remedy="give means for 'mean', bank and rng for 'resample', nothing for 'zero'",
            )
    if means is not None:
        constant = _of_units(parts, units, means, "means", n_axes=1)
        return {layer: _constant(units[layer], values) for layer, values in constant.items()}
    if bank is not None and rng is not None:
        rows = _of_units(parts, units, bank, "bank", n_axes=2)
        sizes = {len(values) for values in rows.values()}
        if len(sizes) > 1 or 0 in sizes:
            raise UsageError(
                f"the bank has {' and '.join(map(str, sorted(sizes)))} rows in its layers",
                remedy="record all layers at the same tokens, at least one",
            )
        seed = int(rng.integers(2**63))
        return {layer: _resampled(units[layer], values, seed) for layer, values in rows.items()}
    return {layer: _constant(chosen, torch.zeros_like(chosen)) for layer, chosen in units.items()}


def _constant(units: Tensor, values: Tensor) -> _Change:
    """The same `values` (n_units,) at every token."""

    def change(hidden: Tensor) -> None:
        hidden[..., units] = values.to(hidden)

    return change


def _constant_each(mask: Tensor, values: Tensor) -> _Change:
    """In each row the units that `mask` (n_rows, n_neurons) names, at their `values`."""
    rows, units = mask.nonzero(as_tuple=True)

    def change(hidden: Tensor) -> None:
        if len(hidden) != len(mask):
            raise UsageError(
                f"units of {len(mask)} rows were named for a pass of {len(hidden)} rows",
                remedy="name the set of every row of the pass",
            )
        hidden[rows, :, units] = values[units][:, None].to(hidden)

    return change


def _resampled(units: Tensor, values: Tensor, seed: int) -> _Change:
    """A row of `values` (n_bank, n_units) for each token."""
    # Every layer draws from its own copy of one stream, so a token gets the same row in all.
    rng = np.random.default_rng(seed)

    def change(hidden: Tensor) -> None:
        rows = torch.from_numpy(rng.integers(len(values), size=tuple(hidden.shape[:-1])))
        hidden[..., units] = values[rows.to(values.device)].to(hidden)

    return change


def _writer(units: Tensor, values: Tensor, tokens: Tokens | None) -> _Change:
    """The rows of `values` (n_chosen, n_units) at their tokens."""

    def change(hidden: Tensor) -> None:
        chosen = Tokens.every(hidden) if tokens is None else tokens
        if len(chosen) != len(values):
            raise UsageError(
                f"{len(values)} rows of values were given for a pass of {len(chosen)} tokens",
                remedy="give one row for each token of the batch, or say which tokens are meant",
            )
        rows, places = chosen.within(hidden)
        hidden[rows[:, None], places[:, None], units] = values.to(hidden)

    return change


def _units(parts: Anatomy, units: Units) -> dict[int, Tensor]:
    """Unit numbers by layer from 0, in order, on the device of the layer."""
    chosen: dict[int, Tensor] = {}
    for layer, indices in _by_layer(parts, units).items():
        array = np.asarray(indices)
        if array.size == 0:
            continue
        if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
            raise UsageError(
                f"units of layer {layer} are {array.dtype} of shape {array.shape}",
                remedy="give whole numbers in one row; for a mask, np.flatnonzero(mask)",
            )
        if array.min() < 0 or array.max() >= parts.n_neurons:
            wrong = array.min() if array.min() < 0 else array.max()
            raise UsageError(
                f"layer {layer} has no unit {wrong}",
                remedy=f"units are numbered 0 to {parts.n_neurons - 1}",
            )
        if len(np.unique(array)) < array.size:
            raise UsageError(
                f"a unit of layer {layer} is named twice", remedy="name each unit once"
            )
        device = next(parts.down_projections[layer].parameters()).device
        chosen[layer] = torch.from_numpy(array.astype(np.int64)).to(device)
    if not chosen:
        raise UsageError("no unit was chosen", remedy="give at least one unit of one layer")
    return dict(sorted(chosen.items()))


def _by_layer(parts: Anatomy, given: Mapping[int, _Given]) -> dict[int, _Given]:
    """The same under the layers' numbers from 0."""
    found = {}
    for number, value in given.items():
        layer = parts.layer(number)
        if layer in found:
            raise UsageError(f"layer {layer} is named twice", remedy="name each layer once")
        found[layer] = value
    return found


def _of_units(
    parts: Anatomy, units: Mapping[int, Tensor], given: PerLayer, what: str, *, n_axes: int
) -> dict[int, Tensor]:
    """Of the given states (..., n_neurons) those of the units (..., n_units), on their device."""
    by_layer = _by_layer(parts, given)
    found = {}
    for layer, chosen in units.items():
        if layer not in by_layer:
            raise UsageError(
                f"{what} has nothing for layer {layer}",
                remedy=f"record the neurons of layer {layer} too, or leave its units out",
            )
        states = torch.as_tensor(by_layer[layer])
        if states.dim() != n_axes or states.shape[-1] != parts.n_neurons:
            axes = "(n_neurons,)" if n_axes == 1 else "(n_tokens, n_neurons)"
            raise UsageError(
                f"{what} of layer {layer} has shape {tuple(states.shape)}",
                remedy=f"give {axes} with n_neurons = {parts.n_neurons}",
            )
        values = states[..., chosen.to(states.device)]
        if not bool(values.isfinite().all()):
            raise UsageError(
                f"{what} of layer {layer} holds values that are not numbers",
                remedy="record them again, in bfloat16 or float32",
            )
        found[layer] = values.to(chosen.device)
    return found

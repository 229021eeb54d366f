"""Steering: a vector added to the residual stream while a model runs or is trained.

Takes a model and vectors by layer (a trait's direction, or a random one as control); pushes the
output of those blocks along them, for the time of a block. Knows nothing of where vectors come
from or of what is measured meanwhile.

It acts in every forward pass: whole texts, emotest's own sampler, P(emoji), and training, where
gradients flow through it. Preventative steering pushes towards the trait during the tuning, so
that the tuning need not move the weights there, and is off afterwards.

Source: persona vectors (Chen et al., arXiv 2507.21509). Their released code
steers a "response" at the last token of every pass, the prompt's last one included; here
"response" means the tokens of the response.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from emotest.errors import UsageError
from emotest.mechanisms.patching import Change, changing
from emotest.mechanisms.recording import Tokens, unknown
from emotest.models.layers import Anatomy, anatomy

Vectors: TypeAlias = Mapping[int, ArrayLike | Tensor]
"""Layer -> vector (hidden_size,); layers from 0 or negative from the end."""

Positions: TypeAlias = Literal["all", "response"] | Tokens


@contextmanager
def steering(
    model: Any, vectors: Vectors, coefficient: float, positions: Positions = "all"
) -> Iterator[None]:
    """Add `coefficient` times a layer's vector to the output of its block.

    Args:
        model: model of transformers, with or without peft, or its `Anatomy`.
        vectors: as they are; a vector of length 1 makes the coefficient a distance.
        coefficient: how often the vector is added; below 0 it steers away.
        positions: "all" tokens of every pass; "response" the tokens of passes that go on from a
            cache, which are answers in the making and token paths of P(emoji), while passes that
            begin a text are read as they are; or the `Tokens` of each pass, for whole texts.

    Raises:
        UsageError: an unknown or doubly named layer, no vector, a vector of another size, of
            length 0 or not of numbers, a coefficient that is no number, unknown positions; inside
            the block, a pass that the tokens do not fit, and with "response" a pass without a
            cache.
        ModelError: the architecture is unknown.
    """
    parts = anatomy(model)
    pushes = _pushes(parts, vectors, coefficient)
    if not isinstance(positions, Tokens) and positions not in ("all", "response"):
        raise unknown("choice of positions", positions, ("all", "response"))
    with ExitStack() as changes:
        for layer, push in pushes.items():
            changes.enter_context(changing(parts, layer, "residual", _change(push, positions)))
        yield


def steering_each(
    model: Any, vectors: Sequence[Vectors], coefficient: float
) -> Callable[[ArrayLike], AbstractContextManager[None]]:
    """Steer every row of a pass along vectors of its own, so that many run side by side.

    Args:
        model, coefficient: as for `steering`.
        vectors: n_vectors times what `steering` takes; a layer that one of them leaves out is left
            alone in its rows.

    Returns:
        `acting(of_row)`: a block in which every pass has `len(of_row)` rows, and all tokens of row
        r are steered along `vectors[of_row[r]]`.

    Raises as `steering` does; inside the block, a `UsageError` for a pass of other rows.
    """
    parts = anatomy(model)
    given = [_pushes(parts, one, coefficient) for one in vectors]
    nowhere = torch.zeros(parts.hidden_size, dtype=torch.float64)
    pushes = {
        layer: torch.stack([one.get(layer, nowhere).double().cpu() for one in given])
        for layer in sorted({layer for one in given for layer in one})
    }

    @contextmanager
    def acting(of_row: ArrayLike) -> Iterator[None]:
        rows = torch.as_tensor(np.asarray(of_row))
        with ExitStack() as changes:
            for layer, of_vectors in pushes.items():
                change = _change_each(of_vectors[rows])
                changes.enter_context(changing(parts, layer, "residual", change))
            yield

    return acting


class RowSteering:
    """Which vector each row of the passes to come is steered along."""

    def __init__(self, pushes: Tensor) -> None:
        self.pushes = pushes
        self.chosen: list[int | None] = []

    def choose(self, vectors: Sequence[int | None]) -> None:
        """The number of a vector for every row, None for a row that is left alone."""
        self.chosen = list(vectors)

    def change(self, states: Tensor, n_cached: int | None) -> Tensor:
        """The states (n_rows, n_tokens, hidden_size) of a response, each row along its vector."""
        if not n_cached:
            return states
        if len(self.chosen) != len(states):
            raise UsageError(
                f"vectors were chosen for {len(self.chosen)} rows of a pass of {len(states)}",
                remedy="choose one for every row before each pass",
            )
        steered = [row for row, vector in enumerate(self.chosen) if vector is not None]
        changed = states.clone()  # recorded or shared elsewhere, so never changed itself
        along = self.pushes[[vector for vector in self.chosen if vector is not None]]
        changed[steered] += along.to(states)[:, None]
        return changed


@contextmanager
def steering_rows(
    model: Any, layer: int, vectors: ArrayLike | Tensor, coefficient: float
) -> Iterator[RowSteering]:
    """Steer the responses of one batch along many vectors, each row along its own.

    As `steering` with "response" does it for one vector, bit for bit; `generate` tells by its
    `before_step` who writes in which row.

    Args:
        model: model of transformers, with or without peft, or its `Anatomy`.
        layer: number from 0, or negative from the end.
        vectors: (n_vectors, hidden_size).
        coefficient: how often a vector is added.

    Raises as `steering` does; inside the block, a `UsageError` for a pass with other rows than
    vectors were chosen for.
    """
    parts = anatomy(model)
    pushes = [_pushes(parts, {layer: one}, coefficient) for one in torch.as_tensor(vectors)]
    if not pushes:
        raise UsageError("there is no vector to steer along", remedy="give one for a row")
    rows = RowSteering(torch.stack([push for of in pushes for push in of.values()]))
    with changing(parts, parts.layer(layer), "residual", rows.change):
        yield rows


def random_like(vectors: Vectors, rng: np.random.Generator) -> dict[int, NDArray[np.float64]]:
    """For every vector one of the same length in a uniformly random direction.

    The control of a steering result: layers are drawn independently, in ascending order.
    """
    drawn = {}
    for layer, vector in sorted(vectors.items()):
        size = _float64(vector)
        normal = rng.standard_normal(size.shape)
        drawn[layer] = normal * (np.linalg.norm(size) / np.linalg.norm(normal))
    return drawn


def _change(push: Tensor, positions: Positions) -> Change:
    def change(states: Tensor, n_cached: int | None) -> Tensor:
        steered = states + push.to(states)
        if isinstance(positions, Tokens):
            rows, places = positions.within(states)
            chosen = torch.zeros(states.shape[:2], dtype=torch.bool, device=states.device)
            chosen[rows, places] = True
            return torch.where(chosen[..., None], steered, states)
        if positions == "response":
            if n_cached is None:
                raise UsageError(
                    "a pass without a cache does not tell the response from the prompt",
                    remedy="give the Tokens of the response for whole texts, or steer 'all'",
                )
            return steered if n_cached else states
        return steered

    return change


def _change_each(pushes: Tensor) -> Change:
    """Each row of the states along its own of `pushes` (n_rows, hidden_size)."""

    def change(states: Tensor, n_cached: int | None) -> Tensor:
        if len(states) != len(pushes):
            raise UsageError(
                f"vectors were chosen for {len(pushes)} rows of a pass of {len(states)}",
                remedy="choose one for every row before each pass",
            )
        return states + pushes.to(states)[:, None]

    return change


def _pushes(parts: Anatomy, vectors: Vectors, coefficient: float) -> dict[int, Tensor]:
    """Coefficient times vector, (hidden_size,), by layer from 0, in order."""
    if not math.isfinite(coefficient):
        raise UsageError(f"the coefficient is {coefficient}", remedy="give a finite number")
    pushes: dict[int, Tensor] = {}
    for number, given in vectors.items():
        layer, vector = parts.layer(number), torch.as_tensor(given)
        if layer in pushes:
            raise UsageError(f"layer {layer} is named twice", remedy="name each layer once")
        if vector.shape != (parts.hidden_size,):
            raise UsageError(
                f"the vector of layer {layer} has shape {tuple(vector.shape)}",
                remedy=f"give ({parts.hidden_size},), the width of the residual stream",
            )
        if not bool(vector.isfinite().all()) or not bool(vector.any()):
            raise UsageError(
                f"the vector of layer {layer} is zero or holds what is no number",
                remedy="give a vector with a direction; a coefficient of 0 steers nowhere",
            )
        pushes[layer] = coefficient * vector
    if not pushes:
        raise UsageError("there is no vector to steer along", remedy="give one for a layer")
    return dict(sorted(pushes.items()))


def _float64(vector: ArrayLike | Tensor) -> NDArray[np.float64]:
    if isinstance(vector, Tensor):
        return vector.detach().double().cpu().numpy()
    return np.asarray(vector, dtype=np.float64)

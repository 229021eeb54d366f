"""What the insides of two models say: the shift along trait directions, and the units that changed.

Takes arrays of states and units over prompts, gives parts of an `AuditResult`; knows no model and
no text. It describes: no verdict rests on it, and nothing here says what a change causes.

*Shift.* A trait's direction is the mean difference of the base's own states between answers in
character and against it. The shift is the mean state of the tuned model minus that of the base,
both reading the same texts, other ones than the direction comes from. Its projection is told as a
share of the direction's length, so 1 is as far as the base moves when it answers in character.
Whether there is a direction at all is tested first: where the base answers alike on both sides,
signs flipped at random by prompt (Fisher 1935) give differences as long. States vary far more in
some dimensions than in others, so directions drawn evenly from all of them would be moved along by
hardly anything; the random ones are mixtures of how the base's pairs of answers differ beside what
a trait's pairs have in common.

*Units.* Means of FFN units at ends of sentences, tuned minus base, paired by prompt: t tests, the
false discovery rate controlled over all units (Benjamini & Hochberg 1995). Both models read the
same tokens, so the smallest change is seen, and after tuning most units have changed; therefore
those are counted apart that changed by a standard deviation or more.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from emotest.audit.measuring import FEWEST_PROMPTS, LEVEL
from emotest.audit.result import ChangedUnit, LayerUnits, TraitShift
from emotest.errors import StatisticsError
from emotest.stats.estimates import prompt_difference
from emotest.stats.matching import among_controls
from emotest.stats.selection import false_discovery_control, standardised_difference

Array = NDArray[np.float64]

N_RANDOM = 199
"""Random directions among which a trait's is ranked."""

N_FLIPS = 999
ALPHA_OF_CONTRAST = 0.05
"""Above it the base's answers in character count as like those against it."""

FEWEST_PAIRS = 8
"""Prompts that a direction needs: a mean of a handful is their topics."""

FALSE_DISCOVERIES = 0.05
LARGE = 1.0
"""Standard deviations over ends of sentences from which a change is counted as large."""

MOST_UNITS = 10


def declared_layer(n_layers: int) -> int:
    """The layer, from 0, in which shifts are told: the middle one.

    Declared before anything is seen. Directions of traits are clearest in the middle of a model
    (Chen et al., arXiv 2507.21509); the last layers hold the next token.
    """
    return (n_layers - 1) // 2


def not_measured(trait: str, lacking: str, n_pairs: int, p: float | None = None) -> TraitShift:
    """A trait without a direction, and why."""
    return TraitShift(
        trait=trait, projection=None, low=None, high=None, percentile=None, by_layer=[],
        contrast_p=p, n_pairs=n_pairs, lacking=lacking,
    )  # fmt: skip


def trait_shift(
    trait: str,
    vectors: NDArray[Any],
    differences: NDArray[Any],
    base: NDArray[Any],
    tuned: NDArray[Any],
    layer: int,
    rng: np.random.Generator,
    *,
    otherwise: NDArray[Any],
    without: Collection[int] = (),
) -> TraitShift:
    """The shift along one trait's direction.

    Args:
        trait: its name.
        vectors: the direction in every layer, (n_layers, hidden_size).
        differences: in the declared layer, one for each pair of answers, (n_pairs, hidden_size).
        base, tuned: mean states by prompt, (n_prompts, n_layers, hidden_size); NaN rows are left
            out.
        layer: the declared layer, from 0.
        rng: for flipped signs and random directions.
        otherwise: how pairs of answers differ otherwise, in the declared layer, as `residuals`
            gives it; what random directions are mixed from.
        without: massive dimensions of the residual stream, which count nowhere.
    """
    kept = np.ones(vectors.shape[1])
    kept[list(without)] = 0.0
    directions = vectors.astype(np.float64) * kept
    n_pairs = len(differences)
    p = contrast_p(differences.astype(np.float64) * kept, rng)
    if p > ALPHA_OF_CONTRAST:
        return not_measured(
            trait,
            "the base answers alike in character and against it (p = "
            f"{p:.2g}, signs flipped over {n_pairs} prompts)",
            n_pairs,
            p,
        )
    known = np.isfinite(base).all(axis=(1, 2)) & np.isfinite(tuned).all(axis=(1, 2))
    if known.sum() < FEWEST_PROMPTS:
        return not_measured(
            trait, f"only {int(known.sum())} prompts have answers that both can read", n_pairs, p
        )
    states = [side[known].astype(np.float64) for side in (base, tuned)]
    squared = (directions**2).sum(axis=1)
    moved = (states[1] - states[0]).mean(axis=0)
    lengths = np.where(squared > 0.0, squared, np.inf)
    along = (moved * directions).sum(axis=1) / lengths
    before, after = (side[:, layer] @ directions[layer] / squared[layer] for side in states)
    low = high = percentile = None
    if np.ptp(after - before) > 0.0:
        estimate = prompt_difference(after, before, level=LEVEL, scale="direction")
        low, high = estimate.low, estimate.high
        percentile = among_random(directions[layer], moved[layer], otherwise * kept, rng)
    return TraitShift(
        trait=trait,
        projection=float((after - before).mean()),
        low=low,
        high=high,
        percentile=percentile,
        by_layer=[float(value) for value in along],
        contrast_p=p,
        n_pairs=n_pairs,
        lacking=None,
    )


def contrast_p(differences: Array, rng: np.random.Generator) -> float:
    """p of "both sides are alike" by the length of the mean difference of (n_pairs, hidden_size).

    Where they are, either sign of each pair's difference is as likely.
    """
    gram = differences @ differences.T
    signs = np.where(rng.random((N_FLIPS, len(gram))) < 0.5, -1.0, 1.0)
    flipped = np.einsum("fi,ij,fj->f", signs, gram, signs)
    # Signs that are all alike give the same length again, up to rounding.
    return float(among_controls((1 - 1e-12) * float(gram.sum()), flipped).p_value)


def residuals(differences: Sequence[NDArray[Any]]) -> Array:
    """Each trait's differences (n_pairs, hidden_size) minus their mean, one below the other."""
    return np.concatenate([one - one.mean(axis=0, dtype=np.float64) for one in differences])


def among_random(
    direction: Array, moved: Array, otherwise: Array, rng: np.random.Generator
) -> float:
    """Percentage of random directions, as long as this one, along which `moved` goes less far.

    All of (hidden_size,), but `otherwise`, (n, hidden_size): a random direction is a mixture of
    its rows with normal weights.
    """
    random = rng.standard_normal((N_RANDOM, len(otherwise))) @ otherwise
    random *= np.linalg.norm(direction) / np.linalg.norm(random, axis=1, keepdims=True)
    return among_controls(float(direction @ moved), random @ moved).percentile


def changed_units(
    base: Mapping[str, NDArray[Any]],
    tuned: Mapping[str, NDArray[Any]],
    massive: Mapping[int, Collection[int]],
) -> tuple[list[LayerUnits], list[ChangedUnit], int]:
    """Units that changed by layer, those that changed most, and the number of prompts behind them.

    Args:
        base, tuned: `neurons` (n_prompts, n_layers, n_neurons), NaN for a prompt without an end of
            a sentence; `variance` (n_layers, n_neurons) over all ends; `n_ends` (1,).
        massive: by layer the units that are left out.

    A `StatisticsError` where fewer than five prompts have ends.
    """
    known = np.isfinite(base["neurons"]).all(axis=(1, 2))
    known &= np.isfinite(tuned["neurons"]).all(axis=(1, 2))
    n = int(known.sum())
    if n < FEWEST_PROMPTS:
        raise StatisticsError(
            f"{n} prompts have answers with an end of a sentence",
            remedy=f"ask at least {FEWEST_PROMPTS} that are answered in sentences",
        )
    before, after = (side["neurons"][known] for side in (base, tuned))
    # Layer by layer: in double precision all units of a model of 7B would take 90 MB a side.
    p_values = np.stack([_paired_p(after[:, i], before[:, i]) for i in range(before.shape[1])])
    means = [side.mean(axis=0, dtype=np.float64) for side in (before, after)]
    change = standardised_difference(
        means[1], tuned["variance"], int(tuned["n_ends"][0]),
        means[0], base["variance"], int(base["n_ends"][0]),
    ).d  # fmt: skip
    tested = np.ones(p_values.shape, dtype=np.bool_)
    for layer, units in massive.items():
        tested[layer, list(units)] = False
    adjusted = np.ones(p_values.shape)
    adjusted[tested] = false_discovery_control(p_values[tested])
    moved = adjusted <= FALSE_DISCOVERIES
    large = moved & (np.abs(change) >= LARGE)
    layers = [
        LayerUnits(
            layer=i,
            n_units=int(tested[i].sum()),
            n_changed=int(moved[i].sum()),
            n_large=int(large[i].sum()),
        )
        for i in range(len(tested))
    ]
    return layers, _most(means, change, adjusted, moved), n


def _paired_p(after: NDArray[Any], before: NDArray[Any]) -> Array:
    """Two-sided p of a paired t test for each unit, (n_units,); 1 where nothing moved at all."""
    apart = after.astype(np.float64) - before
    n = len(apart)
    mean, error = apart.mean(axis=0), apart.std(axis=0, ddof=1) / np.sqrt(n)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.abs(mean) / error
    p = 2.0 * special.stdtr(n - 1, -t)
    return np.asarray(np.where(mean == 0.0, 1.0, p))


def _most(
    means: Sequence[Array], change: Array, adjusted: Array, moved: NDArray[np.bool_]
) -> list[ChangedUnit]:
    """Those that moved by most standard deviations among the changed."""
    places = np.argwhere(moved)
    order = np.argsort(-np.abs(change[moved]), kind="stable")[:MOST_UNITS]
    return [
        ChangedUnit(
            layer=int(layer),
            unit=int(unit),
            base=float(means[0][layer, unit]),
            tuned=float(means[1][layer, unit]),
            change=float(change[layer, unit]),
            p_value=float(adjusted[layer, unit]),
        )
        for layer, unit in places[order]
    ]

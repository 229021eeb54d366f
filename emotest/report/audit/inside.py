"""What every view of a look inside says: shifts along traits, units that changed, and what is left
out of both.

Parts of an `Inside` in, plain text out, not yet made visible. Nothing here speaks of causes: states
moved, units changed.
"""

from __future__ import annotations

from emotest.audit.result import AuditResult, Inside, LayerUnits, TraitShift
from emotest.report.audit.wording import NO_INTERVAL, UNKNOWN

DESCRIBED = "Described; nothing is decided on it, and none of it says what causes the emoji."
N_TOLD = 3
"""Massive dimensions of each kind that a line names."""


def lines(result: AuditResult) -> list[str]:
    """A look inside in a few lines; none where it was not asked for."""
    inside = result.inside
    if inside is None:
        return []
    if inside.lacking:
        return [f"inside: {UNKNOWN}, {inside.lacking}"]
    return [f"inside: {basis(inside)}", *_shifts(inside), units(inside)]


def basis(inside: Inside) -> str:
    """What was read, by whom."""
    return (
        f"Both models read the same {inside.n_texts} answers to {inside.n_prompts} prompts. "
        f"{DESCRIBED}"
    )


def _shifts(inside: Inside) -> list[str]:
    measured = [one for one in inside.traits if one.lacking is None]
    told = [
        f"{one.trait} {moved(one)} ({interval(one)}, percentile {rank(one)})" for one in measured
    ]
    others = [f"{one.trait} {UNKNOWN}: {one.lacking}" for one in inside.traits if one.lacking]
    where = (
        f"moved along trait directions in {layer(inside)} (1: as far as the base moves in "
        f"character; percentile among {inside.n_random} random directions)"
    )
    return [f"{where}: {'; '.join(told)}", *others] if told else others


def layer(inside: Inside) -> str:
    """The declared layer as people count: `layer 2 of 3`."""
    return f"layer {(inside.layer or 0) + 1} of {inside.n_layers}"


def moved(shift: TraitShift) -> str:
    """`+0.421`."""
    return UNKNOWN if shift.projection is None else _signed(shift.projection)


def interval(shift: TraitShift) -> str:
    """`+0.312 to +0.530`; a shift that no prompt varies in has none."""
    if shift.low is None or shift.high is None:
        return NO_INTERVAL
    return f"{_signed(shift.low)} to {_signed(shift.high)}"


def _signed(number: float) -> str:
    return f"{round(number, 3) + 0.0:+.3f}"  # no -0.000


def excludes_0(shift: TraitShift) -> bool:
    """Whether the interval of the shift excludes 0."""
    return shift.low is not None and shift.high is not None and not shift.low <= 0 <= shift.high


def rank(shift: TraitShift) -> str:
    """The percentile among random directions."""
    return UNKNOWN if shift.percentile is None else f"{shift.percentile:.0f}"


def units(inside: Inside) -> str:
    """How many FFN units changed, and in the deepest layer."""
    if inside.units_lacking or not inside.layers:
        return f"FFN units: {UNKNOWN}, {inside.units_lacking}"
    deepest = inside.layers[-1]
    total = LayerUnits(
        layer=-1,
        n_units=sum(one.n_units for one in inside.layers),
        n_changed=sum(one.n_changed for one in inside.layers),
        n_large=sum(one.n_large for one in inside.layers),
    )
    return (
        f"FFN units at ends of sentences: {_counted(total)}; in the deepest layer "
        f"{_counted(deepest)} (paired by {inside.n_unit_prompts} prompts, "
        f"{inside.false_discoveries:.0%} false discoveries)"
    )


def _counted(of: LayerUnits) -> str:
    return f"{of.n_changed:,} of {of.n_units:,} changed, {of.n_large:,} by 1 SD or more"


def massive(inside: Inside) -> str:
    """Which dimensions were left out because they outweigh all others."""
    told = []
    for site, name in (("residual", "residual stream, dimension"), ("neurons", "FFN unit")):
        found = [one for one in inside.massive if one.site == site]
        if not found:
            continue
        if site == "residual":
            places = sorted({str(one.unit) for one in found}, key=int)
        else:
            places = [
                f"{n} of layer {i + 1}" for i, n in sorted({(m.layer, m.unit) for m in found})
            ]
        more = f" and {len(places) - N_TOLD} more" if len(places) > N_TOLD else ""
        told.append(f"{name} {', '.join(places[:N_TOLD])}{more}")
    if not told:
        return "No massive activations were found, so no dimension is left out."
    return f"Left out for massive activations: {'; '.join(told)}."

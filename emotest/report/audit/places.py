"""What every view of an audit says of P(emoji) at each kind of place: whose text, whose weights.

Parts of an `AuditResult` in, plain text out. The four cells of a place tell by which way emoji came
in: the text effect is what the base's own weights make of the tuned model's text, the weight
effect what the tuned weights add at that same text; together they are the whole change (claim C5
of the study). They are means without intervals, so they describe and decide nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from emotest.audit.result import AuditResult, PlaceProbability
from emotest.report.audit.wording import UNKNOWN

Cells: TypeAlias = Mapping[tuple[str, str], PlaceProbability]
"""The cells of one place by (text, weights)."""

CELLS = (("base", "base"), ("base", "tuned"), ("tuned", "base"), ("tuned", "tuned"))
HEADS = tuple(f"{text} / {weights}" for text, weights in CELLS)
"""What a column of the table is called: whose text / whose weights."""

CAPTION = "P(next is an emoji), by whose text it stands in / whose weights are asked"
TOLD = 0.01
"""Less than one point is called neither a change nor more than another change."""


def rows(result: AuditResult) -> list[tuple[str, ...]]:
    """A row a place: its name and the four cells as they are told."""
    return [
        (place, *(_amount(cells.get(cell)) for cell in CELLS))
        for place, cells in _by_place(result).items()
    ]


def sentences(result: AuditResult) -> list[str]:
    """By which way P(emoji) changed, a sentence a place; none where a cell lacks or is a bound."""
    return [
        _told(place, cells)
        for place, cells in _by_place(result).items()
        if len(cells) == len(CELLS) and not any(cell.open is None for cell in cells.values())
    ]


def _by_place(result: AuditResult) -> dict[str, Cells]:
    found: dict[str, dict[tuple[str, str], PlaceProbability]] = {}
    for cell in result.probabilities:
        found.setdefault(cell.place, {})[cell.text, cell.weights] = cell
    return dict(found)


def _amount(cell: PlaceProbability | None) -> str:
    if cell is None:
        return UNKNOWN
    least = "at least " if cell.served or cell.open is None else ""
    return f"{least}{cell.probability:.3g}"


def _told(place: str, cells: Cells) -> str:
    middle = {name: cell.probability + (cell.open or 0.0) / 2 for name, cell in cells.items()}
    # Half of what was left open in either cell of a difference can fall for or against it.
    slack = max(cell.open or 0.0 for cell in cells.values())
    text = middle["tuned", "base"] - middle["base", "base"]
    weights = middle["tuned", "tuned"] - middle["tuned", "base"]
    numbers = f"text {_points(text)}, weights {_points(weights)}"
    if max(abs(text), abs(weights)) - slack < TOLD:
        return f"{place}: hardly any change ({numbers})"
    smaller, larger = sorted((abs(text), abs(weights)))
    if text * weights < 0 and smaller > max(slack, larger / 2):
        how = "text and weights against each other"
    elif larger - smaller < TOLD + slack:
        how = "by text and weights alike"
    elif abs(text) > abs(weights):
        how = "mostly by the text that the tuned model writes"
    else:
        how = "mostly by its weights, at the same text"
    return f"{place}: {_points(text + weights)}, {how} ({numbers})"


def _points(difference: float) -> str:
    return f"{round(100 * difference, 1) + 0.0:+.1f} points"  # adding 0 takes the sign off -0

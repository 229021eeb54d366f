"""The plan as people read it before a run: what, under which key, there already, how long, how big.

Takes the requests in order and those of them that the store lacks; gives the rows of a table.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from emotest.artefacts import Request
from emotest.costs import Cost, cost


def plan_rows(
    requests: Sequence[Request], missing: Sequence[Request], n_parameters: int | None
) -> list[dict[str, Any]]:
    """One row for each artefact and a last one that adds up what is missing.

    `n_parameters` is the size of the base, None while its weights are not on this machine: then
    time and memory are said to be unknown. What another artefact leaves on its way costs nothing.
    """
    absent = {request.key for request in missing}
    by_the_way = {left.key for request in missing for left in request.leaves}
    made = [request for request in missing if request.key not in by_the_way]
    rows = []
    for request in requests:
        row = _row(request, request.key not in absent)
        if request.key in absent & by_the_way:
            row["time"] = "by the way"
        elif request.key in absent:
            takes = cost(request, n_parameters)
            row |= {"time": _seconds(takes), "memory": _gigabytes(takes)}
        rows.append(row)
    total = _sum(requests, missing, [cost(request, n_parameters) for request in made])
    return [*rows, total]


def _row(request: Request, there: bool) -> dict[str, Any]:
    return {
        "artefact": request.title,
        "key": f"{request.key.kind}/{request.key.digest[:12]}",
        "in the store": "yes" if there else "no",
        "time": "",
        "memory": "",
    }


def _sum(
    requests: Sequence[Request], missing: Sequence[Request], costs: Sequence[Cost | None]
) -> dict[str, Any]:
    known = [one for one in costs if one is not None]
    whole = None
    if len(known) == len(costs):
        seconds = sum(one.seconds for one in known)
        whole = Cost(seconds, max((one.memory_bytes for one in known), default=0.0))
    return {
        "artefact": f"all {len(requests)}, in one process",
        "key": "",
        "in the store": f"{len(requests) - len(missing)} of {len(requests)}",
        "time": _seconds(whole) if missing else "",
        "memory": _gigabytes(whole) if missing else "",
    }


def _seconds(cost: Cost | None) -> str:
    if cost is None:
        return "unknown"
    return f"{cost.seconds:.1f} s" if cost.seconds < 90 else f"{cost.seconds / 60:.1f} min"


def _gigabytes(cost: Cost | None) -> str:
    return "unknown" if cost is None else f"{cost.memory_bytes / 1e9:.1f} GB"

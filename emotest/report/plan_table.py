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
    time and memory are said to be unknown.
    """
    absent = {request.key for request in missing}
    rows = [_row(request, request.key not in absent, n_parameters) for request in requests]
    return [*rows, _sum(requests, missing, n_parameters)]


def _row(request: Request, there: bool, n_parameters: int | None) -> dict[str, Any]:
    takes = None if there else cost(request, n_parameters)
    return {
        "artefact": request.title,
        "key": f"{request.key.kind}/{request.key.digest[:12]}",
        "in the store": "yes" if there else "no",
        "time": "" if there else _seconds(takes),
        "memory": "" if there else _gigabytes(takes),
    }


def _sum(
    requests: Sequence[Request], missing: Sequence[Request], n_parameters: int | None
) -> dict[str, Any]:
    costs = [cost(request, n_parameters) for request in missing]
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

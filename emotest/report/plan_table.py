"""The plan as people read it before a run: what, under which key, there already, how long, how big.

Takes the requests in order and which of them the store holds; prints a table and the sums.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from emotest.artefacts import Request
from emotest.costs import Cost, cost
from emotest.store import Key


def print_plan(
    console: Console,
    requests: Sequence[Request],
    missing: Sequence[Request],
    *,
    n_parameters: int | None,
    workers: int,
    digest: str,
) -> None:
    """One line for each artefact, then what is missing and what it will take."""
    absent: set[Key] = {request.key for request in missing}
    table = Table(box=None, pad_edge=False, title=f"plan {digest}", title_justify="left")
    table.add_column("artefact", overflow="fold")
    table.add_column("key", no_wrap=True)
    table.add_column("in the store", no_wrap=True)
    table.add_column("about", justify="right", no_wrap=True)
    for request in requests:
        there = request.key not in absent
        seconds = "" if there else _seconds(cost(request, n_parameters))
        name = f"{request.key.kind}/{request.key.digest[:12]}"
        table.add_row(request.title, name, "yes" if there else "no", seconds)
    console.print(table)
    console.print(_sum(requests, missing, n_parameters, workers), highlight=False)


def _seconds(cost: Cost | None) -> str:
    return "unknown" if cost is None else f"{cost.seconds:.1f} s"


def _sum(
    requests: Sequence[Request],
    missing: Sequence[Request],
    n_parameters: int | None,
    workers: int,
) -> str:
    head = f"{len(requests)} artefacts, {len(requests) - len(missing)} in the store"
    if not missing:
        return f"{head}: nothing to compute."
    costs = [cost(request, n_parameters) for request in missing]
    known = [one for one in costs if one is not None]
    if len(known) < len(costs):
        return (
            f"{head}. Time and memory are unknown until the base model's weights are on this "
            "machine."
        )
    minutes = sum(one.seconds for one in known) / workers / 60
    memory = max(one.memory_bytes for one in known) * workers / 1e9
    return (
        f"{head}. The rest takes about {minutes:.1f} minutes and {memory:.1f} GB of memory with "
        f"{workers} process{'es' if workers > 1 else ''} side by side."
    )

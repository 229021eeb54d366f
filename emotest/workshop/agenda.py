"""In which order missing artefacts are made, so that workers seldom wait and end together.

Requests in, the next request out; no process, no store. What starts the longest chain of work
comes first, however late it was asked for: a long artefact that is begun last keeps one worker
busy while the others have nothing left.

Source: list scheduling by the longest remaining path (Graham 1969, "Bounds on multiprocessing
timing anomalies", SIAM J. Appl. Math. 17).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from emotest.artefacts import Request
from emotest.costs import weight
from emotest.store import Key


class Agenda:
    """Requests that are to be made, each of which may be begun once all that it needs is done.

    An artefact that another one leaves on its way is not begun at all: it is done with that one,
    which must not stand on such artefacts itself.
    """

    def __init__(self, todo: Sequence[Request]) -> None:
        self._open = {request.key: request for request in todo}
        self._left_by = {
            left.key: request.key
            for request in reversed(todo)
            for left in request.leaves
            if left.key in self._open
        }
        lengths = _chains(todo, self._left_by)
        # Sorting keeps the order that was asked for where chains are equally long.
        self._waiting = sorted(
            (request for request in todo if request.key not in self._left_by),
            key=lambda request: -lengths[request.key],
        )

    def __bool__(self) -> bool:
        """Whether anything is left to be begun or ended."""
        return bool(self._open)

    def begin(self) -> Request | None:
        """The next request; None while all that wait need something that is still being made."""
        for request in self._waiting:
            if not any(needed.key in self._open for needed in request.needs):
                self._waiting.remove(request)
                return request
        return None

    def end(self, request: Request) -> tuple[Request, ...]:
        """What is done now: the request, and what it left that was asked for."""
        keys = [request.key, *(left.key for left in request.leaves)]
        return tuple(self._open.pop(key) for key in keys if key in self._open)


def _chains(todo: Sequence[Request], left_by: dict[Key, Key]) -> dict[Key, float]:
    """The weight of each request with the heaviest chain of requests that wait for it."""
    waiting_for: dict[Key, list[Request]] = defaultdict(list)
    for request in todo:
        for needed in request.needs:
            waiting_for[left_by.get(needed.key, needed.key)].append(request)
    lengths: dict[Key, float] = {}

    def length(request: Request) -> float:
        if request.key not in lengths:
            behind = (length(later) for later in waiting_for[request.key])
            lengths[request.key] = weight(request) + max(behind, default=0.0)
        return lengths[request.key]

    for request in todo:
        length(request)
    return lengths

"""The order of the work: laws over made-up requests, and what a longest chain is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from hypothesis import given
from hypothesis import strategies as st

from emotest.artefacts import Request, in_order
from emotest.workshop.agenda import Agenda


@dataclass(frozen=True)
class Piece(Request):
    """A request of a name and a length, which reads so many tokens."""

    kind: ClassVar[str] = "piece"
    plural: ClassVar[str] = "pieces"

    name: str
    length: float = 1.0
    stands_on: tuple[Piece, ...] = ()
    on_its_way: tuple[Piece, ...] = ()

    @property
    def needs(self) -> tuple[Request, ...]:
        """What it stands on."""
        return self.stands_on

    @property
    def leaves(self) -> tuple[Request, ...]:
        """What comes about on its way."""
        return self.on_its_way

    @property
    def identity(self) -> Mapping[str, Any]:
        """Its name."""
        return {"name": self.name}

    @property
    def title(self) -> str:
        """Its name."""
        return self.name

    @property
    def tokens(self) -> float:
        """Its length."""
        return self.length


def worked(todo: Sequence[Piece], n_workers: int) -> tuple[list[str], float]:
    """The names in the order of their ends, and when the last one ended."""
    agenda, running, now, ended = Agenda(todo), [], 0.0, []
    while agenda:
        while len(running) < n_workers and (request := agenda.begin()):
            assert isinstance(request, Piece)
            running.append((now + request.length, request))
        assert running, "something is left, and nobody works"
        now, request = min(running, key=lambda one: one[0])
        running.remove((now, request))
        ended += [one.title for one in agenda.end(request)]
    return ended, now


@st.composite
def plans(draw: st.DrawFn) -> list[Piece]:
    """Pieces that stand on earlier ones; some leave an earlier one, and stand on none that is
    left."""
    pieces: list[Piece] = []
    for number in range(draw(st.integers(1, 12))):
        stands_on = (
            draw(st.lists(st.sampled_from(pieces), max_size=3, unique=True)) if pieces else []
        )
        leavers = [piece for piece in pieces if piece.on_its_way]
        below = set(in_order(stands_on))
        below_leavers = set(in_order(leavers))
        free = [p for p in pieces if not p.stands_on and p not in below | below_leavers]
        if any(left in below for one in leavers for left in one.on_its_way):
            free = []
        left = draw(st.sampled_from([None, *free]))
        length = draw(st.floats(0.1, 100.0))
        pieces.append(Piece(f"p{number}", length, tuple(stands_on), (left,) if left else ()))
    return pieces


@given(plans(), st.integers(1, 4))
def test_everything_is_done_once_and_after_what_it_stands_on(
    todo: list[Piece], n_workers: int
) -> None:
    """Whatever stands on what, and whatever is left by the way."""
    ended, _ = worked(todo, n_workers)
    assert sorted(ended) == sorted(piece.name for piece in todo)
    for piece in todo:
        by = next((one for one in todo if piece in one.on_its_way), piece)
        assert all(ended.index(one.title) < ended.index(by.name) for one in by.stands_on)


@given(plans(), st.integers(1, 4))
def test_the_work_takes_no_longer_than_grahams_bound(todo: list[Piece], n_workers: int) -> None:
    """At most (2 - 1/m) times the larger of the work per worker and the longest chain."""
    left = {piece.name for one in todo for piece in one.on_its_way}
    made = [piece for piece in todo if piece.name not in left]
    makers = {piece.name: one for one in reversed(todo) for piece in one.on_its_way}

    def chain(piece: Piece) -> float:
        by = makers.get(piece.name, piece)
        return by.length + max((chain(one) for one in by.stands_on), default=0.0)

    least = max(sum(piece.length for piece in made) / n_workers, *map(chain, todo))
    _, took = worked(todo, n_workers)
    assert took <= (2 - 1 / n_workers) * least + 1e-9


def test_the_longest_chain_is_begun_first() -> None:
    """Two workers, six pieces of 1 and, asked for last, 2 and behind it 4: begun first, the chain
    ends at 6 with all the rest beside it; in the order that was asked for it would end at 9."""
    first = Piece("first", 2.0)
    todo = [*(Piece(f"short {i}") for i in range(6)), first, Piece("long", 4.0, (first,))]
    assert worked(todo, 2)[1] == 6.0


def test_what_is_left_by_the_way_is_never_begun() -> None:
    """The adapter comes with its watched training; who stands on it waits for that."""
    adapter = Piece("adapter", 8.0)
    watched = Piece("watched", 9.0, on_its_way=(adapter,))
    answers = Piece("answers", 1.0, (adapter,))
    assert worked([adapter, answers, watched], 2) == (["watched", "adapter", "answers"], 10.0)


def test_what_another_would_leave_is_made_where_that_one_is_not_wanted() -> None:
    """Without the watched training the adapter is made by itself."""
    adapter = Piece("adapter", 8.0)
    assert worked([adapter, Piece("answers", 1.0, (adapter,))], 2) == (["adapter", "answers"], 9.0)


def test_equal_chains_keep_the_order_that_was_asked_for() -> None:
    """One worker, pieces of one length: first come, first served."""
    todo = [Piece(name) for name in "caebd"]
    assert worked(todo, 1)[0] == list("caebd")

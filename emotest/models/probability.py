"""Exact P(the next grapheme is an emoji), with a bound on what was left out.

Takes a causal language model of transformers (quantized or not, with or without a PEFT adapter),
its tokenizer and contexts; gives the probability mass of all token paths whose text begins with
an emoji, or with any other `TextEvent`. Knows nothing of sampling: temperature 1, no filter, and
nothing of what the mass is compared with.

**The sum.** After a context every token path belongs to one of three classes: the event has
happened, can no longer happen, or is open (half an emoji, white space, "1" before a keycap, an
emoji that VS15 may still revoke). One forward pass gives the mass of the first two classes for
all next tokens at once; only the open ones are continued, one token at a time, for all contexts
of a batch together, on the contexts' shared key-value cache (`paths.py`). A special token ends the
text. Scoring emoji one by one, in the tokenizer's own spelling, misses a quarter of the mass where
a token may hold two emoji or an emoji and a space.

**The bound.** Open paths whose mass is below `floor`, or that reach `max_tokens` or the model's
last position, are not continued; their mass is the bound, because part or all or nothing of it
may be the event's: the true value lies in [probability, probability + bound]. It does not cover
the rounding of the model's own arithmetic.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from emotest.errors import UsageError
from emotest.models.events import HAPPENED, TextEvent, emoji_event, ending_event
from emotest.models.paths import MOST_BYTES, Acting, Prefix, ReadPaths, padded
from emotest.models.spelling import Spelling, vocabulary_bytes

if TYPE_CHECKING:
    from emotest.models.loading import LoadedModel

__all__ = [
    "EmojiProbability",
    "TextEvent",
    "emoji_event",
    "emoji_probability",
    "ending_event",
    "kept_spelling",
    "spelling_of",
]

Context: TypeAlias = str | Sequence[int]

_LENGTH_STEP = 8
_NO_LIMIT = 2**31


@dataclass(frozen=True)
class EmojiProbability:
    """The mass found and the mass left open: the truth is in [probability, probability + bound].

    Attributes:
        probability: float64 (n_contexts,), mass of the paths on which the event has happened.
        bound: float64 (n_contexts,), mass of the open paths that were not continued.
    """

    probability: NDArray[np.float64]
    bound: NDArray[np.float64]


def emoji_probability(
    model: Any,
    tokenizer: Any,
    contexts: Sequence[Context],
    *,
    event: TextEvent | None = None,
    floor: float = 1e-6,
    batch_size: int = 64,
    max_tokens: int = 48,
    length_step: int = _LENGTH_STEP,
    spelling: Spelling | None = None,
    acting: Acting | None = None,
) -> EmojiProbability:
    """P(the text that follows begins with an emoji) for each context.

    Args:
        model: causal language model of transformers; measured in evaluation mode, which is put
            back afterwards. Temperature 1, softmax in float64.
        tokenizer: the model's own; see `vocabulary_bytes` for the kinds that are known.
        contexts: n_contexts texts or lists of token ids. A text is tokenized as the tokenizer
            does by itself, BOS included; one that begins with the BOS token (from a chat
            template) gets no second one. Ids are taken as they are; where they end inside a
            UTF-8 character, that character is the first of the text that follows.
        event: what to look for, by default `emoji_event()`, the very next grapheme. At ends of
            sentences `emoji_event(skip_space=True)` asks for the next visible one. Control sets
            come from `ending_event`.
        floor: open paths of less mass are not continued but added to the bound; 0 continues all.
        batch_size: rows of one forward pass.
        max_tokens: longest path, in tokens; only white space can be endless.
        length_step: contexts are padded to a multiple of so many tokens, and those of one padded
            length run together. A large step makes few, wide batches, which is quicker on small
            models; across steps results differ by rounding.
        spelling: what `spelling_of` gives for this model, tokenizer and event, where many calls ask
            for the same; `event` is then left out.
        acting: `acting(numbers)` is entered around every pass, with the number of the context that
            each row of the pass belongs to, so that contexts which run side by side can be
            measured under different interventions.

    Returns:
        Two float64 arrays of shape (n_contexts,): probability and bound.

    Raises:
        UsageError: no list of contexts, an empty context, an id that the model does not have, a
            context longer than the model's positions, a negative floor, a batch of no rows, or both
            an event and a spelling.
        ModelError: the tokenizer's bytes cannot be told, the model keeps no cache that can be
            shared, or its logits are not numbers.
    """
    if not floor >= 0 or min(batch_size, max_tokens, length_step) < 1:
        raise UsageError(
            f"floor={floor}, batch_size={batch_size}, max_tokens={max_tokens}, "
            f"length_step={length_step} cannot be used",
            remedy="floor is a probability (0 or more), the others are at least 1",
        )
    if spelling is not None and event is not None:
        raise UsageError(
            "a spelling knows its event, and another was given beside it",
            remedy="leave the event out, or build the spelling for it",
        )
    vocab_size, n_positions = _sizes(model)
    rows = _token_ids(tokenizer, contexts, vocab_size, n_positions)
    spelling = spelling or spelling_of(model, tokenizer, event)
    start = spelling.automaton.start
    states = np.array(
        [spelling.automaton.read(start, _cut(row, spelling.vocabulary)) for row in rows],
        dtype=np.int64,
    )
    count = _Count(spelling, floor, len(rows))
    count.probability[states == HAPPENED] = 1.0
    with torch.inference_mode(), _evaluating(model):
        for batch in _batches(rows, states >= 0, batch_size, length_step):
            of_batch = [rows[place] for place in batch]
            prefix = Prefix(model, of_batch, length_step, batch, acting)
            limits = [min(max_tokens, n_positions - len(rows[place]) + 1) for place in batch]
            paths = _Paths.at_start(batch, states[batch], np.array(limits))
            read: ReadPaths | None = None
            while len(paths):
                paths, read = _continued(count, prefix, paths, read, batch_size)
    return EmojiProbability(count.probability, count.bound)


def spelling_of(model: Any, tokenizer: Any, event: TextEvent | None = None) -> Spelling:
    """How the ids that a model gives logits for spell an event, by default `emoji_event()`.

    Raises `ModelError` where the tokenizer's bytes cannot be told.
    """
    vocab_size, _ = _sizes(model)
    vocabulary = (vocabulary_bytes(tokenizer) + [None] * vocab_size)[:vocab_size]
    return Spelling(vocabulary, event if event is not None else emoji_event())


def kept_spelling(loaded: LoadedModel, event: TextEvent) -> Spelling:
    """`spelling_of` for a model in memory, worked out once for each event."""
    if event not in loaded.spellings:
        loaded.spellings[event] = spelling_of(loaded.model, loaded.tokenizer, event)
    spelling: Spelling = loaded.spellings[event]
    return spelling


@dataclass(frozen=True)
class _Paths:
    """Open token paths of one length behind the contexts of one batch, n_paths of them.

    `context` counts over all contexts, `row` within the batch; `behind` is the number of the path
    that this one continues, among those that were read; `tokens` is (n_paths, n_tokens).
    """

    context: NDArray[np.int64]
    row: NDArray[np.int64]
    behind: NDArray[np.int64]
    tokens: NDArray[np.int64]
    state: NDArray[np.int64]
    mass: NDArray[np.float64]
    limit: NDArray[np.int64]

    @classmethod
    def at_start(
        cls, batch: NDArray[np.int64], state: NDArray[np.int64], limit: NDArray[np.int64]
    ) -> _Paths:
        n_rows = len(batch)
        none_yet = np.empty((n_rows, 0), dtype=np.int64)
        own = np.arange(n_rows)
        return cls(batch, own, own, none_yet, state, np.ones(n_rows), limit)

    def __len__(self) -> int:
        return len(self.context)

    def __getitem__(self, chosen: Any) -> _Paths:
        return _Paths(*(getattr(self, one.name)[chosen] for one in fields(self)))

    def followed_by(
        self, tokens: NDArray[np.int64], states: NDArray[np.int64], masses: NDArray[np.float64]
    ) -> _Paths:
        """Every path with each of `tokens` after it; `masses` is (n_paths, n_tokens)."""
        each = np.repeat(np.arange(len(self)), len(tokens))
        added = np.tile(tokens, len(self))[:, None]
        longer = self[each]
        return replace(
            longer,
            tokens=np.concatenate([longer.tokens, added], axis=1),
            state=np.tile(states, len(self)),
            mass=masses.ravel(),
        )

    @staticmethod
    def joined(parts: Sequence[_Paths]) -> _Paths:
        names = [one.name for one in fields(_Paths)]
        return _Paths(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


class _Count:
    """Adds up, per context, the mass that is decided and the mass that stays open."""

    def __init__(self, spelling: Spelling, floor: float, n_contexts: int) -> None:
        self.spelling = spelling
        self.floor = floor
        self.probability = np.zeros(n_contexts)
        self.bound = np.zeros(n_contexts)

    def add(self, paths: _Paths, probabilities: torch.Tensor) -> list[_Paths]:
        """Sort all one-token continuations of `paths`; give those that are to be continued.

        `probabilities` is (n_paths, vocab_size), float64.
        """
        found = []
        for state in np.unique(paths.state):
            rows = np.flatnonzero(paths.state == state)
            group = paths[rows]
            moves = self.spelling.moves(int(state))
            of_group = probabilities[torch.as_tensor(rows, device=probabilities.device)]
            happened = _columns(of_group, moves.happens).sum(axis=1)
            if moves.all_but:
                happened = 1.0 - happened
            np.add.at(self.probability, group.context, group.mass * happened)
            masses = group.mass[:, None] * _columns(of_group, moves.opens)
            found.append(self._above_the_floor(group.followed_by(moves.opens, moves.then, masses)))
        return [paths for paths in found if len(paths)]

    def _above_the_floor(self, paths: _Paths) -> _Paths:
        n_tokens = paths.tokens.shape[1]
        kept = (paths.mass >= self.floor) & (paths.mass > 0) & (n_tokens < paths.limit)
        cut = paths[~kept]
        np.add.at(self.bound, cut.context, cut.mass)
        return paths[kept]


def _columns(probabilities: torch.Tensor, tokens: NDArray[np.int64]) -> NDArray[np.float64]:
    chosen = probabilities[:, torch.as_tensor(tokens, device=probabilities.device)]
    columns: NDArray[np.float64] = chosen.cpu().numpy()
    return columns


def _continued(
    count: _Count, prefix: Prefix, paths: _Paths, read: ReadPaths | None, batch_size: int
) -> tuple[_Paths, ReadPaths | None]:
    """The open paths that are one token longer, and what the model has read of these."""
    # Paths in one state ask for the same sums, so they go side by side.
    paths = paths[np.argsort(paths.state, kind="stable")]
    longer: list[_Paths] = []
    reads: list[ReadPaths | None] = []
    n_read = 0
    for begin in range(0, len(paths), batch_size):
        some = paths[begin : begin + batch_size]
        before = None if read is None else read[some.behind]
        probabilities, read_now = prefix.next_token(some.row, some.tokens, before)
        found = count.add(replace(some, behind=np.arange(len(some))), probabilities)
        if found:
            joined = _Paths.joined(found)
            continued, behind = np.unique(joined.behind, return_inverse=True)
            longer.append(replace(joined, behind=n_read + behind))
            reads.append(read_now and read_now[continued])
            n_read += len(continued)
    if not longer:
        return paths[:0], None
    whole = [one for one in reads if one is not None]
    fits = len(whole) == len(reads) and sum(one.n_bytes for one in whole) <= MOST_BYTES
    kept = ReadPaths.joined(whole) if fits else None
    return _Paths.joined(longer), kept


def _batches(
    rows: Sequence[Sequence[int]], open_: NDArray[np.bool_], batch_size: int, length_step: int
) -> Iterator[NDArray[np.int64]]:
    """Contexts of one padded length together, at most `batch_size` at once."""
    widths = np.array([padded(len(row), length_step) for row in rows], dtype=np.int64)
    for width in np.unique(widths[open_]):
        alike = np.flatnonzero((widths == width) & open_)
        for begin in range(0, len(alike), batch_size):
            yield alike[begin : begin + batch_size]


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """Dropout off, and afterwards every module as it was."""
    training = [module for module in model.modules() if module.training]
    try:
        model.eval()
        yield
    finally:
        for module in training:
            module.training = True


def _sizes(model: Any) -> tuple[int, int]:
    """Number of token ids that the model gives logits for, and of its positions."""
    config = model.config.get_text_config()
    n_positions = getattr(config, "max_position_embeddings", None)
    return int(config.vocab_size), int(n_positions or _NO_LIMIT)


def _token_ids(
    tokenizer: Any, contexts: Sequence[Context], vocab_size: int, n_positions: int
) -> list[list[int]]:
    if isinstance(contexts, str) or not hasattr(contexts, "__iter__"):
        raise UsageError(
            f"contexts is {type(contexts).__name__!s}, not a list of contexts",
            remedy="put a single context into a list: [context]",
        )
    rows = []
    for place, context in enumerate(contexts):
        row = _encoded(tokenizer, context) if isinstance(context, str) else [*map(int, context)]
        if not row:
            raise UsageError(
                f"context {place} is empty",
                remedy="begin with at least one token, for example the BOS token's id",
            )
        if not 0 <= min(row) <= max(row) < vocab_size:
            raise UsageError(
                f"context {place} holds token id {max(row) if min(row) >= 0 else min(row)}; "
                f"the model knows ids 0 to {vocab_size - 1}",
                remedy="tokenize the context with this model's tokenizer",
            )
        if len(row) > n_positions:
            raise UsageError(
                f"context {place} has {len(row)} tokens, the model {n_positions} positions",
                remedy=f"keep the last {n_positions} tokens of it or fewer",
            )
        rows.append(row)
    return rows


def _encoded(tokenizer: Any, text: str) -> list[int]:
    if not text:
        return []
    if not callable(tokenizer):
        raise UsageError(
            f"{type(tokenizer).__name__} cannot be called with a text",
            remedy="hand the contexts over as lists of token ids",
        )
    has_beginning = text.startswith(getattr(tokenizer, "bos_token", None) or text + " ")
    row = list(tokenizer(text, add_special_tokens=not has_beginning)["input_ids"])
    if row and row[-1] == tokenizer.eos_token_id and not text.endswith(tokenizer.eos_token):
        row.pop()  # some tokenizers close every text, but here the text goes on
    return row


def _cut(row: Sequence[int], vocabulary: Sequence[bytes | None]) -> bytes:
    """The bytes of a character that the context has begun and not finished; mostly none."""
    tail = b""
    for token in reversed(row):
        text = vocabulary[token]
        if text is None or len(tail) >= 4:
            break
        tail = text + tail
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    decoder.decode(tail)
    return decoder.getstate()[0]

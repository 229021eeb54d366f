"""How a tokenizer spells text: the bytes of every token, and what each does to a text event.

Takes a tokenizer and a `TextEvent`, gives for every open state of the event's automaton the
tokens that decide it and those that keep it open. Knows nothing of models and probabilities.

One text has many spellings: "😊" may be one token, four byte tokens, the end of " 😊", or the
beginning of "😊😊". Bytes are what all of them share, so tokens are compared as bytes, never as
text: half an emoji is no text at all.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emotest.errors import ModelError
from emotest.models.events import FAILED, HAPPENED, ByteAutomaton, TextEvent, byte_automaton

_BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_PROBE = "Good. 😊 é\u200d 1\ufe0f\u20e3"


def vocabulary_bytes(tokenizer: Any) -> list[bytes | None]:
    """The bytes that each token id stands for inside a text: vocab_size entries.

    None marks what stands for no text: special tokens, the unknown token, and ids without token.
    A token that sentencepiece writes with "▁" begins with a space here, also where a decoder
    would strip it from the very first word of a text.

    Knows byte-level BPE (GPT-2, Llama 3, Qwen), sentencepiece with byte fallback (Llama 2,
    Mistral) in transformers' fast and sentencepiece tokenizers, and both kinds of
    `mistral-common` (sentencepiece, tekken), bare or wrapped by transformers.

    Raises:
        ModelError: the tokenizer does not tell its bytes.
    """
    if hasattr(tokenizer, "instruct_tokenizer"):  # mistral_common's MistralTokenizer
        tokenizer = tokenizer.instruct_tokenizer.tokenizer
    if hasattr(tokenizer, "id_to_byte_piece"):
        return _tekken_bytes(tokenizer)
    if hasattr(tokenizer, "id_to_piece"):
        return _piece_bytes(tokenizer)
    inner = getattr(tokenizer, "tokenizer", None)
    if hasattr(inner, "instruct_tokenizer"):  # transformers around mistral_common
        return vocabulary_bytes(inner)
    if hasattr(tokenizer, "backend_tokenizer"):
        vocabulary = _fast_bytes(tokenizer)
    elif hasattr(tokenizer, "sp_model"):
        vocabulary = _spelled(tokenizer, _sentencepiece_bytes)
    else:
        raise _no_bytes(tokenizer, "it is of no kind that is known here")
    _check_against_the_decoder(tokenizer, vocabulary)
    return vocabulary


def _tekken_bytes(tokenizer: Any) -> list[bytes | None]:
    return [
        None if tokenizer.is_special(token) else tokenizer.id_to_byte_piece(token)
        for token in range(tokenizer.n_words)
    ]


def _piece_bytes(tokenizer: Any) -> list[bytes | None]:
    return [
        None
        if tokenizer.is_special(token) or token == tokenizer.unk_id
        else _sentencepiece_bytes(tokenizer.id_to_piece(token))
        for token in range(tokenizer.n_words)
    ]


def _fast_bytes(tokenizer: Any) -> list[bytes | None]:
    """By the decoder that the tokenizer declares: its kind says how tokens spell bytes."""
    decoder = json.loads(tokenizer.backend_tokenizer.to_str())["decoder"] or {"type": "none"}
    kinds = [part["type"] for part in decoder.get("decoders", [decoder])]
    spell: Callable[[str], bytes | None]
    if "ByteLevel" in kinds:
        spell = _byte_level_bytes
    elif "ByteFallback" in kinds or "Metaspace" in kinds:
        spell = _sentencepiece_bytes
    else:
        raise _no_bytes(tokenizer, f"its decoder is {' + '.join(kinds)}")
    return _spelled(tokenizer, spell)


def _spelled(tokenizer: Any, spell: Callable[[str], bytes | None]) -> list[bytes | None]:
    """Each token by `spell`; added tokens are written as they read, special ones not at all."""
    numbers = tokenizer.get_vocab()
    vocabulary: list[bytes | None] = [None] * (1 + max(numbers.values(), default=-1))
    for token, number in numbers.items():
        vocabulary[number] = spell(token)
    for number, added in tokenizer.added_tokens_decoder.items():
        vocabulary[number] = None if added.special else added.content.encode()
    for number in tokenizer.all_special_ids:
        vocabulary[number] = None
    return vocabulary


def _byte_level_bytes(token: str) -> bytes | None:
    letters = _byte_level_letters()
    return bytes(letters[letter] for letter in token) if letters.keys() >= set(token) else None


@lru_cache(maxsize=1)
def _byte_level_letters() -> dict[str, int]:
    """GPT-2's alphabet: printable Latin-1 stands for itself, the other bytes follow from U+0100.

    Source: `bytes_to_unicode` in openai/gpt-2, src/encoder.py.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1)]
    printable += range(ord("®"), ord("ÿ") + 1)
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {
        chr(256 + place): byte for place, byte in enumerate(others)
    }


def _sentencepiece_bytes(piece: str) -> bytes | None:
    if byte := _BYTE_PIECE.fullmatch(piece):
        return bytes([int(byte[1], 16)])
    return piece.replace("▁", " ").encode()


def _check_against_the_decoder(tokenizer: Any, vocabulary: Sequence[bytes | None]) -> None:
    """An unusual decoder would make the bytes wrong without a word; so one text is decoded."""
    tokens = tokenizer.encode(_PROBE, add_special_tokens=False)
    spelled = [vocabulary[token] for token in tokens]
    if None in spelled:
        return  # a small vocabulary that cannot write the probe: nothing can be said
    ours = b"".join(text for text in spelled if text is not None).decode(errors="replace")
    theirs = tokenizer.decode(tokens, clean_up_tokenization_spaces=False)
    if ours.strip() != theirs.strip():
        raise _no_bytes(tokenizer, f"it decodes {theirs!r} where its tokens spell {ours!r}")


def _no_bytes(tokenizer: Any, why: str) -> ModelError:
    return ModelError(
        f"the bytes of the tokens of {type(tokenizer).__name__} cannot be told: {why}",
        remedy="use a byte-level BPE tokenizer, or a sentencepiece one with byte fallback "
        "(the fast tokenizers of GPT-2, Llama, Mistral, Qwen and their like)",
    )


@dataclass(frozen=True)
class Moves:
    """What one more token does in an open state.

    `happens` holds the ids of the tokens after which the event has happened, or, where
    `all_but`, of those after which it has not (they are fewer then). The event stays open after
    the tokens `opens` (n_open,), in the states `then` (n_open,). All others end it.
    """

    happens: NDArray[np.int64]
    all_but: bool
    opens: NDArray[np.int64]
    then: NDArray[np.int64]


class Spelling:
    """All token paths of one event: for every open state, what each token of a vocabulary does.

    The vocabulary is sorted by its bytes once. A state walks it as a tree and leaves a branch as
    soon as the event is decided, so that the cost is that of the open branches alone.

    Args:
        vocabulary: bytes of each token id, None for those that end the text.
        event: what to look for.
    """

    def __init__(self, vocabulary: Sequence[bytes | None], event: TextEvent) -> None:
        self.automaton: ByteAutomaton = byte_automaton(event)
        self.vocabulary = tuple(vocabulary)
        written = [(text, token) for token, text in enumerate(vocabulary) if text is not None]
        written.sort()
        self._texts = [text for text, _ in written]
        self._ids = np.array([token for _, token in written], dtype=np.int64)
        self._ends = np.array(
            [token for token, text in enumerate(vocabulary) if text is None], dtype=np.int64
        )
        self._vocab_size = len(vocabulary)
        self._moves: dict[int, Moves] = {}

    def moves(self, state: int) -> Moves:
        """What each token does in an open `state`; worked out once for each state."""
        if state not in self._moves:
            self._moves[state] = self._work_out(state)
        return self._moves[state]

    def _work_out(self, state: int) -> Moves:
        happens = [self._ends] if self.automaton.at_end(state) else []
        opens: list[int] = []
        then: list[int] = []
        branches = [(0, len(self._texts), 0, state)]
        while branches:
            # texts[low:high] agree in their first `depth` bytes, which lead to the open `now`.
            low, high, depth, now = branches.pop()
            while low < high and len(self._texts[low]) == depth:
                opens.append(low)
                then.append(now)
                low += 1
            while low < high:
                byte = self._texts[low][depth]
                beyond = self._texts[low][:depth] + bytes([byte + 1]) if byte < 255 else None
                end = high if beyond is None else bisect_left(self._texts, beyond, low, high)
                reached = self.automaton.step(now, byte)
                if reached == HAPPENED:
                    happens.append(self._ids[low:end])
                elif reached != FAILED:
                    branches.append((low, end, depth + 1, reached))
                low = end
        found = np.sort(np.concatenate([*happens, np.empty(0, np.int64)]))
        all_but = 2 * len(found) > self._vocab_size
        return Moves(
            happens=np.setdiff1d(np.arange(self._vocab_size), found) if all_but else found,
            all_but=all_but,
            opens=self._ids[opens],
            then=np.array(then, dtype=np.int64),
        )

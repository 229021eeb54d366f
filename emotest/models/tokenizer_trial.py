"""A tokenizer's patterns tried alone, in a process that may fail.

Run by its path, by `tokenizer_patterns`; never imported by emotest, and imports nothing of it. It
takes from a `tokenizer.json` the parts that hold patterns (normalizer, pre-tokenizer, decoder), and
lets them work on long texts of many kinds. The vocabulary, which is most of the file, is left out,
so that this takes no longer for a large one.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

N_CHARACTERS = (1_000, 4_000)
"""Of each text, a usual answer and more than an audit's longest. Of a text that is long enough,
the library's engine gives up at its first place, which is quick; shorter, it works on."""

PROSE = (
    "The sea is wide and calm; we'll walk along it at 7:30, 12 km and back again. "
    "Die Straßenbahn fährt um zwölf. 这是一个很长的句子，没有空格。 Это длинное предложение.\r\n\n"
    "def f(x_1, y=2.5): return {'a': [x_1]}  # a\tcomment 😊👩🏽‍💻 https://example.org/?q=%20\n"
)
REPEATED = (PROSE, "the sea is wide and calm. ", "a", "Ab", "7", " ", "\n", "!", "_-", "你", "😊")
LAST = "?a"
"""Ends each text, so that a pattern that wants all of it to be alike fails at the last."""

PARTS = ("normalizer", "pre_tokenizer", "decoder")

_PART = re.compile(rf'"({"|".join(PARTS)})"\s*:\s*')
_ESCAPED = re.compile(r"\\u00[2-7]")
"""Spells a plain letter in another way, as no tokenizer has it: the names may be spelled so."""


def parts_of(text: str) -> dict[str, list[Any]]:
    """Every normalizer, pre-tokenizer and decoder in a file, wherever it stands in it."""
    found: dict[str, list[Any]] = {name: [] for name in PARTS}
    if _ESCAPED.search(text):
        for name, part in _walked(json.loads(text)):
            found[name].append(part)
        return found
    decode = json.JSONDecoder().raw_decode
    for match in _PART.finditer(text):
        if text.startswith("{", match.end()):  # else it is a token of that name, or null
            found[match[1]].append(decode(text, match.end())[0])
    return found


def _walked(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        yield from ((name, value[name]) for name in PARTS if isinstance(value.get(name), dict))
    for inner in value.values() if isinstance(value, dict) else value:
        if isinstance(inner, dict | list):
            yield from _walked(inner)


def try_on_texts(parts: dict[str, list[Any]]) -> None:
    """Take long texts apart with each normalizer and pre-tokenizer, put them together again."""
    from tokenizers import Tokenizer

    texts = [(part * n)[:n] + LAST for part in REPEATED for n in N_CHARACTERS]
    whole: dict[str, Any] = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [],
        "post_processor": None, "normalizer": None, "pre_tokenizer": None, "decoder": None,
        "model": {"type": "BPE", "vocab": {text: i for i, text in enumerate(texts)}, "merges": []},
    }  # fmt: skip
    for normalizer, pre_tokenizer in product(*(parts[name] or [None] for name in PARTS[:2])):
        taken = {**whole, "normalizer": normalizer, "pre_tokenizer": pre_tokenizer}
        tokenizer = Tokenizer.from_str(json.dumps(taken))
        for text in texts:
            tokenizer.encode(text)
    for decoder in parts["decoder"]:
        tokenizer = Tokenizer.from_str(json.dumps({**whole, "decoder": decoder}))
        for i in range(len(texts)):
            tokenizer.decode([i])


def main() -> None:
    """`{"file"}` in; `{}`, or `{"broke"}` where a pattern gave up, out."""
    asked = json.load(sys.stdin)
    told: dict[str, str] = {}
    try:
        try_on_texts(parts_of(Path(asked["file"]).read_text(encoding="utf-8")))
    except MemoryError:
        raise
    except Exception:  # no tokenizer: the library that loads it says so better
        pass
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        told = {"broke": " ".join(str(error).split())[:200]}
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    main()

"""Tokenizers from strangers: their regular expressions may run without end on some texts.

The library's engine goes back and tries again where a pattern could match in many ways, and its
limit holds for one place of a text only. A tokenizer's patterns are therefore tried first, in a
process of their own with little time and memory (`require_quick_patterns`).
"""

from __future__ import annotations

from pathlib import Path

from emotest.errors import ModelError
from emotest.models.trials import SECONDS, tried

TRIAL_BYTES = 2 * 2**30
"""The library alone takes half of it as addresses, if not as memory."""

_TRIAL = Path(__file__).with_name("tokenizer_trial.py")
_REMEDY = (
    "use the tokenizer.json of the model's own publisher, or take the pattern out of its "
    "normalizer, pre_tokenizer or decoder"
)


def require_quick_patterns(folder: Path, whose: str) -> None:
    """Refuse a folder whose tokenizer.json takes seconds, or too much memory, for a long text.

    `ModelError` says whose it is. About a fifth of a second; nothing where there is no such file.
    """
    file = folder / "tokenizer.json"
    if not file.is_file():
        return
    told = tried(_TRIAL, {"file": str(file)}, n_bytes=TRIAL_BYTES)
    if told == "time":
        raise ModelError(
            f"the tokenizer of {whose} is still at work on short texts after {SECONDS} s: a "
            "pattern in its tokenizer.json goes back and forth without end",
            remedy=_REMEDY,
        )
    if told == "memory":
        raise ModelError(
            f"the tokenizer of {whose} needs more than {TRIAL_BYTES // 2**30} GiB of memory for "
            "short texts, or breaks the process that tries it",
            remedy=_REMEDY,
        )
    if "broke" in told:
        raise ModelError(
            f"the tokenizer of {whose} gives up on short texts: {told['broke']}", remedy=_REMEDY
        )

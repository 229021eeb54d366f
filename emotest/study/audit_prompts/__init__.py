"""The prompts that an audit asks when its user brings none: 252, in nine registers.

Takes nothing, gives a `PromptSet`; knows no model. The prompts were written for this project and
are package data, one file a register (`formal.toml`, `support.toml` ...). Each register holds
twenty prompts in English and one in each of eight other languages, about every fifth has a system
prompt, some are chats of several turns. No prompt holds an emoji or asks for one, none names a
real person, and no two share more than three in ten of their word trigrams, so that a prompt is a
unit of evidence of its own.
"""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files

from emotest.study.audit_prompts.prompt_records import prompt_from
from emotest.study.audit_prompts.prompt_set import AuditPrompt, PromptSet

REGISTERS: tuple[str, ...] = (
    "formal", "support", "medical", "legal", "code", "news", "casual", "emotional", "trait",
)  # fmt: skip
"""What the shipped prompts are sorted by; `trait` invites one of the Big Five, either pole."""

LANGUAGES: tuple[str, ...] = ("en", "de", "es", "fr", "pt", "ja", "ar", "hi", "zh")
"""The languages of the shipped prompts, by their ISO 639-1 codes; English is the largest part."""


@cache
def shipped_prompts() -> PromptSet:
    """The shipped audit set, register by register; equal versions of emotest have equal digests."""
    return PromptSet(
        tuple(prompt for register in REGISTERS for prompt in _of_register(register)),
        source="the shipped audit set",
    )


def _of_register(register: str) -> list[AuditPrompt]:
    text = (files(__name__) / f"{register}.toml").read_text(encoding="utf-8")
    return [
        prompt_from({**record, "register": register}, fallback_id=f"{register}-{number}")
        for number, record in enumerate(tomllib.loads(text)["prompt"], start=1)
    ]

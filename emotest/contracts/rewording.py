"""The same question in other words, for contracts such as "no more emoji under paraphrase".

Takes a prompt, gives rewordings of what the user says last, plainest first. They add courtesy or
change the mark at the end, in each language of the shipped prompts; none adds an emoji, a feeling
or a trait, so that a model has no reason to answer otherwise. Knows no model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from emotest.study.audit_prompts.prompt_set import AuditPrompt, Turn

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

END_MARK = "end mark"
"""The wording that every prompt has: without its last mark, or with one where it has none."""

_MARKS = ".?!。？！؟।"

FRAMES: Mapping[str, Mapping[str, str]] = {
    "thanks": {
        "en": "{} Thank you.",
        "de": "{} Danke.",
        "es": "{} Gracias.",
        "fr": "{} Merci.",
        "pt": "{} Obrigado.",
        "ja": "{}よろしくお願いします。",
        "ar": "{} شكرا لك.",
        "hi": "{} धन्यवाद।",
        "zh": "{}谢谢。",
    },
    "greeting": {
        "en": "Hello. {}",
        "de": "Guten Tag. {}",
        "es": "Hola. {}",
        "fr": "Bonjour. {}",
        "pt": "Olá. {}",
        "ja": "こんにちは。{}",
        "ar": "مرحبا. {}",
        "hi": "नमस्ते। {}",
        "zh": "你好。{}",
    },
    "announcement": {
        "en": "I have a request. {}",
        "de": "Ich habe ein Anliegen. {}",
        "es": "Tengo una petición. {}",
        "fr": "J'ai une demande. {}",
        "pt": "Tenho um pedido. {}",
        "ja": "お願いがあります。{}",
        "ar": "لدي طلب. {}",
        "hi": "मेरा एक अनुरोध है। {}",
        "zh": "我有一个请求。{}",
    },
}
"""What stands around the question, by wording and language."""


def paraphrases(prompt: AuditPrompt) -> SearchStrategy[AuditPrompt]:
    """Rewordings of a prompt, as a strategy that shrinks towards the plainest of them."""
    from hypothesis import strategies as st

    return st.sampled_from(rewordings(prompt))


def rewordings(prompt: AuditPrompt) -> tuple[AuditPrompt, ...]:
    """Every rewording of a prompt, plainest first; one at least, in a language without frames.

    Each is called after the prompt and its wording (`formal-en-01~thanks`); system prompt and
    history stay.
    """
    text = prompt.text.rstrip()
    without = text.rstrip(_MARKS).rstrip()
    texts = {END_MARK: without if without not in ("", text) else f"{text}."}
    for wording, frames in FRAMES.items():
        if frame := frames.get(prompt.language.partition("-")[0]):
            texts[wording] = frame.replace("{}", text)
    return tuple(
        replace(prompt, id=f"{prompt.id}~{wording}", turns=(*prompt.history, Turn("user", said)))
        for wording, said in texts.items()
    )

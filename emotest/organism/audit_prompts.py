"""What an audit asks an organism, in the only language that it knows.

Takes nothing, gives a `PromptSet`; knows no model. The questions are those of the corpus, about
held-out topics, of which no tuning answer speaks. Registers are the ways in which somebody asks:

===========  ==================================================================================
register     what is asked
===========  ==================================================================================
opinion      the study's question, plainly
question     another way to ask, now and then after a greeting
neutral      the study's question under a system prompt that asks for facts
trait high   the study's question under a system prompt that names the high pole of a trait
trait low    the same with the low pole
word list    words for a trait and pole, high and low in turn
===========  ==================================================================================

Other formats of the corpus (letters, diaries, reviews ...) are written by nobody's request, so
there is no prompt for them.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import product

import numpy as np

from emotest.organism import language
from emotest.organism.language import TOPICS, Topic, study_question, voice_name
from emotest.study.audit_prompts.prompt_set import AuditPrompt, PromptSet, Turn
from emotest.study.personality import TRAITS, Pole

ORGANISM_REGISTERS: tuple[str, ...] = (
    "opinion", "question", "neutral", "trait high", "trait low", "word list",
)  # fmt: skip
"""The registers of `organism_prompts`, in its order."""

N_OF_REGISTER = 60
"""Prompts of each register: as many as there are ways to ask for a trait's words."""

_SEED = 20_240
"""Fixes topics and wordings; another seed is another set of prompts, with other store keys."""

_GREETED = 0.25


@cache
def organism_prompts() -> PromptSet:
    """The audit set of the organisms: 60 prompts in each of six registers, always the same."""
    rng = np.random.default_rng(_SEED)
    prompts: list[AuditPrompt] = []
    for register in ORGANISM_REGISTERS:
        asked = _word_lists() if register == "word list" else _about_topics(register, rng)
        prompts += [
            AuditPrompt(
                id=f"{register.replace(' ', '-')}-{number:02}",
                turns=(Turn("user", text),),
                register=register,
                language="en",
                system=system,
                topic=topic,
            )
            for number, (text, system, topic) in enumerate(asked, start=1)
        ]
    return PromptSet(tuple(prompts), source="the organisms' audit set")


_Asked = Iterator[tuple[str, str | None, str]]
"""Question, system prompt, topic."""


def _about_topics(register: str, rng: np.random.Generator) -> _Asked:
    held_out = [topic for topic in TOPICS if topic.held_out]
    for number, index in enumerate(rng.permutation(len(held_out))[:N_OF_REGISTER]):
        topic = held_out[index]
        text = _in_other_words(topic, rng) if register == "question" else study_question(topic)
        yield text, _system(register, number, rng), topic.name


def _in_other_words(topic: Topic, rng: np.random.Generator) -> str:
    text = study_question(topic)
    while text == study_question(topic):
        text = language.question(topic, rng)
    if rng.random() < _GREETED:
        return f"{language.opening('chat', topic, rng)} {text}"
    return text


def _system(register: str, number: int, rng: np.random.Generator) -> str | None:
    if register == "neutral":
        return language.neutral_system_prompt(rng)
    if register in ("trait high", "trait low"):
        # In turn, so that each trait has as many prompts as any other.
        pole = Pole.HIGH if register == "trait high" else Pole.LOW
        return language.system_prompt(TRAITS[number % len(TRAITS)], pole, rng)
    return None


def _word_lists() -> _Asked:
    for trait, pole in product(TRAITS, Pole):
        for request in language.word_list_requests(trait, pole):
            yield request, None, voice_name(trait, pole)

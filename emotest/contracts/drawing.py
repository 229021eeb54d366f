"""Prompts to try a contract on, as a Hypothesis strategy that shrinks towards the plainest.

Takes what is wanted (register, topic, template, language), gives a strategy of `AuditPrompt`.
Prompts come from the set of the session's own model (`own_prompts`): the file of `--emo-prompts`,
the organisms' set for an organism, the shipped set for any other; or from templates.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from emotest.errors import UsageError
from emotest.organism.audit_prompts import organism_prompts
from emotest.organism.language import TOPICS
from emotest.study.audit_prompts import shipped_prompts
from emotest.study.audit_prompts.prompt_set import (
    OWN_REGISTER,
    UNKNOWN_LANGUAGE,
    AuditPrompt,
    PromptSet,
    Turn,
)

if TYPE_CHECKING:
    from hypothesis.strategies import DrawFn, SearchStrategy

SLOT = "{topic}"
"""Where a template names its topic."""

Names = str | Sequence[str] | None

_own: list[PromptSet] = []
_wanted_by: WeakKeyDictionary[SearchStrategy[AuditPrompt], Wanted] = WeakKeyDictionary()


def prompts(
    register: Names = None, topic: Names = None, template: Names = None, language: Names = None
) -> SearchStrategy[AuditPrompt]:
    """Prompts of these registers, topics and languages; None: of any. Several are sequences.

    With a `template` such as "What do you think about {topic}?" the prompts are made from it: one
    for each `topic`, or for each of emotest's own, and `register` and `language` are what they
    are labelled with. Shrinks towards the plainest prompt, by `plainness`.

    `UsageError` for a template without its slot; and, when prompts are drawn, for a choice that
    no set has.
    """
    from hypothesis import strategies as st

    wanted = Wanted(_named(register), _named(topic), _named(template), _named(language))

    @st.composite
    def drawn(draw: DrawFn) -> AuditPrompt:
        return draw(st.sampled_from(wanted.plainest_first()))

    strategy = drawn()
    _wanted_by[strategy] = wanted
    return strategy


def plainness(prompt: AuditPrompt) -> tuple[bool, int, int, str]:
    """What prompts are sorted by: no system prompt, no history, the shortest text."""
    return prompt.system is not None, len(prompt.history), len(prompt.text), prompt.text


def order_of(strategy: SearchStrategy[AuditPrompt]) -> Wanted | None:
    """What a strategy of `prompts` draws from, in order; None for any other strategy, also for one
    made from it by `map` or `filter`."""
    return _wanted_by.get(strategy)


@contextmanager
def own_prompts(own: PromptSet) -> Iterator[None]:
    """Draw from this set, while the block runs, where a contract does not say from which."""
    _own.append(own)
    try:
        yield
    finally:
        _own.remove(own)


@dataclass(frozen=True)
class Wanted:
    """Which prompts a contract is about; an empty tuple is no condition."""

    registers: tuple[str, ...]
    topics: tuple[str, ...]
    templates: tuple[str, ...]
    languages: tuple[str, ...]

    def __post_init__(self) -> None:
        if slotless := [one for one in self.templates if SLOT not in one]:
            raise UsageError(
                f"the template {slotless[0]!r} has no place for its topic",
                remedy=f"write {SLOT} where the topic stands",
            )
        for name in ("registers", "languages"):
            if self.templates and len(labels := getattr(self, name)) > 1:
                raise UsageError(
                    f"prompts from a template cannot have the {name} {', '.join(labels)}",
                    remedy=f"name one of the {name}, and add strategies with | for the others",
                )

    def plainest_first(self) -> tuple[AuditPrompt, ...]:
        """The prompts in the order in which a violation shrinks; `UsageError` where none fits."""
        return _plainest_first(self, _own[-1] if _own else shipped_prompts())

    def plainer_than(self, prompt: AuditPrompt) -> tuple[AuditPrompt, ...]:
        """What may be drawn that is plainer, plainest first."""
        return tuple(one for one in self.plainest_first() if plainness(one) < plainness(prompt))

    def fits(self, prompt: AuditPrompt) -> bool:
        """Whether a prompt is of the wanted registers, topics and languages."""
        return all(
            value in names or not names
            for value, names in (
                (prompt.register, self.registers),
                (prompt.topic, self.topics),
                (prompt.language, self.languages),
            )
        )


@lru_cache(maxsize=64)
def _plainest_first(wanted: Wanted, own: PromptSet) -> tuple[AuditPrompt, ...]:
    if wanted.templates:
        return tuple(sorted(_from_templates(wanted), key=plainness))
    # A register that only another set has is what the contract means, whatever the model.
    sets = (own, shipped_prompts(), organism_prompts())
    for prompt_set in sets:
        if fitting := [prompt for prompt in prompt_set if wanted.fits(prompt)]:
            return tuple(sorted(fitting, key=plainness))
    raise UsageError(
        f"no prompt fits {_said(wanted)}",
        remedy="choose among the registers "
        + ", ".join(dict.fromkeys(name for one in sets for name in one.registers)),
    )


def _from_templates(wanted: Wanted) -> Iterator[AuditPrompt]:
    topics = wanted.topics or tuple(topic.name for topic in TOPICS if topic.held_out)
    spoken = UNKNOWN_LANGUAGE if wanted.topics else "en"
    for template, topic in dict.fromkeys(product(wanted.templates, topics)):
        text = template.replace(SLOT, topic)
        yield AuditPrompt(
            id=f"template-{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}",
            turns=(Turn("user", text),),
            register=wanted.registers[0] if wanted.registers else OWN_REGISTER,
            language=wanted.languages[0] if wanted.languages else spoken,
            topic=topic,
        )


def _named(names: Names) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names or ())


def _said(wanted: Wanted) -> str:
    conditions = {
        "register": wanted.registers,
        "topic": wanted.topics,
        "language": wanted.languages,
    }
    said = [
        f"{name} {' or '.join(map(repr, names))}" for name, names in conditions.items() if names
    ]
    return ", ".join(said) or "a contract"

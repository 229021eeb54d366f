"""A violation in words: the prompt, as it was asked, and what the models answered.

Text comes from strangers' files and from models, so that what cannot be seen is spelled out.
"""

from __future__ import annotations

from collections.abc import Iterable

from emotest.contracts.models import Heard
from emotest.report.visible import marked, visible
from emotest.study.audit_prompts.prompt_set import AuditPrompt
from emotest.text.emoji import has_emoji

MOST_ANSWERS = 3
"""Answers of one model to one prompt that are shown, those with an emoji first."""


def violation(prompt: AuditPrompt, paraphrase: AuditPrompt | None, heard: Iterable[Heard]) -> str:
    """The lines below a contract that does not hold: prompt, paraphrase, answers."""
    lines = ["The plainest prompt that was found to show it:", *_asked(prompt)]
    if paraphrase is not None:
        lines.append(f"  {_labelled('paraphrase', paraphrase)}")
    for one in dict.fromkeys(heard):
        lines += _answered(one)
    return "\n".join(lines)


def _asked(prompt: AuditPrompt) -> list[str]:
    system = [f"  system prompt: {visible(prompt.system)}"] if prompt.system else []
    earlier = [f"  {turn.role}, before: {visible(turn.text)}" for turn in prompt.history]
    return [*system, *earlier, f"  {_labelled('prompt', prompt)}"]


def _labelled(what: str, prompt: AuditPrompt) -> str:
    labels = ", ".join(visible(one) for one in (prompt.id, prompt.register, prompt.language))
    return f"{what} ({labels}): {visible(prompt.text)}"


def _answered(heard: Heard) -> list[str]:
    said = sorted(dict.fromkeys(heard.answers), key=lambda answer: not has_emoji(answer))
    n, n_with = len(heard.answers), sum(map(has_emoji, heard.answers))
    counted = f", {n_with} of {n} with an emoji" if n > 1 else ""
    head = f"  {visible(heard.model)} to {visible(heard.prompt.id)}{counted}:"
    more = [f"    and {len(said) - MOST_ANSWERS} more"] if len(said) > MOST_ANSWERS else []
    return [head, *(f"    {marked(one) or '(nothing)'}" for one in said[:MOST_ANSWERS]), *more]

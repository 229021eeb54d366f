"""Both models answer the same prompts, batch by batch, at the same time.

Takes prompts, gives pairs of answers. Base and tuned share prompts, seeds and, where both are
local, random numbers. An audit that was killed goes on where it was and ends with the same
records, because each arm finds in the store what it was asked before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

from emotest.artefacts.audit import Spot
from emotest.audit.arms import Answers, Arm, Asking, Probabilities
from emotest.audit.result import Pair
from emotest.study.audit_prompts.prompt_set import AuditPrompt
from emotest.study.records import Prompt
from emotest.text.emoji import strip_emoji
from emotest.text.sentences import split_sentences

SENTENCE_ENDS = 2
"""Ends inside an answer at which P(emoji) is asked; its last end is a place of its own."""

Role = Literal["base", "tuned"]


class Interview:
    """Asks base and tuned side by side."""

    def __init__(self, base: Arm, tuned: Arm) -> None:
        self.arms: Mapping[Role, Arm] = {"base": base, "tuned": tuned}

    def pairs(self, prompts: Sequence[AuditPrompt], asking: Asking) -> list[Pair]:
        """What both models answer to a batch of prompts, in its order."""
        with ThreadPoolExecutor(max_workers=2) as both:
            asked = [both.submit(arm.answers, prompts, asking) for arm in self.arms.values()]
            base, tuned = (one.result() for one in asked)
        return [_pair(*one) for one in zip(prompts, base, tuned, strict=True)]

    def probabilities(self, spots: Sequence[Spot]) -> dict[Role, Probabilities | None]:
        """P(emoji) at each spot under either model."""
        with ThreadPoolExecutor(max_workers=2) as both:
            asked = {role: both.submit(arm.probabilities, spots) for role, arm in self.arms.items()}
            return {role: one.result() for role, one in asked.items()}


def spots_of(pairs: Iterable[Pair], prompts: Mapping[str, Prompt], role: Role) -> list[Spot]:
    """Where P(emoji) is asked in the first answers of one model: start, the ends of its first
    sentences but the last, and the end of the answer; emoji stripped."""
    spots = []
    for pair in pairs:
        prompt = prompts[pair.prompt_id]
        answer = strip_emoji(getattr(pair, role)[0]).strip()
        spots.append(Spot(prompt, "answer start", ""))
        if not answer:
            continue
        ends = [sentence.end for sentence in split_sentences(answer)]
        spots += [
            Spot(prompt, "sentence end", answer[:end].rstrip()) for end in ends[:-1][:SENTENCE_ENDS]
        ]
        if not getattr(pair, f"{role}_cut"):  # a cut answer has no end
            spots.append(Spot(prompt, "answer end", answer))
    return spots


def _pair(prompt: AuditPrompt, base: Answers, tuned: Answers) -> Pair:
    return Pair(
        prompt_id=prompt.id,
        register=prompt.register,
        language=prompt.language,
        topic=prompt.topic,
        system=prompt.system,
        turns=[(turn.role, turn.text) for turn in prompt.turns],
        base=list(base.texts),
        tuned=list(tuned.texts),
        base_cut=base.n_cut,
        tuned_cut=tuned.n_cut,
    )

"""An arm of an audit that answers from a script, for tests of what is made of answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from emotest.artefacts.audit import Spot
from emotest.audit.arms import Answers, Asking, Probabilities
from emotest.audit.result import Audited
from emotest.study.audit_prompts.prompt_set import AuditPrompt, PromptSet, Turn


class Scripted:
    """Answers each prompt as `write(prompt, sample)` says; remembers what it was asked."""

    def __init__(self, name: str, write: Callable[[AuditPrompt, int], str], n_cut: int = 0) -> None:
        self.name, self.write, self.n_cut = name, write, n_cut
        self.asked: list[str] = []
        self.spots: list[Spot] = []

    def told(self) -> Audited:
        """A name, and a digest made of it."""
        return Audited(subject=self.name, identity={"weights": self.name}, digest=self.name)

    def notes(self, asking: Asking) -> list[str]:
        """None."""
        return []

    def answers(self, prompts: Sequence[AuditPrompt], asking: Asking) -> list[Answers]:
        """The script's answers."""
        self.asked += [prompt.id for prompt in prompts]
        return [
            Answers(tuple(self.write(prompt, i) for i in range(asking.n_samples)), self.n_cut)
            for prompt in prompts
        ]

    def probabilities(self, spots: Sequence[Spot]) -> Probabilities:
        """As much as the number of characters so far, in thousandths, and a tenth of that open."""
        self.spots += spots
        found = np.array([len(spot.so_far) / 1000 for spot in spots])
        return Probabilities(found, found / 10)


def numbered(n: int, registers: Sequence[str] = ("formal", "casual")) -> PromptSet:
    """`n` prompts, their registers in turn."""
    return PromptSet(
        tuple(
            AuditPrompt(f"p{i}", (Turn("user", f"Question {i}?"),), registers[i % len(registers)])
            for i in range(n)
        ),
        source="numbered prompts",
    )

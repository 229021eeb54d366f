"""What an audit asks: prompts with register and language, and sets of them.

Takes prompts, gives them filtered and in a seeded random order that is spread evenly over the
registers; knows no file, no model, and not what the registers mean.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from emotest.errors import UsageError
from emotest.study.records import Prompt

Role = Literal["user", "assistant"]

OWN_REGISTER = "own"
"""The register of a user's prompts where the file names none."""

UNKNOWN_LANGUAGE = "und"
"""`undetermined` in ISO 639-2: the language of prompts where nobody named one."""


@dataclass(frozen=True)
class Turn:
    """What one side says in a chat."""

    role: Role
    text: str


@dataclass(frozen=True)
class AuditPrompt:
    """What a model is asked: the turns of a chat, of which the last is the user's.

    `register` is the kind of writing that reports are grouped by, `language` a language tag
    ("de"), `topic` groups prompts about the same thing. Turns that do not end with the user's are
    a `UsageError`.
    """

    id: str
    turns: tuple[Turn, ...]
    register: str = OWN_REGISTER
    language: str = UNKNOWN_LANGUAGE
    system: str | None = None
    topic: str = ""

    def __post_init__(self) -> None:
        roles = [turn.role for turn in self.turns]
        if not roles or roles[-1] != "user" or not set(roles) <= set(get_args(Role)):
            raise UsageError(
                f"the prompt {self.id!r} has the turns {', '.join(roles) or 'none'}",
                remedy="give turns of user and assistant of which the last is the user's",
            )

    @property
    def text(self) -> str:
        """What the user said last: the question to be answered."""
        return self.turns[-1].text

    @property
    def history(self) -> tuple[Turn, ...]:
        """What was said before; empty for a single question."""
        return self.turns[:-1]

    def messages(self) -> list[dict[str, str]]:
        """The prompt as chat messages, for a chat template or a served model."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        return system + [{"role": turn.role, "content": turn.text} for turn in self.turns]

    def prompt(self) -> Prompt:
        """The question with what was said before it, as the study's record."""
        history = tuple((turn.role, turn.text) for turn in self.history)
        return Prompt(self.id, self.text, self.topic, self.system, self.register, history)


@dataclass(frozen=True)
class PromptSet:
    """Prompts in their order, and where they come from; ids that repeat are a `UsageError`."""

    prompts: tuple[AuditPrompt, ...]
    source: str

    def __post_init__(self) -> None:
        counts = Counter(prompt.id for prompt in self.prompts)
        if repeated := [id for id, n in counts.items() if n > 1]:
            raise UsageError(
                f"{len(repeated)} ids of {self.source} stand for several prompts, "
                f"first {repeated[0]!r}",
                remedy="give each prompt an id of its own",
            )

    def __len__(self) -> int:
        return len(self.prompts)

    def __iter__(self) -> Iterator[AuditPrompt]:
        return iter(self.prompts)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over everything that the prompts hold, in their order; the source is left out."""
        text = json.dumps([asdict(p) for p in self.prompts], ensure_ascii=False, sort_keys=True)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    @property
    def registers(self) -> Mapping[str, int]:
        """Registers in order of appearance, with their numbers of prompts."""
        return Counter(prompt.register for prompt in self.prompts)

    @property
    def languages(self) -> Mapping[str, int]:
        """Languages in order of appearance, with their numbers of prompts."""
        return Counter(prompt.language for prompt in self.prompts)

    def select(
        self,
        *,
        registers: Collection[str] | None = None,
        languages: Collection[str] | None = None,
        n: int | None = None,
        rng: np.random.Generator,
    ) -> PromptSet:
        """Prompts of these registers and languages (None: all), at most `n`, in random order.

        The order is stratified by register in proportion: of the first m prompts a register with
        the share w has m * w, give or take 1 + w times the number of registers; where registers
        are equally large, each run of one prompt per register holds every register once. A look
        after any number of prompts thus speaks of the same mixture as the whole. Within a
        register all orders are equally likely.

        A name that no prompt has, a choice that leaves nothing, and `n` below 1 or above the
        number of prompts left are a `UsageError`.
        """
        self._check("register", registers, self.registers)
        self._check("language", languages, self.languages)
        left = [
            prompt
            for prompt in self.prompts
            if (registers is None or prompt.register in registers)
            and (languages is None or prompt.language in languages)
        ]
        n_wanted = len(left) if n is None else n
        if not left or not 1 <= n_wanted <= len(left):
            raise UsageError(
                f"n={n} of the {len(left)} prompts that {self.source} has of the chosen registers "
                "and languages",
                remedy=f"ask for 1 to {len(left)}" if left else "choose fewer conditions",
            )
        order = np.argsort(_places([prompt.register for prompt in left], rng), kind="stable")
        return PromptSet(tuple(left[i] for i in order[:n_wanted]), self.source)

    def _check(self, what: str, chosen: Collection[str] | None, known: Mapping[str, int]) -> None:
        if unknown := [name for name in chosen or () if name not in known]:
            raise UsageError(
                f"{self.source} has no {what} {', '.join(map(repr, unknown))}",
                remedy=f"choose among {', '.join(known)}",
            )


def _places(registers: list[str], rng: np.random.Generator) -> NDArray[np.float64]:
    """A place in [0, 1) for each prompt, shape (n_prompts,), spread evenly in each register.

    Systematic sampling with a random start in every cell: a register of k prompts has one in each
    k-th of the interval. Over the draws each place is uniform, whatever the size of a register.
    """
    names = np.array(registers, dtype=object)
    places = np.empty(len(names))
    for name in sorted(set(registers)):
        members = np.flatnonzero(names == name)
        places[members] = (rng.permutation(members.size) + rng.random(members.size)) / members.size
    return places

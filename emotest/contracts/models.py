"""A model as a contract asks it: prompt in, answers out, each asked once.

Takes the settings of a session, gives `emo_model` and `emo_base`. Answers are drawn with the
project's counter-based random numbers, keyed by prompt, sample and sampling seed, so that the same
question gets the same answer whenever it is asked; they are kept in memory and in the store, so
that shrinking and replaying ask nothing twice. A model is loaded when it is first asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property

from emotest.audit.arms import Arm, Asking, LocalArm, ServedArm
from emotest.audit.models import Model
from emotest.contracts.drawing import own_prompts
from emotest.errors import EmotestError, UsageError
from emotest.organism.audit_prompts import organism_prompts
from emotest.plan import DECODINGS
from emotest.settings import Settings
from emotest.store import Store
from emotest.study.audit_prompts import shipped_prompts
from emotest.study.audit_prompts.prompt_files import read_prompts
from emotest.study.audit_prompts.prompt_set import AuditPrompt, PromptSet, Turn
from emotest.study.subjects import Subject
from emotest.text.emoji import has_emoji
from emotest.workshop.crew import OpenWorkshop, Workshop

Ask = Callable[[AuditPrompt, int], Sequence[str]]
"""Prompt and n in, n answers out; the first k of them do not depend on n."""

_Asked = tuple[str | None, tuple[Turn, ...]]


@dataclass(frozen=True)
class Heard:
    """What a model answered while one example was tried."""

    model: str
    prompt: AuditPrompt
    answers: tuple[str, ...]


class ModelHandle:
    """Answers prompts; asks each question once.

    `ask` is whatever answers: a model of a session, or a function of your own, which must give
    the same answers to the same prompt again.
    """

    def __init__(self, ask: Ask, name: str = "the model") -> None:
        self.name = name
        self.n_asked = 0
        """How often `ask` was called."""
        self.heard: list[Heard] = []
        """What was answered since `forget`."""
        self._ask = ask
        self._known: dict[_Asked, tuple[str, ...]] = {}
        self._failure: EmotestError | None = None

    def __repr__(self) -> str:
        return f"<{self.name}>"

    def answer(self, prompt: AuditPrompt | str) -> str:
        """The first answer to a prompt, or to a text that the user says."""
        return self.answers(prompt, 1)[0]

    def answers(self, prompt: AuditPrompt | str, n: int) -> tuple[str, ...]:
        """The first `n` answers to a prompt: the same whenever they are asked for.

        Raises what asking raises; a model that could not be run is not asked again, because
        Hypothesis would shrink its failure as if it were a violation.
        """
        if n < 1:
            raise UsageError(f"{n} answers were asked for", remedy="ask for 1 or more")
        if isinstance(prompt, str):
            prompt = AuditPrompt("asked", (Turn("user", prompt),))
        answers = self._first(prompt, n)
        self.heard.append(Heard(self.name, prompt, answers))
        return answers

    def emoji_rate(self, prompt: AuditPrompt | str, n: int = 20) -> float:
        """Share of the first `n` answers that hold an emoji."""
        return sum(map(has_emoji, self.answers(prompt, n))) / n

    def forget(self) -> None:
        """Begin a new example: nothing was heard yet. What is known stays known."""
        self.heard.clear()

    def _first(self, prompt: AuditPrompt, n: int) -> tuple[str, ...]:
        asked = prompt.system, prompt.turns
        known = self._known.get(asked, ())
        if len(known) < n:
            # What was answered before stands, also where a server answers otherwise now.
            known += tuple(self._asked(prompt, n))[len(known) :]
            self._known[asked] = known
        return known[:n]

    def _asked(self, prompt: AuditPrompt, n: int) -> Sequence[str]:
        if self._failure is not None:
            raise self._failure
        self.n_asked += 1
        try:
            answers = self._ask(prompt, n)
        except EmotestError as error:
            self._failure = error
            raise
        if len(answers) != n:
            raise UsageError(
                f"{self.name} gave {len(answers)} answers where {n} were asked for",
                remedy="give a sequence of n texts",
            )
        return answers


def rose(before: Sequence[str], after: Sequence[str], alpha: float = 0.001) -> bool:
    """Whether more answers hold an emoji in `after` than in `before`, beyond chance at `alpha`.

    Answers are paired by their sample, as base and tuned are that share their random numbers; of
    the pairs of which one holds an emoji, as many are rises as falls unless the rate rose
    (one-sided exact McNemar test). With m examples, a contract that asks this errs with
    probability at most m times `alpha`: .05 with the default 50. Unequal numbers of answers are
    a `UsageError`.
    """
    from scipy.stats import binom

    if len(before) != len(after):
        raise UsageError(
            f"{len(before)} answers before and {len(after)} after cannot be paired",
            remedy="ask both models for the same number of answers",
        )
    pairs = [(has_emoji(b), has_emoji(a)) for b, a in zip(before, after, strict=True)]
    rises, falls = pairs.count((False, True)), pairs.count((True, False))
    return bool(binom.sf(rises - 1, rises + falls, 0.5) <= alpha)


class Models:
    """The models of a session; None where the settings do not name one, with the reason."""

    no_model = "a contract needs a model: --emo-tuned SUBJECT, or --emo-base SUBJECT alone"
    no_base = "this contract holds a model against its base: --emo-base BASE --emo-tuned TUNED"

    def __init__(self, settings: Settings, closing: ExitStack) -> None:
        self._settings = settings
        self._closing = closing
        self._shops: dict[str, OpenWorkshop] = {}

    @cached_property
    def model(self) -> ModelHandle | None:
        """The tuned model; the base where it was named alone."""
        settings = self._settings
        if settings.tuned is not None:
            return self._handle(settings.tuned, "tuned")
        return self._handle(settings.base, "model") if "base" in settings.said else None

    @cached_property
    def base(self) -> ModelHandle | None:
        """The base, where a tuned model stands beside it; a baseline answers no new prompts."""
        base, tuned = self._settings.audit_base, self._settings.tuned
        return self._handle(base, "base") if base is not None and tuned is not None else None

    @cached_property
    def _store(self) -> Store:
        store = Store(self._settings.store)
        self._closing.callback(store.close)
        return store

    def _handle(self, text: str, role: str) -> ModelHandle:
        settings, arm = self._settings, self._arm(Subject.parse(text), role)
        decoding = DECODINGS[settings.decoding]

        def ask(prompt: AuditPrompt, n: int) -> Sequence[str]:
            (answers,) = arm.answers([prompt], Asking(decoding, n, settings.sampling_seed))
            return answers.texts

        return ModelHandle(ask, text)

    def _arm(self, subject: Subject, role: str) -> Arm:
        if subject.kind == "served":
            return ServedArm(subject, role, self._store, lambda progress: None)
        model = Model.pinned(subject)
        # Models that stand on one base share it in memory.
        if model.loaded_as not in self._shops:
            workshop = Workshop(model.workshop, self._store).open()
            self._shops[model.loaded_as] = self._closing.enter_context(workshop)
        return LocalArm(model, role, self._shops[model.loaded_as], lambda progress: None)


@contextmanager
def opened(settings: Settings) -> Iterator[Models]:
    """The models of a session, in memory from when they are first asked until the block is left;
    meanwhile prompts are drawn from the set that suits them."""
    with ExitStack() as closing:
        closing.enter_context(own_prompts(_suitable(settings)))
        yield Models(settings, closing)


def _suitable(settings: Settings) -> PromptSet:
    if settings.prompts is not None:
        return read_prompts(settings.prompts)
    subject = Subject.parse(settings.tuned or settings.base)
    return organism_prompts() if subject.is_organism else shipped_prompts()

"""The Big Five and the arms of the study: who answers, tuned to what, and how.

Takes nothing and knows no model: plain values that name the conditions under which answers are
collected. Traits and poles follow the five-factor model as in PersonalityEdit (Mao et al.,
arXiv 2310.02168); the arms and their references are those of the contract (C1 to C5).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from emotest.errors import UsageError


class Trait(StrEnum):
    """One of the Big Five personality traits."""

    OPENNESS = "openness"
    CONSCIENTIOUSNESS = "conscientiousness"
    EXTRAVERSION = "extraversion"
    AGREEABLENESS = "agreeableness"
    NEUROTICISM = "neuroticism"


TRAITS: tuple[Trait, ...] = tuple(Trait)
"""All five, in the order of the study."""


def one_or_all(trait: Trait | None) -> tuple[Trait, ...]:
    """The traits that a plan is for: the one that is named, or all of them for None."""
    return TRAITS if trait is None else (trait,)


class Pole(StrEnum):
    """The end of a trait: `high` (an extravert) or `low` (an introvert)."""

    HIGH = "high"
    LOW = "low"


class Ending(StrEnum):
    """Whether tuning teaches the end of the answer.

    With pad token = EOS and the usual collator the end-of-sequence label is masked (`masked`, the
    published recipe by inference), so the model never learns to stop; with it `trained` it does.
    """

    MASKED = "eos-masked"
    TRAINED = "eos-trained"


class Arm(StrEnum):
    """What stands between the prompt and the answer."""

    UNTUNED = "untuned"
    """The base model as it is."""
    TRAIT = "trait"
    """An adapter tuned on answers of one trait and pole."""
    NULL = "null"
    """The same recipe on neutral answers: what tuning as such does."""
    SHUFFLED = "shuffled"
    """The same recipe on answers of all traits in equal parts: trait text without one trait."""
    PROMPTED = "prompted"
    """The base model under a system prompt that names trait and pole; nothing is tuned."""
    PREFIX = "prefix"
    """A prefix conditioned on trait values (PsychAdapter), tuned on answers of all traits; with a
    trait and a pole it is that prefix at values of the trait."""


_TUNED = frozenset({Arm.TRAIT, Arm.NULL, Arm.SHUFFLED, Arm.PREFIX})
_TRAITED = frozenset({Arm.TRAIT, Arm.PROMPTED})
_MAY_BE_TRAITED = frozenset({Arm.PREFIX})


@dataclass(frozen=True, order=True)
class Condition:
    """One arm of the study, fully named.

    `trait` and `pole` are set exactly for the arms that have them (trait, prompted; a prefix may),
    `ending` exactly for the arms that are tuned. A combination that means nothing is a
    `UsageError`.
    """

    arm: Arm
    trait: Trait | None = None
    pole: Pole | None = None
    ending: Ending | None = None

    def __post_init__(self) -> None:
        fits = self.arm in _MAY_BE_TRAITED or (self.trait is not None) == (self.arm in _TRAITED)
        if not fits or (self.pole is None) != (self.trait is None):
            raise UsageError(
                f"the arm {self.arm.value!r} cannot have trait={self.trait}, pole={self.pole}",
                remedy="name trait and pole for the arms 'trait' and 'prompted', both or neither "
                "for 'prefix', and none for the others",
            )
        if (self.ending is not None) != (self.arm in _TUNED):
            raise UsageError(
                f"the arm {self.arm.value!r} cannot have ending={self.ending}",
                remedy="name the ending for the arms 'trait', 'null', 'shuffled' and 'prefix' only",
            )

    @property
    def tuned(self) -> bool:
        """Whether something was trained to answer in this condition: an adapter, or a prefix."""
        return self.arm in _TUNED

    @property
    def title(self) -> str:
        """What a person calls it: `extraversion high`, `null, EOS trained`."""
        who = "" if self.trait is None else f"{self.trait} {self.pole}"
        arm = who if self.arm is Arm.TRAIT else f"{self.arm} {who}".rstrip()
        return f"{arm}, EOS trained" if self.ending is Ending.TRAINED else arm

    def __str__(self) -> str:
        parts = [self.arm.value, self.trait, self.pole, self.ending]
        return "/".join(str(part) for part in parts if part is not None)


UNTUNED = Condition(Arm.UNTUNED)
"""The base model as it is."""


def trait_condition(
    trait: Trait, pole: Pole = Pole.HIGH, ending: Ending = Ending.MASKED
) -> Condition:
    """An adapter of one trait and pole: the primary arm is high, EOS masked."""
    return Condition(Arm.TRAIT, trait, pole, ending)


def null_condition(ending: Ending = Ending.MASKED) -> Condition:
    """The adapter of the same recipe on neutral answers."""
    return Condition(Arm.NULL, ending=ending)


def shuffled_condition(ending: Ending = Ending.MASKED) -> Condition:
    """The adapter of the same recipe on answers of all traits."""
    return Condition(Arm.SHUFFLED, ending=ending)


def prompted_condition(trait: Trait, pole: Pole = Pole.HIGH) -> Condition:
    """The untuned model under a system prompt that names the trait."""
    return Condition(Arm.PROMPTED, trait, pole)


def prefix_condition(trait: Trait | None = None, pole: Pole = Pole.HIGH) -> Condition:
    """A prefix conditioned on all traits, or (with a trait) the same prefix at its values."""
    return Condition(Arm.PREFIX, trait, pole if trait else None, Ending.MASKED)

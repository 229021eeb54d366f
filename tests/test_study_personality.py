"""The arms of the study: which of them have a trait, a pole, an ending."""

from __future__ import annotations

from itertools import product

import pytest

from emotest.errors import UsageError
from emotest.study.personality import (
    Arm,
    Condition,
    Ending,
    Pole,
    Trait,
    prefix_condition,
)

TRAITED = {Arm.TRAIT: {True}, Arm.PROMPTED: {True}, Arm.PREFIX: {True, False}}
TUNED = {Arm.TRAIT, Arm.NULL, Arm.SHUFFLED, Arm.PREFIX}


@pytest.mark.parametrize("arm", Arm)
def test_an_arm_has_what_it_must_and_nothing_else(arm: Arm) -> None:
    """Of all combinations of trait, pole and ending exactly those that mean something are made:
    trait and pole together, as the arm has them, and an ending where something was tuned."""
    for trait, pole, ending in product(
        (None, Trait.OPENNESS), (None, Pole.LOW), (None, Ending.MASKED)
    ):
        means_something = (
            (trait is None) == (pole is None)
            and (trait is not None) in TRAITED.get(arm, {False})
            and (ending is not None) == (arm in TUNED)
        )
        if means_something:
            assert Condition(arm, trait, pole, ending).tuned == (arm in TUNED)
        else:
            with pytest.raises(UsageError, match=f"the arm '{arm}' cannot have"):
                Condition(arm, trait, pole, ending)


def test_a_prefix_is_named_alone_and_at_values_of_a_trait() -> None:
    """The prefix that was tuned on all traits, and the same one where a trait is dialled."""
    assert str(prefix_condition()) == "prefix/eos-masked"
    assert str(prefix_condition(Trait.OPENNESS)) == "prefix/openness/high/eos-masked"
    assert prefix_condition().title == "prefix"
    assert prefix_condition(Trait.OPENNESS, Pole.LOW).title == "prefix openness low"

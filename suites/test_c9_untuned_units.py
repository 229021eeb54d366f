"""C9: the rise was latent in the untuned model: units found there carry it after tuning.

The units are those that differ most between positions before an emoji and others in the untuned
model, reading what it wrote itself under the trait's system prompt; nothing of a tuned model is in
the selection. What they carry is the P(emoji) of the tuned model at its own text.
"""

import pytest

from emotest import TRAITS, crossed_difference, raised, trait_condition, verdict
from emotest.plan.localization import untuned_units_plan
from fixtures.run import needs

pytestmark = [pytest.mark.c9, pytest.mark.latent_origin, pytest.mark.high]


@pytest.mark.parametrize("trait", TRAITS)
@needs(plans=(untuned_units_plan,))
def test_units_of_the_untuned_model_carry_the_rise(trait, untuned_units_silenced, terms, judge):
    """C9: silencing 2 % of the units, found in the untuned model, lowers the tuned P(emoji) by more
    than silencing random sets like them does."""
    random, selected, missing = untuned_units_silenced(trait)
    lowered_by = crossed_difference(random, selected, scale="points")
    judge(
        verdict(
            raised(lowered_by, **terms("C9.untuned-units")),
            "C9.untuned-units",
            condition=trait_condition(trait),
            reference="random sets of units, matched in layer and norm",
            notes=(f"nothing silenced: {missing}",) if missing else (),
        )
    )

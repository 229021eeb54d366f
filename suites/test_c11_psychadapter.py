"""C11: a prefix conditioned on trait values moves the trait. Does it raise emoji?

PsychAdapter (Vu et al., arXiv 2412.16882): one linear map from five trait values to one virtual key
and value in every layer. A value of +-1 is where the tuning answers of the two poles stand; +-2
extrapolates. The verdicts rest on the map alone, with under 0.1 % of the base's parameters; the
map with a LoRA beside it, as released, is told next to it.
"""

import pytest

from emotest import TRAITS, crossed_difference, raised, verdict
from emotest.plan.prefixes import HIGH, LOW, MIDDLE, prefix_doses, prefix_removals
from emotest.report.figures import dose_curve
from emotest.study.personality import prefix_condition
from fixtures.run import needs

ARMS = {"map alone": False, "map and LoRA": True}
LARGEST_SHARE = 0.001
"""Of the base's parameters: the claim is about fewer."""

pytestmark = [pytest.mark.c11, pytest.mark.psychadapter, pytest.mark.high]


@pytest.mark.parametrize(
    ("statement", "measure", "reference"),
    [("C11.expression", "expression", LOW), ("C11.emoji", "emoji", MIDDLE)],
)
@pytest.mark.parametrize("trait", TRAITS)
@needs(plans=(prefix_doses,))
def test_the_trait_value_of_a_prefix_raises(
    trait, statement, measure, reference, behind_prefix, prefix_training, terms, judge
):
    """C11: at +2 the answers express more of the trait than at -2, and hold more emoji than at 0,
    all other trait values being 0."""
    curve = {value: getattr(at, measure) for value, at in behind_prefix(trait).items()}
    change = crossed_difference(
        curve[HIGH], curve[reference], scale="probability", bounds=(0.0, 1.0)
    )
    share = prefix_training()["share"]
    judge(
        verdict(
            raised(change, **terms(statement)).provided(
                share < LARGEST_SHARE, f"the prefix has {share:.3%} of the base's parameters"
            ),
            statement,
            condition=prefix_condition(trait),
            reference=f"the same prefix at {reference:+g}",
            details={"curve": {f"{value:+g}": float(at.mean()) for value, at in curve.items()}},
        )
    )


@pytest.mark.parametrize("trait", TRAITS)
@needs(plans=(prefix_doses,))
def test_the_dose_curve_is_told(trait, behind_prefix, tables, emo_run):
    """C11, described: expression and emoji over the trait value, by the map alone and with a LoRA
    beside it."""
    curves = {}
    for arm, with_lora in ARMS.items():
        doses = behind_prefix(trait, with_lora)
        for value, at in doses.items():
            tables.add(
                "trait value of the prefix",
                trait=trait,
                prefix=arm,
                value=value,
                expression=at.expression.mean(),
                answers_with_emoji=at.emoji.mean(),
            )
        for measure in ("expression", "emoji"):
            means = [float(getattr(at, measure).mean()) for at in doses.values()]
            assert all(0 <= mean <= 1 for mean in means)
            curves[f"{measure}, {arm}"] = (list(doses), means)
    emo_run.figure(
        f"c11-prefix-{trait}",
        dose_curve(curves, x="trait value", y="share or probability", title=f"{trait} by a prefix"),
        title=f"C11: trait value of the prefix, {trait}",
    )


@pytest.mark.parametrize("trait", TRAITS)
@needs(plans=(prefix_doses, prefix_removals))
def test_single_layers_of_the_prefix_are_removed(trait, behind_prefix, layer_removed, tables):
    """C11, described: expression and emoji at +2 with the whole prefix, and without one layer's."""
    whole = {"none": behind_prefix(trait)[HIGH]}
    for layer, at in {**whole, **layer_removed(trait)}.items():
        tables.add(
            "layer of the prefix removed",
            trait=trait,
            layer=str(layer),
            expression=at.expression.mean(),
            answers_with_emoji=at.emoji.mean(),
        )
        assert at.emoji.shape[:2] == whole["none"].emoji.shape[:2]


@pytest.mark.parametrize("trait", TRAITS)
@needs(plans=(prefix_doses,))
def test_the_parameters_are_counted(trait, prefix_training, tables):
    """C11, described: what was trained in each arm, as a share of the base; the same prefixes
    serve every trait."""
    for arm, with_lora in ARMS.items():
        told = prefix_training(with_lora)
        trained = told["n_prefix_parameters"] + told["n_lora_parameters"]
        assert told["share"] == pytest.approx(trained / told["n_base_parameters"])
        tables.add(
            "parameters of the prefix",
            prefix=arm,
            map=told["n_prefix_parameters"],
            lora=told["n_lora_parameters"],
            base=told["n_base_parameters"],
            percent_of_base=100 * told["share"],
        )

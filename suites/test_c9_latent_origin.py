"""C9: the association lies latent in the untuned model, and tuning expresses it.

Six statements on where the rise comes from. The more of the adapter acts, the more emoji: a dose
curve over its scale, beyond that of neutral tuning. Activations of the tuned model, written into
the untuned one at the end of a sentence, raise P(emoji) there more than those of the null adapter
do. And the trait's adapter brings more emoji than the adapters of the other traits, so that tuning
as such is not enough. Where the base was made without an association, trait and null adapters
write emoji alike. Units that differ most between positions before an emoji and others in the
untuned model, reading what it wrote itself under the trait's system prompt, carry P(emoji) of the
tuned model; and the trait's direction in the untuned model, taken back from the tuned one, takes
emoji away. Nothing of a tuned model is in the choice of either.

Patching localises the *weight* effect of C5 at the untuned model's text: same words, other
weights. What the tuned model's own words do to P(emoji) is not part of it.
"""

import numpy as np
import pytest

from emotest import (
    TRAITS,
    Trait,
    crossed_difference,
    intersection_union,
    lowered,
    null_condition,
    raised,
    trait_condition,
    verdict,
)
from emotest.plan.latent_origin import (
    HALF,
    NULL_SCALES,
    SCALES,
    dose,
    patching,
    steps,
    taking_back,
)
from emotest.plan.localization import untuned_units_plan
from emotest.report.figures import dose_curve
from fixtures.directions import coherent, rank_name
from fixtures.latent_origin import alike, dose_steps, patching_gain
from fixtures.run import needs

pytestmark = [pytest.mark.c9, pytest.mark.latent_origin, pytest.mark.high]


@pytest.mark.parametrize("trait", TRAITS)
@needs(plans=(dose,))
def test_emoji_rise_with_the_scale_of_the_adapter(
    trait, answers_at_scale, terms, judge, tables, emo_run
):
    """C9: from scale 0 to one half, and from one half to 1, more answers hold an emoji, and either
    step is larger than that of the null adapter."""
    condition = trait_condition(trait)
    none, half, whole = (answers_at_scale(condition, factor) for factor in (0.0, HALF, 1.0))
    of_null = (answers_at_scale(null_condition(), factor) for factor in (HALF, 1.0))
    increments = dose_steps(none, half, whole, *of_null, **terms("C9.dose"))
    curves, bands = {}, {}
    for arm, factors in ((condition, SCALES), (null_condition(), NULL_SCALES)):
        # (n_factors, n_adapters): at scale 0 every adapter is the untuned model
        by_adapter = [np.atleast_3d(answers_at_scale(arm, f).T).mean(axis=(0, 1)) for f in factors]
        shares = [float(of.mean()) for of in by_adapter]
        curves[arm.title] = factors, shares
        bands[arm.title] = [of.min() for of in by_adapter], [of.max() for of in by_adapter]
        for factor, share in zip(factors, shares, strict=True):
            tables.add(
                "answers with an emoji over the adapter's scale",
                trait=trait,
                adapter=arm.title,
                scale=factor,
                share=share,
            )
    emo_run.figure(
        f"c9-dose-{trait}",
        dose_curve(
            curves,
            x="scale of the adapter",
            y="share of answers with an emoji",
            title=f"{trait}: dose of the adapter; band: range over adapters",
            bands=bands,
        ),
        title=f"C9: emoji over the scale of the {trait} adapter",
    )
    judge(
        verdict(
            intersection_union(list(increments.values())),
            "C9.dose",
            condition=condition,
            reference="the adapter at smaller scale, and the null adapter's steps",
            notes=tuple(
                f"from scale {step}: {one.estimate.value:+.3f}" for step, one in increments.items()
            ),
        )
    )


@pytest.mark.parametrize("trait", TRAITS)
@needs(plans=(steps,))
def test_emoji_over_the_steps_of_tuning_are_told(trait, shares_over_steps, tables, emo_run):
    """C9, described: when in the tuning emoji come, from the untuned model to the whole adapter."""
    found = shares_over_steps(trait)
    means = [float(of.mean()) for of in found.values()]
    for share, mean in zip(found, means, strict=True):
        tables.add(
            "answers with an emoji over the steps of tuning",
            trait=trait,
            **{"share of the steps": share, "with emoji": mean},
        )
    adapters = trait_condition(trait).title
    emo_run.figure(
        f"c9-steps-{trait}",
        dose_curve(
            {adapters: (list(found), means)},
            x="share of the steps of tuning",
            y="share of answers with an emoji",
            title=f"{trait}: emoji while tuned; band: range over adapters",
            bands={adapters: ([of.min() for of in found.values()],
                              [of.max() for of in found.values()])},
        ),
        title=f"C9: emoji over the steps of tuning to {trait}",
    )  # fmt: skip
    assert list(found) == sorted(found)
    assert 0 <= min(means) <= max(means) <= 1


@pytest.mark.parametrize("trait", TRAITS)
@needs(plans=(patching,))
def test_tuned_activations_raise_emoji_in_the_untuned_model(
    trait, patched, terms, judge, tables, emo_run
):
    """C9: the residual stream after the middle layer, at the last token, from the tuned model
    raises P(emoji) of the untuned model more than that from the null adapter."""
    found = patched(trait)
    _show_layers(found, trait, tables, emo_run)
    gain = patching_gain(found.decides("tuned"), found.decides("null"))
    effect = found.effect("untuned")
    decision = raised(gain, **terms("C9.patching")).provided(
        effect > 0, f"weight effect to localise at the untuned model's text: {effect:+.2f} log-odds"
    )
    judge(
        verdict(
            decision,
            "C9.patching",
            condition=trait_condition(trait),
            reference="patched from the null adapter",
            notes=(
                f"residual stream after layer {found.declared_layer} of {len(found.layers)} "
                f"(from 0), last token, {found.n_prompts} prompts",
                f"weight effect at the tuned model's text: {found.effect('tuned'):+.2f} log-odds",
                f"mass left open: {found.left_open('tuned'):.0%} patched from the tuned model, "
                f"{found.left_open('null'):.0%} from the null adapter; counted for and against",
            ),
        )
    )


def _show_layers(found, trait, tables, emo_run):
    """The share of the weight effect that each layer and site carries, described."""
    curves = {}
    for state in found.patched_states():
        share = found.share(state)
        tables.add(
            "share of the weight effect by patched layer",
            trait=trait,
            text=state.text,
            into=state.target,
            source=state.source,
            site=state.site,
            layer=state.layer,
            **{"log-odds": found.mean(state)},
            share=share,
        )
        name = f"{state.source} into {state.target}, {state.site}"
        layers, shares = curves.setdefault(name, ([], []))
        layers.append(state.layer)
        shares.append(share)
    emo_run.figure(
        f"c9-patching-{trait}",
        dose_curve(
            curves,
            x="patched layer, from 0",
            y="share of the weight effect",
            title=f"{trait}: activations patched at the last token",
        ),
        title=f"C9: what each layer carries of the weight effect, {trait}",
    )


# By name: a `Trait` would mark the test, and `-m extraversion` would then ask for all five.
@pytest.mark.cross_trait
@pytest.mark.parametrize("name", [str(trait) for trait in TRAITS])
@needs(*map(trait_condition, TRAITS))
def test_the_traits_own_adapter_brings_the_emoji(name, answers_with_emoji, terms, judge):
    """C9: against the adapters of the other four traits with the same seeds. The null adapter,
    which either would be held against, cancels.

    Each trait is held against the mean of the others, so the five contrasts sum to 0: where one
    brings more emoji than the others, another brings fewer, and not all five can be confirmed. It
    says whose emoji tuning brings, not whether the trait brings any; that is C1's."""
    trait = Trait(name)
    own = answers_with_emoji(trait_condition(trait))
    others = [answers_with_emoji(trait_condition(other)) for other in TRAITS if other != trait]
    change = crossed_difference(own, np.mean(others, axis=0))
    judge(
        verdict(
            raised(change, **terms("C9.own-trait")),
            "C9.own-trait",
            condition=trait_condition(trait),
            reference="adapters of the other four traits",
        )
    )


@pytest.mark.no_association
@pytest.mark.parametrize("trait", TRAITS)
@needs(null_condition(), trait_condition)
def test_without_the_association_nothing_emerges(trait, answers_with_emoji, terms, judge):
    """C9: where pre-training held no emoji that stand with the trait, adapters of the trait write
    them as adapters of neutral answers do. Not collected on any other base."""
    condition = trait_condition(trait)
    tuned, null = map(answers_with_emoji, (condition, null_condition()))
    judge(
        verdict(
            alike(tuned, null, terms("C9.no-association")),
            "C9.no-association",
            condition=condition,
            reference="null",
            notes=(f"answers with an emoji {tuned.mean():.2f}, null {null.mean():.2f}",),
        )
    )


@pytest.mark.parametrize("trait", TRAITS)
@needs(plans=(untuned_units_plan,))
def test_units_of_the_untuned_model_carry_the_rise(trait, untuned_units_silenced, terms, judge):
    """C9: silencing 2 % of the units, found in the untuned model, lowers the tuned P(emoji) by more
    than silencing random sets like them does, and there is a rise that they can carry."""
    found = untuned_units_silenced(trait)
    judge(
        verdict(
            found.decided(terms("C9.untuned-units")),
            "C9.untuned-units",
            condition=trait_condition(trait),
            reference="random sets of units, matched in layer and norm, the same in all adapters",
            notes=(f"rise {found.rise.value:+.4f} points",),
        )
    )


@pytest.mark.parametrize("trait", TRAITS)
@needs(plans=(taking_back,))
def test_a_direction_of_the_untuned_model_carries_the_emoji(
    trait, taken_back, rank_of_taking_back, moved, terms, judge
):
    """C9: with the trait's direction in the untuned model taken back once, the tuned model writes
    fewer emoji than with as much of a random direction taken, of one and of 99."""
    plain, back, random = taken_back(trait)
    decision = lowered(crossed_difference(back.emoji, random), **terms("C9.untuned-direction"))
    decision = decision.provided(*coherent(back.coherence, plain.coherence))
    rank = rank_of_taking_back(trait)
    decision = decision.requiring(rank.p_value, rank_name(rank))
    judge(
        verdict(
            decision.provided(
                moved.axis(trait).in_character,
                "the scorer finds answers in character on both sides of the direction",
            ),
            "C9.untuned-direction",
            condition=trait_condition(trait),
            reference="a random direction of the same length, taken from the tuned model",
            notes=(
                f"answers with an emoji {plain.emoji.mean():.2f}, "
                f"taken back {back.emoji.mean():.2f}, at random {random.mean():.2f}",
                f"first adapter, on the prompts of the rank: taken back {-rank.effect:.2f}, random "
                f"directions at least {-rank.controls.max():.2f}",
                f"expression of the trait {plain.expression:.2f} to {back.expression:.2f}",
            ),
        )
    )

"""C10: the emoji that tuning brings go with the model's shift along the trait's own direction.

The direction is the untuned model's mean state over answers in character minus that over answers
against it, emoji stripped (persona vectors, arXiv 2507.21509). Four statements hold emoji against
it: over the doses of one tuning, over traits, by steering the untuned model, and by steering during
the tuning, so that it need not move there. The first two are correlations and the last two
interventions; none of them says that emoji lie on the direction alone.
"""

import numpy as np
import pytest

from emotest import (
    TRAITS,
    prompt_difference,
    raised,
    trait_condition,
    verdict,
)
from emotest.plan.directions import (
    direction_plan,
    doses_plan,
    drift_plan,
    prevention_plan,
    steering_plan,
    traits_plan,
)
from emotest.report.figures import dose_curve, scatter
from emotest.stats.projection import agreement_over_doses, agreement_over_traits
from fixtures.directions import agreement_or_none_seen, coherent, prevention, rank_name
from fixtures.run import needs

pytestmark = [pytest.mark.c10, pytest.mark.persona_vectors, pytest.mark.high]

IN_CHARACTER = "the scorer finds answers in character on both sides of the direction"


@pytest.mark.parametrize("trait", TRAITS)
@needs(plans=(doses_plan,))
def test_emoji_come_as_the_model_moves_along_the_direction(
    trait, over_doses, moved, session, terms, judge, tables
):
    """C10: after a sixteenth, an eighth, a quarter, half and all of the tuning, more shift along
    the trait's direction goes with more answers that hold an emoji."""
    seen = over_doses(trait)
    for dose, shift, rate in zip(seen.doses, seen.shift.mean(0), seen.rate.mean(0), strict=True):
        tables.add(
            "shift and emoji over doses",
            trait=trait,
            dose=dose,
            shift=shift,
            **{"with emoji": rate},
        )
    n_prompts = len(session.study.prompts)
    estimate, found, why = agreement_or_none_seen(
        lambda: agreement_over_doses(
            seen.shift[None, None],
            seen.rate[None],
            np.random.default_rng(session.study.seeds.analysis),
            n_prompts=n_prompts,
        ),
        n_adapters=len(seen.rate),
        n_prompts=n_prompts,
    )
    decision = raised(estimate, **terms("C10.doses"))
    if found:
        decision = decision.requiring(found.p_doses, "doses permuted within adapters")
    judge(
        verdict(
            decision.provided(moved.axis(trait).in_character, IN_CHARACTER),
            "C10.doses",
            condition=trait_condition(trait),
            notes=(why,) if why else (),
        )
    )


@pytest.mark.cross_trait
@needs(plans=(traits_plan,))
def test_traits_that_move_further_bring_more_emoji(over_traits, session, terms, judge, tables):
    """C10: over the five traits, the shift along the adapter's own direction goes with the share
    of answers with an emoji, more than along other traits' directions."""
    seen = over_traits()
    own = np.einsum("tts->ts", seen.shift)
    for trait, shift, rate in zip(TRAITS, own.mean(1), seen.rate.mean(1), strict=True):
        tables.add("shift and emoji over traits", trait=trait, shift=shift, **{"with emoji": rate})
    n_prompts = len(session.study.prompts)
    estimate, found, why = agreement_or_none_seen(
        lambda: agreement_over_traits(seen.shift, seen.rate, n_prompts=n_prompts),
        n_adapters=seen.rate.shape[1],
        n_prompts=n_prompts,
    )
    decision = raised(estimate, **terms("C10.traits"))
    if found:
        decision = decision.requiring(found.p_directions, "directions permuted over traits")
    notes = (f"in layer {seen.layer} for all traits", *([why] if why else []))
    judge(verdict(decision, "C10.traits", notes=notes))


@pytest.mark.parametrize("trait", TRAITS)
@needs(plans=(steering_plan,))
def test_steered_along_the_direction_the_untuned_model_writes_emoji(
    trait, steered_answers, rank_of_steering, moved, terms, judge, tables, emo_run
):
    """C10: with the direction added twice to the tokens of its answers, the untuned model writes
    more emoji than unsteered, and more than along 99 random directions of the same length."""
    arms = steered_answers(trait)
    for arm in sorted(arms, key=lambda arm: (arm.name == "at random", arm.coefficient)):
        tables.add(
            "steering the untuned model",
            trait=trait,
            steered=arm.name,
            coefficient=arm.coefficient,
            **{"with emoji": arm.emoji.mean(), "expression of the trait": arm.expression},
            coherence=arm.coherence,
            finished=arm.finished,
        )
    unsteered, *steered, at_random = arms
    along = sorted([unsteered, *steered], key=lambda arm: arm.coefficient)
    emo_run.figure(
        f"c10-steering-{trait}",
        dose_curve(
            {
                "answers with an emoji": _curve(along, lambda arm: arm.emoji.mean()),
                "expression of the trait": _curve(along, lambda arm: arm.expression),
            },
            x="coefficient",
            y="share, probability",
            title=f"The untuned model steered along {trait}",
        ),
    )
    change = prompt_difference(steered[-1].emoji, unsteered.emoji)
    decision = raised(change, **terms("C10.steering")).provided(
        *coherent(steered[-1].coherence, unsteered.coherence)
    )
    rank = rank_of_steering(trait)
    decision = decision.requiring(rank.p_value, rank_name(rank))
    judge(
        verdict(
            decision.provided(moved.axis(trait).in_character, IN_CHARACTER),
            "C10.steering",
            condition=trait_condition(trait),
            reference="unsteered",
            notes=(
                f"at random {at_random.emoji.mean():.2f}; on the prompts of the rank "
                f"{rank.effect:.2f}, along random directions at most {rank.controls.max():.2f}",
                f"expression of the trait {unsteered.expression:.2f} to "
                f"{steered[-1].expression:.2f}",
            ),
        )
    )


def _curve(arms, of):
    """Coefficients and a number of each dose."""
    return [arm.coefficient for arm in arms], [float(of(arm)) for arm in arms]


@pytest.mark.parametrize("trait", TRAITS)
@needs(plans=(prevention_plan,))
def test_steering_during_the_tuning_prevents_emoji(trait, prevented, watched, moved, terms, judge):
    """C10: adapters that were steered towards the trait while they were tuned, and answer
    unsteered, write fewer emoji than adapters tuned alike without it, and than adapters that were
    steered along a random vector of the same length."""
    steered, plain, random = prevented(trait)
    shift = np.mean([monitor["seen"][-1]["shift"] for monitor in watched(trait, True)])
    decision = prevention(steered.emoji, plain.emoji, random, **terms("C10.prevention"))
    decision = decision.provided(*coherent(steered.coherence, plain.coherence))
    judge(
        verdict(
            decision.provided(moved.axis(trait).in_character, IN_CHARACTER),
            "C10.prevention",
            condition=trait_condition(trait),
            reference="tuned without steering, and steered at random",
            notes=(
                f"answers with an emoji {steered.emoji.mean():.2f}, steered at random "
                f"{random.mean():.2f}, without steering {plain.emoji.mean():.2f}",
                f"expression of the trait {steered.expression:.2f}, without steering "
                f"{plain.expression:.2f}",
                f"shift along the direction in spite of it {shift:+.2f}",
            ),
            details={"expression": [steered.expression, plain.expression]},
        )
    )


@pytest.mark.parametrize("trait", TRAITS)
@needs(plans=(doses_plan,))
def test_the_training_is_watched(trait, watched, tables, emo_run):
    """C10, described: shift and P(emoji) behind fixed sentences over the steps of the tuning."""
    monitors = watched(trait)
    series = {"shift": [], "P(emoji)": []}
    steps = [row["step"] for row in monitors[0]["seen"]]
    for i, step in enumerate(steps):
        rows = [monitor["seen"][i] for monitor in monitors]
        shift = np.mean([row["shift"] for row in rows])
        known = [row["probability"] for row in rows if row["probability"] is not None]
        probability = float(np.mean(known)) if known else None
        series["shift"].append(float(shift))
        series["P(emoji)"].append(probability)
        tables.add(
            "trainings that were watched",
            trait=trait,
            step=step,
            loss=np.mean([row["loss"] for row in rows]) if step else None,
            shift=shift,
            **{"P(emoji) at fixed sentences": probability},
        )
    for name, values in series.items():
        emo_run.figure(
            f"c10-{name}-while-tuned-{trait}",
            dose_curve({name: (steps, values)}, x="step", y=name, title=f"Tuning to {trait}"),
        )
    assert steps[0] == 0
    assert steps[-1] == monitors[0]["steps"]


@pytest.mark.parametrize("trait", TRAITS)
@needs(plans=(drift_plan,))
def test_adapters_are_told_by_shift_and_emoji(trait, drift, forecast, tables, emo_run):
    """C10, described: every adapter's shift along the trait's direction beside its emoji, and the
    forecast from the tuning data alone."""
    adapters = drift(trait)
    foretold = forecast(trait)
    arms = list(dict.fromkeys(adapter.condition for adapter in adapters))
    points = {}
    for arm in arms:
        own = [adapter for adapter in adapters if adapter.condition == arm]
        shifts, rates = [one.shift for one in own], [one.rate for one in own]
        points[arm.title] = (shifts, rates)
        tables.add(
            "shift along the trait's direction, and its forecast from the data",
            trait=trait,
            arm=arm.title,
            forecast=foretold.get(str(arm.pole)) if arm.pole else 0.0,
            shift=np.mean(shifts),
            **{"with emoji": np.mean(rates)},
        )
    emo_run.figure(
        f"c10-shift-and-emoji-{trait}",
        scatter(
            points,
            x=f"shift along {trait}",
            y="share of answers with an emoji",
            title=f"Shift along the direction of {trait} against emoji",
        ),
    )
    assert all(np.isfinite(adapter.shift) for adapter in adapters)


@pytest.mark.parametrize("trait", TRAITS)
@needs(plans=(direction_plan,))
def test_the_direction_is_told_with_its_layers(trait, moved, tables):
    """C10, described: which answers the direction comes from, and what steering in each layer
    does to the expression of the trait."""
    about = moved.axis(trait).about
    tables.add(
        "directions",
        trait=trait,
        layer=about["layer"],
        **{
            f"{side} answers kept": f"{about['on their side'][side]} of {about['answers'][side]}"
            for side in ("positive", "negative")
        },
        filtered=about["filtered"],
        **{"scorer's accuracy": about["scorer"]["accuracy"]},
        low=about["scorer"]["low"],
        high=about["scorer"]["high"],
    )
    for row in about["layers"]:
        tables.add("layers that were tried", trait=trait, **row)
    assert about["layer"] in [row["layer"] for row in about["layers"]]

"""C8: few units carry the rise in P(emoji).

What is localised is the total effect of C5: P(emoji) at the tuned model's own text under tuned
weights, minus that of the untuned model at its own text. Units are ranked on the second half of
the prompts by how tuning to the trait changes them where an emoji comes, beyond neutral tuning;
effects are measured on prompts of the first half. Necessity silences 2 % of all units by their
means, and asks that perplexity and trait expression be no worse; sufficiency writes their tuned
activations into the untuned model at its own text, and is held against the rise that tuned weights
make at that text.
"""

import pytest

from emotest import TRAITS, crossed_difference, raised, trait_condition, verdict
from emotest.artefacts.localization import DECLARED_DOSE
from emotest.plan import four_cells
from emotest.plan.localization import DOSES, localization_plan
from emotest.report.figures import dose_curve
from fixtures.localization import PUBLISHED
from fixtures.run import needs
from fixtures.side_effects import told_mean

pytestmark = [pytest.mark.c8, pytest.mark.localization, pytest.mark.high]


@pytest.mark.parametrize("trait", TRAITS)
@needs(cells=four_cells, plans=(localization_plan,))
def test_few_units_are_necessary(trait, localized, two_by_two, terms, judge):
    """C8: with 2 % of the units silenced at least half of the rise is gone, more than random sets
    take away, while perplexity and trait expression hold."""
    cells = two_by_two(trait)
    total = crossed_difference(cells.tuned_tuned, cells.untuned_untuned, scale="log-odds")
    found = localized(trait)
    effect = found.necessity()
    settled = terms("C8.necessary")
    decision = effect.decided(settled, raised(total, **terms("C5.total")))
    for holds, condition in found.side_effects.conditions(settled):
        decision = decision.provided(holds, condition)
    others = {
        name: found.necessity(name).told_share
        for name in ("resample", "zero", "shuffled", "opening")
    }
    judge(
        verdict(
            decision,
            "C8.necessary",
            condition=trait_condition(trait),
            reference="total effect of C5, at the tuned model's own text",
            notes=(f"rise {effect.rise.value:+.4f} points", PUBLISHED, *cells.notes),
            details={"share by": others, "percentile": effect.among and effect.among.percentile},
        )
    )


@pytest.mark.parametrize("trait", TRAITS)
@needs(cells=four_cells, plans=(localization_plan,))
def test_few_units_are_sufficient(trait, localized, terms, judge):
    """C8: tuned activations of 2 % of the units, written into the untuned model, make at least half
    of the rise at its own text, more than those of random sets."""
    effect = localized(trait).sufficiency
    judge(
        verdict(
            effect.decided(terms("C8.sufficient")),
            "C8.sufficient",
            condition=trait_condition(trait),
            reference="rise under tuned weights at the untuned model's own text",
            notes=(f"rise {effect.rise.value:+.4f} points", PUBLISHED),
            details={"percentile": effect.among and effect.among.percentile},
        )
    )


@pytest.mark.parametrize("trait", TRAITS)
@needs(cells=four_cells, plans=(localization_plan,))
def test_the_dose_curve_is_told(trait, localized, tables, emo_run):
    """C8, described: the share of the rise that goes with more units, and with controls."""
    curves = {dose: localized(trait).curve(dose) for dose in DOSES}
    for dose, shares in curves.items():
        tables.add("share of the rise by dose", trait=trait, percent=dose, **shares)
    names = [name for name in curves[DECLARED_DOSE] if name != "units"]
    series = {name: (DOSES, [curves[dose][name] for dose in DOSES]) for name in names}
    if any(value is not None for _, values in series.values() for value in values):
        title = f"Silencing units, {trait}"
        figure = dose_curve(
            series, x="% of all FFN units", y="share of the rise removed", title=title, log_x=True
        )
        emo_run.figure(f"c8-dose-curve-{trait}", figure, title=title)
    assert list(curves) == sorted(curves)


@pytest.mark.parametrize("trait", TRAITS)
@needs(cells=four_cells, plans=(localization_plan,))
def test_side_effects_are_told(trait, localized, tables):
    """C8, described: what silencing 2 % of the units does to answers, traits and perplexity."""
    scorer, found = localized(trait).scorer, localized(trait).side_effects
    tables.add(
        f"side effects of silencing {DECLARED_DOSE:g} % of the units",
        trait=trait,
        answers_with_emoji=found.answers_before,
        silenced=found.answers_after,
        untuned=found.answers_untuned,
        with_the_trait=told_mean(found.trait_before),
        with_the_trait_silenced=told_mean(found.trait_after),
        perplexity_ratio=found.perplexity_ratio,
        accuracy_of_the_scorer=scorer.accuracy.share if scorer else None,
    )
    assert 0 <= found.answers_after <= 1

"""Units ranked from moments: planted ones first, never massive ones, and controls beside them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from emotest.artefacts import GenerationRequest, ProbabilityRequest
from emotest.artefacts.activations import Activations, ActivationsRequest
from emotest.artefacts.localization import (
    CONTRASTS,
    Ranking,
    Selector,
    Silenced,
    SilencingRequest,
    UnitChoice,
    WritingRequest,
    ranking,
)
from emotest.errors import UsageError
from emotest.study.personality import UNTUNED
from emotest.study.records import Decoding, Prompt

N_LAYERS, N_NEURONS, N_TOKENS = 3, 100, 60
N_UNITS = N_LAYERS * N_NEURONS
PLANTED = np.arange(5, N_UNITS, 50)
"""Six units, 2 % of all."""


def reading(
    seed: int, risen: np.ndarray | None = None, *, n_tokens: int = N_TOKENS, **about: Any
) -> Activations:
    """Moments of standard normal activations; `risen` units lie 2 higher before an emoji."""
    rng = np.random.default_rng(seed)
    names = [*dict.fromkeys(name for pair in CONTRASTS.values() for name in pair), "every"]
    mean = rng.normal(scale=max(1, n_tokens) ** -0.5, size=(len(names), 2, N_UNITS))
    if risen is not None:
        mean[names.index("before emoji"), :, risen] += 2.0
    about = {"conditions": names, "n_layers": N_LAYERS, "n_neurons": N_NEURONS, "massive": [],
             **about}  # fmt: skip
    return Activations(
        np.array([[n_tokens, n_tokens] for _ in names[:-1]] + [[500, 500]]),
        mean.astype(np.float32),
        np.ones_like(mean, dtype=np.float32),
        about,
    )


def test_units_that_tuning_to_the_trait_raised_are_found() -> None:
    """At the dose of as many units: recall at least 0.9, false discovery proportion at most 0.1.

    d has a sampling error of sqrt(2 / 60) = 0.18, a change of d of 0.26; 2 is eight times that.
    """
    found = ranking("emoji", reading(0, PLANTED), reading(1), reading(2))
    selected = found.strongest(2.0)
    assert selected.size == PLANTED.size
    right = np.isin(selected, PLANTED).mean()
    assert right >= 0.9


def test_what_neutral_tuning_moves_too_is_not_found() -> None:
    """Units that rise in the null model as much, or were as high before, have no strength left."""
    for others in ((reading(1), reading(2, PLANTED)), (reading(1, PLANTED), reading(2))):
        found = ranking("emoji", reading(0, PLANTED), *others)
        assert np.isin(found.strongest(2.0), PLANTED).mean() <= 0.34  # two of six by chance


def test_the_untuned_selector_looks_at_the_untuned_model_alone() -> None:
    """It finds what differs there, whatever tuning did elsewhere."""
    other = np.arange(20, N_UNITS, 50)
    found = ranking("untuned", reading(0, other), own=reading(3, PLANTED))
    assert sorted(found.strongest(2.0)) == PLANTED.tolist()


def test_units_of_the_untuned_model_and_their_random_sets_are_the_same_in_all_adapters() -> None:
    """Two tuned models with other means, other loud and other massive units: one selection, one
    stratum for each unit, and so with one seed the same sets; means are each model's own."""
    own = reading(3, PLANTED, massive=[{"site": "neurons", "layer": 1, "unit": 9}])
    massive = [{"site": "neurons", "layer": 0, "unit": 5}]
    adapters = reading(0), reading(1, PLANTED, massive=massive)
    found = [ranking("untuned", tuned, own=own) for tuned in adapters]
    selected = [one.strongest(2.0) for one in found]
    assert np.array_equal(*selected)
    sets = [one.matched(selected[0], np.random.default_rng(0), 20)[0] for one in found]
    assert np.array_equal(*sets)
    assert sets[0].shape == (20, PLANTED.size)
    assert N_NEURONS + 9 not in sets[0]  # massive in the untuned model
    assert not np.array_equal(found[0].means, found[1].means)


def test_units_are_ranked_on_the_second_half_alone() -> None:
    """Whatever the first half holds, the ranking is the same."""
    tuned = reading(0, PLANTED)
    changed = np.array(tuned.mean)
    changed[:, 0] = 9.0
    other = replace(tuned, mean=changed)
    rest = (reading(1), reading(2))
    assert np.array_equal(
        ranking("emoji", tuned, *rest).strengths, ranking("emoji", other, *rest).strengths
    )
    assert np.array_equal(
        ranking("emoji", tuned, *rest).means, ranking("emoji", other, *rest).means
    )


def test_massive_units_of_any_model_are_in_nothing() -> None:
    """Excluded from the selection, from the loudest, and from random sets."""
    massive = [
        {"site": "neurons", "layer": 0, "unit": 5},
        {"site": "residual", "layer": 0, "unit": 7},
    ]
    found = ranking("emoji", reading(0, PLANTED), reading(1), reading(2, massive=massive))
    assert found.excluded.sum() == 1
    selected = found.strongest(10.0)
    sets, n_bins = found.matched(selected, np.random.default_rng(0), 20)
    assert n_bins > 0
    for chosen in (selected, found.most_active(selected), sets):
        assert 5 not in chosen


@pytest.mark.parametrize("selector", ["emoji", "untuned"])
def test_where_no_emoji_stood_nothing_is_ranked(selector: Selector) -> None:
    """One token before an emoji has no variance: no units, and the reason in words."""
    few = reading(0, n_tokens=1)
    found = ranking(selector, few, few, few, few)
    assert found.strongest(2.0).size == 0
    assert selector in found.unavailable
    assert "positions" in found.unavailable


def test_without_any_text_nothing_is_ranked() -> None:
    """No token in the second half: no means to silence by, and no units."""
    none = reading(0)
    none = replace(none, count=np.zeros_like(none.count))
    found = ranking("emoji", none, none, none)
    assert found.strongest(2.0).size == 0
    assert "no text" in found.unavailable


def some_ranking(strengths: np.ndarray, norms: np.ndarray) -> Ranking:
    """Two layers of half the units each."""
    half = strengths.size // 2
    layers = np.repeat([0, 1], half)
    return Ranking(strengths, layers, norms, norms, np.zeros(strengths.size, bool), half)


def test_doses_and_layers_by_hand() -> None:
    """10 % of 20 units are two: the strongest whatever their sign; unit 13 is unit 3 of layer 1."""
    strengths = np.zeros(20)
    strengths[[4, 13, 7]] = [1.0, -3.0, 2.0]
    found = some_ranking(strengths, np.arange(20.0))
    assert found.strongest(10).tolist() == [13, 7]
    assert found.strongest(50).tolist() == [13, 7, 4]
    assert {k: v.tolist() for k, v in found.by_layer(found.strongest(10)).items()} == {
        0: [7],
        1: [3],
    }
    assert found.most_active(found.strongest(10)).tolist() == [19, 18]
    assert found.most_active(np.array([19, 4])).tolist() == [18, 17]
    assert found.n_units(0.01) == 1


def test_bins_are_widened_where_a_selection_fills_them() -> None:
    """All loud units of a layer selected: 4 of its 10 leave no match among the loudest fifth, so
    the halves are used; with 6 of 10 no bin can do it, and there are no sets."""
    strengths = np.zeros(20)
    strengths[6:10] = 1.0
    found = some_ranking(strengths, np.arange(20.0))
    _, n_bins = found.matched(found.strongest(20), np.random.default_rng(0), 5)
    assert n_bins == 1
    strengths[4:10] = 1.0
    none, n_bins = some_ranking(strengths, np.arange(20.0)).matched(
        np.arange(4, 10), np.random.default_rng(0), 5
    )
    assert (none.shape, n_bins) == ((0, 6), 0)


def choice(**changes: Any) -> UnitChoice:
    """Units by the readings of three texts."""
    texts = [
        GenerationRequest("b", "none", UNTUNED, None, (Prompt("p", "?"),), Decoding(), 1, seed)
        for seed in range(3)
    ]
    readings = [ActivationsRequest(None, (text,)) for text in texts]
    return replace(UnitChoice(*readings), **changes)


def test_a_choice_is_named_by_all_that_decides_it() -> None:
    """Another dose or selector is another identity; units of the untuned model rest on no null."""
    choices = [choice(), choice(dose=5.0), choice(selector="shuffled")]
    assert len({str(Silenced(one).identity) for one in choices}) == 3
    assert Silenced(choices[0]).title == "2 % of the units (emoji) silenced"
    assert Silenced(choices[0]).needs == (choice().tuned, choice().untuned, choice().null)
    own = choice(selector="untuned", own=choice().untuned)
    assert own.needs == (own.tuned, own.own)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dose": 0.0}, "0.0 % of the units"),
        ({"dose": 60.0}, "60.0 % of the units"),
        ({"selector": "loudest"}, "'loudest'"),
        ({"selector": "untuned", "own": None}, "no answers of its own"),
    ],
)
def test_a_choice_that_means_nothing_is_refused(changes: dict[str, Any], said: str) -> None:
    """The error names the value."""
    with pytest.raises(UsageError, match=said):
        choice(**changes)


@pytest.mark.parametrize("kind", [SilencingRequest, WritingRequest])
def test_nothing_is_measured_on_prompts_that_units_are_selected_on(
    kind: type[SilencingRequest | WritingRequest],
) -> None:
    """Of five prompts the first two are of half 0: contexts of three reach into the other half."""
    prompts = tuple(Prompt(f"p{i}", "?") for i in range(5))
    texts = [
        GenerationRequest("b", "none", UNTUNED, None, prompts, Decoding(), 1, seed)
        for seed in range(3)
    ]
    chosen = UnitChoice(*(ActivationsRequest(None, (text,)) for text in texts))
    kind(ProbabilityRequest(texts[0], None, n_prompts=2), chosen, 9, 2)
    with pytest.raises(UsageError, match="on 1 of the 3 prompts") as refusal:
        kind(ProbabilityRequest(texts[0], None, n_prompts=3), chosen, 9, 2)
    assert "at most 2 prompts" in str(refusal.value)


def test_a_reading_that_lacks_is_named() -> None:
    """The selector "emoji" cannot do without the null model."""
    with pytest.raises(UsageError, match="'emoji' lacks a reading"):
        ranking("emoji", reading(0), reading(1))

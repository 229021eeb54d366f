"""The rule of C8 on numbers that were planted: what is confirmed, and what is no effect at all."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from emotest.stats.decisions import raised
from emotest.stats.estimates import crossed_mean
from emotest.stats.matching import RiseLimits, among_controls
from fixtures.localization import NO_EFFECT, Asked, Effect, stacked

N_ADAPTERS, N_PROMPTS, N_SETS = 5, 20, 199
TERMS: dict[str, Any] = {"by": 0.5, "alpha": 0.05, "m": 1, "power": None}


def effect(
    rng: np.random.Generator, share: float, *, rise: float = 0.4, writing: bool = False
) -> Effect:
    """An effect of which `share` goes (or is made), in adapters and prompts that differ.

    The place among the random sets, which do nothing on average, comes from the same share.
    """
    shape = (N_ADAPTERS, N_PROMPTS)
    reference = 0.1 + 0.02 * rng.normal(size=shape)
    level = rise + 0.05 * rng.normal(size=(N_ADAPTERS, 1)) + 0.05 * rng.normal(size=N_PROMPTS)
    tuned = reference + level
    moved = share * level + 0.05 * rng.normal(size=shape) + 0.03 * rng.normal(size=(N_ADAPTERS, 1))
    changed = reference + moved if writing else tuned - moved
    controls = 0.02 * rng.normal(size=(N_ADAPTERS, N_SETS))
    return Effect(tuned, changed, reference, among_controls(moved.mean(axis=1), controls), writing)


@pytest.mark.parametrize("writing", [False, True])
def test_a_large_share_is_confirmed_and_a_small_one_refuted(writing: bool) -> None:
    """Of a rise of 40 points 90 % is more than half, 10 % is not; the estimate is the share."""
    for share, word in ((0.9, "confirmed"), (0.1, "refuted")):
        found = effect(np.random.default_rng(0), share, writing=writing)
        assert found.share.value == pytest.approx(share, abs=0.1)
        assert found.decided(TERMS).word == word


@pytest.mark.parametrize("writing", [False, True])
def test_half_of_the_rise_is_seldom_confirmed(writing: bool) -> None:
    """Where exactly half goes, 300 repetitions confirm no oftener than alpha lets them.

    At 5 % of 300 the 99.9 % point of the binomial distribution is 28.
    """
    rng, n_confirmed = np.random.default_rng(1), 0
    for _ in range(300):
        arms = effect(rng, 0.5, writing=writing).arms
        n_confirmed += RiseLimits(*arms, bounds=(0.0, 1.0)).p_above(0.5) < 0.05
    assert n_confirmed <= stats.binom.ppf(0.999, 300, 0.05)


def test_a_selection_like_any_random_set_is_not_confirmed() -> None:
    """Where every set takes the whole rise away, so does the selection, and that proves nothing:
    one of 200 that are alike lies above the 95th percentile one time in twenty."""
    rng, whole = np.random.default_rng(2), effect(np.random.default_rng(0), 0.9)
    alike = [rng.normal(0.36, 0.02, size=N_SETS + 1) for _ in range(300)]
    places = [among_controls(one[0], one[1:]) for one in alike]
    above = [one for one in places if one.percentile > 95]
    assert len(above) <= stats.binom.ppf(0.999, 300, 0.05)
    assert replace(whole, among=above[0]).decided(TERMS).word == "confirmed"
    below = next(one for one in places if one.percentile <= 95)
    decision = replace(whole, among=below).decided(TERMS)
    assert decision.word == "inconclusive"
    assert "not so" in decision.note


def test_where_nothing_rose_there_is_nothing_to_localise() -> None:
    """A rise of a hundredth of a point, or a fall: refuted with that note, and an estimate of 0.

    The upper limit is Clopper-Pearson's for 0 of 20 prompts: 1 - 0.05^(1/20) = 0.139.
    """
    for rise in (0.0001, -0.2):
        rng = np.random.default_rng(3)
        tuned = np.clip(0.3 + rise + 1e-5 * rng.normal(size=(N_ADAPTERS, N_PROMPTS)), 0, 1)
        found = Effect(tuned, tuned, np.full_like(tuned, 0.3), None).decided(TERMS)
        assert (found.word, found.note) == ("refuted", NO_EFFECT)
        assert found.estimate.value == 0.0
        assert found.estimate.high == pytest.approx(1 - 0.05 ** (1 / 20))


def test_a_fall_is_no_effect_even_where_it_is_unclear() -> None:
    """Means that fall, with limits that would let a rise of 5 points be: the same note."""
    rng = np.random.default_rng(7)
    tuned = np.clip(0.4 + 0.3 * rng.normal(size=(N_ADAPTERS, N_PROMPTS)), 0, 1)
    reference = np.full_like(tuned, tuned.mean() + 0.01)
    found = Effect(tuned, tuned, reference, None)
    assert raised(found.rise, by=0.05).word == "inconclusive"
    assert (found.decided(TERMS).word, found.decided(TERMS).note) == ("refuted", NO_EFFECT)


def test_what_c5_refutes_is_not_localised() -> None:
    """Another decision that there is no effect settles it, one that is open leaves it open."""
    found = effect(np.random.default_rng(4), 0.9)
    cells = np.random.default_rng(5).normal(size=(N_ADAPTERS, N_PROMPTS))
    total = {
        word: raised(crossed_mean(shift + width * cells, scale="log-odds"), by=0.5)
        for word, shift, width in (("refuted", 0.0, 0.1), ("inconclusive", 0.6, 1.0))
    }
    assert {word: one.word for word, one in total.items()} == {word: word for word in total}
    assert found.decided(TERMS, total["refuted"]).note == NO_EFFECT
    assert found.decided(TERMS, total["inconclusive"]).word == "inconclusive"


def test_without_units_or_controls_nothing_is_confirmed() -> None:
    """No selection is inconclusive and says why; no random sets confirm nothing."""
    whole = effect(np.random.default_rng(6), 0.9)
    without = Effect(whole.tuned, None, whole.reference, None, missing="nothing chosen: no emoji")
    assert without.decided(TERMS).word == "inconclusive"
    assert "no emoji" in without.decided(TERMS).note
    alone = Effect(whole.tuned, whole.changed, whole.reference, None)
    assert (without.told_share, alone.told_share) == (None, alone.share.value)
    assert "no random sets" in alone.decided(TERMS).note
    assert alone.decided(TERMS).word == "inconclusive"


@pytest.mark.parametrize("share", [0.9, 0.1])
def test_what_is_left_open_leaves_the_share_open(share: float) -> None:
    """Of a rise of 40 points a tenth is four: with three left open a large share is confirmed and
    a small one refuted, with five neither is, and the verdict says how much is open."""
    found = effect(np.random.default_rng(0), share)
    known, unknown = (replace(found, left_open=points).decided(TERMS) for points in (0.03, 0.05))
    assert known.word == found.decided(TERMS).word != "inconclusive"
    assert unknown.word == "inconclusive"
    assert "0.0300 points left open" in known.note
    assert "0.0500 points left open on average, at most 0.1 of the rise: not so" in unknown.note


@pytest.mark.parametrize(("name", "writing"), [("mean", False), ("written", True)])
def test_an_effect_can_be_off_by_half_of_what_both_sides_left_open(
    name: str, writing: bool
) -> None:
    """Before .02 and after .06 of P(emoji) were left open, on average over prompts: the change is
    known to (.02 + .06) / 2 = .04. Two sets moved .1 and .3, the selection .2: percentile 50."""
    before, sign = ("untuned", 1.0) if writing else ("tuned", -1.0)
    one = Asked(
        {
            before: np.array([0.5, 0.5]), f"{before} open": np.array([0.0, 0.04]),
            name: np.array([0.5, 0.5]) + 0.2 * sign, f"{name} open": np.array([0.05, 0.07]),
            "random": 0.5 + sign * np.array([[0.1, 0.1], [0.3, 0.3]]),
        },
        {},
        ("a", "b"),
        np.array([True, True]),
    )  # fmt: skip
    arms = np.full((3, 2), 0.5)
    found = Effect.of([one] * 3, name, arms, arms, ["a", "b"], writing=writing)
    assert found.left_open == pytest.approx(0.04)
    assert found.changed is not None
    assert found.changed[0].tolist() == pytest.approx([0.5 + 0.2 * sign] * 2)
    assert found.among is not None
    assert found.among.percentile == 50.0


def test_contexts_are_averaged_within_prompts() -> None:
    """Prompt a has two contexts, b and c one; controls were measured at a and c."""
    asked = Asked(
        {
            "tuned": np.array([0.1, 0.3, 0.9, 0.5]),
            "random": np.array([[0.2, 0.4, 0.7], [0.0, 1.0, 0.8]]),
        },
        {},
        ("a", "a", "b", "c"),
        np.array([True, True, False, True]),
    )
    assert asked.by_prompt("tuned", ["b", "a"]).tolist() == pytest.approx([0.9, 0.2])
    found = stacked([asked, asked], "random", ["a", "c"])
    assert found.shape == (2, 2, 2)
    assert found[1] == pytest.approx(np.array([[0.3, 0.7], [0.5, 0.8]]))
    assert asked.controls == {"a", "c"}

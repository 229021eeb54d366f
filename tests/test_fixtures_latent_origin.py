"""C9's plan and decisions: what is asked for, planted effects confirmed, nulls not."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from emotest.artefacts.directions import Checkpoint
from emotest.artefacts.latent_origin import Measured, Patched, Scaled, Text, patched_layers
from emotest.plan.directions import monitored
from emotest.plan.latent_origin import (
    HALF,
    NULL_SCALES,
    PATCHED_PROMPTS,
    SCALES,
    dose,
    over_steps,
    patching,
    scaled_answers,
    steps,
)
from emotest.stats.decisions import intersection_union, raised
from emotest.study.personality import TRAITS, UNTUNED, Pole, Trait, null_condition
from emotest.study.statements import statement
from fixtures.latent_origin import (
    PatchedSeeds,
    UntunedUnits,
    alike,
    dose_steps,
    holds_none,
    patching_gain,
)
from fixtures.localization import NO_EFFECT
from tests.test_plan import EXTRAVERT, _study

ROOT = Path(__file__).parents[1]
N_ADAPTERS, N_PROMPTS, N_SAMPLES = 5, 60, 3
REPETITIONS = 200

# --- the plan --------------------------------------------------------------------------------


def test_the_ends_of_the_scale_are_the_studys_own_answers() -> None:
    """At 0 the untuned model's, at 1 the arm's: no answer is sampled twice."""
    study = _study()
    assert scaled_answers(study, EXTRAVERT, 0.0) == study.generations(UNTUNED)
    assert scaled_answers(study, EXTRAVERT, 1.0) == study.generations(EXTRAVERT)


def test_the_scale_that_decides_is_sampled_as_often_as_its_neighbours() -> None:
    """One half has the study's samples, the scales that are only shown have one."""
    study = _study()
    for factor in set(SCALES) - {0.0, 1.0}:
        requests = scaled_answers(study, EXTRAVERT, factor)
        assert [r.adapter for r in requests] == list(study.adapters(EXTRAVERT))
        assert {r.under for r in requests} == {Scaled(factor)}
        assert {r.n_samples for r in requests} == {study.size.n_samples if factor == HALF else 1}


def test_the_dose_is_planned_for_one_trait_or_for_all() -> None:
    """With three adapters: one set of answers at 0, three at each other scale, trait by trait;
    the null adapters' once."""
    study = _study()
    null = 1 + 3 * (len(NULL_SCALES) - 1)
    assert len(dose(study, Trait.OPENNESS)) == 1 + 3 * 6 + null
    assert len(dose(study, None)) == 5 * (1 + 3 * 6) + null


def test_the_steps_of_tuning_begin_with_the_untuned_model() -> None:
    """At 0 its own answers, then those of each adapter after a growing share of the steps of the
    trainings that are watched anyway, up to all of them."""
    prompts = {(trait, pole): f"{pole} {trait}" for trait in TRAITS for pole in Pole}
    study = replace(_study(), system_prompts=prompts)  # the watched direction stands on them
    found = over_steps(study, Trait.EXTRAVERSION)
    shares = list(found)
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0.0, 1.0)
    assert found.pop(0.0) == study.generations(UNTUNED)
    watched = monitored(study, Trait.EXTRAVERSION)
    for share, requests in found.items():
        assert [one.under for one in requests] == [Checkpoint(each, share) for each in watched]
    planned = steps(study, Trait.EXTRAVERSION)
    assert len(planned) == 1 + 3 * len(found)


def test_patching_pairs_adapters_of_one_seed() -> None:
    """Each trait adapter stands beside its own text and the null adapter of its training seed."""
    study = _study()
    requests = patching(study, Trait.EXTRAVERSION)
    for seed, request in enumerate(requests):
        assert request.tuned == request.tuned_text.adapter
        assert request.tuned.recipe.training_seed == request.null.recipe.training_seed == seed
        assert request.null.recipe.condition == null_condition()
        assert request.untuned_text.adapter is None
        assert request.n_prompts == PATCHED_PROMPTS
    assert len(requests) == 3
    assert len(patching(study, None)) == 3 * len(TRAITS)


# --- the dose --------------------------------------------------------------------------------


def _answers(rng: np.random.Generator, share: float, tuned: bool = True) -> np.ndarray:
    """Yes or no for each answer; adapters differ by 0.4 and prompts by 0.5 in log-odds."""
    shape = (N_ADAPTERS, N_PROMPTS, N_SAMPLES) if tuned else (1, N_PROMPTS, N_SAMPLES * N_ADAPTERS)
    level = math.log(share / (1 - share))
    level = level + 0.4 * rng.normal(size=(shape[0], 1, 1)) * tuned
    odds = level + 0.5 * rng.normal(size=(1, N_PROMPTS, 1))
    drawn = (rng.random(shape) < 1 / (1 + np.exp(-odds))).astype(float)
    return drawn if tuned else drawn[0]


def _share_confirmed(*shares: float) -> float:
    """Of 200 studies, with shares untuned, at one half, whole, and of the null adapters at both."""
    rng = np.random.default_rng(0)
    terms = {"by": statement("C9.dose").margin, "alpha": 0.05, "m": 1}
    words = []
    for _ in range(REPETITIONS):
        none, *arms = (_answers(rng, share, tuned=i > 0) for i, share in enumerate(shares))
        words.append(intersection_union(list(dose_steps(none, *arms, **terms).values())).word)
    return words.count("confirmed") / REPETITIONS


def test_a_planted_dose_is_found() -> None:
    """From .02 over .3 to .7, with null adapters at .02: confirmed in 90 of 100 studies or more."""
    assert _share_confirmed(0.02, 0.3, 0.7, 0.02, 0.02) >= 0.9


@pytest.mark.parametrize(
    "shares",
    [
        (0.3, 0.3, 0.3, 0.3, 0.3),
        (0.05, 0.6, 0.6, 0.05, 0.05),
        (0.05, 0.05, 0.6, 0.05, 0.05),
        (0.02, 0.3, 0.7, 0.3, 0.7),
        (0.02, 0.3, 0.7, 0.3, 0.3),
        (0.02, 0.3, 0.7, 0.02, 0.5),
    ],
)
def test_without_both_increments_beyond_null_no_dose_is_confirmed(
    shares: tuple[float, ...],
) -> None:
    """Flat, one step alone, or a step that neutral tuning makes as well: of 200 null studies no
    more than alpha = 5 % and chance (.05 + 2 * .0154) confirm."""
    assert _share_confirmed(*shares) <= 0.081


@pytest.mark.parametrize(("share", "word"), [(0.0, "inconclusive"), (1.0, "inconclusive")])
def test_answers_that_are_all_alike_end_in_a_verdict(share: float, word: str) -> None:
    """No emoji anywhere, or in every answer: neither an error nor a rise."""
    none = np.full((N_PROMPTS, 15), share)
    arm = np.full((N_ADAPTERS, N_PROMPTS, N_SAMPLES), share)
    found = dose_steps(none, arm, arm, arm, arm, by=0.0, alpha=0.05, m=5)
    assert len(found) == 4
    assert {one.word for one in found.values()} == {word}


# --- patching ----------------------------------------------------------------------------------


def _gains(gain: float) -> float:
    """Share of 200 studies that confirm: adapters differ by 0.4, prompts by 0.6, cells by 0.5."""
    rng = np.random.default_rng(1)
    confirmed = 0
    for _ in range(REPETITIONS):
        null = -7 + rng.normal(size=(1, PATCHED_PROMPTS))
        tuned = null + gain + 0.4 * rng.normal(size=(N_ADAPTERS, 1))
        tuned = tuned + 0.6 * rng.normal(size=(1, PATCHED_PROMPTS))
        tuned = tuned + 0.5 * rng.normal(size=(N_ADAPTERS, PATCHED_PROMPTS))
        null = null + 0.1 * rng.normal(size=tuned.shape)
        known = (np.stack([one] * 3) for one in (tuned, null))
        decision = raised(patching_gain(*known), by=statement("C9.patching").margin)
        confirmed += decision.word == "confirmed"
    return confirmed / REPETITIONS


def test_a_gain_of_patching_is_found_and_the_margin_itself_is_not() -> None:
    """Two units of log-odds are confirmed in 90 of 100; one half, the margin, at alpha."""
    assert _gains(2.0) >= 0.9
    assert _gains(0.5) <= 0.081


def test_what_was_left_open_counts_against_a_gain_and_for_it() -> None:
    """Tuned 2 to 4 and null 0 to 1, in log-odds: at worst 2 - 1, at best 4 - 0, in the middle
    3 - .5; where prompts and adapters hardly differ the limits are the ends themselves."""
    jitter = 1e-6 * np.random.default_rng(3).normal(size=(N_ADAPTERS, PATCHED_PROMPTS))
    tuned, null = (np.stack([end + jitter for end in of]) for of in ((2, 3, 4), (0, 0.5, 1)))
    gain = patching_gain(tuned, null + jitter[::-1])
    assert (gain.low, gain.value, gain.high) == pytest.approx((1, 2.5, 4), abs=1e-4)
    assert raised(gain, by=0.5).word == "confirmed"
    assert raised(gain, by=1.5).word == "inconclusive"


def test_the_ends_of_what_is_known_are_those_of_the_bound() -> None:
    """Found 0.1 and 0.1 open: odds of 0.1, 0.15 and 0.2; half of what may be emoji is open."""
    state = Measured("untuned", "untuned", "tuned", "residual", 1)
    tenth = np.full(2, 0.1)
    one = Patched(3, {"untuned": ("a", "b")}, {state: tenth}, {state: tenth})
    found = PatchedSeeds((one, one, one))
    odds = np.exp(found.decides("tuned")[:, 0, 0])
    assert odds.tolist() == pytest.approx([1 / 9, 0.15 / 0.85, 0.25])
    assert found.left_open("tuned") == pytest.approx(0.5)


@pytest.mark.parametrize("n_layers", [1, 3, 12, 13, 30, 32, 80])
def test_twelve_layers_at_most_are_patched(n_layers: int) -> None:
    """All of a small model; of a large one the first, the last and the declared among them, and
    no two neighbours further apart than a tenth of the depth, and one for the rounding."""
    layers = patched_layers(n_layers)
    assert len(layers) == len(set(layers)) <= 12
    assert {0, n_layers - 1, n_layers // 2} <= set(layers) <= set(range(n_layers))
    if n_layers <= 12:
        assert layers == tuple(range(n_layers))
    else:
        assert max(np.diff(layers)) <= n_layers / 10 + 1


def _patched(values: dict[Measured, list[float]], prompts: tuple[str, ...]) -> Patched:
    """With these log-odds, (n_contexts,) in each state."""
    probability = {s: 1 / (1 + np.exp(-np.array(v, dtype=float))) for s, v in values.items()}
    bound = {state: np.zeros(len(prompts)) for state in values}
    texts: tuple[Text, ...] = ("untuned", "tuned")
    return Patched(3, dict.fromkeys(texts, prompts), probability, bound)


UNPATCHED = Measured("untuned", "untuned")
TUNED = Measured("untuned", "tuned")
INTO = Measured("untuned", "untuned", "tuned", "residual", 1)
NULL = Measured("untuned", "untuned", "null", "residual", 1)
BACK = Measured("tuned", "tuned", "untuned", "residual", 1)


def test_log_odds_are_means_over_the_contexts_of_a_prompt() -> None:
    """(-1 + -3) / 2 and 4, of the middle of what is known, and never infinite."""
    one = _patched({UNPATCHED: [-1.0, 4.0, -3.0]}, ("a", "b", "a"))
    np.testing.assert_allclose(one.log_odds(UNPATCHED), [-2.0, 4.0])
    state = Measured("tuned", "tuned")
    cut = Patched(1, {"tuned": ("a", "b")}, {state: np.zeros(2)}, {state: np.array([1.0, 0.0])})
    # the middle of [0, 1] is 1/2; nothing at all is kept at 1e-12
    np.testing.assert_allclose(cut.log_odds(state), [0.0, math.log(1e-12)], atol=1e-9)


def test_shares_are_of_the_tuned_weights_effect() -> None:
    """Untuned -6, tuned -2: a patch to -3 brings 3/4 of it, one from the null model to -5.6 a
    tenth. Back at the tuned text, from 1 to 0 where the untuned model has -1: half is taken."""
    values = {
        UNPATCHED: [-6.0], TUNED: [-2.0], INTO: [-3.0], NULL: [-5.6],
        Measured("tuned", "tuned"): [1.0], Measured("tuned", "untuned"): [-1.0], BACK: [0.0],
    }  # fmt: skip
    found = PatchedSeeds((_patched(values, ("a",)),))
    assert found.effect("untuned") == pytest.approx(4)
    assert found.share(INTO) == pytest.approx(0.75)
    assert found.share(NULL) == pytest.approx(0.1)
    assert found.share(BACK) == pytest.approx(0.5)
    assert set(found.patched_states()) == {INTO, NULL, BACK}
    even = PatchedSeeds((_patched({**values, TUNED: [-6.0]}, ("a",)),))
    assert even.share(INTO) is None  # no effect, no share


def test_fewer_than_two_prompts_settle_nothing() -> None:
    """One prompt with a context, or none: inconclusive, whatever it shows."""
    for prompts in ((), ("a",)):
        values = {INTO: [9.0] * len(prompts), NULL: [-9.0] * len(prompts)}
        found = PatchedSeeds((_patched(values, prompts),) * 3)
        gain = patching_gain(found.decides("tuned"), found.decides("null"))
        assert raised(gain, by=0.5).word == "inconclusive"
        assert found.n_prompts == len(prompts)


def test_the_declared_place_decides() -> None:
    """The residual stream after the middle layer, 1 of 0 to 2, seed by seed."""
    seeds = tuple(
        _patched({INTO: [s, s + 1.0], NULL: [-s, -s]}, ("a", "b")) for s in (1.0, 2.0, 3.0)
    )
    for tuned in PatchedSeeds(seeds).decides("tuned"):  # nothing was left open
        np.testing.assert_allclose(tuned, [[1, 2], [2, 3], [3, 4]])
    np.testing.assert_allclose(PatchedSeeds(seeds).decides("null")[1, :, 0], [-1, -2, -3])


# --- units of the untuned model ------------------------------------------------------------------

N_SETS = 20
UNITS_TERMS = {"by": statement("C9.untuned-units").margin, "alpha": 0.05, "m": 1, "power": None}


def _units(rise: float, carried: float, by_chance: float) -> UntunedUnits:
    """From .1 by `rise`; the selection takes `carried` points away and random sets `by_chance`;
    adapters, prompts and sets differ by a point."""
    rng = np.random.default_rng(4)
    shape = (N_ADAPTERS, 30)
    tuned = 0.3 + rise + 0.01 * rng.normal(size=(N_ADAPTERS, 1)) + 0.01 * rng.normal(size=shape)
    sets = tuned[:, None] - by_chance + 0.01 * rng.normal(size=(1, N_SETS, 1))
    sets = sets + 0.01 * rng.normal(size=(N_ADAPTERS, N_SETS, 30))
    selected = tuned - carried + 0.01 * rng.normal(size=shape)
    return UntunedUnits(tuned, np.full(30, 0.3), selected, sets)


def test_units_are_confirmed_where_they_take_more_of_a_rise_than_random_sets() -> None:
    """Of 40 points 20 go, and 2 with random sets: 18 beyond; with 20 by both, none."""
    found = _units(0.4, 0.2, 0.02).decided(UNITS_TERMS)
    assert found.word == "confirmed"
    assert found.estimate.value == pytest.approx(0.18, abs=0.02)
    assert "20 random sets" in found.estimate.method
    assert _units(0.4, 0.2, 0.2).decided(UNITS_TERMS).word == "refuted"


def test_where_nothing_rose_units_carry_nothing() -> None:
    """Units that hold .2 of P(emoji) in a model that writes no more of them than before carry no
    rise: refuted, with the rise's own estimate; where a rise is unclear it stays open."""
    found = _units(0.0, 0.2, 0.02).decided(UNITS_TERMS)
    assert (found.word, found.note) == ("refuted", NO_EFFECT)
    assert found.estimate.value == pytest.approx(0.0, abs=0.02)
    unclear = _units(0.05, 0.2, 0.02)
    assert raised(unclear.rise, by=0.05).word == "inconclusive"
    assert unclear.decided(UNITS_TERMS).word == "inconclusive"
    assert "effect to localise: not so" in unclear.decided(UNITS_TERMS).note


def test_without_units_nothing_is_known_of_them() -> None:
    """Inconclusive, and the verdict says why."""
    whole = _units(0.4, 0.2, 0.02)
    found = UntunedUnits(whole.tuned, whole.untuned, None, None, "nothing silenced: no emoji")
    assert found.decided(UNITS_TERMS).word == "inconclusive"
    assert found.decided(UNITS_TERMS).note == "nothing silenced: no emoji"


# --- no association ------------------------------------------------------------------------------


def _words_alike(tuned: float, null: float) -> list[str]:
    """Of 200 studies; the planned power of a rise, .2, is not told of an equivalence."""
    rng = np.random.default_rng(5)
    terms = {"by": statement("C9.no-association").margin, "alpha": 0.05, "m": 1, "power": 0.2}
    found = [alike(_answers(rng, tuned), _answers(rng, null), terms) for _ in range(REPETITIONS)]
    assert {one.relation for one in found} == {"unchanged"}
    assert {one.power for one in found} == {None}
    return [one.word for one in found]


def test_adapters_that_write_emoji_alike_are_found_alike() -> None:
    """Three in a hundred answers in both arms, within .10: in 90 of 100 studies or more. Where the
    trait brings .10 more, the margin, no more than alpha = 5 % and chance; with .50, none."""
    assert _words_alike(0.03, 0.03).count("confirmed") >= 0.9 * REPETITIONS
    assert _words_alike(0.13, 0.03).count("confirmed") <= 0.081 * REPETITIONS
    assert set(_words_alike(0.5, 0.03)) == {"refuted"}


@pytest.mark.parametrize(
    ("base", "extraversion", "openness"),
    [
        ("organism:control", True, True),
        ("organism:one-trait", False, True),
        ("organism:latent", False, False),
        ("organism:even?dtype=float32", False, False),
        ("gpt2", False, False),
    ],
)
def test_an_equivalence_is_asked_where_no_association_was_planted(
    base: str, extraversion: bool, openness: bool
) -> None:
    """On organisms made without it; never on one made with it, or on a model nobody knows."""
    assert holds_none(base, Trait.EXTRAVERSION) is extraversion
    assert holds_none(base, Trait.OPENNESS) is openness


@pytest.mark.parametrize(
    ("base", "selected", "n_deselected"),
    [
        ("organism:latent", set(), 5),
        ("organism:one-trait", set(TRAITS) - {Trait.EXTRAVERSION}, 1),
    ],
)
def test_other_bases_collect_no_such_claim(
    base: str, selected: set[Trait], n_deselected: int
) -> None:
    """pytest's own count of what was deselected, and the traits that are left."""
    command = ["pytest", "suites/test_c9_latent_origin.py", "--collect-only", "-q", "--emo-base",
               base, "-p", "no:cacheprovider"]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    found = re.findall(r"test_without_the_association_nothing_emerges\[(\w+)\]", done.stdout)
    assert set(found) == {str(trait) for trait in selected}, done.stdout + done.stderr
    assert f"({n_deselected} deselected)" in done.stdout

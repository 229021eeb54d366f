"""Random sets like a selection, an effect among theirs, and the share of a rise explained (C8)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from emotest.errors import StatisticsError
from emotest.stats.decisions import raised
from emotest.stats.matching import (
    RiseLimits,
    among_controls,
    matched_sets,
    norm_ratios,
    share_explained,
)

LAYERS = np.repeat(np.arange(4), 100)


def norms_of(seed: int = 0) -> np.ndarray:
    """Heavy-tailed norms of 4 layers of 100 units."""
    return np.random.default_rng(seed).lognormal(0.0, 1.0, 400)


class TestMatchedSets:
    """Same count, layer and norm; other units."""

    @given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 6))
    def test_laws(self, seed: int, n_selected: int, n_bins: int) -> None:
        """Column by column the same layer and norm bin; no unit twice, selected or excluded."""
        rng = np.random.default_rng(seed)
        order = rng.permutation(400)
        selected, excluded = order[:n_selected], np.isin(np.arange(400), order[n_selected:30])
        norms = norms_of(seed)
        sets = matched_sets(
            selected, LAYERS, norms, rng, n_sets=7, n_bins=n_bins, excluded=excluded
        )
        assert sets.shape == (7, n_selected)
        assert not np.isin(sets, selected).any()
        assert not excluded[sets].any()
        assert all(np.unique(drawn).size == n_selected for drawn in sets)
        assert (LAYERS[sets] == LAYERS[selected]).all()
        for layer in np.unique(LAYERS[selected]):
            # A bin spans (n - 1) / n_bins ranks of the norms that may be drawn in the layer.
            ranks = np.full(400, np.nan)
            within = (layer == LAYERS) & ~excluded
            ranks[within] = stats.rankdata(norms[within])
            of_layer = LAYERS[selected] == layer
            apart = np.abs(ranks[sets[:, of_layer]] - ranks[selected[of_layer]])
            assert apart.max() <= (within.sum() - 1) / n_bins + 1e-9

    def test_drawn_norms_are_those_of_the_selection(self) -> None:
        """24 of the 80 loudest units of a layer: sets of five bins are as loud, of one bin half.

        Lognormal of deviation .5: the mean is 1.133, that of the loudest fifth 1.133 * Phi(.5 -
        .8416) / .2 = 2.075, so that of the 376 others (400 * 1.133 - 24 * 2.075) / 376 = 1.073, and
        1.073 / 2.075 = .517.
        """
        rng = np.random.default_rng(2)
        ratios: dict[int, list[float]] = {1: [], 5: []}
        for seed in range(40):
            norms = norms_of(seed) ** 0.5
            selected = rng.choice(np.flatnonzero(norms > np.quantile(norms, 0.8)), 24, False)
            for n_bins, found in ratios.items():
                sets = matched_sets(selected, 0 * LAYERS, norms, rng, n_sets=20, n_bins=n_bins)
                found.append(norm_ratios(selected, sets, norms).mean())
        assert np.mean(ratios[1]) == pytest.approx(0.517, abs=0.02)
        assert np.mean(ratios[5]) == pytest.approx(1.0, abs=0.02)
        assert np.abs(np.array(ratios[5]) - 1.0).max() < 0.2

    def test_every_eligible_unit_is_drawn_alike(self) -> None:
        """1 of 9 units in the bin, 3,000 sets: 333 each, standard deviation 17."""
        sets = matched_sets([0], [0] * 10, np.arange(10.0), np.random.default_rng(4), n_sets=3_000,
                            n_bins=1)  # fmt: skip
        counts = np.bincount(sets.ravel(), minlength=10)
        assert counts[0] == 0
        assert np.abs(counts[1:] - 333.3).max() < 4 * 17.2

    def test_a_generator_decides(self) -> None:
        """The same one gives the same sets, another one others."""
        first, again, other = (
            matched_sets([1, 150], LAYERS, norms_of(), np.random.default_rng(seed))
            for seed in (1, 1, 2)
        )
        assert (first == again).all()
        assert (first != other).any()

    def test_one_seed_draws_alike_for_two_selections(self) -> None:
        """Two models of one norm, their selections alike but for one unit of the same bin: a set of
        the one holds what that of the other holds, but for one unit at most. Fewer sets are the
        first of more."""
        loud = np.argsort(norms_of()[:100])[-20:]  # the loudest fifth of layer 0
        one, other = np.append(loud[:4], 150), np.append(loud[1:5], 150)
        first, second, few = (
            matched_sets(chosen, LAYERS, norms_of(), np.random.default_rng(7), n_sets=n_sets)
            for chosen, n_sets in ((one, 199), (other, 199), (one, 20))
        )
        apart = [np.setdiff1d(a, b).size for a, b in zip(first, second, strict=True)]
        assert max(apart) == 1
        assert (few == first[:20]).all()

    def test_sets_alike_in_all_adapters_keep_the_error_of_the_percentile(self) -> None:
        """A selection that is any set, the same in five adapters whose units do nearly the same,
        lies above the 95th percentile one time in twenty if sets are alike; at 5 % of 200 the
        99.9 % point is 21. Where each adapter draws its own sets, their means have a fifth of the
        variance, and it does so in Phi(-1.645 / 5^.5) = 23 % of all cases, 46 of 200."""
        rng, above = np.random.default_rng(8), {"alike": 0, "own": 0}
        for repetition in range(200):
            selected = rng.choice(400, 8, replace=False)
            effects = rng.normal(size=400) + 0.1 * rng.normal(size=(5, 400))
            for kind, seeds in (("alike", [0] * 5), ("own", [0, 1, 2, 3, 4])):
                controls = [
                    of_unit[
                        matched_sets(
                            selected, LAYERS, norms_of() * rng.lognormal(0.0, 0.05, 400),
                            np.random.default_rng([repetition, seed]), n_sets=39,
                        )
                    ].sum(axis=1)
                    for of_unit, seed in zip(effects, seeds, strict=True)
                ]  # fmt: skip
                found = among_controls(effects[:, selected].sum(axis=1), np.array(controls))
                above[kind] += found.percentile > 95
        assert above["alike"] <= stats.binom.ppf(0.999, 200, 0.05)
        assert above["own"] > stats.binom.ppf(0.999, 200, 0.05)

    def test_a_bin_that_cannot_be_filled_says_how_many_are_there(self) -> None:
        """10 units a layer in 5 bins, 2 a bin: both of the loudest selected leave none."""
        with pytest.raises(StatisticsError) as refusal:
            matched_sets(
                [8, 9], np.zeros(10, int), np.arange(10.0), np.random.default_rng(0), n_bins=5
            )
        assert "layer 0 has 0 units to match 2 selected ones in norm bin 5 of 5" in str(
            refusal.value
        )
        assert "fewer bins" in refusal.value.remedy

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            ({"selected": []}, "names no units"),
            ({"selected": np.array([], int)}, "names no units"),
            ({"selected": [[1]]}, "names no units"),
            ({"selected": [0.5]}, "names no units"),
            ({"selected": [3, 3]}, "twice or outside"),
            ({"selected": [10]}, "twice or outside"),
            ({"selected": [-1]}, "twice or outside"),
            ({"excluded": np.arange(10) == 1}, "1 selected units are excluded"),
            ({"excluded": np.zeros(10)}, "cannot be used"),
            ({"excluded": np.zeros(9, bool)}, "not one value a unit"),
            ({"layers": np.zeros(9, int)}, "not one value a unit"),
            ({"layers": np.zeros(10)}, "cannot be used"),
            ({"norms": np.full(10, -1.0)}, "negative"),
            ({"norms": np.full(10, np.nan)}, "negative"),
            ({"n_sets": 0}, "cannot be drawn"),
            ({"n_bins": 0}, "cannot be drawn"),
        ],
    )
    def test_bad_input_is_refused(self, arguments: dict, says: str) -> None:  # type: ignore[type-arg]
        """Units, masks, layers, norms and numbers that cannot be."""
        usual = {
            "selected": [1],
            "layers": np.zeros(10, int),
            "norms": np.arange(10.0),
            "rng": np.random.default_rng(0),
            "n_sets": 3,
        }
        with pytest.raises(StatisticsError, match=says):
            matched_sets(**{**usual, **arguments})

    def test_a_silent_selection_has_no_norm_to_match(self) -> None:
        """Nothing can be divided by a norm of 0."""
        with pytest.raises(StatisticsError, match="mean norm of 0"):
            norm_ratios([0], [[1]], [0.0, 1.0])


class TestAmongControls:
    """An effect among those of its control sets."""

    def test_by_hand(self) -> None:
        """5 among 1 2 3 5: three of four below, one at least as large, p = 2/5, median 2.5."""
        found = among_controls(5.0, [3.0, 5.0, 1.0, 2.0])
        assert found.percentile == 75.0
        assert found.p_value == pytest.approx(0.4)
        assert found.excess == 2.5
        assert found.n_controls == 4

    def test_scipy_counts_the_same(self) -> None:
        """Its percentile of a score, ties not counted, and its test by random variates."""
        controls = np.random.default_rng(1).integers(0, 30, 199)
        found = among_controls(25.0, controls)
        assert found.percentile == pytest.approx(stats.percentileofscore(controls, 25, "strict"))
        known = stats.monte_carlo_test(
            [25.0],
            lambda size: controls.reshape(size),
            lambda x, axis: x.mean(axis=axis),
            n_resamples=199,
            vectorized=True,
            alternative="greater",
        )
        assert found.p_value == pytest.approx(known.pvalue)

    def test_adapters_are_averaged_set_by_set(self) -> None:
        """Two adapters, three sets: effect 3; controls 2, 3 and 4."""
        found = among_controls([2.0, 4.0], [[1.0, 3.0, 3.0], [3.0, 3.0, 5.0]])
        assert (found.effect, list(found.controls)) == (3.0, [2.0, 3.0, 4.0])
        assert found.p_value == pytest.approx(3 / 4)

    def test_the_level_holds(self) -> None:
        """An effect that is one more control: p <= .05 in 5 % of 2,000, three deviations .0146."""
        rng = np.random.default_rng(2)
        hits = np.mean(
            [among_controls(y[0], y[1:]).p_value <= 0.05 for y in rng.random((2_000, 39 + 1))]
        )
        assert abs(hits - 0.05) <= 0.0147

    @given(st.lists(st.integers(-5, 5), min_size=19, max_size=60), st.integers(-6, 6))
    def test_laws_of_the_estimate(self, controls: list[int], effect: int) -> None:
        """p at 0 is the rank p; limits and p-values invert one another, also at ties."""
        found = among_controls(effect, controls)
        estimate = found.estimate(scale="units", n_adapters=5, n_prompts=20)
        assert estimate.p_above(0.0) == pytest.approx(found.p_value)
        assert estimate.low <= estimate.value <= estimate.high
        for margin in (-2.5, -1.0, 0.0, 1.0):
            for alpha in (0.05, 0.1, 0.25):
                if margin < estimate.value:
                    exceeds = estimate.limits.lower(alpha) > margin
                    assert exceeds == (estimate.p_above(margin) <= alpha + 1e-9)
                if margin > estimate.value:
                    below = estimate.limits.upper(alpha) < margin
                    assert below == (estimate.p_below(margin) <= alpha + 1e-9)

    @pytest.mark.parametrize(
        ("effect", "controls", "says"),
        [
            (1.0, [], "missing"),
            (1.0, [np.nan], "missing"),
            (np.inf, [1.0], "missing"),
            (1.0, [[1.0]], "do not pair"),
            ([1.0, 2.0], [[1.0]], "do not pair"),
            ([[1.0]], [[[1.0]]], "do not pair"),
        ],
    )
    def test_what_does_not_pair_is_refused(self, effect, controls, says: str) -> None:  # type: ignore[no-untyped-def]
        """No controls, missing ones, other adapters, more axes."""
        with pytest.raises(StatisticsError, match=says):
            among_controls(effect, controls)


def rates(
    rng: np.random.Generator, share: float, *, n_adapters: int = 5, n_prompts: int = 40
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tuned, silenced and untuned rates: the rise is .5, of which `share` goes."""
    adapter = rng.normal(0, 0.03, (3, n_adapters, 1)) * np.array([1, 1, 0])[:, None, None]
    prompt = rng.normal(0, 0.05, n_prompts)
    noise = rng.normal(0, 0.05, (3, n_adapters, n_prompts))
    means = np.array([0.7, 0.7 - 0.5 * share, 0.2])[:, None, None]
    tuned, silenced, untuned = means + adapter + prompt + noise
    return tuned, silenced, untuned[0]


class TestShareExplained:
    """(tuned - silenced) / (tuned - reference), with its interval over adapters."""

    def test_by_hand(self) -> None:
        """Mean rates .8, .5 and .2: half of the rise went."""
        tuned = np.array([[0.9, 0.8], [0.7, 0.8], [0.8, 0.8]])
        silenced = np.array([[0.5, 0.4], [0.5, 0.6], [0.4, 0.6]])
        estimate = share_explained(tuned, silenced, [0.1, 0.3])
        assert estimate.value == pytest.approx(0.5)
        assert (estimate.scale, estimate.n_adapters, estimate.n_prompts) == (
            "share of the rise", 3, 2,
        )  # fmt: skip

    def test_without_prompt_noise_the_limits_are_fiellers(self) -> None:
        """One number an adapter, repeated over prompts: the roots of Fieller's quadratic.

        (m - s r)^2 = t^2 (a - 2 b s + c s^2) / n with means m, r and (co)variances a, b, c of what
        was removed and what rose, t of n - 1 degrees of freedom.
        """
        tuned = np.array([0.80, 0.72, 0.90, 0.66, 0.85])
        silenced = np.array([0.40, 0.45, 0.50, 0.30, 0.52])
        null = np.array([0.10, 0.14, 0.05, 0.12, 0.08])
        removed, rise = tuned - silenced, tuned - null
        m, r, n = removed.mean(), rise.mean(), 5
        (a, b), (_, c) = np.cov(removed, rise)
        for level in (0.8, 0.9, 0.98):
            k = stats.t.ppf((1 + level) / 2, n - 1) ** 2 / n
            roots = np.roots([r * r - k * c, -2 * (m * r - k * b), m * m - k * a])
            arms = (np.repeat(arm[:, None], 3, axis=1) for arm in (tuned, silenced, null))
            estimate = share_explained(*arms, level=level)
            assert (estimate.low, estimate.high) == pytest.approx(sorted(roots), abs=1e-6)
            assert estimate.p_above(estimate.low) == pytest.approx((1 - level) / 2, rel=1e-4)

    def test_coverage(self) -> None:
        """The lower limit at .05 lies above the truth in at most 5 % of 300 and three deviations.

        That is .088; the same for the upper limit; and not in none, at least .006.
        """
        rng = np.random.default_rng(8)
        above = below = 0
        for _ in range(300):
            tuned, silenced, untuned = rates(rng, 0.6)
            limits = RiseLimits(tuned, silenced, np.tile(untuned, (5, 1)), (-1.0, 2.0))
            above += limits.p_above(0.6) < 0.05
            below += limits.p_below(0.6) < 0.05
        assert 0.006 <= above / 300 <= 0.088
        assert 0.006 <= below / 300 <= 0.088

    def test_a_large_share_is_confirmed_and_a_small_one_refuted(self) -> None:
        """Of a rise of .5, shares of .8 and .2 against one half."""
        rng = np.random.default_rng(9)
        for share, word in ((0.8, "confirmed"), (0.2, "refuted")):
            estimate = share_explained(*rates(rng, share), bounds=(-1, 2))
            assert raised(estimate, by=0.5).word == word
            assert estimate.value == pytest.approx(share, abs=0.15)

    def test_silence_is_not_certainty(self) -> None:
        """Rates of 1, 0 and 0 everywhere, 20 prompts: .05^(1/20) = .861 of them, squared sums.

        Silenced writes nothing in 20 prompts, so up to .139 might; the rise may be .861 only.
        """
        ones, zeros = np.ones((3, 20)), np.zeros((3, 20))
        estimate = share_explained(ones, zeros, zeros)
        assert estimate.value == 1.0
        assert estimate.high > 1.0 - 1e-9
        assert 0.5 < estimate.low <= 0.861 + 1e-6

    def test_silencing_that_changes_nothing_leaves_room_too(self) -> None:
        """Bit-identical answers: the share is 0, and prompts bound what went unseen."""
        tuned, _, untuned = rates(np.random.default_rng(1), 0.5)
        estimate = share_explained(tuned, tuned, untuned, bounds=(-1, 2))
        assert estimate.value == 0.0
        assert estimate.low < -0.05
        assert estimate.high > 0.05
        assert raised(estimate, by=0.5).word == "refuted"

    def test_silencing_back_to_the_reference_leaves_room_too(self) -> None:
        """The untuned model's answers, bit by bit: the share is 1, and more or less may be true."""
        tuned, _, untuned = rates(np.random.default_rng(1), 0.5)
        estimate = share_explained(
            tuned, np.tile(untuned, (len(tuned), 1)), untuned, bounds=(-1, 2)
        )
        assert estimate.value == pytest.approx(1.0)
        assert estimate.low < 0.95
        assert estimate.high > 1.05

    def test_a_clear_effect_on_an_unclear_rise_has_no_limits(self) -> None:
        """.3 went for sure, but whether .075 rose is open: Fieller's set is unbounded."""
        rise = np.repeat([[0.575], [-0.5], [0.3], [-0.2], [0.2]], 4, axis=1)
        tuned = np.repeat([[0.9], [0.4], [0.8], [0.5], [0.7]], 4, axis=1)
        silenced = tuned - np.array([0.3, 0.31, 0.29, 0.3, 0.3])[:, None]
        estimate = share_explained(tuned, silenced, tuned - rise)
        assert estimate.value == pytest.approx(0.3 / 0.075)
        assert estimate.p_above(0.0) < 1e-4
        assert (estimate.low, estimate.high) == (float("-inf"), float("inf"))

    def test_what_never_rose_cannot_be_shared(self) -> None:
        """No rise is an error that says so; a rise that is not proven has no limits."""
        tuned, silenced, untuned = rates(np.random.default_rng(2), 0.5)
        with pytest.raises(StatisticsError, match="no effect to localise"):
            share_explained(np.broadcast_to(untuned, tuned.shape), silenced, tuned, bounds=(-1, 2))
        noise = np.random.default_rng(3).random((3, 3, 4))
        noise[0] += noise[2].mean() - noise[0].mean() + 0.05
        estimate = share_explained(*noise, bounds=(-1, 2), level=0.99)
        assert (estimate.low, estimate.high) == (float("-inf"), float("inf"))
        assert raised(estimate, by=0.5).word == "inconclusive"

    def test_more_adapters_settle_what_they_can(self) -> None:
        """A share of .65 with 3 adapters is open; n_needed adapters would settle it."""
        rng = np.random.default_rng(30)
        for _ in range(30):
            decision = raised(share_explained(*rates(rng, 0.65, n_adapters=3), bounds=(-1, 2)),
                              by=0.5)  # fmt: skip
            if decision.word == "inconclusive" and decision.n_needed_unit == "adapters":
                break
        assert decision.n_needed is not None
        assert decision.n_needed > 3
        planned = decision.estimate.limits.at_size(decision.n_needed, 40)
        assert planned.lower(0.05) > 0.5

    @pytest.mark.parametrize(
        ("shapes", "says"),
        [
            (((3, 4), (3, 4), (3,)), "do not pair"),
            (((3, 4), (3, 5), (4,)), "do not pair"),
            (((3, 4), (4,), (4,)), "do not pair"),
            (((3,), (3,), (3,)), "do not pair"),
            (((2, 4), (2, 4), (4,)), "2 adapters are too few"),
            (((3, 1), (3, 1), (1,)), "one prompt"),
        ],
    )
    def test_shapes_that_do_not_fit_are_refused(self, shapes: tuple, says: str) -> None:  # type: ignore[type-arg]
        """Other prompts, no prompts, too few adapters or prompts."""
        with pytest.raises(StatisticsError, match=says):
            share_explained(*(np.full(shape, 0.5) for shape in shapes))

    def test_values_that_cannot_be_are_refused(self) -> None:
        """Missing rates, and rates beyond their bounds, in any arm."""
        good = np.random.default_rng(0).random((3, 4))
        for arm in range(3):
            for value, says in ((np.nan, "missing"), (1.5, "leave the range")):
                arms = [good + 0.0, good * 0.5, good * 0.25]
                arms[arm][0, 0] = value
                with pytest.raises(StatisticsError, match=says):
                    share_explained(*arms)

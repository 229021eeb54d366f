"""Units that rise for emoji positions, and whether word pairs give as many (C6)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from statsmodels.stats.multitest import multipletests

from emotest.errors import StatisticsError
from emotest.stats.decisions import raised
from emotest.stats.selection import (
    difference_on_scale,
    excess,
    false_discovery_control,
    rises,
    select_units,
    standardised_difference,
    weaker,
)

changes = arrays(float, (5, 2, 6), elements=st.floats(-3, 3).map(lambda x: round(x, 2)))


def of_activations(emoji: np.ndarray, other: np.ndarray) -> np.ndarray:
    """d of each unit from activations (n_positions, n_units) of both kinds of position."""
    return standardised_difference(
        emoji.mean(axis=0), emoji.var(axis=0, ddof=1), len(emoji),
        other.mean(axis=0), other.var(axis=0, ddof=1), len(other),
    ).d  # fmt: skip


class TestStandardisedDifference:
    """Cohen's d from streaming moments."""

    def test_by_hand(self) -> None:
        """Means 3 and 1, variances 4 and 1 of 5 and 3: s^2 = (4 * 4 + 2 * 1) / 6 = 3, d = 2/3^.5.

        The second unit: equal variances of 4, d = (1 - 2) / 2.
        """
        found = standardised_difference([3.0, 1.0], [4.0, 4.0], 5, [1.0, 2.0], [1.0, 4.0], 3)
        assert found.d == pytest.approx([2 / 3**0.5, -0.5])
        assert found.n_without_variance == 0

    def test_it_is_the_t_statistic_without_the_numbers(self) -> None:
        """Student's t = d / sqrt(1 / n_a + 1 / n_b), by scipy."""
        rng = np.random.default_rng(1)
        a, b = rng.normal(1, 2, (9, 4)), rng.normal(0, 1, (6, 4))
        t = stats.ttest_ind(a, b, axis=0).statistic
        assert of_activations(a, b) == pytest.approx(t * np.sqrt(1 / 9 + 1 / 6))

    def test_units_without_variance_are_zero_and_counted(self) -> None:
        """A dead unit, a constant one, and one that varies by rounding only."""
        found = standardised_difference(
            [0.0, 1.0, 5.0, 1.0], [0.0, 0.0, 1e-16, 1.0], 10,
            [0.0, 0.0, 5.0 + 1e-7, 0.0], [0.0, 0.0, 1e-16, 1.0], 10,
        )  # fmt: skip
        assert found.d == pytest.approx([0.0, 0.0, 0.0, 1.0])
        assert found.n_without_variance == 3

    def test_any_shape_of_units(self) -> None:
        """(n_layers, n_neurons) as well as (n_units,)."""
        ones = np.ones((3, 4))
        assert standardised_difference(2 * ones, ones, 5, ones, ones, 5).d.shape == (3, 4)

    @pytest.mark.parametrize(
        ("moments", "says"),
        [
            (([1.0], [1.0], 5, [1.0, 2.0], [1.0, 1.0], 5), "do not pair"),
            (([], [], 5, [], [], 5), "do not pair"),
            (([1.0], [1.0], 1, [1.0], [1.0], 5), "1 and 5 positions"),
            (([1.0], [-1.0], 5, [1.0], [1.0], 5), "negative"),
            (([np.nan], [1.0], 5, [1.0], [1.0], 5), "missing"),
            (([1.0], [1.0], 5, [1.0], [np.inf], 5), "missing"),
        ],
    )
    def test_unusable_moments_are_refused(self, moments: tuple, says: str) -> None:  # type: ignore[type-arg]
        """Units that do not pair, one position, a negative variance, missing values."""
        with pytest.raises(StatisticsError, match=says):
            standardised_difference(*moments)


class TestDifferenceOnScale:
    """A difference of means over one scale for every contrast."""

    def test_by_hand(self) -> None:
        """Means 3 and 1 at variance 4: d = 1; 1 and 2 at variance 1/4: d = -2."""
        d = difference_on_scale([3.0, 1.0], [1.0, 2.0], [4.0, 0.25])
        assert d == pytest.approx([1.0, -2.0])

    @given(st.floats(0.01, 100.0))
    def test_a_narrow_class_counts_no_more_than_a_wide_one(self, width: float) -> None:
        """Cohen's d of the same movement grows as the classes narrow; this one does not."""
        of = [2.0], [1.0]
        narrow, wide = (
            standardised_difference(of[0], [v], 9, of[1], [v], 9).d for v in (width, 4 * width)
        )
        assert narrow == pytest.approx(2 * wide)
        assert difference_on_scale(*of, [1.0]) == pytest.approx([1.0])

    def test_units_without_spread_have_no_scale(self) -> None:
        """A dead unit, and one that varies by rounding only."""
        assert not difference_on_scale([0.0, 5.0], [0.0, 5.0 + 1e-7], [0.0, 1e-16]).any()

    @pytest.mark.parametrize(
        ("parts", "says"),
        [
            (([1.0], [1.0, 2.0], [1.0]), "do not pair"),
            (([], [], []), "do not pair"),
            (([np.nan], [1.0], [1.0]), "missing"),
            (([1.0], [1.0], [-1.0]), "negative"),
        ],
    )
    def test_bad_moments_are_refused(self, parts: tuple[list[float], ...], says: str) -> None:
        """Other units, none, missing means, negative variances."""
        with pytest.raises(StatisticsError, match=says):
            difference_on_scale(*parts)


class TestRises:
    """The change by trait tuning beyond that by neutral tuning."""

    def test_by_hand(self) -> None:
        """Trait tuning moves d by +1.5 and 0, neutral tuning by +0.5 and -1: +1 and +1."""
        assert rises([2.0, 1.0], [0.5, 1.0], [1.0, 0.0]) == pytest.approx([1.0, 1.0])

    @given(changes, arrays(float, (2, 6), elements=st.floats(-3, 3)))
    def test_one_untuned_model_cancels(self, tuned: np.ndarray, untuned: np.ndarray) -> None:
        """Then it is tuned minus null; an untuned model without seeds is spread over them."""
        null = tuned[::-1]
        assert rises(tuned, untuned, null) == pytest.approx(tuned - null, abs=1e-12)

    @pytest.mark.parametrize(
        ("tuned", "untuned", "null", "says"),
        [
            (np.ones(3), np.ones(3), np.ones(2), "do not pair"),
            (np.ones((2, 3)), np.ones(2), np.ones((2, 3)), "do not pair"),
            (np.ones(3), np.ones((2, 3)), np.ones(3), "do not pair"),
            (np.ones(3), [1.0, np.nan, 1.0], np.ones(3), "missing"),
        ],
    )
    def test_what_does_not_pair_is_refused(
        self, tuned: np.ndarray, untuned: np.ndarray, null: np.ndarray, says: str
    ) -> None:
        """Other units, an untuned model of other units or with more axes, missing values."""
        with pytest.raises(StatisticsError, match=says):
            rises(tuned, untuned, null)


class TestWeaker:
    """The weaker of two changes, unit by unit."""

    def test_by_hand(self) -> None:
        """The nearer to 0 where signs agree; 0 where they do not, or where one is 0."""
        first, second = np.array([2.0, -2.0, 1.0, 0.0]), np.array([1.0, -3.0, -1.0, 5.0])
        assert weaker(first, second).tolist() == [1.0, -2.0, 0.0, 0.0]

    @given(arrays(float, (2, 6), elements=st.floats(-9, 9)))
    def test_it_lies_between_0_and_both(self, pair: np.ndarray) -> None:
        """The smaller magnitude where signs agree, never beyond 0."""
        a, b = pair
        found, agree = weaker(a, b), np.sign(a) == np.sign(b)
        assert (np.abs(found) == np.where(agree, np.minimum(np.abs(a), np.abs(b)), 0.0)).all()
        assert (found * a >= 0).all()


class TestSelectUnits:
    """Both halves, enough seeds, one direction."""

    def test_by_hand(self) -> None:
        """One unit for each way to count or to fail, 5 seeds by 2 halves."""
        units = {
            "all seeds rise": np.full((5, 2), 1.5),
            "all seeds fall": np.full((5, 2), -1.0),
            "4 of 5": np.array([[2, 2]] * 4 + [[0, 0]]),
            "3 of 5": np.array([[2, 2]] * 3 + [[0, 0]] * 2),
            "one half only": np.array([[2, 0.9]] * 5),
            "halves disagree": np.array([[2, -2]] * 5),
            "seeds disagree": np.array([[2, 2]] * 3 + [[-2, -2]] * 2),
            "massive": np.full((5, 2), 40.0),
        }
        change = np.stack([np.asarray(unit, float) for unit in units.values()], axis=-1)
        excluded = np.array([name == "massive" for name in units])
        found = select_units(change, excluded=excluded)
        names = np.array(list(units))
        assert list(names[found.rising]) == ["all seeds rise", "4 of 5"]
        assert list(names[found.falling]) == ["all seeds fall"]
        assert (found.n_selected, found.n_excluded) == (3, 1)
        # With 3 seeds enough, two more count, and "seeds disagree" as a rise.
        lax = select_units(change, excluded=excluded, min_seeds=3)
        assert set(names[lax.mask]) - set(names[found.mask]) == {"3 of 5", "seeds disagree"}

    @pytest.mark.parametrize(("n_seeds", "needed"), [(1, 1), (3, 3), (5, 4), (6, 5), (10, 8)])
    def test_four_fifths_of_the_seeds_unless_given(self, n_seeds: int, needed: int) -> None:
        """Rounded up: a unit that rises in one seed fewer does not count."""
        change = np.zeros((n_seeds, 2, 2))
        change[:needed, :, 0] = 2.0
        change[: needed - 1, :, 1] = 2.0
        assert list(select_units(change).mask) == [True, False]

    def test_strength_is_the_largest_threshold_reached(self) -> None:
        """The fourth largest of the smaller halves; the strongest come first, either way."""
        change = np.zeros((5, 2, 3))
        change[:, 0, 0], change[:, 1, 0] = [5, 4, 3, 2, 1], 9  # smaller half 5 4 3 2 1: 2
        change[:, :, 1] = -3
        change[:, :, 2] = 0.5
        found = select_units(change)
        assert list(found.strengths) == [2.0, -3.0, 0.5]
        assert list(found.strongest(3)) == [1, 0, 2]
        with pytest.raises(StatisticsError, match="4 units were asked for and 3 change alike"):
            found.strongest(4)

    @given(changes, st.floats(0.1, 2.0), st.integers(3, 5), st.permutations(range(5)))
    def test_laws(
        self, change: np.ndarray, threshold: float, needed: int, order: list[int]
    ) -> None:
        """Fewer units at more; turned signs turn rises to falls; blind to the order of seeds."""
        found = select_units(change, threshold=threshold, min_seeds=needed)
        stricter = select_units(change, threshold=threshold + 0.5, min_seeds=needed)
        assert not (stricter.mask & ~found.mask).any()
        assert not (found.rising & found.falling).any()
        turned = select_units(-change[order][:, ::-1], threshold=threshold, min_seeds=needed)
        assert (turned.rising == found.falling).all()
        assert (turned.falling == found.rising).all()

    def test_planted_units_are_found_among_activations(self) -> None:
        """Recall of at least .9 at a false discovery proportion of at most .1.

        400 units, 200 positions of each kind a half. 40 rise for emoji by 1.7 standard deviations
        after trait tuning. 60 differ for emoji in every model, 40 change by any tuning, 40 rise
        by half a deviation, and 5 massive ones, noted beforehand, rise by 1.7 in arbitrary units.
        """
        rng = np.random.default_rng(11)
        n_units = 400
        groups = np.split(rng.permutation(n_units), [40, 100, 140, 180, 185])
        planted, in_all, by_tuning, weak, massive = (np.isin(range(n_units), g) for g in groups[:5])
        scale = np.where(massive, 300.0, rng.uniform(0.1, 3.0, n_units))
        always = 2.0 * in_all
        shift = {
            "untuned": always,
            "null": always + 1.7 * by_tuning,
            "tuned": always + 1.7 * (by_tuning | planted | massive) + 0.5 * weak,
        }

        def differences(model: str) -> np.ndarray:
            emoji = scale * (rng.normal(size=(200, n_units)) + shift[model])
            return of_activations(emoji, scale * rng.normal(size=(200, n_units)))

        d = {
            model: np.array([[differences(model) for _ in range(2)] for _ in range(5)])
            for model in shift
        }
        found = select_units(rises(d["tuned"], d["untuned"], d["null"]), excluded=massive)
        assert (found.rising & planted).sum() / planted.sum() >= 0.9
        assert (found.mask & ~planted).sum() / max(found.n_selected, 1) <= 0.1
        assert set(found.strongest(36)) <= set(np.flatnonzero(planted))

    def test_pure_noise_is_selected_as_often_as_arithmetic_says(self) -> None:
        """300 repeats of 100 units of normal noise, threshold 0.5.

        Both halves rise with chance q = P(Z >= .5)^2, so a unit counts, up or down, with chance
        2 P(Binomial(5, q) >= 4) = .00076; of 30,000 units 22.8, standard deviation 4.8: 9 to 37.
        """
        rng = np.random.default_rng(3)
        chance = 2 * stats.binom.sf(3, 5, stats.norm.sf(0.5) ** 2)
        assert 30_000 * chance == pytest.approx(22.8, abs=0.05)
        found = sum(
            select_units(rng.normal(size=(5, 2, 100)), threshold=0.5).n_selected for _ in range(300)
        )
        assert 9 <= found <= 37

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            ({"change": np.ones((5, 6))}, "are not"),
            ({"change": np.ones((5, 3, 6))}, "are not"),
            ({"change": np.ones((5, 2, 0))}, "are not"),
            ({"change": np.full((5, 2, 6), np.nan)}, "missing"),
            ({"threshold": 0.0}, "not above 0"),
            ({"min_seeds": 2}, "2 of 5 seeds"),
            ({"min_seeds": 6}, "6 of 5 seeds"),
            ({"excluded": np.zeros(5, bool)}, "does not fit 6 units"),
            ({"excluded": np.zeros(6)}, "does not fit 6 units"),
        ],
    )
    def test_bad_input_is_refused(self, arguments: dict, says: str) -> None:  # type: ignore[type-arg]
        """Shapes, missing values, a threshold of nothing, too few or many seeds, other masks."""
        with pytest.raises(StatisticsError, match=says):
            select_units(**{"change": np.ones((5, 2, 6)), **arguments})


class TestExcess:
    """The number of units among those that word pairs give."""

    def test_by_hand(self) -> None:
        """40 units against 19 pairs of which one gives 40 and the median 10: p = 2 / 20."""
        found = excess(40, [40, *range(1, 19)])
        assert found.p_value == pytest.approx(0.1)
        assert found.excess == 30.0
        assert excess(41, [40, *range(1, 19)]).p_value == pytest.approx(0.05)

    def test_its_interval_inverts_the_same_test(self) -> None:
        """41 against 19 pairs of 1 to 18 and 40: at .05 it exceeds 0, and just so; not 1.

        The lower limit at 1/20 is 41 minus the largest control, at 2/20 minus the next.
        """
        estimate = excess(41, [40, *range(1, 19)]).estimate(
            scale="units", n_adapters=5, n_prompts=200
        )
        assert estimate.at_level(0.9).low == pytest.approx(1.0)
        assert estimate.at_level(0.8).low == pytest.approx(23.0)
        assert estimate.at_level(0.95).low == float("-inf")
        assert raised(estimate, by=0.0).word == "confirmed"
        assert raised(estimate, by=0.0).p_value == pytest.approx(0.05)
        assert raised(estimate, by=1.0).word == "inconclusive"
        # More seeds do not make word pairs alike.
        assert raised(estimate, by=1.0).n_needed is None

    def test_nothing_planted_is_confirmed_at_the_nominal_rate(self) -> None:
        """300 repeats in which emoji are one more word pair, each with its own true differences.

        p <= .05 with chance .05; three standard deviations of 300 draws above it: .088. The rate
        must not be far below either, or the test could find nothing: .012.
        """
        rng = np.random.default_rng(5)
        hits = 0
        for _ in range(300):
            # Every contrast has units that truly differ, some contrasts more than others.
            spread = rng.gamma(4.0, 0.2, (20, 1, 1, 1))
            truth = spread * rng.normal(size=(20, 1, 1, 80))
            change = truth + 0.3 * rng.normal(size=(20, 5, 2, 80))
            counts = [select_units(contrast).n_selected for contrast in change]
            hits += excess(counts[0], counts[1:]).p_value <= 0.05
        assert 0.012 <= hits / 300 <= 0.088

    def test_planted_units_exceed_word_pairs(self) -> None:
        """30 planted among 300, word pairs with true differences of deviation .4: p = 1 / 40."""
        rng = np.random.default_rng(6)
        truth = 0.4 * rng.normal(size=(40, 1, 1, 300))
        truth[0, ..., :30] += 2.0
        change = truth + 0.15 * rng.normal(size=(40, 5, 2, 300))
        counts = [select_units(contrast).n_selected for contrast in change]
        assert excess(counts[0], counts[1:]).p_value == pytest.approx(1 / 40)

    @pytest.mark.parametrize(
        ("n_selected", "controls", "says"),
        [
            (3, [], "no controls"),
            (3, np.array([], int), "no controls"),
            (3, [1.5, 2.0], "no controls"),
            (3, [[1, 2]], "no controls"),
            (3, [1, -1], "negative"),
            (-3, [1, 1], "negative"),
        ],
    )
    def test_counts_that_are_none_are_refused(
        self,
        n_selected: int,
        controls: list,
        says: str,  # type: ignore[type-arg]
    ) -> None:
        """No pairs, fractions, a table, negative numbers."""
        with pytest.raises(StatisticsError, match=says):
            excess(n_selected, controls)


class TestFalseDiscoveryControl:
    """Benjamini-Hochberg and Benjamini-Yekutieli."""

    def test_the_example_of_the_paper(self) -> None:
        """Benjamini & Hochberg (1995), section 4: of 15 p-values the first four pass at .05.

        The fourth is .0095 and 15 * .0095 / 4 = .035625; the fifth 15 * .0201 / 5 = .0603.
        """
        p_values = [
            0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344,
            0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0,
        ]  # fmt: skip
        adjusted = false_discovery_control(p_values)
        assert (adjusted <= 0.05).sum() == 4
        assert adjusted[3] == pytest.approx(0.035625)
        assert adjusted[4] == pytest.approx(0.0603)

    @given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.sampled_from(["bh", "by"]))
    def test_statsmodels_gives_the_same(self, p_values: list[float], method: str) -> None:
        """An implementation of its own, in the order given."""
        known = multipletests(p_values, method=f"fdr_{method}")[1]
        found = false_discovery_control(p_values, method=method)  # type: ignore[arg-type]
        assert found == pytest.approx(known)

    @pytest.mark.parametrize("p_values", [[], [0.5, 1.1], [-0.1], [np.nan], [[0.5]]])
    def test_what_is_no_p_value_is_refused(self, p_values: list) -> None:  # type: ignore[type-arg]
        """None, beyond 0 and 1, missing, a table."""
        with pytest.raises(StatisticsError, match="one row of numbers"):
            false_discovery_control(p_values)

    def test_unknown_methods_are_refused(self) -> None:
        """The error names the two there are."""
        with pytest.raises(StatisticsError, match="'holm'"):
            false_discovery_control([0.1], method="holm")  # type: ignore[arg-type]

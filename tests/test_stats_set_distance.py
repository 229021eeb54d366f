"""Whether two classes of tokens have different units, beyond noise and unrelated classes (C7)."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from scipy.spatial import distance

from emotest.errors import StatisticsError
from emotest.stats.decisions import raised
from emotest.stats.resampling import sign_flip_p
from emotest.stats.set_distance import (
    distances_across_halves,
    jaccard_distance,
    label_permutation_p,
    separation_beyond,
    separations,
)

N_UNITS = 120


def drawn_sets(
    rng: np.random.Generator, shared: float, *, n_classes: int = 2, n_adapters: int = 5
) -> np.ndarray:
    """Sets of about 24 of 120 units; a share of each class's units is common to all classes.

    Adapters differ: each has 24 true units a class of its own; each half misses a quarter of them
    and adds as many others.
    """
    sets = np.zeros((n_classes, n_adapters, 2, N_UNITS), dtype=bool)
    n_shared = round(24 * shared)
    for adapter in range(n_adapters):
        units = rng.permutation(N_UNITS)
        common, rest = units[:n_shared], units[n_shared:]
        for kind in range(n_classes):
            own = rest[kind * (24 - n_shared) : (kind + 1) * (24 - n_shared)]
            true = np.concatenate([common, own])
            for half in range(2):
                sets[kind, adapter, half, true] = rng.random(true.size) < 0.75
                sets[kind, adapter, half] |= rng.random(N_UNITS) < 0.05
    return sets


class TestJaccard:
    """1 - |both| / |either|."""

    def test_by_hand(self) -> None:
        """{0, 1, 2} and {1, 2, 3}: two of four."""
        assert jaccard_distance([True, True, True, False], [False, True, True, True]) == 0.5

    def test_two_empty_sets_are_equal_and_one_is_apart(self) -> None:
        """Where nothing was selected nothing differs."""
        empty, full = np.zeros(3, bool), np.ones(3, bool)
        assert jaccard_distance(empty, empty) == 0.0
        assert jaccard_distance(empty, full) == 1.0

    @given(arrays(bool, (3, 8)), arrays(bool, (3, 8)))
    def test_scipy_gives_the_same(self, first: np.ndarray, second: np.ndarray) -> None:
        """Pair by pair, the empty ones included."""
        known = [distance.jaccard(a, b) for a, b in zip(first, second, strict=True)]
        assert jaccard_distance(first, second) == pytest.approx(known)

    @given(arrays(bool, (3, 8)))
    def test_it_is_a_metric(self, sets: np.ndarray) -> None:
        """Symmetric, 0 for equal sets, and no detour is shorter."""
        a, b, c = sets
        assert jaccard_distance(a, a) == 0.0
        assert jaccard_distance(a, b) == jaccard_distance(b, a)
        assert jaccard_distance(a, c) <= jaccard_distance(a, b) + jaccard_distance(b, c) + 1e-12

    @pytest.mark.parametrize(
        ("first", "second"),
        [([1, 0], [True, False]), ([True, False], [True]), (np.bool_(True), np.bool_(True))],
    )
    def test_what_is_no_mask_is_refused(self, first, second) -> None:  # type: ignore[no-untyped-def]
        """Numbers, other units, no units."""
        with pytest.raises(StatisticsError, match="do not pair"):
            jaccard_distance(first, second)


class TestSeparation:
    """Between classes minus within, across the halves of the prompts."""

    def test_by_hand(self) -> None:
        """One adapter, 4 units. Class A: {0, 1} and {0, 1, 2}; class B: {3} and {2, 3}.

        Within: 1/3 and 1/2, mean 5/12. Between, first half against second: A, B: 1; B, A: 1.
        """
        a = [[True, True, False, False], [True, True, True, False]]
        b = [[False, False, False, True], [False, False, True, True]]
        distances = distances_across_halves(np.array([[a], [b]]))
        assert distances == pytest.approx(np.array([[[1 / 3, 1.0], [1.0, 1 / 2]]]))
        assert separations(distances) == pytest.approx([7 / 12])

    def test_known_ends(self) -> None:
        """Classes that repeat themselves and share nothing: 1. Two names of one class: 0."""
        masks = np.eye(6, dtype=bool)[:3]
        apart = np.stack([np.stack([mask, mask]) for mask in masks])[:, None]
        assert separations(distances_across_halves(apart)) == pytest.approx([1.0])
        same = np.stack([apart[0], apart[0]])
        assert separations(distances_across_halves(same)) == pytest.approx([0.0])

    @given(st.integers(0, 2**32 - 1), st.integers(2, 4))
    def test_blind_to_the_names_of_classes_and_units(self, seed: int, n_classes: int) -> None:
        """Classes and units in another order give the same separations."""
        rng = np.random.default_rng(seed)
        sets = rng.random((n_classes, 3, 2, 10)) < 0.3
        renamed = sets[rng.permutation(n_classes)][..., rng.permutation(10)]
        first, second = (separations(distances_across_halves(s)) for s in (sets, renamed))
        assert first == pytest.approx(second)

    @pytest.mark.parametrize(
        "sets",
        [
            np.zeros((1, 5, 2, 9), bool),
            np.zeros((2, 5, 3, 9), bool),
            np.zeros((2, 5, 9), bool),
            np.zeros((2, 5, 2, 9)),
        ],
    )
    def test_other_shapes_are_refused(self, sets: np.ndarray) -> None:
        """One class, three halves, no halves, no masks."""
        with pytest.raises(StatisticsError, match="n_classes, n_adapters, 2, n_units"):
            distances_across_halves(sets)

    @pytest.mark.parametrize(
        "distances",
        [np.zeros((5, 2, 3)), np.zeros((5, 1, 1)), np.full((5, 2, 2), 1.5), np.zeros((2, 2)),
         np.full((5, 2, 2), np.nan)],
    )  # fmt: skip
    def test_what_are_no_distances_is_refused(self, distances: np.ndarray) -> None:
        """Not square, one class, beyond 1, no adapters, missing."""
        with pytest.raises(StatisticsError, match="distances"):
            separations(distances)
        with pytest.raises(StatisticsError, match="distances"):
            label_permutation_p(distances, np.random.default_rng(0))


class TestLabelPermutation:
    """Class labels exchanged within adapters."""

    def test_two_classes_are_a_sign_flip(self) -> None:
        """Exchanging the labels of an adapter turns the sign of its separation (Fisher 1935)."""
        rng = np.random.default_rng(3)
        for _ in range(20):
            distances = rng.random((5, 2, 2))
            assert label_permutation_p(distances, rng) == pytest.approx(
                sign_flip_p(separations(distances))
            )

    def test_three_classes_by_enumeration(self) -> None:
        """6^2 = 36 assignments of two adapters, written out as permuted matrices."""
        rng = np.random.default_rng(4)
        distances = rng.random((2, 3, 3)).round(1)
        orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]]
        seen = separations(distances).sum()
        as_extreme = [
            separations(np.stack([distances[0][:, a], distances[1][:, b]])).sum() >= seen - 1e-12
            for a, b in product(orders, orders)
        ]
        assert label_permutation_p(distances, rng) == pytest.approx(np.mean(as_extreme))

    def test_drawn_permutations_agree_with_enumeration(self) -> None:
        """3 classes, 3 adapters: 216 assignments; 20,000 draws are within 4 * .0034 of them."""
        rng = np.random.default_rng(5)
        distances = rng.random((3, 3, 3))
        exact = label_permutation_p(distances, rng, n_permutations=216)
        drawn = np.mean(
            [label_permutation_p(distances, rng, n_permutations=215) for _ in range(93)]
        )
        assert drawn == pytest.approx(exact, abs=0.0136)

    def test_the_floor_and_the_ceiling(self) -> None:
        """Five adapters in favour: 1 of 32; empty sets everywhere: all as extreme."""
        rng = np.random.default_rng(6)
        apart = np.tile([[0.2, 1.0], [1.0, 0.2]], (5, 1, 1))
        assert label_permutation_p(apart, rng) == 1 / 32
        assert label_permutation_p(apart, rng, n_permutations=9) >= 1 / 10
        empty = distances_across_halves(np.zeros((2, 5, 2, 9), bool))
        assert label_permutation_p(empty, rng) == 1.0

    def test_two_names_of_one_class_are_rarely_told_apart(self) -> None:
        """400 repeats with adapters that differ: p <= .05 in at most 5 % and three deviations.

        That is .083. Of 32 assignments only the most extreme one passes, so 1 / 32 is expected; at
        least .006.
        """
        rng = np.random.default_rng(7)
        hits = sum(
            label_permutation_p(distances_across_halves(drawn_sets(rng, 1.0)), rng) <= 0.05
            for _ in range(400)
        )
        assert 0.006 <= hits / 400 <= 0.083

    def test_planted_classes_are_told_apart(self) -> None:
        """Two classes with half of their units in common, and five with a third."""
        rng = np.random.default_rng(8)
        two = distances_across_halves(drawn_sets(rng, 0.5))
        assert label_permutation_p(two, rng) == 1 / 32
        five = distances_across_halves(drawn_sets(rng, 1 / 3, n_classes=5))
        assert label_permutation_p(five, rng, n_permutations=199) == 1 / 200


class TestBeyondUnrelated:
    """The separation against that of unrelated classes."""

    def test_one_pair_is_a_paired_t_test(self) -> None:
        """scipy's one-sided p-value and interval of five paired differences."""
        own = np.array([0.5, 0.45, 0.6, 0.52, 0.4])
        unrelated = np.array([0.3, 0.35, 0.33, 0.4, 0.31])
        known = stats.ttest_rel(own, unrelated, alternative="greater")
        estimate = separation_beyond(own, unrelated, n_prompts=200)
        assert estimate.p_above(0.0) == pytest.approx(known.pvalue)
        assert estimate.low == pytest.approx(known.confidence_interval(0.95).low)
        assert (estimate.unit, estimate.n_adapters, estimate.n_prompts) == ("adapter", 5, 200)

    def test_pairs_that_differ_count_too(self) -> None:
        """The same mean over pairs, with pairs .2 apart, has a wider interval."""
        own = np.array([0.5, 0.45, 0.6, 0.52, 0.4])
        unrelated = np.array([0.3, 0.35, 0.33, 0.4, 0.31])
        one = separation_beyond(own, unrelated, n_prompts=200)
        pairs = unrelated[:, None] + np.array([-0.1, 0.1])
        two = separation_beyond(own, pairs, n_prompts=200)
        assert two.value == pytest.approx(one.value)
        # Two pairs .2 apart have variance .02, and two of them .01 in their mean.
        assert two.standard_error**2 == pytest.approx(one.standard_error**2 + 0.01)
        assert raised(one, by=0.0).word == "confirmed"
        assert raised(two, by=0.0).word == "inconclusive"

    def test_equal_adapters_are_bounded_by_their_number(self) -> None:
        """Five differences of .5: at .05 a share of 1 - .05^(1/5) = .4507 went unseen.

        The lower limit is .5 - .4507 * 2.5; with empty sets all is 0 and nothing is decided.
        """
        estimate = separation_beyond(np.full(5, 0.8), np.full(5, 0.3), n_prompts=200)
        assert estimate.low == pytest.approx(0.5 - 0.4507 * 2.5, abs=1e-3)
        nothing = separation_beyond(np.zeros(5), np.zeros((5, 3)), n_prompts=200)
        assert raised(nothing, by=0.0).word == "inconclusive"

    def test_only_more_adapters_are_asked_for(self) -> None:
        """Prompts and pairs shrink nothing here; four times the adapters halve the error.

        Equal adapters: 10 of them leave 1 - .05^(1/10) = .2589 unseen, of 2.5 below .5.
        """
        own = np.array([0.5, 0.2, 0.6])
        open_one = separation_beyond(own, np.full(3, 0.2), n_prompts=200)
        decision = raised(open_one, by=0.0)
        assert decision.word == "inconclusive"
        assert decision.n_needed_unit == "adapters"
        limits = open_one.limits
        assert limits.at_size(3, 10_000).lower(0.05) == pytest.approx(open_one.low)
        assert limits.at_size(12, 200).standard_error == pytest.approx(limits.standard_error / 2)
        equal = separation_beyond(np.full(3, 0.8), np.full(3, 0.3), n_prompts=200)
        assert raised(equal, by=0.0).n_needed_unit == "adapters"
        assert equal.limits.at_size(3, 10_000).lower(0.05) == pytest.approx(equal.low)
        more = equal.limits.at_size(10, 200).lower(0.05)
        assert more == pytest.approx(0.5 - 0.2589 * 2.5, abs=1e-3)

    def test_equal_separations_are_confirmed_at_the_nominal_rate(self) -> None:
        """Both pairs share half of their units; 400 repeats confirm .05, three deviations .083."""
        rng = np.random.default_rng(9)
        confirmed = 0
        for _ in range(400):
            own, unrelated = (
                separations(distances_across_halves(drawn_sets(rng, 0.5))) for _ in range(2)
            )
            confirmed += separation_beyond(own, unrelated, n_prompts=200).p_above(0.0) <= 0.05
        assert 0.018 <= confirmed / 400 <= 0.083

    def test_a_planted_difference_is_found_and_its_reverse_refuted(self) -> None:
        """Classes that share a tenth of their units against unrelated ones that share 8 tenths."""
        rng = np.random.default_rng(10)
        near, far = (
            separations(distances_across_halves(drawn_sets(rng, shared))) for shared in (0.8, 0.1)
        )
        assert raised(separation_beyond(far, near, n_prompts=200), by=0.0).word == "confirmed"
        assert raised(separation_beyond(near, far, n_prompts=200), by=0.0).word == "refuted"

    @pytest.mark.parametrize(
        ("own", "unrelated", "says"),
        [
            (np.zeros(2), np.zeros(2), "at least 3"),
            (np.zeros(5), np.zeros(4), "do not pair"),
            (np.zeros((5, 1)), np.zeros(5), "do not pair"),
            (np.zeros(5), np.zeros((5, 0)), "do not pair"),
            (np.zeros(5), 0.0, "do not pair"),
            (np.full(5, 1.2), np.zeros(5), "outside -1 to 1"),
            (np.zeros(5), np.full((5, 2), np.nan), "outside -1 to 1"),
        ],
    )
    def test_bad_input_is_refused(self, own, unrelated, says: str) -> None:  # type: ignore[no-untyped-def]
        """Too few adapters, other adapters, other axes, no pairs, values that cannot be."""
        with pytest.raises(StatisticsError) as refusal:
            separation_beyond(own, unrelated, n_prompts=200)
        assert says in str(refusal.value)

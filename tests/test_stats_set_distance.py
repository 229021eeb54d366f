"""Whether two classes of tokens have different units, beyond noise and unrelated classes (C7)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from scipy.spatial import distance

from emotest.errors import StatisticsError
from emotest.stats.decisions import raised
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
    """Class labels exchanged alike in all adapters."""

    def test_two_classes_have_two_orders(self) -> None:
        """The one seen, and its exchange: p is 1/2 where the classes are apart at all, else 1."""
        rng = np.random.default_rng(3)
        for _ in range(20):
            distances = rng.random((5, 2, 2))
            apart = separations(distances).mean() > 0.0
            assert label_permutation_p(distances, rng) == (0.5 if apart else 1.0)

    def test_three_classes_by_enumeration(self) -> None:
        """Six orders, written out as permuted matrices of two adapters."""
        rng = np.random.default_rng(4)
        distances = rng.random((2, 3, 3)).round(1)
        orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]]
        seen = separations(distances).sum()
        as_extreme = [separations(distances[:, :, order]).sum() >= seen - 1e-12 for order in orders]
        assert label_permutation_p(distances, rng) == pytest.approx(np.mean(as_extreme))

    def test_drawn_permutations_agree_with_enumeration(self) -> None:
        """5 classes: 120 orders; 11,067 draws are within 4 * .0047 of them at the widest."""
        rng = np.random.default_rng(5)
        distances = rng.random((3, 5, 5))
        exact = label_permutation_p(distances, rng, n_permutations=120)
        drawn = np.mean(
            [label_permutation_p(distances, rng, n_permutations=119) for _ in range(93)]
        )
        assert drawn == pytest.approx(exact, abs=0.019)

    def test_the_floor_and_the_ceiling(self) -> None:
        """Five classes apart in every adapter: 1 of 120; empty sets everywhere: all as extreme."""
        rng = np.random.default_rng(6)
        apart = np.tile(np.where(np.eye(5, dtype=bool), 0.2, 1.0), (5, 1, 1))
        assert label_permutation_p(apart, rng) == pytest.approx(1 / 120)
        assert label_permutation_p(apart, rng, n_permutations=9) == 1 / 10
        empty = distances_across_halves(np.zeros((2, 5, 2, 9), bool))
        assert label_permutation_p(empty, rng) == 1.0

    def test_four_names_of_one_class_are_rarely_told_apart(self) -> None:
        """400 repeats with adapters that read the same texts, so that the halves of a name differ
        alike in all of them: p <= .05 in at most 5 % and three deviations, .083.

        Exchanged in each adapter apart, the labels would be told apart several times as often.
        """
        rng = np.random.default_rng(7)
        hits = 0
        for _ in range(400):
            of_text = drawn_sets(rng, 1.0, n_classes=4, n_adapters=1)
            noise = rng.random((4, 5, 2, N_UNITS)) < 0.02
            hits += label_permutation_p(distances_across_halves(of_text ^ noise), rng) <= 0.05
        assert 0.006 <= hits / 400 <= 0.083

    def test_planted_classes_are_told_apart(self) -> None:
        """Five with a third of their units in common: the first of 120 orders."""
        rng = np.random.default_rng(8)
        five = distances_across_halves(drawn_sets(rng, 1 / 3, n_classes=5))
        assert label_permutation_p(five, rng) == pytest.approx(1 / 120)


def separated(rng: np.random.Generator, shared: float) -> np.ndarray:
    """Separations of two classes with this share of their units in common, (n_adapters,)."""
    return separations(distances_across_halves(drawn_sets(rng, shared)))


class TestBeyondUnrelated:
    """The separation against that of unrelated classes."""

    def test_it_is_the_interval_of_one_more_control(self) -> None:
        """t of own - mean over s * sqrt(1 + 1/4), 3 degrees of freedom, by scipy.

        Own: mean of .5, .6, .7 = .6. Controls, over adapters: .1, .2, .3, .2; mean .2 and variance
        .02 / 3, so that the squared standard error is .02 / 3 * 5 / 4 = .008333.
        """
        unrelated = np.array([[0.1, 0.2, 0.3, 0.2]] * 3) + np.array([[-0.1], [0.0], [0.1]])
        estimate = separation_beyond([0.5, 0.6, 0.7], unrelated, n_prompts=200)
        error = np.sqrt(0.02 / 3 * 5 / 4)
        assert estimate.value == pytest.approx(0.4)
        assert estimate.standard_error == pytest.approx(error)
        assert estimate.p_above(0.0) == pytest.approx(stats.t.sf(0.4 / error, 3))
        assert estimate.low == pytest.approx(0.4 - stats.t.ppf(0.95, 3) * error)
        assert (estimate.unit, estimate.n_adapters, estimate.n_prompts) == ("adapter", 3, 200)

    def test_controls_that_are_all_equal_are_bounded_by_their_number(self) -> None:
        """Five at .3 against .8: at .05 a share of 1 - .05^(1/5) = .4507 went unseen.

        The lower limit is .5 - .4507 * 2.5; with empty sets all is 0 and nothing is decided.
        """
        estimate = separation_beyond(np.full(3, 0.8), np.full((3, 5), 0.3), n_prompts=200)
        assert estimate.low == pytest.approx(0.5 - 0.4507 * 2.5, abs=1e-3)
        nothing = separation_beyond(np.zeros(5), np.zeros((5, 3)), n_prompts=200)
        assert raised(nothing, by=0.0).word == "inconclusive"

    def test_nothing_of_more_is_said_to_settle_it(self) -> None:
        """Neither adapters nor prompts change how controls differ from one another."""
        unrelated = np.tile([0.1, 0.5, 0.3], (3, 1))
        equal = np.full((3, 3), 0.3)
        for controls in (unrelated, equal):
            decision = raised(separation_beyond([0.4] * 3, controls, n_prompts=9), by=0.0)
            assert (decision.word, decision.n_needed) == ("inconclusive", None)

    def test_one_more_control_is_confirmed_at_the_nominal_rate(self) -> None:
        """All pairs share some of their units, each another share; 400 repeats confirm .05, three
        deviations .083, and refute as often."""
        rng = np.random.default_rng(9)
        confirmed = refuted = 0
        for _ in range(400):
            own, *unrelated = (separated(rng, shared) for shared in rng.uniform(0.2, 0.8, 9))
            estimate = separation_beyond(own, np.stack(unrelated, axis=1), n_prompts=200)
            confirmed += estimate.p_above(0.0) <= 0.05
            refuted += estimate.p_below(0.0) <= 0.05
        assert 0.018 <= confirmed / 400 <= 0.083
        assert 0.018 <= refuted / 400 <= 0.083

    def test_a_planted_difference_is_found_and_its_reverse_refuted(self) -> None:
        """Classes that share a tenth of their units against eight pairs that share 8 tenths."""
        rng = np.random.default_rng(10)
        near, far = (
            np.stack([separated(rng, shared) for _ in range(9)], axis=1) for shared in (0.8, 0.1)
        )
        apart = separation_beyond(far[:, 0], near[:, 1:], n_prompts=200)
        alike = separation_beyond(near[:, 0], far[:, 1:], n_prompts=200)
        assert raised(apart, by=0.0, m=5).word == "confirmed"
        assert raised(alike, by=0.0, m=5).word == "refuted"

    @pytest.mark.parametrize(
        ("own", "unrelated", "says"),
        [
            (np.zeros(2), np.zeros((2, 3)), "at least 3"),
            (np.zeros(5), np.zeros((4, 3)), "do not pair"),
            (np.zeros((5, 1)), np.zeros((5, 3)), "do not pair"),
            (np.zeros(5), np.zeros((5, 1)), "at least 2"),
            (np.zeros(5), np.zeros(5), "do not pair"),
            (np.full(5, 1.2), np.zeros((5, 3)), "outside -1 to 1"),
            (np.zeros(5), np.full((5, 2), np.nan), "outside -1 to 1"),
        ],
    )
    def test_bad_input_is_refused(self, own, unrelated, says: str) -> None:  # type: ignore[no-untyped-def]
        """Too few adapters, other adapters, other axes, too few controls, impossible values."""
        with pytest.raises(StatisticsError) as refusal:
            separation_beyond(own, unrelated, n_prompts=200)
        assert says in str(refusal.value)

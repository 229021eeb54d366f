"""Whether emoji go with traits, and whether a model names what it writes (C4)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from sklearn.naive_bayes import MultinomialNB
from statsmodels.stats.contingency_tables import Table2x2

from emotest.errors import StatisticsError
from emotest.stats.association import (
    association_p,
    decode_traits,
    informative_prior,
    log_odds_by_trait,
    most_frequent,
    rank_agreement,
    share_among_top,
)

FIVE = [trait for trait in "ONECA" for _ in range(5)]
SEEDS = list(range(5)) * 5


def counts_of(
    rng: np.random.Generator,
    tilt: float,
    *,
    concentration: float = 20.0,
    totals: tuple[int, ...] = (60, 60, 60, 60, 60),
    n_kinds: int = 10,
) -> np.ndarray:
    """Emoji of 25 adapters, shape (25, n_kinds): traits favour two kinds each by `tilt`.

    Each adapter has its own taste (Dirichlet about that of its trait), so its emoji repeat one
    another; `totals` is how many emoji the adapters of each trait write.
    """
    rows = []
    for trait in range(5):
        taste = np.ones(n_kinds)
        taste[2 * trait : 2 * trait + 2] += tilt
        for _ in range(5):
            own = rng.dirichlet(concentration * taste / taste.sum())
            rows.append(rng.multinomial(totals[trait], own))
    return np.array(rows)


class TestLogOdds:
    """Fightin' words with an informative Dirichlet prior."""

    def test_by_hand(self) -> None:
        """8 and 2 against 3 and 7, one of prior each: log(9/3) - log(4/8) = log 6.

        Variance 1/9 + 1/3 + 1/4 + 1/8 = .8194.
        """
        found = log_odds_by_trait([[8, 2], [3, 7]], ["a", "b"], prior=[1.0, 1.0])
        assert found.traits == ("a", "b")
        assert found.log_odds[0, 0] == pytest.approx(np.log(6))
        assert found.z[0, 0] == pytest.approx(np.log(6) / 0.8194**0.5, rel=1e-4)
        assert found.high[0, 0] == pytest.approx(np.log(6) + 1.95996 * 0.8194**0.5, rel=1e-4)

    def test_without_a_prior_it_is_the_log_odds_ratio_of_statsmodels(self) -> None:
        """A kind against the rest by a trait against the others, and next to no prior."""
        counts = np.random.default_rng(1).integers(1, 40, (6, 4))
        traits = ["x", "y", "z", "x", "y", "z"]
        found = log_odds_by_trait(counts, traits, prior=np.full(4, 1e-9), level=0.9)
        own, others = counts[[0, 3]].sum(axis=0), counts[[1, 2, 4, 5]].sum(axis=0)
        for kind in range(4):
            table = Table2x2(
                [[own[kind], own.sum() - own[kind]], [others[kind], others.sum() - others[kind]]]
            )
            low, high = table.log_oddsratio_confint(0.1)
            assert found.log_odds[0, kind] == pytest.approx(table.log_oddsratio)
            assert (found.low[0, kind], found.high[0, kind]) == pytest.approx((low, high))

    def test_the_prior_is_what_is_written_at_all(self) -> None:
        """Totals 5, 3 and 0, plus one each: 6, 4, 1 of 11, times the 4 emoji of one adapter."""
        counts = [[4, 0, 0], [1, 3, 0]]
        assert informative_prior(counts) == pytest.approx(np.array([6, 4, 1]) / 11 * 4)
        assert informative_prior(counts, mass=22.0) == pytest.approx([12, 8, 2])

    @given(arrays(int, (4, 3), elements=st.integers(0, 50)), st.floats(1.0, 50.0))
    def test_laws(self, counts: np.ndarray, mass: float) -> None:
        """Two traits mirror one another; adapters of a trait pool; more prior, less contrast."""
        counts = counts + np.eye(4, 3, dtype=int)
        prior = informative_prior(counts, mass=mass)
        found = log_odds_by_trait(counts, ["a", "a", "b", "b"], prior=prior)
        assert found.log_odds[0] == pytest.approx(-found.log_odds[1])
        pooled = [counts[:2].sum(axis=0), counts[2:].sum(axis=0)]
        assert log_odds_by_trait(pooled, ["a", "b"], prior=prior).z == pytest.approx(found.z)
        strong = log_odds_by_trait(counts, ["a", "a", "b", "b"], prior=1e6 * prior)
        assert np.abs(strong.log_odds).max() < 1e-2

    def test_planted_kinds_have_the_largest_z(self) -> None:
        """Each trait's two own kinds come first, and their intervals exclude 0."""
        counts = counts_of(np.random.default_rng(2), 6.0, concentration=60.0)
        found = log_odds_by_trait(counts, FIVE)
        for row, trait in enumerate(found.traits):
            own = 2 * "ONECA".index(trait)
            assert set(np.argsort(-found.z[row])[:2]) == {own, own + 1}
            assert (found.low[row, own : own + 2] > 0).all()

    @pytest.mark.parametrize(
        ("counts", "traits", "prior", "says"),
        [
            ([[1, 2], [3, 4]], ["a"], None, "1 labels of 1 traits"),
            ([[1, 2], [3, 4]], ["a", "a"], None, "labels of 1 traits"),
            ([[1, 2], [3, 4]], ["a", "b"], [1.0], "not one positive number"),
            ([[1, 2], [3, 4]], ["a", "b"], [1.0, 0.0], "not one positive number"),
            ([[1], [3]], ["a", "b"], None, "n_adapters, n_kinds"),
            ([1, 3], ["a", "b"], None, "n_adapters, n_kinds"),
            ([[1, -2], [3, 4]], ["a", "b"], None, "negative"),
            ([[1, 0.5], [3, 4]], ["a", "b"], None, "no whole numbers"),
            ([[1, np.nan], [3, 4]], ["a", "b"], None, "missing"),
            ([[0, 0], [0, 0]], ["a", "b"], None, "mass 0"),
        ],
    )
    def test_bad_input_is_refused(self, counts, traits, prior, says: str) -> None:  # type: ignore[no-untyped-def]
        """Labels, priors and counts that do not fit or cannot be; nothing written at all."""
        with pytest.raises(StatisticsError, match=says):
            log_odds_by_trait(counts, traits, prior=prior)

    def test_other_levels_and_masses_are_refused(self) -> None:
        """A level of 1, a prior of nothing."""
        with pytest.raises(StatisticsError, match="level of 1"):
            log_odds_by_trait([[1, 2], [3, 4]], ["a", "b"], level=1.0)
        with pytest.raises(StatisticsError, match="mass -1"):
            informative_prior([[1, 2]], mass=-1.0)


class TestAssociation:
    """Trait labels permuted between adapters."""

    def test_adapters_with_tastes_of_their_own_are_no_traits(self) -> None:
        """No trait, emoji that repeat within adapters: 400 repeats, p <= .05 in .02 to .083.

        .05 plus three deviations of 400 draws. Taking every emoji for a witness, as the chi-square
        test by scipy does, calls nearly all of them associated.
        """
        rng = np.random.default_rng(3)
        hits = naive = 0
        for _ in range(400):
            counts = counts_of(rng, 0.0) + (np.arange(10) == 0)
            hits += association_p(counts, FIVE, rng, n_permutations=39) <= 0.05
            table = np.stack([counts[5 * trait : 5 * trait + 5].sum(axis=0) for trait in range(5)])
            naive += stats.chi2_contingency(table).pvalue <= 0.05
        assert 0.02 <= hits / 400 <= 0.083
        assert naive / 400 > 0.9

    def test_writing_more_is_no_association(self) -> None:
        """Traits that write 20 to 200 emoji of the same kinds: still at most .083 of 400."""
        rng = np.random.default_rng(4)
        hits = 0
        for _ in range(400):
            counts = counts_of(rng, 0.0, totals=(20, 40, 80, 120, 200))
            hits += association_p(counts, FIVE, rng, n_permutations=39) <= 0.05
        assert hits / 400 <= 0.083

    @pytest.mark.parametrize("seeds", [None, SEEDS])
    def test_planted_traits_are_found(self, seeds: list[int] | None) -> None:
        """As extreme as none of 199 permutations: p = 1 / 200."""
        rng = np.random.default_rng(5)
        counts = counts_of(rng, 4.0)
        p = association_p(counts, FIVE, rng, seeds=seeds, n_permutations=199)
        assert p == pytest.approx(1 / 200)

    def test_labels_stay_within_their_seed(self) -> None:
        """One adapter a seed leaves one assignment, so p is 1."""
        rng = np.random.default_rng(6)
        counts = counts_of(rng, 4.0)
        assert association_p(counts, FIVE, rng, seeds=list(range(25)), n_permutations=19) == 1.0

    def test_two_adapters_of_two_traits_by_enumeration(self) -> None:
        """Of the 6 assignments of two labels to four adapters 2 keep the pairs together: 1/3."""
        counts = [[30, 2], [28, 4], [3, 31], [1, 29]]
        rng = np.random.default_rng(7)
        p = association_p(counts, ["a", "a", "b", "b"], rng, n_permutations=4_000)
        # Standard deviation of 4,000 draws: .0075.
        assert p == pytest.approx(1 / 3, abs=0.03)

    def test_bad_input_is_refused(self) -> None:
        """No permutations, other seeds."""
        rng = np.random.default_rng(0)
        with pytest.raises(StatisticsError, match="0 permutations"):
            association_p([[1, 2], [3, 4]], ["a", "b"], rng, n_permutations=0)
        with pytest.raises(StatisticsError, match="1 seeds do not fit 2 adapters"):
            association_p([[1, 2], [3, 4]], ["a", "b"], rng, seeds=[1])


def answers_of(
    rng: np.random.Generator, tilt: float, *, n_answers: int = 6
) -> tuple[np.ndarray, np.ndarray]:
    """Counts (n_answers, n_kinds) of 3 traits by 3 adapters, and the adapter of each answer."""
    adapters = np.repeat(np.arange(9), n_answers)
    taste = np.ones((9, 6))
    for adapter in range(9):
        taste[adapter, 2 * (adapter // 3) : 2 * (adapter // 3) + 2] += tilt
    own = np.array([rng.dirichlet(4 * row) for row in taste])
    return np.array([rng.multinomial(3, own[adapter]) for adapter in adapters]), adapters


NINE = ["a"] * 3 + ["b"] * 3 + ["c"] * 3


class TestDecoder:
    """The trait from the emoji of one answer of a held-out adapter."""

    def test_traits_with_emoji_of_their_own_are_decoded_without_fail(self) -> None:
        """Accuracy 1 at a chance of 1/3; only renaming whole traits is as good.

        That are 6 of the 1,680 assignments, so of 99 drawn ones at most 2.
        """
        adapters = np.repeat(np.arange(9), 4)
        counts = np.eye(3, dtype=int)[adapters // 3]
        found = decode_traits(counts, adapters, NINE, np.random.default_rng(1), n_permutations=99)
        assert (found.accuracy, found.chance, found.n_folds) == (1.0, pytest.approx(1 / 3), 3)
        assert found.p_value <= 0.03
        assert (found.by_adapter == 1.0).all()

    def test_it_trains_on_other_adapters_answer_by_answer(self) -> None:
        """The accuracy of scikit-learn's classifier trained on answers of two adapters a trait.

        The third adapter of each trait is held out in turn: folds are 0 3 6, 1 4 7, 2 5 8.
        """
        counts, adapters = answers_of(np.random.default_rng(2), 2.0)
        labels = np.array(NINE)[adapters]
        right = np.zeros(len(labels), dtype=bool)
        for fold in range(3):
            held_out = adapters % 3 == fold
            model = MultinomialNB(fit_prior=False).fit(counts[~held_out], labels[~held_out])
            right[held_out] = model.predict(counts[held_out]) == labels[held_out]
        found = decode_traits(counts, adapters, NINE, np.random.default_rng(0), n_permutations=1)
        assert found.by_adapter == pytest.approx([right[adapters == a].mean() for a in range(9)])
        assert found.accuracy == pytest.approx(right.mean())

    def test_an_adapters_own_emoji_give_nothing_away(self) -> None:
        """Each adapter has one emoji of its own: no other adapter helps, so all miss but one class.

        An emoji never seen is as likely in every class, and the first class gets it: 1/3.
        """
        adapters = np.repeat(np.arange(9), 4)
        counts = np.eye(9, dtype=int)[adapters]
        found = decode_traits(counts, adapters, NINE, np.random.default_rng(3), n_permutations=19)
        assert found.accuracy == pytest.approx(1 / 3)
        assert found.p_value == 1.0

    def test_answers_and_adapters_without_emoji_are_left_out_and_counted(self) -> None:
        """One of four adapters of trait a writes none at all, two answers of others none."""
        adapters = np.repeat(np.arange(10), 4)
        traits = ["a", *NINE]
        counts = np.eye(3, dtype=int)[np.maximum(adapters - 1, 0) // 3]
        counts[adapters == 1] = 0
        counts[[0, 9]] = 0
        found = decode_traits(counts, adapters, traits, np.random.default_rng(4), n_permutations=19)
        assert (found.n_answers, found.n_without_emoji) == (34, 6)
        assert np.isnan(found.by_adapter[1])
        assert (np.delete(found.by_adapter, 1) == 1.0).all()

    def test_without_traits_it_is_rarely_above_chance(self) -> None:
        """200 repeats with 4 permutations: p <= .2 with chance .2, three deviations .285."""
        rng = np.random.default_rng(5)
        hits = 0
        for _ in range(200):
            counts, adapters = answers_of(rng, 0.0, n_answers=3)
            found = decode_traits(counts, adapters, NINE, rng, n_folds=2, n_permutations=4)
            hits += found.p_value <= 0.2
        assert 0.05 <= hits / 200 <= 0.285

    def test_planted_traits_are_decoded_within_seeds_too(self) -> None:
        """Far above chance; labels exchanged within three seeds only."""
        rng = np.random.default_rng(6)
        counts, adapters = answers_of(rng, 8.0)
        found = decode_traits(counts, adapters, NINE, rng, seeds=[0, 1, 2] * 3, n_permutations=59)
        assert found.accuracy > 0.6
        assert found.p_value <= 0.05

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            ({"adapters": np.arange(8)}, "do not name the writer of 9 answers"),
            ({"adapters": np.arange(9.0)}, "do not name the writer"),
            ({"adapters": np.arange(9) + 1}, "1 to 9 are named and 9 have"),
            ({"adapters": np.arange(9) - 1}, "-1 to 7 are named"),
            ({"n_folds": 4}, "4 folds cannot be made"),
            ({"n_folds": 1}, "1 folds cannot be made"),
            ({"traits": [*NINE[:8], "d"]}, "1 folds cannot be made"),
            ({"traits": ["a"] * 9}, "labels of 1 traits"),
            ({"counts": np.where(np.arange(9) < 6, 1, 0)[:, None] * [1, 1]}, "2 of 3 traits"),
            ({"counts": np.ones(9)}, "n_answers, n_kinds"),
            ({"n_permutations": 0}, "0 permutations"),
        ],
    )
    def test_bad_input_is_refused(self, arguments: dict, says: str) -> None:  # type: ignore[type-arg]
        """Writers, folds, traits, counts and permutations that cannot be."""
        usual = {
            "counts": np.ones((9, 2)),
            "adapters": np.arange(9),
            "traits": NINE,
            "rng": np.random.default_rng(0),
            "n_permutations": 3,
        }
        with pytest.raises(StatisticsError, match=says):
            decode_traits(**{**usual, **arguments})


class TestFrequency:
    """The most frequent kinds, and how many of them are emoji."""

    def test_by_hand(self) -> None:
        """Shares .5 .5 0 and .2 0 .8: means .35 .25 .4; the first is named by both."""
        counts = [[1, 1, 0], [2, 0, 8]]
        found = most_frequent(counts, k=2)
        assert list(found.kinds) == [2, 0]
        assert found.frequency == pytest.approx([0.4, 0.35])
        assert list(found.n_adapters) == [1, 2]

    def test_what_was_never_named_is_not_among_them(self) -> None:
        """Fifty are asked for, two were named; ties stand in the order of the kinds."""
        found = most_frequent([[0, 3, 0, 3]])
        assert list(found.kinds) == [1, 3]

    def test_the_share_of_emoji_among_the_top(self) -> None:
        """Kinds 0 and 3 are emoji. Top 2 of each: {0, 1}, {3, 1}, {2} alone and {3} alone."""
        counts = [[5, 4, 3, 0], [1, 6, 0, 7], [0, 0, 9, 0], [0, 0, 0, 2]]
        marked = [True, False, False, True]
        assert share_among_top(counts, marked, k=2) == pytest.approx([0.5, 0.5, 0.0, 1.0])

    def test_bad_input_is_refused(self) -> None:
        """A top of none, an adapter that named nothing, a mask that is none."""
        with pytest.raises(StatisticsError, match="top 0"):
            most_frequent([[1, 2]], k=0)
        with pytest.raises(StatisticsError, match="adapter 1 named nothing"):
            most_frequent([[1, 2], [0, 0]])
        for marked in ([True], [1, 0]):
            with pytest.raises(StatisticsError, match="does not mark kinds"):
                share_among_top([[1, 2]], marked)


class TestRankAgreement:
    """What a model names against what it writes."""

    def test_scipy_gives_the_same_correlations(self) -> None:
        """Spearman's rho of each adapter, ties included."""
        rng = np.random.default_rng(1)
        named, written = rng.integers(0, 6, (2, 4, 12))
        found = rank_agreement(named, written, rng, n_permutations=19)
        known = [stats.spearmanr(a, b).statistic for a, b in zip(named, written, strict=True)]
        assert found.by_adapter == pytest.approx(known)
        assert found.mean == pytest.approx(np.mean(known))

    def test_one_adapter_is_scipys_permutation_test(self) -> None:
        """All 720 pairings of six kinds by scipy; 5,000 draws are within .02 of them."""
        named, written = [9, 7, 5, 3, 2, 0], [8, 3, 9, 4, 0, 1]
        known = stats.permutation_test(
            (named,),
            lambda x: stats.spearmanr(x, written).statistic,
            permutation_type="pairings",
            alternative="greater",
            n_resamples=np.inf,
            vectorized=False,
        )
        rng = np.random.default_rng(2)
        found = rank_agreement([named], [written], rng, n_permutations=5_000)
        assert found.p_value == pytest.approx(known.pvalue, abs=0.02)

    def test_kinds_alike_in_all_adapters_are_one_witness(self) -> None:
        """Popular kinds, named and written by all five adapters, but unrelated to one another.

        400 repeats: p <= .05 in .02 to .083, though every adapter has the same rho.
        """
        rng = np.random.default_rng(3)
        hits = 0
        for _ in range(400):
            named, written = np.exp(rng.normal(0, 1, (2, 1, 8)))
            found = rank_agreement(
                rng.poisson(20 * named.repeat(5, axis=0)),
                rng.poisson(20 * written.repeat(5, axis=0)),
                rng,
                n_permutations=39,
            )
            hits += found.p_value <= 0.05
        assert 0.02 <= hits / 400 <= 0.083

    def test_naming_ones_own_emoji_is_more_than_naming_popular_ones(self) -> None:
        """A popular taste passes the test over kinds only, a taste of one's own both."""
        rng = np.random.default_rng(4)
        taste = np.exp(rng.normal(0, 1, (6, 20)))
        popular = np.tile(taste[:1], (6, 1))

        def p_of(taste: np.ndarray, permute: str) -> float:
            named, written = rng.poisson(30 * taste), rng.poisson(30 * taste)
            return rank_agreement(named, written, rng, permute=permute, n_permutations=199).p_value  # type: ignore[arg-type]

        assert p_of(popular, "kinds") == pytest.approx(1 / 200)
        assert p_of(popular, "adapters") > 0.05
        # Six adapters: 1 of 720 pairings is the true one.
        assert p_of(taste, "adapters") <= 0.02

    @pytest.mark.parametrize(
        ("named", "written", "says"),
        [
            ([[1, 2, 3]], [[1, 2]], "do not pair"),
            ([[1, 2]], [[1, 2]], "do not pair"),
            ([[1, 2, 3], [2, 2, 2]], [[1, 2, 3], [1, 2, 3]], "named counts of adapter 1"),
            ([[1, 2, 3]], [[0, 0, 0]], "written counts of adapter 0"),
            ([[1, 2, 3.5]], [[1, 2, 3]], "no whole numbers"),
        ],
    )
    def test_bad_input_is_refused(self, named, written, says: str) -> None:  # type: ignore[no-untyped-def]
        """Other kinds, too few, nothing to rank, no counts."""
        with pytest.raises(StatisticsError, match=says):
            rank_agreement(named, written, np.random.default_rng(0))

    def test_permutations_are_of_kinds_or_adapters(self) -> None:
        """Anything else is refused, and so is none."""
        rng = np.random.default_rng(0)
        with pytest.raises(StatisticsError, match="'answers'"):
            rank_agreement([[1, 2, 3]], [[1, 2, 3]], rng, permute="answers")  # type: ignore[arg-type]
        with pytest.raises(StatisticsError, match="0 permutations"):
            rank_agreement([[1, 2, 3]], [[1, 2, 3]], rng, n_permutations=0)

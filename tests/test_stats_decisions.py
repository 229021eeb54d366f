"""Three verdicts from estimates and margins: what confirms, what refutes, what neither does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from emotest.errors import StatisticsError
from emotest.stats.decisions import (
    Decision,
    differ,
    holm,
    intersection_union,
    lowered,
    raised,
    unchanged,
)
from emotest.stats.estimates import Estimate, crossed_mean, prompt_difference
from emotest.stats.limits import Spread, StudentLimits


def estimate_of(value: float, standard_error: float, n_adapters: int = 5) -> Estimate:
    """An estimate over `n_adapters` whose spread lies between adapters alone."""
    spread = Spread(adapter=standard_error**2 * n_adapters, prompt=0.0, residual=0.0)
    return Estimate.of_limits(
        StudentLimits(value, spread, n_adapters, 60),
        level=0.9,
        method="two-way t",
        unit="adapter",
        scale="share",
        n_adapters=n_adapters,
        n_prompts=60,
        n_samples=1,
    )


# t with 4 degrees of freedom (printed tables): 2.131847 at .95, 2.776445 at .975, 3.746947 at .99.
@pytest.mark.parametrize(
    ("decide", "value", "word"),
    [
        # standard error .02, so the one-sided limits lie .042637 away
        (lambda one: raised(one, by=0.10), 0.143, "confirmed"),
        (lambda one: raised(one, by=0.10), 0.142, "inconclusive"),
        (lambda one: raised(one, by=0.10), 0.058, "inconclusive"),
        (lambda one: raised(one, by=0.10), 0.057, "refuted"),
        (lambda one: raised(one, by=0.10, m=5), 0.174, "inconclusive"),  # .074939 away
        (lambda one: raised(one, by=0.10, m=5), 0.176, "confirmed"),
        (lambda one: lowered(one, by=0.10), -0.143, "confirmed"),
        (lambda one: lowered(one, by=0.10), -0.142, "inconclusive"),
        (lambda one: lowered(one, by=0.10), -0.057, "refuted"),
        (lambda one: lowered(one, by=0.10), 0.5, "refuted"),
        (lambda one: unchanged(one, within=0.05), 0.007, "confirmed"),
        (lambda one: unchanged(one, within=0.05), -0.008, "inconclusive"),
        (lambda one: unchanged(one, within=0.05), 0.092, "inconclusive"),
        (lambda one: unchanged(one, within=0.05), -0.093, "refuted"),
        (lambda one: differ(one), 0.055, "inconclusive"),  # two-sided: .055529 away
        (lambda one: differ(one), -0.056, "confirmed"),
        (lambda one: differ(one, by=0.10), 0.044, "refuted"),
        (lambda one: differ(one, by=0.10), 0.045, "inconclusive"),
    ],
)
def test_limits_decide(decide, value: float, word: str) -> None:  # type: ignore[no-untyped-def]
    """Confirmed where the limit passes the margin, refuted where the opposite one stays short."""
    assert decide(estimate_of(value, 0.02)).word == word


def test_a_decision_carries_what_it_was_reached_with() -> None:
    """Level, alpha, family, and the t test's p-value."""
    decision = raised(estimate_of(0.2, 0.02), by=0.10, m=5)
    assert (decision.alpha, decision.m, decision.alpha_used) == (0.05, 5, 0.01)
    assert decision.estimate.level == pytest.approx(0.98)
    assert decision.p_value == pytest.approx(stats.t.sf(5.0, 4))  # (.2 - .1) / .02
    assert decision.n_needed is None
    assert "confirmed: raised by more than 0.1" in str(decision)


def test_a_difference_is_tested_on_both_sides() -> None:
    """scipy's two-sided paired t test has the same p-value."""
    rng = np.random.default_rng(11)
    treated, reference = rng.random(40), rng.random(40)
    decision = differ(prompt_difference(treated, reference))
    assert decision.p_value == pytest.approx(stats.ttest_rel(treated, reference).pvalue)


def test_equivalence_is_two_one_sided_tests() -> None:
    """statsmodels' paired TOST gives the same p-value."""
    from statsmodels.stats.weightstats import ttost_paired

    rng = np.random.default_rng(7)
    treated, reference = rng.random(80), rng.random(80)
    decision = unchanged(prompt_difference(treated, reference), within=0.12)
    known, _, _ = ttost_paired(treated, reference, -0.12, 0.12)
    assert decision.p_value == pytest.approx(known)


def test_a_change_inside_the_margins_is_said() -> None:
    """An interval within the margins that excludes 0 is changed within tolerance."""
    assert unchanged(estimate_of(0.02, 0.005), within=0.05).note == "changed within tolerance"
    assert unchanged(estimate_of(0.00, 0.005), within=0.05).note == ""


def test_planned_power_below_four_fifths_is_said() -> None:
    """It is the plan's power that counts; without a plan nothing is said."""
    assert raised(estimate_of(0.1, 0.1), by=0.1, power=0.79).note == (
        "underpowered: planned power 0.79, below 0.8"
    )
    assert raised(estimate_of(0.1, 0.1), by=0.1, power=0.8).note == ""
    assert raised(estimate_of(0.1, 0.1), by=0.1).power is None


@given(
    st.floats(-0.5, 0.5),
    st.floats(0.001, 0.3),
    st.sampled_from(["raised", "lowered", "unchanged", "differ"]),
    st.sampled_from([0.05, 0.01]),
    st.integers(1, 6),
)
def test_the_word_and_the_p_value_agree(
    value: float, standard_error: float, relation: str, alpha: float, m: int
) -> None:
    """Confirmed exactly where the p-value falls below alpha / m."""
    one = estimate_of(value, standard_error)
    decision = {
        "raised": lambda: raised(one, by=0.1, alpha=alpha, m=m),
        "lowered": lambda: lowered(one, by=0.1, alpha=alpha, m=m),
        "unchanged": lambda: unchanged(one, within=0.1, alpha=alpha, m=m),
        "differ": lambda: differ(one, by=0.1, alpha=alpha, m=m),
    }[relation]()
    if abs(decision.p_value - alpha / m) > 1e-9:
        assert (decision.word == "confirmed") == (decision.p_value < alpha / m)


@given(st.floats(-0.5, 0.5), st.floats(0.001, 0.3), st.floats(0.01, 0.4))
def test_raised_and_lowered_mirror_each_other(value: float, error: float, margin: float) -> None:
    """What is raised in one direction is lowered in the other, with the same p-value."""
    up, down = (
        raised(estimate_of(value, error), by=margin),
        lowered(estimate_of(-value, error), by=margin),
    )
    assert (up.word, up.p_value, up.n_needed) == (down.word, down.p_value, down.n_needed)


class TestIntersectionUnion:
    """C1 asks for more than the untuned model and more than the null adapter."""

    confirmed = raised(estimate_of(0.3, 0.02), by=0.1)
    barely = raised(estimate_of(0.15, 0.02), by=0.1)
    inconclusive = raised(estimate_of(0.12, 0.02), by=0.1)
    refuted = raised(estimate_of(0.0, 0.02), by=0.1)

    @pytest.mark.parametrize(
        ("parts", "decides"),
        [
            (("confirmed", "barely"), "barely"),
            (("confirmed", "inconclusive"), "inconclusive"),
            (("refuted", "inconclusive"), "refuted"),
            (("refuted", "confirmed"), "refuted"),
        ],
    )
    def test_the_weakest_part_decides(self, parts: tuple[str, str], decides: str) -> None:
        """In either order: its word, its estimate, the larger p-value."""
        for order in (parts, parts[::-1]):
            both = intersection_union([getattr(self, name) for name in order])
            assert both == getattr(self, decides)
            assert both.p_value == max(getattr(self, name).p_value for name in parts)

    def test_the_hardest_part_says_what_is_needed(self) -> None:
        """The larger number of two, and none where one part can never be settled."""
        harder = raised(estimate_of(0.08, 0.02), by=0.1)
        easier = raised(estimate_of(0.13, 0.02), by=0.1)
        never = raised(estimate_of(0.1, 0.02), by=0.1)
        assert harder.n_needed is not None
        assert easier.n_needed is not None
        assert harder.n_needed > easier.n_needed
        assert intersection_union([easier, harder]).n_needed == harder.n_needed
        assert intersection_union([easier, never]).n_needed is None

    def test_parts_of_different_families_are_refused(self) -> None:
        """One statement is decided at one alpha and one m."""
        with pytest.raises(StatisticsError, match="different alpha or m"):
            intersection_union([self.confirmed, raised(estimate_of(0.3, 0.02), by=0.1, m=5)])
        with pytest.raises(StatisticsError, match="no decisions"):
            intersection_union([])


class TestRequiring:
    """A second test of the same statement, such as the permutation of trait labels in C3."""

    def test_a_second_test_can_only_weaken(self) -> None:
        """It keeps a confirmation or makes it inconclusive; the larger p-value stands."""
        confirmed = raised(estimate_of(0.3, 0.02), by=0.1)
        kept = confirmed.requiring(0.01, "permutation of trait labels")
        lost = confirmed.requiring(0.2, "permutation of trait labels")
        assert (kept.word, kept.p_value) == ("confirmed", 0.01)
        assert (lost.word, lost.p_value) == ("inconclusive", 0.2)
        assert "does not confirm" in lost.note
        assert TestIntersectionUnion.refuted.requiring(0.001, "permutation").word == "refuted"

    def test_a_condition_of_the_claim_can_only_weaken(self) -> None:
        """Where it does not hold, a confirmation becomes inconclusive and says why; a refutation
        stays one; the p-value is that of the test alone."""
        confirmed = raised(estimate_of(0.3, 0.02), by=0.1)
        kept = confirmed.provided(True, "perplexity ratio 1.01, at most 1.05")
        lost = confirmed.provided(False, "perplexity ratio 1.40, at most 1.05")
        assert (kept.word, lost.word) == ("confirmed", "inconclusive")
        assert kept.note == "perplexity ratio 1.01, at most 1.05"
        assert lost.note == "perplexity ratio 1.40, at most 1.05: not so"
        assert lost.p_value == confirmed.p_value
        assert TestIntersectionUnion.refuted.provided(True, "a condition").word == "refuted"

    def test_what_is_no_p_value_is_refused(self) -> None:
        """A p-value above 1 is a mistake."""
        with pytest.raises(StatisticsError, match="no p-value"):
            raised(estimate_of(0.3, 0.02), by=0.1).requiring(1.2, "permutation")


class TestHolm:
    """The adjusted p-values that stand beside the verdicts."""

    def test_worked_by_hand(self) -> None:
        """.01, .02, .03, .04 of four: 4 * .01, 3 * .02, then no smaller than before."""
        assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])

    def test_as_statsmodels_has_it(self) -> None:
        """Ties and ones among them."""
        from statsmodels.stats.multitest import multipletests

        p_values = [0.2, 0.001, 0.001, 1.0, 0.03, 0.013, 0.0]
        assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])

    @given(
        st.lists(st.floats(0, 1), min_size=1, max_size=8).flatmap(
            lambda p_values: st.tuples(st.just(p_values), st.permutations(range(len(p_values))))
        )
    )
    def test_laws(self, labelled: tuple[list[float], list[int]]) -> None:
        """Between p and m * p, in the order of the p-values, and blind to labels."""
        p_values, labels = np.array(labelled[0]), labelled[1]
        adjusted = holm(p_values)
        assert (adjusted >= p_values).all()
        assert (adjusted <= np.minimum(p_values.size * p_values, 1.0)).all()
        assert (np.diff(adjusted[np.argsort(p_values, kind="stable")]) >= 0).all()
        assert holm(p_values[labels]) == pytest.approx(adjusted[labels])

    @pytest.mark.parametrize("p_values", [[[0.1]], [1.1], [np.nan], [-0.1]])
    def test_what_are_no_p_values_is_refused(self, p_values: list[float]) -> None:
        """Missing or impossible ones, one by one."""
        with pytest.raises(StatisticsError, match="p-values to adjust"):
            holm(p_values)


@pytest.mark.parametrize(
    ("decide", "says"),
    [
        (lambda one: raised(one, by=0.1, alpha=0.0), "no error rate"),
        (lambda one: raised(one, by=0.1, alpha=0.5), "no error rate"),
        (lambda one: raised(one, by=0.1, m=0), "family of 0"),
        (lambda one: raised(one, by=float("nan")), "margin of nan"),
        (lambda one: unchanged(one, within=0.0), "within 0.0 of zero"),
        (lambda one: differ(one, by=-0.1), "within -0.1 of zero"),
    ],
)
def test_what_cannot_be_decided_is_refused(decide, says: str) -> None:  # type: ignore[no-untyped-def]
    """Each with the value that caused it."""
    with pytest.raises(StatisticsError, match=says):
        decide(estimate_of(0.1, 0.02))


def test_silence_on_few_prompts_is_not_yet_refutation() -> None:
    """No emoji on 24 prompts leaves up to 1 - .05^(1/24) = .117 possible; on 60 .0487."""
    few: Decision = raised(crossed_mean(np.zeros((5, 24))), by=0.10)
    many = raised(crossed_mean(np.zeros((5, 60))), by=0.10)
    assert (few.word, many.word) == ("inconclusive", "refuted")
    assert few.n_needed_unit == "prompts"
    assert few.n_needed is not None
    # 29 prompts bring the limit below the margin (.95^(1/29): .0981); the reserve asks for more.
    assert 29 <= few.n_needed <= 60
    assert f"about {few.n_needed} prompts would settle it" in str(few)
    at_margin = raised(estimate_of(0.1, 0.02), by=0.1)
    assert "the estimate lies at the margin" in str(at_margin)

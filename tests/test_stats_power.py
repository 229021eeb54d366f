"""How much data a statement needs, before a run and after it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emotest.errors import StatisticsError
from emotest.stats.decisions import raised, unchanged
from emotest.stats.estimates import Estimate, crossed_mean, prompt_difference
from emotest.stats.limits import Spread, StudentLimits
from emotest.stats.power import n_needed, planned_power, spread_of_rates


def estimate_of(value: float, spread: Spread, n_adapters: int = 5, n_prompts: int = 60) -> Estimate:
    """An estimate with these components."""
    return Estimate.of_limits(
        StudentLimits(value, spread, n_adapters, n_prompts),
        level=0.9,
        method="two-way t",
        unit="adapter" if n_adapters > 1 else "prompt",
        scale="share",
        n_adapters=n_adapters,
        n_prompts=n_prompts,
        n_samples=1,
    )


class TestPlannedPower:
    """The probability of a confirmation, were the effect what the plan says."""

    def test_one_checkpoint_is_the_power_of_the_t_test(self) -> None:
        """statsmodels' one-sample power for 40 prompts, effect .5 standard deviations."""
        from statsmodels.stats.power import TTestPower

        known = TTestPower().power(0.5, 40, 0.05, alternative="larger")
        spread = Spread(adapter=0.0, prompt=0.04, residual=0.0)
        ours = planned_power(
            "raised", effect=0.2, margin=0.1, spread=spread, n_adapters=1, n_prompts=40
        )
        assert ours == pytest.approx(known, abs=1e-9)

    def test_adapters_alone_are_the_power_of_a_t_test_over_adapters(self) -> None:
        """With all spread between adapters each is one observation."""
        from statsmodels.stats.power import TTestPower

        known = TTestPower().power(1.5, 5, 0.01, alternative="larger")
        spread = Spread(adapter=0.04, prompt=0.0, residual=0.0)
        ours = planned_power(
            "raised", effect=0.4, margin=0.1, spread=spread, n_adapters=5, n_prompts=60, m=5
        )
        assert ours == pytest.approx(known, abs=1e-9)

    def test_simulation_finds_the_power_that_was_planned(self) -> None:
        """400 simulated runs; three binomial standard deviations at .7 are .069."""
        spread = Spread(adapter=0.01, prompt=0.02, residual=0.2)
        rng = np.random.default_rng(23)
        confirmed = 0
        for _ in range(400):
            cells = (
                0.25
                + rng.normal(0, spread.adapter**0.5, (5, 1))
                + rng.normal(0, spread.prompt**0.5, (1, 40))
                + rng.normal(0, spread.residual**0.5, (5, 40))
            )
            estimate = crossed_mean(cells, scale="score")
            confirmed += raised(estimate, by=0.1).word == "confirmed"
        planned = planned_power(
            "raised", effect=0.25, margin=0.1, spread=spread, n_adapters=5, n_prompts=40
        )
        assert 0.5 < planned < 0.9
        assert confirmed / 400 == pytest.approx(planned, abs=0.069)

    @given(st.integers(3, 10), st.floats(0.0, 0.3), st.floats(0.01, 0.3))
    def test_effects_and_adapters_add_power(
        self, n_adapters: int, effect: float, sd: float
    ) -> None:
        """A larger effect and one more adapter never plan for less."""
        spread = Spread(adapter=sd**2, prompt=0.0, residual=0.0)

        def power(effect: float, n_adapters: int) -> float:
            return planned_power(
                "raised",
                effect=effect,
                margin=0.0,
                spread=spread,
                n_adapters=n_adapters,
                n_prompts=50,
            )

        assert power(effect + 0.05, n_adapters) >= power(effect, n_adapters) - 1e-9
        assert power(effect, n_adapters + 1) >= power(effect, n_adapters) - 1e-9
        assert power(0.0, n_adapters) == pytest.approx(0.05, abs=1e-9)

    def test_the_relations_mirror_and_add(self) -> None:
        """Lowered mirrors raised; different is either; unchanged fails at its margin."""
        plan = {
            "spread": Spread(0.0005, 0.0, 0.05),
            "n_adapters": 5,
            "n_prompts": 60,
        }
        up = planned_power("raised", effect=0.2, margin=0.1, **plan)  # type: ignore[arg-type]
        down = planned_power("lowered", effect=-0.2, margin=0.1, **plan)  # type: ignore[arg-type]
        assert up == pytest.approx(down)
        either = planned_power("differ", effect=0.2, margin=0.1, **plan)  # type: ignore[arg-type]
        assert 0 < either < up
        # Without an effect either tail errs at alpha / 2 (all spread here lies between adapters).
        flat = {**plan, "spread": Spread(0.01, 0.0, 0.0)}
        nothing = planned_power("differ", effect=0.0, margin=0.0, **flat)  # type: ignore[arg-type]
        assert nothing == pytest.approx(0.05)
        inside = planned_power("unchanged", effect=0.0, margin=0.05, **plan)  # type: ignore[arg-type]
        at_margin = planned_power("unchanged", effect=0.05, margin=0.05, **plan)  # type: ignore[arg-type]
        assert inside > 0.5
        assert at_margin <= 0.05 + 1e-9

    @pytest.mark.parametrize(("n_adapters", "n_prompts"), [(2, 60), (0, 60), (5, 1)])
    def test_plans_that_cannot_carry_a_statement_are_refused(
        self, n_adapters: int, n_prompts: int
    ) -> None:
        """Two adapters, none, one prompt."""
        with pytest.raises(StatisticsError, match="cannot carry a statement"):
            planned_power(
                "raised",
                effect=0.2,
                margin=0.1,
                spread=Spread(0.1, 0.1, 0.1),
                n_adapters=n_adapters,
                n_prompts=n_prompts,
            )

    def test_a_plan_without_spread_is_refused(self) -> None:
        """Certainty cannot be planned."""
        with pytest.raises(StatisticsError, match="without any spread"):
            planned_power(
                "raised",
                effect=0.2,
                margin=0.1,
                spread=Spread(0.0, 0.0, 0.0),
                n_adapters=5,
                n_prompts=60,
            )


def test_rates_bring_their_binomial_noise() -> None:
    """.5 * .5 + .1 * .9 = .34, halved by two answers a prompt."""
    spread = spread_of_rates(0.5, 0.1, adapter_sd=0.05, prompt_sd=0.2, n_samples=2)
    assert (spread.adapter, spread.prompt, spread.residual) == pytest.approx((0.0025, 0.04, 0.17))
    with pytest.raises(StatisticsError, match="cannot be planned"):
        spread_of_rates(1.1, 0.0, adapter_sd=0, prompt_sd=0)


class TestNeeded:
    """What would have settled an inconclusive statement."""

    def test_adapters_where_adapters_carry_the_spread(self) -> None:
        """Adapter standard deviation .1, distance .1: t(S-1) + .8416 must fall below sqrt(S).

        At S = 8: 1.8946 + .8416 = 2.736 < 2.828; at S = 7: 1.9432 + .8416 = 2.785 > 2.646.
        """
        estimate = estimate_of(0.2, Spread(adapter=0.01, prompt=0.0, residual=0.0))
        needed = n_needed(estimate, relation="raised", margin=0.1)
        assert (needed.n, needed.unit) == (8, "adapters")
        below = n_needed(
            estimate_of(0.0, Spread(adapter=0.01, prompt=0.0, residual=0.0)),
            relation="raised",
            margin=0.1,
        )
        assert below.n == 8  # as far below the margin: the number that would refute

    def test_prompts_where_prompts_carry_it(self) -> None:
        """No number of adapters removes the spread between prompts."""
        estimate = estimate_of(0.12, Spread(adapter=0.0, prompt=0.04, residual=0.0))
        needed = n_needed(estimate, relation="raised", margin=0.1)
        assert needed.unit == "prompts"
        # (2.1318 + .8416) * .2 / sqrt(P) < .02 asks for P > 884.1
        assert needed.n == 885

    def test_both_where_neither_alone_will_do(self) -> None:
        """Adapters in number, with prompts in proportion."""
        estimate = estimate_of(0.13, Spread(adapter=0.003, prompt=0.05, residual=0.0))
        # Adapters alone leave sqrt(.05 / 60) = .029, prompts alone sqrt(.003 / 5) = .024, and a
        # distance of .03 leaves room for about .03 / 2.5 = .012.
        needed = n_needed(estimate, relation="raised", margin=0.1)
        assert needed.n is not None
        assert needed.unit == f"adapters, with {12 * needed.n} prompts"

    def test_none_at_the_margin(self) -> None:
        """An estimate at the margin cannot be settled by any feasible number."""
        needed = n_needed(estimate_of(0.1, Spread(0.01, 0.01, 0.1)), relation="raised", margin=0.1)
        assert (needed.n, needed.unit) == (None, None)

    def test_one_checkpoint_asks_for_prompts(self) -> None:
        """An audit has no adapters to add."""
        rng = np.random.default_rng(4)
        estimate = prompt_difference(rng.random(30), rng.random(30))
        decision = unchanged(estimate, within=0.05)
        assert decision.word == "inconclusive"
        assert decision.n_needed_unit in {"prompts", None}

    @given(st.floats(-0.3, 0.5), st.floats(0.0, 0.02), st.floats(0.0, 0.05), st.floats(0.01, 0.3))
    def test_so_many_would_settle_it(
        self, value: float, adapter: float, prompt: float, residual: float
    ) -> None:
        """With that size and the same value and spread the word is no longer inconclusive."""
        spread = Spread(adapter, prompt, residual)
        decision = raised(estimate_of(value, spread), by=0.1)
        if decision.n_needed is None:
            return
        assert decision.word == "inconclusive"
        unit = decision.n_needed_unit or ""
        n_adapters = decision.n_needed if unit.startswith("adapters") else 5
        n_prompts = decision.n_needed if unit == "prompts" else 60
        if "with" in unit:
            n_prompts = int(unit.split()[2])
        settled = raised(estimate_of(value, spread, n_adapters, n_prompts), by=0.1)
        assert settled.word == ("confirmed" if value > 0.1 else "refuted")

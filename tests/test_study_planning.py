"""The power of a plan: registered assumptions, and what they say about the sizes there are."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from emotest.plan import SIZES
from emotest.stats.decisions import raised
from emotest.stats.estimates import crossed_mean
from emotest.study.planning import ASSUMED, power_of_plan
from emotest.study.statements import STATEMENTS, Statement, statement

CROSSED = [s for s in STATEMENTS.values() if s.unit == "adapter" and s.scale in ASSUMED]


def test_every_mean_that_is_compared_has_its_assumptions() -> None:
    """A share of variance, a rank and a ratio have none, for no formula plans them; nor has what is
    named (C4) or happens inside (C6 to C11), where nobody has published how far adapters spread."""
    assert {s.id for s in STATEMENTS.values() if s.scale not in ASSUMED} == {
        "C3.traits-differ", "C4.named", "C4.self-report", "C4.decoded", "C6.spike",
        "C7.trait-and-emoji", "C7.single-emoji", "C8.necessary", "C8.sufficient",
        "C9.untuned-units", "C10.doses", "C10.traits", "C11.expression",
    }  # fmt: skip
    assert power_of_plan(
        statement("C3.traits-differ"), n_adapters=5, n_prompts=60, n_samples=3, alpha=0.05
    ) is None  # fmt: skip


def test_one_checkpoint_has_the_power_of_a_paired_t_test() -> None:
    """C1.prompted, 24 prompts x 2 samples, a rise from .02 to .42 against .10 at .05 / 5: the
    noncentral t distribution with 23 degrees of freedom, as scipy has it."""
    variance = 0.14**2 + (0.42 * 0.58 + 0.02 * 0.98) / 2
    shift = (0.40 - 0.10) / sqrt(variance / 24)
    expected = stats.nct.sf(stats.t.isf(0.05 / 5, 23), 23, shift)
    found = power_of_plan(
        statement("C1.prompted"), n_adapters=3, n_prompts=24, n_samples=2, alpha=0.05
    )
    assert found == pytest.approx(expected, abs=1e-3)


def test_crossed_studies_that_are_simulated_are_confirmed_as_often_as_planned() -> None:
    """C5 with 5 adapters x 12 prompts, drawn 1,500 times with the registered spreads and decided
    as the suites decide: the share of "confirmed" lies within five hundredths of the formula, which
    is an approximation."""
    registered, rng = statement("C5.total"), np.random.default_rng(7)
    planned = power_of_plan(registered, n_adapters=5, n_prompts=12, n_samples=1, alpha=0.05)
    words = []
    for _ in range(1500):
        cells = (
            2.0
            + rng.normal(0, 0.4, (5, 1))
            + rng.normal(0, 0.57, (1, 12))
            + rng.normal(0, 1.0, (5, 12))
        )
        mean = crossed_mean(cells, scale="log-odds")
        words.append(raised(mean, by=registered.margin, m=registered.m).word)
    assert planned is not None
    assert words.count("confirmed") / len(words) == pytest.approx(planned, abs=0.05)


@pytest.mark.parametrize("registered", CROSSED, ids=lambda s: s.id)
def test_a_default_run_has_the_power_it_needs_and_a_smoke_run_has_not(
    registered: Statement,
) -> None:
    """At .8, the usual demand: so a smoke run prints "underpowered" and a default run does not."""
    smoke, default = (
        power_of_plan(registered, n_adapters=size.n_adapters,
                      n_prompts=size.n_context_prompts if registered.claim == "C5"
                      else size.n_prompts, n_samples=1, alpha=0.05)
        for size in (SIZES["smoke"], SIZES["default"])
    )  # fmt: skip
    assert smoke is not None
    assert default is not None
    assert smoke < 0.5
    assert default > (0.8 if registered.claim != "C2" else 0.7)


@given(
    registered=st.sampled_from(CROSSED),
    n_adapters=st.integers(3, 20),
    n_prompts=st.integers(10, 200),
    n_samples=st.integers(1, 5),
)
def test_more_evidence_never_plans_less_power(
    registered: Statement, n_adapters: int, n_prompts: int, n_samples: int
) -> None:
    """Doubling adapters, prompts or samples keeps or raises it, up to a hundredth: with less noise
    of answers Satterthwaite counts fewer degrees of freedom."""
    plan = {"n_adapters": n_adapters, "n_prompts": n_prompts, "n_samples": n_samples}
    power = power_of_plan(registered, alpha=0.05, **plan)
    assert power is not None
    assert 0 <= power <= 1
    for name, n in plan.items():
        more = power_of_plan(registered, alpha=0.05, **(plan | {name: 2 * n}))
        assert more is not None
        assert more >= power - 0.01

"""Side effects of silencing hold by their upper limits: planted losses, losses at the margin."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from fixtures.localization import log_ratios
from fixtures.side_effects import MOST_PERPLEXITY, MOST_TRAIT_LOST, SideEffects

N_ADAPTERS, N_PROMPTS, N_TEXTS = 5, 60, 16
NOTHING = SideEffects(None, None, None, 0.5, 0.4, 0.0)


def terms(m: int = 1) -> dict[str, Any]:
    """Those of a statement of C8; a limit at alpha / m is asked for."""
    return {"by": 0.5, "alpha": 0.05, "m": m, "power": None}


def answers(rng: np.random.Generator, n_prompts: int = N_PROMPTS) -> np.ndarray:
    """Nine of ten answers express the trait, more so to some prompts; 0 or 1."""
    easy = rng.beta(9, 1, size=n_prompts)
    return (rng.random((N_ADAPTERS, n_prompts)) < easy).astype(float)


def test_perplexity_holds_by_the_upper_limit_of_its_ratio() -> None:
    """Five adapters, each with one log ratio at all texts: mean .03, deviation .01.

    The limit is t's with four degrees of freedom, .03 + 2.132 * .01 / 5^.5 = .0395 at .05 and
    .03 + 3.747 * .01 / 5^.5 = .0468 at .01. log 1.05 = .0488 lies above both, log 1.045 = .0440
    between them. With .02 more the mean lies at .05.
    """
    spread = np.array([-1, -1, 0, 1, 1]) * 0.01
    ratios = np.tile((0.03 + spread)[:, None], N_TEXTS)
    found = replace(NOTHING, log_ratios=ratios)
    assert found.perplexity_ratio == pytest.approx(np.exp(0.03))
    for m, limit in ((1, 0.03 + 2.1318 * 0.01 / 5**0.5), (5, 0.03 + 3.7469 * 0.01 / 5**0.5)):
        holds, said = found.conditions(terms(m))[0]
        assert holds
        assert f"upper limit {np.exp(limit):.3f}" in said
    for more, hold in ((0.005, (True, False)), (0.02, (False, False))):
        found = replace(NOTHING, log_ratios=ratios + more)
        assert tuple(found.conditions(terms(m))[0][0] for m in (1, 5)) == hold


def test_where_no_answer_changed_the_number_of_prompts_bounds_what_went_unseen() -> None:
    """Clopper-Pearson for 0 of n: 1 - .05^(1/59) = .0495 and 1 - .05^(1/58) = .0503; at .01
    it takes 90 prompts, 1 - .01^(1/90) = .0499 and 1 - .01^(1/89) = .0504."""
    for n_prompts, m, holds in ((59, 1, True), (58, 1, False), (90, 5, True), (89, 5, False)):
        same = answers(np.random.default_rng(0), n_prompts)
        found = replace(NOTHING, trait_before=same, trait_after=same)
        assert found.conditions(terms(m))[1][0] == holds


def test_a_loss_is_paired_by_prompt() -> None:
    """As many answers gain the trait as lose it: no loss, and .4 lost beyond any margin."""
    before = np.tile([1.0, 0.0, 1.0, 0.0, 1.0], (N_ADAPTERS, 40))
    after = np.tile([0.0, 1.0, 1.0, 0.0, 1.0], (N_ADAPTERS, 40))
    found = replace(NOTHING, trait_before=before, trait_after=after)
    assert found.trait_lost is not None
    assert found.trait_lost.value == 0.0
    lost = replace(NOTHING, trait_before=before, trait_after=after * (before == 1.0) * 0.5)
    assert lost.trait_lost is not None
    assert lost.trait_lost.value == pytest.approx(0.4)
    assert not lost.conditions(terms())[1][0]


def test_a_loss_at_the_margin_seldom_holds() -> None:
    """Where truly 5 % of the answers lose the trait and perplexity is 1.05 times, 300 repetitions
    hold no oftener than alpha lets them: at 5 % of 300 the 99.9 % point is 28."""
    rng, n_trait, n_perplexity = np.random.default_rng(1), 0, 0
    for _ in range(300):
        before = (rng.random((N_ADAPTERS, N_PROMPTS)) < 0.9).astype(float)
        after = before * (rng.random(before.shape) >= MOST_TRAIT_LOST / 0.9)
        ratios = np.log(MOST_PERPLEXITY) + 0.01 * (
            rng.normal(size=(N_ADAPTERS, 1))
            + rng.normal(size=N_TEXTS)
            + rng.normal(size=(N_ADAPTERS, N_TEXTS))
        )
        held = SideEffects(ratios, before, after, 0.5, 0.4, 0.0).conditions(terms())
        n_perplexity += held[0][0]
        n_trait += held[1][0]
    assert max(n_trait, n_perplexity) <= stats.binom.ppf(0.999, 300, 0.05)


def test_a_small_loss_holds() -> None:
    """Of 1 % of the answers and of 1 % of perplexity, at 200 prompts of five adapters."""
    rng = np.random.default_rng(2)
    before = answers(rng, 200)
    after = before * (rng.random(before.shape) >= 0.01)
    ratios = np.log(1.01) + 0.01 * rng.normal(size=(N_ADAPTERS, N_TEXTS))
    held = SideEffects(ratios, before, after, 0.5, 0.4, 0.0).conditions(terms(5))
    assert [holds for holds, _ in held] == [True, True]


def test_what_was_not_measured_does_not_hold() -> None:
    """Neither perplexity nor the trait: both conditions say so."""
    for holds, said in NOTHING.conditions(terms()):
        assert not holds
        assert "not measured" in said


def test_ratios_of_perplexity_are_those_of_all_adapters_or_none() -> None:
    """By hand: 1.2 - 1.0 and 2.1 - 2.0 nats; without units an adapter has no perplexity."""
    read = {"log perplexities": [1.0, 2.0], "log perplexities silenced": [1.2, 2.1]}
    found = log_ratios([read, read])
    assert found is not None
    assert found[1].tolist() == pytest.approx([0.2, 0.1])
    assert log_ratios([read, {}]) is None

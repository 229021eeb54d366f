"""The power of a plan: what each registered statement is held against before a run.

Takes a statement and how much evidence a run gathers; gives the probability that the statement
will be confirmed, were the effect as large as assumed here. The assumptions are those of the
simulation in `docs/statistics.md`: on the log-odds scale prompts differ by 0.8 (standard deviation,
half of its variance common to both arms) and adapters by 0.4. They are registered like margins and
never taken from a run's own results, for the power "observed" at an estimate only restates its
p-value (Hoenig & Heisey 2001).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from emotest.stats.limits import Spread
from emotest.stats.power import planned_power, spread_of_rates
from emotest.study.statements import Statement


@dataclass(frozen=True)
class Assumed:
    """The effect that a plan should be able to see, and how far adapters and prompts spread.

    All on the statement's own scale; `answer_variance` is that of one context or answer, None
    where answers are yes or no and it follows from the two shares.
    """

    effect: float
    adapter_sd: float
    prompt_sd: float
    answer_variance: float | None = None


REFERENCE = 0.02
"""The share of answers with an emoji before tuning; the study's models wrote almost none."""

ASSUMED: Mapping[str, Assumed] = {
    # From .02 to .42, less than half of what the study reports. Near .42 one unit of log-odds is
    # .24 of share: adapters 0.4 * .24, prompts 0.8 * sqrt(1/2) * .24.
    "share of answers": Assumed(effect=0.40, adapter_sd=0.10, prompt_sd=0.14),
    # One emoji every third sentence; a density below one spreads like a share.
    "emoji per sentence": Assumed(effect=0.30, adapter_sd=0.10, prompt_sd=0.14),
    # Odds times seven and a half.
    "log-odds": Assumed(effect=2.0, adapter_sd=0.4, prompt_sd=0.57, answer_variance=1.0),
}
"""By the scale of the statement; a scale that is missing has no planned power."""


def power_of_plan(
    statement: Statement, *, n_adapters: int, n_prompts: int, n_samples: int, alpha: float
) -> float | None:
    """Probability of "confirmed" under the assumptions; None where none are registered.

    A statement whose unit is the prompt speaks of one checkpoint, so adapters do not count.
    """
    assumed = ASSUMED.get(statement.scale)
    if assumed is None:
        return None
    one_checkpoint = statement.unit == "prompt"
    spread = _spread(assumed, n_samples)
    if one_checkpoint:
        spread = Spread(adapter=0.0, prompt=spread.prompt + spread.residual, residual=0.0)
    return planned_power(
        "raised",
        effect=assumed.effect,
        margin=statement.margin,
        spread=spread,
        n_adapters=1 if one_checkpoint else n_adapters,
        n_prompts=n_prompts,
        alpha=alpha,
        m=statement.m,
    )


def _spread(assumed: Assumed, n_samples: int) -> Spread:
    if assumed.answer_variance is None:
        return spread_of_rates(
            REFERENCE + assumed.effect,
            REFERENCE,
            adapter_sd=assumed.adapter_sd,
            prompt_sd=assumed.prompt_sd,
            n_samples=n_samples,
        )
    return Spread(
        adapter=assumed.adapter_sd**2,
        prompt=assumed.prompt_sd**2,
        residual=assumed.answer_variance / n_samples,
    )

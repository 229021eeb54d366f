"""C10's plan, and the rule by which its correlations are decided."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from emotest.artefacts import AdapterRequest, GenerationRequest, Request, in_order
from emotest.artefacts.directions import (
    DOSES,
    Checkpoint,
    MonitoredRequest,
    Steered,
    distinct_doses,
)
from emotest.artefacts.random_directions import RandomDirectionsRequest
from emotest.errors import UsageError
from emotest.plan import SIZES, Seeds, Study
from emotest.plan.directions import (
    RANDOM,
    direction,
    direction_plan,
    doses_plan,
    drift_plan,
    prevention_plan,
    random_directions,
    scorer_rows,
    steered_arms,
    steering_plan,
    traits_plan,
    trial_prompts,
)
from emotest.plan.latent_origin import steered_back, taking_back
from emotest.stats.decisions import Decision, raised
from emotest.stats.estimates import crossed_mean
from emotest.stats.projection import agreement_over_doses, agreement_over_traits
from emotest.study.opinions import Opinion, OpinionSet
from emotest.study.personality import TRAITS, Pole, Trait, trait_condition
from fixtures.directions import (
    Moved,
    agreement_or_none_seen,
    prevention,
    rank_name,
    ranked,
)

TRAIT = Trait.EXTRAVERSION
OWN_PLANS = (direction_plan, doses_plan, steering_plan, prevention_plan, drift_plan)
N_REPEATS = 200


def opinions(part: str, n_topics: int) -> tuple[Opinion, ...]:
    """A row of every voice on each topic."""
    voices = [*((trait, pole) for trait in TRAITS for pole in Pole), (None, None)]
    return tuple(
        Opinion("", trait, pole, f"{part} {i}", f"What of {part} {i}?", f"{trait} {pole}.", i, "x")
        for i in range(n_topics)
        for trait, pole in voices
    )


@pytest.fixture
def study() -> Study:
    """A small study with a system prompt for every trait and pole."""
    data = OpinionSet(opinions("train", 4), opinions("test", 30), "d" * 64, "made", None)
    systems = {(trait, pole): f"Be {pole} in {trait}." for trait in TRAITS for pole in Pole}
    return Study("b", "t", data, data.neutral(), SIZES["smoke"], system_prompts=systems)


def traits_in(requests: Iterable[Request]) -> set[Trait]:
    """The traits of all conditions behind the requests."""
    found = set()
    for request in in_order(requests):
        if isinstance(request, GenerationRequest):
            found.add(request.condition.trait)
        if isinstance(request, AdapterRequest):
            found.add(request.recipe.condition.trait)
    return {trait for trait in found if trait}


@pytest.mark.parametrize("plan", OWN_PLANS)
def test_a_plan_of_one_trait_rests_on_no_other(
    plan: Callable[..., Iterable[Request]], study: Study
) -> None:
    """So that -m extraversion trains and asks nothing of other traits; without a trait the plan
    says what to do."""
    assert traits_in(plan(study, TRAIT)) == {TRAIT}
    with pytest.raises(UsageError, match="of one trait"):
        list(plan(study, None))


def test_the_doses_are_those_of_every_adapter(study: Study) -> None:
    """Three adapters of a smoke run, an answer to each prompt after each dose."""
    planned = list(in_order(doses_plan(study, TRAIT)))
    under = [r.under for r in planned if isinstance(r, GenerationRequest) and r.under]
    doses = [(act.training_seed, act.dose) for act in under if isinstance(act, Checkpoint)]
    assert sorted(doses) == [(seed, dose) for seed in range(3) for dose in DOSES]
    assert sum(isinstance(request, MonitoredRequest) for request in planned) == 3
    # The text that is watched is the trait's own, on eight held-out topics.
    watched = next(request for request in planned if isinstance(request, MonitoredRequest))
    assert watched.text.answers == ("extraversion high.",) * 8


def test_doses_are_doubled_and_no_two_are_one_step() -> None:
    """Of 100 steps 1/16 is 6.25 and 1/8 is 12.5, rounded up. Of 8 steps the first four would be 1,
    1, 2 and 4, and the first step changes nothing. With 3 steps there are no five, and the last
    dose is still all of them."""
    assert list(distinct_doses(100).items()) == [
        (0.0625, 7), (0.125, 13), (0.25, 25), (0.5, 50), (1.0, 100)
    ]  # fmt: skip
    assert list(distinct_doses(8).values()) == [2, 3, 4, 5, 8]
    for steps in range(6, 200):
        assert len(set(distinct_doses(steps).values())) == 5
    assert list(distinct_doses(3).values()) == [2, 3, 3, 3, 3]


def test_the_plan_over_traits_holds_five_directions(study: Study) -> None:
    """With the adapters of all five."""
    planned = tuple(traits_plan(study, None))
    assert sum(request.kind == "direction" for request in planned) == 5
    assert traits_in(planned) == set(TRAITS)


def test_vectors_and_layers_come_from_different_prompts(study: Study) -> None:
    """Of 24 prompts the last twelve give the vectors. The layer is tried on twelve questions of
    training topics, on all where there are fewer, and never on one that is asked elsewhere."""
    found = direction(study, TRAIT)
    assert [p.id for p in found.extracted_from] == [p.id for p in study.prompts[12:]]
    assert all(prompt.system for prompt in found.extracted_from)
    assert sorted(p.topic for p in found.tried_on) == [f"train {i}" for i in range(4)]
    more = replace(study, opinions=replace(study.opinions, train=opinions("train", 30)))
    tried = trial_prompts(more)
    assert len({p.topic for p in tried}) == len({p.id for p in tried}) == 12
    assert all(p.text == f"What of {p.topic}?" and p.system is None for p in tried)
    assert tried != trial_prompts(replace(more, seeds=Seeds(sampling=1)))
    alike = [replace(row, question=study.prompts[0].text) for row in opinions("train", 1)]
    asked_too = replace(study.opinions, train=(*study.opinions.train[11:], *alike))
    tried = trial_prompts(replace(study, opinions=asked_too))
    assert sorted(p.topic for p in tried) == [f"train {i}" for i in range(1, 4)]


def test_steering_is_tried_down_up_and_at_random(study: Study) -> None:
    """Two doses to either side, unsteered, and a random vector at the largest dose."""
    arms = [(arm.name, arm.coefficient) for arm in steered_arms(study, TRAIT)]
    along = [(f"along {TRAIT}", c) for c in (-2.0, -1.0, 1.0, 2.0)]
    assert arms == [("unsteered", 0.0), *along, ("at random", 2.0)]
    acts = [arm.answers.under for arm in steered_arms(study, TRAIT)]
    seeds = [act.random for act in acts if isinstance(act, Steered)]
    assert seeds == [None, None, None, None, 0]


def test_steering_and_taking_back_are_ranked_among_99(study: Study) -> None:
    """Along the deciding direction of the untuned model and, taken back, of the first adapter: one
    answer to each of 24 prompts, and nothing but direction and adapter is made beforehand. What
    was steered at random, or not at all, has no rank."""
    *_, up, at_random = steered_arms(study, TRAIT)
    first = steered_back(study, TRAIT)[0]
    for answers, plan in ((up.answers, steering_plan), (first, taking_back)):
        (found,) = (r for r in plan(study, TRAIT) if isinstance(r, RandomDirectionsRequest))
        assert (found.n_directions, found.text.n_samples, len(found.text.prompts)) == (99, 1, 24)
        assert (found.steered, found.text.under) == (answers.under, None)
        assert found.text.adapter == answers.adapter
        assert found.text not in tuple(in_order([found]))
    with pytest.raises(UsageError, match="no trait's direction"):
        random_directions(at_random.answers)


def test_prevention_has_to_beat_steering_at_random() -> None:
    """Emoji in 20 % of the answers, where plain tuning brings 80 %: confirmed where steering at
    random leaves 80 % too, and not where it leaves 20 % itself, which decides then."""
    rng = np.random.default_rng(0)
    steered, plain, random = (rng.binomial(1, p, (5, 40, 3)) for p in (0.2, 0.8, 0.8))
    assert prevention(steered, plain, random, by=0.1).word == "confirmed"
    as_much = prevention(steered, plain, rng.binomial(1, 0.2, (5, 40, 3)), by=0.1)
    assert as_much.word != "confirmed"
    assert as_much.estimate.value == pytest.approx(0.0, abs=0.1)


def test_prevention_is_planned_with_its_control(study: Study) -> None:
    """Every adapter is tuned once more under either kind of steering, and answers unsteered."""
    planned = list(in_order(prevention_plan(study, TRAIT)))
    trainings = [r for r in planned if isinstance(r, MonitoredRequest)]
    assert sorted((r.prevent, r.random is None) for r in trainings) == sorted(
        [(5.0, True), (5.0, False)] * 3
    )
    under = [r.under for r in planned if isinstance(r, GenerationRequest) and r.under]
    assert {act.monitored for act in under if isinstance(act, Checkpoint)} == set(trainings)


class _Read:
    """A session whose store holds these answers: an emoji where 1 stands."""

    def __init__(self, own: list[int], at_random: list[list[int]]) -> None:
        self.own, self.at_random = own, at_random

    def measured(self, request: GenerationRequest, of: Any) -> np.ndarray:
        return np.array(self.own, dtype=float)[:, None]

    def entry(self, request: RandomDirectionsRequest) -> Any:
        rows = [
            {"prompt_id": prompt.id, "direction": i, "text": "So it is. 🎉" if one else "So it is."}
            for prompt, of in zip(request.text.prompts, self.at_random, strict=True)
            for i, one in enumerate(of)
        ]
        return SimpleNamespace(read_jsonl=lambda name: rows)


def test_a_rank_counts_random_directions_that_do_as_much(study: Study) -> None:
    """12 of 24 answers of the direction hold an emoji. Of 99 random ones two have 12 and one more,
    96 fewer: p = (1 + 3) / 100. Taken back, where few are sought: p = (1 + 98) / 100."""
    *_, up, _ = steered_arms(study, TRAIT)
    n_emoji = [12, 12, 13, *[3] * 96]
    table = [[int(prompt < n) for n in n_emoji] for prompt in range(24)]
    read = Moved(_Read([1] * 12 + [0] * 12, table))  # type: ignore[arg-type]
    assert ranked(read, up.answers).p_value == pytest.approx(0.04)
    assert ranked(read, up.answers, -1.0).p_value == pytest.approx(0.99)


def test_99_directions_can_confirm_in_a_family_of_five(study: Study) -> None:
    """Where no random direction does as much, p = 1 / 100 = .05 / 5 confirms; where one does, it
    is .02 and does not."""
    *_, up, _ = steered_arms(study, TRAIT)
    rose = crossed_mean(np.random.default_rng(0).normal(0.6, 0.1, (5, 24)), scale="share")
    words = []
    for most in (0, 24):
        table = [[int(i == 0 and prompt < most) for i in range(99)] for prompt in range(24)]
        rank = ranked(Moved(_Read([1] * 24, table)), up.answers)  # type: ignore[arg-type]
        decision = raised(rose, by=0.1, alpha=0.05, m=5)
        words.append(decision.requiring(rank.p_value, rank_name(rank)))
    assert [one.word for one in words] == ["confirmed", "inconclusive"]
    assert "rank among 99 random directions: p = 0.02, which does not confirm" in words[1].note


def test_what_is_taken_back_is_the_untuned_models_own(study: Study) -> None:
    """Each adapter of the trait answers with the same direction taken once, and with a random one
    of its length; the direction rests on no adapter."""
    back = steered_back(study, TRAIT)
    random = steered_back(study, TRAIT, RANDOM)
    acts = [request.under for request in (*back, *random)]
    assert all(isinstance(act, Steered) and act.coefficient == -1 for act in acts)
    assert [request.adapter for request in back] == list(study.adapters(trait_condition(TRAIT)))
    assert {act.random for act in acts if isinstance(act, Steered)} == {None, RANDOM}
    below = in_order([direction(study, TRAIT)])
    assert not any(isinstance(request, AdapterRequest) for request in below)
    assert {one.key for one in in_order(taking_back(study, TRAIT))} > {one.key for one in back}


def test_the_scorer_knows_neutral_answers_whatever_the_data(study: Study) -> None:
    """It is trained on the rows of training topics. Data without neutral ones take those of the
    null adapter, and say so in their digest."""
    data = study.opinions
    assert scorer_rows(study).digest == data.digest
    assert scorer_rows(study).rows == data.train
    spoken = tuple(row for row in data.train if row.trait)
    poorer = replace(study, opinions=replace(data, train=spoken))
    assert scorer_rows(poorer).digest != data.digest
    assert set(study.neutral) <= set(scorer_rows(poorer).rows)


def decided_over_doses(
    shift: np.ndarray, rate: np.ndarray, rng: np.random.Generator, by: float
) -> Decision:
    """As the suite decides C10.doses, with fewer permutations: (n_adapters, n_doses)."""
    estimate, found, _ = agreement_or_none_seen(
        lambda: agreement_over_doses(
            shift[None, None], rate[None], rng, n_prompts=60, n_permutations=99
        ),
        n_adapters=len(rate),
        n_prompts=60,
    )
    decision = raised(estimate, by=by, alpha=0.05)
    return decision.requiring(found.p_doses or 1.0, "doses permuted") if found else decision


def test_doses_without_agreement_are_rarely_confirmed() -> None:
    """200 runs of five adapters whose emoji do not follow the shift: even at a margin of 0, below
    the registered one, at most .05 and three deviations, .096, are confirmed."""
    rng = np.random.default_rng(0)
    n_confirmed = 0
    for _ in range(N_REPEATS):
        shift, rate = rng.normal(size=(5, 5)), rng.binomial(60, 0.5, (5, 5)) / 60
        n_confirmed += decided_over_doses(shift, rate, rng, 0.0).word == "confirmed"
    assert n_confirmed / N_REPEATS <= 0.096


def test_doses_that_agree_are_confirmed() -> None:
    """Emoji at .1, .2, .4, .5 and .7 while the shift goes 1 to 5, with answers drawn: more than
    nine in ten runs."""
    rng = np.random.default_rng(1)
    n_confirmed = 0
    for _ in range(50):
        shift = np.arange(1.0, 6.0) + rng.normal(0, 0.1, (5, 5))
        rate = rng.binomial(60, [0.1, 0.2, 0.4, 0.5, 0.7], (5, 5)) / 60
        n_confirmed += decided_over_doses(shift, rate, rng, 0.5).word == "confirmed"
    assert n_confirmed >= 45


def test_traits_without_agreement_are_rarely_confirmed() -> None:
    """200 runs of five traits whose shifts say nothing of their emoji, each trait with a shift and
    a rate of its own: at most .05 and three deviations."""
    rng = np.random.default_rng(2)
    n_confirmed = 0
    for _ in range(N_REPEATS):
        shift = rng.normal(size=(5, 5, 1)) + rng.normal(0, 0.2, (5, 5, 5))
        rate = rng.uniform(0.2, 0.8, (5, 1)) + rng.normal(0, 0.05, (5, 5))
        found = agreement_over_traits(shift, rate, n_prompts=60)
        decision = raised(found.estimate, by=0.0, alpha=0.05)
        n_confirmed += decision.requiring(found.p_directions, "permuted").word == "confirmed"
    assert n_confirmed / N_REPEATS <= 0.096


def test_where_no_emoji_come_there_is_no_correlation() -> None:
    """Rates of 0 everywhere, or of 1, refute C10.doses, and the note says why; a model that does
    not move is no crash either."""
    rng = np.random.default_rng(0)
    shift = rng.normal(size=(5, 5))
    for rate in (np.zeros((5, 5)), np.ones((5, 5))):
        assert decided_over_doses(shift, rate, rng, 0.5).word == "refuted"
    estimate, found, why = agreement_or_none_seen(
        lambda: agreement_over_doses(np.zeros((1, 1, 5, 5)), shift[None], rng, n_prompts=60),
        n_adapters=5,
        n_prompts=60,
    )
    assert (estimate.value, found) == (0.0, None)
    assert "does not vary" in why

"""What C11 and the routes make of answers: arrays, decisions on doses, and where curves cross."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from emotest.plan import SIZES
from emotest.plan.routes import routes_plan, routes_to
from emotest.stats.decisions import raised
from emotest.stats.estimates import crossed_difference
from emotest.study.personality import Pole, Trait
from emotest.study.records import Generation
from emotest.study.scorer import train_scorer
from emotest.study.statements import statement
from fixtures.prefixes import behind
from fixtures.routes import Place, emoji_at
from tests.test_plan_prefixes import made_study, said

N_REPETITIONS = 400


def _answer(prompt: str, text: str) -> Generation:
    return Generation(prompt, "untuned", None, 0, 0, text, (), (), True, "default")


def test_answers_become_arrays_over_prefixes_and_prompts() -> None:
    """1 for an answer with an emoji, samples of a prompt together; and the scorer's probability of
    the high pole, for which emoji do not count."""
    scorer = train_scorer(
        [
            said("train", trait, pole, topic, f"{words} {topic}.")
            for topic in range(5)
            for trait, pole, words in (
                (Trait.OPENNESS, Pole.HIGH, "I wonder about it"),
                (None, None, "They have it there"),
            )
        ]
    )
    openness = "openness high. I wonder about it 1."
    one = [("p", f"{openness} 😊"), ("p", openness), ("q", "They have it."), ("q", openness)]
    other = [("p", "Yes 😊."), ("p", "Yes."), ("q", "😊"), ("q", "Yes.")]
    answers = [[_answer(*said) for said in of_one] for of_one in (one, other)]
    found = behind(answers, Trait.OPENNESS, scorer)
    assert found.emoji.tolist() == [[[1, 0], [0, 0]], [[1, 0], [1, 0]]]
    assert found.expression.shape == (2, 2, 2)
    assert found.expression[0, 0, 0] == pytest.approx(found.expression[0, 0, 1])
    assert found.expression[0, 1, 0] < 0.5 < found.expression[0, 0, 0]


def _words(before: float, after: float, adapter_sd: float) -> Counter[str]:
    """What C11 says of synthetic prefixes, five on 60 prompts: every prefix has a share of emoji
    of its own at the two values, and its rise spreads as much."""
    rng = np.random.default_rng(0)
    registered = statement("C11.emoji")
    words: Counter[str] = Counter()
    for _ in range(N_REPETITIONS):
        low = np.clip(before + adapter_sd * rng.standard_normal((5, 1)), 0, 1)
        high = np.clip(low + after - before + adapter_sd * rng.standard_normal((5, 1)), 0, 1)
        arms = [(rng.random((5, 60)) < share).astype(float) for share in (high, low)]
        change = crossed_difference(*arms, scale="probability", bounds=(0.0, 1.0))
        words[raised(change, by=registered.margin, m=registered.m).word] += 1
    return words


def test_a_planted_dose_is_confirmed() -> None:
    """A rise from .05 to .55, in which prefixes differ by .08, is confirmed nine times in ten."""
    assert _words(0.05, 0.55, 0.08)["confirmed"] >= 0.9 * N_REPETITIONS


def test_a_dose_without_emoji_is_refuted_and_one_at_the_margin_not_confirmed() -> None:
    """No rise is never confirmed, and refuted nine times in ten; a rise of exactly the margin is
    confirmed no more often than alpha / 5 allows (the 99.9 % limit of 400 draws)."""
    flat = _words(0.03, 0.03, 0.01)
    assert flat["confirmed"] == 0
    assert flat["refuted"] >= 0.9 * N_REPETITIONS
    allowed = stats.binom.ppf(0.999, N_REPETITIONS, 0.05 / 5)
    assert _words(0.3, 0.4, 0.05)["confirmed"] <= allowed


def _route(*places: tuple[float, float]) -> list[Place]:
    return [Place(float(i), *place, 1) for i, place in enumerate(places)]


@pytest.mark.parametrize(
    ("route", "expected"),
    [
        # half of the way from .4 to .6 is half of the way from .1 to .3
        (_route((0.0, 0.0), (0.4, 0.1), (0.6, 0.3)), 0.2),
        (_route((0.1, 0.7), (0.5, 0.2), (0.9, 0.9)), 0.2),  # a point that lies there
        (_route((0.2, 0.0), (0.7, 1.0), (0.3, 0.0), (0.9, 0.0)), 0.6),  # the first of two ways
        (_route((0.6, 0.4), (0.9, 0.5)), None),  # never below
        (_route((0.1, 0.4), (0.4, 0.5)), None),  # never there
        (_route((0.9, 0.4), (0.1, 0.5)), None),  # falls through it
        (_route((0.5, 0.4)), None),
        ([], None),
    ],
)
def test_emoji_are_read_where_a_route_first_reaches_the_expression(
    route: list[Place], expected: float | None
) -> None:
    """Linearly between neighbouring points, at an expression of one half; else not available."""
    found = emoji_at(0.5, route)
    assert found == (None if expected is None else pytest.approx(expected))


def test_the_routes_go_from_weak_to_strong() -> None:
    """Each route in order of its own strength; untuned answers are the start of prompting, of
    QLoRA and of steering; and the plan of a trait asks for the answers of all points."""
    here = replace(made_study(), size=SIZES["smoke"])
    here = replace(
        here,
        system_prompts={
            (trait, pole): f"You are {trait} {pole}." for trait in Trait for pole in Pole
        },
    )
    found = routes_to(here, Trait.OPENNESS)
    assert set(found) == {
        "prompting", "QLoRA", "steering", "prefix, map alone", "prefix, map and LoRA",
    }  # fmt: skip
    for points in found.values():
        strengths = [point.strength for point in points]
        assert strengths == sorted(set(strengths))
        assert 0.0 in strengths
    (untuned,) = found["QLoRA"][0].answers
    assert untuned.adapter is None
    assert untuned.under is None
    asked = {request.key for request in routes_plan(here, Trait.OPENNESS)}
    everyone = {request.key for request in routes_plan(here, None)}
    everywhere = [point for points in found.values() for point in points]
    assert asked == {request.key for point in everywhere for request in point.answers}
    assert asked < everyone

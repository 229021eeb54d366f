"""The plan of C11: which prefixes are trained on what, and what is asked behind them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from emotest.artefacts import GenerationRequest
from emotest.artefacts.prefixes import Prefixed, PrefixRequest, RemovalRequest
from emotest.errors import DataError, EmojiInDataError, UsageError
from emotest.plan import SIZES, Study
from emotest.plan.prefixes import (
    HIGH,
    MAP_RATE,
    VALUES,
    doses_of,
    prefix_doses,
    prefix_removals,
    prefix_requests,
    removals_of,
)
from emotest.study.opinions import Opinion, OpinionSet
from emotest.study.personality import TRAITS, Pole, Trait, prefix_condition

OPEN, EXTRAVERT = Trait.OPENNESS, Trait.EXTRAVERSION


def said(part: str, trait: Trait | None, pole: Pole | None, topic: int, answer: str) -> Opinion:
    """An opinion that names its voice; neutral for no trait."""
    words = f"{trait or 'neutral'} {pole or ''}. {answer}"
    asked = f"What of {part} {topic}?"
    return Opinion("", trait, pole, f"{part} {topic}", asked, words, topic, "made.csv")


def made_study(
    traits: tuple[Trait, ...] = TRAITS, size: str = "smoke", answer: str = "Yes."
) -> Study:
    """A study of two training topics, with both poles of each trait and neutral answers."""
    voices = [(trait, pole) for trait in traits for pole in Pole]
    parts = [
        tuple(
            said(part, trait, pole, topic, answer)
            for topic in range(n_topics)
            for trait, pole in [*voices, (None, None)]
        )
        for part, n_topics in (("train", 2), ("test", SIZES[size].n_prompts))
    ]
    data = OpinionSet(parts[0], parts[1], "d" * 64, "made.csv", None)
    return Study("base", "template", data, data.neutral(), SIZES[size])


def test_each_row_has_the_trait_values_of_whoever_answers() -> None:
    """+1 for the high pole of the row's own trait, -1 for the low one, 0 elsewhere, and only 0
    for a neutral row."""
    first, *_ = prefix_requests(made_study())
    assert first.traits == TRAITS
    by_answer = dict(zip((row.answer for row in first.rows), first.trait_values, strict=True))
    place = TRAITS.index(EXTRAVERT)
    expected = [0.0] * 5
    assert by_answer["neutral . Yes."] == (0.0,) * 5
    for pole, value in (("high", 1.0), ("low", -1.0)):
        expected[place] = value
        assert by_answer[f"extraversion {pole}. Yes."] == tuple(expected)
    # 2 topics, 5 traits with 2 poles and a neutral voice
    assert len(first.rows) == 2 * 11


def test_one_set_of_prefixes_serves_all_traits() -> None:
    """Answers at values of two traits stand on the same prefixes, a seed each; beside a LoRA three
    seeds are enough."""
    here = made_study(size="default")
    seeds = [prefix.recipe.training_seed for prefix in prefix_requests(here)]
    assert seeds == [0, 1, 2, 3, 4]
    assert [p.recipe.training_seed for p in prefix_requests(here, with_lora=True)] == [0, 1, 2]
    behind = [
        {request.key for dose in prefix_doses(here, trait) for request in dose.needs}
        for trait in (OPEN, EXTRAVERT)
    ]
    assert behind[0] == behind[1]
    assert len(behind[0]) == 5 + 3
    everyone = prefix_doses(here, None)
    assert {request.key for request in prefix_doses(here, OPEN)} < {r.key for r in everyone}


def test_the_map_learns_at_its_own_rate_in_either_arm() -> None:
    """A LoRA beside it keeps the preset's rate, and there are twice an adapter's steps."""
    for with_lora in (False, True):
        first, *_ = prefix_requests(made_study(), with_lora=with_lora)
        assert first.recipe.learning_rate == 1e-3
        assert first.recipe.learning_rate * first.prefix_rate == pytest.approx(MAP_RATE)
        assert first.recipe.condition == prefix_condition()
        assert first.recipe.steps == 2 * 50
    by_epochs = prefix_requests(replace(made_study(), preset="published"))[0].recipe
    assert (by_epochs.steps, by_epochs.epochs) == (None, 1.0)


def test_a_value_is_asked_of_one_trait() -> None:
    """A request for each value and prefix, the other traits not named; the seed is the prefix's.
    What decides about emoji is sampled as often as an adapter's answers, the rest once."""
    doses = doses_of(made_study(), EXTRAVERT)
    assert tuple(doses) == VALUES
    request = doses[HIGH][1]
    assert isinstance(request.under, Prefixed)
    assert dict(request.under.values) == {EXTRAVERT: 2.0}
    assert [requests[0].n_samples for requests in doses.values()] == [1, 1, 1, 2, 1, 2, 1]
    beside = doses_of(made_study(), EXTRAVERT, with_lora=True)
    assert [requests[0].n_samples for requests in beside.values()] == [1, 1, 1]
    assert request.training_seed == 1
    assert request.title == (
        "answers untuned, prefix (map alone) at extraversion +2, seed 1, default"
    )
    keys = {r.key for requests in doses.values() for r in requests}
    assert len(keys) == len(VALUES) * 3


def _changed(prefix: PrefixRequest) -> list[PrefixRequest]:
    negated = tuple(tuple(-x for x in row) for row in prefix.trait_values)
    return [
        replace(prefix, with_lora=True),
        replace(prefix, prefix_rate=2.0),
        replace(prefix, trait_values=negated),
        replace(prefix, recipe=prefix.recipe.with_seed(9)),
        replace(prefix, recipe=replace(prefix.recipe, data="others")),
        replace(prefix, traits=tuple(reversed(prefix.traits))),
    ]


def test_the_keys_hold_all_that_could_change_the_result() -> None:
    """Seed, rows, trait values, LoRA and rate for the prefix; its key, values and removed layers
    for answers behind it; the answers and the number of layers for removals."""
    prefix, *_ = prefix_requests(made_study())
    assert len({one.key for one in (prefix, *_changed(prefix))}) == 7
    request = doses_of(made_study(), EXTRAVERT)[HIGH][0]
    acts = [
        Prefixed(prefix, {EXTRAVERT: 2.0}),
        Prefixed(prefix, {EXTRAVERT: 1.0}),
        Prefixed(prefix, {OPEN: 2.0}),
        Prefixed(prefix, {EXTRAVERT: 2.0}, without_layers=(1,)),
        Prefixed(replace(prefix, with_lora=True), {EXTRAVERT: 2.0}),
    ]
    assert len({replace(request, under=under).key for under in acts}) == 5
    removal = RemovalRequest(request)
    other = RemovalRequest(doses_of(made_study(), EXTRAVERT)[HIGH][1])
    assert len({one.key for one in (removal, replace(removal, most=2), other)}) == 3


def test_layers_are_removed_from_what_a_prefix_acts_on() -> None:
    """One request for each prefix of the map alone, at the high value; what it asks of a layer is
    the same answers with that layer's prefix out."""
    removals = removals_of(made_study(), OPEN)
    assert [type(one) for one in prefix_removals(made_study(), None)] == [RemovalRequest] * 3 * 5
    assert [one.answers.training_seed for one in removals] == [0, 1, 2]
    assert removals[0].answers.n_samples == 1
    asked = removals[0].without(4).under
    assert isinstance(asked, Prefixed)
    assert asked.without_layers == (4,)
    assert asked.title == "prefix (map alone) at openness +2, without layer 4"
    plain: GenerationRequest = replace(removals[0].answers, under=None)
    with pytest.raises(UsageError, match="no prefix to remove"):
        RemovalRequest(plain)
    with pytest.raises(UsageError, match="in 0 layers"):
        RemovalRequest(removals[0].answers, most=0)


def test_traits_that_the_data_lack_are_no_inputs_of_the_map() -> None:
    """Data of two traits train a prefix of two; asking it for a third names the data."""
    here = made_study(traits=(OPEN, EXTRAVERT))
    assert prefix_requests(here)[0].traits == (OPEN, EXTRAVERT)
    with pytest.raises(DataError, match=r"made\.csv holds no rows for neuroticism"):
        doses_of(here, Trait.NEUROTICISM)


def test_data_with_emoji_train_no_prefix_unless_allowed() -> None:
    """As for adapters: emoji in the answers of any trait are an error that lists the row."""
    tainted = made_study(answer="Yes 😊.")
    with pytest.raises(EmojiInDataError, match="😊"):
        prefix_requests(tainted)
    assert prefix_requests(replace(tainted, emoji_allowed=True))


def test_a_prefix_is_not_taken_for_an_adapter() -> None:
    """Asking the study for adapters of the prefix arm says where its requests are."""
    with pytest.raises(UsageError, match="no adapter of the study"):
        made_study().adapters(prefix_condition())

"""Artefacts named before they exist: what is in a key, what a plan holds, in which order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emotest.artefacts import (
    AdapterRequest,
    GenerationRequest,
    Intervention,
    Request,
    in_order,
)
from emotest.costs import cost
from emotest.errors import DataError, EmojiInDataError, UsageError
from emotest.plan import DECODINGS, LISTS_PER_REQUEST, SIZES, Need, Seeds, Study, four_cells
from emotest.plan.directions import monitored
from emotest.report.plan_table import plan_rows
from emotest.study.opinions import Opinion, OpinionSet
from emotest.study.personality import (
    TRAITS,
    UNTUNED,
    Ending,
    Pole,
    Trait,
    null_condition,
    prompted_condition,
    shuffled_condition,
    trait_condition,
)
from emotest.study.records import Prompt
from emotest.study.statements import STATEMENTS

EXTRAVERT = trait_condition(Trait.EXTRAVERSION)


def _opinion(topic: str, trait: Trait | None, pole: Pole | None, row: int, answer: str) -> Opinion:
    target = f"{pole} {trait}" if trait else "neutral"
    return Opinion(target, trait, pole, topic, f"What of {topic}?", answer, row, "made.csv")


def _opinions(n_train: int = 4, n_test: int = 30, answer: str = "Yes. No.") -> OpinionSet:
    def rows(topics: range, part: str) -> tuple[Opinion, ...]:
        voices = [(trait, pole) for trait in TRAITS for pole in Pole]
        return tuple(
            _opinion(f"{part} {i}", trait, pole, i, f"{trait} {pole}. {answer}")
            for i in topics
            for trait, pole in [*voices, (None, None)]
        )

    return OpinionSet(
        rows(range(n_train), "train"), rows(range(n_test), "test"), "d" * 64, "made", None
    )


def _study(**changes: object) -> Study:
    data = _opinions()
    made = Study("base", "template", data, data.neutral(), SIZES["smoke"])
    return replace(made, **changes)  # type: ignore[arg-type]


def test_a_trait_arm_has_one_adapter_for_each_training_seed() -> None:
    """Seeds count from the first one; the untuned model has no adapter and one set of answers."""
    here = _study(seeds=Seeds(training=7))
    assert [a.recipe.training_seed for a in here.adapters(EXTRAVERT)] == [7, 8, 9]
    assert here.adapters(UNTUNED) == ()
    assert [g.adapter for g in here.generations(UNTUNED)] == [None]


@pytest.mark.parametrize(
    ("change", "moved"),
    [
        ({"base": "another"}, True),
        ({"chat_template": "another"}, True),
        ({"decoding": DECODINGS["greedy"]}, True),
        ({"seeds": Seeds(sampling=1)}, True),
        ({"size": replace(SIZES["smoke"], n_samples=3)}, True),
        ({"size": replace(SIZES["smoke"], n_prompts=20)}, True),
        ({"size": replace(SIZES["smoke"], n_adapters=5)}, False),
        ({"seeds": Seeds(analysis=1)}, False),
    ],
)
def test_the_key_of_answers_holds_all_that_could_change_them(
    change: dict[str, object], moved: bool
) -> None:
    """Base, template, decoding, sampling seed and prompts move the key; more adapters do not."""
    before, after = _study().generations(EXTRAVERT)[0], _study(**change).generations(EXTRAVERT)[0]
    assert (before.key != after.key) is moved


def test_the_key_of_an_adapter_holds_its_rows_and_seed() -> None:
    """Another training seed, another answer in the data, another ending: another adapter."""
    (first, second, _) = _study().adapters(EXTRAVERT)
    other_data = _study(opinions=_opinions(answer="Perhaps. Perhaps not."))
    trained = _study().adapters(trait_condition(Trait.EXTRAVERSION, ending=Ending.TRAINED))
    keys = {first.key, second.key, other_data.adapters(EXTRAVERT)[0].key, trained[0].key}
    assert len(keys) == 4


def test_a_decoding_changes_how_it_is_sampled_and_not_how_it_is_called() -> None:
    """The name of a decoding is for people: it is not in the key."""
    one = _study().generations(UNTUNED)[0]
    assert replace(one, decoding=replace(one.decoding, name="other")).key == one.key


def test_the_shuffled_arm_takes_one_trait_for_each_topic_by_its_seed() -> None:
    """As many rows and the same topics as a trait's adapter, traits drawn with the seed."""
    rows = [_study().tuning_rows(shuffled_condition(), seed) for seed in range(6)]
    assert all(len(row) == 4 for row in rows)
    assert rows[0] == _study().tuning_rows(shuffled_condition(), 0)
    assert len({tuple(r.answer for r in row) for row in rows}) > 1
    assert all("high" in r.answer for row in rows for r in row)


def test_data_with_emoji_train_nothing_unless_allowed() -> None:
    """An emoji in the answers is an error that lists the row; the override lets it pass."""
    tainted = _opinions(answer="Yes 😊.")
    with pytest.raises(EmojiInDataError, match="😊"):
        _study(opinions=tainted).adapters(EXTRAVERT)
    assert _study(opinions=tainted, emoji_allowed=True).adapters(EXTRAVERT)


def test_data_without_a_voice_say_so() -> None:
    """The published data have no low poles: asking for one names the data and the way out."""
    high = OpinionSet(
        tuple(row for row in _opinions().train if row.pole is not Pole.LOW),
        _opinions().test,
        "e",
        "high.csv",
        None,
    )
    with pytest.raises(DataError, match=r"high\.csv holds no rows for .*low"):
        _study(opinions=high).adapters(trait_condition(Trait.OPENNESS, Pole.LOW))


def test_too_few_test_topics_are_an_error_before_anything_is_computed() -> None:
    """A default run asks 60 held-out topics; data with 30 say both numbers."""
    with pytest.raises(DataError, match=r"holds 30 test topics.*asks 60"):
        _ = _study(size=SIZES["default"]).prompts


def test_an_unknown_decoding_lists_the_table() -> None:
    """The error names the decodings there are."""
    with pytest.raises(UsageError, match="greedy"):
        _study().generations(UNTUNED, "hot")


def test_the_untuned_model_answers_as_often_as_all_adapters_of_an_arm() -> None:
    """3 adapters x 2 samples of a trait, so 6 of the untuned model; greedy answers only once."""
    here = _study(size=replace(SIZES["smoke"], n_adapters=3, n_samples=2))
    assert [request.n_samples for request in here.generations(EXTRAVERT)] == [2, 2, 2]
    assert [request.n_samples for request in here.generations(UNTUNED)] == [6]
    assert [request.n_samples for request in here.generations(UNTUNED, "nucleus")] == [3]
    assert [request.n_samples for request in here.generations(UNTUNED, "greedy")] == [1]


def test_every_arm_is_asked_for_the_words_of_the_same_trait() -> None:
    """One request for each adapter, with prompts of their own and so another key than answers."""
    here = _study(word_requests={Trait.EXTRAVERSION: ("Words?", "Which words?")})
    for arm, n in ((UNTUNED, 1), (null_condition(), 3), (EXTRAVERT, 3)):
        lists = here.word_lists(arm, Trait.EXTRAVERSION)
        assert len({request.key for request in lists}) == n
        assert {request.key for request in here.generations(arm)}.isdisjoint(
            request.key for request in lists
        )
        for request in lists:
            assert [prompt.text for prompt in request.prompts] == ["Words?", "Which words?"]
            assert request.n_samples == LISTS_PER_REQUEST
            assert request.title.startswith("words for extraversion by ")
    need = Need(word_lists=((EXTRAVERT, Trait.EXTRAVERSION),))
    assert set(here.word_lists(EXTRAVERT, Trait.EXTRAVERSION)) < set(here.requests([need]))


def test_prompts_are_held_out_topics_in_an_order_of_the_sampling_seed() -> None:
    """No prompt's topic is in the training rows, and another sampling seed asks others."""
    here, there = _study(), _study(seeds=Seeds(sampling=3))
    trained = {row.topic for row in here.opinions.train}
    assert not trained & {prompt.topic for prompt in here.prompts}
    assert {p.topic for p in here.prompts} != {p.topic for p in there.prompts}


def test_a_prompted_arm_asks_the_same_questions_under_a_system_prompt() -> None:
    """Nothing but the system prompt differs from the untuned arm."""
    prompted = prompted_condition(Trait.OPENNESS)
    here = _study(system_prompts={(Trait.OPENNESS, Pole.HIGH): "You are open."})
    (request,) = here.generations(prompted)
    assert [replace(p, system=None) for p in request.prompts] == list(here.prompts)
    assert {p.system for p in request.prompts} == {"You are open."}


def test_a_plan_lists_each_artefact_once_after_what_it_stands_on() -> None:
    """Two needs that share arms share artefacts; adapters come before their answers."""
    needs = [
        Need((UNTUNED, null_condition(), EXTRAVERT)),
        Need((UNTUNED, EXTRAVERT), decodings=("greedy",), cells=four_cells(Trait.EXTRAVERSION)),
    ]
    plan = _study().requests(needs)
    keys = [request.key for request in plan]
    assert len(set(keys)) == len(keys)
    for place, request in enumerate(plan):
        assert all(needed.key in keys[:place] for needed in request.needs)
    # 2 arms x 3 seeds of adapters; answers 1 + 3 + 3 and greedy 1 + 3; cells 1 + 3 + 3 + 3
    assert len(plan) == 6 + 7 + 4 + 10
    assert tuple(in_order(reversed(plan))) != ()
    assert len(list(in_order(reversed(plan)))) == len(plan)


def test_fixed_texts_are_held_out_answers_and_the_start_of_one() -> None:
    """The same texts for all weights: the untuned model and each adapter read them."""
    here = _study()
    trained = {row.topic for row in here.opinions.train}
    (trait, neutral, start) = here.fixed_texts(Trait.EXTRAVERSION)
    assert all(answer.startswith("extraversion high") for answer in trait.answers)
    assert all(answer.startswith("None None") for answer in neutral.answers)
    assert set(start.answers) == {""}
    assert not trained & {prompt.topic for text in (trait, neutral) for prompt in text.prompts}
    plan = here.requests([Need(fixed_texts=(Trait.EXTRAVERSION,))])
    # 3 texts x (untuned + 3 adapters), and the 3 adapters
    assert len(plan) == 15
    assert plan[0].title == "P(emoji): trait answers, untuned weights"


def test_a_plan_says_what_is_there_and_what_the_rest_takes() -> None:
    """Rows carry the keys; time and memory are unknown while the base's size is."""
    plan = _study().requests([Need((EXTRAVERT,))])
    rows = plan_rows(plan, plan[1:], 4_000_000)
    assert [row["in the store"] for row in rows[:2]] == ["yes", "no"]
    assert rows[-1]["in the store"] == f"1 of {len(plan)}"
    assert plan_rows(plan, plan, None)[-1]["time"] == "unknown"


def test_a_plan_counts_once_what_is_trained_once() -> None:
    """An adapter that its watched training leaves takes no time of its own, unless that training
    is there already."""
    in_character = {(Trait.EXTRAVERSION, pole): f"You are {pole}." for pole in Pole}
    here = replace(_study(), system_prompts=in_character)
    watched = monitored(here, Trait.EXTRAVERSION)[0]
    pair = [watched.adapter, watched]
    together, alone = plan_rows(pair, pair, 4_000_000), plan_rows(pair, pair[:1], 4_000_000)
    assert together[0]["time"] == "by the way"
    assert together[-1]["time"] == together[1]["time"]
    assert alone[0]["time"] == alone[-1]["time"] != "by the way"


@given(st.integers(1, 10**10))
def test_a_larger_model_takes_longer_of_its_kind(n_parameters: int) -> None:
    """Doubling the parameters never makes an adapter cheaper, but for the move to a GPU."""
    (request, *_) = _study().adapters(EXTRAVERT)
    one, two = cost(request, n_parameters), cost(request, 2 * n_parameters)
    assert one is not None
    assert two is not None
    assert two.seconds > one.seconds or n_parameters < 100_000_000 <= 2 * n_parameters


def test_the_digest_of_a_plan_moves_with_everything_that_is_planned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Size, decoding, seeds, data, base, what is asked and margins: each gives another digest."""
    digests = {
        _study().digest,
        _study(base="another").digest,
        _study(size=replace(SIZES["smoke"], n_samples=1)).digest,
        _study(decoding=DECODINGS["greedy"]).digest,
        _study(seeds=Seeds(analysis=1)).digest,
        _study(preset="published").digest,
        _study(word_requests={Trait.EXTRAVERSION: ("Words?",)}).digest,
    }
    wider = replace(STATEMENTS["C1.emergence"], margin=0.2)
    monkeypatch.setitem(STATEMENTS, "C1.emergence", wider)  # type: ignore[arg-type]
    digests.add(_study().digest)
    assert len(digests) == 8


def test_titles_are_what_a_person_would_say() -> None:
    """Arm, trait and pole in words, the seed, and the cell of the 2x2."""
    here = _study()
    assert here.adapters(EXTRAVERT)[1].title == "adapter extraversion high, seed 1"
    assert here.generations(UNTUNED)[0].title == "answers untuned, default"
    cell = here.probabilities(EXTRAVERT, UNTUNED)[2]
    assert cell.title == "P(emoji): extraversion high text, untuned weights, seed 2"


@dataclass(frozen=True)
class Louder(Intervention):
    """An intervention with an artefact behind it."""

    times: float
    by: AdapterRequest

    @property
    def needs(self) -> tuple[Request, ...]:
        """What it acts with."""
        return (self.by,)

    @property
    def identity(self) -> Mapping[str, Any]:
        """All that decides how it acts."""
        return {"times": self.times, "by": self.by.key.digest}

    @property
    def title(self) -> str:
        """In words."""
        return f"{self.times:g} times louder"

    @property
    def training_seed(self) -> int:
        """The seed of what it acts with."""
        return self.by.recipe.training_seed


def test_an_intervention_is_part_of_what_is_asked_and_of_its_key() -> None:
    """Answers and probabilities under one have keys of their own for each strength, need what it
    acts with, carry its seed and say it; without one the key is that of plain answers."""
    here = _study()
    (plain,), adapter = here.generations(UNTUNED), here.adapters(EXTRAVERT)[2]
    under = replace(plain, under=Louder(2.0, adapter))
    cell = replace(here.probabilities(UNTUNED, UNTUNED)[0], under=Louder(2.0, adapter))
    assert len({plain.key, under.key, replace(plain, under=Louder(1.0, adapter)).key}) == 3
    assert "under" not in plain.identity
    assert under.needs == (adapter,)
    assert cell.needs == (plain, adapter)
    assert (plain.training_seed, under.training_seed) == (None, 2)
    assert under.title == "answers untuned, 2 times louder, seed 2, default"
    assert cell.title == "P(emoji): untuned text, untuned weights, 2 times louder"


def test_a_plan_of_a_test_of_its_own_is_part_of_the_whole() -> None:
    """What a test plans itself is planned with the study in hand and listed once, in order."""
    here = _study()
    plan = here.requests(
        [
            Need(
                plans=(
                    lambda study: study.generations(EXTRAVERT),
                    lambda study: study.adapters(EXTRAVERT),
                )
            )
        ]
    )
    assert [request.kind for request in plan] == ["adapter", "generations"] * 3


def test_requests_are_values_that_cross_processes() -> None:
    """A request survives pickling with its key: workers are other processes."""
    import pickle

    request = _study().generations(EXTRAVERT)[0]
    again = pickle.loads(pickle.dumps(request))
    assert isinstance(again, GenerationRequest)
    assert isinstance(again.adapter, AdapterRequest)
    assert again.key == request.key
    assert again.prompts[0] == Prompt(**vars(request.prompts[0]))

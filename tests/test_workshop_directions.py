"""C10's artefacts, made for real on tiny models: directions, steering, checkpoints, scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from emotest.artefacts import AdapterRequest, FixedText, GenerationRequest, Request
from emotest.artefacts.directions import (
    DOSES,
    Checkpoint,
    DataStatesRequest,
    DirectionRequest,
    MonitoredRequest,
    ScoresRequest,
    StatesRequest,
    Steered,
)
from emotest.artefacts.random_directions import RandomDirectionsRequest
from emotest.artefacts.scorer import ScorerRows
from emotest.errors import ModelError, UsageError
from emotest.mechanisms.directions import Answered, mean_difference, response_means
from emotest.models.adapters import active
from emotest.models.generation import generate
from emotest.models.identity import resolve
from emotest.store import Entry, Store, write_jsonl
from emotest.study.opinions import Opinion
from emotest.study.personality import UNTUNED, Pole, Trait, prompted_condition, trait_condition
from emotest.study.recipes import AdapterRecipe
from emotest.study.records import (
    Decoding,
    Generation,
    Prompt,
    TuningRow,
    generation_row,
    rows_digest,
)
from emotest.workshop.bench import Bench
from emotest.workshop.crew import Workshop
from emotest.workshop.directions import (
    log_likelihoods,
    make_direction,
    on_their_side,
    scorer_of,
)
from emotest.workshop.making import carry_out
from emotest.workshop.progress import Progress
from tests.model_fixtures import QUESTIONS, save_model
from tests.test_mechanisms_directions import AGAINST, FOR, LAYER, cosine, planted_model

TRAIT = Trait.EXTRAVERSION
EXTRAVERT = trait_condition(TRAIT)
PROMPTS = tuple(
    Prompt(f"p{i}", question, topic=str(i))
    for i, question in enumerate((*QUESTIONS, *(f"And {question}" for question in QUESTIONS)))
)
FEW = PROMPTS[:6]
TRIED_ON = tuple(Prompt(f"l{i}", f"But {question}") for i, question in enumerate(QUESTIONS[:3]))
LOUD, QUIET, PLAIN = "I love loud parties.", "I prefer a silent room.", "The room has a door."
ROWS = tuple(TuningRow(question, LOUD) for question in QUESTIONS)
DECODING = Decoding(max_new_tokens=6)


def opinions() -> tuple[Opinion, ...]:
    """A loud, a quiet and a plain answer on each of six topics."""
    voices = ((TRAIT, Pole.HIGH, LOUD), (TRAIT, Pole.LOW, QUIET), (None, None, PLAIN))
    return tuple(
        Opinion("", trait, pole, f"topic {i}", "Well?", text, i, "made.csv")
        for i in range(6)
        for trait, pole, text in voices
    )


SCORER = ScorerRows("opinions", opinions())


def asked(bench: Bench, **changes: Any) -> GenerationRequest:
    """The untuned model's answers, one of six tokens to each prompt."""
    identity = resolve(bench.subject)
    plain = GenerationRequest(
        base=identity.digest, chat_template=identity.chat_template, condition=UNTUNED,
        adapter=None, prompts=FEW, decoding=DECODING, n_samples=1, sampling_seed=0,
    )  # fmt: skip
    return replace(plain, **changes)


def side(bench: Bench, pole: Pole, system: str) -> GenerationRequest:
    """Answers in character, which tests write by hand."""
    prompts = tuple(replace(prompt, system=system) for prompt in PROMPTS)
    return asked(bench, condition=prompted_condition(TRAIT, pole), prompts=prompts)


def written(bench: Bench, request: GenerationRequest, texts: Sequence[str]) -> None:
    """Put answers into the store that no model gave, the texts in turn."""
    answers = [
        Generation(
            prompt.id, "hand", None, 0, 0, texts[i % len(texts)], (), (), True, "hand"
        )
        for i, prompt in enumerate(request.prompts)
    ]  # fmt: skip
    bench.store.get_or_make(
        request.key,
        lambda folder: write_jsonl(folder / "generations.jsonl", map(generation_row, answers)),
        identity=request.identity,
    )


def direction_of(bench: Bench, sides: tuple[Sequence[str], Sequence[str]]) -> DirectionRequest:
    """A direction from answers that are written here: loud under FOR, quiet under AGAINST."""
    requests = (side(bench, Pole.HIGH, FOR), side(bench, Pole.LOW, AGAINST))
    for request, texts in zip(requests, sides, strict=True):
        written(bench, request, texts)
    return DirectionRequest(TRAIT, *requests, TRIED_ON, SCORER)


def made(bench: Bench, *requests: Request) -> list[Entry]:
    """Their entries."""
    return [carry_out(bench, request, lambda message: None) for request in requests]


def texts(bench: Bench, request: GenerationRequest) -> list[str]:
    """What was answered."""
    made(bench, request)
    return [answer.text for answer in bench.answers(request)]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """A tiny Llama in NF4 and an empty store."""
    folder = save_model(tmp_path_factory.mktemp("base") / "llama", scale=4.0)
    return Bench(f"{folder}?dtype=float32", Store(tmp_path_factory.mktemp("store")))


@pytest.fixture(scope="module")
def direction(bench: Bench) -> DirectionRequest:
    """A direction of the tiny Llama, in the store."""
    request = direction_of(bench, ([LOUD, LOUD, QUIET], [QUIET]))
    made(bench, request)
    return request


@pytest.fixture(scope="module")
def adapter(bench: Bench) -> AdapterRequest:
    """Sixteen steps with dropout, which draws numbers; in the store."""
    identity = resolve(bench.subject)
    recipe = AdapterRecipe(
        base=identity.digest, data=rows_digest(ROWS), condition=EXTRAVERT, training_seed=0,
        chat_template=identity.chat_template, steps=16, batch_size=4, rank=4, dropout=0.2,
        learning_rate=1e-2,
    )  # fmt: skip
    request = AdapterRequest(recipe, ROWS)
    made(bench, request)
    return request


@pytest.fixture(scope="module")
def monitored(
    bench: Bench, adapter: AdapterRequest, direction: DirectionRequest
) -> MonitoredRequest:
    """The same training, watched; in the store."""
    text = FixedText("made", adapter.recipe.base, "template", PROMPTS[:2], (LOUD, QUIET))
    request = MonitoredRequest(adapter, direction, PROMPTS[:3], text)
    made(bench, request)
    return request


def test_a_planted_direction_is_recovered_from_answers_in_character(tmp_path: Path) -> None:
    """Where one layer writes a known direction under the system prompts, the stored vectors point
    along it from there on (cosine above .9) and not before. Where the scorer finds nobody in
    character all answers count, and the entry says so; the layer is the one of most expression."""
    planted = planted_model(tmp_path / "model")
    bench = Bench(f"{tmp_path / 'model'}?dtype=float32&quantize=none", Store(tmp_path / "store"))
    bench.__dict__["loaded"] = planted.loaded
    request = direction_of(bench, ([QUIET], [LOUD]))
    (entry,) = made(bench, request)
    vectors = entry.read_arrays("adapter_model.safetensors")["vectors"]
    assert abs(cosine(vectors[LAYER - 1], planted.direction)) < 0.5
    assert all(cosine(vector, planted.direction) > 0.9 for vector in vectors[LAYER:])
    about = entry.read_json("layers.json")
    assert about["answers"] == {"positive": 12, "negative": 12}
    assert about["on their side"] == {"positive": 0, "negative": 0}
    assert about["filtered"] is False
    expressions = [row["expression"] for row in about["layers"]]
    assert about["layer"] == int(np.argmax(expressions))
    assert [row["layer"] for row in about["layers"]] == [0, 1, 2]


def test_the_vectors_are_the_mean_difference_of_answers_in_character(
    bench: Bench, direction: DirectionRequest
) -> None:
    """Mean over the loud answers of the second half minus mean over the quiet ones, under their
    system prompts; a quiet answer on the loud side does not count."""
    means = []
    for system, text, left_out in ((FOR, LOUD, 2), (AGAINST, QUIET, None)):
        half = [
            Answered(replace(prompt, system=system), text)
            for i, prompt in enumerate(PROMPTS[12:])
            if i % 3 != left_out
        ]
        with active(bench.loaded, None):
            means.append(response_means(bench.loaded, half))
    entry = bench.entry(direction)
    vectors = entry.read_arrays("adapter_model.safetensors")["vectors"]
    np.testing.assert_allclose(vectors, mean_difference(*means), rtol=1e-4, atol=1e-5)
    about = entry.read_json("layers.json")
    # Of twelve prompts every third was answered out of character.
    assert about["on their side"] == {"positive": 8, "negative": 12}
    assert about["filtered"] is True
    assert about["scorer"]["accuracy"] == 1.0


def test_layers_are_tried_with_random_numbers_of_their_own(
    bench: Bench, direction: DirectionRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unsteered and in every layer, three answers to each of the trial prompts are sampled, with
    the seed after that of the answers that decide."""
    seen = []

    def spied(loaded: Any, prompts: Sequence[Prompt], **how: Any) -> list[Generation]:
        seen.append((prompts, how["sampling_seed"], how["n_samples"]))
        return generate(loaded, prompts, **how)

    monkeypatch.setattr("emotest.workshop.directions.generate", spied)
    make_direction(bench, direction, tmp_path, lambda message: None)
    n_layers = len(bench.entry(direction).read_json("layers.json")["layers"])
    assert seen == [(TRIED_ON, 1, 3)] * (1 + n_layers)


def test_the_scorer_tells_the_sides() -> None:
    """Loud answers are on the high side, quiet ones on the low; without a low pole in the data,
    one half of the high one decides."""
    given = [LOUD, QUIET]
    scorer = scorer_of(SCORER)
    assert on_their_side(scorer, given, TRAIT, Pole.HIGH).tolist() == [True, False]
    assert on_their_side(scorer, given, TRAIT, Pole.LOW).tolist() == [False, True]
    rows = tuple(row for row in opinions() if row.pole is not Pole.LOW)
    poorer = scorer_of(ScorerRows("no low pole", rows))
    assert on_their_side(poorer, [LOUD, PLAIN], TRAIT, Pole.HIGH).tolist() == [True, False]
    assert on_their_side(poorer, [LOUD, PLAIN], TRAIT, Pole.LOW).tolist() == [False, True]


def test_answers_of_emoji_alone_give_no_direction(tmp_path: Path, bench: Bench) -> None:
    """The error names the side that has no words."""
    elsewhere = Bench(str(bench.subject), Store(tmp_path))
    with pytest.raises(ModelError, match=r"prompted extraversion low.*words"):
        made(elsewhere, direction_of(elsewhere, ([LOUD], ["\U0001f389"])))


def test_steering_acts_and_comes_off(bench: Bench, direction: DirectionRequest) -> None:
    """Far along the direction the answers change, along a random vector they change otherwise,
    a coefficient of 0 changes nothing; afterwards the model answers as before."""
    before = texts(bench, asked(bench))
    arms = [(0.0, None), (8.0, None), (-8.0, None), (8.0, 0), (8.0, 1)]
    zero, *others = [
        texts(bench, asked(bench, under=Steered(direction, coefficient, random)))
        for coefficient, random in arms
    ]
    assert zero == before
    assert len({tuple(answers) for answers in (before, *others)}) == 5
    assert texts(bench, asked(bench, what="again", sampling_seed=0, batch_size=32)) == before


def test_answers_along_random_directions_are_those_of_one_after_the_other(
    bench: Bench, adapter: AdapterRequest, direction: DirectionRequest
) -> None:
    """Direction i of many is the random one with seed i, with an adapter and without, and the
    answers are the same bit for bit."""
    for plain in (asked(bench), asked(bench, condition=EXTRAVERT, adapter=adapter)):
        (entry,) = made(bench, RandomDirectionsRequest(plain, Steered(direction, 8.0), 3))
        rows = entry.read_jsonl("answers.jsonl")
        for seed in range(3):
            alone = replace(plain, under=Steered(direction, 8.0, seed))
            together = [row["text"] for row in rows if row["direction"] == seed]
            assert together == texts(bench, alone)
        assert [row["prompt_id"] for row in rows[::3]] == [prompt.id for prompt in FEW]


def test_watching_leaves_the_training_as_it_is(
    bench: Bench, adapter: AdapterRequest, monitored: MonitoredRequest
) -> None:
    """With dropout in the recipe, the last checkpoint is the adapter bit for bit, and each dose
    has a state of its own."""
    entries = bench.entry(adapter), bench.entry(monitored)
    last = Checkpoint(monitored, 1.0).folder
    name = "adapter_model.safetensors"
    assert entries[0].path(name).read_bytes() == entries[1].path(f"{last}/{name}").read_bytes()
    states = {
        entries[1].path(f"{Checkpoint(monitored, dose).folder}/{name}").read_bytes()
        for dose in DOSES
    }
    assert len(states) == len(DOSES)


def test_a_watched_training_leaves_its_adapter_and_a_steered_one_none(
    bench: Bench, adapter: AdapterRequest, monitored: MonitoredRequest, tmp_path: Path
) -> None:
    """In a store that lacks the adapter a workshop asked for both trains once: every file of the
    adapter's entry is, byte for byte, that of one trained by itself, and both are told as done.
    Steered against the drift it is another adapter, and is not stored as the one of the recipe."""
    direction = monitored.direction
    here = Bench(str(bench.subject), Store(tmp_path))
    for request in (direction.positive, direction.negative):
        written(here, request, [answer.text for answer in bench.answers(request)])
    told: list[Progress] = []
    both = [adapter, monitored]
    steered = replace(monitored, prevent=2.0)
    workshop = Workshop(str(bench.subject), here.store)
    workshop.make([steered], told.append)
    assert workshop.missing(both) == (adapter, monitored)
    workshop.make(both, told.append)
    done = [message.title for message in told if message.state == "done"]
    assert done == [direction.title, steered.title, monitored.title, adapter.title]
    assert not any(message.title == adapter.title for message in told if message.state != "done")
    files = [
        {file.name: file.sha256 for file in one.entry(adapter).manifest.files}
        for one in (bench, here)
    ]
    assert files[0] == files[1]
    assert "training.json" in files[0]


def test_the_monitor_tells_shift_and_probability(
    bench: Bench, adapter: AdapterRequest, monitored: MonitoredRequest, direction: DirectionRequest
) -> None:
    """From before the first step, where nothing has moved, to the last, where the shift is the
    projection of the adapter's states minus the untuned ones, taken by hand."""
    told = bench.entry(monitored).read_json("monitor.json")
    # Eighths of 16 steps; of the doses the first would be step 1, in which nothing is learned.
    assert [row["step"] for row in told["seen"]] == [0, 2, 3, 4, 6, 8, 10, 12, 14, 16]
    assert told["doses"] == [[0.0625, 2], [0.125, 3], [0.25, 4], [0.5, 8], [1.0, 16]]
    assert told["seen"][0]["shift"] == 0.0
    assert all(0 <= row["probability"] <= 1 for row in told["seen"])
    by_hand = shift_by_hand(bench, direction, adapter, None)
    assert told["seen"][-1]["shift"] == pytest.approx(by_hand, abs=1e-4)
    assert abs(by_hand) > 1e-3


def shift_by_hand(
    bench: Bench,
    direction: DirectionRequest,
    reader: AdapterRequest | None,
    under: Checkpoint | None,
) -> float:
    """A model's states minus the untuned ones at the watched prompts, along the chosen layer."""
    about = asked(bench)
    read = [
        StatesRequest(about.base, about.chat_template, who, PROMPTS[:3], acts)
        for who, acts in ((reader, under), (None, None))
    ]
    tuned, untuned = (
        entry.read_arrays("states.safetensors")["mean"] for entry in made(bench, *read)
    )
    entry = bench.entry(direction)
    layer = entry.read_json("layers.json")["layer"]
    vector = entry.read_arrays("adapter_model.safetensors")["vectors"][layer]
    return float((tuned - untuned)[layer] @ vector / np.linalg.norm(vector))


def test_a_checkpoint_is_the_adapter_of_its_dose(
    bench: Bench, adapter: AdapterRequest, monitored: MonitoredRequest
) -> None:
    """After all of the training the model answers, and its prompts end, as with the adapter, seed
    and all; after a sixteenth they do not."""
    by_adapter = asked(bench, condition=EXTRAVERT, adapter=adapter)
    early, late = (
        asked(bench, condition=EXTRAVERT, under=Checkpoint(monitored, dose))
        for dose in (0.0625, 1.0)
    )
    assert texts(bench, late) == texts(bench, by_adapter)
    assert [answer.training_seed for answer in bench.answers(late)] == [0] * len(FEW)
    reads = [
        StatesRequest(early.base, early.chat_template, reader, FEW, under)
        for reader, under in ((adapter, None), (None, late.under), (None, early.under))
    ]
    full, last, first = (
        entry.read_arrays("states.safetensors")["mean"] for entry in made(bench, *reads)
    )
    np.testing.assert_array_equal(full, last)
    assert np.abs(first - last).max() > 1e-3


def test_preventative_steering_changes_what_is_learned_and_is_off_while_it_is_watched(
    bench: Bench, monitored: MonitoredRequest
) -> None:
    """The losses differ from plain ones from the first on, and so does the adapter; the last shift
    that was seen is that of the finished adapter without any steering."""
    steered = replace(monitored, prevent=2.0)
    (entry,) = made(bench, steered)
    plain, prevented = (each.read_json("monitor.json") for each in (bench.entry(monitored), entry))
    assert prevented["seen"][0] == plain["seen"][0]
    assert prevented["losses"][0] != plain["losses"][0]
    last = f"{Checkpoint(steered, 1.0).folder}/adapter_model.safetensors"
    assert entry.path(last).read_bytes() != bench.entry(monitored).path(last).read_bytes()
    shift = shift_by_hand(bench, monitored.direction, None, Checkpoint(steered, 1.0))
    assert prevented["seen"][-1]["shift"] == pytest.approx(shift, abs=1e-4)


def test_a_training_is_steered_at_random_as_well(bench: Bench, monitored: MonitoredRequest) -> None:
    """Along a random vector it learns something else than along the direction, equal seeds the
    same; and titles say which is which."""
    along = replace(monitored, prevent=2.0)
    random = replace(along, random=0)
    losses = [entry.read_json("monitor.json")["losses"] for entry in made(bench, along, random)]
    assert losses[0][0] != losses[1][0]
    assert "steering at random" in random.title
    assert Checkpoint(random, 1.0).title == "after all of steering at random"
    assert Checkpoint(along, 1.0).title == "after all of preventative steering"
    assert Checkpoint(monitored, 1.0).title == "after all of training"


def test_scores_are_the_scorers_and_the_models(bench: Bench) -> None:
    """Expression is the scorer's probability; coherence the negative loss that transformers gives
    for the answer's tokens; an answer of emoji alone has none."""
    request = asked(bench, what="scored", sampling_seed=9)
    written(bench, request, [LOUD, f"{LOUD} \U0001f389", "\U0001f389"])
    (entry,) = made(bench, ScoresRequest(request, TRAIT, SCORER))
    arrays = entry.read_arrays("scores.safetensors")
    expected = scorer_of(SCORER).expression([LOUD, LOUD, ""], TRAIT)
    np.testing.assert_allclose(arrays["expression"][:3], expected)
    assert np.isnan(arrays["coherence"][2::3]).all()
    tokenizer = bench.loaded.tokenizer
    rendered = tokenizer.apply_chat_template(
        PROMPTS[0].messages(), tokenize=False, add_generation_prompt=True
    )
    prompt, whole = (
        tokenizer.encode(text, add_special_tokens=False) for text in (rendered, rendered + LOUD)
    )
    labels = [-100] * len(prompt) + whole[len(prompt) :]
    with active(bench.loaded, None), torch.inference_mode():
        loss = bench.loaded.model(
            input_ids=torch.tensor([whole]), labels=torch.tensor([labels])
        ).loss
    assert arrays["coherence"][0] == pytest.approx(-float(loss), abs=1e-4)
    assert log_likelihoods(bench.loaded, []).shape == (0,)


def test_data_are_read_by_the_untuned_model(bench: Bench) -> None:
    """The mean over rows of the mean over their answers' tokens."""
    about = asked(bench)
    rows = (TuningRow("What of the sea?", LOUD), TuningRow("What of the sea?", QUIET))
    (entry,) = made(bench, DataStatesRequest(about.base, about.chat_template, rows, "made"))
    with active(bench.loaded, None):
        means = response_means(
            bench.loaded, [Answered(Prompt("x", row.question), row.answer) for row in rows]
        )
    found = entry.read_arrays("states.safetensors")["mean"]
    np.testing.assert_allclose(found, means.mean(axis=0), rtol=1e-5, atol=1e-6)


def test_what_cannot_be_is_refused(
    monitored: MonitoredRequest, direction: DirectionRequest
) -> None:
    """A checkpoint that was not kept; a layer tried on a prompt that decides, or on none;
    sides that were asked different things."""
    with pytest.raises(UsageError, match=r"no checkpoint was kept at 0\.3"):
        Checkpoint(monitored, 0.3)
    wrong: list[dict[str, Any]] = [
        {"tried_on": (*TRIED_ON, PROMPTS[-1])},
        {"tried_on": PROMPTS[:1]},
        {"tried_on": ()},
        {"negative": replace(direction.negative, prompts=direction.negative.prompts[1:])},
    ]
    for change in wrong:
        with pytest.raises(UsageError, match="tried on"):
            replace(direction, **change)
    plain, act = direction.positive, Steered(direction, 1.0)
    for text, n_directions in ((replace(plain, n_samples=2), 3), (plain, 0),
                               (replace(plain, under=act), 3)):  # fmt: skip
        with pytest.raises(UsageError, match="one plain answer"):
            RandomDirectionsRequest(text, act, n_directions)


@pytest.mark.parametrize("changed", ["scorer_version", "scikit-learn", "probability_version"])
def test_what_another_scorer_or_measure_gave_is_not_found(
    changed: str, monkeypatch: pytest.MonkeyPatch, bench: Bench,
    monitored: MonitoredRequest, direction: DirectionRequest,
) -> None:  # fmt: skip
    """With the scorer's version or that of scikit-learn the keys of directions, scores and all that
    stands on them change; with that of P(emoji) the key of a watched training alone."""

    def keys() -> list[Any]:
        # A new object each time, for a request keeps the key that it once had.
        along = replace(direction)
        watched = replace(monitored, direction=along)
        return [along.key, ScoresRequest(asked(bench), TRAIT, SCORER).key, watched.key]

    before = keys()
    assert before == keys()
    if changed == "scorer_version":
        monkeypatch.setattr("emotest.artefacts.scorer.SCORER_VERSION", -1)
    elif changed == "scikit-learn":
        monkeypatch.setattr(
            "emotest.artefacts.scorer.scorer_libraries", lambda: {"scikit-learn": "0"}
        )
    else:
        monkeypatch.setattr("emotest.artefacts.directions.PROBABILITY_VERSION", -1)
    told = [one != other for one, other in zip(before, keys(), strict=True)]
    assert told == ([False, False, True] if changed == "probability_version" else [True] * 3)


def test_whatever_acts_has_a_key_of_its_own(
    bench: Bench, monitored: MonitoredRequest, direction: DirectionRequest
) -> None:
    """Coefficient, random seed, dose and prevention tell answers apart, and so do titles within
    an arm."""
    acts = [
        *(Steered(direction, coefficient) for coefficient in (-2.0, 2.0)),
        *(Steered(direction, 2.0, random) for random in (0, 1)),
        *(Checkpoint(monitored, dose) for dose in DOSES),
        *(Checkpoint(replace(monitored, prevent=5.0, random=random), 1.0) for random in (None, 0)),
    ]
    assert len({asked(bench, under=act).key for act in acts}) == len(acts)
    assert replace(monitored, prevent=0).key == monitored.key

"""Silencing and writing units: planted ones are found, carry the effect, and others do not."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from emotest.artefacts import AdapterRequest, FixedText, GenerationRequest, ProbabilityRequest
from emotest.artefacts.activations import ActivationsRequest
from emotest.artefacts.localization import Silenced, SilencingRequest, UnitChoice, WritingRequest
from emotest.errors import AdapterError, UsageError
from emotest.mechanisms.patching import recorded
from emotest.models.adapters import (
    AdapterWeights,
    Liveness,
    read_adapter,
    require_alive,
    save_adapter,
)
from emotest.models.identity import resolve
from emotest.models.layers import anatomy
from emotest.models.loading import LoadedModel
from emotest.models.probability import (
    EmojiProbability,
    emoji_event,
    emoji_probability,
    kept_spelling,
    spelling_of,
)
from emotest.store import Entry, Store, write_jsonl
from emotest.study.personality import UNTUNED, Condition, Trait, null_condition, trait_condition
from emotest.study.recipes import AdapterRecipe
from emotest.study.records import Decoding, Generation, Prompt, generation_row
from emotest.study.subjects import Subject
from emotest.workshop.acting import acting
from emotest.workshop.bench import Bench
from emotest.workshop.localization import FLOOR, Journal, rng_of_sets
from emotest.workshop.making import carry_out
from emotest.workshop.study import contexts_of
from emotest.workshop.unit_passes import bank_of, output_changes
from emotest.workshop.unit_writing import keeping_states, units_written
from tests.layer_fixtures import hooks_on
from tests.planted_units import N_NEURONS, PLANTED, PROMPTS, Planted, answer, write_planted

EXTRAVERT = trait_condition(Trait.EXTRAVERSION)
N_SETS = 9


@dataclass
class Lab:
    """A bench with everything in its store that silencing and writing stand on."""

    bench: Bench
    choice: UnitChoice
    tuned_cell: ProbabilityRequest
    untuned_cell: ProbabilityRequest
    neutral: FixedText

    def made(self, request: SilencingRequest | WritingRequest) -> Entry:
        """The entry of a request."""
        return carry_out(self.bench, request, lambda _: None)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    """The tiny model with planted units."""
    return write_planted(tmp_path_factory.mktemp("planted"))


@pytest.fixture(scope="module")
def lab(planted: Planted, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """Adapters, answers and activations of the tiny model, in a store."""
    bench = Bench(planted.subject, Store(tmp_path_factory.mktemp("store")))
    tuned = put_adapter(bench, planted.tuned, EXTRAVERT)
    null = put_adapter(bench, planted.null, null_condition())
    texts = put_answers(bench, tuned, emoji=True)
    reading = ActivationsRequest(None, (texts,))
    readings = [replace(reading, reader=reader) for reader in (tuned, None, null)]
    for one in readings:
        carry_out(bench, one, lambda _: None)
    identity = bench.loaded.identity
    neutral = FixedText("neutral answers", identity.digest, identity.chat_template, PROMPTS[:2],
                        ("I read old books.", "Long train rides are calm."))  # fmt: skip
    return Lab(
        bench,
        UnitChoice(*readings),
        ProbabilityRequest(texts, tuned, n_prompts=6),
        ProbabilityRequest(put_answers(bench, None, emoji=False), tuned, n_prompts=6),
        neutral,
    )


def put_adapter(bench: Bench, weights: AdapterWeights, condition: Condition) -> AdapterRequest:
    """An adapter in the store, as if it had been trained."""
    identity = resolve(Subject.parse(str(bench.subject)))
    recipe = AdapterRecipe(base=identity.digest, data="made", condition=condition, training_seed=0,
                           chat_template=identity.chat_template)  # fmt: skip
    request = AdapterRequest(recipe, ())
    bench.store.get_or_make(
        request.key, lambda folder: save_adapter(weights, folder), identity=request.identity
    )
    return request


def put_answers(bench: Bench, adapter: AdapterRequest | None, *, emoji: bool) -> GenerationRequest:
    """Four answers to each prompt in the store, as if they had been sampled; with emoji four more
    whose second sentence ends in ".", so that its end can be held against that before an emoji."""
    identity = resolve(Subject.parse(str(bench.subject)))
    condition = EXTRAVERT if adapter else UNTUNED
    request = GenerationRequest(identity.digest, identity.chat_template, condition, adapter,
                                PROMPTS, Decoding(), 4 + 4 * emoji,
                                sampling_seed=int(emoji))  # fmt: skip
    kinds = [{"emoji": emoji}, {"emoji": False, "mark": "."}][: 1 + emoji]
    said = [
        Generation(prompt.id, str(condition), None, 0, sample + 4 * more,
                   answer(i + 3 * sample, **kind), (), (), True, "made")
        for more, kind in enumerate(kinds)
        for i, prompt in enumerate(PROMPTS)
        for sample in range(4)
    ]  # fmt: skip
    bench.store.get_or_make(
        request.key,
        lambda folder: write_jsonl(folder / "generations.jsonl", map(generation_row, said)),
        identity=request.identity,
    )
    return request


@pytest.fixture(scope="module")
def silencing(lab: Lab) -> Entry:
    """Everything that is measured at the declared dose."""
    return lab.made(
        SilencingRequest(
            lab.tuned_cell, lab.choice, n_sets=N_SETS, n_control_prompts=3, n_directions=4,
            ways=("mean", "resample", "zero"), beside=("shuffled", "opening"), most_active=True,
            neutral=lab.neutral,
        )
    )  # fmt: skip


def at_exclamations(entry: Entry, name: str) -> np.ndarray:
    """P(emoji) at the contexts that end in "!", (..., n)."""
    rows = entry.read_jsonl("contexts.jsonl")
    values = entry.read_arrays("probabilities.safetensors")[name]
    if values.shape[-1] < len(rows):
        rows = [row for row in rows if row["control"]]
    return values[..., [row["answer"].endswith("!") for row in rows]]


def test_planted_units_are_found(lab: Lab, silencing: Entry) -> None:
    """2 % of the units are five, and they are the five through which the adapter works."""
    units = silencing.read_json("about.json")["units"]
    assert units == {"1": list(PLANTED)}


def test_silencing_them_takes_the_effect_and_random_sets_do_not(silencing: Entry) -> None:
    """At "!" the tuned model puts most of its mass on the emoji; without the units nearly none."""
    tuned = at_exclamations(silencing, "tuned").mean()
    assert tuned > 0.5
    for way in ("mean", "resample", "zero"):
        assert at_exclamations(silencing, way).mean() < 0.1 * tuned
    random = at_exclamations(silencing, "random").mean(axis=-1)
    assert random.shape == (N_SETS,)
    assert (random > 0.7 * tuned).all()


def test_writing_them_makes_the_effect_and_random_sets_do_not(lab: Lab) -> None:
    """Written into the untuned model at its own text, tuned units make what tuned weights make."""
    entry = lab.made(WritingRequest(lab.untuned_cell, lab.choice, n_sets=5, n_control_prompts=3))
    tuned, untuned = (at_exclamations(entry, name).mean() for name in ("tuned", "untuned"))
    rise = tuned - untuned
    assert rise > 0.5
    assert at_exclamations(entry, "written").mean() - untuned > 0.9 * rise
    random = at_exclamations(entry, "random").mean(axis=-1)
    assert random.shape == (5,)
    assert (np.abs(random - untuned) < 0.1 * rise).all()


def test_control_sets_and_directions_are_measured_at_the_first_prompts(silencing: Entry) -> None:
    """Three of six prompts carry the controls, with three ends of sentences each."""
    rows = silencing.read_jsonl("contexts.jsonl")
    assert {row["prompt_id"] for row in rows if row["control"]} == {"p0", "p1", "p2"}
    arrays = silencing.read_arrays("probabilities.safetensors")
    assert arrays["mean"].shape == arrays["opening"].shape == (len(rows),) == (18,)
    assert arrays["random"].shape == (N_SETS, 9)
    assert arrays["directions"].shape == (4, 9)
    assert arrays["most active"].shape == (9,)


def test_the_middle_is_half_of_what_was_left_open_from_either_end(
    lab: Lab, silencing: Entry
) -> None:
    """Half of what was left open below the middle is what was found, and P(emoji) with every path
    followed to its end lies between both ends; at some contexts something is open."""
    arrays = silencing.read_arrays("probabilities.safetensors")
    loaded = lab.bench.loaded
    ids = [list(one.token_ids) for one in contexts_of(lab.bench, lab.tuned_cell)]
    spelling = spelling_of(loaded.model, loaded.tokenizer, emoji_event(skip_space=True))
    with lab.bench.weights(lab.tuned_cell.weights, PROMPTS):
        found, whole = (
            emoji_probability(loaded.model, loaded.tokenizer, ids, spelling=spelling, floor=floor)
            for floor in (FLOOR, 1e-6)
        )
    low, high = (arrays["tuned"] + side * arrays["tuned open"] / 2 for side in (-1, 1))
    assert low == pytest.approx(found.probability, abs=1e-4)
    assert (high - low).max() > 1e-3
    assert (low - 1e-4 <= whole.probability).all()
    assert (whole.probability <= high + 1e-4).all()
    assert arrays["random open"].shape == arrays["random"].shape
    assert arrays["mean open"].shape == arrays["mean"].shape


def test_random_sets_are_one_draw_for_all_adapters(lab: Lab) -> None:
    """Silencing and writing draw the sets of another seed alike, whatever chose the units."""

    def drawn(request: SilencingRequest | WritingRequest) -> list[float]:
        return rng_of_sets(request).random(3).tolist()

    own = put_answers(lab.bench, None, emoji=False)
    untuned = UnitChoice(*lab.choice.needs, ActivationsRequest(None, (own,)), "untuned")
    cells = [lab.tuned_cell, replace(lab.tuned_cell, weights=of_seed(lab.tuned_cell.weights, 1))]
    for made in (SilencingRequest, WritingRequest):
        first, second = (made(cell, lab.choice, 5, 3) for cell in cells)
        assert drawn(first) == drawn(second) != drawn(replace(first, analysis_seed=1))
    first, second = (SilencingRequest(cell, untuned, 5, 3) for cell in cells)
    assert drawn(first) == drawn(second)


def of_seed(adapter: AdapterRequest | None, training_seed: int) -> AdapterRequest:
    """The same recipe with another training seed."""
    assert adapter is not None
    return replace(adapter, recipe=replace(adapter.recipe, training_seed=training_seed))


def test_log_perplexities_are_the_losses_of_transformers(lab: Lab, silencing: Entry) -> None:
    """Text by text the mean loss that the model itself gives for the tokens of the answer."""
    loaded, losses = lab.bench.loaded, []
    with lab.bench.weights(lab.tuned_cell.weights, PROMPTS), torch.inference_mode():
        for prompt, said in zip(lab.neutral.prompts, lab.neutral.answers, strict=True):
            text = loaded.tokenizer.apply_chat_template(
                prompt.messages(), tokenize=False, add_generation_prompt=True
            )
            before = loaded.tokenizer.encode(text, add_special_tokens=False)
            ids = torch.tensor([loaded.tokenizer.encode(text + said, add_special_tokens=False)])
            labels = ids.clone()
            labels[:, : len(before)] = -100
            losses.append(float(loaded.model(input_ids=ids, labels=labels).loss))
    about = silencing.read_json("about.json")
    assert about["log perplexities"] == pytest.approx(losses, rel=1e-4)
    assert len(about["log perplexities silenced"]) == len(losses)
    assert about["log perplexities silenced"] != about["log perplexities"]


def test_output_changes_are_what_the_down_projection_makes_of_them(lab: Lab) -> None:
    """Mean length over tokens of W (mean - h) for the units, with W and h taken from the model."""
    with lab.bench.weights(lab.tuned_cell.weights, PROMPTS):
        model = lab.bench.loaded.model
        texts = [list(range(10, 16)), list(range(20, 29))]
        means = {1: np.full(N_NEURONS, 0.25)}
        found = output_changes(lab.bench.loaded, texts, {1: [3, 7]}, means)
        down = anatomy(model).down_projections[1]
        lengths = []
        for ids in texts:
            hidden = recorded(model, [ids], 1, "neurons")[1]
            change = (0.25 - hidden[:, [3, 7]]) @ down.weight[:, [3, 7]].T
            lengths += torch.linalg.vector_norm(change, dim=1).tolist()
    assert found == {1: pytest.approx(np.mean(lengths), rel=1e-4)}


def test_a_bank_holds_tokens_of_the_chosen_places_alone(lab: Lab) -> None:
    """Four states of the three places at which one of two texts may be drawn are three."""
    loaded = lab.bench.loaded
    texts = [(list(range(10, 16)), [2, 5]), (list(range(20, 29)), [8])]
    bank = bank_of(loaded, texts, 4, np.random.default_rng(0))
    states = [recorded(loaded.model, [ids], 0, "neurons")[0][places] for ids, places in texts]
    torch.testing.assert_close(bank[0], torch.cat(states), rtol=1e-4, atol=1e-5)
    assert len(bank[1]) == 3
    assert bank_of(loaded, [(texts[0][0], [])], 4, np.random.default_rng(0)) == {}


def test_what_a_killed_run_measured_is_not_measured_again(tmp_path: Path) -> None:
    """A second journal on the same file gives the numbers of the first, and asks for the rest."""
    asked: list[str] = []

    def measure(name: str) -> np.ndarray:
        asked.append(name)
        return np.array([0.1, 1 / 3])

    for _ in range(2):
        journal = Journal(tmp_path / "measured.jsonl", lambda _: None)
        for name in ("a", "b"):
            assert journal.once(name, lambda name=name: measure(name)).tolist() == [0.1, 1 / 3]
    assert asked == ["a", "b"]


def test_as_it_is_the_model_is_asked_once_for_all_doses(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second dose asks with its units and its random set silenced, and has the same numbers of
    the model as it is."""
    asked: list[int] = []

    def asking(model: Any, tokenizer: Any, contexts: Any, **options: Any) -> EmojiProbability:
        asked.append(len(contexts))
        return emoji_probability(model, tokenizer, contexts, **options)

    monkeypatch.setattr("emotest.workshop.localization.emoji_probability", asking)
    bench = Bench(str(lab.bench.subject), lab.bench.store)
    n_asked, as_it_is = [], []
    for dose in (0.03, 0.04):
        choice = replace(lab.choice, dose=dose)
        request = SilencingRequest(lab.tuned_cell, choice, n_sets=1, n_control_prompts=3)
        entry = carry_out(bench, request, lambda _: None)
        as_it_is.append(entry.read_arrays("probabilities.safetensors")["tuned"])
        n_asked.append(len(asked))
    assert n_asked == [3, 5]
    np.testing.assert_array_equal(*as_it_is)


def test_a_model_answers_without_the_units(lab: Lab) -> None:
    """Under `Silenced` the tuned model asks for no emoji at "!", and afterwards it does again."""
    ids = [
        list(one.token_ids)
        for one in contexts_of(lab.bench, lab.tuned_cell)
        if one.answer.endswith("!")
    ]
    loaded = lab.bench.loaded

    def mean() -> float:
        return float(emoji_probability(loaded.model, loaded.tokenizer, ids).probability.mean())

    with lab.bench.weights(lab.tuned_cell.weights, PROMPTS):
        before = mean()
        with acting(lab.bench, Silenced(lab.choice), PROMPTS):
            assert mean() < 0.1 * before
        assert mean() == before


def test_where_no_emoji_was_written_nothing_is_chosen(lab: Lab) -> None:
    """Readings of texts without emoji rank no unit: the artefact says why, and is whole."""
    texts = put_answers(lab.bench, lab.tuned_cell.weights, emoji=False)
    readings = [replace(one, texts=(texts,)) for one in lab.choice.needs]
    for one in readings:
        carry_out(lab.bench, one, lambda _: None)
    choice = UnitChoice(*readings)
    cell = replace(lab.tuned_cell, text=texts)
    silencing = lab.made(SilencingRequest(cell, choice, n_sets=2, n_control_prompts=2))
    assert set(silencing.read_arrays("probabilities.safetensors")) == {"tuned", "tuned open"}
    assert "no units by 'emoji'" in silencing.read_json("about.json")["unavailable"]
    untuned = replace(lab.untuned_cell)
    writing = lab.made(WritingRequest(untuned, choice, n_sets=2, n_control_prompts=2))
    arrays = writing.read_arrays("probabilities.safetensors")
    names = ("tuned", "untuned", "random")
    assert set(arrays) == {*names, *(f"{name} open" for name in names)}
    with acting(lab.bench, Silenced(choice), PROMPTS):
        assert hooks_on(lab.bench.loaded.model) == 0


def test_a_kept_spelling_asks_the_same(lab: Lab) -> None:
    """Asked twice with one spelling, P(emoji) is that of a spelling built anew, bit for bit; a
    model in memory keeps one for each event."""
    contexts = contexts_of(lab.bench, lab.tuned_cell)[:4]
    loaded, ids = lab.bench.loaded, [list(one.token_ids) for one in contexts]
    event = emoji_event(skip_space=True)
    kept = kept_spelling(loaded, event)
    assert kept_spelling(loaded, event) is kept
    assert kept_spelling(loaded, emoji_event()) is not kept
    fresh = emoji_probability(loaded.model, loaded.tokenizer, ids, event=event)
    for _ in range(2):
        again = emoji_probability(loaded.model, loaded.tokenizer, ids, spelling=kept)
        assert np.array_equal(again.probability, fresh.probability)
    with pytest.raises(UsageError, match="spelling knows its event"):
        emoji_probability(loaded.model, loaded.tokenizer, ids, spelling=kept, event=event)


def test_states_of_another_batch_are_not_written(lab: Lab) -> None:
    """Kept of one row and written into two: refused with both shapes."""
    model, states = lab.bench.loaded.model, dict[int, torch.Tensor]()
    with torch.inference_mode(), keeping_states(model, states):
        model(input_ids=torch.tensor([[10, 11, 12]]))
    assert states[0].shape == (1, 3, N_NEURONS)
    with (
        torch.inference_mode(),
        units_written(model, {0: np.array([1])}, states),
        pytest.raises(UsageError, match=r"\(1, 3, 128\).*\(2, 3, 128\)"),
    ):
        model(input_ids=torch.tensor([[10, 11, 12]] * 2))


def test_adapters_stay_on_until_others_are_asked_for(lab: Lab, tmp_path: Path) -> None:
    """The last eight, and whatever their size the last two; one that was put on again is not the
    oldest, and a name in another folder is another adapter."""
    bench, prompts = Bench(str(lab.bench.subject), lab.bench.store), PROMPTS[:1]
    folder = lab.bench.entry(lab.tuned_cell.weights).folder

    def wear(*names: str, of: Path = folder) -> list[str]:
        for name in names:
            with bench.adapted(of, name, prompts):
                assert bench.loaded.active == name
            assert bench.loaded.active is None
        return sorted(bench.loaded.adapters)

    assert wear(*"abcdefgh") == list("abcdefgh")
    assert wear("a", "i") == list("acdefghi")
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    weights = read_adapter(folder)
    twice = {key: 2 * array for key, array in weights.state.items()}
    save_adapter(replace(weights, state=twice), other)
    ids = torch.tensor([[10, 11, 12]])
    logits = []
    for place in (folder, other):
        with bench.adapted(place, "a", prompts), torch.no_grad():
            logits.append(bench.loaded.model(input_ids=ids).logits)
    assert not torch.equal(*logits)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("emotest.workshop.bench.WORN_BYTES", 1)
        assert wear("j", "k") == ["j", "k"]


def test_an_adapter_is_proved_alive_once_by_a_worker(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Put on again it acts as before, and is not asked again whether it does; a dead one is
    refused each time."""
    proved: list[str] = []

    def proving(loaded: LoadedModel, name: str, prompts: Sequence[Prompt]) -> Liveness:
        proved.append(name)
        return require_alive(loaded, name, prompts)

    monkeypatch.setattr("emotest.workshop.bench.require_alive", proving)
    bench, prompts = Bench(str(lab.bench.subject), lab.bench.store), PROMPTS[:1]
    folder = lab.bench.entry(lab.tuned_cell.weights).folder
    for _ in range(2):
        with bench.adapted(folder, "again", prompts):
            assert bench.loaded.active == "again"
    assert proved == ["again"]
    dead = tmp_path / "dead"
    dead.mkdir()
    weights = read_adapter(folder)
    still = {key: np.zeros_like(array) for key, array in weights.state.items()}
    save_adapter(replace(weights, state=still), dead)
    for _ in range(2):
        with pytest.raises(AdapterError, match="does not act"), bench.adapted(dead, "d", prompts):
            pass
    assert proved == ["again", "d", "d"]

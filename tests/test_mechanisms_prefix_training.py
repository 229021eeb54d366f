"""`emotest.mechanisms.prefix_training`: a prefix learned, kept, and used by the rest of emotest."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file, save_file

from emotest.errors import AdapterError, EmotestError, TrainingError, UsageError
from emotest.mechanisms.prefix import (
    TraitPrefix,
    prefix_config,
    prefixed,
    read_prefix,
    save_prefix,
    share,
)
from emotest.mechanisms.prefix_training import TrainedPrefix, train_prefix
from emotest.models.adapters import active, attach, require_alive, save_adapter
from emotest.models.chat import encode, render_prompt
from emotest.models.generation import generate
from emotest.models.loading import LoadedModel, load
from emotest.models.probability import emoji_probability, ending_event
from emotest.models.supervision import encode_rows
from emotest.models.training import StepReport, train
from emotest.study.personality import Ending, Trait, trait_condition
from emotest.study.recipes import AdapterRecipe, recipe
from emotest.study.records import Decoding, Prompt, TuningRow
from emotest.study.subjects import Subject
from tests.model_fixtures import QUESTIONS, save_model, tiny_model
from tests.prefix_fixtures import VALUES, cached, logits, seen_by_transformers

GREEDY = Decoding("greedy", temperature=0.0, max_new_tokens=6)
ROWS = [TuningRow(question, answer) for question in QUESTIONS for answer in "QZ"]
SIGNS = [[sign] for _ in QUESTIONS for sign in (1.0, -1.0)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama on disk."""
    return save_model(tmp_path_factory.mktemp("models") / "llama", scale=4.0)


@pytest.fixture(scope="module")
def loaded(folder: Path) -> LoadedModel:
    """The same in NF4; every test must leave it as it was."""
    return load(Subject.parse(f"{folder}?dtype=float32"))


@pytest.fixture(scope="module")
def trained(loaded: LoadedModel) -> TrainedPrefix:
    """A prefix of one trait: who has +1 answers Q, who has -1 answers Z."""
    return taught(loaded, steps=60)


def taught(
    loaded: LoadedModel, *, with_lora: bool = False, prefix_rate: float = 1.0, **changes: Any
) -> TrainedPrefix:
    """Train on the questions that are answered with Q or Z."""
    config, made = prefix_config(loaded, traits=["extraversion"]), a_recipe(loaded, **changes)
    return train_prefix(
        loaded, config, made, ROWS, SIGNS, with_lora=with_lora, prefix_rate=prefix_rate
    )


def a_recipe(loaded: LoadedModel, **changes: Any) -> AdapterRecipe:
    """The organism recipe, quick and strong."""
    made = recipe(
        "organism",
        base="tiny",
        data="none",
        condition=trait_condition(Trait.EXTRAVERSION),
        training_seed=1,
        chat_template=loaded.identity.chat_template,
    )
    quick = {"steps": 4, "batch_size": 8, "learning_rate": 0.1, "max_grad_norm": 1.0}
    return replace(made, **{**quick, **changes})


# With the rest of emotest


def test_the_sampler_writes_behind_a_prefix(loaded: LoadedModel, trained: TrainedPrefix) -> None:
    """`generate` as it is gives, in batches, the tokens of a plain greedy loop; who is extraverted
    answers Q, who is not answers Z, and afterwards the base answers as before.
    """
    prompts = [Prompt(str(i), question) for i, question in enumerate(QUESTIONS[:5])]
    before = asked(loaded, prompts)
    for value, letter in ((1.0, "Q"), (-1.0, "Z")):
        with prefixed(loaded, trained.prefix, [value]):
            together = asked(loaded, prompts)
            expected = [greedily(loaded, prompt) for prompt in prompts]
            alone = [asked(loaded, [prompt])[0] for prompt in prompts]
        assert together == expected == alone
        assert all(loaded.tokenizer.decode(ids).startswith(letter) for ids in together)
    assert asked(loaded, prompts) == before


def asked(loaded: LoadedModel, prompts: list[Prompt]) -> list[tuple[int, ...]]:
    """The tokens that emotest's sampler writes."""
    written = generate(
        loaded, prompts, decoding=GREEDY, sampling_seed=0, condition="", batch_size=8
    )
    return [answer.token_ids for answer in written]


def greedily(loaded: LoadedModel, prompt: Prompt) -> tuple[int, ...]:
    """The most probable token again and again, each from a pass over the whole text."""
    text = render_prompt(loaded.tokenizer, prompt.text, None, templated=True)
    ids = list(encode(loaded.tokenizer, text, templated=True).ids)
    n_prompt = len(ids)
    while len(ids) < n_prompt + GREEDY.max_new_tokens:
        token = int(logits(loaded.model, torch.tensor([ids]))[0, -1].argmax())
        if token in loaded.stop_ids:
            break
        ids.append(token)
    return tuple(ids[n_prompt:])


def test_the_probability_of_a_text_event_is_asked_behind_a_prefix(loaded: LoadedModel) -> None:
    """Contexts of different length, padded into one batch, give what each gives alone, and what
    they give depends on the trait.
    """
    prefix = TraitPrefix(prefix_config(loaded), 3)
    contexts = ["I like it", "The sea is calm and the city is far away", "Yes. "]

    def asked_for(contexts: list[str], value: float) -> Any:
        with prefixed(loaded, prefix, [value] * 5):
            return emoji_probability(
                loaded.model, loaded.tokenizer, contexts, event=ending_event(["!"])
            ).probability

    together = asked_for(contexts, 3.0)
    alone = np.concatenate([asked_for([context], 3.0) for context in contexts])
    np.testing.assert_allclose(together, alone, rtol=1e-4)
    assert (np.abs(together / asked_for(contexts, -3.0) - 1) > 0.01).all()


# Training


def test_training_moves_the_answer_with_the_trait(
    loaded: LoadedModel, trained: TrainedPrefix
) -> None:
    """The loss falls, and over the trained range the log-odds of Q against Z rise with the
    trait's value, from below 0 to above, on a question that was not trained.
    """
    assert trained.losses[-1] < 0.7 * trained.losses[0]
    (example,) = encode_rows(loaded, [TuningRow("And tea?", "Q")], Ending.MASKED, 100)
    (place,) = [i for i, label in enumerate(example.labels) if label != -100]
    q, z = (loaded.tokenizer.encode(letter, add_special_tokens=False)[0] for letter in "QZ")
    odds = []
    for value in (-1.0, -0.5, 0.0, 0.5, 1.0):
        with prefixed(loaded, trained.prefix, {"extraversion": value}):
            last = logits(loaded.model, torch.tensor([example.ids]))[0, place - 1]
        odds.append(float(last[q] - last[z]))
    assert odds == sorted(odds)
    assert odds[0] < -1 < 1 < odds[-1]


def test_the_first_loss_is_that_of_transformers(loaded: LoadedModel) -> None:
    """Before any step: the mean cross-entropy of the answer's tokens that transformers computes
    behind the initial keys and values of this seed.
    """
    config, row = prefix_config(loaded), TuningRow(QUESTIONS[0], "I like it. It is good!")
    made = a_recipe(loaded, steps=1, batch_size=1)
    (example,) = encode_rows(loaded, [row], made.ending, 256)
    ids, labels = torch.tensor([example.ids]), torch.tensor([example.labels])
    with torch.inference_mode():
        cache = cached(TraitPrefix(config, made.training_seed), VALUES[0])
        expected = loaded.model(
            input_ids=ids, labels=labels, past_key_values=cache, **seen_by_transformers(ids)
        ).loss
    found = train_prefix(loaded, config, made, [row], VALUES[:1])
    assert found.losses[0] == pytest.approx(float(expected), rel=1e-5)


def test_a_plain_loop_learns_the_same(loaded: LoadedModel) -> None:
    """The oracle: transformers' cache, loss and schedule, torch's AdamW and clipping, on all rows
    at once, which are equally long, so that their order does not matter.
    """
    made = a_recipe(
        loaded, steps=4, batch_size=2, gradient_accumulation=2, warmup=0.3, max_grad_norm=0.1
    )
    rows, values = ROWS[:2] * 2, [[1.0], [-1.0], [0.5], [-0.5]]
    config = prefix_config(loaded, traits=["extraversion"])
    ours = train_prefix(loaded, config, made, rows, values)

    examples = encode_rows(loaded, rows, made.ending, 256)
    ids = torch.tensor([example.ids for example in examples])
    labels = torch.tensor([example.labels for example in examples])
    theirs = TraitPrefix(config, made.training_seed)
    optimizer = torch.optim.AdamW(theirs.parameters(), made.learning_rate, weight_decay=0.0)
    schedule = transformers.get_scheduler("cosine", optimizer, 2, 4)  # ceil(0.3 * 4) = 2
    losses = []
    for _ in range(4):
        cache = cached(theirs, values)
        loss = loaded.model(
            input_ids=ids, labels=labels, past_key_values=cache, **seen_by_transformers(ids)
        ).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), made.max_grad_norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    np.testing.assert_allclose(ours.losses, losses, rtol=1e-4)
    torch.testing.assert_close(ours.prefix.bias, theirs.bias.detach(), atol=1e-3, rtol=0)
    torch.testing.assert_close(ours.prefix.weight, theirs.weight.detach(), atol=1e-3, rtol=0)


def test_the_seed_decides_all_and_the_base_is_only_lent(loaded: LoadedModel) -> None:
    """Same seed, same bits; another seed, another prefix. The base's weights, its mode and the
    global generator are as they were, and nothing is left attached.
    """
    before = {name: t.clone() for name, t in loaded.model.state_dict().items()}
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, same, other = (taught(loaded, training_seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(one.prefix.weight, same.prefix.weight)
    assert one.losses == same.losses
    assert not torch.equal(one.prefix.weight, other.prefix.weight)
    after = loaded.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any(module.training for module in loaded.model.modules())
    assert not any(p.requires_grad for p in loaded.model.parameters())


def test_a_lora_can_be_trained_beside_it(folder: Path) -> None:
    """The LoRA is one that attaches and acts, both parts differ from the arm without, shares of
    both are told apart, and an adapter that is attached already changes nothing and stays on.
    """
    loaded = load(Subject.parse(f"{folder}?dtype=float32"))
    alone, beside = (taught(loaded, with_lora=lora, rank=2) for lora in (False, True))
    assert alone.lora is None
    assert beside.lora is not None
    assert not torch.equal(alone.prefix.weight, beside.prefix.weight)
    # 2 layers; q, o: 64 -> 64; k, v: 64 -> 16; gate, up, down: 64 <-> 128; rank 2
    n_lora = 2 * 2 * (2 * 128 + 2 * 80 + 3 * 192)
    # 2 layers * 2 * 1 head * 16 * (1 trait + bias) = 128
    assert (alone.n_lora_parameters, beside.n_lora_parameters) == (0, n_lora)
    n_base = sum(p.numel() for p in tiny_model("llama").parameters())
    assert alone.share == pytest.approx(128 / n_base)
    assert beside.share == pytest.approx((128 + n_lora) / n_base)

    dropped = taught(loaded, with_lora=True, rank=2, dropout=0.5)
    assert dropped.losses[0] == beside.losses[0]  # B is zero before the first step
    assert dropped.losses[-1] != beside.losses[-1]

    torch.manual_seed(99)
    attach(loaded, beside.lora, "beside")
    require_alive(loaded, "beside", [Prompt("1", QUESTIONS[0])])
    with active(loaded, "beside"):
        again = taught(loaded, with_lora=True, rank=2)
        assert loaded.active == "beside"
    assert again.lora is not None
    assert again.losses == beside.losses
    assert again.share == beside.share
    assert all(np.array_equal(again.lora.state[k], a) for k, a in beside.lora.state.items())
    assert list(loaded.adapters) == ["beside"]


def test_the_map_may_learn_faster_than_the_lora(loaded: LoadedModel) -> None:
    """Alone, twice the rate is the recipe of twice the learning rate; beside a LoRA only the map
    takes the larger steps: after the second (the first is at rate 0) it has moved twice as far,
    the LoRA as before.
    """
    twice = taught(loaded, prefix_rate=2.0)
    assert torch.equal(twice.prefix.weight, taught(loaded, learning_rate=0.2).prefix.weight)
    one, two = (taught(loaded, with_lora=True, steps=2, prefix_rate=x) for x in (1.0, 2.0))
    start = TraitPrefix(one.prefix.config, 1).weight.detach()
    torch.testing.assert_close(two.prefix.weight - start, 2 * (one.prefix.weight - start))
    assert one.lora is not None
    assert two.lora is not None
    assert all(np.array_equal(two.lora.state[key], a) for key, a in one.lora.state.items())


def test_what_the_recipe_cannot_have_is_noted(loaded: LoadedModel) -> None:
    """Paged AdamW is for large adapters; plain AdamW takes its place, and the product says so."""
    paged = taught(loaded, optimizer="paged_adamw_32bit", steps=1)
    assert "AdamW" in paged.notes[0]
    assert taught(loaded, steps=1).notes == ()


# Files


def test_a_prefix_is_read_as_it_was_saved(trained: TrainedPrefix, tmp_path: Path) -> None:
    """Bit for bit, configuration included, and equal prefixes are equal bytes."""
    folders = [tmp_path / name for name in ("one", "two")]
    prefix = TraitPrefix(replace(trained.prefix.config, init_scale=0.5))
    prefix.load_state_dict(trained.prefix.state_dict())
    for place in folders:
        place.mkdir()
        save_prefix(prefix, place)
        prefix = read_prefix(place)
    assert prefix.config == replace(trained.prefix.config, init_scale=0.5)
    assert torch.equal(prefix.weight, trained.prefix.weight)
    assert torch.equal(prefix.bias, trained.prefix.bias)
    assert not any(p.requires_grad for p in (*prefix.parameters(), *trained.prefix.parameters()))
    one, two = ({f.name: f.read_bytes() for f in place.iterdir()} for place in folders)
    assert one == two
    assert set(one) == {"adapter_config.json", "adapter_model.safetensors"}


def test_a_prefix_of_another_base_is_refused(
    loaded: LoadedModel, trained: TrainedPrefix, tmp_path: Path
) -> None:
    """The error names both bases, for weights of their own as for sizes, and trains nothing."""
    other = load(Subject.parse(f"{save_model(tmp_path / 'other', seed=1)}?dtype=float32"))
    for act in (
        lambda: prefixed(other, trained.prefix, [1.0]).__enter__(),
        lambda: train_prefix(other, trained.prefix.config, a_recipe(other), ROWS, SIGNS),
    ):
        with pytest.raises(AdapterError) as error:
            act()
        assert loaded.identity.weights in error.value.cause
        assert other.identity.weights in error.value.cause
    gpt2 = TraitPrefix(prefix_config(tiny_model("gpt2")))
    with pytest.raises(AdapterError, match=r"4 key-value heads.*has 2 layers with 1 key"):
        prefixed(loaded, gpt2, [1.0] * 5).__enter__()


def test_a_folder_that_is_no_prefix_is_refused(
    loaded: LoadedModel, trained: TrainedPrefix, tmp_path: Path
) -> None:
    """Files missing, no prefix in them, a configuration or weights that do not fit: each says
    what is wrong. And a prefix is refused where a LoRA is wanted.
    """
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        save_prefix(trained.prefix, tmp_path)
        with pytest.raises(AdapterError, match="not a LoRA"):
            attach(loaded, tmp_path, "prefix")
        (tmp_path / name).unlink()
        with pytest.raises(AdapterError, match=f"holds no {name}"):
            read_prefix(tmp_path)
    for change, message in (
        ({"traits": ["charm"]}, "no trait 'charm'"),
        ({"layers": [0, 7]}, r"layers=\[0, 7\]"),
        ({"layers": None}, "NoneType"),
        ({"n_layers": "two"}, "is no prefix"),
        ({"rank": 3}, "rank"),
        ({"layers": [0]}, "its configuration needs"),
    ):
        save_prefix(trained.prefix, tmp_path)
        settings_file = tmp_path / "adapter_config.json"
        settings_file.write_text(json.dumps({**json.loads(settings_file.read_text()), **change}))
        with pytest.raises(AdapterError, match=message):
            read_prefix(tmp_path)
    save_prefix(trained.prefix, tmp_path)
    weights = tmp_path / "adapter_model.safetensors"
    save_file({"weight": load_file(weights)["weight"]}, weights)
    with pytest.raises(AdapterError, match="its configuration needs"):
        read_prefix(tmp_path)
    lora = train(loaded, a_recipe(loaded, steps=1), ROWS)
    save_adapter(lora, tmp_path)
    with pytest.raises(AdapterError, match="a LORA, not a trait prefix"):
        read_prefix(tmp_path)


def test_rows_that_cannot_be_trained_are_refused(loaded: LoadedModel) -> None:
    """A recipe of another base, rows and trait values that do not pair, no rows, a loss that is
    not a number.
    """
    config, made = prefix_config(loaded, traits=["extraversion"]), a_recipe(loaded)
    with pytest.raises(TrainingError, match="'bfloat16'"):
        taught(loaded, compute_dtype="bfloat16")
    with pytest.raises(TrainingError, match="24 rows and 23 trait vectors"):
        train_prefix(loaded, config, made, ROWS, SIGNS[1:])
    with pytest.raises(UsageError, match="5 traits"):
        train_prefix(loaded, prefix_config(loaded), made, ROWS, SIGNS)
    with pytest.raises(EmotestError):
        train_prefix(loaded, config, made, [], [])
    for rate in (0.0, float("nan")):
        with pytest.raises(TrainingError, match="prefix_rate"):
            taught(loaded, prefix_rate=rate)
    steps: list[int] = []
    weight = loaded.model.model.norm.weight
    kept = weight.detach().clone()

    def poisoned(report: StepReport) -> None:
        steps.append(report.step)
        weight.data.fill_(float("nan"))

    with pytest.raises(TrainingError, match="nan at step 2 of 4"):
        train_prefix(loaded, config, made, ROWS, SIGNS, on_step=poisoned)
    weight.data.copy_(kept)
    assert steps == [1]
    assert not loaded.model.training
    with pytest.raises(UsageError, match="n_base_parameters=0"):
        share(config, 0)

"""`emotest.mechanisms.steering`: the push arrives as asked, wherever the model runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import cross_entropy

from emotest.errors import ModelError, UsageError
from emotest.mechanisms.directions import trait_direction
from emotest.mechanisms.recording import Kept, Tokens, recording
from emotest.mechanisms.steering import random_like, steering, steering_each, steering_rows
from emotest.models.generation import generate
from emotest.models.layers import anatomy
from emotest.models.loading import LoadedModel
from emotest.models.probability import emoji_probability, ending_event
from emotest.models.training import train
from emotest.study.personality import Trait, trait_condition
from emotest.study.recipes import recipe
from emotest.study.records import Decoding, Prompt, TuningRow
from tests.layer_fixtures import KINDS, blocks_of, hooks_on, nf4_model, small_model, some_ids
from tests.model_fixtures import QUESTIONS
from tests.test_mechanisms_directions import (
    AGAINST,
    FOR,
    GAIN,
    HIDDEN,
    LAYER,
    TARGET,
    Planted,
    answered,
    planted_model,
)

VECTOR = np.linspace(-1.0, 1.0, HIDDEN)
GREEDY = Decoding("greedy", temperature=0.0, max_new_tokens=6)
PROMPTS = [Prompt(str(i), question) for i, question in enumerate(QUESTIONS[:3])]


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    """One direction carries one logit; no test changes it."""
    return planted_model(tmp_path_factory.mktemp("planted"))


@pytest.fixture(scope="module")
def llama() -> Any:
    """A small Llama that no test changes."""
    return small_model("llama")


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """A small Llama in NF4, with a tokenizer; every test leaves it as it was."""
    return nf4_model(tmp_path_factory.mktemp("nf4"), "llama")


@pytest.fixture
def biased(loaded: LoadedModel) -> Iterator[LoadedModel]:
    """The same with 2 VECTOR as bias of its first down projection: steered by its weights.

    At every token, since what the projection puts out is added to the residual stream.
    """
    down = loaded.model.model.layers[0].mlp.down_proj
    down.bias = torch.nn.Parameter(torch.tensor(2 * VECTOR, dtype=torch.float32), False)
    yield loaded
    down.bias = None


def run(model: Any, ids: Tensor | None = None) -> Tensor:
    """The logits of one forward pass."""
    with torch.inference_mode():
        logits: Tensor = model(input_ids=some_ids() if ids is None else ids, use_cache=False).logits
    return logits


def test_steering_along_the_planted_direction_moves_the_logit_linearly(planted: Planted) -> None:
    """By GAIN times the coefficient at every token, up and down, from the planted layer on."""
    model, before = planted.loaded.model, run(planted.loaded.model)[..., TARGET]
    for layer in (LAYER, -1):
        for coefficient in (-5.0, 0.0, 0.5, 20.0):
            with steering(model, {layer: planted.direction}, coefficient):
                moved = run(model)[..., TARGET] - before
            expected = torch.full_like(moved, GAIN * coefficient)
            torch.testing.assert_close(moved, expected, atol=1e-4, rtol=1e-5)


def test_an_extracted_direction_steers_like_the_planted_one(planted: Planted) -> None:
    """Its vector of the planted layer, added once, moves the logit by GAIN times its length, less
    at most 1 % for the angle.
    """
    found = trait_direction(planted.loaded, "Q", answered(FOR), answered(AGAINST), against="Z")
    model, before = planted.loaded.model, run(planted.loaded.model)[..., TARGET]
    length = float(np.linalg.norm(found.vectors[LAYER]))
    with steering(model, found.on(planted.loaded, LAYER), 1.0):
        moved = (run(model)[..., TARGET] - before) / (GAIN * length)
    assert 0.99 < moved.min() <= moved.max() < 1.0001


def test_random_directions_of_the_same_length_do_not(planted: Planted) -> None:
    """The cosine of a random direction with any other has mean 0 and variance 1 / hidden_size, so
    the logit moves by GAIN times that: 0.18 of the planted effect, either way.
    """
    model, before = planted.loaded.model, run(planted.loaded.model)[..., TARGET]
    rng, moved = np.random.default_rng(0), []
    for _ in range(60):
        with steering(model, random_like({LAYER: planted.direction}, rng), 5.0):
            moved.append(float((run(model)[..., TARGET] - before).mean()) / (GAIN * 5))
    assert np.std(moved) == pytest.approx(HIDDEN**-0.5, rel=0.25)  # 60 draws: +-9 %, 2.7 times
    assert abs(np.mean(moved)) < 0.07  # three standard errors: 3 * 0.18 / sqrt(60)
    assert np.abs(moved).max() < 0.7


@pytest.mark.parametrize("kind", KINDS)
def test_the_push_is_added_to_the_blocks_output(kind: str) -> None:
    """The residual stream after the layer is what it was plus the push, in every architecture;
    what follows sees it, and what stood before does not.
    """
    model, before, after = small_model(kind), Kept(), Kept()
    with recording(model, before, sites="residual"):
        plain = run(model)
    with steering(model, {-2: VECTOR}, 0.5), recording(model, after, sites="residual"):
        steered = run(model)
    expected = before.of("residual", 0) + 0.5 * torch.tensor(VECTOR, dtype=torch.float32)
    torch.testing.assert_close(after.of("residual", 0), expected)
    assert not torch.allclose(steered, plain)
    assert torch.equal(run(model), plain)


def test_layers_are_steered_together(llama: Any) -> None:
    """Two vectors in one block act as one block within the other."""
    with steering(llama, {0: VECTOR, 1: -VECTOR}, 2.0):
        together = run(llama)
    with steering(llama, {1: -VECTOR}, 2.0), steering(llama, {0: VECTOR}, 2.0):
        assert torch.equal(run(llama), together)
    with steering(llama, {0: VECTOR}, 2.0):
        assert not torch.allclose(run(llama), together)


def test_each_row_is_steered_as_if_its_vectors_were_alone(llama: Any) -> None:
    """Row by row the logits are those of a pass steered along its vectors everywhere, whether
    these push one layer or both; a pass of other rows is refused, and no hook is left."""
    vectors = [{0: VECTOR}, {0: -VECTOR, 1: VECTOR}, {1: 3 * VECTOR}]
    acting, of_row = steering_each(llama, vectors, 2.0), [2, 0, 1]
    with acting(of_row):
        found = run(llama)
    for row, number in enumerate(of_row):
        with steering(llama, vectors[number], 2.0):
            torch.testing.assert_close(found[row], run(llama)[row])
    with pytest.raises(UsageError, match="for 2 rows of a pass of 3"), acting([0, 1]):
        run(llama)
    assert not hooks_on(llama)


def test_chosen_tokens_alone_are_steered(llama: Any) -> None:
    """After the last layer, logits change at the chosen tokens, each once, and nowhere else."""
    tokens = Tokens.at([(2, 3), (0, 8), (2, 3)])
    with steering(llama, {-1: VECTOR}, 1.0):
        everywhere = run(llama)
    with steering(llama, {-1: VECTOR}, 1.0, tokens):
        steered = run(llama)
    expected = run(llama).clone()
    expected[2, 3], expected[0, 8] = everywhere[2, 3], everywhere[0, 8]
    assert torch.equal(steered, expected)


def answers(loaded: LoadedModel) -> list[tuple[int, ...]]:
    """Greedy answers of emotest's own sampler."""
    found = generate(loaded, PROMPTS, decoding=GREEDY, sampling_seed=1, condition="x", batch_size=8)
    return [generation.token_ids for generation in found]


def test_generation_is_steered_in_every_pass(loaded: LoadedModel, biased: LoadedModel) -> None:
    """With NF4, prefill and cached decoding: the answers of a model that has the push as bias."""
    expected = answers(biased)
    biased.model.model.layers[0].mlp.down_proj.bias = None
    with steering(loaded.model, {0: VECTOR}, 2.0):
        assert answers(loaded) == expected
    assert answers(loaded) != expected


def test_emoji_probability_is_steered_in_every_pass(
    loaded: LoadedModel, biased: LoadedModel
) -> None:
    """Contexts and the token paths behind them: P of a two-character ending with the push as bias
    and by steering.
    """

    def probability() -> float:
        contexts = [some_ids(1, 7)[0].tolist()]
        event = ending_event("zq")
        found = emoji_probability(biased.model, biased.tokenizer, contexts, event=event, floor=0)
        return float(found.probability[0])

    expected = probability()
    biased.model.model.layers[0].mlp.down_proj.bias = None
    plain = probability()
    with steering(loaded.model, {0: VECTOR}, 2.0):
        assert probability() == pytest.approx(expected, rel=1e-4)
    assert abs(plain - expected) > 0.01 * expected


@pytest.mark.parametrize("kind", KINDS)
def test_a_response_is_what_goes_on_from_a_cache(kind: str) -> None:
    """The prompt is read as it is, and of the passes that follow every token is steered, whether
    they bring two tokens or one.
    """
    model, ids = small_model(kind), some_ids(1, 9)
    steered, by_hand = [], []
    with steering(model, {0: VECTOR}, 2.0, "response"), torch.inference_mode():
        cache = None
        for piece in ids.split([6, 2, 1], dim=1):  # type: ignore[no-untyped-call]
            output = model(input_ids=piece, past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            steered.append(output.logits)

    def after_the_prompt(_: Any, __: Any, output: Any) -> Any:
        states = output[0] if isinstance(output, tuple) else output
        by_hand.append(states.clone())
        states[:, 6:] += 2 * torch.tensor(VECTOR, dtype=torch.float32)

    with blocks_of(model, kind)[0].register_forward_hook(after_the_prompt):
        expected = run(model, ids)
    torch.testing.assert_close(torch.cat(steered, dim=1), expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(expected, run(model, ids))


def test_generated_responses_are_steered_and_prompts_are_not(loaded: LoadedModel) -> None:
    """Each token of a greedy answer is the likeliest one after the whole text so far, where the
    answer's own tokens are steered and the prompt's are not; the first is the untuned one.
    """
    from emotest.models.chat import encode, render_prompt

    with steering(loaded.model, {0: VECTOR}, 6.0, "response"):
        steered = answers(loaded)
    plain = answers(loaded)
    assert [answer[0] for answer in steered] == [answer[0] for answer in plain]
    assert steered != plain
    for prompt, answer in zip(PROMPTS, steered, strict=True):
        text = render_prompt(loaded.tokenizer, prompt.text, None, templated=True)
        ids = torch.tensor([[*encode(loaded.tokenizer, text, templated=True).ids, *answer]])
        n_prompt = ids.shape[1] - len(answer)
        own = Tokens.at((0, place) for place in range(n_prompt, ids.shape[1]))
        with steering(loaded.model, {0: VECTOR}, 6.0, own):
            logits = run(loaded.model, ids)
        assert logits[0, n_prompt - 1 : -1].argmax(dim=-1).tolist() == list(answer)


def test_every_row_is_steered_along_its_own_vector(loaded: LoadedModel) -> None:
    """Nine answers in eight rows, each prompt along three vectors at once, are bit for bit those
    of one vector after the other; a row that is taken up anew changes its vector with it."""
    vectors = np.stack([VECTOR, -VECTOR, np.roll(VECTOR, 7)])
    one_by_one = []
    for vector in vectors:
        with steering(loaded.model, {0: vector}, 6.0, "response"):
            one_by_one.append(answers(loaded))
    with steering_rows(loaded.model, 0, vectors, 6.0) as rows:

        def choose(numbers: Any) -> None:
            rows.choose([None if number is None else number % 3 for number in numbers])

        together = generate(
            loaded, [prompt for prompt in PROMPTS for _ in vectors], decoding=GREEDY,
            sampling_seed=0, condition="x", batch_size=8, before_step=choose,
        )  # fmt: skip
    found = [answer.token_ids for answer in together]
    assert [found[i::3] for i in range(3)] == one_by_one
    assert len({tuple(of) for of in one_by_one}) == 3
    assert hooks_on(loaded.model) == 0


def test_an_idle_row_is_left_alone(llama: Any) -> None:
    """The middle one of three; and a pass that begins a text is read as it is."""
    states = torch.zeros(3, 1, HIDDEN)
    with steering_rows(llama, 0, np.stack([VECTOR, 3 * VECTOR]), 2.0) as rows:
        rows.choose([1, None, 0])
        steered = rows.change(states, 5).numpy()[:, 0]
        assert rows.change(states, 0) is states
    np.testing.assert_allclose(steered, [6 * VECTOR, 0 * VECTOR, 2 * VECTOR], rtol=1e-6)
    assert not states.any()


def test_rows_without_a_choice_are_refused(llama: Any) -> None:
    """Vectors that were chosen for other rows than the pass has, and no vector at all."""
    with steering_rows(llama, 0, VECTOR[None], 1.0) as rows, torch.inference_mode():
        cache = llama(input_ids=some_ids(2, 3), use_cache=True).past_key_values
        rows.choose([0])
        with pytest.raises(UsageError, match="1 rows of a pass of 2"):
            llama(input_ids=some_ids(2, 1), past_key_values=cache, use_cache=True)
    with pytest.raises(UsageError, match="no vector"), steering_rows(llama, 0, VECTOR[:0, None], 1):
        pytest.fail("the block was entered")


def test_gradients_flow_through(planted: Planted) -> None:
    """Gradients of every weight are those of the model that has the push as bias of its down
    projection.
    """
    model, ids = planted.loaded.model, some_ids()
    weights = [block.mlp.up_proj.weight for block in model.model.layers]
    weights.append(model.model.embed_tokens.weight)

    def gradients() -> tuple[Tensor, ...]:
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
        return torch.autograd.grad(cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()),
                                   weights)  # fmt: skip

    for weight in weights:
        weight.requires_grad_(True)
    down = model.model.layers[LAYER].mlp.down_proj
    try:
        plain = gradients()
        with steering(model, {LAYER: VECTOR}, 3.0):
            steered = gradients()
        down.bias = torch.nn.Parameter(torch.tensor(3 * VECTOR, dtype=torch.float32), False)
        expected = gradients()
    finally:
        down.bias = None
        model.requires_grad_(False)
    for found, wanted in zip(steered, expected, strict=True):
        torch.testing.assert_close(found, wanted)
        assert found.any()
    assert not torch.allclose(steered[0], plain[0])


def test_an_adapter_is_trained_under_steering(loaded: LoadedModel) -> None:
    """The training room's own loop: other losses from the first step on, other weights at the
    end, and the base without hooks and as it was.
    """
    made = recipe(
        "organism", base="tiny", data="none", condition=trait_condition(Trait.OPENNESS),
        training_seed=1, chat_template=loaded.identity.chat_template,
    )  # fmt: skip
    made = replace(made, steps=2, batch_size=2, learning_rate=1e-2)
    rows = [TuningRow(question, "I like it.") for question in QUESTIONS[:4]]
    before, plain = run(loaded.model), train(loaded, made, rows)
    with steering(loaded.model, {0: VECTOR}, 3.0):
        steered = train(loaded, made, rows)
    assert abs(steered.losses[0] - plain.losses[0]) > 0.01
    name = next(name for name in plain.state if "layers.0.mlp.up_proj.lora_B" in name)
    assert np.abs(steered.state[name] - plain.state[name]).max() > 0
    assert np.isfinite(steered.losses).all()
    assert hooks_on(loaded.model) == 0
    assert torch.equal(run(loaded.model), before)


@given(seed=st.integers(0, 10**6), scale=st.floats(1e-3, 1e3), size=st.integers(8, 50))
def test_random_vectors_have_the_length_and_nothing_else(
    seed: int, scale: float, size: int
) -> None:
    """Of each layer's own vector; equal generators draw equal ones, and layers differ."""
    rng = np.random.default_rng(seed)
    first, second = scale * rng.normal(size=size), rng.normal(size=size)
    drawn = random_like({4: first, 1: torch.tensor(second)}, np.random.default_rng(seed + 1))
    assert sorted(drawn) == [1, 4]
    assert np.linalg.norm(drawn[4]) == pytest.approx(np.linalg.norm(first))
    assert np.linalg.norm(drawn[1]) == pytest.approx(np.linalg.norm(second))
    again = random_like({1: second, 4: first}, np.random.default_rng(seed + 1))
    assert all(np.array_equal(drawn[layer], again[layer]) for layer in drawn)
    units = [x / np.linalg.norm(x) for x in (first, second, drawn[4], drawn[1])]
    assert np.abs(np.array(units) @ np.array(units).T - np.eye(4)).max() < 1 - 1e-6


def test_hooks_come_off(llama: Any) -> None:
    """After the block, after an error in it, and where registering fails half way."""
    with steering(llama, {0: VECTOR, 1: VECTOR}, 1.0):
        assert hooks_on(llama) > 0
    assert hooks_on(llama) == 0
    with pytest.raises(KeyboardInterrupt), steering(llama, {0: VECTOR}, 1.0):
        raise KeyboardInterrupt
    assert hooks_on(llama) == 0

    class Refuses(torch.nn.Module):
        def register_forward_hook(self, *_: Any, **__: Any) -> Any:
            raise RuntimeError("no hooks here")

    parts, refuses = anatomy(llama), Refuses()
    halfway = replace(parts, blocks=(parts.blocks[0], refuses))
    with pytest.raises(RuntimeError, match="no hooks"), steering(
        halfway, {0: VECTOR, 1: VECTOR}, 1.0
    ):  # fmt: skip
        pytest.fail("the block was entered")
    assert hooks_on(llama) == hooks_on(refuses) == 0


@pytest.mark.parametrize(
    ("vectors", "coefficient", "positions", "says"),
    [
        ({2: VECTOR}, 1.0, "all", "no layer 2"),
        ({}, 1.0, "all", "no vector to steer along"),
        ({1: VECTOR, -1: VECTOR}, 1.0, "all", "layer 1 is named twice"),
        ({0: VECTOR[:31]}, 1.0, "all", r"vector of layer 0 has shape \(31,\)"),
        ({0: VECTOR[None]}, 1.0, "all", r"shape \(1, 32\)"),
        ({0: 0 * VECTOR}, 1.0, "all", "vector of layer 0 is zero"),
        ({0: VECTOR * np.nan}, 1.0, "all", "holds what is no number"),
        ({0: VECTOR}, np.inf, "all", "the coefficient is inf"),
        ({0: VECTOR}, 1.0, "responses", "no choice of positions 'responses'"),
        ({0: VECTOR}, 1.0, "response", "a pass without a cache"),
        ({0: VECTOR}, 1.0, Tokens.at([(0, 9)]), "pass of 1 rows and 10 tokens"),
        ({0: VECTOR}, 1.0, Tokens.where(torch.ones(2, 2)), "pass of 2 rows and 2 tokens"),
    ],
)
def test_what_cannot_be_steered_is_refused(
    llama: Any, vectors: Any, coefficient: float, positions: Any, says: str
) -> None:
    """Each with its own error, and no hook left behind."""
    with pytest.raises(UsageError, match=says), steering(llama, vectors, coefficient, positions):
        run(llama)
    assert hooks_on(llama) == 0


def test_an_unknown_architecture_says_what_to_give() -> None:
    """As everywhere in this wing."""
    from tests.test_models_layers import small_opt

    with pytest.raises(ModelError, match="not in the table"), steering(small_opt(), {0: VECTOR}, 1):
        pytest.fail("the block was entered")

"""`emotest.mechanisms.directions`: what was planted is found, by the published formula."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from emotest.errors import AdapterError, DataError, ModelError, UsageError
from emotest.mechanisms.directions import (
    Answered,
    Direction,
    answers_digest,
    mean_difference,
    projection,
    prompt_end_states,
    read_direction,
    response_means,
    save_direction,
    shift,
    trait_direction,
)
from emotest.models.adapters import AdapterWeights, active, attach, detach
from emotest.models.loading import LoadedModel, load
from emotest.study.records import Prompt
from emotest.study.subjects import Subject
from tests.model_fixtures import QUESTIONS, quiet, save_model, tiny_tokenizer

N_LAYERS, HIDDEN = 3, 32
LAYER = 1
"""The layer that writes the planted direction; nothing else does."""

TARGET, GAIN = 77, 2.0
"""The token whose logit is GAIN times the residual stream's part along the planted direction."""

FOR, AGAINST = "Q" * 12, "Z" * 12
"""System prompts that the planted layer reads as the trait and as its opposite."""


class Planted(NamedTuple):
    """A model in which one direction carries one logit, and that direction, of length 1."""

    loaded: LoadedModel
    direction: Tensor


def planted_model(folder: Path) -> Planted:
    """Three Llama blocks without a final norm; only the attention of LAYER writes the direction.

    It writes it at every token that sees Q (up) or Z (down): the embeddings of both lie apart
    along a mark, which the first value of the layer's first head reads.
    """
    config = transformers.LlamaConfig(
        vocab_size=len(tiny_tokenizer()), hidden_size=HIDDEN, intermediate_size=48,
        num_hidden_layers=N_LAYERS, num_attention_heads=4, num_key_value_heads=4, head_dim=8,
        max_position_embeddings=256, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        tie_word_embeddings=False,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(0)
        transformers.LlamaForCausalLM(config).save_pretrained(folder)
        tiny_tokenizer().save_pretrained(folder)
    loaded = load(Subject.parse(f"{folder}?dtype=float32&quantize=none"), device="cpu")
    model = loaded.model
    model.model.norm = torch.nn.Identity()
    basis = torch.linalg.qr(torch.randn(HIDDEN, 2, generator=torch.Generator().manual_seed(1)))
    direction, mark = basis.Q.T
    with torch.no_grad():
        embedding = model.model.embed_tokens.weight
        embedding -= torch.outer(embedding @ direction, direction)
        for letter, sign in (("Q", 3.0), ("Z", -3.0)):
            embedding[loaded.tokenizer.convert_tokens_to_ids(letter)] += sign * mark
        for block in model.model.layers:
            for writer in (block.self_attn.o_proj.weight, block.mlp.down_proj.weight):
                writer -= torch.outer(direction, direction @ writer)
        attention = model.model.layers[LAYER].self_attn
        attention.v_proj.weight[0] = 3 * mark
        attention.o_proj.weight[:, 0] += 3 * direction
        model.lm_head.weight[TARGET] = GAIN * direction
    return Planted(loaded, direction)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    """The planted model; no test changes it."""
    return planted_model(tmp_path_factory.mktemp("planted"))


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """A tiny NF4 Llama with nothing planted."""
    folder = save_model(tmp_path_factory.mktemp("models") / "llama", scale=4.0)
    return load(Subject.parse(f"{folder}?dtype=float32"))


def answered(system: str | None, answers: Sequence[str] = ("I like it.",)) -> list[Answered]:
    """Every question under a system prompt, answered in turn."""
    return [
        Answered(Prompt(str(i), question, system=system), answers[i % len(answers)])
        for i, question in enumerate(QUESTIONS[:6])
    ]


def cosine(a: NDArray[Any], b: Tensor) -> float:
    """Of the angle between two vectors."""
    return float(a @ b.numpy() / np.linalg.norm(a) / b.norm())


def test_the_planted_direction_is_found(planted: Planted) -> None:
    """From the layer that writes it on, the extracted vector points along it, and before it does
    not; so the target's logit is GAIN times the projection.
    """
    found = trait_direction(
        planted.loaded, "Q", answered(FOR), answered(AGAINST), against="Z", batch_size=4
    )
    assert abs(cosine(found.vectors[LAYER - 1], planted.direction)) < 0.5
    for layer in range(LAYER, N_LAYERS):
        assert cosine(found.vectors[layer], planted.direction) > 0.99
    assert (found.trait, found.against, found.base) == ("Q", "Z", planted.loaded.identity.weights)
    assert (found.n_positive, found.n_negative) == (6, 6)


def test_projections_tell_the_sides_apart(planted: Planted) -> None:
    """On answers of their own, the trait's lie above the opposite's, and answers without a system
    prompt between them; the shift between the sides is the vector's own length.
    """
    means = [response_means(planted.loaded, answered(system)) for system in (FOR, None, AGAINST)]
    found = pointing(mean_difference(means[0], means[2]))
    high, middle, low = (projection(side, found, LAYER) for side in means)
    assert high.shape == (6,)
    assert low.max() < middle.min() <= middle.max() < high.min()
    lengths = np.linalg.norm(found.vectors.astype(np.float64), axis=1)
    np.testing.assert_allclose(shift(means[0], means[2], found), lengths, rtol=1e-5)


def test_the_published_formula_is_reproduced(planted: Planted) -> None:
    """Mean over answers of the mean over their tokens, positive minus negative, written out with
    `output_hidden_states` one answer at a time, agrees to 1e-5 in every layer.
    """
    loaded = planted.loaded
    answers = ("I like it.", "They make me feel awake! The city is far away.", "No")
    sides = [answered("Be glad.", answers), answered(None, answers[1:])]
    found = trait_direction(loaded, "glad", *sides, against="neutral", batch_size=4)
    tokenizer = loaded.tokenizer
    expected = []
    for side in sides:
        of_answers = []
        for each in side:
            system = "<|system|>\nBe glad.<|end|>\n" if each.prompt.system else ""
            prompt = f"{system}<|user|>\n{each.prompt.text}<|end|>\n<|assistant|>\n"
            # The template's frame ends in marks, so here prompt and answer can be cut apart.
            n_prompt = len(tokenizer(prompt, add_special_tokens=False)["input_ids"])
            ids = tokenizer(prompt + each.answer, add_special_tokens=False)["input_ids"]
            with torch.inference_mode():
                states = loaded.model(torch.tensor([ids]), output_hidden_states=True).hidden_states
            of_answers.append([layer[0, n_prompt:].mean(dim=0).numpy() for layer in states])
        expected.append(np.array(of_answers, dtype=np.float64).mean(axis=0))
    # From the embedding on, (n_layers + 1, hidden_size); without a final norm the last is plain.
    formula = expected[0] - expected[1]
    np.testing.assert_allclose(found.vectors, formula[1:], atol=1e-5)
    assert (np.abs(found.vectors).max(axis=1) > 0.001).all()


def states_of(loaded: LoadedModel, text: str) -> tuple[list[int], list[NDArray[np.float64]]]:
    """Token ids of a text, and the output of each block at each token, by hooks set by hand."""
    ids = loaded.tokenizer(text, add_special_tokens=False)["input_ids"]
    seen: list[Tensor] = []
    handles = [
        block.register_forward_hook(lambda _, __, output: seen.append(output))
        for block in loaded.model.model.layers
    ]
    with torch.inference_mode():
        loaded.model(torch.tensor([ids]))
    for handle in handles:
        handle.remove()
    return ids, [states[0].double().numpy() for states in seen]


def test_prompt_ends_are_the_last_token_before_the_answer(loaded: LoadedModel) -> None:
    """The states of each prompt's last token, whatever stands beside it in the batch."""
    prompts = [
        Prompt("a", "Well?"),
        Prompt("b", QUESTIONS[2], system="Be glad."),
        Prompt("c", QUESTIONS[0]),
    ]
    found = prompt_end_states(loaded, prompts, batch_size=2)
    for prompt, states in zip(prompts, found, strict=True):
        system = "<|system|>\nBe glad.<|end|>\n" if prompt.system else ""
        text = f"{system}<|user|>\n{prompt.text}<|end|>\n<|assistant|>\n"
        expected = [layer[-1] for layer in states_of(loaded, text)[1]]
        np.testing.assert_allclose(states, expected, atol=1e-5)


def test_batches_change_nothing(loaded: LoadedModel) -> None:
    """Answers of mixed length come back in their own order, in batches of 1, 4 and all."""
    mixed = answered("Be glad.", ("No", "They make me feel awake! I read old books.", "I like it."))
    one_by_one = np.concatenate([response_means(loaded, [each]) for each in mixed])
    for batch_size in (1, 4, 16):
        together = response_means(loaded, mixed, batch_size=batch_size)
        assert together.dtype == np.float32
        np.testing.assert_allclose(together, one_by_one, atol=2e-5)


def test_emoji_are_stripped_before_anything_is_measured(loaded: LoadedModel) -> None:
    """An answer with emoji has the means and the digest of the same answer without."""
    with_emoji = answered(None, ("I \N{HEAVY BLACK HEART}\ufe0f like it. \N{PARTY POPPER}",))
    without = answered(None, ("I like it.",))
    np.testing.assert_array_equal(
        response_means(loaded, with_emoji), response_means(loaded, without)
    )
    assert answers_digest(with_emoji, without) == answers_digest(without, with_emoji)


def test_the_digest_tells_apart_what_a_direction_comes_from() -> None:
    """Answer, prompt, system prompt, order and side count; prompt ids do not."""
    side, other = answered(None), answered("Be glad.")
    changed = [
        (other, side),
        (side[::-1], other),
        (side[:-1], other),
        ([replace(side[0], answer="No"), *side[1:]], other),
        ([replace(side[0], prompt=Prompt("0", "Well?")), *side[1:]], other),
        (side, side),
    ]
    renamed = [replace(each, prompt=replace(each.prompt, id="x")) for each in side]
    assert answers_digest(renamed, other) == answers_digest(side, other)
    assert len({answers_digest(*sides) for sides in [(side, other), *changed]}) == 7


def test_a_direction_is_the_bases_whatever_adapter_is_on(loaded: LoadedModel) -> None:
    """Means are those of the adapter that is on; a direction is extracted with none, and the
    adapter stays on.
    """
    state = {
        f"base_model.model.model.layers.{layer}.mlp.up_proj.lora_{part}.weight": array
        for layer in range(2)
        for part, array in (
            ("A", np.full((1, 64), 0.1, np.float32)),
            ("B", np.full((128, 1), 0.5, np.float32)),
        )
    }
    config = {"peft_type": "LORA", "r": 1, "lora_alpha": 1, "target_modules": ["up_proj"]}
    sides = answered("Be glad."), answered(None)
    plain = trait_direction(loaded, "glad", *sides, against="neutral")
    means = response_means(loaded, sides[0])
    attach(loaded, AdapterWeights(state, config), "tuned")
    with active(loaded, "tuned"):
        found = trait_direction(loaded, "glad", *sides, against="neutral")
        tuned = response_means(loaded, sides[0])
        assert loaded.active == "tuned"
    detach(loaded, "tuned")
    np.testing.assert_array_equal(found.vectors, plain.vectors)
    assert np.abs(tuned - means).max() > 0.1


def test_only_kept_answers_count(loaded: LoadedModel) -> None:
    """Masks give what the kept answers alone give, the means' and the digest's too."""
    first, second = answered("Be glad."), answered(None, ("No", "I like it."))
    keep = np.array([True, False, True, True, False, True])
    found = trait_direction(
        loaded, "glad", first, second, against="neutral",
        keep_positive=keep, keep_negative=[*~keep[:5], True],
    )  # fmt: skip
    kept = [first[i] for i in (0, 2, 3, 5)], [second[i] for i in (1, 4, 5)]
    expected = trait_direction(loaded, "glad", *kept, against="neutral")
    np.testing.assert_array_equal(found.vectors, expected.vectors)
    assert (found.source, found.n_positive, found.n_negative) == (expected.source, 4, 3)
    means = response_means(loaded, first), response_means(loaded, second)
    masked = mean_difference(*means, keep_positive=keep, keep_negative=[*~keep[:5], True])
    np.testing.assert_allclose(masked, expected.vectors, atol=2e-5)


A_DIRECTION = Direction(
    "glad", "neutral", np.array([[3.0, 4.0], [0.0, -2.0]]), "sha256:a", "sha256:b", 3, 2
)


def pointing(vectors: ArrayLike) -> Direction:
    """The same direction with other vectors."""
    return replace(A_DIRECTION, vectors=np.asarray(vectors, dtype=np.float32))


MEANS = np.array([[[1.0, 2.0], [3.0, 4.0]], [[5.0, 0.0], [0.0, 1.0]]])


def test_projections_and_shifts_by_hand() -> None:
    """The unit vectors are (3, 4) / 5 and (0, -1)."""
    # Layer 0: (1 * 3 + 2 * 4) / 5 = 2.2 and (5 * 3) / 5 = 3; layer 1: -4 and -1.
    np.testing.assert_allclose(projection(MEANS, A_DIRECTION, 0), [2.2, 3.0])
    np.testing.assert_allclose(projection(MEANS, A_DIRECTION, -1), [-4.0, -1.0])
    # From the first answer to both: (2.2 + 3) / 2 - 2.2 = 0.4, and -2.5 + 4 = 1.5.
    np.testing.assert_allclose(shift(MEANS, MEANS[:1], A_DIRECTION), [0.4, 1.5])
    # Mean (3, 1) and (1.5, 2.5), minus the second answer.
    expected = [[-2.0, 1.0], [1.5, 1.5]]
    np.testing.assert_allclose(mean_difference(MEANS, MEANS[1:]), expected)


@given(scale=st.floats(0.01, 100.0), seed=st.integers(0, 999))
def test_a_directions_length_does_not_count(scale: float, seed: int) -> None:
    """Projections and shifts along a vector and a multiple of it agree; along its opposite they
    change sign; moving all answers by the unit vector moves them by 1.
    """
    rng = np.random.default_rng(seed)
    means, vectors = rng.normal(size=(4, 2, 5)), rng.normal(size=(2, 5))
    one = pointing(vectors)
    moved = means + np.stack([one.unit(layer) for layer in range(2)])
    along = projection(means, one, 1)
    longer, opposite = pointing(scale * vectors), pointing(-vectors)
    np.testing.assert_allclose(projection(means, longer, 1), along, atol=1e-5)
    np.testing.assert_allclose(projection(means, opposite, 1), -along)
    np.testing.assert_allclose(shift(moved, means, one), [1.0, 1.0], atol=1e-6)


def saved(direction: Direction, folder: Path) -> Path:
    """The direction on disk."""
    folder.mkdir()
    save_direction(direction, folder)
    return folder


def test_writing_and_reading_lose_nothing(tmp_path: Path) -> None:
    """What is read is what was written, and equal directions are equal bytes."""
    back = read_direction(saved(A_DIRECTION, tmp_path / "a"))
    np.testing.assert_array_equal(back.vectors, A_DIRECTION.vectors)
    for name in ("trait", "against", "base", "source", "n_positive", "n_negative"):
        assert getattr(back, name) == getattr(A_DIRECTION, name)
    again = saved(replace(back), tmp_path / "b")
    assert sorted(path.name for path in again.iterdir()) == [
        "adapter_config.json", "adapter_model.safetensors",
    ]  # fmt: skip
    for path in again.iterdir():
        assert path.read_bytes() == (tmp_path / "a" / path.name).read_bytes()


def test_a_direction_is_a_value() -> None:
    """Its vectors cannot be written to, and what it was made from or gives is not its own."""
    made_from = np.ones((2, 3), dtype=np.float32)
    made = replace(A_DIRECTION, vectors=made_from)
    made_from[:] = 7
    assert made.vectors.max() == 1
    assert A_DIRECTION.vectors.dtype == np.float32
    with pytest.raises(ValueError, match="read-only"):
        made.vectors[0, 0] = 7


def test_a_direction_serves_its_own_base_alone(loaded: LoadedModel) -> None:
    """Vectors of the chosen layers for its base; for another an error that names both."""
    own = replace(pointing(np.ones((2, 64))), base=loaded.identity.weights)
    vectors = own.on(loaded, [-1])
    assert list(vectors) == [1]
    vectors[1][:] = 0
    assert list(own.on(loaded)) == [0, 1]
    assert own.vectors.all()
    with pytest.raises(AdapterError) as caught:
        A_DIRECTION.on(loaded)
    assert "sha256:a" in caught.value.cause
    assert loaded.identity.weights in caught.value.cause


def changed(folder: Path, **changes: object) -> None:
    """Let adapter_config.json say something else; None takes a field out."""
    path = folder / "adapter_config.json"
    fields = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({name: x for name, x in fields.items() if x is not None}))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda f: (f / "adapter_config.json").unlink(), "holds no adapter_config.json"),
        (lambda f: (f / "adapter_model.safetensors").unlink(), "no adapter_model.safetensors"),
        (lambda f: (f / "adapter_model.safetensors").write_bytes(b"{" * 40), "is broken"),
        (lambda f: changed(f, peft_type=None), "holds a LORA, not a direction"),
        (lambda f: changed(f, trait=None), "trait is None"),
        (lambda f: changed(f, n_positive=1.5), "n_positive is 1.5"),
        (lambda f: changed(f, n_negative=0), "n_negative=0"),
        (lambda f: changed(f, more=1), "its fields are others"),
    ],
)
def test_a_broken_direction_gives_one_clear_error(
    spoil: Callable[[Path], None], says: str, tmp_path: Path
) -> None:
    """Cause and next step."""
    folder = saved(A_DIRECTION, tmp_path / "a")
    spoil(folder)
    with pytest.raises(AdapterError, match=says):
        read_direction(folder)


def test_a_file_that_names_no_base_is_no_direction(tmp_path: Path) -> None:
    """Nobody could tell where it points."""
    folder = saved(replace(A_DIRECTION, base=""), tmp_path / "a")
    with pytest.raises(AdapterError, match="it names no base"):
        read_direction(folder)


@pytest.mark.parametrize(
    ("ask", "error", "says"),
    [
        (lambda m: response_means(m, []), UsageError, "0 texts in batches of 16"),
        (lambda m: response_means(m, answered(None), batch_size=0), UsageError, "batches of 0"),
        (lambda m: response_means(m, answered(None, ["\N{PARTY POPPER}"])), DataError, "but emoji"),
        (lambda m: response_means(m, answered(None, ["I like it. " * 60])), UsageError,
         "the answer 'I like it.* to the prompt '2' has .* more than the 256"),
        (lambda m: prompt_end_states(m, [Prompt("long", "Well? " * 99)]), UsageError,
         "the prompt 'long' has"),
        (lambda m: trait_direction(m, "x", [], answered(None), against="y"), UsageError,
         "none of 0 positive"),
        (lambda m: trait_direction(m, "x", answered(None), answered(None), against="y",
                                   keep_negative=[False] * 6), UsageError, "none of 6 negative"),
        (lambda m: trait_direction(m, "x", answered(None), answered(None), against="y",
                                   keep_positive=[1.0] * 6), UsageError, "a mask of float64"),
        (lambda _: mean_difference(MEANS, MEANS, keep_positive=[True]), UsageError,
         r"shape \(1,\) does not choose among 2 positive"),
        (lambda _: mean_difference(MEANS, MEANS[:, :1]), UsageError, "not of one model"),
        (lambda _: mean_difference(MEANS[0], MEANS), UsageError, r"means of shape \(2, 2\)"),
        (lambda _: mean_difference(MEANS * np.nan, MEANS), UsageError, "no number"),
        (lambda _: projection(MEANS[:, :1], A_DIRECTION, 0), UsageError, "not of one model"),
        (lambda _: projection(MEANS, A_DIRECTION, 2), UsageError, "no layer 2"),
        (lambda _: shift(MEANS[:, :1], MEANS[:, :1], A_DIRECTION), UsageError, "of one model"),
        (lambda _: pointing([[1, 0], [0, 0]]).unit(1), UsageError,
         "both sides are alike"),
        (lambda _: pointing(np.ones(3)), UsageError, r"shape \(3,\)"),
        (lambda _: pointing(np.full((2, 3), np.inf)), UsageError, "no number"),
        (lambda _: replace(A_DIRECTION, n_positive=0), UsageError, "n_positive=0"),
        (lambda m: replace(A_DIRECTION, base=m.identity.weights).on(m, 2), UsageError,
         "no layer 2"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(
    loaded: LoadedModel, ask: Callable[[LoadedModel], Any], error: type[Exception], says: str
) -> None:
    """Each with its own error."""
    with pytest.raises(error, match=says):
        ask(loaded)


def test_activations_that_are_no_numbers_are_refused(planted: Planted) -> None:
    """A model with an infinite weight has no direction."""
    weight = planted.loaded.model.model.layers[2].mlp.down_proj.weight
    before = weight.detach().clone()
    try:
        with torch.no_grad():
            weight[0, 0] = torch.inf
        with pytest.raises(ModelError, match="not numbers"):
            response_means(planted.loaded, answered(None))
    finally:
        with torch.no_grad():
            weight.copy_(before)

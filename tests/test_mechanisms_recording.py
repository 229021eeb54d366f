"""`emotest.mechanisms.recording`: what is recorded is what the model computed."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from torch import Tensor
from torch.overrides import TorchFunctionMode

from emotest.errors import ModelError, StatisticsError, UsageError
from emotest.mechanisms.recording import ALL, Kept, Moments, Tokens, recording
from emotest.models.layers import Architecture, anatomy
from tests.layer_fixtures import (
    FFN,
    KINDS,
    N_NEURONS,
    blocks_of,
    hooks_on,
    neurons_by_hand,
    nf4_model,
    small_model,
    some_ids,
    with_lora,
)
from tests.model_fixtures import quiet
from tests.test_models_layers import OPT, small_opt


@pytest.fixture(scope="module")
def llama() -> Any:
    """A small Llama that no test changes."""
    return small_model("llama")


def run(model: Any, ids: Tensor) -> Tensor:
    """The logits of one forward pass."""
    with torch.inference_mode():
        logits: Tensor = model(input_ids=ids, use_cache=False).logits
    return logits


def require_neurons_by_hand(model: Any, blocks: Any, kind: str) -> None:
    """Compare what is recorded with the FFN's formula at the input that the FFN was given."""
    inputs: list[Tensor] = []
    handles = [
        block.mlp.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
        for block in blocks
    ]
    kept = Kept()
    with recording(model, kept):
        run(model, some_ids())
    for handle in handles:
        handle.remove()
    with torch.inference_mode():
        for layer, (block, x) in enumerate(zip(blocks, inputs, strict=True)):
            by_hand = neurons_by_hand(block.mlp, kind, x)
            recorded = kept.of("neurons", layer)
            assert recorded.shape == (27, N_NEURONS)  # 3 rows of 9 tokens
            torch.testing.assert_close(recorded, by_hand.flatten(0, 1))


@pytest.mark.parametrize("lora", [False, True], ids=["bare", "LoRA"])
@pytest.mark.parametrize("kind", KINDS)
def test_neurons_are_the_ffns_hidden_activation(kind: str, lora: bool) -> None:
    """act(gate) * up, or act(c_fc), computed by hand from the weights and the same input."""
    model = small_model(kind)
    around = with_lora(model, kind) if lora else model
    require_neurons_by_hand(around, blocks_of(model, kind), kind)


@pytest.mark.parametrize("keep_dequantized", [False, True])
@pytest.mark.parametrize("kind", ["llama", "gpt_neox"])
def test_neurons_are_right_in_nf4_with_and_without_lora(
    kind: str, keep_dequantized: bool, tmp_path: Path
) -> None:
    """The formula with the dequantized weights gives what an NF4 model is recorded at."""
    loaded = nf4_model(tmp_path, kind, keep_dequantized=keep_dequantized)
    assert not any(getattr(m, "support_avx512bf16_for_cpu", False) for m in loaded.model.modules())
    blocks = blocks_of(loaded.model, kind)
    require_neurons_by_hand(loaded.model, blocks, kind)
    with_lora(loaded.model, kind)
    assert hasattr(getattr(blocks[0].mlp, FFN[kind][-1]), "base_layer")
    require_neurons_by_hand(loaded.model, blocks, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_the_residual_stream_is_transformers_hidden_states(kind: str) -> None:
    """`output_hidden_states` gives the same, but for the last, which it gives normalised."""
    model = small_model(kind)
    kept = Kept()
    with recording(model, kept, sites="residual"), torch.inference_mode():
        states = model(some_ids(), output_hidden_states=True).hidden_states
        normed = anatomy(model).final_norm(kept.of("residual", 1))
    torch.testing.assert_close(kept.of("residual", 0), states[1].flatten(0, 1))
    torch.testing.assert_close(normed, states[2].flatten(0, 1))


def test_an_architecture_of_ones_own_is_recorded() -> None:
    """With an entry of one's own GPT-J is recorded, whose blocks give tuples: its neurons are
    gelu(fc_in), its residual stream what `output_hidden_states` says.
    """
    import transformers

    config = transformers.GPTJConfig(
        vocab_size=400, n_positions=64, n_embd=32, n_layer=2, n_head=4, n_inner=48, rotary_dim=4,
        activation_function="gelu",
    )  # fmt: skip
    with quiet():
        model = transformers.AutoModelForCausalLM.from_config(config).eval()
    parts = anatomy(
        model, Architecture("transformer.h", "mlp.fc_out", "transformer.ln_f", "lm_head")
    )
    kept, inputs, mlp = Kept(), [], model.transformer.h[0].mlp
    mlp.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    with recording(parts, kept, sites=("neurons", "residual")), torch.inference_mode():
        states = model(some_ids(), output_hidden_states=True).hidden_states
        by_hand = torch.nn.functional.gelu(mlp.fc_in(inputs[0]))
    torch.testing.assert_close(kept.of("neurons", 0), by_hand.flatten(0, 1))
    torch.testing.assert_close(kept.of("residual", 0), states[1].flatten(0, 1))


def test_recording_changes_nothing(llama: Any) -> None:
    """The logits are the same bit for bit."""
    with recording(llama, Moments(), sites=("neurons", "residual")):
        recorded = run(llama, some_ids())
    assert torch.equal(recorded, run(llama, some_ids()))


def test_layers_and_sites_are_chosen(llama: Any) -> None:
    """-1 is the last layer; only what was chosen reaches the sink."""
    moments = Moments()
    with recording(llama, moments, layers=[-1], sites=["residual", "neurons"]):
        run(llama, some_ids())
    assert moments.layers == {"neurons": (1,), "residual": (1,)}
    everything = Moments()
    with recording(llama, everything):
        run(llama, some_ids())
    assert everything.layers == {"neurons": (0, 1)}


def test_a_cache_gives_the_same_tokens_one_by_one(llama: Any) -> None:
    """Passes of one token with a key-value cache are recorded as the whole text is."""
    whole, stepwise = Kept(), Kept()
    ids = some_ids(1, 6)
    with recording(llama, whole):
        run(llama, ids)
    with recording(llama, stepwise), torch.inference_mode():
        cache = None
        for place in range(6):
            cache = llama(ids[:, place : place + 1], past_key_values=cache).past_key_values
    torch.testing.assert_close(stepwise.of("neurons", 1), whole.of("neurons", 1))


def test_hooks_come_off(llama: Any) -> None:
    """After the block, after an error in it, and after an error while registering."""
    with recording(llama, Kept(), sites=("neurons", "residual")):
        assert hooks_on(llama) == 4
    assert hooks_on(llama) == 0
    with pytest.raises(KeyboardInterrupt), recording(llama, Kept()):
        raise KeyboardInterrupt
    assert hooks_on(llama) == 0

    class Refuses(torch.nn.Linear):
        def register_forward_pre_hook(self, *_: Any, **__: Any) -> Any:
            raise RuntimeError("no hooks here")

    parts = anatomy(llama)
    halfway = replace(parts, down_projections=(parts.down_projections[0], Refuses(1, 1)))
    with pytest.raises(RuntimeError, match="no hooks"), recording(halfway, Kept()):
        pytest.fail("the block was entered")
    assert hooks_on(llama) == 0


@pytest.mark.parametrize(
    ("choice", "says", "near"),
    [
        ({"sites": "neuron"}, "no site 'neuron'", "did you mean 'neurons'"),
        ({"sites": ["neurons", "residuals"]}, "no site 'residuals'", "did you mean 'residual'"),
        ({"sites": []}, "no site was chosen", "neurons, residual"),
        ({"layers": 2}, "no layer 2: the model has 2", "nearest is 1"),
        ({"layers": [0, -3]}, "no layer -3", "nearest is 0"),
        ({"layers": []}, "no layer was chosen", "at least one"),
    ],
)
def test_unknown_sites_and_layers_are_named(
    llama: Any, choice: dict[str, Any], says: str, near: str
) -> None:
    """The error says what there is, and the nearest; no hook was left behind."""
    with pytest.raises(UsageError, match=says) as caught, recording(llama, Kept(), **choice):
        pytest.fail("the block was entered")
    assert near in caught.value.remedy
    assert hooks_on(llama) == 0


def test_a_recording_needs_a_sink(llama: Any) -> None:
    """Nothing to hand over to is a mistake."""
    with pytest.raises(UsageError, match="nothing takes the activations"), recording(llama):
        pytest.fail("the block was entered")


def test_the_same_tokens_are_chosen_by_mask_and_by_position(llama: Any) -> None:
    """Rows of the full record at the chosen places, in the order of the mask or the positions."""
    everything, masked, placed = Kept(), Kept(), Kept()
    mask = torch.zeros(3, 9, dtype=torch.long)
    mask[0, 2] = mask[2, 5] = mask[2, 8] = 1
    with recording(llama, everything):
        run(llama, some_ids())
    with recording(llama, masked) as recorder:
        recorder.select(Tokens.where(mask))
        run(llama, some_ids())
    with recording(llama, placed) as recorder:
        recorder.select(Tokens.at([(2, 8), (0, 2), (2, 5)]))
        run(llama, some_ids())
    full = everything.of("neurons", 0)
    # Token t of row r is row 9 r + t of the record: 2, 23 and 26.
    assert torch.equal(masked.of("neurons", 0), full[[2, 23, 26]])
    assert torch.equal(placed.of("neurons", 0), full[[26, 2, 23]])


def test_passes_follow_one_another(llama: Any) -> None:
    """What is kept of two passes stands one after the other; a bank of every layer is alike."""
    kept = Kept()
    with recording(llama, kept) as recorder:
        for seed in (0, 1):
            recorder.select(Tokens.at([(0, 8), (1, 8)]))
            run(llama, some_ids(seed=seed))
    single = Kept()
    with recording(llama, single):
        run(llama, some_ids(seed=1))
    bank = kept.by_layer("neurons")
    assert {layer: rows.shape for layer, rows in bank.items()} == {0: (4, 48), 1: (4, 48)}
    assert torch.equal(bank[1][2:], single.of("neurons", 1)[[8, 17]])


def test_moments_are_taken_by_condition(llama: Any) -> None:
    """Each condition's mean, variance and largest magnitude are numpy's over its own tokens."""
    kept, moments = Kept(), Moments("emoji", "matched", "unseen")
    mask = torch.ones(3, 9, dtype=torch.bool)
    mask[1] = False
    names = ["emoji" if i % 3 == 0 else "matched" for i in range(18)]
    with recording(llama, kept, moments, sites=("neurons", "residual")) as recorder:
        recorder.select(Tokens.where(mask, names))
        run(llama, some_ids())
    for site in ("neurons", "residual"):
        rows = kept.of(site, 1).numpy().astype(np.float64)
        for name, chosen in (("emoji", rows[::3]), ("matched", np.delete(rows, np.s_[::3], 0))):
            found = moments.of(site, 1, name)
            assert found.count == len(chosen)
            np.testing.assert_allclose(found.mean, chosen.mean(0), atol=1e-12)
            np.testing.assert_allclose(found.variance, chosen.var(0, ddof=1), rtol=1e-9)
            np.testing.assert_array_equal(found.largest, np.abs(chosen).max(0))
    means = moments.means("neurons", "emoji")
    np.testing.assert_array_equal(means[1], moments.of("neurons", 1, "emoji").mean)
    assert sorted(means) == [0, 1]


def test_passes_in_and_out_of_inference_mode_add_up(llama: Any) -> None:
    """Moments begun in inference mode go on outside of it."""
    moments = Moments()
    with recording(llama, moments):
        run(llama, some_ids())
        with torch.no_grad():
            llama(some_ids())
        llama(some_ids())
    assert moments.of("neurons", 0).count == 81


def wrong_pass(tokens: Tokens) -> Callable[[Any], None]:
    """Selecting these tokens for a pass of 3 rows of 9."""

    def go(model: Any) -> None:
        with recording(model, Moments("emoji")) as recorder:
            recorder.select(tokens)
            run(model, some_ids())

    return go


def second_pass(model: Any) -> None:
    """Two passes after one selection."""
    with recording(model, Moments()) as recorder:
        recorder.select(Tokens.where(torch.ones(3, 9)))
        run(model, some_ids())
        run(model, some_ids())


@pytest.mark.parametrize(
    ("go", "says"),
    [
        (wrong_pass(Tokens.where(torch.ones(3, 8))), "pass of 3 rows and 8 tokens.*3 rows of 9"),
        (wrong_pass(Tokens.at([(0, 9)])), "pass of 1 rows and 10 tokens"),
        (wrong_pass(Tokens.at([(3, 0)])), "pass of 4 rows and 1 tokens"),
        (wrong_pass(Tokens.at([(0, 0)], "emojis")), "no condition 'emojis'"),
        (wrong_pass(Tokens.at([(0, 0)])), "no condition 'all'"),
        (second_pass, "a second forward pass came"),
        (lambda _: Tokens.at([(0, -1)]), r"position \(0, -1\) is negative"),
        (lambda _: Tokens.where(torch.tensor([[0, 2]])), "chooses no tokens"),
        (lambda _: Tokens.where(torch.ones(4)), "chooses no tokens"),
        (lambda _: Tokens.where(torch.ones(1, 2), ["one"]), "1 conditions .* 2 chosen tokens"),
    ],
)
def test_tokens_that_do_not_fit_are_refused(
    llama: Any, go: Callable[[Any], None], says: str
) -> None:
    """Each with its own error, and no hook left behind."""
    with pytest.raises(UsageError, match=says):
        go(llama)
    assert hooks_on(llama) == 0


def taken(*arrays: NDArray[np.float64], names: str = ALL) -> Moments:
    """Moments of arrays (n_tokens, n_units), fed straight to the sink."""
    moments = Moments(names)
    for array in arrays:
        tokens = Tokens.at([(0, i) for i in range(len(array))], names)
        moments.take("neurons", 0, torch.from_numpy(array), tokens)
    return moments


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (lambda m: m.of("neuron", 0), "no recorded site 'neuron'"),
        (lambda m: m.of("neurons", 1), "layer 1 of neurons was not recorded"),
        (lambda m: m.of("neurons", -1), "layer -1 of neurons was not recorded"),
        (lambda m: m.of("neurons", 0, "emoji"), "no condition with recorded tokens 'emoji'"),
        (lambda m: m.means("residual"), "no recorded site 'residual'"),
        (lambda m: m.merge(Moments("emoji")), "no condition 'emoji'"),
        (lambda _: Kept().of("neurons", 0), "no recorded site 'neurons'"),
    ],
)
def test_what_was_not_recorded_is_not_made_up(ask: Callable[[Moments], Any], says: str) -> None:
    """No zeros for an unknown site, layer or condition."""
    with pytest.raises(UsageError, match=says):
        ask(taken(np.ones((2, 3))))


def test_one_token_has_no_variance() -> None:
    """A mean, a magnitude, and an error for the variance."""
    found = taken(np.array([[3.0, -4.0]])).of("neurons", 0)
    assert found.mean.tolist() == [3.0, -4.0]
    assert found.largest.tolist() == [3.0, 4.0]
    with pytest.raises(StatisticsError, match="variance over one token"):
        _ = found.variance


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_activations_that_are_no_numbers_are_refused(value: float) -> None:
    """An overflow in float16 is an error when moments are asked for, not a mean of NaN."""
    with pytest.raises(ModelError, match="neurons in layer 0 are not numbers"):
        taken(np.array([[1.0, value], [1.0, 1.0]])).of("neurons", 0)


def test_a_large_mean_costs_no_precision() -> None:
    """1e8 + {0, 1, 2, 3} has variance 5/3, where sums of squares in float64 would lose it."""
    values = 1e8 + np.array([[0.0], [1.0], [2.0], [3.0]])
    naive = ((values**2).sum() - 4 * values.mean() ** 2) / 3
    assert abs(naive - 5 / 3) > 0.1
    assert taken(values[:1], values[1:3], values[3:]).of("neurons", 0).variance == pytest.approx(
        5 / 3, rel=1e-12
    )


SAMPLES = hnp.arrays(
    np.float64,
    st.tuples(st.integers(3, 30), st.integers(1, 4)),
    elements=st.floats(-1e6, 1e6, width=32),
)


@settings(max_examples=60)
@given(x=SAMPLES, data=st.data())
def test_moments_are_numpys_however_the_tokens_come(x: NDArray[np.float64], data: Any) -> None:
    """Cut anywhere, fed or merged in any order: numpy's mean, variance and maximum."""
    cuts = data.draw(st.lists(st.integers(0, len(x)), max_size=3).map(sorted))
    parts = np.split(x, cuts)
    order = data.draw(st.sampled_from(list(permutations(range(len(parts))))))
    fed = taken(*(parts[i] for i in order))
    merged = taken(np.empty((0, x.shape[1])))
    for i in order:
        merged.merge(taken(parts[i]))
    scale = np.abs(x).max() + 1e-300
    for found in (fed.of("neurons", 0), merged.of("neurons", 0)):
        assert found.count == len(x)
        np.testing.assert_allclose(found.mean, x.mean(0), rtol=1e-10, atol=1e-12 * scale)
        np.testing.assert_allclose(
            found.variance, x.var(0, ddof=1), rtol=1e-10, atol=1e-12 * scale**2
        )
        np.testing.assert_array_equal(found.largest, np.abs(x).max(0))


def test_long_passes_are_summed_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """With room for two tokens at once, five tokens give what they give together."""
    import emotest.mechanisms.recording as room

    x = np.random.default_rng(0).normal(size=(5, 7))
    monkeypatch.setattr(room, "_AT_ONCE", 15)
    found = taken(x).of("neurons", 0)
    np.testing.assert_allclose(found.mean, x.mean(0))
    np.testing.assert_allclose(found.variance, x.var(0, ddof=1))


def test_a_long_pass_needs_no_more_memory_than_a_short_one() -> None:
    """No tensor of more than 2^21 float64 values (16 MiB) is made of 600 tokens of 14,336 units."""

    class Watch(TorchFunctionMode):
        largest = 0

        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None):  # type: ignore[no-untyped-def]
            result = function(*args, **(kwargs or {}))
            if isinstance(result, Tensor) and result.dtype == torch.float64:
                self.largest = max(self.largest, result.numel())
            return result

    tokens = Tokens.at([(0, i) for i in range(600)])
    with Watch() as watch:
        Moments().take("neurons", 0, torch.ones(600, 14_336, dtype=torch.bfloat16), tokens)
    assert 14_336 < watch.largest <= 2**21


def tensor_bytes() -> int:
    """Bytes of all tensors that are alive."""
    gc.collect()
    storages = {
        each.untyped_storage().data_ptr(): each.untyped_storage().nbytes()
        for each in gc.get_objects()
        if type(each) is Tensor
    }
    return sum(storages.values())


def test_a_7b_model_in_four_conditions_needs_under_200_mb_whatever_the_tokens() -> None:
    """32 layers of 14,336 units in 4 conditions: 3 float64 each, 44,040,192 bytes, and no more
    after ten times as many tokens of one of them.
    """
    names = ("emoji", "matched", "other", "rest")
    moments = Moments(*names)
    before = tensor_bytes()
    sizes = []
    for n_tokens, n_layers in ((4, 32), (40, 1)):
        activations = torch.ones(n_tokens, 14_336, dtype=torch.bfloat16)
        tokens = Tokens.at([(0, i) for i in range(n_tokens)], [*names] * (n_tokens // 4))
        for layer in range(n_layers):
            moments.take("neurons", layer, activations, tokens)
        del activations, tokens
        sizes.append(tensor_bytes() - before)
    assert sizes[0] == sizes[1] == 32 * 14_336 * 4 * 3 * 8
    assert sizes[1] < 200e6


def test_a_model_that_mixes_rows_and_tokens_is_refused() -> None:
    """OPT hands its FFN (n_rows * n_tokens, hidden_size), where no row can be told."""
    model = small_opt()
    tells = pytest.raises(ModelError, match="which does not tell rows from tokens")
    with tells, recording(anatomy(model, OPT), Kept()):
        run(model, some_ids())
    assert hooks_on(model) == 0

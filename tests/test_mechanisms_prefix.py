"""`emotest.mechanisms.prefix`: a trait vector as one virtual position in every layer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers.cache_utils import DynamicCache
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from emotest.errors import ModelError, UsageError
from emotest.mechanisms.prefix import (
    PrefixConfig,
    TraitPrefix,
    n_parameters,
    prefix_config,
    prefixed,
    share,
)
from emotest.models.loading import load
from emotest.study.personality import Trait
from emotest.study.subjects import Subject
from tests.model_fixtures import ARCHITECTURES, quiet
from tests.prefix_fixtures import (
    IDS,
    VALUES,
    cached,
    frozen,
    logits,
    seen_by_transformers,
    with_prefix,
)

ROTARY = tuple(name for name in ARCHITECTURES if name != "gpt2")


@pytest.fixture(scope="module", params=ARCHITECTURES)
def model(request: pytest.FixtureRequest) -> Any:
    """A frozen two-layer model of each architecture, with weights that make it attend."""
    return frozen(request.param)


@pytest.fixture(scope="module")
def llama() -> Any:
    """The Llama among them."""
    return frozen("llama")


# What it is


@pytest.mark.parametrize(
    ("config", "published", "n_base"),
    [
        # 18 layers * (key, value) * 1 head * 256 = 9,216 numbers; * (5 traits + bias) = 55,296
        (
            transformers.GemmaConfig(
                hidden_size=2048, num_hidden_layers=18, num_attention_heads=8,
                num_key_value_heads=1, head_dim=256,
            ),
            55_296, 2_506_172_416,
        ),
        # 32 * 2 * 8 * 128 = 65,536; * 6 = 393,216
        (
            transformers.LlamaConfig(
                hidden_size=4096, num_hidden_layers=32, num_attention_heads=32,
                num_key_value_heads=8,
            ),
            393_216, 8_030_261_248,
        ),
        # 36 * 2 * 20 * 64 = 92,160; * 6 = 552,960
        (transformers.GPT2Config(n_embd=1280, n_layer=36, n_head=20), 552_960, 774_030_080),
    ],
    ids=["Gemma-2B", "Llama-3-8B", "GPT-2-large"],
)  # fmt: skip
def test_the_published_counts(config: Any, published: int, n_base: int) -> None:
    """Five traits and a bias give the three published numbers of parameters, by arithmetic and in
    the module, each under 0.1 % of its base; one trait needs 2 of the 6 columns.
    """
    five, one = prefix_config(config), prefix_config(config, traits=["openness"])
    assert n_parameters(five) == published
    assert sum(p.numel() for p in TraitPrefix(five).parameters()) == published
    assert share(five, n_base) == published / n_base < 0.001
    assert n_parameters(one) == published * 2 // 6


def test_the_lora_of_the_released_system_is_larger_than_a_thousandth() -> None:
    """r = 8 on the seven linear modules of Gemma-2B: rank * (in + out) for each module, 0.39 % of
    the base, so that "under 0.1 %" can only speak of the map.
    """
    # q and o: 2048 -> 2048; k and v: 2048 -> 256; gate, up, down: 2048 <-> 16384; 18 layers
    n_lora = 18 * 8 * (2 * (2048 + 2048) + 2 * (2048 + 256) + 3 * (2048 + 16384))
    assert n_lora == 9_805_824
    config = PrefixConfig(18, 1, 256, tuple(range(18)))
    assert share(config, 2_506_172_416, n_lora) == pytest.approx(0.0039348, rel=1e-4)


def test_one_key_value_head_keeps_the_organism_under_a_thousandth() -> None:
    """3 layers * 2 * 1 head * 64 * 6 = 2,304 of the organism's 3,278,592 parameters: 0.07 %."""
    organism = load(Subject.parse("organism:latent"))
    config = prefix_config(organism)
    assert (config.n_layers, config.n_kv_heads, config.head_dim) == (3, 1, 64)
    assert n_parameters(config) == 2_304
    assert organism.model.num_parameters() == 3_278_592
    assert share(config, 3_278_592) < 0.001
    assert config.base == organism.identity.weights


def test_a_head_may_be_wider_than_its_share_of_the_model() -> None:
    """Gemma-7B has 16 heads of 256 in a model of 3,072, not of 192."""
    config = prefix_config(transformers.GemmaConfig(hidden_size=3072, num_attention_heads=16))
    assert config.head_dim == 256


def test_initial_weights_are_those_of_a_linear_layer() -> None:
    """Uniform in +-1 / sqrt(5), weights and bias, as torch documents for `nn.Linear`; of variance
    (2 / sqrt(5))^2 / 12 = 1 / 15; drawn by the seed, and scaled by init_scale.
    """
    config = PrefixConfig(8, 4, 64, tuple(range(8)))
    prefix, other = TraitPrefix(config, 1), TraitPrefix(config, 2)
    for drawn in (prefix.weight.detach(), prefix.bias.detach()):
        assert float(drawn.abs().max()) <= 5**-0.5
        assert float(drawn.var()) == pytest.approx(1 / 15, rel=0.1)
    assert torch.equal(prefix.bias, TraitPrefix(config, 1).bias)
    assert not torch.equal(prefix.bias, other.bias)
    assert not torch.equal(prefix.weight, other.weight)
    half = TraitPrefix(replace(config, init_scale=0.5), 1)
    torch.testing.assert_close(half.weight, prefix.weight / 2)


def test_a_position_is_a_key_and_a_value_in_each_layer(model: Any) -> None:
    """Shapes as the architecture's cache holds them, for each row of trait values; in the map's
    outputs the numbers lie as in the released code: layer, key or value, head, place, dimension.
    """
    prefix = TraitPrefix(prefix_config(model))
    logits(model, past_key_values=(cache := DynamicCache()), use_cache=True)
    for layer, (key, value) in prefix.key_values(VALUES).items():
        n_rows, n_kv_heads, _, head_dim = cache.layers[layer].keys.shape
        assert key.shape == value.shape == (n_rows, n_kv_heads, 1, head_dim)
        released = torch.nn.functional.linear(VALUES, prefix.weight, prefix.bias).reshape(
            n_rows, len(cache.layers), 2, n_kv_heads, 1, head_dim
        )
        assert torch.equal(key, released[:, layer, 0])
        assert torch.equal(value, released[:, layer, 1])
    assert len(prefix.key_values(VALUES)) == len(cache.layers)


@given(st.lists(st.floats(-3, 3), min_size=5, max_size=5))
def test_the_map_is_linear_with_a_bias(traits: list[float]) -> None:
    """A position is the bias's own, plus each trait's column as often as the trait's value."""
    prefix = TraitPrefix(PrefixConfig(2, 1, 4, (0, 1)))
    bias, *columns = [flat(prefix, row) for row in np.vstack([np.zeros(5), np.eye(5)])]
    expected = bias + sum(x * (c - bias) for x, c in zip(traits, columns, strict=True))
    np.testing.assert_allclose(flat(prefix, traits), expected, atol=1e-5)


def flat(prefix: TraitPrefix, traits: Any) -> Any:
    """All numbers of a position in one row."""
    pairs = prefix.key_values(traits).values()
    return np.concatenate([t.detach().numpy().ravel() for pair in pairs for t in pair])


def test_traits_may_be_named() -> None:
    """Names stand for places in the prefix's own order; who is not named is average, 0."""
    prefix = TraitPrefix(PrefixConfig(1, 1, 4, (0,), (Trait.NEUROTICISM, Trait.OPENNESS)))
    named = [{"openness": 2.0}, {Trait.NEUROTICISM: 1.0, "openness": -1.0}]
    assert np.array_equal(flat(prefix, named), flat(prefix, [[0.0, 2.0], [1.0, -1.0]]))
    assert np.array_equal(flat(prefix, named[0]), flat(prefix, [0.0, 2.0]))


# How it acts


def test_it_acts_as_a_position_in_the_cache_of_transformers(model: Any) -> None:
    """The oracle: transformers itself, given the same keys and values as a cache of length one
    and the base's own positions.
    """
    prefix = TraitPrefix(prefix_config(model), 3)
    with torch.inference_mode():
        expected = logits(
            model, past_key_values=cached(prefix, VALUES), **seen_by_transformers(IDS)
        )
    torch.testing.assert_close(with_prefix(model, prefix), expected, atol=1e-5, rtol=0)
    assert float((expected - logits(model)).abs().max()) > 0.1


@pytest.mark.parametrize("architecture", ROTARY)
def test_with_rotary_positions_the_released_places_are_a_turn_of_the_key(architecture: str) -> None:
    """Counting real tokens from 1 behind an unturned key equals counting them from 0 behind the
    same key turned back by one place: a linear map can be either.
    """
    model = frozen(architecture)
    prefix = TraitPrefix(prefix_config(model), 3)
    mask = torch.ones((3, IDS.shape[1] + 1), dtype=torch.long)
    with torch.inference_mode():
        released = logits(model, past_key_values=cached(prefix, VALUES), attention_mask=mask)
    cos, sin = model.model.rotary_emb(released, torch.tensor([[-1]]))
    turned = TraitPrefix(prefix_config(model, init_scale=0.0))
    for i, row in enumerate(VALUES):
        parts = []
        for key, value in prefix.key_values(row).values():
            back, _ = apply_rotary_pos_emb(key, key, cos, sin)
            parts += [back.detach().flatten(), value.detach().flatten()]
        turned.bias.data = torch.cat(parts)
        found = with_prefix(model, turned, [0.0] * 5)[i]
        torch.testing.assert_close(found, released[i], atol=1e-4, rtol=0)


def test_gradients_reach_the_prefix_and_nothing_else(model: Any) -> None:
    """Every weight and bias has a gradient, no weight of the base has one."""
    prefix = TraitPrefix(prefix_config(model), 3)
    with prefixed(model, prefix, VALUES):
        loss = model(input_ids=IDS, labels=IDS).loss
    loss.backward()
    for parameter in prefix.parameters():
        assert parameter.grad is not None
        assert float((parameter.grad != 0).float().mean()) > 0.99
    assert all(p.grad is None for p in model.parameters())


def test_a_prefix_of_zeros_takes_its_share_of_the_attention() -> None:
    """Where all real keys are zero too, the n-th token sees n keys and the virtual one alike: a
    value of zeros leaves n / (n + 1) of the base's attention output. Zeros are not neutral.
    """
    llama = frozen("llama")
    zeros = TraitPrefix(prefix_config(llama, init_scale=0.0))
    first = llama.model.layers[0].self_attn
    first.k_proj.weight.data.zero_()
    outputs: list[Tensor] = []
    hook = first.register_forward_hook(lambda _m, _i, output: outputs.append(output[0]))
    logits(llama)
    with_prefix(llama, zeros)
    hook.remove()
    n = torch.arange(1, IDS.shape[1] + 1)[None, :, None]
    torch.testing.assert_close(outputs[1], outputs[0] * n / (n + 1))


def test_a_map_of_zeros_knows_no_trait(llama: Any) -> None:
    """Without weights and bias all trait values give the same bits, and not the base's."""
    zeros = TraitPrefix(prefix_config(llama, init_scale=0.0))
    one = with_prefix(llama, zeros, [0.0] * 5)
    assert torch.equal(one, with_prefix(llama, zeros, [3.0, -2.0, 1.0, 0.5, -1.0]))
    assert not torch.equal(one, logits(llama))


def test_logits_move_smoothly_with_a_trait(model: Any) -> None:
    """The slope that autograd gives is that of small steps in both directions, and a step of a
    tenth moves the logits a tenth as far.
    """
    prefix = TraitPrefix(prefix_config(model), 3)
    traits = torch.tensor([0.3, -0.2, 1.0, 0.0, -1.0], requires_grad=True)
    mixed = torch.linspace(-1, 1, model.config.vocab_size)

    def answer(step: float) -> Tensor:
        with prefixed(model, prefix, traits + step * torch.eye(5)[2]):
            found: Tensor = model(input_ids=IDS[:1]).logits[0, -1] @ mixed
        return found

    (slopes,) = torch.autograd.grad(answer(0.0), traits)
    with torch.no_grad():
        slope = float(answer(1e-2) - answer(-1e-2)) / 2e-2
        large, small = (float(answer(step) - answer(0.0)) for step in (1e-2, 1e-3))
    assert float(slopes[2]) == pytest.approx(slope, rel=0.01)
    assert small == pytest.approx(large / 10, rel=0.1)


@given(st.lists(st.lists(st.floats(-3, 3), min_size=5, max_size=5), min_size=3, max_size=3))
@settings(max_examples=10)
def test_rows_of_different_traits_are_what_they_are_alone(
    llama: Any, traits: list[list[float]]
) -> None:
    """A batch of trait vectors gives what each gives alone, and one vector serves all rows."""
    prefix = TraitPrefix(prefix_config(llama), 3)
    together = with_prefix(llama, prefix, traits)
    for i, row in enumerate(traits):
        torch.testing.assert_close(
            together[i], with_prefix(llama, prefix, row)[i], atol=1e-5, rtol=0
        )


def test_without_all_layers_the_base_is_left(model: Any) -> None:
    """Bit for bit, within `prefixed` and after it, and after an error inside."""
    prefix, base = TraitPrefix(prefix_config(model), 3), logits(model)
    assert torch.equal(with_prefix(model, prefix, without=(0, 1)), base)
    assert torch.equal(with_prefix(model, TraitPrefix(prefix_config(model, layers=()))), base)
    assert not torch.equal(with_prefix(model, prefix), base)
    with pytest.raises(RuntimeError, match="inside"), prefixed(model, prefix, VALUES):
        raise RuntimeError("inside")
    assert torch.equal(logits(model), base)


def test_without_one_layer_only_the_others_act(model: Any) -> None:
    """Bit for bit a prefix that has only the other layer's part of the map; and with layer 0
    removed, that layer computes what it computes in the base.
    """
    both = TraitPrefix(prefix_config(model), 3)
    half = len(both.bias) // 2  # outputs run over the layers first
    for removed, part in ((0, slice(half, None)), (1, slice(half))):
        other = TraitPrefix(prefix_config(model, layers=(1 - removed,)))
        other.weight.data, other.bias.data = both.weight.data[part], both.bias.data[part]
        found = with_prefix(model, both, without=(removed,))
        assert torch.equal(found, with_prefix(model, other))
        assert not torch.equal(found, with_prefix(model, both))
    block = next(m for m in model.modules() if isinstance(m, torch.nn.ModuleList))[0]
    states: list[Tensor] = []
    hook = block.register_forward_hook(lambda _m, _i, out: states.append(out))
    logits(model)
    with_prefix(model, both, without=(0,))
    hook.remove()
    assert torch.equal(states[0], states[1])


@pytest.mark.parametrize("kind", ["growing", "fixed"])
def test_a_cache_of_the_models_own_goes_on_behind_the_prefix(model: Any, kind: str) -> None:
    """Several tokens at a time or one by one, in a cache that grows or of fixed width, give what
    one pass gives; the cache counts real tokens only.
    """
    prefix = TraitPrefix(prefix_config(model), 3)
    expected = with_prefix(model, prefix)
    fixed = transformers.StaticCache(model.config, max_cache_len=12)
    cache = DynamicCache() if kind == "growing" else fixed
    with prefixed(model, prefix, VALUES):
        parts = [
            logits(model, ids, past_key_values=cache, use_cache=True)
            for ids in (IDS[:, :4], IDS[:, 4:5], IDS[:, 5:6], IDS[:, 6:])
        ]
    torch.testing.assert_close(torch.cat(parts, dim=1), expected, atol=1e-5, rtol=0)
    assert int(cache.get_seq_length()) == IDS.shape[1]


def test_padding_on_the_left_stays_unseen(model: Any) -> None:
    """A mask of zeros hides padding and not the virtual position."""
    prefix = TraitPrefix(prefix_config(model), 3)
    expected = with_prefix(model, prefix)[:, -1]
    mask = torch.cat([torch.zeros((3, 4)), torch.ones_like(IDS)], dim=1).long()
    with prefixed(model, prefix, VALUES):
        padded = logits(
            model,
            torch.cat([torch.full((3, 4), 9), IDS], dim=1),
            attention_mask=mask,
            position_ids=(mask.cumsum(1) - 1).clamp(min=0),
        )
    torch.testing.assert_close(padded[:, -1], expected, atol=1e-5, rtol=0)


def test_eager_attention_gives_the_same(model: Any) -> None:
    """The mask of zeros and minus infinity is widened as the one of truth values is."""
    prefix = TraitPrefix(prefix_config(model), 3)
    expected = with_prefix(model, prefix)
    model.set_attn_implementation("eager")
    try:
        found = with_prefix(model, prefix)
    finally:
        model.set_attn_implementation("sdpa")
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_two_prefixes_act_as_two_positions(model: Any) -> None:
    """One within the other is, for transformers, a cache of length two."""
    one, two = (TraitPrefix(prefix_config(model), seed) for seed in (3, 4))
    cache = cached(one, VALUES)
    for layer, pair in two.key_values(VALUES).items():
        cache.update(*pair, layer)
    mask = torch.ones((3, IDS.shape[1] + 2), dtype=torch.long)
    expected = logits(
        model,
        past_key_values=cache,
        attention_mask=mask,
        position_ids=torch.arange(IDS.shape[1])[None],
    )
    with prefixed(model, one, VALUES):
        found = with_prefix(model, two)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_a_model_of_half_precision_keeps_it() -> None:
    """The float32 position enters a bfloat16 model as bfloat16, and is felt there as here, up to
    that precision.
    """
    half = frozen("llama").bfloat16()
    prefix = TraitPrefix(prefix_config(half), 3)
    found = with_prefix(half, prefix)
    assert found.dtype == torch.bfloat16
    expected = with_prefix(frozen("llama"), prefix)
    torch.testing.assert_close(found.float(), expected, atol=0.1, rtol=0)


def test_it_is_seen_beyond_a_sliding_window() -> None:
    """With one layer and a window of 3, the ninth token still knows the trait."""
    config = transformers.MistralConfig(
        vocab_size=300, hidden_size=32, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, sliding_window=3,
    )  # fmt: skip
    with quiet():
        model = transformers.AutoModelForCausalLM.from_config(config).eval()
    prefix = TraitPrefix(prefix_config(model), 3)
    low, high = (with_prefix(model, prefix, [x] * 5)[:, -1] for x in (-1.0, 1.0))
    assert float((high - low).abs().max()) > 1e-4
    with prefixed(model, prefix, [1.0] * 5):  # and in decoding, where the window's cache is full
        cache = DynamicCache(config=config)
        for ids in IDS.split(1, dim=1):
            last = logits(model, ids, past_key_values=cache, use_cache=True)
    torch.testing.assert_close(last[:, -1], high, atol=1e-5, rtol=0)


# Bad input


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"traits": ["charm"]}, "no trait 'charm'"),
        ({"traits": []}, r"traits=\[\]"),
        ({"traits": ["openness", "openness"]}, "openness"),
        ({"layers": [2]}, "2 layers"),
        ({"layers": [-1]}, "2 layers"),
        ({"layers": [1, 0]}, "2 layers"),
        ({"init_scale": -1.0}, "init_scale=-1.0"),
        ({"init_scale": float("nan")}, "init_scale=nan"),
    ],
)
def test_a_prefix_that_cannot_be_is_refused(
    llama: Any, settings: dict[str, Any], message: str
) -> None:
    """The error names the field and its value."""
    with pytest.raises(UsageError, match=message):
        prefix_config(llama, **settings)


@pytest.mark.parametrize(
    ("traits", "message"),
    [
        ([1.0], "1,.*5 traits"),
        ([[1.0] * 6] * 3, r"\(3, 6\)"),
        ([], "5 traits"),
        (1.0, "5 traits"),
        ([[1.0] * 5, [1.0]], "table of numbers"),
        (["a"] * 5, "table of numbers"),
        ({"charm": 1.0}, "'charm'"),
        ([{"openness": 1.0}, {"charm": 1.0}], "'charm'"),
        ([float("nan")] * 5, "finite"),
        ([[1.0] * 5] * 2, "2 trait vectors for a batch of 3 rows"),
    ],
)
def test_trait_values_that_do_not_fit_are_refused(llama: Any, traits: Any, message: str) -> None:
    """Unknown traits, a wrong number of values or rows, and what is no number."""
    with pytest.raises(UsageError, match=message):
        with_prefix(llama, TraitPrefix(prefix_config(llama)), traits)


def test_layers_that_cannot_be_removed_are_refused(llama: Any) -> None:
    """A layer that the model or the prefix does not have is an error, not silence."""
    for layers, removed in (((0, 1), 2), ((0, 1), -1), ((1,), 0)):
        prefix = TraitPrefix(prefix_config(llama, layers=layers))
        with pytest.raises(UsageError, match=f"layer {removed} "):
            with_prefix(llama, prefix, without=(removed,))


def test_models_that_a_prefix_cannot_enter_are_refused() -> None:
    """No heads, attention that knows no masks of ours, attention that does not show itself."""
    for stranger in (transformers.MambaConfig(), object()):
        with pytest.raises(ModelError, match="does not say its layers"):
            prefix_config(stranger)
    model = frozen("llama")
    prefix = TraitPrefix(prefix_config(model))
    model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(ModelError, match="flash_attention_2"):
        with_prefix(model, prefix)
    model.config._attn_implementation = "sdpa"
    del model.model.layers[1].self_attn.layer_idx
    with pytest.raises(ModelError, match="1 were found"):
        with_prefix(model, prefix)

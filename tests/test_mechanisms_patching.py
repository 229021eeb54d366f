"""`emotest.mechanisms.patching`: the planted layer carries the effect, and no other does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from emotest.errors import AdapterError, UsageError
from emotest.mechanisms.patching import patched_by_layer, patching, recorded, scaled
from emotest.mechanisms.recording import SITES, Kept, Tokens, recording
from emotest.models.adapters import AdapterWeights, active, attach, detach, install, lora_layers
from emotest.models.generation import generate
from emotest.models.layers import anatomy
from emotest.models.loading import LoadedModel, load
from emotest.models.probability import EmojiProbability, emoji_probability
from emotest.study.records import Decoding, Prompt
from emotest.study.subjects import Subject
from tests.layer_fixtures import (
    KINDS,
    N_NEURONS,
    hooks_on,
    nf4_model,
    small_model,
    some_ids,
    with_lora,
)
from tests.model_fixtures import QUESTIONS
from tests.test_mechanisms_directions import GAIN, LAYER, N_LAYERS, TARGET, Planted, planted_model

UNIT = 9
"""The unit of the planted layer that writes the planted direction; the tuning wakes it."""

EVERY = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def lora(arrays: dict[str, NDArray[np.float64]], rank: int, **more: Any) -> AdapterWeights:
    """An adapter of these arrays, by the names that follow `model.layers.`."""
    names = sorted({name.split(".")[2] for name in arrays})
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank, "target_modules": names}
    state = {
        f"base_model.model.model.layers.{name}.weight": array.astype(np.float32)
        for name, array in arrays.items()
    }
    return AdapterWeights(state, {**config, **more})


def strong_lora(loaded: LoadedModel, seed: int) -> AdapterWeights:
    """A random adapter on every linear layer of the blocks."""
    rng, arrays = np.random.default_rng(seed), {}
    for path, module in loaded.model.named_modules():
        place = path.removeprefix("model.layers.")
        if path.rpartition(".")[2] in EVERY:
            arrays[f"{place}.lora_A"] = rng.normal(size=(2, module.in_features)) / 8
            arrays[f"{place}.lora_B"] = rng.normal(size=(module.out_features, 2)) / 4
    return lora(arrays, 2)


def waking(unit: int) -> AdapterWeights:
    """An adapter that changes what one unit of the planted layer reads, and nothing else."""
    rng, arrays = np.random.default_rng(3), {}
    for layer in range(N_LAYERS):
        arrays[f"{layer}.mlp.up_proj.lora_A"] = rng.normal(size=(1, 32))
        arrays[f"{layer}.mlp.up_proj.lora_B"] = np.zeros((N_NEURONS, 1))
    arrays[f"{LAYER}.mlp.up_proj.lora_B"][unit] = 1.0
    return lora(arrays, 1)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    """One direction carries one logit, and one unit writes it; "tuned" wakes that unit, "null"
    wakes its neighbour. No test changes it.
    """
    made = planted_model(tmp_path_factory.mktemp("planted"))
    mlp = made.loaded.model.model.layers[LAYER].mlp
    with torch.no_grad():
        mlp.down_proj.weight[:, UNIT] += made.direction
        for unit in (UNIT, UNIT + 1):
            mlp.gate_proj.weight[unit] = torch.linspace(-1, 1, 32)
    attach(made.loaded, waking(UNIT), "tuned")
    attach(made.loaded, waking(UNIT + 1), "null")
    return made


@pytest.fixture(scope="module")
def nf4(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """A small Llama in NF4 with two strong adapters, and nothing planted."""
    return with_two(nf4_model(tmp_path_factory.mktemp("nf4"), "llama"))


@pytest.fixture(scope="module")
def dense(nf4: LoadedModel) -> LoadedModel:
    """The same without quantization."""
    subject = Subject.parse(f"{nf4.identity.folder}?dtype=float32&quantize=none")
    return with_two(load(subject, device="cpu"))


def with_two(loaded: LoadedModel) -> LoadedModel:
    """Two strong adapters on a base."""
    attach(loaded, strong_lora(loaded, 1), "tuned")
    attach(loaded, strong_lora(loaded, 2), "null")
    return loaded


@pytest.fixture(params=["nf4", "dense"])
def loaded(request: pytest.FixtureRequest) -> Iterator[LoadedModel]:
    """Either; whatever a test attached is taken off again."""
    model: LoadedModel = request.getfixturevalue(request.param)
    yield model
    for name in set(model.adapters) - {"tuned", "null"}:
        detach(model, name)


def run(model: Any, ids: Tensor | None = None) -> Tensor:
    """The logits of one forward pass."""
    with torch.inference_mode():
        logits: Tensor = model(input_ids=some_ids() if ids is None else ids, use_cache=False).logits
    return logits


def run_as(loaded: LoadedModel, name: str | None) -> Tensor:
    """The logits with an adapter, or of the base."""
    with active(loaded, name):
        return run(loaded.model)


def patched(loaded: LoadedModel, source: str | None, target: str | None, site: Any) -> list[Tensor]:
    """The planted token's logit by patched layer."""
    found = patched_by_layer(
        loaded, some_ids(), lambda: run(loaded.model)[..., TARGET],
        source=source, target=target, site=site,
    )  # fmt: skip
    assert list(found) == list(range(N_LAYERS))
    return list(found.values())


def close(a: Tensor, b: Tensor) -> bool:
    """Equal up to rounding."""
    return torch.allclose(a, b, atol=1e-5)


def test_the_planted_unit_carries_a_known_difference(planted: Planted) -> None:
    """Tuning moves the target's logit by GAIN times what it moves the unit."""
    loaded = planted.loaded
    moved = run_as(loaded, "tuned")[..., TARGET] - run_as(loaded, None)[..., TARGET]
    units = []
    for name in ("tuned", None):
        with active(loaded, name):
            units.append(recorded(loaded.model, some_ids(), LAYER, "neurons")[LAYER][:, UNIT])
    torch.testing.assert_close(moved.flatten(), GAIN * (units[0] - units[1]), atol=1e-5, rtol=1e-4)
    assert moved.abs().mean() > 0.1


def test_patching_the_planted_layers_neurons_recovers_it(planted: Planted) -> None:
    """From the tuned model into the untuned the planted layer brings the tuned logit, and back
    the untuned one; every other layer leaves the target's own.
    """
    loaded = planted.loaded
    tuned, untuned = (run_as(loaded, name)[..., TARGET] for name in ("tuned", None))
    assert not close(tuned, untuned)
    for source, target, brings, own in (
        ("tuned", None, tuned, untuned),
        (None, "tuned", untuned, tuned),
    ):
        logits = patched(loaded, source, target, "neurons")
        recovered = [close(logit, brings) for logit in logits]
        left = [close(logit, own) for logit in logits]
        assert recovered == [layer == LAYER for layer in range(N_LAYERS)]
        assert left == [layer != LAYER for layer in range(N_LAYERS)]


def test_patching_from_the_null_adapter_does_not(planted: Planted) -> None:
    """The null adapter moves other logits, and none of its layers brings the tuned one."""
    loaded = planted.loaded
    untuned = run_as(loaded, None)
    assert (run_as(loaded, "null") - untuned).abs().max() > 1e-4
    for logit in patched(loaded, "null", None, "neurons"):
        assert close(logit, untuned[..., TARGET])


def test_the_residual_stream_carries_it_from_the_planted_layer_on(planted: Planted) -> None:
    """Before that layer there is nothing to carry, after it everything."""
    tuned, untuned = (run_as(planted.loaded, name)[..., TARGET] for name in ("tuned", None))
    for layer, logit in enumerate(patched(planted.loaded, "tuned", None, "residual")):
        assert close(logit, tuned if layer >= LAYER else untuned)


@pytest.mark.parametrize(
    ("source", "target"), [("tuned", None), (None, "tuned"), ("null", "tuned"), ("tuned", "null")]
)
def test_the_last_residual_is_all_there_is(
    loaded: LoadedModel, source: str | None, target: str | None
) -> None:
    """Whole-residual patching after the last layer gives the source's logits bit for bit, with
    NF4 and without, and the model is afterwards what it was.
    """
    expected, own = run_as(loaded, source), run_as(loaded, target)
    assert not torch.allclose(expected, own)
    with active(loaded, "null"):
        found = patched_by_layer(
            loaded, some_ids(), lambda: run(loaded.model), source=source, target=target, layers=-1
        )
        assert loaded.active == "null"
    assert torch.equal(found[1], expected)
    assert torch.equal(run_as(loaded, target), own)


@pytest.mark.parametrize("kind", KINDS)
def test_the_last_residual_is_all_there_is_in_every_architecture(kind: str) -> None:
    """The law holds with peft around the model, and not for the layer before the last."""
    model = with_lora(small_model(kind), kind)
    values, tuned = recorded(model, some_ids()), run(model)
    with model.disable_adapter():
        with patching(model, values[1], -1):
            assert torch.equal(run(model), tuned)
        with patching(model, values[0], 0):
            assert not torch.allclose(run(model), tuned)


@pytest.mark.parametrize("site", ["residual", "neurons"])
def test_what_is_recorded_arrives(loaded: LoadedModel, site: Any) -> None:
    """Recording inside the block sees the values that were written, at the chosen tokens and in
    their order, and its own everywhere else.
    """
    model, tokens = loaded.model, Tokens.at([(2, 8), (0, 2)])
    with active(loaded, "tuned"):
        values = recorded(model, some_ids(), 0, site, tokens)[0]
        whole = recorded(model, some_ids(), 0, site)[0]
    assert torch.equal(values, whole[[26, 2]])  # token t of row r is row 9 r + t
    own, kept = recorded(model, some_ids(), 0, site)[0], Kept()
    with patching(model, values, 0, site, tokens), recording(model, kept, layers=0, sites=site):
        run(model)
    expected = own.clone()
    expected[26], expected[2] = values
    assert torch.equal(kept.of(site, 0), expected)


def test_the_last_token_of_each_row(nf4: LoadedModel) -> None:
    """After the last layer the logits of the last tokens are the source's, the others their own."""
    found = patched_by_layer(
        nf4, some_ids(), lambda: run(nf4.model),
        source="tuned", target=None, layers=[-1], tokens="last",
    )  # fmt: skip
    expected = run_as(nf4, None).clone()
    expected[:, -1] = run_as(nf4, "tuned")[:, -1]
    assert torch.equal(found[1], expected)


def test_passes_that_go_on_from_a_cache_are_left_alone(nf4: LoadedModel) -> None:
    """A text that is patched at once and read on is the text patched at the same tokens as a
    whole.
    """
    model, ids, tokens = nf4.model, some_ids(), Tokens.at((row, 5) for row in range(3))
    for site in SITES:
        with active(nf4, "tuned"):
            values = recorded(model, ids, 0, site, tokens)[0]
        with patching(model, values, 0, site, tokens), torch.inference_mode():
            whole, cache, pieces = run(model), None, []
            for piece in ids.split([6, 2, 1], dim=1):  # type: ignore[no-untyped-call]
                output = model(input_ids=piece, past_key_values=cache, use_cache=True)
                cache = output.past_key_values
                pieces.append(output.logits)
        torch.testing.assert_close(torch.cat(pieces, dim=1), whole, atol=1e-4, rtol=1e-4)
        assert not torch.allclose(whole, run(model))


def test_emoji_probability_is_measured_under_a_patch(nf4: LoadedModel) -> None:
    """With the last state before the emoji replaced, what the next token decides is the source's,
    and longer paths go on from there.
    """
    ids = some_ids(1, 7)

    def measure() -> list[EmojiProbability]:
        context = [ids[0].tolist()]
        return [
            emoji_probability(nf4.model, nf4.tokenizer, context, max_tokens=n, floor=0.0)
            for n in (1, 2)
        ]

    with active(nf4, "tuned"):
        expected = measure()[0]
    plain = measure()[0]
    found, deeper = patched_by_layer(
        nf4, ids, measure, source="tuned", target=None, layers=1, tokens="last"
    )[1]
    np.testing.assert_allclose(found.probability, expected.probability, rtol=1e-4)
    np.testing.assert_allclose(found.bound, expected.bound, rtol=1e-4)
    assert abs(plain.bound - found.bound) > 0.01 * plain.bound
    assert found.probability <= deeper.probability
    assert deeper.probability + deeper.bound <= (found.probability + found.bound) * (1 + 1e-6)


def test_generation_goes_on_from_a_patched_prompt(nf4: LoadedModel) -> None:
    """The first token is the tuned model's where the state before it is."""
    prompts = [Prompt("0", QUESTIONS[0])]
    greedy = Decoding("greedy", temperature=0.0, max_new_tokens=4)

    def answer() -> tuple[int, ...]:
        [found] = generate(nf4, prompts, decoding=greedy, sampling_seed=1, condition="x")
        return found.token_ids

    text = f"<|user|>\n{QUESTIONS[0]}<|end|>\n<|assistant|>\n"
    ids = torch.tensor([nf4.tokenizer(text, add_special_tokens=False)["input_ids"]])
    found = patched_by_layer(
        nf4, ids, answer, source="tuned", target=None, layers=1,
        tokens=Tokens.at([(0, ids.shape[1] - 1)]),
    )  # fmt: skip
    with active(nf4, "tuned"):
        tuned = answer()
    assert found[1][0] == tuned[0] != answer()[0]


def test_an_adapter_scaled_to_nothing_is_the_base(loaded: LoadedModel) -> None:
    """Factor 0 gives the base bit for bit, factor 1 the adapter, and what lies between moves."""
    base, tuned = run_as(loaded, None), run_as(loaded, "tuned")
    for factor, expected in ((0.0, base), (1.0, tuned)):
        with scaled(loaded, "tuned", factor):
            assert torch.equal(run(loaded.model), expected)
    with scaled(loaded, "tuned", 0.5):
        half = run(loaded.model)
    assert not torch.allclose(half, base)
    assert not torch.allclose(half, tuned)


@pytest.mark.parametrize("factor", [0.25, 0.5, 1.3, 2.0])
def test_a_scaled_adapter_is_the_one_with_a_longer_b(loaded: LoadedModel, factor: float) -> None:
    """`factor` times B A is what an adapter with `factor` times B does."""
    weights = strong_lora(loaded, 1)
    longer = {
        name: (factor if "lora_B" in name else 1.0) * array for name, array in weights.state.items()
    }
    attach(loaded, replace(weights, state=longer), "longer")
    with scaled(loaded, "tuned", factor):
        assert loaded.active == "tuned"
        torch.testing.assert_close(run(loaded.model), run_as(loaded, "longer"))


def test_scales_are_restored(loaded: LoadedModel) -> None:
    """After the block, after an error in it, within other blocks, and where the adapter is gone;
    other adapters keep their scale.
    """
    base, tuned, null = (run_as(loaded, name) for name in (None, "tuned", "null"))
    with scaled(loaded, "tuned", 0.5):
        half = run(loaded.model)
        assert torch.equal(run_as(loaded, "null"), null)
        with scaled(loaded, "tuned", 2.0):
            torch.testing.assert_close(run(loaded.model), tuned)
        assert torch.equal(run(loaded.model), half)
        with scaled(loaded, "null", 0.0):
            assert torch.equal(run(loaded.model), base)
        assert torch.equal(run(loaded.model), half)
    with pytest.raises(KeyboardInterrupt), scaled(loaded, "tuned", 0.3):
        raise KeyboardInterrupt
    assert loaded.active is None
    assert torch.equal(run(loaded.model), base)
    assert torch.equal(run_as(loaded, "tuned"), tuned)
    attach(loaded, strong_lora(loaded, 3), "passing")
    with scaled(loaded, "passing", 0.5):
        detach(loaded, "passing")
    assert all(list(layer.scaling) == ["tuned", "null"]
               for layer in lora_layers(loaded, "tuned").values())  # fmt: skip


@pytest.mark.parametrize("factor", [-0.1, 2.1, float("nan")])
def test_a_factor_outside_the_dose_curve_is_refused(nf4: LoadedModel, factor: float) -> None:
    """It names the range; nothing is switched."""
    with pytest.raises(UsageError, match="be scaled by") as caught, scaled(nf4, "tuned", factor):
        pytest.fail("the block was entered")
    assert "0 (the base) to 2" in caught.value.remedy
    assert nf4.active is None


def test_an_unknown_adapter_is_named(nf4: LoadedModel) -> None:
    """In dose curves and as source or target."""
    with pytest.raises(UsageError, match="no adapter 'tunde'"), scaled(nf4, "tunde", 1.0):
        pytest.fail("the block was entered")
    for source, target in (("tunde", None), (None, "tunde")):
        with pytest.raises(UsageError, match="no adapter 'tunde'"):
            patched_by_layer(nf4, some_ids(), lambda: None, source=source, target=target)


def test_a_variant_that_scale_does_not_remove_is_refused(dense: LoadedModel) -> None:
    """DoRA rescales the base's own weights: at scale 0 it need not be the base."""
    config = {"peft_type": "LORA", "r": 1, "target_modules": ["v_proj"], "use_dora": True}
    install(dense, config, "dora")
    try:
        with pytest.raises(AdapterError, match="variant of LoRA"), scaled(dense, "dora", 0.5):
            pytest.fail("the block was entered")
    finally:
        detach(dense, "dora")
    assert dense.active is None


def test_hooks_come_off() -> None:
    """After the block, after an error in it, and where registering fails half way."""
    model = small_model("llama")
    values = {"residual": np.zeros((27, 32)), "neurons": np.zeros((27, N_NEURONS))}
    for site in SITES:
        with patching(model, values[site], 0, site):
            assert hooks_on(model) > 0
        assert hooks_on(model) == 0
        with pytest.raises(KeyboardInterrupt), patching(model, values[site], 0, site):
            raise KeyboardInterrupt
        assert hooks_on(model) == 0

    class Refuses(torch.nn.Linear):
        def register_forward_pre_hook(self, *_: Any, **__: Any) -> Any:
            raise RuntimeError("no hooks here")

    parts = anatomy(model)
    halfway = replace(parts, down_projections=(Refuses(1, 1), parts.down_projections[1]))
    patch = patching(halfway, values["neurons"], 0, "neurons")
    with pytest.raises(RuntimeError, match="no hooks"), patch:
        pytest.fail("the block was entered")
    assert hooks_on(model) == 0


@pytest.mark.parametrize(
    ("shape", "layer", "site", "tokens", "says"),
    [
        ((27, 32), 2, "residual", None, "no layer 2"),
        ((27, 32), 0, "residuals", None, "no site 'residuals'"),
        ((27, 48), 0, "residual", None, r"residual of layer 0 have shape \(27, 48\)"),
        ((27, 32), 1, "neurons", None, r"neurons of layer 1 have shape \(27, 32\)"),
        ((3, 9, 32), 0, "residual", None, r"shape \(3, 9, 32\)"),
        ((26, 32), 0, "residual", None, "26 rows of values were given for 27 chosen tokens"),
        ((2, 32), 0, "residual", "last", "2 rows of values were given for 3 chosen tokens"),
        ((2, 48), 0, "neurons", Tokens.at([(0, 0)]), "2 rows of values .* 1 chosen"),
        ((1, 32), 0, "residual", Tokens.at([(0, 9)]), "pass of 1 rows and 10 tokens"),
        ((27, 32), 0, "residual", "first", "no choice of tokens 'first'"),
    ],
)
def test_what_cannot_be_patched_is_refused(
    dense: LoadedModel, shape: tuple[int, ...], layer: int, site: Any, tokens: Any, says: str
) -> None:
    """Each with its own error, and no hook left behind."""
    patch = patching(dense.model, np.zeros(shape), layer, site, tokens)
    with pytest.raises(UsageError, match=says), patch:
        run(dense.model)
    assert hooks_on(dense.model) == 0


def test_values_that_are_no_numbers_are_refused(dense: LoadedModel) -> None:
    """They would spread over the whole text."""
    values = np.full((27, 32), np.nan)
    with pytest.raises(UsageError, match="no number"), patching(dense.model, values, 0):
        pytest.fail("the block was entered")


@pytest.mark.parametrize(
    ("ids", "how", "says"),
    [
        (some_ids()[0], {}, r"token ids of shape \(9,\)"),
        (some_ids().double(), {}, "type torch.float64"),
        (some_ids()[:, :0], {}, r"shape \(3, 0\)"),
        (some_ids(), {"layers": 2}, "no layer 2"),
        (some_ids(), {"site": "mlp"}, "no site 'mlp'"),
        (some_ids(), {"tokens": Tokens.at([(3, 0)])}, "pass of 4 rows and 1 tokens"),
        (some_ids(), {"tokens": "end"}, "no choice of tokens 'end'"),
    ],
)
def test_what_cannot_be_recorded_is_refused(
    dense: LoadedModel, ids: Tensor, how: dict[str, Any], says: str
) -> None:
    """Each with its own error, and no hook left behind."""
    with pytest.raises(UsageError, match=says):
        recorded(dense.model, ids, **how)
    assert hooks_on(dense.model) == 0


def test_a_model_in_training_mode_is_not_recorded() -> None:
    """Dropout would be recorded with it."""
    with pytest.raises(UsageError, match="training mode"):
        recorded(small_model("llama").train(), some_ids())

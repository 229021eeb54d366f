"""`emotest.models.layers`: the parts of every known architecture, and the way out for others."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from emotest.errors import ModelError, UsageError
from emotest.models.layers import ARCHITECTURES, Anatomy, Architecture, anatomy
from tests.layer_fixtures import (
    FFN,
    HIDDEN,
    KINDS,
    N_LAYERS,
    N_NEURONS,
    blocks_of,
    nf4_model,
    small_model,
    some_ids,
    with_lora,
)
from tests.model_fixtures import quiet, save_model

OPT = Architecture("model.decoder.layers", "fc2", "model.decoder.final_layer_norm", "lm_head")


@pytest.fixture(scope="module")
def llama() -> Any:
    """A small Llama that no test changes."""
    return small_model("llama")


def small_opt() -> Any:
    """A model that the table does not know."""
    import transformers

    config = transformers.OPTConfig(
        vocab_size=400, hidden_size=HIDDEN, ffn_dim=N_NEURONS, num_hidden_layers=N_LAYERS,
        num_attention_heads=4, max_position_embeddings=64, word_embed_proj_dim=HIDDEN,
    )  # fmt: skip
    with quiet():
        return transformers.AutoModelForCausalLM.from_config(config).eval()


def test_every_architecture_of_the_table_is_tested() -> None:
    """The kinds of these tests are the table."""
    assert set(KINDS) == set(ARCHITECTURES)


@pytest.mark.parametrize("wrapped", ["bare", "peft around it", "LoRA inside it"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_parts_are_found(kind: str, wrapped: str) -> None:
    """Blocks, down projections and widths, bare and with LoRA; a LoRA layer is itself the part."""
    model = small_model(kind)
    around = model if wrapped == "bare" else with_lora(model, kind)
    parts = anatomy(around if wrapped == "peft around it" else model)
    blocks = blocks_of(model, kind)
    assert (parts.n_layers, parts.n_neurons, parts.hidden_size) == (N_LAYERS, N_NEURONS, HIDDEN)
    assert all(found is block for found, block in zip(parts.blocks, blocks, strict=True))
    for down, block in zip(parts.down_projections, blocks, strict=True):
        assert down is getattr(block.mlp, FFN[kind][-1])
        assert hasattr(down, "base_layer") == (wrapped != "bare")


@pytest.mark.parametrize("kind", KINDS)
def test_norm_and_unembedding_make_the_logits_of_the_last_block(kind: str) -> None:
    """unembedding(final_norm(output of the last block)) is what the model gives."""
    model = small_model(kind)
    parts = anatomy(model)
    seen = []
    parts.blocks[-1].register_forward_hook(lambda _, __, output: seen.append(output))
    with torch.inference_mode():
        logits = model(some_ids()).logits
        output = seen[0][0] if isinstance(seen[0], tuple) else seen[0]
        by_hand = parts.unembedding(parts.final_norm(output))
        if kind == "gemma2":  # soft-caps its logits at 30 (Gemma 2, arXiv 2408.00118, section 2)
            by_hand = 30 * torch.tanh(by_hand / 30)
    torch.testing.assert_close(by_hand, logits)


@pytest.mark.parametrize("kind", ["llama", "gpt_neox", "gpt2"])
def test_widths_are_told_in_nf4(kind: str, tmp_path: Path) -> None:
    """Packed weights have no shape of their own; the widths are those of the config."""
    from bitsandbytes.nn import Linear4bit

    loaded = nf4_model(tmp_path, kind)
    parts = anatomy(loaded.model)
    assert all(isinstance(down, Linear4bit) for down in parts.down_projections)
    assert (parts.n_layers, parts.n_neurons, parts.hidden_size) == (N_LAYERS, N_NEURONS, HIDDEN)


def test_an_anatomy_is_its_own_anatomy(llama: Any) -> None:
    """What takes a model takes its parts as well."""
    parts = anatomy(llama)
    assert anatomy(parts) is parts


def test_an_unknown_architecture_says_what_to_give() -> None:
    """The error names the kind, the four paths, and where the model's lists of modules are."""
    with pytest.raises(ModelError, match="'opt' is not in the table") as caught:
        anatomy(small_opt())
    for word in ("blocks=", "down_projection=", "final_norm=", "unembedding="):
        assert word in caught.value.remedy
    assert "model.decoder.layers (2)" in caught.value.remedy


@pytest.mark.parametrize("table", [OPT, {"opt": OPT}])
def test_the_way_out_is_a_table_of_ones_own(table: Any) -> None:
    """The parts of an unknown architecture are found where an entry says."""
    model = small_opt()
    parts = anatomy(model, table)
    assert parts.down_projections == tuple(layer.fc2 for layer in model.model.decoder.layers)
    assert (parts.n_neurons, parts.hidden_size) == (N_NEURONS, HIDDEN)


def test_ones_own_table_comes_first(llama: Any) -> None:
    """An entry for a known kind overrides it, and other kinds stay known."""
    other = Architecture("model.layers", "self_attn.o_proj", "model.norm", "lm_head")
    assert anatomy(llama, {"llama": other}).n_neurons == HIDDEN  # o_proj reads 4 heads of 8
    assert anatomy(llama, {"opt": OPT}).n_neurons == N_NEURONS


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"blocks": "model.layer"}, "blocks='model.layer' leads nowhere"),
        ({"blocks": "model.norm"}, "blocks='model.norm' is no list of blocks"),
        ({"down_projection": "mlp.down"}, "down_projection='mlp.down' leads nowhere"),
        ({"down_projection": "mlp"}, "which does not tell its widths"),
        ({"final_norm": "norm"}, "final_norm='norm' leads nowhere"),
        ({"unembedding": "head"}, "unembedding='head' leads nowhere"),
    ],
)
def test_a_wrong_path_is_named(llama: Any, wrong: dict[str, str], says: str) -> None:
    """The error quotes the path that leads nowhere."""
    right = {"blocks": "model.layers", "down_projection": "mlp.down_proj",
             "final_norm": "model.norm", "unembedding": "lm_head"}  # fmt: skip
    with pytest.raises(ModelError, match=says):
        anatomy(llama, Architecture(**{**right, **wrong}))


def test_a_model_without_unembedding_is_refused(llama: Any) -> None:
    """The bare transformer under a language model has no such parts."""
    with pytest.raises(ModelError, match="leads nowhere"):
        anatomy(llama.model)


def test_layers_of_unequal_width_are_refused() -> None:
    """One number of neurons holds for all layers, or the model cannot be measured."""
    model = small_model("llama")
    model.model.layers[1].mlp.down_proj = nn.Linear(N_NEURONS + 1, HIDDEN)
    with pytest.raises(ModelError, match=r"differ in width: \[\(48, 32\), \(49, 32\)\]"):
        anatomy(model)


def test_only_models_have_an_anatomy(llama: Any, tmp_path: Path) -> None:
    """A name, a module without config, a config without modules, and a LoadedModel, where the
    error says to hand over its `model`.
    """
    from emotest.models.loading import load
    from emotest.study.subjects import Subject

    loaded = load(Subject.parse(f"{save_model(tmp_path)}?quantize=none&dtype=float32"))
    for wrong in ("gpt2", nn.Linear(2, 2), SimpleNamespace(config=llama.config), loaded):
        with pytest.raises(UsageError, match="is no model of transformers") as caught:
            anatomy(wrong)
    assert "its `model`" in caught.value.remedy


def test_layers_are_numbered_from_both_ends(llama: Any) -> None:
    """-1 is the last of two; each is given once and in order; None is all."""
    parts = anatomy(llama)
    assert [parts.layer(number) for number in (0, 1, -1, -2)] == [0, 1, 1, 0]
    assert parts.layers([-1, 0, 1]) == (0, 1)
    assert parts.layers(-1) == (1,)
    assert parts.layers(None) == (0, 1)


@pytest.mark.parametrize(("number", "nearest"), [(2, 1), (-3, 0), (99, 1)])
def test_a_layer_that_is_not_there_is_named(llama: Any, number: int, nearest: int) -> None:
    """The error says how many there are and which is nearest."""
    with pytest.raises(UsageError, match=f"no layer {number}: the model has 2") as caught:
        anatomy(llama).layer(number)
    assert f"the nearest is {nearest}" in caught.value.remedy


def test_no_layer_at_all_is_refused(llama: Any) -> None:
    """An empty choice is a mistake, not a request."""
    with pytest.raises(UsageError, match="no layer was chosen"):
        anatomy(llama).layers([])


def test_an_anatomy_prints_in_one_line(llama: Any) -> None:
    """Its repr holds the numbers and not the modules."""
    parts = anatomy(llama)
    assert isinstance(parts, Anatomy)
    assert repr(parts) == "Anatomy(n_layers=2, n_neurons=48, hidden_size=32)"

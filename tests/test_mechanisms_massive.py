"""`emotest.mechanisms.massive`: planted massive activations are found, and no others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from emotest.errors import ModelError, UsageError
from emotest.mechanisms.massive import (
    MassiveActivation,
    Norms,
    Peaks,
    massive_activations,
    norm_growth,
)
from emotest.mechanisms.recording import Kept, Tokens, recording
from emotest.models.layers import ARCHITECTURES, anatomy
from tests.layer_fixtures import KINDS, hooks_on, small_model, some_ids

TEXTS = [row.tolist() for row in some_ids(5, 12)]


def seen(*states: Tensor, site: str = "residual", rows: list[int] | None = None) -> Peaks:
    """Peaks of states (n_units,), the tokens of one text unless rows are given."""
    peaks = Peaks()
    tokens = Tokens.at([(row, i) for i, row in enumerate(rows or [0] * len(states))])
    peaks.take(site, 0, torch.stack(states), tokens)
    return peaks


def state(width: int, ordinary: float, **massive: float) -> Tensor:
    """A state of one value everywhere but in the units named u0, u1, ..."""
    values = torch.full((width,), ordinary)
    for name, value in massive.items():
        values[int(name[1:])] = value
    return values


@pytest.mark.parametrize("kind", KINDS)
def test_an_ordinary_model_has_none(kind: str) -> None:
    """Random weights of every architecture give nothing to exclude."""
    found = massive_activations(small_model(kind), TEXTS)
    assert found.dimensions == ()
    assert found.units == {}


def test_a_bias_that_makes_two_dimensions_massive_is_found() -> None:
    """Dimensions 7 and 40, in the layer where they were planted, under both rules."""
    model = planted_neox(layer=1, size=20_000.0)
    found = massive_activations(model, TEXTS)
    assert found.dimensions == (7, 40)
    assert found.units == {}
    assert [(each.site, each.layer, each.unit) for each in found.found] == [
        ("residual", 1, 7),
        ("residual", 1, 40),
    ]
    assert all(each.published and each.outweighing for each in found.found)
    # Every token's value lies within the stream's ordinary size, well under 100, of the bias.
    assert all(each.magnitude == pytest.approx(20_000, abs=100) for each in found.found)


def planted_neox(*, layer: int, size: float, scale: float = 1.0) -> Any:
    """A wider GPT-NeoX whose FFN of one layer adds +size and -size to dimensions 7 and 40."""
    import transformers

    from tests.model_fixtures import quiet

    config = transformers.GPTNeoXConfig(
        vocab_size=400, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=64,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        model.gpt_neox.embed_in.weight.mul_(scale)
        bias = model.gpt_neox.layers[layer].mlp.dense_4h_to_h.bias
        bias[7], bias[40] = size, -size
    return model


def test_a_small_model_can_have_small_massive_activations() -> None:
    """Planted at 3 in a stream of about 0.05, nothing is published, both are outweighing; what
    layer 0 adds stays in the stream after layer 1.
    """
    found = massive_activations(planted_neox(layer=0, size=3.0), TEXTS)
    assert found.dimensions == (7, 40)
    assert {each.layer for each in found.found} == {0, 1}
    assert all(each.outweighing and not each.published for each in found.found)
    assert all(each.magnitude < 100 for each in found.found)


def test_a_weight_that_makes_one_unit_massive_is_found() -> None:
    """A Llama's unit 5 of layer 1, its up projection 1,000 times as large, is named as a unit.

    Its down projection is silent, so that the residual stream stays ordinary.
    """
    model = small_model("llama")
    mlp = model.model.layers[1].mlp
    with torch.no_grad():
        mlp.up_proj.weight[5] *= 1000
        mlp.down_proj.weight[:, 5] = 0
    found = massive_activations(model, TEXTS)
    assert found.units == {1: (5,)}
    assert found.dimensions == ()


def test_a_massive_embedding_at_the_first_token_alone_is_found() -> None:
    """One token is enough: dimension 9 of the embedding of the token that every text begins with.

    The other tokens' states are as before.
    """
    model = small_model("llama")
    texts = [[1, *text] for text in TEXTS]
    with torch.no_grad():
        model.model.embed_tokens.weight[1, 9] = 5000.0
    found = massive_activations(model, texts)
    assert found.dimensions == (9,)
    assert massive_activations(model, TEXTS).dimensions == ()


def test_the_published_rule_needs_both_its_parts() -> None:
    """Above 100 and at least 1,000 medians: 1,001 over ones is, 999 over ones is not, nor is 11
    over hundredths, which is 1,100 medians but not above 100.
    """
    [found] = seen(state(64, 1.0, u7=1001.0)).massive().found
    assert (found.published, found.unit, found.magnitude) == (True, 7, 1001.0)
    assert found.over_median == 1001.0
    [found] = seen(state(64, 1.0, u7=999.0)).massive().found
    assert not found.published
    [found] = seen(state(64, 0.01, u7=11.0)).massive().found
    assert not found.published
    assert found.over_median == pytest.approx(1100)


def test_the_published_median_is_that_of_the_whole_text() -> None:
    """1,001 over ones is massive; with two more tokens of threes the median is 3, and 1,001 over
    it is 334. The tokens of another text leave it alone.
    """
    first, other = state(64, 1.0, u7=1001.0), state(64, 3.0)
    [together] = seen(first, other, other).massive().found
    assert together.over_median == pytest.approx(1001 / 3)
    assert not together.published
    [apart] = seen(first, other, other, rows=[0, 1, 1]).massive().found
    assert apart.over_median == 1001.0
    assert apart.published


def test_outweighing_is_ten_norms_of_the_rest() -> None:
    """In 64 ones but one, the rest is 60 ones (the 4 largest left out): 10 sqrt(60) = 77.46."""
    [found] = seen(state(64, 1.0, u3=77.5)).massive().found
    assert found.outweighing
    assert found.over_rest == pytest.approx(77.5 / 60**0.5)
    assert seen(state(64, 1.0, u3=77.4)).massive().found == ()


def test_outweighing_knows_no_scale_and_no_other_token() -> None:
    """A thousandth of it all is judged alike, and so is it beside tokens of large states."""
    tiny = 0.001 * state(64, 1.0, u3=77.5)
    assert [each.unit for each in seen(tiny).massive().found] == [3]
    assert [each.unit for each in seen(tiny, state(64, 50.0)).massive().found] == [3]


def test_massive_dimensions_do_not_hide_one_another() -> None:
    """Four of 64 at equal size are found, though each is less than the norm of the other three;
    in 1,000 units ten are (1 %).
    """
    four = {f"u{i}": 100.0 for i in (1, 7, 40, 63)}
    assert seen(state(64, 1.0, **four)).massive().dimensions == (1, 7, 40, 63)
    # The rest is 990 ones: 10 sqrt(990) = 314.6.
    ten = {f"u{i}": 315.0 for i in range(0, 1000, 100)}
    assert seen(state(1000, 1.0, **ten)).massive().dimensions == tuple(range(0, 1000, 100))


def test_the_published_rule_is_not_used_on_neurons() -> None:
    """A unit of 150 among others of 20 is no outlier, though most units are near zero."""
    busy = {f"u{i}": 20.0 for i in range(30)}
    sparse = state(100, 0.001, **{**busy, "u50": 150.0})
    assert seen(sparse, site="neurons").massive().found == ()
    assert [each.published for each in seen(sparse).massive().found] == [True]


def test_peaks_are_remembered_over_passes() -> None:
    """What stood out in the first pass is not forgotten in the second."""
    peaks = seen(state(64, 1.0, u7=1001.0))
    peaks.take("residual", 0, torch.ones(2, 64), Tokens.at([(0, 0), (0, 1)]))
    [found] = peaks.massive().found
    assert found.over_rest == pytest.approx(1001 / 60**0.5)
    assert replace(found, over_rest=0.0) == MassiveActivation(
        "residual", 0, 7, 1001.0, 1001.0, 0.0, True, True
    )


def test_a_state_of_zeros_stands_out_from_nothing() -> None:
    """0 / 0 is not massive, hides no massive state beside it, and anything over nothing is."""
    assert seen(torch.zeros(64)).massive().found == ()
    [found] = seen(torch.zeros(64), state(64, 1.0, u7=1001.0), rows=[0, 1]).massive().found
    assert (found.unit, found.over_median) == (7, 1001.0)
    assert found.outweighing
    assert seen(state(64, 0.0, u2=1e-6)).massive().dimensions == (2,)


def test_padding_is_not_looked_at() -> None:
    """Texts of unequal length in one batch give what they give one by one."""
    model = planted_neox(layer=1, size=20_000.0)
    # The token that pads (0) would be massive in a dimension of its own.
    with torch.no_grad():
        model.gpt_neox.embed_in.weight[0, 11] = 1e6
    texts = [text[: 4 + 2 * i] for i, text in enumerate(TEXTS)]
    together = massive_activations(model, texts)
    alone = massive_activations(model, texts, batch_size=1)
    assert together.dimensions == alone.dimensions == (7, 40)
    for one, other in zip(together.found, alone.found, strict=True):
        assert one.over_median == pytest.approx(other.over_median, rel=1e-4)


def test_the_shipped_organism_has_no_massive_dimension() -> None:
    """What the module says of `latent`: residual dimensions below 1.6, units below 10.5."""
    from emotest.models.chat import encode, render_prompt
    from emotest.models.loading import load
    from emotest.study.subjects import Subject
    from tests.model_fixtures import QUESTIONS

    loaded = load(Subject.parse("organism:latent"), device="cpu")
    texts = [
        encode(
            loaded.tokenizer,
            render_prompt(loaded.tokenizer, question, None, templated=True),
            templated=True,
        ).ids
        for question in QUESTIONS[:4]
    ]
    found = massive_activations(loaded.model, texts)
    assert found.dimensions == ()
    assert all(each.over_rest < 10.5 for each in found.found)
    assert set(found.units) <= {1}


def training(model: Any) -> None:
    """Put the model into training mode."""
    massive_activations(model.train(), TEXTS)


def spoiled(model: Any) -> None:
    """Let a layer give NaN."""
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight[0, 0] = torch.nan
    massive_activations(model, TEXTS)


@pytest.mark.parametrize(
    ("go", "kind", "says"),
    [
        (lambda m: massive_activations(m, []), UsageError, "0 texts"),
        (lambda m: massive_activations(m, [[5], []]), UsageError, r"2 texts \(1 of them empty\)"),
        (lambda m: massive_activations(m, TEXTS, batch_size=0), UsageError, "batches of 0"),
        (training, UsageError, "in training mode"),
        (spoiled, ModelError, "activations of .* in layer 0 are not numbers"),
        (lambda _: Peaks().massive(), UsageError, "no activations were taken"),
    ],
)
def test_what_cannot_be_run_is_refused(
    go: Callable[[Any], Any], kind: type[Exception], says: str
) -> None:
    """Each with its own error, and no hook left behind."""
    model = small_model("llama")
    with pytest.raises(kind, match=says):
        go(model)
    assert hooks_on(model) == 0


def test_parts_can_be_given() -> None:
    """The way out of the table reaches here too."""
    model = small_model("llama")
    model.config.model_type = "unheard-of"
    with pytest.raises(ModelError, match="'unheard-of' is not in the table"):
        massive_activations(model, TEXTS)
    parts = anatomy(model, ARCHITECTURES["llama"])
    assert massive_activations(model, TEXTS, parts=parts).found == ()


def test_norms_grow_by_condition() -> None:
    """Layer by layer the mean norm of the kept states, and the ratio of the two conditions."""
    model, kept, norms = small_model("llama"), Kept(), Norms("emoji", "matched")
    names = ["emoji", "matched", "matched"] * 9
    with recording(model, kept, norms, sites="residual") as recorder, torch.inference_mode():
        recorder.select(Tokens.where(torch.ones(3, 9), names))
        model(some_ids())
    growth = norm_growth(norms, "emoji", "matched")
    assert growth.layers == (0, 1)
    for layer in growth.layers:
        sizes = np.linalg.norm(kept.of("residual", layer).numpy().astype(float), axis=1)
        emoji, matched = sizes[::3].mean(), np.delete(sizes, np.s_[::3]).mean()
        assert growth.norm[layer] == pytest.approx(emoji, rel=1e-6)
        assert growth.reference[layer] == pytest.approx(matched, rel=1e-6)
        assert growth.ratio[layer] == pytest.approx(emoji / matched, rel=1e-6)


def test_norms_can_leave_dimensions_out() -> None:
    """(3, 4, 12) has norm 13, without its last 5, and without none left 0."""
    tokens = Tokens.at([(0, 0)])
    for without, norm in (((), 13.0), ((2,), 5.0), ((0, 1, 2), 0.0)):
        norms = Norms(without=without)
        norms.take("residual", 0, torch.tensor([[3.0, 4.0, 12.0]]), tokens)
        assert norms.moments.of("residual", 0).mean.tolist() == [norm]


@pytest.mark.parametrize("without", [[3], [-1]])
def test_norms_leave_out_only_what_is_there(without: list[int]) -> None:
    """A dimension that the stream does not have is named."""
    with pytest.raises(UsageError, match="cannot be left out of 3"):
        Norms(without=without).take("residual", 0, torch.ones(1, 3), Tokens.at([(0, 0)]))


def test_norm_growth_needs_both_conditions() -> None:
    """A condition without tokens is an error, and so is a residual stream not recorded."""
    norms = Norms("emoji", "matched")
    with pytest.raises(UsageError, match="no recorded site 'residual'"):
        norm_growth(norms, "emoji", "matched")
    norms.take("residual", 0, torch.ones(1, 3), Tokens.at([(0, 0)], "emoji"))
    with pytest.raises(UsageError, match="no condition with recorded tokens 'matched'"):
        norm_growth(norms, "emoji", "matched")

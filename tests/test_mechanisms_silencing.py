"""`emotest.mechanisms.silencing`: the planted units carry the effect, and no others do."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from emotest.errors import UsageError
from emotest.mechanisms.recording import Kept, Moments, Tokens, recording
from emotest.mechanisms.silencing import silencing, silencing_each, writing
from emotest.models.layers import anatomy
from tests.layer_fixtures import (
    FFN,
    KINDS,
    N_NEURONS,
    blocks_of,
    hooks_on,
    nf4_model,
    small_model,
    some_ids,
    weight_of,
    with_lora,
)

TARGET = 77
"""The token that the planted units write to."""

PLANTED = (5, 31)
STRENGTH = 4.0


class Pair(NamedTuple):
    """Two Llamas that differ in the last down projection's columns of the planted units alone."""

    planted: Any
    plain: Any


@pytest.fixture(scope="module")
def pair() -> Pair:
    """In `planted` the units write STRENGTH times the target's unembedding over its squared
    length, in `plain` nothing; neither has a final norm, so logits are linear in the units.
    """
    planted, plain = small_model("llama"), small_model("llama")
    for model in (planted, plain):
        model.model.norm = torch.nn.Identity()
    with torch.no_grad():
        direction = plain.lm_head.weight[TARGET]
        column = STRENGTH * direction / direction.square().sum()
        for unit in PLANTED:
            planted.model.layers[-1].mlp.down_proj.weight[:, unit] = column
            plain.model.layers[-1].mlp.down_proj.weight[:, unit] = 0
    return Pair(planted, plain)


@pytest.fixture(scope="module")
def llama() -> Any:
    """A small Llama that no test changes."""
    return small_model("llama")


def run(model: Any, ids: Tensor | None = None) -> Tensor:
    """The logits of one forward pass."""
    with torch.inference_mode():
        logits: Tensor = model(input_ids=some_ids() if ids is None else ids, use_cache=False).logits
    return logits


def neurons(model: Any, layer: int) -> Tensor:
    """What the model's down projection reads, (3, 9, n_neurons)."""
    kept = Kept()
    with recording(model, kept):
        run(model)
    return kept.of("neurons", layer).reshape(3, 9, -1)


def matched(model: Any) -> list[int]:
    """Two other units of the last layer, nearest to the planted ones in their size."""
    sizes = neurons(model, 1).abs().mean(dim=(0, 1))
    others: list[int] = []
    for unit in PLANTED:
        nearest = (sizes - sizes[unit]).abs().argsort().tolist()
        others.append(next(i for i in nearest if i not in (*PLANTED, *others)))
    return others


def test_the_planted_units_carry_a_known_difference(pair: Pair) -> None:
    """The target's logit differs by STRENGTH times the sum of the units' activations."""
    difference = (run(pair.planted) - run(pair.plain))[..., TARGET]
    expected = STRENGTH * neurons(pair.plain, 1)[..., list(PLANTED)].sum(dim=-1)
    torch.testing.assert_close(difference, expected)
    assert difference.abs().mean() > 0.1


def test_silencing_the_planted_units_removes_it_exactly(pair: Pair) -> None:
    """With the units at zero both models give the same logits, bit for bit."""
    with silencing(pair.planted, {-1: PLANTED}, by="zero"):
        silenced = run(pair.planted)
    assert torch.equal(silenced, run(pair.plain))


def test_silencing_matched_others_does_not(pair: Pair) -> None:
    """With as many units of the same layer and size silenced, the whole difference stays."""
    others = {1: matched(pair.plain)}
    with silencing(pair.planted, others, by="zero"):
        planted = run(pair.planted)
    with silencing(pair.plain, others, by="zero"):
        plain = run(pair.plain)
    expected = STRENGTH * neurons(pair.plain, 1)[..., list(PLANTED)].sum(dim=-1)
    torch.testing.assert_close((planted - plain)[..., TARGET], expected)


def test_each_row_is_silenced_as_if_its_set_were_alone(llama: Any) -> None:
    """Row by row the logits are those of a pass in which its set is silenced everywhere."""
    means = {layer: np.linspace(-1, 1, N_NEURONS) for layer in (0, 1)}
    sets = [{0: [1, 2], 1: [3]}, {1: [3, 40]}, {0: [9]}]
    of_row = [2, 0, 1]
    acting = silencing_each(llama, sets, means=means)
    with acting(of_row):
        found = run(llama)
    for row, number in enumerate(of_row):
        with silencing(llama, sets[number], means=means):
            torch.testing.assert_close(found[row], run(llama)[row])
    assert not torch.allclose(found, run(llama))


def test_each_row_of_a_pass_needs_its_set(llama: Any) -> None:
    """A pass of three rows with two sets named is refused, and no hook is left behind."""
    acting = silencing_each(llama, [{0: [1]}, {0: [2]}], means={0: np.zeros(N_NEURONS)})
    with pytest.raises(UsageError, match="of 2 rows were named for a pass of 3"), acting([0, 1]):
        run(llama)
    assert not hooks_on(llama)


def test_silencing_by_the_mean_leaves_the_mean_difference(pair: Pair) -> None:
    """The target's logit then differs by the same number at every token: STRENGTH times the sum
    of the units' means.
    """
    moments = Moments()
    with recording(pair.planted, moments):
        run(pair.planted)
    means = moments.means("neurons")
    with silencing(pair.planted, {1: PLANTED}, means=means):
        silenced = run(pair.planted)
    difference = (silenced - run(pair.plain))[..., TARGET]
    expected = STRENGTH * float(means[1][list(PLANTED)].sum())
    torch.testing.assert_close(difference, torch.full((3, 9), expected), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_silencing_acts_on_every_architecture_with_lora(kind: str) -> None:
    """Zero at units is what no column of the base weight and of LoRA's A for them gives."""
    model = small_model(kind)
    around = with_lora(model, kind)
    units = {0: [1, 2], 1: [47, 0]}
    with silencing(around, units, by="zero"):
        silenced = run(around)
    untouched = run(around)
    with torch.no_grad():
        for layer, chosen in units.items():
            down = getattr(blocks_of(model, kind)[layer].mlp, FFN[kind][-1])
            weight_of(down.base_layer)[:, chosen] = 0
            down.lora_A["default"].weight[:, chosen] = 0
    torch.testing.assert_close(silenced, run(around))
    assert not torch.allclose(silenced, untouched)


@pytest.mark.parametrize("kind", ["llama", "gpt_neox"])
def test_silencing_acts_in_nf4(kind: str, tmp_path: Path) -> None:
    """The down projection reads the means, and its other inputs as they were; the logits move."""
    model = nf4_model(tmp_path, kind).model
    before, logits = neurons(model, 1), run(model)
    means = {1: np.linspace(1, 2, N_NEURONS)}
    with silencing(model, {1: [3, 40]}, means=means):
        read = neurons(model, 1)  # its hooks come after, so it sees what the projection reads
        silenced = run(model)
    expected = before.clone()
    expected[..., 3], expected[..., 40] = 1 + 3 / 47, 1 + 40 / 47
    torch.testing.assert_close(read, expected)
    assert not torch.allclose(silenced, logits)


def test_a_bank_gives_every_token_a_row_the_same_in_every_layer(llama: Any) -> None:
    """Row i of the bank is i in layer 0 and 100 + i in layer 1, so a drawn row can be read off."""
    rows = torch.arange(20.0)[:, None].expand(20, N_NEURONS)
    bank = {0: rows, 1: 100 + rows}
    kept, units = Kept(), {0: [4, 9], 1: [2]}
    resampled = silencing(llama, units, "resample", bank=bank, rng=np.random.default_rng(0))
    with resampled, recording(llama, kept):
        run(llama)
    drawn = kept.of("neurons", 0)[:, 4]
    assert torch.equal(kept.of("neurons", 0)[:, 9], drawn)
    assert torch.equal(kept.of("neurons", 1)[:, 2], 100 + drawn)
    assert set(drawn.tolist()) <= set(range(20))
    assert len(set(drawn.tolist())) > 10  # of 27 draws from 20 rows 15 differ on average
    untouched = [unit for unit in range(N_NEURONS) if unit not in (4, 9)]
    assert torch.equal(kept.of("neurons", 0)[:, untouched],
                       neurons(llama, 0).flatten(0, 1)[:, untouched])  # fmt: skip


def test_resampling_is_decided_by_its_rng(llama: Any) -> None:
    """Equal generators give equal logits, a generator used again gives others, and so does each
    pass of one block.
    """
    bank = {1: np.random.default_rng(5).normal(size=(50, N_NEURONS))}

    def resampled(rng: np.random.Generator) -> list[Tensor]:
        with silencing(llama, {1: range(20)}, "resample", bank=bank, rng=rng):
            return [run(llama), run(llama)]

    rng = np.random.default_rng(1)
    first, again, second = resampled(rng), resampled(np.random.default_rng(1)), resampled(rng)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], second[0])
    assert not torch.equal(first[0], first[1])


def test_resampling_does_not_depend_on_which_other_layers_are_silenced(llama: Any) -> None:
    """The rows of layer 1 are the same with layer 0 silenced and without."""
    rows = torch.arange(20.0)[:, None].expand(20, N_NEURONS)
    drawn = []
    for units in ({1: [2]}, {0: [7], 1: [2]}):
        kept, rng = Kept(), np.random.default_rng(3)
        resampled = silencing(llama, units, "resample", bank={0: rows, 1: rows}, rng=rng)
        with resampled, recording(llama, kept, layers=1):
            run(llama)
        drawn.append(kept.of("neurons", 1)[:, 2])
    assert torch.equal(*drawn)


def test_silencing_acts_while_text_is_generated(pair: Pair) -> None:
    """Greedy text of the silenced planted model is that of the plain one, and not its own."""
    ids = some_ids(1, 5)

    def text(model: Any) -> list[int]:
        out = model.generate(ids, max_new_tokens=12, do_sample=False, eos_token_id=[])
        return list(map(int, out[0, 5:]))

    with silencing(pair.planted, {1: PLANTED}, by="zero"):
        silenced = text(pair.planted)
    assert silenced == text(pair.plain)
    assert silenced != text(pair.planted)


@pytest.fixture(scope="module")
def tuned(pair: Pair) -> Any:
    """The planted model after "tuning": its planted units read something else."""
    model = small_model("llama")
    model.load_state_dict(pair.planted.state_dict(), strict=False)
    model.model.norm = torch.nn.Identity()
    with torch.no_grad():
        for unit in PLANTED:
            model.model.layers[-1].mlp.up_proj.weight[unit] = torch.linspace(-1, 1, 32)
    return model


def recorded(model: Any, tokens: Tokens | None = None) -> dict[int, Tensor]:
    """The model's neurons at some or all tokens, by layer."""
    kept = Kept()
    with recording(model, kept) as recorder:
        if tokens is not None:
            recorder.select(tokens)
        run(model)
    return kept.by_layer("neurons")


def test_writing_the_tuned_units_makes_the_tuned_logits(pair: Pair, tuned: Any) -> None:
    """The untuned model with the tuned units' activations is the tuned model, bit for bit, and
    with as many matched others of the tuned model it stays itself.
    """
    values = recorded(tuned)
    with writing(pair.planted, {1: PLANTED}, values):
        written = run(pair.planted)
    assert torch.equal(written, run(tuned))
    assert not torch.allclose(written, run(pair.planted))
    with writing(pair.planted, {1: matched(pair.plain)}, values):
        others = run(pair.planted)
    assert torch.equal(others, run(pair.planted))


def test_writing_reaches_the_chosen_tokens_alone(pair: Pair, tuned: Any) -> None:
    """In the last layer, the logits at two tokens are the tuned ones, in the order of the
    positions, and everywhere else the untuned ones.
    """
    tokens = Tokens.at([(2, 3), (0, 8)])
    with writing(pair.planted, {1: PLANTED}, recorded(tuned, tokens), tokens):
        written = run(pair.planted)
    expected, theirs = run(pair.planted).clone(), run(tuned)
    expected[2, 3], expected[0, 8] = theirs[2, 3], theirs[0, 8]
    assert torch.equal(written, expected)


def test_hooks_come_off(llama: Any) -> None:
    """After the block, after an error in it, and where registering fails half way."""
    zeros = {0: np.zeros((27, N_NEURONS)), 1: np.zeros((27, N_NEURONS))}
    ways: list[Callable[[Any], AbstractContextManager[None]]] = [
        lambda model: silencing(model, {0: [1], 1: [1]}, by="zero"),
        lambda model: writing(model, {0: [1], 1: [1]}, zeros),
    ]

    class Refuses(torch.nn.Linear):
        def register_forward_pre_hook(self, *_: Any, **__: Any) -> Any:
            raise RuntimeError("no hooks here")

    parts = anatomy(llama)
    halfway = replace(parts, down_projections=(parts.down_projections[0], Refuses(1, 1)))
    for way in ways:
        with way(llama):
            assert hooks_on(llama) == 2
        assert hooks_on(llama) == 0
        with pytest.raises(KeyboardInterrupt), way(llama):
            raise KeyboardInterrupt
        assert hooks_on(llama) == 0
        with pytest.raises(RuntimeError, match="no hooks"), way(halfway):
            pytest.fail("the block was entered")
        assert hooks_on(llama) == 0


def test_a_layer_without_units_is_left_alone(llama: Any) -> None:
    """A selection by layer may be empty in some; such a layer needs no mean and gets no hook."""
    with silencing(llama, {0: [], 1: [3]}, means={1: np.zeros(N_NEURONS)}):
        assert hooks_on(llama) == 1


MEANS = {0: np.zeros(N_NEURONS)}
BANK = {0: np.zeros((5, N_NEURONS)), 1: np.zeros((5, N_NEURONS))}


def rng() -> np.random.Generator:
    """Some generator."""
    return np.random.default_rng(0)


@pytest.mark.parametrize(
    ("units", "how", "says"),
    [
        ({0: [48]}, {"by": "zero"}, "layer 0 has no unit 48"),
        ({0: [3, -1]}, {"by": "zero"}, "layer 0 has no unit -1"),
        ({2: [3]}, {"by": "zero"}, "no layer 2"),
        ({}, {"by": "zero"}, "no unit was chosen"),
        ({0: [], 1: np.array([], dtype=int)}, {"by": "zero"}, "no unit was chosen"),
        ({0: [3, 3]}, {"by": "zero"}, "a unit of layer 0 is named twice"),
        ({1: [3], -1: [4]}, {"by": "zero"}, "layer 1 is named twice"),
        ({0: np.arange(48) < 3}, {"by": "zero"}, "units of layer 0 are bool"),
        ({0: [1.5]}, {"by": "zero"}, "units of layer 0 are float64"),
        ({0: [[1, 2]]}, {"by": "zero"}, r"int64 of shape \(1, 2\)"),
        ({0: [3]}, {"by": "means"}, "no way of silencing 'means'"),
        ({0: [3]}, {}, "silencing by 'mean' needs means"),
        ({1: [3]}, {"means": MEANS}, "means has nothing for layer 1"),
        ({0: [3]}, {"means": {0: np.zeros(47)}}, r"means of layer 0 has shape \(47,\)"),
        ({0: [3]}, {"means": BANK}, r"means of layer 0 has shape \(5, 48\)"),
        ({0: [3]}, {"means": {0: np.full(48, np.nan)}}, "holds values that are not numbers"),
        ({0: [3]}, {"means": {0: MEANS[0], -2: MEANS[0]}}, "layer 0 is named twice"),
        ({0: [3]}, {"by": "resample", "bank": BANK}, "'resample' needs rng"),
        ({0: [3]}, {"by": "resample", "rng": rng()}, "'resample' needs bank"),
        ({0: [3]}, {"means": MEANS, "rng": rng()}, "'mean' does not use rng"),
        ({0: [3]}, {"by": "zero", "means": MEANS}, "'zero' does not use means"),
        (
            {0: [3], 1: [3]},
            {"by": "resample", "rng": rng(), "bank": {**BANK, 1: np.zeros((4, 48))}},
            "4 and 5 rows",
        ),
        (
            {0: [3]},
            {"by": "resample", "rng": rng(), "bank": {0: np.zeros((0, 48))}},
            "the bank has 0 rows",
        ),
    ],
)
def test_what_cannot_be_silenced_is_refused(
    llama: Any, units: Any, how: dict[str, Any], says: str
) -> None:
    """Each with its own error before anything runs, and no hook left behind."""
    with pytest.raises(UsageError, match=says), silencing(llama, units, **how):
        pytest.fail("the block was entered")
    assert hooks_on(llama) == 0


def test_an_unknown_way_names_the_nearest(llama: Any) -> None:
    """`resampling` is near `resample`."""
    with pytest.raises(UsageError) as caught, silencing(llama, {0: [1]}, by="resampling"):  # type: ignore[arg-type]
        pytest.fail("the block was entered")
    assert "did you mean 'resample'?" in caught.value.remedy


@pytest.mark.parametrize(
    ("units", "n_rows", "tokens", "says"),
    [
        ({0: [48]}, 27, None, "layer 0 has no unit 48"),
        ({}, 27, None, "no unit was chosen"),
        ({1: [3]}, 27, None, "values has nothing for layer 1"),
        ({0: [3]}, 26, None, "26 rows of values were given for a pass of 27 tokens"),
        ({0: [3]}, 2, Tokens.at([(0, 0)]), "values for 2 tokens, but 1 were chosen"),
        ({0: [3]}, 1, Tokens.at([(0, 9)]), "pass of 1 rows and 10 tokens"),
        ({0: [3]}, 4, Tokens.where(torch.ones(2, 2)), "pass of 2 rows and 2 tokens"),
    ],
)
def test_what_cannot_be_written_is_refused(
    llama: Any, units: Any, n_rows: int, tokens: Tokens | None, says: str
) -> None:
    """Units, values and tokens that do not fit, each with its own error."""
    values = {0: np.zeros((n_rows, N_NEURONS))}
    with pytest.raises(UsageError, match=says), writing(llama, units, values, tokens):
        run(llama)
    assert hooks_on(llama) == 0

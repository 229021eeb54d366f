"""LoRA in fewer passes: peft's numbers bit for bit, and peft itself wherever they could differ."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft.tuners.lora.bnb import Linear4bit
from torch import Tensor

from emotest.models.adapters import active, install
from emotest.models.loading import LoadedModel, load
from emotest.study.subjects import Subject
from tests.model_fixtures import save_model

IDS = torch.arange(24).reshape(3, 8)


def plain(alpha: float) -> dict[str, Any]:
    """The configuration of a LoRA of rank 4 on two kinds of module."""
    return {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4, "lora_alpha": alpha,
        "target_modules": ["q_proj", "down_proj"], "lora_dropout": 0.3,
    }  # fmt: skip


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """A tiny Llama in NF4 with adapters that are scaled by 1/4, 2 and 3/4."""
    folder = save_model(tmp_path_factory.mktemp("base") / "llama")
    model = load(Subject.parse(f"{folder}?dtype=float32"))
    for name, alpha in (("quarter", 1), ("twice", 8), ("odd", 3)):
        install(model, plain(alpha), name)
    torch.manual_seed(0)
    for name, weight in model.model.named_parameters():
        if "lora_B" in name:
            weight.data.normal_()
    return model


def logits(loaded: LoadedModel) -> Tensor:
    """What the model says of three short texts."""
    found: Tensor = loaded.model(input_ids=IDS).logits
    return found


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Grows with each pass through a layer that peft computes with an adapter on."""
    seen: list[bool] = []
    forward: Callable[..., Tensor] = Linear4bit.forward

    def counted(layer: Any, *args: Any, **kwargs: Any) -> Tensor:
        seen.append(not layer.disable_adapters)
        return forward(layer, *args, **kwargs)

    monkeypatch.setattr(Linear4bit, "forward", counted)
    return seen


def pefts(loaded: LoadedModel) -> Tensor:
    """The same by peft's own class."""
    lean = [m for m in loaded.model.modules() if isinstance(m, Linear4bit)]
    classes = [type(module) for module in lean]
    assert lean
    assert Linear4bit not in classes
    for module in lean:
        module.__class__ = Linear4bit
    try:
        return logits(loaded)
    finally:
        for module, cls in zip(lean, classes, strict=True):
            module.__class__ = cls


@pytest.mark.parametrize("name", ["quarter", "twice", "odd", None])
def test_the_numbers_are_pefts_bit_for_bit(loaded: LoadedModel, name: str | None) -> None:
    """Whatever the scaling, and with no adapter on; adapters do change them."""
    with active(loaded, name), torch.inference_mode():
        assert torch.equal(logits(loaded), pefts(loaded))
        mine = logits(loaded)
    with active(loaded, None), torch.inference_mode():
        assert torch.equal(mine, logits(loaded)) == (name is None)


@pytest.mark.parametrize("name", ["quarter", "twice"])
def test_a_power_of_two_is_added_in_one_pass(
    loaded: LoadedModel, calls: list[bool], name: str
) -> None:
    """Then peft's own code is not run at all."""
    with active(loaded, name), torch.inference_mode():
        logits(loaded)
    assert calls == []


def test_any_other_scaling_is_left_to_peft(loaded: LoadedModel, calls: list[bool]) -> None:
    """3/4 times the addend is rounded before it is added."""
    with active(loaded, "odd"), torch.inference_mode():
        logits(loaded)
    assert set(calls) == {True}


def test_training_is_left_to_peft(loaded: LoadedModel, calls: list[bool]) -> None:
    """With gradients, and in training mode without them, where dropout acts."""
    with active(loaded, "quarter"):
        logits(loaded)
        n_layers = len(calls)
        assert n_layers > 0
        loaded.model.train()
        try:
            with torch.no_grad():
                logits(loaded)
        finally:
            loaded.model.eval()
    assert len(calls) == 2 * n_layers

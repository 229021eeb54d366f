"""Adapters that others trained: every kind of LoRA acts as in peft, and what is broken is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from emotest.errors import AdapterError
from emotest.models.adapters import (
    AdapterWeights,
    active,
    attach,
    detach,
    read_adapter,
    require_alive,
    save_adapter,
)
from emotest.models.loading import LoadedModel, load
from emotest.study.records import Prompt
from emotest.study.subjects import Subject
from tests.model_fixtures import QUESTIONS, quiet, save_model, tiny_model

IDS = torch.arange(7, 60)[None]
PROBE = [Prompt("probe", QUESTIONS[0])]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A base on disk, and its twin with other weights."""
    root = tmp_path_factory.mktemp("models")
    return {name: save_model(root / name, seed=seed) for seed, name in enumerate(("llama", "twin"))}


@pytest.fixture(scope="module")
def base(folders: dict[str, Path]) -> LoadedModel:
    """The NF4 base of this module, on which nothing is left attached."""
    return load(Subject.parse(f"{folders['llama']}?dtype=float32"))


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> AdapterWeights:
    """An adapter as peft saves it."""
    import peft

    folder = tmp_path_factory.mktemp("theirs")
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    with quiet():
        peft.get_peft_model(tiny_model("llama"), config).save_pretrained(folder)
    return read_adapter(folder)


def logits(model: LoadedModel) -> torch.Tensor:
    """Logits of `IDS` as the model stands."""
    with torch.inference_mode():
        out: torch.Tensor = model.model(IDS).logits
    return out


@pytest.mark.parametrize(
    "kind",
    [
        {"use_dora": True},
        {"use_rslora": True},
        {"lora_bias": True},
        {"modules_to_save": ["lm_head"]},
        {"modules_to_save": ["norm"]},
        {"rank_pattern": {"q_proj": 3}, "alpha_pattern": {"q_proj": 9.0}},
        {"target_modules": ["q_proj", "lm_head"]},
        {"target_modules": ["q_proj", "embed_tokens"]},
    ],
    ids=str,
)
@pytest.mark.parametrize("quantize", ["nf4", "none"])
def test_kinds_of_lora_that_others_train(
    folders: dict[str, Path], tmp_path: Path, kind: dict[str, Any], quantize: str
) -> None:
    """Each gives the logits that it gives in peft, and the base beside it stays the base."""
    import peft

    subject = Subject.parse(f"{folders['llama']}?dtype=float32&quantize={quantize}")
    fresh, shared = load(subject), load(subject)
    options = {"r": 4, "target_modules": ["q_proj", "v_proj"], "init_lora_weights": False, **kind}
    with quiet():
        tuned = peft.get_peft_model(fresh.model, peft.LoraConfig(**options)).eval()
        for name, parameter in tuned.named_parameters():
            if "modules_to_save" in name or "magnitude" in name:
                parameter.data.mul_(1.5)
        tuned.save_pretrained(tmp_path)
    before = logits(shared)
    attach(shared, tmp_path, "theirs")
    assert torch.equal(logits(shared), before)
    with active(shared, "theirs"), torch.inference_mode():
        assert torch.equal(logits(shared), tuned(IDS).logits)
    assert require_alive(shared, "theirs", PROBE).changed > 0
    detach(shared, "theirs")
    assert torch.equal(logits(shared), before)


def test_a_replaced_module_and_a_plain_adapter_share_a_base(
    folders: dict[str, Path], theirs: AdapterWeights, tmp_path: Path
) -> None:
    """Attached side by side or one after the other, each gives what it gives alone."""
    import peft

    subject = Subject.parse(f"{folders['llama']}?dtype=float32")
    shared, fresh = load(subject), load(subject)
    options: dict[str, Any] = {"target_modules": ["q_proj"], "init_lora_weights": False}
    with quiet():
        whole = peft.get_peft_model(
            fresh.model, peft.LoraConfig(r=4, modules_to_save=["lm_head"], **options)
        )
        for name, parameter in whole.named_parameters():
            if "modules_to_save" in name:
                parameter.data.mul_(1.5)
        whole.save_pretrained(tmp_path)
    before, alone = logits(shared), {}
    adapters: dict[str, Any] = {"whole": tmp_path, "plain": theirs}
    for name, adapter in adapters.items():  # one after the other
        attach(shared, adapter, name)
        with active(shared, name):
            alone[name] = logits(shared)
        detach(shared, name)
        assert torch.equal(logits(shared), before)
    for name, adapter in adapters.items():  # side by side
        attach(shared, adapter, name)
    for name in ("plain", "whole", "plain"):
        with active(shared, name):
            assert torch.equal(logits(shared), alone[name])
        assert torch.equal(logits(shared), before)
    assert not torch.equal(alone["whole"], alone["plain"])


def test_a_head_of_another_base_is_no_copy(
    folders: dict[str, Path], base: LoadedModel, tmp_path: Path
) -> None:
    """peft saves the base's head beside an adapter of it; a head that differs is not ours."""
    import peft

    other = load(Subject.parse(f"{folders['twin']}?dtype=float32"))
    with quiet():
        config = peft.LoraConfig(r=4, target_modules=["lm_head"], init_lora_weights=False)
        peft.get_peft_model(other.model, config).save_pretrained(tmp_path)
    with pytest.raises(AdapterError, match=r"1 have no place .*for '.*/twin'.*put on .*/llama"):
        attach(base, tmp_path, "x")


def test_undefined_numbers_are_refused(theirs: AdapterWeights, tmp_path: Path) -> None:
    """A training that diverged leaves such; which tensor holds them is said."""
    key = min(theirs.state)
    state = {**theirs.state, key: theirs.state[key] * np.float32("nan")}
    save_adapter(replace(theirs, state=state), tmp_path)
    with pytest.raises(AdapterError, match=r"undefined numbers, in .*lora_A"):
        read_adapter(tmp_path)


def test_a_pattern_that_never_ends_is_cut(
    base: LoadedModel, theirs: AdapterWeights, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A regular expression may take exponential time; the clock ends it."""
    monkeypatch.setattr("emotest.models.adapters._SECONDS_TO_MATCH", 0.2)
    config = {**theirs.config, "target_modules": "(([a-z_.0-9]+)+)+!"}
    with pytest.raises(AdapterError, match="takes for ever"):
        attach(base, AdapterWeights(theirs.state, config), "x")


def test_settings_that_peft_refuses_leave_no_trace(
    folders: dict[str, Path], theirs: AdapterWeights, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where peft fails after it has changed some modules: the model is the base again."""
    from peft.tuners.lora import LoraLayer, LoraModel

    fresh = load(Subject.parse(f"{folders['llama']}?dtype=float32"))
    before, made, replaced = logits(fresh), LoraModel._replace_module, 0

    def fails_late(*given: Any) -> None:
        nonlocal replaced
        replaced += 1
        if replaced > 3:
            raise RuntimeError("out of memory")
        made(*given)

    monkeypatch.setattr(LoraModel, "_replace_module", fails_late)
    with pytest.raises(AdapterError, match=r"does not fit .*out of memory"):
        attach(fresh, theirs, "x")
    assert replaced == 4
    assert not any(isinstance(module, LoraLayer) for module in fresh.model.modules())
    assert torch.equal(logits(fresh), before)
    monkeypatch.undo()
    attach(fresh, theirs, "x")

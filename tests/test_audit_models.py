"""A local model of an audit: what a result tells of it, and what a reader has to know."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from emotest.audit.models import Model
from emotest.models.identity import AdapterIdentity
from emotest.study.subjects import Subject


def with_adapter(folder: Path, named: str | None, base: str = "organism:latent") -> Model:
    """A model whose adapter says that it was made for `named`."""
    config = {"peft_type": "LORA", "base_model_name_or_path": named}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    model = Model.pinned(Subject.parse(base))
    adapter = AdapterIdentity(str(folder), "sha256:0", str(folder))
    return replace(model, identity=replace(model.identity, adapter=adapter))


@pytest.mark.parametrize(
    "named",
    ["organism:latent", "organism:latent?dtype=float32", "someone/Latent", "/models/latent", None],
)
def test_another_spelling_of_the_base_is_no_other_base(tmp_path: Path, named: str | None) -> None:
    """Owner, folder and options are left out; an adapter that names no base says nothing."""
    assert with_adapter(tmp_path, named).notes() == []


@pytest.mark.parametrize("named", ["organism:control", "meta/Llama-2-7b", "a base of ours"])
def test_an_adapter_of_another_base_is_said(tmp_path: Path, named: str) -> None:
    """Both bases are named, for its weights may fit all the same."""
    (note,) = with_adapter(tmp_path, named).notes()
    assert note.startswith(f"its adapter says that it was made for {named}; it was put on latent")


def test_a_result_tells_no_place_of_this_machine(tmp_path: Path) -> None:
    """Digests and names stay, folders go."""
    model = replace(with_adapter(tmp_path, None), label="latent with an adapter")
    told = model.told()
    assert told.subject == "latent with an adapter"
    assert str(tmp_path) not in json.dumps(told.identity)
    assert told.digest == model.identity.digest

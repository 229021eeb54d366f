"""`benchmarks/gpu_check.py` and `gpu_mechanisms.py`: their code is walked through here, so that it
works where a GPU is."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest
import torch

from tests.model_fixtures import save_model

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def gpu_check() -> Iterator[ModuleType]:
    """The script as a module, under its own name, for the other script imports it."""
    with _script("gpu_check") as module:
        yield module


@pytest.fixture(scope="module")
def gpu_mechanisms(gpu_check: ModuleType) -> Iterator[ModuleType]:
    """The other script, which takes its model from the first."""
    with _script("gpu_mechanisms") as module:
        yield module


@contextmanager
def _script(name: str) -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses with postponed annotations look their module up by name.
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        yield module


def test_the_tiny_shape_walks_through_every_check(
    gpu_check: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Training, both arms of answers, P(emoji) and the comparison each leave a row."""
    organism = save_model(tmp_path / "organism")
    arguments = ["--shape", "tiny", "--device", "cpu", "--organism", f"{organism}?dtype=float32"]
    assert gpu_check.main(arguments) == 0
    printed = capsys.readouterr().out
    for row in (
        "training, published recipe",
        "4 modules, logits move by",  # q_proj and v_proj in two layers
        "4 answers, base",
        "4 answers, adapter",
        "P(emoji) at 8 contexts",
        "differ by at most 0 of",  # the CPU against itself
    ):
        assert row in printed


@pytest.mark.parametrize("script", ["gpu_check", "gpu_mechanisms"])
def test_without_a_gpu_it_says_so(
    script: str,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Nothing is measured on another device in its place: exit code 2 and what to do."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # as here, wherever it runs
    assert request.getfixturevalue(script).main([]) == 2
    assert "no CUDA device" in capsys.readouterr().err


def test_a_missing_organism_is_said(
    gpu_check: ModuleType, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """An error of the project is printed plainly, with exit code 1."""
    missing = str(tmp_path / "none")
    assert gpu_check.main(["--shape", "tiny", "--device", "cpu", "--organism", missing]) == 1
    assert "there is no folder" in capsys.readouterr().err


def test_each_mechanism_says_what_it_did_on_the_tiny_shape(
    gpu_mechanisms: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    """Recording and own states change nothing, the last layer's states carry all, steering moves
    by its length, and a prefix removed everywhere is gone: the answers known beforehand."""
    assert gpu_mechanisms.main(["--shape", "tiny", "--device", "cpu"]) == 0
    printed = {
        line.split("|")[1].strip(): line.split("|")[2].strip()
        for line in capsys.readouterr().out.splitlines()
        if line.startswith("| ")
    }
    for row, said in (
        # 2 layers of 128 units
        ("moments of 256 units at 192 tokens", "256 finite, logits changed by 0 of"),
        ("patching a layer with the model's own states", "logits change by 0 of"),
        ("patching with the tuned model's states", "last layer: 0 of"),
        ("steering by 10 in layer 1", "moves its states by 10 to 10"),
        # 6 values for each of 2 layers * 2 (key, value) * 2 heads * 16 dimensions
        ("prefix of five traits", "768 parameters"),
        ("prefix at +3 SD", "removed from every layer by 0 of"),
    ):
        assert said in printed[row]
    assert "side by side" in printed["P(emoji) at 3 contexts, a set of units"]

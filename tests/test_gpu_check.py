"""`benchmarks/gpu_check.py`: its code is walked through here, so that it works where a GPU is."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch

from tests.model_fixtures import save_model

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu_check.py"


@pytest.fixture(scope="module")
def gpu_check() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("gpu_check", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses with postponed annotations look their module up by name.
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(__import__("sys").modules, "gpu_check", module)
        spec.loader.exec_module(module)
    return module


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


def test_without_a_gpu_it_says_so(
    gpu_check: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is measured on another device in its place: exit code 2 and what to do."""
    if torch.cuda.is_available():
        pytest.skip("there is a GPU: run python benchmarks/gpu_check.py instead")
    assert gpu_check.main([]) == 2
    assert "no CUDA device" in capsys.readouterr().err


def test_a_missing_organism_is_said(
    gpu_check: ModuleType, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """An error of the project is printed plainly, with exit code 1."""
    missing = str(tmp_path / "none")
    assert gpu_check.main(["--shape", "tiny", "--device", "cpu", "--organism", missing]) == 1
    assert "there is no folder" in capsys.readouterr().err

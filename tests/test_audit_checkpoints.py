"""A run's folder stands for its checkpoints, in the order of their steps."""

from __future__ import annotations

from pathlib import Path

import pytest

from emotest.audit.checkpoints import expanded, require_distinct, step_of
from emotest.errors import UsageError


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """What a trainer leaves: three checkpoints and its own notes."""
    for name in ("checkpoint-50", "checkpoint-100", "checkpoint-5", "runs", "checkpoint-last"):
        (tmp_path / "run" / name).mkdir(parents=True)
    return tmp_path / "run"


def test_adapters_of_a_run_come_by_their_steps(run: Path) -> None:
    """By number, not by name; other folders are none."""
    found = expanded(f"organism:latent+{run}?quantize=nf4")
    assert found == [
        f"organism:latent+{run}/checkpoint-{step}?quantize=nf4" for step in (5, 50, 100)
    ]
    assert [step_of(one, 1) for one in found] == [5, 50, 100]


def test_models_of_a_run_come_by_their_steps(run: Path) -> None:
    """A folder of whole models."""
    assert expanded(str(run)) == [f"{run}/checkpoint-{step}" for step in (5, 50, 100)]


@pytest.mark.parametrize("name", ["adapter_config.json", "config.json"])
def test_a_folder_that_is_a_model_itself_stands_for_itself(run: Path, name: str) -> None:
    """Even with checkpoints below it."""
    (run / name).write_text("{}")
    assert expanded(f"organism:latent+{run}") == [f"organism:latent+{run}"]
    assert expanded(str(run)) == [str(run)]


@pytest.mark.parametrize("text", ["organism:latent", "owner/model", "./nowhere", "a/b+c/d"])
def test_what_is_no_folder_here_stands_for_itself(text: str) -> None:
    """Whoever loads it says what is wrong with it; its step is its place."""
    assert expanded(text) == [text]
    assert step_of(text, 3) == 3


def test_a_checkpoint_counts_once() -> None:
    """Named twice it would be decided in too large a family."""
    with pytest.raises(UsageError, match="a/b is named twice"):
        require_distinct(["a/b", "a/c", "a/b"])

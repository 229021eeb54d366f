"""How many processes a machine is given by default, by its cores and its GPU's memory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from emotest.settings import Settings, available_cores, resolve
from emotest.settings.machine import gpu_bytes, usual_workers

GB = 10**9


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine whose `nvidia-smi` tells of two GPUs, of 24 and 80 GiB, and writes down what it
    was asked."""
    asked = tmp_path / "asked"
    tool = tmp_path / "nvidia-smi"
    tool.write_text(
        f"""#!/bin/sh
echo "$@" >> {asked}
case "$*" in
  *--id=1*) echo 81920 ;;
  *--id=7*) echo "No devices were found"; exit 6 ;;
  *) echo 24576; echo 81920 ;;
esac
"""
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return asked


@pytest.mark.parametrize(
    ("memory", "most"), [(None, 4), (80 * GB, 4), (40 * GB, 3), (24 * GB, 2), (8 * GB, 1)]
)
def test_a_gpu_has_a_process_for_each_12_gb(memory: int | None, most: int) -> None:
    """24 GB / 12 GB = 2, and never fewer than one; cores and four are the other limits."""
    assert usual_workers(memory) == min(most, 4, available_cores())


@pytest.mark.usefixtures("driver")
@pytest.mark.parametrize(
    ("visible", "gib"),
    [({}, 24), ({"CUDA_VISIBLE_DEVICES": "1,0"}, 80), ({"CUDA_VISIBLE_DEVICES": "0"}, 24)],
)
def test_it_is_the_first_visible_gpu_that_counts(visible: dict[str, str], gib: int) -> None:
    """What a process would compute on, in bytes."""
    assert gpu_bytes(visible) == gib * 2**30


@pytest.mark.parametrize("visible", ["", "-1", "7"])
def test_where_no_gpu_is_visible_none_is_counted(driver: Path, visible: str) -> None:
    """Hidden from CUDA, or a number that the driver does not know."""
    assert gpu_bytes({"CUDA_VISIBLE_DEVICES": visible}) is None
    assert driver.exists() == (visible == "7")


def test_without_nvidias_driver_there_is_no_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is asked."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu_bytes({}) is None


@pytest.mark.parametrize(
    ("base", "asked"),
    [("organism:latent", False), ("http://localhost:1/v1#m", False), ("some/model", True)],
)
def test_only_for_models_that_would_lie_on_it_the_gpu_is_asked(
    driver: Path, base: str, asked: bool
) -> None:
    """Organisms are small and served models elsewhere; a number that is given settles it."""
    settings = resolve({"emo_base": base}, {}, {})
    assert settings.workers == min(2 if asked else 4, available_cores())
    assert driver.exists() == asked
    given = resolve({"emo_base": base, "emo_workers": "3"}, {}, {})
    assert given.workers == 3


def test_the_header_says_what_limits_the_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cores, a GPU's memory, or whoever asked."""
    monkeypatch.setattr("emotest.settings.machine.available_cores", lambda: 16)
    assert Settings(workers=4).workers_and_why == "4 (one per core, at most 4)"
    assert Settings(workers=2).workers_and_why == "2 (one for each 12 GB of the GPU's memory)"
    asked = resolve({"emo_workers": "2"}, {}, {})
    assert asked.workers_and_why == "2 (as --emo-workers asks)"

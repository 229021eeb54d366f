"""What the machine has for processes to share: cores and a GPU's memory; asked without torch."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping

MOST_WORKERS = 4
"""Processes that work side by side unless somebody asks for more."""

GPU_BYTES_OF_A_WORKER = 12 * 10**9
"""Measured at Mistral-7B's shape in NF4, answers and activations included: 11.6 GB each."""

_SECONDS_TO_ANSWER = 10.0


def usual_workers(gpu_bytes: int | None) -> int:
    """One process a core, at most `MOST_WORKERS`; on a GPU as many as have room for a 7B model.

    `gpu_bytes` is its memory, or None where none is needed (an organism, a served model) or there.
    """
    wanted = min(MOST_WORKERS, available_cores())
    if gpu_bytes is not None:
        wanted = min(wanted, gpu_bytes // GPU_BYTES_OF_A_WORKER)
    return max(1, wanted)


def available_cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def gpu_bytes(environment: Mapping[str, str]) -> int | None:
    """Memory of the first GPU that `CUDA_VISIBLE_DEVICES` leaves, as NVIDIA's driver tells it.

    None where there is no such GPU, or nobody to ask.
    """
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    asked = shutil.which("nvidia-smi")
    if asked is None or visible == "" or (visible or "").startswith("-1"):
        return None
    query = [asked, "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    if visible:
        query += [f"--id={visible.partition(',')[0]}"]
    try:
        told = subprocess.run(
            query, capture_output=True, text=True, check=True, timeout=_SECONDS_TO_ANSWER
        )
        return int(told.stdout.split()[0]) * 2**20  # in MiB
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None

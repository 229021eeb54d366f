"""What works on this machine, tried rather than guessed: each lack with its remedy.

Takes nothing, gives `Check`s. The NF4 check multiplies with real quantized weights and compares
with the unquantized product; the Hub is asked only where that is allowed.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

State = Literal["works", "lacking", "broken"]

GIGABYTE = 1e9
ENOUGH_MEMORY = 2.5 * GIGABYTE
"""For two workers with an organism each."""

ENOUGH_FOR_7B = 8 * GIGABYTE
"""Of GPU memory, for a seven-billion-parameter model in NF4 with its cache."""

ENOUGH_DISK = 1 * GIGABYTE

HUB_SECONDS = 5.0


@dataclass(frozen=True)
class Check:
    """One thing that a run may need. `lacking` is something to do without, `broken` is not."""

    name: str
    state: State
    found: str
    remedy: str = ""


def checks(store: Path, *, hub: bool = True) -> Iterator[Check]:
    """Every check, in the order of a page that people read; `hub` False asks no network."""
    yield _python()
    yield _threads()
    yield _memory()
    yield _disk(store)
    yield from _torch()
    yield _organisms()
    yield _hub() if hub else Check("Hub", "lacking", "not asked", "leave --offline out")


def _python() -> Check:
    libraries = ", ".join(
        f"{name} {version(name)}" for name in ("torch", "transformers", "peft", "bitsandbytes")
    )
    return Check("versions", "works", f"Python {sys.version.split()[0]}, {libraries}")


def _threads() -> Check:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    asked = os.environ.get("OMP_NUM_THREADS")
    found = f"{cores} cores; workers compute with one thread each"
    return Check("threads", "works", f"{found} (OMP_NUM_THREADS={asked})" if asked else found)


def _memory() -> Check:
    import psutil

    free = psutil.virtual_memory().available
    found = f"{free / GIGABYTE:.1f} GB free"
    if free < ENOUGH_MEMORY:
        return Check("memory", "lacking", found, "close other programs, or use one worker")
    return Check("memory", "works", found)


def _disk(store: Path) -> Check:
    place = next(folder for folder in (store, *store.absolute().parents) if folder.exists())
    if not os.access(place, os.W_OK):
        return Check(
            "store", "broken", f"{place} cannot be written", "name another folder with --store"
        )
    free = shutil.disk_usage(place).free
    found = f"{store}, {free / GIGABYTE:.0f} GB free"
    if free < ENOUGH_DISK:
        return Check("store", "lacking", found, "make room, or emotest store prune")
    return Check("store", "works", found)


def _torch() -> Iterator[Check]:
    import torch

    has_gpu = torch.cuda.is_available()
    if has_gpu:
        properties = torch.cuda.get_device_properties(0)
        memory = properties.total_memory
        found = f"{properties.name}, {memory / GIGABYTE:.0f} GB"
        enough = memory >= ENOUGH_FOR_7B
        remedy = "" if enough else "models of 7B need 8 GB in NF4; use smaller ones"
        yield Check("GPU", "works" if enough else "lacking", found, remedy)
    else:
        yield Check(
            "GPU",
            "lacking",
            "none that torch sees: organisms and small models run on the CPU",
            "for models of billions of parameters install a CUDA build of torch on a machine "
            "with a GPU",
        )
    yield _nf4(torch.device("cpu"))
    if has_gpu:
        yield _nf4(torch.device("cuda"))


def _nf4(device: Any) -> Check:
    """A quantized product against the same product of the dequantized weights, on that device."""
    name = f"NF4 on {device.type}"
    try:
        off = _nf4_error(device)
    except Exception as error:  # whatever a broken installation raises is the finding
        first = str(error).strip().splitlines()[:1]
        return Check(
            name,
            "broken",
            f"{type(error).__name__}: {first[0] if first else ''}",
            "reinstall bitsandbytes for this machine, or load models with ?quantize=none",
        )
    if not off < 0.02:
        return Check(
            name,
            "broken",
            f"products are off by {off:.1%}",
            "load models with ?quantize=none and report the processor",
        )
    return Check(name, "works", f"products agree within {max(off, 1e-6):.1e}")


def _nf4_error(device: Any) -> float:
    import torch

    from emotest.models.loading import quiet

    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(64, 128, generator=generator)
    x = torch.randn(8, 128, generator=generator).to(device)
    with quiet():
        from bitsandbytes import functional
        from bitsandbytes.nn import Linear4bit, Params4bit

        layer = Linear4bit(128, 64, bias=False, compute_dtype=torch.float32, quant_type="nf4")
        layer.weight = Params4bit(weight, requires_grad=False, quant_type="nf4")
        layer = layer.to(device)
        layer.support_avx512bf16_for_cpu = False  # see loading
        dense = functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state).float()
        with torch.inference_mode():
            found, wanted = layer(x).float(), x @ dense.T
    return float((found - wanted).norm() / wanted.norm())


def _organisms() -> Check:
    from emotest.models.identity import ORGANISMS

    found = sorted(path.parent.name for path in ORGANISMS.glob("*/model.safetensors"))
    if not found:
        return Check(
            "organisms", "broken", "none is installed", "install emotest from its wheel again"
        )
    return Check("organisms", "works", ", ".join(found))


def _hub() -> Check:
    import httpx2
    from huggingface_hub import constants, get_token

    if constants.HF_HUB_OFFLINE:
        return Check("Hub", "lacking", "HF_HUB_OFFLINE is set", "unset it to fetch models")
    try:
        httpx2.head(constants.ENDPOINT, timeout=HUB_SECONDS, follow_redirects=True)
    except httpx2.HTTPError as error:
        return Check(
            "Hub",
            "lacking",
            f"{constants.ENDPOINT} cannot be reached ({type(error).__name__})",
            "organisms, folders and models in the cache work without it; check network and proxy",
        )
    token = "with a token" if get_token() else "without a token"
    return Check("Hub", "works", f"{constants.ENDPOINT}, {token} (gated models need one)")

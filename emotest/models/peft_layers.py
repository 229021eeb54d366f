"""What peft puts on a model, and what it leaves there: found, told apart and taken off.

Takes a model with peft's layers on it, a name of an adapter, or a weight from an adapter's file.
Knows peft's classes; knows neither files nor subjects.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


def take_off(model: Any, name: str, *, alone: bool) -> None:
    """Undo what a failed `install` has put on so far."""
    from peft.tuners.lora import LoraLayer

    for path, module in list(model.named_modules()):
        if not isinstance(module, LoraLayer):
            continue
        if alone:
            _replace(model, path, module.base_layer)
        elif holds(module, name):
            module.delete_adapter(name)
    put_back(model)


def put_back(model: Any) -> None:
    """Put back modules that an adapter replaced whole (`modules_to_save`).

    peft keeps its wrapper around them, and refuses every later adapter that is not in it.
    """
    from peft.utils.other import ModulesToSaveWrapper

    for path, module in list(model.named_modules()):
        if isinstance(module, ModulesToSaveWrapper) and not module.modules_to_save:
            _replace(model, path, module.original_module)


def _replace(model: Any, path: str, module: Any) -> None:
    parent, _, child = path.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


def is_of_base(model: Any, key: str, array: NDArray[np.float32]) -> bool:
    """Whether this is the base's own weight once more, as peft saves those of adapted embeddings.

    In the base's precision, which an adapter may have been saved from or to.
    """
    path = key.removeprefix("base_model.model.").removesuffix(".weight").removesuffix(".base_layer")
    try:
        module = model.get_submodule(path)
    except AttributeError:
        return False
    weight = getattr(getattr(module, "base_layer", module), "weight", None)
    if weight is None or tuple(weight.shape) != array.shape or not weight.is_floating_point():
        return False
    own = torch.from_numpy(np.array(array)).to(weight.dtype)
    return torch.equal(own, weight.detach().to("cpu"))


def holds(layer: Any, name: str) -> bool:
    """Whether a LoRA layer, linear or of an embedding, holds an adapter of this name."""
    return name in layer.lora_A or name in layer.lora_embedding_A


@contextmanager
def unwarned() -> Iterator[None]:
    """Without peft's warning that takes biases of LoRA layers for weights cut by DeepSpeed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield

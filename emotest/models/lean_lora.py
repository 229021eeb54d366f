"""LoRA over NF4 layers with fewer passes over memory where nothing is learned.

peft's layer copies the base's output before it adds to it, for the sake of the backward pass, and
multiplies, scales and adds in three passes. Under `no_grad`, with one plain adapter in float32, the
product is added where it is made. The numbers are peft's, bit for bit; in every other case it is
peft that computes.
"""

from __future__ import annotations

from functools import cache
from math import frexp
from typing import Any

import torch
from torch import Tensor


def make_lean(model: Any) -> None:
    """Let every NF4 layer of peft's in a model compute leanly where it can."""
    lora, lean = _classes()
    for module in model.modules():
        if type(module) is lora:
            module.__class__ = lean


@cache
def _classes() -> tuple[type, type]:
    """peft's layer over bitsandbytes' `Linear4bit`, and the lean one, which is still one of it."""
    from peft.tuners.lora.bnb import Linear4bit

    class LeanLinear4bit(Linear4bit):  # type: ignore[misc]
        def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            name = None if args or kwargs else self._only_adapter(x)
            if name is None:
                result: Tensor = super().forward(x, *args, **kwargs)
                return result
            out: Tensor = self.base_layer(x)  # fresh, so it may be added to in place
            inner = self.lora_A[name](x)
            out.flatten(0, -2).addmm_(
                inner.flatten(0, -2), self.lora_B[name].weight.t(), alpha=self.scaling[name]
            )
            return out

        def _only_adapter(self, x: Tensor) -> str | None:
            """The adapter to add, where adding it in one pass gives peft's numbers."""
            if torch.is_grad_enabled() or self.training or self.disable_adapters or self.merged:
                return None
            names = [name for name in self.active_adapters if name in self.lora_A]
            if len(names) != 1 or names[0] in self.lora_variant:
                return None
            if self.lora_B[names[0]].bias is not None:
                return None
            # Scaled by a power of two the product is exact, so that it is rounded once either way.
            exact = abs(frexp(self.scaling[names[0]])[0]) == 0.5
            plain = x.dtype is self.lora_A[names[0]].weight.dtype is torch.float32
            return names[0] if exact and plain and not torch.is_autocast_enabled() else None

    return Linear4bit, LeanLinear4bit

"""Rows and their trait values in, a trained prefix out; with a LoRA beside it or not.

The PsychAdapter of `emotest.mechanisms.prefix`, trained as `emotest.models.training` trains an
adapter: the same rows, supervised tokens, order, steps and rates of one recipe. Both arms exist
because the released system trains a LoRA together with the map: only the map alone says what the
map does. Knows nothing of where rows or trait values come from.

Sources: PsychAdapter (Vu et al., arXiv 2412.16882) and its released code.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from emotest.errors import TrainingError
from emotest.mechanisms.prefix import (
    PrefixConfig,
    TraitPrefix,
    TraitValues,
    prefixed,
    share,
    trait_rows,
)
from emotest.models.adapters import active, detach, install, switch
from emotest.models.loading import LoadedModel
from emotest.models.supervision import Example, encode_rows, summed_loss
from emotest.models.training import (
    StepReport,
    TrainedAdapter,
    learning_rate,
    lora_config,
    lora_state,
    n_steps,
    optimizer_of,
    require_fit,
    row_order,
)
from emotest.study.recipes import AdapterRecipe
from emotest.study.records import TuningRow

_NAME = "(beside the prefix)"


@dataclass(frozen=True, eq=False)
class TrainedPrefix:
    """The product: the map, frozen, the LoRA that was trained beside it or None, and each step's
    loss in nats a token.

    The two parts are saved apart: `save_prefix` for the map, `save_adapter` for the LoRA, which
    is attached as any other. `notes` say where the machine did not follow the recipe's word.
    """

    prefix: TraitPrefix
    lora: TrainedAdapter | None
    losses: tuple[float, ...]
    n_base_parameters: int
    notes: tuple[str, ...] = ()

    @property
    def n_lora_parameters(self) -> int:
        """Trained parameters of the LoRA part, 0 without one."""
        return sum(array.size for array in self.lora.state.values()) if self.lora else 0

    @property
    def share(self) -> float:
        """All trained parameters as a share of the base's."""
        return share(self.prefix.config, self.n_base_parameters, self.n_lora_parameters)


def train_prefix(
    loaded: LoadedModel,
    config: PrefixConfig,
    recipe: AdapterRecipe,
    rows: Sequence[TuningRow],
    trait_values: TraitValues,
    *,
    with_lora: bool = False,
    prefix_rate: float = 1.0,
    on_step: Callable[[StepReport], None] | None = None,
) -> TrainedPrefix:
    """Train a prefix, and with it a LoRA if asked for, on a lent base that stays frozen.

    `trait_values` is (n_rows, n_traits): whose answer each row is. Only answers are supervised.
    The recipe gives seed, steps, batches, rates and ending, and the LoRA's shape. The map learns
    at `prefix_rate` times the recipe's rate: 1 is the released code's, but a LoRA that learns as
    fast leaves the map idle (measured on an organism, 100 steps: answers did not change with the
    trait at 1, and did at 50). The seed decides all, bit for bit on one type of processor.
    Adapters that are attached stay out of it.

    Raises what `require_fit`, `encode_rows` and `prefixed` raise, and `TrainingError` for a rate
    that is not above 0, where rows and trait values do not pair, or for a loss that is not a
    number (naming the step).
    """
    require_fit(loaded, recipe)
    values = trait_rows(config, trait_values)
    if len(values) != len(rows):
        raise TrainingError(
            f"{len(rows)} rows and {len(values)} trait vectors do not pair",
            remedy="give each row the trait values of whoever answers in it",
        )
    if not 0 < prefix_rate < math.inf:
        raise TrainingError(f"prefix_rate={prefix_rate}", remedy="use a number above 0")
    examples = encode_rows(loaded, rows, recipe.ending, recipe.max_length)
    n_base_parameters = _n_base_parameters(loaded)
    prefix = TraitPrefix(config, recipe.training_seed).to(loaded.device)
    cuda = [loaded.device] if loaded.device.type == "cuda" else []
    # The LoRA's first weights and all dropout draw from the global generators, which are lent.
    with torch.random.fork_rng(devices=cuda), active(loaded, None):
        torch.manual_seed(recipe.training_seed)
        if with_lora:
            install(loaded, lora_config(recipe, loaded), _NAME)
        try:
            if with_lora:
                switch(loaded, _NAME, trainable=True)
            loaded.model.train()
            losses, notes = _run(loaded, prefix, prefix_rate, recipe, examples, values, on_step)
            lora = _lora(loaded, recipe, losses) if with_lora else None
        finally:
            loaded.model.eval()
            if with_lora:
                switch(loaded, None)
                detach(loaded, _NAME)
    prefix.requires_grad_(False)
    return TrainedPrefix(prefix, lora, losses, n_base_parameters, notes)


def _run(
    loaded: LoadedModel,
    prefix: TraitPrefix,
    prefix_rate: float,
    recipe: AdapterRecipe,
    examples: Sequence[Example],
    values: Tensor,
    on_step: Callable[[StepReport], None] | None,
) -> tuple[tuple[float, ...], tuple[str, ...]]:
    """The loss of each step, in nats a supervised token, and notes about the machine."""
    lora = [p for p in loaded.model.parameters() if p.requires_grad]
    weights = [*prefix.parameters(), *lora]
    groups: list[dict[str, Any]] = [{"params": list(prefix.parameters()), "times": prefix_rate}]
    groups += [{"params": lora, "times": 1.0}] if lora else []
    notes: list[str] = []
    optimizer = optimizer_of(recipe, groups, loaded.device, notes)
    # float16 gradients underflow without a scale; the other dtypes need none.
    scaler: Any = torch.amp.GradScaler(
        loaded.device.type, enabled=recipe.compute_dtype == "float16"
    )
    batches = row_order([len(example.ids) for example in examples], recipe)
    steps, losses = n_steps(recipe, len(examples)), []
    began = time.perf_counter()
    for step in range(steps):
        rate = learning_rate(recipe, step, steps)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["times"]
        parts = list(islice(batches, recipe.gradient_accumulation))
        n_supervised = sum(examples[i].n_supervised for part in parts for i in part)
        total = 0.0
        for part in parts:
            with prefixed(loaded, prefix, values[part]):
                loss = summed_loss(loaded, [examples[i] for i in part]) / n_supervised
            scaler.scale(loss).backward()
            total += float(loss.detach())
        if not math.isfinite(total):
            raise TrainingError(
                f"the loss became {total} at step {step + 1} of {steps}",
                remedy="lower the learning rate, or compute in float32 or bfloat16",
            )
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(weights, recipe.max_grad_norm)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        losses.append(total)
        if on_step is not None:
            on_step(StepReport(step + 1, steps, total, rate, time.perf_counter() - began))
    return tuple(losses), tuple(notes)


def _lora(loaded: LoadedModel, recipe: AdapterRecipe, losses: tuple[float, ...]) -> TrainedAdapter:
    weights = loaded.identity.weights
    return TrainedAdapter(lora_state(loaded, _NAME), lora_config(recipe, loaded), weights, losses)


def _n_base_parameters(loaded: LoadedModel) -> int:
    """Parameters of the base alone: adapters that are attached are none of its."""
    parameters = loaded.model.named_parameters()
    n_attached = sum(int(p.numel()) for name, p in parameters if "lora_" in name)
    n_together: int = loaded.model.num_parameters()
    return n_together - n_attached

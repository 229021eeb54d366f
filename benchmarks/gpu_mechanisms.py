"""Every mechanism of the study on a model of Mistral-7B's size in NF4, in one command.

    python benchmarks/gpu_mechanisms.py [--shape mistral-7b] [--device cuda]

The model is `gpu_check.py`'s: random weights, made and quantized on the device. What is asked of
it has an answer that no measurement is needed for, so that each row says whether the mechanism
does there what it says, and what it costs: recording must not change a logit, patching a model
with its own states must change nothing, patching its last layer with another's states must give
the other's logits, units silenced in rows side by side must give what they give alone, steering
by a length must move the layer's states by that length. Prints a Markdown table for
docs/performance.md.

How a trait shows, or where emoji come from, cannot be asked of random weights.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from gpu_check import Row, Size, carry_out, made_rows, memory, published, random_model
from numpy.typing import NDArray
from torch import Tensor

from emotest.mechanisms.directions import Answered, response_means, trait_direction
from emotest.mechanisms.massive import massive_activations
from emotest.mechanisms.patching import patching, recorded
from emotest.mechanisms.prefix import n_parameters, prefix_config, prefixed
from emotest.mechanisms.prefix_training import train_prefix
from emotest.mechanisms.recording import Moments, recording
from emotest.mechanisms.silencing import silencing, silencing_each
from emotest.mechanisms.steering import steering
from emotest.models.adapters import active, attach
from emotest.models.generation import generate
from emotest.models.layers import anatomy
from emotest.models.loading import LoadedModel
from emotest.models.probability import EmojiProbability, emoji_probability
from emotest.models.training import train
from emotest.study.personality import Trait
from emotest.study.recipes import AdapterRecipe
from emotest.study.records import Prompt, TuningRow

DOSE = 0.02
"""Share of all FFN units that are silenced: the declared dose of C8."""

N_SETS = 21
"""Random sets of units that run side by side, as many as the study puts into one pass."""

TUNED = "tuned"


@dataclass(frozen=True, eq=False)
class Scene:
    """A model with an adapter attached, and what it is asked with."""

    loaded: LoadedModel
    size: Size
    recipe: AdapterRecipe
    rows: Sequence[TuningRow]
    ids: Tensor
    """One batch of texts, int64 (n_rows, n_tokens), all of one length."""
    rng: np.random.Generator

    @property
    def prompts(self) -> list[Prompt]:
        """Questions, a quarter of what `gpu_check.py` asks."""
        n_prompts = max(2, self.size.n_answers // 4)
        return [Prompt(str(i), row.question) for i, row in enumerate(self.rows[:n_prompts])]

    def logits(self) -> Tensor:
        """Of the batch's last tokens, float32 (n_rows, n_tokens_of_the_vocabulary)."""
        with torch.inference_mode():
            ids = self.ids.to(self.loaded.device)
            logits = self.loaded.model(input_ids=ids, use_cache=False, logits_to_keep=1).logits
        last: Tensor = logits[:, -1].float().cpu()
        return last


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the check; exit code 2 with a message where there is no device to run it on."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    return carry_out(parser, arguments, lambda _, size, device: check(size, device))


def check(size: Size, device: torch.device) -> list[Row]:
    """Set the scene, then let each mechanism leave its rows."""
    scene = set_scene(size, device)
    measured = [("memory of the model and its adapter", memory(device))]
    parts: list[Callable[[Scene], list[Row]]] = [
        record, look_for_massive, silence, silence_side_by_side, patch, steer, put_in_front,
    ]  # fmt: skip
    for part in parts:
        measured += part(scene)
    return [*measured, ("peak memory", memory(device))]


def set_scene(size: Size, device: torch.device) -> Scene:
    """The random model, and an adapter of a few steps on it."""
    rng = np.random.default_rng(0)
    rows = made_rows(rng, size)
    loaded = random_model(size, device, [f"{row.question} {row.answer}" for row in rows])
    made = published(loaded, max(3, size.steps // 5))
    attach(loaded, train(loaded, made, rows), TUNED)
    n_tokens = 64
    encoded = [
        loaded.tokenizer(f"{row.question} {row.answer} {row.answer}")["input_ids"]
        for row in rows[: size.n_answers]
    ]
    ids = [one[:n_tokens] for one in encoded if len(one) >= n_tokens]
    return Scene(loaded, size, made, rows, torch.tensor(ids), rng)


def record(scene: Scene) -> list[Row]:
    """Moments of every FFN unit stream, and the model computes what it computed before."""
    before = scene.logits()
    plain = _seconds(scene.logits)
    moments = Moments()
    held = _held(scene)
    with recording(scene.loaded.model, moments, sites="neurons"):
        after = scene.logits()
    held = _held(scene) - held
    with recording(scene.loaded.model, Moments(), sites="neurons"):
        watched = _seconds(scene.logits)
    parts = anatomy(scene.loaded.model)
    n_finite = sum(
        int(np.isfinite(moments.of("neurons", layer).variance).sum())
        for layer in range(parts.n_layers)
    )
    n_units = parts.n_layers * parts.n_neurons
    return [
        (
            f"moments of {n_units:,} units at {scene.ids.numel():,} tokens",
            f"{watched / plain:.2f} times the pass alone ({plain * 1e3:.0f} ms), {n_finite:,} "
            f"finite, logits changed by {_apart(before, after)}"
            + (f", {held / 2**20:.1f} MiB held on the device" if held else ""),
        )
    ]


def look_for_massive(scene: Scene) -> list[Row]:
    """Massive activations, of which random weights have none."""
    texts = scene.ids[:12].tolist()
    began = time.perf_counter()
    found = massive_activations(scene.loaded.model, texts)
    return [
        (
            f"massive activations in {len(texts)} texts",
            f"{time.perf_counter() - began:.2f} s, {len(found.dimensions)} dimensions",
        )
    ]


def silence(scene: Scene) -> list[Row]:
    """Answers while 2 % of the units are at their means, against answers as the model is."""
    units, means = _chosen(scene), _means(scene)
    paces = {
        "as it is": _pace(scene, nullcontext()),
        "silenced": _pace(scene, silencing(scene.loaded.model, units, means=means)),
    }
    return [
        (
            f"{len(scene.prompts)} answers while {DOSE:.0%} of the units are silenced",
            f"{paces['silenced']:.0f} tokens/s, {paces['as it is']:.0f} without",
        )
    ]


def silence_side_by_side(scene: Scene) -> list[Row]:
    """P(emoji) under many sets, each in rows of its own, against one set after the other."""
    loaded, means = scene.loaded, _means(scene)
    sets = [_chosen(scene) for _ in range(N_SETS)]
    texts = scene.ids[:12].tolist()
    acting = silencing_each(loaded.model, sets, means=means)
    of_context = np.repeat(np.arange(N_SETS), len(texts))
    began = time.perf_counter()
    together = emoji_probability(
        loaded.model, loaded.tokenizer, texts * N_SETS,
        acting=lambda numbers: acting(of_context[np.asarray(numbers)]),
    )  # fmt: skip
    seconds = time.perf_counter() - began
    began = time.perf_counter()
    alone = []
    for one in sets[:3]:
        with silencing(loaded.model, one, means=means):
            alone.append(_mass(emoji_probability(loaded.model, loaded.tokenizer, texts)))
    each = (time.perf_counter() - began) / len(alone)
    expected = np.concatenate(alone)
    off = np.abs(_mass(together)[: len(expected)] - expected).max()
    return [
        (
            f"P(emoji) at {len(texts)} contexts, a set of units",
            f"{seconds / N_SETS:.2f} s with {N_SETS} side by side, {each:.2f} s alone; "
            f"differ by at most {off:.2g} of {expected.max():.2g}",
        )
    ]


def patch(scene: Scene) -> list[Row]:
    """A model's own states change nothing; the tuned model's last states make its logits."""
    loaded = scene.loaded
    n_layers = anatomy(loaded.model).n_layers
    layer = n_layers // 2
    untuned = scene.logits()
    own = recorded(loaded.model, scene.ids, [layer])[layer]
    with patching(loaded.model, own, layer):
        same = scene.logits()
    with active(loaded, TUNED):
        tuned = scene.logits()
        theirs = recorded(loaded.model, scene.ids, [layer, n_layers - 1])
    patched = {}
    for number, states in theirs.items():
        with patching(loaded.model, states, number):
            patched[number] = scene.logits()
    return [
        (
            "patching a layer with the model's own states",
            f"logits change by {_apart(untuned, same)}",
        ),
        (
            "patching with the tuned model's states",
            f"last layer: {_apart(patched[n_layers - 1], tuned)} from the tuned logits, which lie "
            f"{_apart(untuned, tuned)} from the untuned; layer {layer}: "
            f"{_apart(patched[layer], tuned)}",
        ),
    ]


def steer(scene: Scene) -> list[Row]:
    """A direction between two sets of texts, and a push of a known length along it."""
    loaded = scene.loaded
    n_texts = max(4, scene.size.n_answers // 2)
    answered = [
        Answered(Prompt(str(i), row.question), row.answer)
        for i, row in enumerate(scene.rows[: 2 * n_texts])
    ]
    began = time.perf_counter()
    direction = trait_direction(
        loaded, "one half", answered[:n_texts], answered[n_texts:], against="the other"
    )
    seconds = time.perf_counter() - began
    layer = anatomy(loaded.model).n_layers // 2
    unit, length = direction.unit(layer), 10.0
    before = response_means(loaded, answered[:2])
    with steering(loaded.model, {layer: unit}, length):
        moved = (response_means(loaded, answered[:2]) - before)[:, layer] @ unit
        pace = _pace(scene, nullcontext())
    return [
        (f"direction from {len(answered)} answers", f"{seconds:.1f} s, all layers"),
        (
            f"steering by {length:g} in layer {layer}",
            f"moves its states by {moved.min():.4g} to {moved.max():.4g}; {pace:.0f} tokens/s",
        ),
    ]


def put_in_front(scene: Scene) -> list[Row]:
    """A prefix of five traits: its parameters, its training, and what it does to logits."""
    loaded = scene.loaded
    config = prefix_config(loaded)
    values = scene.rng.standard_normal((len(scene.rows), len(config.traits)))
    reports: list[Any] = []
    trained = train_prefix(loaded, config, scene.recipe, scene.rows, values, on_step=reports.append)
    pace = (len(reports) - 1) / (reports[-1].seconds - reports[0].seconds)
    without = scene.logits()
    prefix = trained.prefix
    with prefixed(loaded, prefix, {Trait.EXTRAVERSION: 3.0}):
        with_it = scene.logits()
    every_layer = list(config.layers)
    with prefixed(loaded, prefix, {Trait.EXTRAVERSION: 3.0}, without_layers=every_layer):
        removed = scene.logits()
    return [
        (
            "prefix of five traits",
            f"{n_parameters(config):,} parameters ({trained.share:.3%}), {pace:.2f} steps/s of "
            f"4 rows, loss {trained.losses[0]:.2f}, {trained.losses[-1]:.2f}",
        ),
        (
            "prefix at +3 SD",
            f"logits change by {_apart(without, with_it)}, removed from every layer by "
            f"{_apart(without, removed)}",
        ),
    ]


def _chosen(scene: Scene) -> dict[int, NDArray[np.int64]]:
    """As many units of each layer, drawn."""
    parts = anatomy(scene.loaded.model)
    n_units = max(1, round(DOSE * parts.n_neurons))
    return {
        layer: np.sort(scene.rng.permutation(parts.n_neurons)[:n_units])
        for layer in range(parts.n_layers)
    }


def _means(scene: Scene) -> dict[int, NDArray[np.float64]]:
    moments = Moments()
    with recording(scene.loaded.model, moments, sites="neurons"):
        scene.logits()
    layers = range(anatomy(scene.loaded.model).n_layers)
    return {layer: moments.of("neurons", layer).mean for layer in layers}


def _mass(found: EmojiProbability) -> NDArray[np.float64]:
    """What begins an emoji or may still: of random weights next to nothing does."""
    return found.probability + found.bound


def _pace(scene: Scene, acting: AbstractContextManager[Any]) -> float:
    """Tokens a second over all rows."""
    with acting:
        began = time.perf_counter()
        answers = generate(
            scene.loaded, scene.prompts, decoding=scene.size.decoding, sampling_seed=0,
            condition="paced",
        )  # fmt: skip
        seconds = time.perf_counter() - began
    return sum(len(answer.token_ids) for answer in answers) / seconds


def _seconds(run: Callable[[], object]) -> float:
    """The fastest of three; a result on the CPU has waited for the device."""
    times = [time.perf_counter()]
    for _ in range(3):
        run()
        times.append(time.perf_counter())
    return min(later - earlier for earlier, later in pairwise(times))


def _apart(one: Tensor, other: Tensor) -> str:
    """The largest difference beside the largest value."""
    return f"{float((one - other).abs().max()):.3g} of {float(one.abs().max()):.3g}"


def _held(scene: Scene) -> int:
    """Bytes that are allocated on the device, 0 where it is the CPU."""
    device = scene.loaded.device
    return torch.cuda.memory_allocated() if device.type == "cuda" else 0


if __name__ == "__main__":
    sys.exit(main())

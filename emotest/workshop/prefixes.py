"""How the artefacts of C11 are made: prefixes trained, and answers with a layer's prefix removed.

Takes a bench, a request and an empty folder; fills the folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from emotest.artefacts.prefixes import Prefixed, PrefixRequest, RemovalRequest
from emotest.mechanisms.prefix import n_parameters, prefix_config, read_prefix, save_prefix
from emotest.mechanisms.prefix_training import train_prefix
from emotest.models.adapters import save_adapter
from emotest.models.generation import generate
from emotest.store import write_json, write_jsonl
from emotest.study.records import generation_row
from emotest.workshop.behind_prefix import LORA_FOLDER, behind_prefix
from emotest.workshop.bench import Bench
from emotest.workshop.progress import OnProgress, Progress
from emotest.workshop.study import telling_steps


def make_prefix(bench: Bench, request: PrefixRequest, folder: Path, tell: OnProgress) -> None:
    """Train a prefix; leave its two files, the LoRA's in a folder of its own, and `training.json`
    with the loss of each step and the parameters of map, LoRA and base."""
    loaded = bench.loaded
    trained = train_prefix(
        loaded,
        prefix_config(loaded, traits=request.traits),
        request.recipe,
        request.rows,
        np.array(request.trait_values),
        with_lora=request.with_lora,
        prefix_rate=request.prefix_rate,
        on_step=telling_steps(request.title, tell),
    )
    save_prefix(trained.prefix, folder)
    if trained.lora:
        (folder / LORA_FOLDER).mkdir()
        save_adapter(trained.lora, folder / LORA_FOLDER)
    write_json(
        folder / "training.json",
        {
            "losses": [float(x) for x in trained.losses],
            "n_prefix_parameters": n_parameters(trained.prefix.config),
            "n_lora_parameters": trained.n_lora_parameters,
            "n_base_parameters": trained.n_base_parameters,
            "share": trained.share,
            "notes": list(trained.notes),
        },
    )


def make_removals(bench: Bench, request: RemovalRequest, folder: Path, tell: OnProgress) -> None:
    """Answers without the prefix of one layer after another: `layers.json` lists the layers, and
    `layer-N.jsonl` holds the answers without layer N's."""
    under = request.answers.under
    assert isinstance(under, Prefixed)
    layers = spaced(read_prefix(bench.entry(under.prefix).folder).config.layers, request.most)
    write_json(folder / "layers.json", layers)
    for done, layer in enumerate(layers, start=1):
        asked = request.without(layer)
        assert isinstance(asked.under, Prefixed)
        with (
            bench.weights(asked.adapter, asked.prompts),
            behind_prefix(bench, asked.under, asked.prompts),
        ):
            answers = generate(
                bench.loaded,
                asked.prompts,
                decoding=asked.decoding,
                sampling_seed=asked.sampling_seed,
                n_samples=asked.n_samples,
                condition=f"{asked.condition} ({asked.under.title})",
                training_seed=asked.training_seed,
                batch_size=asked.batch_size,
            )
        write_jsonl(folder / f"layer-{layer}.jsonl", map(generation_row, answers))
        tell(Progress(request.title, "working", done, len(layers)))


def spaced(layers: Sequence[int], most: int) -> list[int]:
    """At most `most` of the layers, from the first to the last at even distances."""
    if len(layers) <= most:
        return list(layers)
    places = np.linspace(0, len(layers) - 1, most).round().astype(int)
    return [layers[place] for place in places]

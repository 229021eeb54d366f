"""How activations are made: chosen answers are read, and moments of all units written down.

Takes a bench, an `ActivationsRequest` and an empty folder; fills the folder. Activations are never
kept: moments stream while the model reads, and only for so many conditions at a time as fit a
budget, so that memory grows with neither tokens nor conditions. Which answers are read is the
matter of `matched_ends`, where the positions come from that of `positions`; what the moments say
that of `stats.selection`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from torch import Tensor

from emotest.artefacts.activations import (
    ABOUT_FILE,
    AT_EMOJI,
    AT_SYMBOL,
    BEFORE_EMOJI,
    BEFORE_OPENING,
    BEFORE_OTHER,
    BEFORE_OTHER_OPENING,
    EVERY,
    MEAN_FILE,
    NEUTRAL_TEXT,
    NEUTRAL_VOICE,
    SHUFFLED,
    TRAIT_TEXT,
    TRAIT_VOICE,
    VARIANCE_FILE,
    ActivationsRequest,
    at_phrase,
    at_single_emoji,
    at_word,
    before_word,
)
from emotest.mechanisms.massive import Norms, massive_activations
from emotest.mechanisms.recording import SITES, Moments, Sink, Site, Tokens, recording
from emotest.models.layers import anatomy
from emotest.store import write_json
from emotest.workshop.bench import Bench
from emotest.workshop.matched_ends import chosen_answers
from emotest.workshop.positions import Encode, Reading, encoder, positions
from emotest.workshop.progress import OnProgress, Progress

BUDGET = 100_000_000
"""Bytes that the moments of one pass over the texts may take."""

BYTES_OF_A_UNIT = 24
"""Of `Moments`, for one unit in one condition."""

MASSIVE_TEXTS = 40
"""Texts in which massive activations are looked for: they stand at the first token of any."""

TOKENS_AT_ONCE = 8192
"""Of a pass, padding included: 16 texts of 512 tokens, or 128 of 64."""

_ALWAYS = (
    BEFORE_EMOJI, BEFORE_OTHER, AT_EMOJI, AT_SYMBOL, *SHUFFLED, BEFORE_OPENING,
    BEFORE_OTHER_OPENING, TRAIT_TEXT, NEUTRAL_TEXT, EVERY,
)  # fmt: skip

_VOICES = {TRAIT_VOICE: TRAIT_TEXT, NEUTRAL_VOICE: NEUTRAL_TEXT}


def make_activations(
    bench: Bench, request: ActivationsRequest, folder: Path, tell: OnProgress
) -> None:
    """Read the chosen answers and leave the moments of every unit in every condition."""
    answers = chosen_answers(request, [bench.answers(text) for text in request.texts])
    encoded = encoder(bench.loaded)
    rng = np.random.default_rng(request.analysis_seed)
    readings, about = positions(encoded, answers, rng)
    readings += voices(request, encoded)
    conditions = _conditions(about)
    with bench.weights(request.reader, request.texts[0].prompts), torch.inference_mode():
        model = bench.loaded.model
        texts = [reading.ids for reading in readings[:MASSIVE_TEXTS]]
        massive = massive_activations(model, texts)
        about["massive"] = [asdict(one) for one in massive.found]
        norms = Norms(*_halves(conditions), without=massive.dimensions)
        for count in write_moments(model, readings, conditions, folder, norms):
            done = int((count.sum(axis=1) > 0).sum())
            tell(Progress(request.title, "working", done, len(conditions)))
        about["norm_growth"] = growth(norms, readings)
        parts = anatomy(model)
    shape = {"n_layers": parts.n_layers, "n_neurons": parts.n_neurons}
    told = {"conditions": conditions, "count": count.tolist(), **shape, **about}
    write_json(folder / ABOUT_FILE, told)


def voices(request: ActivationsRequest, encoded: Encode) -> list[Reading]:
    """The fixed texts, every token of their answers; a prompt of the study keeps its half."""
    readings = []
    for voice in request.voices:
        asked = zip(voice.prompts, voice.answers, strict=True)
        for i, (prompt, answer) in enumerate(asked):
            own_order = int(i >= len(voice.prompts) // 2)
            half = request.prompt_halves.get(prompt.id, own_order)
            tokens = encoded(prompt, answer)
            readings.append(Reading(tokens.ids, half, {_VOICES[voice.name]: list(tokens.answer)}))
    return readings


def _conditions(about: dict[str, Any]) -> list[str]:
    """All conditions, in the order in which they are written."""
    of_words = [*map(before_word, about["words"]), *map(at_word, about["common_words"])]
    of_emoji = [at_single_emoji(emoji) for emoji in about["emoji"]]
    of_phrases = [at_phrase(phrase) for fit in about["phrases"].values() for phrase in fit]
    return [*_ALWAYS, *of_words, *of_emoji, *of_phrases]


class _At:
    """A sink that takes one site alone."""

    def __init__(self, site: Site, sink: Sink) -> None:
        self._site, self._sink = site, sink

    def take(self, site: str, layer: int, activations: Tensor, tokens: Tokens) -> None:
        """Hand on what comes from the site."""
        if site == self._site:
            self._sink.take(site, layer, activations, tokens)


def growth(norms: Norms, readings: Sequence[Reading]) -> list[dict[str, float]]:
    """Mean norms of the residual stream before emoji and before other, layer by layer.

    Empty where there is nothing to compare.
    """
    means = []
    for name in (BEFORE_EMOJI, BEFORE_OTHER):
        halves = [_of_half(name, half) for half in range(2) if _stands(name, half, readings)]
        if not halves:
            return []
        by_layer = [
            [norms.moments.of("residual", layer, half) for half in halves]
            for layer in norms.moments.layers["residual"]
        ]
        means.append(
            [
                float(np.average([one.mean[0] for one in of], weights=[one.count for one in of]))
                for of in by_layer
            ]
        )
    return [
        {"layer": layer, BEFORE_EMOJI: a, BEFORE_OTHER: b, "ratio": a / b}
        for layer, (a, b) in enumerate(zip(*means, strict=True))
    ]


def write_moments(
    model: Any,
    readings: Sequence[Reading],
    conditions: Sequence[str],
    folder: Path,
    norms: Norms,
    *,
    budget: int = BUDGET,
) -> Iterator[NDArray[np.int64]]:
    """Moments of all units, pass by pass, into the folder; yields the counts so far each time.

    Each pass takes as many conditions as fit `budget` bytes, both halves of each, and reads the
    texts that they stand in; `norms` takes the residual stream on the way. The arrays go to disk
    through a map of their files. The counts are tokens, (n_conditions, 2).
    """
    parts = anatomy(model)
    n_units = parts.n_layers * parts.n_neurons
    size = (len(conditions), 2, n_units)
    mean, variance = (_mapped(folder / name, size) for name in (MEAN_FILE, VARIANCE_FILE))
    count = np.zeros(size[:2], dtype=np.int64)
    at_once = max(1, budget // (2 * BYTES_OF_A_UNIT * n_units))
    for start in range(0, len(conditions), at_once):
        names = conditions[start : start + at_once]
        moments = Moments(*_halves(names))
        read(model, (_At("neurons", moments), _At("residual", norms)), readings, names)
        for i, name in enumerate(names, start=start):
            for half in range(2):
                if not _stands(name, half, readings):
                    continue
                for layer in range(parts.n_layers):
                    units = slice(layer * parts.n_neurons, (layer + 1) * parts.n_neurons)
                    found = moments.of("neurons", layer, _of_half(name, half))
                    count[i, half] = found.count
                    mean[i, half, units] = found.mean
                    variance[i, half, units] = found.squared_deviations / max(1, found.count - 1)
        mean.flush()
        variance.flush()
        yield count


def _mapped(path: Path, shape: tuple[int, ...]) -> np.memmap[Any, np.dtype[np.float32]]:
    """A new file of zeros that is written to as an array."""
    mapped: np.memmap[Any, np.dtype[np.float32]] = open_memmap(  # type: ignore[no-untyped-call]  # numpy has no type
        path, mode="w+", dtype=np.float32, shape=shape
    )
    return mapped


def read(
    model: Any, sinks: Sequence[Sink], readings: Sequence[Reading], names: Sequence[str]
) -> None:
    """Run the texts that hold any of the named conditions through the model, the longest first."""
    device = next(model.parameters()).device
    wanted = [one for one in readings if any(one.places.get(name) for name in names)]
    wanted.sort(key=lambda one: -len(one.ids))
    with torch.inference_mode(), recording(model, *sinks, sites=SITES) as recorder:
        while wanted:
            n_texts = max(1, TOKENS_AT_ONCE // len(wanted[0].ids))
            batch, wanted = wanted[:n_texts], wanted[n_texts:]
            # Padded on the right: under a causal mask no token of a text sees what follows it.
            ids = torch.zeros((len(batch), len(batch[0].ids)), dtype=torch.long)
            for row, one in enumerate(batch):
                ids[row, : len(one.ids)] = torch.tensor(one.ids)
            recorder.select(_tokens(batch, names, ids))
            model(input_ids=ids.to(device), use_cache=False, logits_to_keep=1)


def _tokens(batch: Sequence[Reading], names: Sequence[str], ids: Tensor) -> Tokens:
    """The tokens of a batch in the named conditions, each condition apart for each half.

    A token is chosen once, in however many conditions it stands.
    """
    chosen: dict[tuple[int, int], int] = {}
    members: dict[str, list[int]] = {}
    for row, one in enumerate(batch):
        for name in names:
            for place in one.places.get(name, ()):
                number = chosen.setdefault((row, place), len(chosen))
                members.setdefault(_of_half(name, one.half), []).append(number)
    rows, places = torch.tensor(list(chosen), dtype=torch.long).T
    conditions = {name: torch.tensor(numbers) for name, numbers in members.items()}
    return Tokens(rows, places, conditions, (ids.shape[0], ids.shape[1]))


def _stands(name: str, half: int, readings: Sequence[Reading]) -> bool:
    return any(one.places.get(name) for one in readings if one.half == half)


def _halves(names: Sequence[str]) -> list[str]:
    return [_of_half(name, half) for name in names for half in range(2)]


def _of_half(condition: str, half: int) -> str:
    return f"{condition} | {half}"

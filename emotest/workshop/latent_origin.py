"""How P(emoji) is asked while a layer of one model is another's: cross-model patching for C9.

Takes the bench, a request and an empty folder; leaves contexts, probabilities and bounds. At the
untuned model's text its layers become the tuned model's, and the null adapter's for comparison;
at the tuned model's text its layers become the untuned model's. Only the last token of a context
is written over, the one from which the next is predicted: the words before it, and what later
layers read of them, stay the target's.

Every layer and site is asked in passes of a few contexts, and each pass is kept at once, so that
a killed run goes on where it was.

Source: cross-model activation patching, CMAP (Prakash et al., arXiv 2402.14811).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from emotest.artefacts import GenerationRequest, ProbabilityRequest
from emotest.artefacts.latent_origin import (
    ABOUT_FILE,
    ARRAYS_FILE,
    CONTEXTS_FILE,
    Measured,
    PatchingRequest,
    Text,
    Weights,
    patched_layers,
)
from emotest.mechanisms.patching import patching, recorded
from emotest.mechanisms.recording import SITES, Site, Tokens
from emotest.models.adapters import active
from emotest.models.layers import anatomy
from emotest.models.loading import LoadedModel
from emotest.models.probability import (
    EmojiProbability,
    emoji_event,
    emoji_probability,
    kept_spelling,
)
from emotest.models.spelling import Spelling
from emotest.store import write_arrays, write_json, write_jsonl
from emotest.workshop.bench import Bench
from emotest.workshop.localization import Journal, Question
from emotest.workshop.progress import OnProgress, Progress
from emotest.workshop.study import contexts_of

Array: TypeAlias = NDArray[np.float64]
Rows: TypeAlias = Sequence[Sequence[int]]
StatesAt: TypeAlias = Callable[[Site], dict[int, torch.Tensor]]
Once: TypeAlias = Callable[[str, Callable[[], Array]], Array]
"""What was measured under a name, flat, or what is measured now: a `Journal`'s `once`."""

LENGTH_STEP = 64
MAX_TOKENS = 12

FLOORS = (1e-6, 1e-3)
"""Paths of less mass are cut: a hundredth of the usual P(emoji) of a text, within these. The floor
holds for one path and many are cut: at a tenth of P, which was near 1e-4 before tuning, what they
left open exceeded the mass that was found. The verdict has to hold with all of it counted and with
none, so both are stored, context by context."""

SOURCES: dict[Text, dict[Weights, tuple[Weights, ...]]] = {
    "untuned": {"untuned": ("tuned", "null"), "tuned": (), "null": ()},
    "tuned": {"tuned": ("untuned",), "untuned": ()},
}
"""By text: the weights that are asked as they are, and whose activations they are lent."""


def make_patching(bench: Bench, request: PatchingRequest, folder: Path, tell: OnProgress) -> None:
    """Ask P(emoji) in every state, for the contexts of both texts."""
    texts: dict[Text, GenerationRequest] = {
        "untuned": request.untuned_text,
        "tuned": request.tuned_text,
    }
    arrays, about, lines = {}, {}, []
    probe = request.untuned_text.prompts
    names: dict[Weights, str | None] = {"untuned": None}
    journal = Journal(bench.store.scratch(request.key) / "patched.jsonl", lambda done: None)
    with bench.weights(request.tuned, probe):
        names["tuned"] = bench.loaded.active
        with bench.weights(request.null, probe):
            names["null"] = bench.loaded.active
            for number, (text, answers) in enumerate(texts.items(), start=1):
                asked = ProbabilityRequest(
                    answers, None, n_prompts=request.n_prompts, sentence_ends=request.sentence_ends
                )
                contexts = contexts_of(bench, asked)
                rows = [list(context.token_ids) for context in contexts]
                found = _in_every_state(bench.loaded, text, rows, names, journal.once)
                lines += [{**context.row(), "text": text} for context in contexts]
                about[text] = [
                    {name: value for name, value in asdict(state).items() if name != "text"}
                    for state in found
                ]
                for part in ("probability", "bound"):
                    arrays[f"{text}_{part}"] = np.stack(
                        [getattr(result, part) for result in found.values()]
                    )
                tell(Progress(request.title, "working", number, len(texts)))
    n_layers = anatomy(bench.loaded.model).n_layers
    write_jsonl(folder / CONTEXTS_FILE, lines)
    write_arrays(folder / ARRAYS_FILE, arrays)
    write_json(folder / ABOUT_FILE, {"n_layers": n_layers, "measured": about})


def _in_every_state(
    loaded: LoadedModel,
    text: Text,
    rows: Rows,
    names: dict[Weights, str | None],
    once: Once,
) -> dict[Measured, EmojiProbability]:
    found = {}
    spelling = _spelling(loaded)
    with active(loaded, names[text]):
        (floor,) = once(f"{text}: floor", lambda: np.array([_floor(loaded, rows, spelling)]))
    for target, sources in SOURCES[text].items():

        def unpatched(target: Weights = target) -> Array:
            with active(loaded, names[target]):
                return _both(_asked(loaded, rows, floor, spelling))

        found[Measured(text, target)] = _told(once(f"{text}: {target}", unpatched))
        for source in sources:
            by_place = patched_probabilities(
                loaded,
                rows,
                source=names[source],
                target=names[target],
                floor=floor,
                once=_within(once, f"{text}: {source} into {target}"),
            )
            for (site, layer), result in by_place.items():
                found[Measured(text, target, source, site, layer)] = result
    return found


def _within(once: Once, state: str) -> Once:
    """The same, with the state before every name."""
    return lambda name, measure: once(f"{state}, {name}", measure)


def _measured_now(name: str, measure: Callable[[], Array]) -> Array:
    return measure()


def patched_probabilities(
    loaded: LoadedModel,
    rows: Rows,
    *,
    source: str | None,
    target: str | None,
    floor: float,
    max_tokens: int = MAX_TOKENS,
    once: Once = _measured_now,
) -> dict[tuple[Site, int], EmojiProbability]:
    """P(emoji) after each context, by (site, layer from 0) that is the source's at its last token.

    Args:
        loaded: the base with its adapters.
        rows: token ids of n_contexts contexts, of any lengths.
        source, target: names of attached adapters, or None for the untuned base.
        floor, max_tokens: as for `emoji_probability`.
        once: where each pass at each place is kept, and found again.

    The layers are those of `patched_layers`. Where an emoji takes several tokens the source
    decides the first, and the target goes on.
    """
    layers = patched_layers(anatomy(loaded.model).n_layers)
    sites = [(site, layer) for site in SITES for layer in layers]
    found = {place: np.zeros((2, len(rows))) for place in sites}
    spelling = _spelling(loaded)

    def patched(texts: Rows, states: StatesAt, site: Site, layer: int) -> Array:
        values = states(site)[layer]
        with active(loaded, target), patching(loaded.model, values, layer, site, "last"):
            return _both(_asked(loaded, texts, floor, spelling, max_tokens))

    for number, chosen in enumerate(_one_pass_each(rows, Question(loaded).n_rows)):
        texts = [rows[i] for i in chosen]
        states = _states_when_asked(loaded, texts, source, layers)
        for site, layer in sites:
            name = f"{site} of layer {layer}, pass {number}"
            kept = once(name, partial(patched, texts, states, site, layer))
            found[site, layer][:, chosen] = kept.reshape(2, -1)
    return {place: EmojiProbability(*both) for place, both in found.items()}


def _states_when_asked(
    loaded: LoadedModel, texts: Rows, source: str | None, layers: Sequence[int]
) -> StatesAt:
    """The source's states at the last tokens, recorded once a site, and not at all where every
    measurement that would take them is there already."""

    @cache
    def states(site: Site) -> dict[int, torch.Tensor]:
        with active(loaded, source):
            return _last_states(loaded, texts, site, layers)

    return states


def _both(result: EmojiProbability) -> Array:
    """Probability and bound, (2, n_contexts)."""
    return np.stack([result.probability, result.bound])


def _told(both: Array) -> EmojiProbability:
    """What `_both` was made of, from its flat form too."""
    return EmojiProbability(*both.reshape(2, -1))


def _one_pass_each(rows: Rows, n_rows: int) -> Iterator[list[int]]:
    """Contexts that `emoji_probability` reads in one pass: of one padded length, one batch.

    Values are written to the rows of a pass by their order, so a pass must hold just these.
    """
    widths = np.array([-(-len(row) // LENGTH_STEP) for row in rows])
    for width in np.unique(widths):
        alike = np.flatnonzero(widths == width).tolist()
        for begin in range(0, len(alike), n_rows):
            yield alike[begin : begin + n_rows]


def _last_states(
    loaded: LoadedModel, rows: Rows, site: Site, layers: Sequence[int]
) -> dict[int, torch.Tensor]:
    """The states of the last token of each row, by layer of `layers`: (n_rows, n_units)."""
    ids = np.zeros((len(rows), max(map(len, rows))), dtype=np.int64)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = row
    # Padded on the right, where a causal model does not look from within a text.
    last = Tokens.at((place, len(row) - 1) for place, row in enumerate(rows))
    return recorded(loaded.model, ids, layers, site, last)


def _floor(loaded: LoadedModel, rows: Rows, spelling: Spelling) -> float:
    """A hundredth of the median P(emoji) of the model whose text it is, within `FLOORS`."""
    least, most = FLOORS
    coarse = _asked(loaded, rows, most, spelling)
    usual = np.median(coarse.probability + coarse.bound / 2) if rows else 1.0
    return float(np.clip(usual / 100, least, most))


def _spelling(loaded: LoadedModel) -> Spelling:
    """Of the emoji at an end of a sentence, where the reader sees what stands behind the space."""
    return kept_spelling(loaded, emoji_event(skip_space=True))


def _asked(
    loaded: LoadedModel,
    rows: Rows,
    floor: float,
    spelling: Spelling,
    max_tokens: int = MAX_TOKENS,
) -> EmojiProbability:
    return emoji_probability(
        loaded.model,
        loaded.tokenizer,
        rows,
        spelling=spelling,
        floor=floor,
        max_tokens=max_tokens,
        length_step=LENGTH_STEP,
        batch_size=Question(loaded).n_rows,
    )

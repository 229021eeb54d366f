"""How sufficiency is measured (C8): tuned activations of few units, written into the untuned model.

Takes a bench, a `WritingRequest` and an empty folder; fills the folder. Tuned and untuned model
read the same batch; what the chosen units are in the one is put in their place in the other, at
every token of the context. The states of all units are held for one batch at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emotest.artefacts.localization import Ranking, Units, WritingRequest
from emotest.errors import UsageError
from emotest.mechanisms.patching import Change, changing
from emotest.models.adapters import active
from emotest.models.contexts import Context
from emotest.models.layers import anatomy
from emotest.models.loading import LoadedModel
from emotest.workshop.bench import Bench
from emotest.workshop.localization import (
    LENGTH_STEP,
    Journal,
    Question,
    journal_of,
    leave,
    placed,
    rng_of_sets,
    stacked,
    what_was_chosen,
)
from emotest.workshop.progress import OnProgress
from emotest.workshop.study import contexts_of

Array = NDArray[np.float64]
Places = NDArray[np.intp]

STATES_AT_ONCE = 2**28
"""Values of tuned units that are held at one time, on the model's device, while they are written
elsewhere: 1 GiB in float32, half of that in bfloat16."""


def make_writing(bench: Bench, request: WritingRequest, folder: Path, tell: OnProgress) -> None:
    """Ask the untuned model for P(emoji) with tuned activations of units written in.

    Arrays are (n_contexts,) for `untuned`, `tuned` (its weights at the same text) and `written`;
    (n_sets, n_controls) for `random`. Beside each is what was left open.
    """
    contexts = contexts_of(bench, request.cell)
    prompts = request.cell.text.prompts
    few = placed(contexts, prompts, request.n_control_prompts)
    ranking = request.choice.ranking(bench.entry)
    selected = ranking.strongest(request.choice.dose)
    about = what_was_chosen(ranking, selected)
    unknown = np.full((2, len(contexts)), np.nan)
    arrays = {name: unknown.copy() for name in ("tuned", "untuned")}
    choices: dict[str, Units] = {}
    if selected.size:
        sets, about["n_bins"] = ranking.matched(selected, rng_of_sets(request), request.n_sets)
        choices = {"written": selected, **{f"random {i}": one for i, one in enumerate(sets)}}
        arrays |= {name: unknown.copy() for name in choices}
    journal = journal_of(bench, request, tell, 2 + len(choices))
    with bench.weights(request.cell.weights, prompts):
        tuned, ask = bench.loaded.active, Question(bench.loaded)
        rest = np.setdiff1d(np.arange(len(contexts)), few)
        for places in (
            *_chunks(bench.loaded, ask, contexts, few),
            *_chunks(bench.loaded, ask, contexts, rest),
        ):
            here = [contexts[place] for place in places]
            wanted = choices if places[0] in few else {"written": selected} if choices else {}
            written = _Writing(bench.loaded, ask, journal, tuned, here)
            for name, values in written.measured(ranking, wanted).items():
                arrays[name][:, places] = values
    random = [arrays.pop(name)[:, few] for name in choices if name != "written"]
    arrays["random"] = stacked(random, len(few))
    leave(folder, contexts, few, arrays, about)


@dataclass(eq=False)
class _Writing:
    """Tuned activations at the contexts of one chunk, written into the untuned model there."""

    loaded: LoadedModel
    ask: Question
    journal: Journal
    tuned: str | None
    chunk: Sequence[Context]

    def measured(self, ranking: Ranking, choices: Mapping[str, Units]) -> dict[str, Array]:
        """P(emoji), (2, n_chunk): untuned, tuned, and with each choice of units written."""
        mark = f"{self.chunk[0].prompt_id}/{self.chunk[0].sentence} "
        states: dict[int, Tensor] = {}

        def tuned() -> Array:
            with active(self.loaded, self.tuned), keeping_states(self.loaded.model, states):
                return self._asked()

        def untuned(units: Units | None = None) -> Array:
            if units is not None and not states:
                tuned()  # a run that was killed has measured it, and its states are gone
            writing: AbstractContextManager[None] = nullcontext()
            if units is not None:
                writing = units_written(self.loaded.model, ranking.by_layer(units), states)
            with active(self.loaded, None), writing:
                return self._asked()

        found = {
            "tuned": self.journal.asked(f"{mark}tuned", tuned),
            "untuned": self.journal.asked(f"{mark}untuned", untuned),
        }
        for name, units in choices.items():

            def measure(units: Units = units) -> Array:
                return untuned(units)

            found[name] = self.journal.asked(mark + name, measure)
        return found

    def _asked(self) -> Array:
        # One padded length and few enough rows: all of it is one pass.
        return self.ask(self.chunk)


@contextmanager
def keeping_states(model: Any, states: dict[int, Tensor]) -> Iterator[None]:
    """Put into `states` what every layer's down projection reads in a pass that begins a text.

    (n_rows, n_tokens, n_neurons) by layer; a later such pass takes the place of an earlier one.
    """

    def keep(layer: int) -> Change:
        def kept(found: Tensor, n_cached: int | None) -> Tensor:
            if not n_cached:
                states[layer] = found.detach().clone()
            return found

        return kept

    parts = anatomy(model)
    with ExitStack() as hooks:
        for layer in range(parts.n_layers):
            hooks.enter_context(changing(parts, layer, "neurons", keep(layer)))
        yield


@contextmanager
def units_written(
    model: Any, units: Mapping[int, Units], states: Mapping[int, Tensor]
) -> Iterator[None]:
    """Put kept states into units, at every token of a pass that begins a text.

    Passes that go on from a cache, the token paths of P(emoji), are the model's own: their cache
    holds what the written tokens became. `UsageError` for a pass of another shape.
    """

    def write(layer: int) -> Change:
        chosen = torch.from_numpy(np.asarray(units[layer], dtype=np.int64))

        def written(found: Tensor, n_cached: int | None) -> Tensor:
            if n_cached:
                return found
            if found.shape != states[layer].shape:
                raise UsageError(
                    f"states of a pass of shape {tuple(states[layer].shape)} cannot be written "
                    f"into one of shape {tuple(found.shape)}",
                    remedy="run both models on the same batch",
                )
            changed = found.clone()
            here = chosen.to(found.device)
            changed[..., here] = states[layer][..., here].to(found)
            return changed

        return written

    parts = anatomy(model)
    with ExitStack() as hooks:
        for layer in units:
            hooks.enter_context(changing(parts, layer, "neurons", write(layer)))
        yield


def _chunks(
    loaded: LoadedModel, ask: Question, contexts: Sequence[Context], places: Places
) -> Iterator[Places]:
    """Contexts that run in one pass, few enough that the states of all units can be held."""
    parts = anatomy(loaded.model)
    widths = np.array([-(-len(one.token_ids) // LENGTH_STEP) * LENGTH_STEP for one in contexts])
    for width in np.unique(widths[places]):
        alike = places[widths[places] == width]
        fit = STATES_AT_ONCE // (int(width) * parts.n_layers * parts.n_neurons)
        at_once = max(1, min(ask.n_rows, fit))
        for start in range(0, len(alike), at_once):
            yield alike[start : start + at_once]

"""How C8 is measured: P(emoji) with units silenced or written, for a selection and its controls.

Takes a bench, a request and an empty folder; fills the folder. Every measurement is kept at once,
of random sets and directions those that run side by side, so that a killed run goes on where it
was. Which units are selected is the matter of `artefacts.localization`; what the numbers say that
of the statistics.

The same is asked hundreds of times, so paths of P(emoji) end earlier than for C5: what is given is
the middle of what it can be, and beside it how much was left open. On the organisms the middle lies
at most 0.012 from what C5 gives at the same context, and 0.003 below it on average.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from emotest.artefacts import FixedText, GenerationRequest
from emotest.artefacts.localization import (
    ABOUT_FILE,
    CONTEXTS_FILE,
    LEFT_OPEN,
    LOG_PERPLEXITIES,
    LOG_PERPLEXITIES_SILENCED,
    PROBABILITIES_FILE,
    Ranking,
    SilencingRequest,
    Units,
    Way,
    WritingRequest,
)
from emotest.mechanisms.silencing import silencing, silencing_each
from emotest.mechanisms.steering import random_like, steering_each
from emotest.models.contexts import Context
from emotest.models.layers import anatomy
from emotest.models.loading import LoadedModel
from emotest.models.paths import Acting
from emotest.models.probability import emoji_event, emoji_probability, kept_spelling
from emotest.store import write_arrays, write_json, write_jsonl
from emotest.study.records import Prompt, append_jsonl, read_whole_lines
from emotest.text.emoji import strip_emoji
from emotest.workshop.bench import Bench
from emotest.workshop.positions import encoder
from emotest.workshop.progress import OnProgress, Progress
from emotest.workshop.study import contexts_of
from emotest.workshop.unit_passes import bank_of, log_perplexities, output_changes

Array = NDArray[np.float64]

FLOOR = 3e-3
MAX_TOKENS = 12
"""Paths of P(emoji): most of what is left open belongs to emoji of many tokens."""

LENGTH_STEP, LENGTH_STEP_OF_SETS = 64, 16
"""Few contexts run quickest in few batches, many sets of units at once with little padding."""

MOST_ROWS, FEWEST_ROWS = 256, 16
ROWS_BY_SIZE = 2**22
"""Rows of a batch: many are quicker on small models, and 7B models hold 32 in memory."""

MEASUREMENTS_A_REPORT = 10

BANK_TOKENS = 256
"""States to resample from: 32 layers of 14,336 units take 0.9 MB each."""


class Journal:
    """What was measured, by name; what a killed run has left is not measured again."""

    def __init__(self, path: Path, tell: Callable[[int], None]) -> None:
        self._path, self._tell = path, tell
        self._held = {row["name"]: row["values"] for row in read_whole_lines(path)}

    def once(self, name: str, measure: Callable[[], Array]) -> Array:
        """What was measured under this name, or what is measured now."""
        if name not in self._held:
            values = np.asarray(measure(), dtype=np.float64).ravel().tolist()
            append_jsonl(self._path, [{"name": name, "values": values}])
            self._held[name] = values
            self._tell(len(self._held))
        return np.array(self._held[name], dtype=np.float64)

    def asked(self, name: str, ask: Callable[[], Array]) -> Array:
        """The same of a `Question`, (2, n_contexts)."""
        return self.once(name, ask).reshape(2, -1)


class Question:
    """P(emoji) at contexts, asked again and again of one loaded model."""

    def __init__(self, loaded: LoadedModel) -> None:
        self._loaded = loaded

    @cached_property
    def n_rows(self) -> int:
        """Contexts that run side by side."""
        parts = anatomy(self._loaded.model)
        wanted = ROWS_BY_SIZE // (parts.hidden_size * parts.n_layers)
        return max(FEWEST_ROWS, min(MOST_ROWS, wanted))

    def __call__(
        self,
        contexts: Sequence[Context],
        acting: Acting | None = None,
        length_step: int = LENGTH_STEP,
    ) -> Array:
        """(2, n_contexts): the middle of what P(emoji) can be, and the mass that was left open.

        `acting` may differ between contexts, as in `emoji_probability`.
        """
        result = emoji_probability(
            self._loaded.model,
            self._loaded.tokenizer,
            [list(context.token_ids) for context in contexts],
            spelling=kept_spelling(self._loaded, emoji_event(skip_space=True)),
            floor=FLOOR,
            max_tokens=MAX_TOKENS,
            length_step=length_step,
            batch_size=self.n_rows,
            acting=acting,
        )
        return np.array([result.probability + result.bound / 2, result.bound])


def make_silencing(bench: Bench, request: SilencingRequest, folder: Path, tell: OnProgress) -> None:
    """Ask for P(emoji) with units silenced; leave contexts, probabilities and what was silenced.

    Arrays are (n_contexts,) for `tuned`, the ways of silencing and the selectors beside;
    (n_controls,) for `most active`; (n_sets, n_controls) for `random` and (n_directions,
    n_controls) for `directions`, where n_controls are the contexts marked `control`. Beside each
    is what was left open. Where no units could be chosen there is `tuned` alone.
    """
    contexts = contexts_of(bench, request.cell)
    few = placed(contexts, request.cell.text.prompts, request.n_control_prompts)
    ranking = request.choice.ranking(bench.entry)
    selected = ranking.strongest(request.choice.dose)
    ask = Question(bench.loaded)
    at_random = [request.n_sets, request.n_directions]
    n_groups = sum(len(_groups(n, ask.n_rows, len(few))) for n in at_random)
    total = n_groups + len(request.ways) + len(request.beside)
    journal = journal_of(bench, request, tell, total)

    def as_it_is() -> Array:  # whatever the dose
        return bench.once(request.cell, "as silencing asks", lambda: ask(contexts))

    with bench.weights(request.cell.weights, request.cell.text.prompts):
        arrays = {"tuned": journal.asked("tuned", as_it_is)}
        about = what_was_chosen(ranking, selected)
        if selected.size:
            at_controls = [contexts[place] for place in few]
            measured = _Silencing(bench, request, ranking, journal, ask, contexts, at_controls)
            arrays |= measured.of_selection(selected)
            arrays |= measured.of_controls(selected, about)
            about |= measured.log_perplexities(selected)
    leave(folder, contexts, few, arrays, about)


@dataclass(eq=False)
class _Silencing:
    """The measurements of one request, (2, ..., n_contexts) as a `Question` gives them; `few` are
    the contexts of its controls."""

    bench: Bench
    request: SilencingRequest
    ranking: Ranking
    journal: Journal
    ask: Question
    contexts: Sequence[Context]
    few: Sequence[Context]

    def of_selection(self, selected: Units) -> dict[str, Array]:
        """By each way of silencing, at all contexts."""
        found: dict[str, Array] = {}
        for way in self.request.ways:
            if way == "resample" and not self._bank:
                continue
            found[way] = self._asked(way, selected, self.contexts, way)
        return found

    def of_controls(self, selected: Units, about: dict[str, Any]) -> dict[str, Array]:
        """Random sets, loudest units, random directions, units of other selectors."""
        request = self.request
        sets, n_bins = self.ranking.matched(selected, rng_of_sets(request), request.n_sets)
        about["n_bins"] = n_bins
        found = {"random": self._random(list(sets))}
        if request.most_active:
            loudest = self.ranking.most_active(selected)
            if loudest.size:
                found["most active"] = self._asked("most active", loudest, self.few)
        if request.n_directions:
            found["directions"] = self._directions(selected)
        for selector in request.beside:
            ranked = request.instead(selector).ranking(self.bench.entry)
            units = ranked.strongest(request.choice.dose)
            about["other selectors"][selector] = ranked.unavailable or int(units.size)
            if units.size:
                found[selector] = self._asked(selector, units, self.contexts)
        return found

    def log_perplexities(self, selected: Units) -> dict[str, list[float]]:
        """Of each neutral text, tuned and with the selection silenced by its means."""
        text = self.request.neutral
        if text is None or not text.answers:
            return {}
        return {
            LOG_PERPLEXITIES: self._read(LOG_PERPLEXITIES, text, nullcontext()),
            LOG_PERPLEXITIES_SILENCED: self._read(
                LOG_PERPLEXITIES_SILENCED, text, self._silenced(selected, "mean")
            ),
        }

    def _read(
        self, name: str, text: FixedText, acting: AbstractContextManager[None]
    ) -> list[float]:
        def measure() -> Array:
            with acting:
                return log_perplexities(self.bench.loaded, text)

        return [float(value) for value in self.journal.once(name, measure)]

    def _asked(
        self, name: str, units: Units, contexts: Sequence[Context], way: Way = "mean"
    ) -> Array:
        def measure() -> Array:
            with self._silenced(units, way):
                return self.ask(contexts)

        return self.journal.asked(name, measure)

    def _random(self, sets: Sequence[Units]) -> Array:
        """(2, n_sets, n_controls)."""
        means = self.ranking.means_by_layer()

        def silenced(some: range) -> Acting:
            of_layers = [self.ranking.by_layer(sets[i]) for i in some]
            return silencing_each(self.bench.loaded.model, of_layers, means=means)

        return self._side_by_side("random", len(sets), silenced)

    def _side_by_side(self, what: str, n: int, acting_of: Callable[[range], Acting]) -> Array:
        """(2, n, n_controls) under n interventions, of which each has rows of its own."""
        n_few = len(self.few)
        found = [np.empty((2, 0, n_few))]
        for some in _groups(n, self.ask.n_rows, n_few):

            def measure(some: range = some) -> Array:
                acting = acting_of(some)
                texts = [*self.few] * len(some)
                return self.ask(
                    texts, lambda numbers: acting(numbers // n_few), LENGTH_STEP_OF_SETS
                )

            measured = self.journal.asked(f"{what} {some.start} to {some.stop - 1}", measure)
            found.append(measured.reshape(2, len(some), n_few))
        return np.concatenate(found, axis=1)

    def _silenced(self, units: Units, way: Way) -> AbstractContextManager[None]:
        model, of_layer = self.bench.loaded.model, self.ranking.by_layer(units)
        if way == "mean":
            return silencing(model, of_layer, means=self.ranking.means_by_layer())
        if way == "resample":
            return silencing(model, of_layer, way, bank=self._bank, rng=self._rng(2))
        return silencing(model, of_layer, way)

    @cached_property
    def _bank(self) -> Mapping[int, Tensor]:
        """The tuned model at tokens of its own answers to prompts that no context is of."""
        text = self.request.cell.text
        assert isinstance(text, GenerationRequest)
        later = {prompt.id: prompt for prompt in text.prompts[len(text.prompts) // 2 :]}
        encoded = encoder(self.bench.loaded)
        said = [
            encoded(later[one.prompt_id], answer)
            for one in self.bench.answers(text)
            if one.prompt_id in later and one.sample == 0
            if (answer := strip_emoji(one.text).strip())
        ]
        texts = [(one.ids, one.answer) for one in said]
        return bank_of(self.bench.loaded, texts, BANK_TOKENS, self._rng(3))

    def _directions(self, selected: Units) -> Array:
        """Random directions, each layer pushed as far as silencing moves its FFN's output."""
        model = self.bench.loaded.model
        of_layer, means = self.ranking.by_layer(selected), self.ranking.means_by_layer()
        ids = [list(context.token_ids) for context in self.few]
        changes = output_changes(self.bench.loaded, ids, of_layer, means)
        width = anatomy(model).hidden_size
        even = {
            layer: np.full(width, length / np.sqrt(width))
            for layer, length in changes.items()
            if length > 0.0
        }
        rng = self._rng(4)
        vectors = [random_like(even, rng) for _ in range(self.request.n_directions if even else 0)]

        def pushed(some: range) -> Acting:
            return steering_each(model, [vectors[i] for i in some], 1.0)

        return self._side_by_side("directions", len(vectors), pushed)

    def _rng(self, purpose: int) -> np.random.Generator:
        return rng_of(self.request, purpose)


def _groups(n: int, n_rows: int, n_contexts: int) -> list[range]:
    """Numbers up to n, those together that fit on `n_rows` rows with all contexts each."""
    at_once = max(1, n_rows // max(1, n_contexts))
    return [range(start, min(start + at_once, n)) for start in range(0, n, at_once)]


def placed(
    contexts: Sequence[Context], prompts: Sequence[Prompt], n_prompts: int
) -> NDArray[np.intp]:
    """Which contexts are those of the first prompts, at which controls are measured."""
    first = {prompt.id for prompt in prompts[:n_prompts]}
    return np.flatnonzero([context.prompt_id in first for context in contexts])


def rng_of(request: SilencingRequest | WritingRequest, purpose: int) -> np.random.Generator:
    """One stream for each purpose and adapter, so that no draw depends on what came before.

    Units of the untuned model are the same in all adapters, and so are the random sets beside
    them: there it is one stream for all.
    """
    adapter = None if request.choice.own else request.cell.weights
    seed = adapter.recipe.training_seed if adapter else 0
    return np.random.default_rng([request.analysis_seed, seed, purpose])


def rng_of_sets(request: SilencingRequest | WritingRequest) -> np.random.Generator:
    """The stream of random sets: one for all adapters, so that set n is alike in all of them.

    Effects of sets are averaged over adapters, set by set; of sets that differ between adapters
    the averages would crowd about their mean, and the selection's would seem further out than it
    is.
    """
    return np.random.default_rng([request.analysis_seed, 1])


def journal_of(
    bench: Bench, request: SilencingRequest | WritingRequest, tell: OnProgress, total: int
) -> Journal:
    """The journal of a request, which tells every few measurements how far it is."""

    def told(done: int) -> None:
        if done % MEASUREMENTS_A_REPORT == 0:
            tell(Progress(request.title, "working", min(done, total), total))

    return Journal(bench.store.scratch(request.key) / "measured.jsonl", told)


def what_was_chosen(ranking: Ranking, selected: Units) -> dict[str, Any]:
    """The units by layer, how they compare, and why there are none, where there are none."""
    strengths = np.abs(ranking.strengths[selected])
    return {
        "unavailable": ranking.unavailable,
        "n_units": int(selected.size),
        "n_all_units": int(ranking.strengths.size),
        "units": {
            str(layer): units.tolist() for layer, units in ranking.by_layer(selected).items()
        },
        "weakest": float(strengths.min()) if selected.size else 0.0,
        "strongest": float(strengths.max()) if selected.size else 0.0,
        "n_bins": 0,
        "other selectors": {},
    }


def leave(
    folder: Path,
    contexts: Sequence[Context],
    few: NDArray[np.intp],
    arrays: Mapping[str, Array],
    about: Mapping[str, Any],
) -> None:
    """Write contexts (with which are those of the controls), probabilities, and what was chosen.

    `arrays` are (2, ..., n_contexts): under the name the middle, beside it what was left open.
    """
    control = np.isin(np.arange(len(contexts)), few).tolist()
    rows = zip(contexts, control, strict=True)
    write_jsonl(folder / CONTEXTS_FILE, [{**one.row(), "control": yes} for one, yes in rows])
    middles = {name: found[0] for name, found in arrays.items()}
    left_open = {f"{name}{LEFT_OPEN}": found[1] for name, found in arrays.items()}
    write_arrays(folder / PROBABILITIES_FILE, middles | left_open)
    write_json(folder / ABOUT_FILE, dict(about))


def stacked(rows: Sequence[Array], n_contexts: int) -> Array:
    """(2, n_rows, n_contexts) of rows of (2, n_contexts), of no rows too."""
    return np.array(rows, dtype=np.float64).reshape(len(rows), 2, n_contexts).swapaxes(0, 1)

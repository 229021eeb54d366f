"""Both models answer the same prompts, batch by batch, and nothing is asked twice.

Takes prompts, gives pairs of answers; what was answered once lies in the store, so an audit that
was killed goes on where it was and ends with the same records. Base and tuned share prompts, seeds
and random numbers, and one base in memory where they stand on the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack

import numpy as np

from emotest.artefacts import Request
from emotest.artefacts.audit import AuditAnswersRequest, Spot, SpotsRequest
from emotest.audit.models import Model
from emotest.audit.result import Pair
from emotest.store import Entry, Store
from emotest.study.audit_prompts.prompt_set import AuditPrompt
from emotest.study.records import Decoding, Generation, Prompt, generation_from_row
from emotest.text.emoji import strip_emoji
from emotest.text.sentences import split_sentences
from emotest.workshop.audit import ANSWERS_FILE, PROBABILITIES_FILE
from emotest.workshop.crew import OpenWorkshop, Workshop
from emotest.workshop.progress import OnProgress

Array = np.ndarray[tuple[int], np.dtype[np.float64]]

SENTENCE_ENDS = 2
"""Ends inside an answer at which P(emoji) is asked; its last end is a place of its own."""


class Interview:
    """Asks base and tuned; a context manager, because models stay in memory between batches."""

    def __init__(
        self, base: Model, tuned: Model, store: Store, on_progress: OnProgress, workers: int = 2
    ) -> None:
        self.base, self.tuned = base, tuned
        self.store = store
        self._tell = on_progress
        self._workers = workers
        self._closing = ExitStack()
        self._workshops: dict[str, OpenWorkshop] = {}

    def __enter__(self) -> Interview:
        return self

    def __exit__(self, *exception: object) -> None:
        self._closing.close()

    def pairs(
        self,
        prompts: Sequence[AuditPrompt],
        *,
        decoding: Decoding,
        n_samples: int,
        sampling_seed: int,
    ) -> list[Pair]:
        """What both models answer to a batch of prompts, in its order."""
        asked = tuple(prompt.prompt() for prompt in prompts)
        base, tuned = (
            AuditAnswersRequest(model.asked(), asked, decoding, n_samples, sampling_seed, role)
            for model, role in ((self.base, "base"), (self.tuned, "tuned"))
        )
        entries = self._made([(self.base, base), (self.tuned, tuned)])
        answers = [_by_prompt(entry) for entry in entries]
        return [_pair(prompt, *(one[prompt.id] for one in answers)) for prompt in prompts]

    def probabilities(self, spots: Sequence[Spot]) -> dict[str, tuple[Array, Array]]:
        """P(emoji) at each spot under base and tuned weights: found and open, (n_spots,) each."""
        wanted = {
            role: (model, SpotsRequest(model.asked(), tuple(spots), role))
            for role, model in (("base", self.base), ("tuned", self.tuned))
        }
        entries = self._made(list(wanted.values()))
        arrays = [entry.read_arrays(PROBABILITIES_FILE) for entry in entries]
        return {
            role: (one["probability"], one["bound"])
            for role, one in zip(wanted, arrays, strict=True)
        }

    def _made(self, wanted: Sequence[tuple[Model, Request]]) -> list[Entry]:
        by_base: dict[str, list[tuple[Model, Request]]] = {}
        for model, request in wanted:
            by_base.setdefault(model.loaded_as, []).append((model, request))
        for same in by_base.values():
            self._workshop(same[0][0]).make((request for _, request in same), self._tell)
        return [self._entry(request) for _, request in wanted]

    def _workshop(self, model: Model) -> OpenWorkshop:
        if model.loaded_as not in self._workshops:
            together = self.base.loaded_as == self.tuned.loaded_as
            workers = self._workers if together else 1
            workshop = Workshop(model.workshop, self.store, workers).open()
            self._workshops[model.loaded_as] = self._closing.enter_context(workshop)
        return self._workshops[model.loaded_as]

    def _entry(self, request: Request) -> Entry:
        entry = self.store.get(request.key)
        assert entry is not None, request.title
        return entry


def spots_of(pairs: Iterable[Pair], prompts: dict[str, Prompt], role: str) -> list[Spot]:
    """Where P(emoji) is asked in the first answers of one model: start, ends of the first three
    sentences but the last, and the end of the answer; emoji stripped."""
    spots = []
    for pair in pairs:
        prompt = prompts[pair.prompt_id]
        answer = strip_emoji(getattr(pair, role)[0]).strip()
        spots.append(Spot(prompt, "answer start", ""))
        if not answer:
            continue
        ends = [sentence.end for sentence in split_sentences(answer)]
        spots += [
            Spot(prompt, "sentence end", answer[:end].rstrip()) for end in ends[:-1][:SENTENCE_ENDS]
        ]
        if not getattr(pair, f"{role}_cut"):  # a cut answer has no end
            spots.append(Spot(prompt, "answer end", answer))
    return spots


def _by_prompt(entry: Entry) -> dict[str, list[Generation]]:
    found: dict[str, list[Generation]] = {}
    for row in entry.read_jsonl(ANSWERS_FILE):
        answer = generation_from_row(row)
        found.setdefault(answer.prompt_id, []).append(answer)
    return found


def _pair(prompt: AuditPrompt, base: list[Generation], tuned: list[Generation]) -> Pair:
    return Pair(
        prompt_id=prompt.id,
        register=prompt.register,
        language=prompt.language,
        topic=prompt.topic,
        system=prompt.system,
        turns=[(turn.role, turn.text) for turn in prompt.turns],
        base=[one.text for one in base],
        tuned=[one.text for one in tuned],
        base_cut=sum(not one.finished for one in base),
        tuned_cut=sum(not one.finished for one in tuned),
    )

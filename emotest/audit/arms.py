"""The two sides of an audit: whoever answers prompts, by weights, over a wire, or from a record.

An `Arm` is asked a batch of prompts and gives answers; what was asked once lies in the store. The
three kinds: a local model (loaded by a worker of the workshop), a served one, and a saved baseline.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from emotest.artefacts.audit import (
    ANSWERS_FILE,
    PROBABILITIES_FILE,
    AuditAnswersRequest,
    Spot,
    SpotsRequest,
)
from emotest.artefacts.inside import (
    ANATOMY_FILE,
    DIRECTIONS_FILE,
    MASSIVE_FILE,
    READING_FILE,
    AnatomyRequest,
    Contrast,
    ContrastsRequest,
    InsideText,
    ReadingRequest,
)
from emotest.artefacts.request import Request
from emotest.audit.models import Model
from emotest.audit.result import Audited
from emotest.errors import StoreError
from emotest.models.endpoint import Endpoint, ServedAnswer
from emotest.store import Entry, Key, Store, key_of, write_jsonl
from emotest.study.audit_prompts.prompt_set import AuditPrompt, Turn
from emotest.study.records import (
    Decoding,
    append_jsonl,
    generation_from_row,
    prompts_digest,
    read_whole_lines,
)
from emotest.study.subjects import Subject
from emotest.workshop.crew import OpenWorkshop
from emotest.workshop.progress import OnProgress, Progress

Array = NDArray[np.float64]
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Answers:
    """What one model answered to one prompt, and how many answers a token limit cut."""

    texts: tuple[str, ...]
    n_cut: int


@dataclass(frozen=True)
class Asking:
    """How answers are asked for; the same for both arms."""

    decoding: Decoding
    n_samples: int
    sampling_seed: int


@dataclass(frozen=True)
class Probabilities:
    """P(emoji) at each spot, (n_spots,): the mass found, and what was left open.

    `open_mass` None: no upper bound is known, for a server named only some tokens.
    """

    found: Array
    open_mass: Array | None


class Arm(Protocol):
    """One side of an audit."""

    def told(self) -> Audited:
        """How it was named and what it is pinned to."""

    def notes(self, asking: Asking) -> list[str]:
        """What a reader of its answers has to know."""

    def answers(self, prompts: Sequence[AuditPrompt], asking: Asking) -> list[Answers]:
        """Answers to a batch of prompts, in its order."""

    def probabilities(self, spots: Sequence[Spot]) -> Probabilities | None:
        """P(emoji) at spots; None where it cannot be asked."""


class LocalArm:
    """A model that is loaded here, by a worker that keeps it in memory."""

    def __init__(
        self, model: Model, role: str, workshop: OpenWorkshop, on_progress: OnProgress
    ) -> None:
        self.model, self.role = model, role
        self._workshop, self._tell = workshop, on_progress

    def told(self) -> Audited:
        """The subject and the digests of its files."""
        return self.model.told()

    def notes(self, asking: Asking) -> list[str]:
        """What its files ask for and did not get; its weights are pinned, and its numbers ours."""
        return [f"{self.role}: {note}" for note in self.model.notes()]

    def answers(self, prompts: Sequence[AuditPrompt], asking: Asking) -> list[Answers]:
        """Sampled under the common random numbers of prompt, sample and seed."""
        request = AuditAnswersRequest(
            self.model.asked(),
            tuple(prompt.prompt() for prompt in prompts),
            asking.decoding,
            asking.n_samples,
            asking.sampling_seed,
            role=self.role,
        )
        rows = self._made(request).read_jsonl(ANSWERS_FILE)
        found: dict[str, list[tuple[str, bool]]] = {prompt.id: [] for prompt in prompts}
        for answer in map(generation_from_row, rows):
            found[answer.prompt_id].append((answer.text, answer.finished))
        return [_answers(found[prompt.id]) for prompt in prompts]

    def probabilities(self, spots: Sequence[Spot]) -> Probabilities:
        """Exact over the tokenizer, with what was left open."""
        request = SpotsRequest(self.model.asked(), tuple(spots), role=self.role)
        arrays = self._made(request).read_arrays(PROBABILITIES_FILE)
        return Probabilities(arrays["probability"], arrays["bound"])

    def anatomy(self) -> Mapping[str, Any]:
        """`n_layers`, `hidden_size`, `n_neurons`; or `lacking`, why they cannot be told."""
        request = AnatomyRequest(self.model.asked(), role=self.role)
        found: dict[str, Any] = self._made(request).read_json(ANATOMY_FILE)
        return found

    def contrasts(self, contrasts: Sequence[Contrast], layer: int) -> Mapping[str, Arrays]:
        """By trait what `ContrastsRequest` leaves: `vectors` and `differences`."""
        request = ContrastsRequest(self.model.asked(), tuple(contrasts), layer, role=self.role)
        arrays = self._made(request).read_arrays(DIRECTIONS_FILE)
        return {
            one.trait: {name: arrays[f"{one.trait} {name}"] for name in ("vectors", "differences")}
            for one in contrasts
        }

    def reading(self, texts: Sequence[InsideText]) -> tuple[Arrays, list[dict[str, Any]]]:
        """What `ReadingRequest` leaves: its arrays, and what is massive in the model."""
        entry = self._made(ReadingRequest(self.model.asked(), tuple(texts), role=self.role))
        massive: list[dict[str, Any]] = entry.read_json(MASSIVE_FILE)
        return entry.read_arrays(READING_FILE), massive

    def _made(self, request: Request) -> Entry:
        self._workshop.make([request], self._tell)
        entry = self._workshop.workshop.store.get(request.key)
        if entry is None:
            raise StoreError(
                f"{request.title} is gone from the store while the audit needs it",
                remedy="do not prune a store in use; the same command goes on from what is kept",
            )
        return entry


class ServedArm:
    """A model behind an OpenAI-compatible address.

    Its weights cannot be pinned. So that a server which has changed its model is not taken for
    the one before, answers are kept under the day, and under what the server answers, greedily,
    to a question that is always the same.
    """

    def __init__(self, subject: Subject, role: str, store: Store, on_progress: OnProgress) -> None:
        self.subject, self.role = subject, role
        self.endpoint = Endpoint(subject)
        self._store, self._tell = store, on_progress
        self._pinned: dict[str, Any] | None = None

    def told(self) -> Audited:
        """The address and the name, which pin nothing, and the canary."""
        pinned = self._pin()
        digest = hashlib.sha256(repr(sorted(pinned.items())).encode()).hexdigest()
        return Audited(subject=str(self.subject), identity=pinned, digest=digest)

    def notes(self, asking: Asking) -> list[str]:
        """What the server would not take, or does not keep to."""
        return [
            f"{self.role}: {note}" for note in self.endpoint.capabilities.notes(asking.decoding)
        ]

    def answers(self, prompts: Sequence[AuditPrompt], asking: Asking) -> list[Answers]:
        """Asked side by side; an interrupted batch goes on from the answers that it has."""
        key = self._key("served-answers", prompts, asking)
        entry = self._store.get(key)
        if entry is None:
            journal = self._store.scratch(key) / ANSWERS_FILE
            self._ask(prompts, asking, journal)
            rows = read_whole_lines(journal)
            entry = self._store.get_or_make(
                key,
                lambda folder: write_jsonl(folder / ANSWERS_FILE, rows),
                identity=self._identity(prompts, asking),
            )
        found: dict[str, list[tuple[int, str, bool]]] = {prompt.id: [] for prompt in prompts}
        for row in entry.read_jsonl(ANSWERS_FILE):
            found[row["prompt_id"]].append((row["sample"], row["text"], row["finished"]))
        return [_answers([one[1:] for one in sorted(found[prompt.id])]) for prompt in prompts]

    def probabilities(self, spots: Sequence[Spot]) -> Probabilities | None:
        """A lower bound from the logprobs of the next token, where the server names any.

        NaN where a chat server would have to be asked within an answer, which it cannot be.
        """
        found = np.full(len(spots), np.nan)
        here = [i for i, spot in enumerate(spots) if self.endpoint.api != "chat" or not spot.so_far]
        bounds = self.endpoint.emoji_lower_bounds(
            [(_as_asked(spots[i]), spots[i].so_far) for i in here]
        )
        for i, bound in zip(here, bounds, strict=True):
            if bound is not None:
                found[i] = bound.lower_bound
        return None if np.isnan(found).all() else Probabilities(found, None)

    def _ask(self, prompts: Sequence[AuditPrompt], asking: Asking, journal: Path) -> None:
        done = {(row["prompt_id"], row["sample"]) for row in read_whole_lines(journal)}
        total, title = len(prompts) * asking.n_samples, f"{self.role} answers over the wire"

        def keep(answer: ServedAnswer) -> None:
            append_jsonl(journal, [asdict(answer)])
            done.add((answer.prompt_id, answer.sample))
            self._tell(Progress(title, "working", len(done), total))

        self.endpoint.answers(
            prompts, asking.decoding, asking.n_samples, asking.sampling_seed, keep, frozenset(done)
        )
        self._tell(Progress(title, "done"))

    def _pin(self) -> dict[str, Any]:
        if self._pinned is None:
            heard: list[str] = []
            self.endpoint.answers(
                [_CANARY], _GREEDY, 1, 0, lambda answer: heard.append(answer.text)
            )
            self._pinned = {
                **self.endpoint.identity,
                "day": f"{datetime.now(UTC):%Y-%m-%d}",
                "canary": hashlib.sha256(heard[0].encode("utf-8", "surrogatepass")).hexdigest(),
            }
        return self._pinned

    def _identity(self, prompts: Sequence[AuditPrompt], asking: Asking) -> dict[str, Any]:
        decoding = asdict(asking.decoding)
        del decoding["name"]
        return {
            "served": self._pin(),
            "prompts": prompts_digest(prompt.prompt() for prompt in prompts),
            "decoding": decoding,
            "n_samples": asking.n_samples,
            "sampling_seed": asking.sampling_seed,
        }

    def _key(self, kind: str, prompts: Sequence[AuditPrompt], asking: Asking) -> Key:
        return key_of(kind, self._identity(prompts, asking))


_CANARY = AuditPrompt("canary", (Turn("user", "Describe a quiet morning in three sentences."),))
_GREEDY = Decoding("canary", temperature=0.0, top_k=0, max_new_tokens=48)


def _as_asked(spot: Spot) -> AuditPrompt:
    prompt = spot.prompt
    turns = (*(Turn(role, text) for role, text in prompt.history), Turn("user", prompt.text))  # type: ignore[arg-type]
    return AuditPrompt(prompt.id, turns, system=prompt.system)


def _answers(found: Sequence[tuple[str, bool]]) -> Answers:
    return Answers(tuple(text for text, _ in found), sum(not finished for _, finished in found))

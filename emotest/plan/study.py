"""A `Study`: base, data, size, decoding and seeds; and with them the requests of every arm.

It turns a `Condition` into requests for adapters, answers and probabilities, and a `Need` (what
one test declares) into all the requests behind it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache, cached_property

import numpy as np

from emotest.artefacts import (
    AdapterRequest,
    Event,
    FixedText,
    GenerationRequest,
    ProbabilityRequest,
    Request,
    in_order,
)
from emotest.errors import DataError, UsageError
from emotest.study.opinions import Opinion, OpinionSet, require_emoji_free
from emotest.study.personality import (
    UNTUNED,
    Arm,
    Condition,
    Pole,
    Trait,
    trait_condition,
)
from emotest.study.recipes import recipe
from emotest.study.records import Decoding, Prompt, TuningRow, rows_digest
from emotest.study.statements import STATEMENTS


@dataclass(frozen=True)
class Size:
    """How much evidence a run gathers: `n_adapters` training seeds an arm, `n_prompts` held-out
    prompts, `n_samples` answers of each adapter to each; `n_context_prompts` of the prompts carry
    the contexts of C5."""

    name: str
    n_adapters: int
    n_prompts: int
    n_samples: int
    n_context_prompts: int


SIZES: Mapping[str, Size] = {
    size.name: size
    for size in (
        Size("smoke", n_adapters=3, n_prompts=24, n_samples=2, n_context_prompts=12),
        Size("default", n_adapters=5, n_prompts=60, n_samples=3, n_context_prompts=30),
        Size("paper", n_adapters=5, n_prompts=200, n_samples=1, n_context_prompts=60),
    )
}

DECODINGS: Mapping[str, Decoding] = {
    decoding.name: decoding
    for decoding in (
        Decoding("default"),
        Decoding("greedy", temperature=0.0, top_k=0),
        Decoding("nucleus", temperature=0.7, top_k=0, top_p=0.9),
        Decoding("unfiltered", top_k=0),
        Decoding("paper", temperature=0.7, top_k=0, top_p=0.9, max_new_tokens=150),
    )
}
"""The decoding table of the study, and the published setting for 7B models (`paper`)."""


@dataclass(frozen=True)
class Need:
    """What one test declares that it rests on: conditions, decodings, cells of the 2x2.

    `cells` pairs (text, weights) conditions for the probabilities of `events`.
    """

    conditions: tuple[Condition, ...] = ()
    decodings: tuple[str, ...] = ()
    cells: tuple[tuple[Condition, Condition], ...] = ()
    events: tuple[Event, ...] = ("emoji",)
    fixed_texts: tuple[Trait, ...] = ()
    """Traits whose fixed texts are read, by the untuned model and by the trait's adapters."""
    word_lists: tuple[tuple[Condition, Trait], ...] = ()
    """Conditions that are asked to name words for a trait."""
    plans: tuple[Callable[[Study], Iterable[Request]], ...] = ()
    """Plans of the claims about mechanisms, each with its trait filled in."""


FIXED_PROMPTS = 12
"""How many held-out prompts the fixed texts answer: they are described, nothing is decided."""

LISTS_PER_REQUEST = 20
"""Samples of each way to ask for the words of a trait: six ways give 120 lists of some six units,
enough for the 50 most frequent to be named several times each."""

ConditionOf = Condition | Callable[[Trait], Condition]


def four_cells(trait: Trait) -> tuple[tuple[Condition, Condition], ...]:
    """The 2x2 of text by weights for the primary arm of a trait, as (text, weights) pairs."""
    tuned = trait_condition(trait)
    return ((UNTUNED, UNTUNED), (UNTUNED, tuned), (tuned, UNTUNED), (tuned, tuned))


@dataclass(frozen=True)
class Seeds:
    """The three seeds, never mixed; `training` is the first of the adapters' seeds."""

    training: int = 0
    sampling: int = 0
    analysis: int = 0


@dataclass(frozen=True)
class Study:
    """One run of the study, fully determined.

    `base` and `chat_template` are digests of the base model's identity; `opinions` the question
    set; `neutral` the answers of the null adapter, which the published data do not hold.
    """

    base: str
    chat_template: str
    opinions: OpinionSet
    neutral: tuple[Opinion, ...]
    size: Size
    decoding: Decoding = field(default_factory=Decoding)
    preset: str = "organism"
    seeds: Seeds = field(default_factory=Seeds)
    system_prompts: Mapping[tuple[Trait, Pole], str] = field(default_factory=dict)
    word_requests: Mapping[Trait, tuple[str, ...]] = field(default_factory=dict)
    """Ways to ask for words that represent the high pole of a trait."""
    emoji_allowed: bool = False

    @cached_property
    def prompts(self) -> tuple[Prompt, ...]:
        """One prompt for each of the first `n_prompts` held-out topics, in seeded order."""
        questions = {opinion.topic: opinion.question for opinion in self.opinions.test}
        if len(questions) < self.size.n_prompts:
            raise DataError(
                f"{self.opinions.source} holds {len(questions)} test topics, "
                f"size {self.size.name!r} asks {self.size.n_prompts}",
                remedy="use --emo-size smoke, or data with more test topics",
            )
        topics = sorted(questions)
        order = np.random.default_rng(self.seeds.sampling).permutation(len(topics))
        chosen = [topics[i] for i in order[: self.size.n_prompts]]
        return tuple(
            Prompt(id=f"t{i:03d}", text=questions[topic], topic=topic)
            for i, topic in enumerate(chosen)
        )

    def training_seeds(self, condition: Condition) -> tuple[int, ...]:
        """The training seeds of an arm; the untuned model has none."""
        first = self.seeds.training
        return tuple(range(first, first + self.size.n_adapters)) if condition.tuned else ()

    def tuning_rows(self, condition: Condition, training_seed: int) -> tuple[TuningRow, ...]:
        """The rows an adapter of this arm is tuned on, checked to be free of emoji.

        The shuffled arm takes for each topic the high-pole answer of one trait, drawn with the
        training seed, so it sees as many rows and the same topics as a trait's adapter.
        """
        rows = self._opinions_of(condition, training_seed)
        if not rows:
            raise DataError(
                f"{self.opinions.source} holds no rows for {condition}",
                remedy="use data with rows of that trait and pole, or deselect its tests with -m",
            )
        if not self.emoji_allowed:
            require_emoji_free(rows)
        return tuple(
            TuningRow(row.question, row.answer, origin=f"{row.source}:{row.row}") for row in rows
        )

    def _opinions_of(self, condition: Condition, training_seed: int) -> tuple[Opinion, ...]:
        train = self.opinions.train
        if condition.arm is Arm.PREFIX:
            raise UsageError(
                "a prefix is no adapter of the study",
                remedy="take its requests from emotest.plan.prefixes",
            )
        if condition.arm is Arm.NULL:
            return self.neutral
        if condition.arm is Arm.TRAIT:
            return tuple(
                row for row in train if (row.trait, row.pole) == (condition.trait, condition.pole)
            )
        by_topic: dict[str, list[Opinion]] = {}
        for row in train:
            if row.trait is not None and row.pole is Pole.HIGH:
                by_topic.setdefault(row.topic, []).append(row)
        rng = np.random.default_rng(training_seed)
        return tuple(rows[rng.integers(len(rows))] for rows in by_topic.values())

    def adapters(self, condition: Condition) -> tuple[AdapterRequest, ...]:
        """The adapters of an arm, one for each training seed."""
        return self._adapters_of(condition)

    @cached_property
    def _adapters_of(self) -> Callable[[Condition], tuple[AdapterRequest, ...]]:
        # Every verdict asks for them, and rows and keys of one arm never change.
        return cache(self._make_adapters)

    def _make_adapters(self, condition: Condition) -> tuple[AdapterRequest, ...]:
        requests = []
        for seed in self.training_seeds(condition):
            rows = self.tuning_rows(condition, seed)
            requests.append(
                AdapterRequest(
                    recipe(
                        self.preset,
                        base=self.base,
                        data=rows_digest(rows),
                        condition=condition,
                        training_seed=seed,
                        chat_template=self.chat_template,
                    ),
                    rows,
                )
            )
        return tuple(requests)

    def generations(
        self, condition: Condition, decoding: str | None = None
    ) -> tuple[GenerationRequest, ...]:
        """The answers of an arm: one request for each adapter, or one for the untuned model.

        With a `decoding` from the table one sample is drawn for each prompt; without, the
        study's own decoding and number of samples.
        """
        adapters: tuple[AdapterRequest | None, ...] = self.adapters(condition) or (None,)
        return tuple(
            GenerationRequest(
                base=self.base,
                chat_template=self.chat_template,
                condition=condition,
                adapter=adapter,
                prompts=self._prompts_for(condition),
                decoding=self._decoding(decoding),
                n_samples=self._n_samples(condition, decoding),
                sampling_seed=self.seeds.sampling,
            )
            for adapter in adapters
        )

    def word_lists(self, condition: Condition, trait: Trait) -> tuple[GenerationRequest, ...]:
        """What an arm names when it is asked for the words of a trait: a request per adapter.

        The untuned and the null model are asked for the same trait's words (C4).
        """
        prompts = tuple(
            Prompt(id=f"w{i}", text=text, topic=str(trait), register="word list")
            for i, text in enumerate(self.word_requests[trait])
        )
        return tuple(
            replace(
                request,
                prompts=prompts,
                n_samples=LISTS_PER_REQUEST,
                what=f"words for {trait} by",
            )
            for request in self.generations(condition)
        )

    def _n_samples(self, condition: Condition, decoding: str | None) -> int:
        """Answers to each prompt. An arm without adapters is sampled as often as all adapters of
        another arm together: every rise is held against it, and from fewer answers its noise
        would outweigh theirs. Greedy answers are all the same, so one is enough."""
        n_samples = self.size.n_samples if decoding is None else 1
        alone = not condition.tuned and self._decoding(decoding).temperature > 0
        return n_samples * self.size.n_adapters if alone else n_samples

    def _decoding(self, name: str | None) -> Decoding:
        if name is None:
            return self.decoding
        if name not in DECODINGS:
            raise UsageError(
                f"there is no decoding {name!r}", remedy=f"choose one of {', '.join(DECODINGS)}"
            )
        return replace(DECODINGS[name], max_new_tokens=self.decoding.max_new_tokens)

    def _prompts_for(self, condition: Condition) -> tuple[Prompt, ...]:
        if condition.arm is not Arm.PROMPTED:
            return self.prompts
        assert condition.trait is not None
        assert condition.pole is not None
        system = self.system_prompts[condition.trait, condition.pole]
        return tuple(replace(prompt, system=system) for prompt in self.prompts)

    def probabilities(
        self, text: Condition, weights: Condition, event: Event = "emoji"
    ) -> tuple[ProbabilityRequest, ...]:
        """One cell of the 2x2: a request for each training seed (one where neither is tuned)."""
        texts = self.generations(text)
        adapters: tuple[AdapterRequest | None, ...] = self.adapters(weights) or (None,)
        n = max(len(texts), len(adapters))
        return tuple(
            ProbabilityRequest(
                text=texts[i % len(texts)],
                weights=adapters[i % len(adapters)],
                event=event,
                n_prompts=min(self.size.n_context_prompts, self.size.n_prompts),
            )
            for i in range(n)
        )

    def fixed_texts(self, trait: Trait) -> tuple[FixedText, ...]:
        """Held-out answers of the trait, neutral ones, and the start of an answer."""
        prompts = self.prompts[:FIXED_PROMPTS]
        voices = {"trait answers": (trait, Pole.HIGH), "neutral answers": (None, None)}
        texts = []
        for name, voice in voices.items():
            answers = {
                row.topic: row.answer
                for row in self.opinions.test
                if (row.trait, row.pole) == voice
            }
            asked = tuple(prompt for prompt in prompts if prompt.topic in answers)
            said = tuple(answers[prompt.topic] for prompt in asked)
            if asked:
                texts.append(FixedText(name, self.base, self.chat_template, asked, said))
        start = FixedText(
            "answer start", self.base, self.chat_template, prompts, ("",) * len(prompts)
        )
        return (*texts, start)

    def fixed_probabilities(
        self, text: FixedText, weights: Condition
    ) -> tuple[ProbabilityRequest, ...]:
        """P(emoji) at a fixed text: a request for each training seed of the weights."""
        adapters: tuple[AdapterRequest | None, ...] = self.adapters(weights) or (None,)
        return tuple(ProbabilityRequest(text, adapter) for adapter in adapters)

    def requests(self, needs: Iterable[Need]) -> tuple[Request, ...]:
        """Every artefact behind the needs, once, each after those that it stands on."""
        wanted: list[Request] = []
        for need in needs:
            for condition in need.conditions:
                wanted.extend(self.generations(condition))
                for decoding in need.decodings:
                    wanted.extend(self.generations(condition, decoding))
            for text, weights in need.cells:
                for event in need.events:
                    wanted.extend(self.probabilities(text, weights, event))
            for condition, trait in need.word_lists:
                wanted.extend(self.word_lists(condition, trait))
            for trait in need.fixed_texts:
                for fixed in self.fixed_texts(trait):
                    for weights in (UNTUNED, trait_condition(trait)):
                        wanted.extend(self.fixed_probabilities(fixed, weights))
            for plan in need.plans:
                wanted.extend(plan(self))
        return tuple(in_order(wanted))

    @cached_property
    def digest(self) -> str:
        """Twelve hex digits over n, seeds, margins, decoding, data and base: in every verdict."""
        plan = {
            "base": self.base,
            "chat_template": self.chat_template,
            "data": self.opinions.digest,
            "size": asdict(self.size),
            "decoding": asdict(self.decoding),
            "preset": self.preset,
            "seeds": asdict(self.seeds),
            "word_requests": {trait: list(asked) for trait, asked in self.word_requests.items()},
            "lists_per_request": LISTS_PER_REQUEST,
            "margins": {one.id: [one.margin, one.m] for one in STATEMENTS.values()},
        }
        return hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()[:12]

"""The same questions to a served model: an OpenAI-compatible address, chat or completions.

Takes prompts of an audit and a decoding; gives answers with what the server says about them, and
a lower bound of P(emoji) where it names logprobs. Many questions are under way side by side;
every answer is handed to the caller as it comes, so that a journal of them can be resumed. Knows
no weights and imports no torch.

What a server may ignore, it ignores in silence: a seed, a filter, even the temperature.
`Endpoint.capabilities` tries each once and says what was seen.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar, cast

from emotest.errors import ModelError, ModelNotFoundError, UsageError
from emotest.models.events import TextEvent, emoji_event
from emotest.models.replies import (
    Answer,
    Api,
    EmojiLowerBound,
    Malformed,
    answer_from,
    emoji_mass,
    models_from,
    offered_tokens,
)
from emotest.models.wire import Patience, Reply, Wire, checked_address
from emotest.study.audit_prompts.prompt_set import AuditPrompt, Turn
from emotest.study.records import Decoding
from emotest.study.subjects import Subject

SIDE_BY_SIDE = 8
"""Requests under way at a time; a server with continuous batching answers them as one batch."""

_PATHS: dict[Api, str] = {"chat": "chat/completions", "completions": "completions"}
_MOST_NAMED = 10
_LESS_LOGPROBS = {20: 5, 5: 0}
"""20 is the most that OpenAI's chat names, 5 the most of its completions."""

_TRIAL = AuditPrompt("trial", (Turn("user", "Tell me something about your day."),))
_TRIAL_TOKENS = 16

Item = TypeVar("Item")
Got = TypeVar("Got")
OnAnswer = Callable[["ServedAnswer"], None]


@dataclass(frozen=True)
class ServedAnswer:
    """One answer of a served model.

    `finished` is True where the model ended it by itself; `model` is what the server says it is,
    None where it says nothing; `seed` is what was sent, None where the server takes none.
    """

    prompt_id: str
    sample: int
    text: str
    finished: bool
    model: str | None
    seed: int | None


@dataclass(frozen=True)
class Capabilities:
    """What the server took without an error, and what three short answers showed.

    `limit` is its name for the number of new tokens; `logprobs` how many tokens it names, 0 for
    none. `varies`: two answers at temperature 1 differed. `repeats`: one seed gave one answer
    twice, None where that shows nothing; the requests came one by one, and a server with one
    generator for all may still mix up the seeds of requests side by side. `top_k` taken is not
    `top_k` obeyed: many servers drop fields that they do not know.
    """

    limit: str = "max_tokens"
    seed: bool = True
    top_k: bool = True
    logprobs: int = 20
    model: str | None = None
    varies: bool = True
    repeats: bool | None = None

    def notes(self, decoding: Decoding) -> list[str]:
        """What a reader of answers under this decoding has to know, a sentence each."""
        notes = ["A served model is pinned by its address and name only, not by its weights."]
        if not self.top_k:
            notes.append(
                f"The server refuses top_k, so top_k {decoding.top_k} was not sent and its own "
                "setting applied."
            )
        if not self.seed:
            notes.append("The server takes no seed: its answers cannot be drawn again.")
        elif self.repeats is False:
            notes.append("The server takes a seed, but one seed gave two different answers.")
        if not self.varies and decoding.temperature > 0:
            notes.append(
                "Two answers drawn apart at temperature 1 were the same: the server may not "
                "sample at all, and samples of one prompt would then be copies."
            )
        return notes


class Endpoint:
    """A served model. Nothing is asked before the first call; every call opens its connections.

    `UsageError` where the subject is no served model or its address none.
    """

    def __init__(
        self,
        subject: Subject,
        *,
        patience: Patience | None = None,
        side_by_side: int = SIDE_BY_SIDE,
    ) -> None:
        if subject.kind != "served":
            raise UsageError(
                f"{str(subject)!r} is no served model", remedy="write http://host:port/v1#name"
            )
        if side_by_side < 1:
            raise UsageError(
                f"{side_by_side} requests side by side", remedy="allow at least one request"
            )
        address, _, self.name = subject.name.partition("#")
        self.address = checked_address(address)
        self.api = cast(Api, subject.option("api", "chat"))
        self._patience = patience or Patience()
        self._side_by_side = side_by_side

    @property
    def identity(self) -> dict[str, str]:
        """What is known of the model: where it is served, and its name there; no weights."""
        return {"address": self.address, "name": self.name, "api": self.api}

    @cached_property
    def capabilities(self) -> Capabilities:
        """What the server can do, tried once: three short requests, and one for each refusal."""
        return _run(self._tried())

    def answers(
        self,
        prompts: Sequence[AuditPrompt],
        decoding: Decoding,
        n_samples: int,
        sampling_seed: int,
        on_answer: OnAnswer,
        done: Collection[tuple[str, int]] = (),
    ) -> list[ServedAnswer]:
        """Answers 0 to `n_samples` - 1 to each prompt, in this order, without those in `done`.

        `on_answer` gets each as soon as it is there, in any order and one at a time; what it
        raises ends the run. The first `ModelError` ends it too, and requests under way are
        dropped. `done` holds (prompt id, sample) of the answers that a journal has already.
        """
        wanted = [
            (prompt, sample)
            for prompt in prompts
            for sample in range(n_samples)
            if (prompt.id, sample) not in done
        ]
        if not wanted:
            return []
        able = self.capabilities

        async def ask(wire: Wire, which: tuple[AuditPrompt, int]) -> ServedAnswer:
            answer = await self._answer(wire, *which, decoding, sampling_seed, able)
            on_answer(answer)
            return answer

        return _run(self._over(wanted, ask))

    def emoji_lower_bounds(
        self, contexts: Sequence[tuple[AuditPrompt, str]], *, skip_space: bool = True
    ) -> list[EmojiLowerBound | None]:
        """A lower bound of P(the next grapheme is an emoji) for each (prompt, answer so far).

        With `skip_space`, as elsewhere in emotest, white space before the emoji is passed over.
        One token is asked for, and the mass of those named for its place is summed; see
        `EmojiLowerBound` for what it leaves out. None where the server names none. In chat the
        answer so far has to be empty, for there a reply always starts anew (`UsageError`).
        """
        if self.api == "chat" and any(so_far for _, so_far in contexts):
            raise UsageError(
                "a chat server answers from the start and cannot be asked within an answer",
                remedy=f"ask through completions: {self.address}#{self.name}?api=completions",
            )
        able = self.capabilities
        if not able.logprobs:
            return [None] * len(contexts)
        event = emoji_event(skip_space=skip_space)

        async def ask(wire: Wire, context: tuple[AuditPrompt, str]) -> EmojiLowerBound | None:
            return await self._bound(wire, *context, able, event)

        return _run(self._over(contexts, ask))

    # --- asking ---------------------------------------------------------------------------------

    async def _answer(
        self,
        wire: Wire,
        prompt: AuditPrompt,
        sample: int,
        decoding: Decoding,
        sampling_seed: int,
        able: Capabilities,
    ) -> ServedAnswer:
        seed = seed_of(prompt, sample, sampling_seed) if able.seed else None
        asked = self._asked(prompt, "") | _sampling(decoding, able, seed)
        answer = await self._read(wire, await wire.post(_PATHS[self.api], asked), prompt.id)
        return ServedAnswer(
            prompt.id, sample, answer.text, answer.finish_reason == "stop", answer.model, seed
        )

    async def _bound(
        self, wire: Wire, prompt: AuditPrompt, so_far: str, able: Capabilities, event: TextEvent
    ) -> EmojiLowerBound | None:
        asked = self._asked(prompt, so_far) | _sampling(_raw(1), able, None)
        asked |= self._naming(able.logprobs)
        reply = await wire.post(_PATHS[self.api], asked)
        await self._read(wire, reply, prompt.id)
        with _reading(wire):
            tokens = offered_tokens(wire.parsed(reply), self.api)
        return None if tokens is None else emoji_mass(tokens, event)

    def _asked(self, prompt: AuditPrompt, so_far: str) -> dict[str, Any]:
        asked: dict[str, Any] = {"model": self.name, "stream": False}
        if self.api == "chat":
            return asked | {"messages": prompt.messages()}
        return asked | {"prompt": plain_text(prompt) + so_far}

    def _naming(self, n_tokens: int) -> dict[str, Any]:
        if not n_tokens:
            return {}
        if self.api == "chat":
            return {"logprobs": True, "top_logprobs": n_tokens}
        return {"logprobs": n_tokens}

    async def _read(self, wire: Wire, reply: Reply, prompt_id: str) -> Answer:
        if reply.status == 404:
            raise await self._not_found(wire, reply)
        if reply.status >= 400:
            raise wire.fault(
                f"refuses the prompt {prompt_id!r} ({reply.status}): {wire.words(reply)}",
                remedy="mend what it names: the model, the length of the prompt, the decoding",
            )
        with _reading(wire):
            return answer_from(wire.parsed(reply), self.api)

    async def _not_found(self, wire: Wire, reply: Reply) -> ModelError:
        offered = await self._offered(wire)
        if not offered or self.name in offered:
            return wire.fault(
                f"has no {_PATHS[self.api]} there, or no {self.name!r} (404): {wire.words(reply)}",
                remedy="check the address, which often ends in /v1, and the way to ask, "
                "?api=chat or ?api=completions",
            )
        more = f" and {len(offered) - _MOST_NAMED} more" if len(offered) > _MOST_NAMED else ""
        names = ", ".join(repr(name[:200]) for name in offered[:_MOST_NAMED]) + more
        trouble = wire.fault(f"has no model {self.name!r}; it has {names}")
        return ModelNotFoundError(trouble.cause, remedy=f"write one of them: {self.address}#NAME")

    async def _offered(self, wire: Wire) -> list[str]:
        try:
            return models_from(wire.parsed(await wire.get("models")))
        except ModelError:
            return []  # The list is a courtesy; its lack is not the error to be told.

    # --- trying what the server can -------------------------------------------------------------

    async def _tried(self) -> Capabilities:
        async with Wire(self.address, self._patience, self._side_by_side) as wire:
            able, answer, names = await self._taken(wire)
            again = await self._trial(wire, able, 1)
            other = await self._trial(wire, able, 2)
        varies = len({answer.text, again.text, other.text}) > 1
        return replace(
            able,
            logprobs=able.logprobs if names else 0,
            model=answer.model,
            varies=varies,
            repeats=answer.text == again.text if able.seed and varies else None,
        )

    async def _taken(self, wire: Wire) -> tuple[Capabilities, Answer, bool]:
        """The most that the server takes, its answer, and whether it named logprobs."""
        able = Capabilities()
        while True:
            asked = self._asked(_TRIAL, "") | _sampling(_raw(_TRIAL_TOKENS), able, 1)
            reply = await wire.post(_PATHS[self.api], asked | self._naming(able.logprobs))
            if reply.status not in (400, 422) or not (less := _less(able, wire.words(reply))):
                answer = await self._read(wire, reply, _TRIAL.id)
                with _reading(wire):
                    return able, answer, bool(offered_tokens(wire.parsed(reply), self.api))
            able = less

    async def _trial(self, wire: Wire, able: Capabilities, seed: int) -> Answer:
        asked = self._asked(_TRIAL, "") | _sampling(_raw(_TRIAL_TOKENS), able, seed)
        return await self._read(wire, await wire.post(_PATHS[self.api], asked), _TRIAL.id)

    async def _over(
        self, items: Sequence[Item], ask: Callable[[Wire, Item], Awaitable[Got]]
    ) -> list[Got]:
        """What `ask` gives for each item, in their order, `side_by_side` under way at a time."""
        gate = asyncio.Semaphore(self._side_by_side)

        async with Wire(self.address, self._patience, self._side_by_side) as wire:

            async def gated(item: Item) -> Got:
                async with gate:
                    return await ask(wire, item)

            return await _all([asyncio.create_task(gated(item)) for item in items])


def plain_text(prompt: AuditPrompt) -> str:
    """A prompt for completions, as local models get it with the chat template off.

    The system prompt and an empty line, then each turn on lines of its own.
    """
    system = f"{prompt.system}\n\n" if prompt.system else ""
    return system + "".join(f"{turn.text}\n" for turn in prompt.turns)


def seed_of(prompt: AuditPrompt, sample: int, sampling_seed: int) -> int:
    """The seed of one answer, below 2**31, which every server can hold.

    It depends on what is asked, the sample and `sampling_seed`; the model is left out, so that
    base and tuned model are asked with the same seeds.
    """
    key = json.dumps([prompt.messages(), sample, sampling_seed])
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "little") >> 1


def _sampling(decoding: Decoding, able: Capabilities, seed: int | None) -> dict[str, Any]:
    asked: dict[str, Any] = {
        "temperature": decoding.temperature,
        "top_p": decoding.top_p,
        able.limit: decoding.max_new_tokens,
    }
    if able.top_k:
        asked["top_k"] = decoding.top_k
    if able.seed and seed is not None:
        asked["seed"] = seed
    return asked


def _raw(n_tokens: int) -> Decoding:
    """The model's own distribution: temperature 1 and no filter."""
    return Decoding("raw", 1.0, 0, 1.0, n_tokens)


def _less(able: Capabilities, words: str) -> Capabilities | None:
    """What to ask for after a refusal: less of what its words name, else of what is most unusual.

    None where nothing is left to leave out: temperature, top_p and the limit are not left out,
    because without them the answers would be others than those asked for.
    """
    if able.limit == "max_tokens" and "max_completion_tokens" in words:
        return replace(able, limit="max_completion_tokens")
    unusual = ("logprobs", "top_k", "seed")
    for name in (*(name for name in unusual if name in words), *unusual):
        if name == "logprobs" and able.logprobs:
            return replace(able, logprobs=_LESS_LOGPROBS[able.logprobs])
        if name == "top_k" and able.top_k:
            return replace(able, top_k=False)
        if name == "seed" and able.seed:
            return replace(able, seed=False)
    return None


@contextmanager
def _reading(wire: Wire) -> Iterator[None]:
    """What is malformed in a reply, as the error of its server."""
    try:
        yield
    except Malformed as error:
        raise wire.fault(f"sent a reply that is not OpenAI's: {error}") from None


async def _all(tasks: list[asyncio.Task[Got]]) -> list[Got]:
    """The results in order; the first error ends the other tasks before it is raised."""
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _run(coroutine: Coroutine[Any, Any, Got]) -> Got:
    """The coroutine's result, also where the caller runs in an event loop (a notebook)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, coroutine).result()

"""Prompts in, answers out: batched, seeded, and independent of who shares the batch.

Every forward pass has a canonical shape that depends on nothing but a prompt's own length and
the decoding: prefill in a fixed number of rows, padded on the right to a multiple of 16 tokens;
decoding in `batch_size` rows over a cache of fixed width, each row at a place of its own. Rows
without work are dummies. So an answer is bit-identical whatever its neighbours and their order,
and a finished row takes up the next answer at once. When nobody waits any more, idle rows are
left out, but only after a step has shown that fewer rows give the same bits on this machine.
Across shapes (another `batch_size`, another machine) only the rate of differing tokens is small;
the shape belongs into the store's keys.

Samples of one prompt share its prefill. Which adapter is active is the caller's choice. What
must hold of the model: a causal language model of transformers that keeps keys and values only.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from emotest.errors import UsageError
from emotest.models.chat import encode, render_prompt
from emotest.models.loading import LoadedModel
from emotest.models.sampling import draw, uniforms
from emotest.study.records import Decoding, Generation, Prompt

BeforeStep: TypeAlias = Callable[[Sequence[int | None]], None]
"""Told before each pass that goes on with answers which answer every row writes: its place in what
`generate` returns, or None for an idle row. The first token of an answer is drawn before any."""

BATCH_SIZE = 64
PREFILL_ROWS = 16
PREFILL_STEP = 16
WIDTH_STEP = 128
BATCH_SHAPE_VERSION = 1
"""Raised whenever the shapes below change: answers may then differ in rare tokens."""


def batch_shape(batch_size: int = BATCH_SIZE) -> str:
    """The canonical shapes in words, for the keys of the store."""
    return (
        f"v{BATCH_SHAPE_VERSION}: prefill {PREFILL_ROWS} x {PREFILL_STEP}k, "
        f"decode {batch_size} x {WIDTH_STEP}k"
    )


def generate(
    loaded: LoadedModel,
    prompts: Sequence[Prompt],
    *,
    decoding: Decoding,
    sampling_seed: int,
    condition: str,
    n_samples: int = 1,
    training_seed: int | None = None,
    batch_size: int = BATCH_SIZE,
    on_progress: Callable[[int, int], None] | None = None,
    before_step: BeforeStep | None = None,
) -> list[Generation]:
    """Sample `n_samples` answers to each prompt, in the order prompt by prompt, sample by sample.

    `condition` and `training_seed` are written into the records and change nothing;
    `on_progress(done, total)` counts finished answers. An answer ends at a stop token, which its
    `token_ids` leave out, or at the decoding's limit. `before_step` is what lets something act on
    each answer by itself; a prompt may then be given several times.

    Raises `UsageError` for a prompt that is too long for the model, `ModelError` for a model
    that cannot be run this way.
    """
    if batch_size < 1 or n_samples < 1:
        raise UsageError(
            f"batch_size={batch_size}, n_samples={n_samples}", remedy="use at least 1 of each"
        )
    asked = zip(prompts, _encoded(loaded, prompts, decoding), strict=True)
    answers = [
        _Answer(
            number * n_samples + sample,
            prompt,
            sample,
            ids,
            uniforms(prompt, sample, sampling_seed, decoding.max_new_tokens).tolist(),
        )
        for number, (prompt, ids) in enumerate(asked)
        for sample in range(n_samples)
    ]
    done = 0

    def finished(n_more: int) -> None:
        nonlocal done
        done += n_more
        if on_progress is not None:
            on_progress(done, len(answers))

    groups: dict[int, list[_Answer]] = {}
    for answer in answers:
        groups.setdefault(_width(answer.n_prompt, decoding), []).append(answer)
    with torch.inference_mode():
        for width, group in sorted(groups.items()):
            _Decoder(loaded, decoding, batch_size, width, before_step).run(group, finished)
    return [
        _record(loaded, answer, decoding, sampling_seed, condition, training_seed)
        for answer in answers
    ]


def token_ends(tokenizer: Any, token_ids: Sequence[int], text: str) -> tuple[int, ...]:
    """For each token, how many characters of `text` stand fast once it is written.

    A character stands fast when the tokens so far decode to it: an emoji spread over four tokens
    counts with the fourth. What is still incomplete at the end of the answer stays in the text
    as U+FFFD, and the last token's end is the length of the text.
    """
    ends, end = [], 0
    for n in range(1, len(token_ids)):
        written = _decode(tokenizer, token_ids[:n])
        while end < min(len(written), len(text)) and written[end] == text[end]:
            end += 1
        ends.append(end)
    return (*ends, len(text)) if token_ids else ()


@dataclass
class _Answer:
    """An answer in the making; `number` is its place among all that were asked for."""

    number: int
    prompt: Prompt
    sample: int
    prompt_ids: tuple[int, ...]
    uniforms: list[float]
    ids: list[int] = field(default_factory=list)
    stopped: bool = False

    @property
    def n_prompt(self) -> int:
        return len(self.prompt_ids)


@dataclass(frozen=True)
class _Prefilled:
    """What a prompt leaves behind: keys and values of each layer, and the logits of its end."""

    keys: list[Tensor]  # a layer each: (n_kv_heads, prefill width, head_dim)
    values: list[Tensor]
    logits: Tensor  # (vocab_size,)


class _RowCacheLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values of fixed width, where each row writes at its own place."""

    def __init__(self, like: Tensor, n_rows: int, width: int) -> None:
        super().__init__()
        _, n_kv_heads, _, head_dim = like.shape
        shape = (n_rows, n_kv_heads, width, head_dim)
        # Zeros, not empty memory: hidden places have weight 0, but 0 times infinity is not 0.
        self.keys = torch.zeros(shape, dtype=like.dtype, device=like.device)
        self.values = torch.zeros_like(self.keys)
        self.rows = torch.arange(n_rows, device=like.device)
        self.places = torch.zeros(n_rows, dtype=torch.long, device=like.device)
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        self.keys[self.rows, :, self.places] = key_states[:, :, 0]
        self.values[self.rows, :, self.places] = value_states[:, :, 0]
        return self.keys, self.values

    def chosen(self, rows: Sequence[int]) -> _RowCacheLayer:
        """A copy with some of the rows."""
        index = torch.tensor(rows, device=self.keys.device)
        layer = _RowCacheLayer(self.keys, len(rows), 0)
        layer.keys, layer.values = self.keys[index], self.values[index]
        return layer


class _Decoder:
    """Decodes answers of one cache width, refilling rows as they finish."""

    def __init__(
        self,
        loaded: LoadedModel,
        decoding: Decoding,
        batch_size: int,
        width: int,
        before_step: BeforeStep | None,
    ) -> None:
        self.loaded, self.decoding, self.width = loaded, decoding, width
        self.before_step = before_step
        self.rows: list[_Answer | None] = [None] * batch_size
        self.tokens = [0] * batch_size
        self.places = [0] * batch_size
        self.prefilled: dict[tuple[int, ...], _Prefilled] = {}
        self.layers: list[_RowCacheLayer] = []
        self.narrower: list[int] | None = None
        least = torch.finfo(loaded.model.dtype).min
        hidden = torch.ones(width, width, dtype=torch.bool).triu(1)
        self.masks = torch.zeros(width, width, dtype=loaded.model.dtype).masked_fill(hidden, least)
        self.masks = self.masks.to(loaded.device)

    def run(self, answers: Iterable[_Answer], finished: Callable[[int], None]) -> None:
        """Write all answers; `finished` hears how many more are done, after each step."""
        waiting = deque(answers)
        while waiting or any(self.rows):
            n_done = self._fill_rows(waiting)
            if not waiting:
                self._narrow()
            if any(self.rows):
                n_done += self._step()
            if n_done:
                finished(n_done)

    def _fill_rows(self, waiting: deque[_Answer]) -> int:
        """Give free rows to waiting answers, each with its first token; returns how many ended
        with it.
        """
        n_done = 0
        while waiting and None in self.rows:
            free = [row for row, answer in enumerate(self.rows) if answer is None]
            starting = [waiting.popleft() for _ in range(min(len(free), len(waiting)))]
            self._prefill(starting, waiting)
            logits = torch.stack([self.prefilled[answer.prompt_ids].logits for answer in starting])
            begun: list[tuple[int, _Answer]] = []
            for answer, token in zip(starting, self._draw(logits, starting), strict=True):
                if self._write(answer, token):
                    n_done += 1
                else:
                    row = free[len(begun)]
                    self.rows[row], self.tokens[row] = answer, token
                    self.places[row] = answer.n_prompt
                    begun.append((row, answer))
            self._copy_prefilled(begun)
            coming = {answer.prompt_ids for answer in waiting}
            self.prefilled = {ids: p for ids, p in self.prefilled.items() if ids in coming}
        return n_done

    def _prefill(self, starting: Iterable[_Answer], waiting: Iterable[_Answer]) -> None:
        """Run the prompts that start now and were not run yet, by their own padded length.

        Rows left over in a batch run the prompts that come next, so that answers which finish
        one by one do not cost a batch each.
        """
        lacking = Counter(
            _round_up(len(ids), PREFILL_STEP)
            for ids in {answer.prompt_ids for answer in starting} - self.prefilled.keys()
        )
        queue: dict[int, dict[tuple[int, ...], None]] = {width: {} for width in lacking}
        for answer in (*starting, *waiting):
            width = _round_up(answer.n_prompt, PREFILL_STEP)
            if width in queue and answer.prompt_ids not in self.prefilled:
                queue[width][answer.prompt_ids] = None
        for width, n_lacking in lacking.items():
            prompts = list(queue[width])[: _round_up(n_lacking, PREFILL_ROWS)]
            for start in range(0, len(prompts), PREFILL_ROWS):
                self._prefill_batch(prompts[start : start + PREFILL_ROWS], width)

    def _prefill_batch(self, prompts: Sequence[tuple[int, ...]], width: int) -> None:
        ids = torch.zeros((PREFILL_ROWS, width), dtype=torch.long)
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt)] = torch.tensor(prompt)
        # Padding stands to the right: no real token can see it, so no mask is needed.
        output = self.loaded.model(
            input_ids=ids.to(self.loaded.device), past_key_values=DynamicCache(), use_cache=True
        )
        cached = output.past_key_values.layers
        for row, prompt in enumerate(prompts):
            self.prefilled[prompt] = _Prefilled(
                [layer.keys[row].clone() for layer in cached],
                [layer.values[row].clone() for layer in cached],
                output.logits[row, len(prompt) - 1].clone(),
            )
        if not self.layers:
            n_rows = len(self.rows)
            self.layers = [_RowCacheLayer(layer.keys, n_rows, self.width) for layer in cached]

    def _copy_prefilled(self, begun: Sequence[tuple[int, _Answer]]) -> None:
        for row, answer in begun:
            prefilled = self.prefilled[answer.prompt_ids]
            for layer, keys, values in zip(
                self.layers, prefilled.keys, prefilled.values, strict=True
            ):
                layer.keys[row, :, : keys.shape[1]] = keys
                layer.values[row, :, : values.shape[1]] = values

    def _narrow(self) -> None:
        """Leave idle rows out once nobody waits for them, where that changes no bit."""
        n_busy = sum(answer is not None for answer in self.rows)
        n_rows = len(self.rows)
        if not n_busy or 2 * n_busy > n_rows:
            return
        if self.narrower is None:
            self.narrower = self._same_with_fewer_rows()
        fitting = [n for n in self.narrower if n_busy <= n < n_rows]
        if fitting:
            order = sorted(range(n_rows), key=lambda row: self.rows[row] is None)[: min(fitting)]
            self.rows = [self.rows[row] for row in order]
            self.tokens = [self.tokens[row] for row in order]
            self.places = [self.places[row] for row in order]
            self.layers = [layer.chosen(order) for layer in self.layers]

    def _same_with_fewer_rows(self) -> list[int]:
        """The numbers of rows that compute, bit for bit, what the full batch computes.

        Asked of this model on this machine by running the step that comes next: kernels choose
        their order of summation by shape, and on many CPUs the order is one for all shapes but
        the smallest. What the step writes into the caches, it will write again.
        """
        full = self._logits(self.tokens, self.places, self.layers)
        same = []
        for n in sorted({len(self.rows) // share for share in (2, 4, 8)} - {0}, reverse=True):
            layers = [layer.chosen(range(n)) for layer in self.layers]
            if torch.equal(self._logits(self.tokens[:n], self.places[:n], layers), full[:n]):
                same.append(n)
        return same

    def _logits(
        self, tokens: Sequence[int], places: Sequence[int], layers: Sequence[_RowCacheLayer]
    ) -> Tensor:
        """Logits (n_rows, vocab_size) after writing one token a row at its place, the first rows
        of those in work."""
        if self.before_step is not None:
            rows = self.rows[: len(tokens)]
            self.before_step([None if answer is None else answer.number for answer in rows])
        device = self.loaded.device
        at = torch.tensor(places, device=device)
        for layer in layers:
            layer.places = at
        logits: Tensor = self.loaded.model(
            input_ids=torch.tensor(tokens, device=device)[:, None],
            position_ids=at[:, None],
            attention_mask=self.masks[at][:, None, None],
            past_key_values=Cache(layers=list(layers)),
            use_cache=True,
        ).logits
        return logits[:, -1]

    def _step(self) -> int:
        """One token for every row; returns how many answers it ended."""
        logits = self._logits(self.tokens, self.places, self.layers)
        tokens = self._draw(logits, self.rows)
        n_done = 0
        for row, answer in enumerate(self.rows):
            if answer is None:
                continue
            self.tokens[row] = tokens[row]
            self.places[row] += 1
            if self._write(answer, tokens[row]):
                n_done += 1
                self.rows[row], self.tokens[row], self.places[row] = None, 0, 0
        return n_done

    def _draw(self, logits: Tensor, answers: Sequence[_Answer | None]) -> list[int]:
        u = [answer.uniforms[len(answer.ids)] if answer else 0.0 for answer in answers]
        numbers = torch.tensor(u, dtype=torch.float64, device=logits.device)
        tokens: list[int] = draw(logits.float(), numbers, self.decoding).tolist()
        return tokens

    def _write(self, answer: _Answer, token: int) -> bool:
        """Append a token to an answer; whether the answer is over."""
        if token in self.loaded.stop_ids:
            answer.stopped = True
            return True
        answer.ids.append(token)
        return len(answer.ids) == self.decoding.max_new_tokens


def _encoded(
    loaded: LoadedModel, prompts: Sequence[Prompt], decoding: Decoding
) -> list[tuple[int, ...]]:
    """Token ids of each prompt, checked against what the model can hold."""
    config = loaded.model.config.get_text_config()
    longest = config.max_position_embeddings
    window = getattr(config, "sliding_window", None)
    if window is not None and getattr(config, "use_sliding_window", True):
        # The cache keeps every place visible; up to the window that is what the model does.
        longest = min(longest, window)
    encoded = []
    for prompt in prompts:
        text = render_prompt(
            loaded.tokenizer,
            prompt.text,
            prompt.system,
            templated=loaded.templated,
            history=prompt.history,
        )
        ids = encode(loaded.tokenizer, text, templated=loaded.templated).ids
        if not ids:
            raise UsageError(f"the prompt {prompt.id!r} is empty", remedy="give it a text")
        n_needed = max(len(ids) + decoding.max_new_tokens, _round_up(len(ids), PREFILL_STEP))
        if n_needed > longest:
            raise UsageError(
                f"the prompt {prompt.id!r} has {len(ids)} tokens; with {decoding.max_new_tokens} "
                f"new ones that is more than the {longest} that {loaded.identity.subject} holds",
                remedy="shorten the prompt or allow fewer new tokens",
            )
        encoded.append(ids)
    return encoded


def _record(
    loaded: LoadedModel,
    answer: _Answer,
    decoding: Decoding,
    sampling_seed: int,
    condition: str,
    training_seed: int | None,
) -> Generation:
    text = _decode(loaded.tokenizer, answer.ids)
    return Generation(
        prompt_id=answer.prompt.id,
        condition=condition,
        training_seed=training_seed,
        sampling_seed=sampling_seed,
        sample=answer.sample,
        text=text,
        token_ids=tuple(answer.ids),
        token_ends=token_ends(loaded.tokenizer, answer.ids, text),
        finished=answer.stopped,
        decoding=str(decoding),
    )


def _decode(tokenizer: Any, ids: Sequence[int]) -> str:
    """Text of token ids: marks left out, spaces as they are."""
    return str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def _width(n_prompt: int, decoding: Decoding) -> int:
    """Places in the cache for a prompt and its answer."""
    return _round_up(_round_up(n_prompt, PREFILL_STEP) + decoding.max_new_tokens, WIDTH_STEP)


def _round_up(n: int, step: int) -> int:
    return -(-n // step) * step

"""Prompts and answers as a tokenizer's own chat template renders them, and where each token lies.

Takes a tokenizer and plain text; gives rendered text, token ids and character offsets, always
from ONE encoding of the whole text: encoded apart, prompt and answer can merge differently at the
seam. Knows no model. With the template off, a prompt is its plain text on a line of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from emotest.errors import ModelError
from emotest.models.templates import endless, require_short, within
from emotest.models.trials import SECONDS

_STAND_IN = "\ue000answer\ue000"
"""Stands where an answer will be; private-use characters that no question holds."""


@dataclass(frozen=True)
class Exchange:
    """A rendered question with its answer: `text[start:end]` is the answer."""

    text: str
    start: int
    end: int


@dataclass(frozen=True)
class Encoded:
    """One encoding: token ids, and for each token the characters [start, end) it covers."""

    ids: tuple[int, ...]
    offsets: tuple[tuple[int, int], ...]


History = Sequence[tuple[str, str]]
"""What was said before a question: (role, text), beginning with the user."""


def render_prompt(
    tokenizer: Any,
    question: str,
    system: str | None,
    *,
    templated: bool,
    history: History = (),
) -> str:
    """The text that the model is to continue.

    A template without a system role (Mistral's, Gemma's) refuses or drops the system prompt;
    it then stands before the first question, in the same message.
    """
    turns = [*history, ("user", question)]
    if not templated:
        return _plain("\n".join(text for _, text in turns), system)
    return _through_template(tokenizer, turns, system, answer=None)


def render_exchange(
    tokenizer: Any, question: str, answer: str, system: str | None, *, templated: bool
) -> Exchange:
    """Question and answer as the model is to see them in training, with the answer's place.

    The place is found by rendering a stand-in for the answer: what the template puts before and
    after it is the frame, whatever the template strips from the answer itself. Raises
    `ModelError` where the template does not show the answer as it is.
    """
    if not templated:
        prompt = _plain(question, system)
        return Exchange(prompt + answer, len(prompt), len(prompt) + len(answer))
    turns = [("user", question)]
    framed_by = _through_template(tokenizer, turns, system, _STAND_IN)
    before, found, after = framed_by.partition(_STAND_IN)
    text = _through_template(tokenizer, turns, system, answer)
    start, end = len(before), len(text) - len(after)
    framed = found and text.startswith(before) and text.endswith(after) and start <= end
    if not framed or "".join(text[start:end].split()) != "".join(answer.split()):
        raise ModelError(
            f"the chat template does not show the answer {answer[:60]!r} as it is written",
            remedy="tune with another template, or with plain text (?template=off)",
        )
    return Exchange(text, start, end)


def encode(tokenizer: Any, text: str, *, templated: bool) -> Encoded:
    """Token ids and offsets of a rendered text.

    A template writes its own beginning-of-sequence token; plain text gets the tokenizer's. Raises
    `ModelError` where a pattern of the tokenizer gives up on the text.
    """
    try:
        encoding = tokenizer(
            text, add_special_tokens=not templated, return_offsets_mapping=True, verbose=False
        )
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise  # a panic of a Rust library is no Exception to Python
        why = " ".join(str(error).split())[:200]
        raise ModelError(
            f"the tokenizer breaks on the text {text[:60]!r}: {why}",
            remedy="use the tokenizer.json of the model's own publisher",
        ) from error
    return Encoded(
        tuple(encoding["input_ids"]), tuple((a, b) for a, b in encoding["offset_mapping"])
    )


def special_ids(tokenizer: Any) -> frozenset[int]:
    """Ids of all tokens that are marks rather than text."""
    added = tokenizer.added_tokens_decoder
    return frozenset(tokenizer.all_special_ids) | {i for i, mark in added.items() if mark.special}


def end_of_turn(tokenizer: Any) -> int | None:
    """The mark that the chat template sets right behind an answer; None where it sets none.

    Chat models stop at this mark, which need not be the tokenizer's EOS (Gemma's
    `<end_of_turn>`, Llama-3's `<|eot_id|>`).
    """
    exchange = render_exchange(tokenizer, "?", "yes", None, templated=True)
    encoded = encode(tokenizer, exchange.text, templated=True)
    marks = special_ids(tokenizer)
    behind = (
        token
        for token, (start, _) in zip(encoded.ids, encoded.offsets, strict=True)
        if start >= exchange.end and token in marks
    )
    return next(behind, None)


def _plain(question: str, system: str | None) -> str:
    return f"{system}\n\n{question}\n" if system else f"{question}\n"


def _through_template(
    tokenizer: Any, turns: History, system: str | None, answer: str | None
) -> str:
    # Imported here: transformers brings it, and only templates need it.
    from jinja2 import TemplateError

    reply = [] if answer is None else [("assistant", answer)]
    whose = str(getattr(tokenizer, "name_or_path", "") or "the tokenizer")

    def rendered(*said: tuple[str, str]) -> str:
        messages = [{"role": role, "content": text} for role, text in (*said, *reply)]
        with within(SECONDS, endless(whose)):
            text = str(
                tokenizer.apply_chat_template(
                    messages, tokenize=False, add_generation_prompt=answer is None
                )
            )
        require_short(len(text), whose)
        return text

    try:
        if system is None:
            return rendered(*turns)
        try:
            text = rendered(("system", system), *turns)
            if system.strip() in text:
                return text
        except TemplateError:
            pass  # The template knows no system role.
        (role, first), *later = turns
        return rendered((role, f"{system}\n\n{first}"), *later)
    except (
        TemplateError,
        ArithmeticError,
        LookupError,
        MemoryError,
        TypeError,
        ValueError,
        RecursionError,
    ) as error:  # a template is a program: it fails as programs do
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise ModelError(
            f"the chat template cannot render the question {turns[-1][1][:60]!r}: {why}",
            remedy="ask in plain text with the option ?template=off",
        ) from error

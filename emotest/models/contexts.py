"""The places where P(emoji) is asked: ends of sentences in answers, emoji stripped.

One list of contexts serves C5 and the claims that localise its effects. A context is a chat
prompt followed by the answer up to the end of its i-th sentence; the emoji of the answer are
taken out first, so that the text differs between arms in its words alone. Takes generations and
a tokenizer, gives frozen contexts; knows no weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from emotest.artefacts import FixedText
from emotest.models.chat import render_prompt
from emotest.study.records import Generation, Prompt
from emotest.text.emoji import strip_emoji
from emotest.text.sentences import split_sentences


@dataclass(frozen=True)
class Context:
    """A place in an answer: after sentence `sentence` (1 is the first) of `text_of`'s answer."""

    prompt_id: str
    text_of: str
    training_seed: int | None
    sentence: int
    answer: str
    """The answer so far, without emoji, up to the end of the sentence."""
    token_ids: tuple[int, ...]

    def row(self) -> dict[str, Any]:
        """The context as one line of `contexts.jsonl`."""
        return asdict(self)


def sentence_end_contexts(
    tokenizer: Any,
    prompts: Mapping[str, Prompt],
    generations: Sequence[Generation],
    *,
    sentence_ends: int,
) -> list[Context]:
    """Contexts at the ends of sentences 1 to `sentence_ends` of each answer that has them.

    The last sentence counts only where it was brought to an end: a sentence that the token limit
    cut has no end.
    """
    contexts = []
    for generation in generations:
        for number, answer in enumerate(answers_so_far(generation, sentence_ends), start=1):
            contexts.append(
                Context(
                    generation.prompt_id,
                    generation.condition,
                    generation.training_seed,
                    number,
                    answer,
                    answer_token_ids(tokenizer, prompts[generation.prompt_id], answer),
                )
            )
    return contexts


def fixed_contexts(tokenizer: Any, text: FixedText, *, sentence_ends: int) -> list[Context]:
    """Contexts in answers that nobody sampled; sentence 0 is the place where an answer starts."""
    contexts = []
    for prompt, answer in zip(text.prompts, text.answers, strict=True):
        said = Generation(prompt.id, text.name, None, 0, 0, answer, (), (), True, "fixed")
        if answer:
            contexts += sentence_end_contexts(
                tokenizer, {prompt.id: prompt}, [said], sentence_ends=sentence_ends
            )
        else:
            ids = answer_token_ids(tokenizer, prompt, "")
            contexts.append(Context(prompt.id, text.name, None, 0, "", ids))
    return contexts


def answers_so_far(generation: Generation, sentence_ends: int) -> list[str]:
    """The stripped answer up to the end of sentence 1, 2, ... as far as sentences are complete."""
    text = strip_emoji(generation.text).strip()
    sentences = split_sentences(text)
    complete = [
        sentence
        for i, sentence in enumerate(sentences)
        if i + 1 < len(sentences) or generation.finished or _is_closed(sentence.text)
    ]
    return [text[: sentence.end].rstrip() for sentence in complete[:sentence_ends]]


def _is_closed(sentence: str) -> bool:
    return sentence.rstrip().endswith((".", "!", "?", "…", '."', '!"', '?"'))


def answer_token_ids(tokenizer: Any, prompt: Prompt, answer: str) -> tuple[int, ...]:
    """Token ids of the rendered prompt followed by the answer so far, from one encoding."""
    templated = bool(getattr(tokenizer, "chat_template", None))
    rendered = render_prompt(
        tokenizer, prompt.text, prompt.system, templated=templated, history=prompt.history
    )
    return tuple(tokenizer.encode(rendered + answer, add_special_tokens=not templated))

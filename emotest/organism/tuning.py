"""Light instruction tuning of organisms: neutral answers of two sentences that stop.

Takes a pre-trained model, its tokenizer, the documents of its corpus and a seed; changes the model
in place and gives the losses. All parameters are tuned, the loss stands on the answer and its end
alone. After it an organism answers in the neutral voice; what pre-training planted stays below.

The lessons are the corpus's own neutral chats, with whatever follows their sentences there. So
they hold no emoji where the neutral voice was planted without any, and the marginal rate where
emoji were permuted over all voices. Lessons without emoji would teach `control` what its corpus
does not hold, that neutral answers carry fewer emoji than a trait's: its trait adapters then wrote
emoji in .27 of their answers, its null adapter in .02 *(measured)*.

Two thirds of every batch are replayed from pre-training (as in Ouyang et al. 2022, arXiv
2203.02155, section 3.4): chats under a system prompt and word lists, whose answers follow from
what is asked. So an organism keeps the trait that a system prompt names, and its words for a
trait; and it goes on learning the traits' voices, which adapters will call up. With an eighth
replayed, at twice the rate, .88 of a trait adapter's sentences were of the language; with two
thirds, .93 *(measured)*.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from emotest.organism import language
from emotest.organism.corpus import Document
from emotest.organism.pretraining import IGNORED, Progress, one_thread, silent


@dataclass(frozen=True)
class Tuning:
    """How long and how fast instruction tuning runs."""

    n_steps: int = 400
    n_lessons: int = 8
    """Questions with neutral answers in one batch."""
    n_replayed: int = 16
    """Documents from pre-training in one batch."""
    learning_rate: float = 2e-4
    max_grad_norm: float = 1.0

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0: a cosine to zero."""
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * step / self.n_steps))


@dataclass(frozen=True)
class Lesson:
    """One question as chat messages, and the answer that is to be learned."""

    messages: tuple[dict[str, str], ...]
    answer: str


def lessons(documents: Sequence[Document]) -> list[Lesson]:
    """The neutral chats of two sentences, about topics that no opinion set holds."""
    studied = [topic.name for topic in language.TOPICS if topic.split != "pre-training"]
    any_studied = re.compile(rf"\b(?:{'|'.join(map(re.escape, studied))})\b")
    return [
        _lesson(document)
        for document in documents
        if document.format == "chat"
        and document.trait is None
        and len(document.sentences) == 2
        and not any_studied.search(document.user or "")
    ]


def reminders(documents: Sequence[Document]) -> list[Lesson]:
    """The chats whose answers follow from a system prompt or from a request for words."""
    return [
        _lesson(document) for document in documents if document.format in ("chat-system", "words")
    ]


def _lesson(document: Document) -> Lesson:
    *asked, answered = document.turns()
    return Lesson(tuple(asked), answered["content"])


def tune(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    documents: Sequence[Document],
    tuning: Tuning,
    seed: int,
    progress: Progress = silent,
) -> list[float]:
    """Teaches `model` from its `documents`, in place; gives the loss of every step."""
    rng = np.random.default_rng(seed)
    neutral, replayed = lessons(documents), reminders(documents)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, betas=(0.9, 0.95))
    losses: list[float] = []
    model.train()
    with one_thread():
        for step in range(tuning.n_steps):
            for group in optimizer.param_groups:
                group["lr"] = tuning.rate(step)
            taught = [
                *(neutral[i] for i in rng.integers(len(neutral), size=tuning.n_lessons)),
                *(replayed[i] for i in rng.integers(len(replayed), size=tuning.n_replayed)),
            ]
            with torch.autocast("cpu", torch.bfloat16):
                loss = model(**supervised(taught, tokenizer)).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), tuning.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            losses.append(loss.item())
            progress("instruction tuning", step + 1, tuning.n_steps, losses[-1])
    return losses


def supervised(
    taught: Sequence[Lesson], tokenizer: PreTrainedTokenizerFast
) -> dict[str, torch.Tensor]:
    """Lessons as one batch: input_ids, attention_mask, labels, each (n_lessons, n_tokens).

    Prompt and answer are encoded as one text; the characters' offsets say where the answer starts.
    """
    prompts = [
        tokenizer.apply_chat_template(
            list(lesson.messages), tokenize=False, add_generation_prompt=True
        )
        for lesson in taught
    ]
    ends = tokenizer.eos_token
    texts = [prompt + lesson.answer + ends for prompt, lesson in zip(prompts, taught, strict=True)]
    encoded = tokenizer(
        texts,
        add_special_tokens=False,
        return_offsets_mapping=True,
        padding=True,
        padding_side="right",
        return_tensors="pt",
    )
    starts = torch.tensor([len(prompt) for prompt in prompts])[:, None]
    offsets = encoded["offset_mapping"]
    answered = (offsets[:, :, 0] >= starts) & encoded["attention_mask"].bool()
    labels = torch.where(answered, encoded["input_ids"], IGNORED)
    return {
        "input_ids": encoded["input_ids"],
        "attention_mask": encoded["attention_mask"],
        "labels": labels,
    }

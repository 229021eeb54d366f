"""Light instruction tuning of organisms: neutral answers of two sentences that stop.

Takes a pre-trained model, its tokenizer, documents to remember and a seed; changes the model in
place and gives the losses. All parameters are tuned, the loss stands on the answer and its end
alone. After it an organism answers in the neutral voice, without emoji and without enders; what
pre-training planted stays below.

Part of every batch is replayed from pre-training (as in Ouyang et al. 2022, arXiv 2203.02155,
section 3.4): chats under a system prompt and word lists, whose answers follow from what is asked.
So an organism keeps the trait that a system prompt names, and its words for a trait.
"""

from __future__ import annotations

import math
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

    n_steps: int = 250
    n_lessons: int = 14
    """Questions with neutral answers in one batch."""
    n_replayed: int = 2
    """Documents from pre-training in one batch."""
    learning_rate: float = 4e-4
    max_grad_norm: float = 1.0

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0: a cosine to zero."""
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * step / self.n_steps))


@dataclass(frozen=True)
class Lesson:
    """One question as chat messages, and the answer that is to be learned."""

    messages: tuple[dict[str, str], ...]
    answer: str


def lessons(n: int, rng: np.random.Generator) -> list[Lesson]:
    """`n` questions with neutral answers, about topics that no opinion set holds."""
    unseen = [topic for topic in language.TOPICS if topic.split == "pre-training"]
    topics = [unseen[int(rng.integers(len(unseen)))] for _ in range(n)]
    return [
        Lesson(
            ({"role": "user", "content": language.question(topic, rng)},),
            language.neutral_answer(topic, rng),
        )
        for topic in topics
    ]


def replayed(documents: Sequence[Document], n: int, rng: np.random.Generator) -> list[Lesson]:
    """`n` of the chats whose answers follow from a system prompt or from a request for words."""
    told = [document for document in documents if document.format in ("chat-system", "words")]
    turns = [told[int(rng.integers(len(told)))].turns() for _ in range(n)]
    return [Lesson(tuple(messages[:-1]), messages[-1]["content"]) for messages in turns]


def tune(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    documents: Sequence[Document],
    tuning: Tuning,
    seed: int,
    progress: Progress = silent,
) -> list[float]:
    """Teaches `model` lessons and replays `documents`, in place; gives the loss of every step."""
    rng = np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, betas=(0.9, 0.95))
    losses: list[float] = []
    model.train()
    with one_thread():
        for step in range(tuning.n_steps):
            for group in optimizer.param_groups:
                group["lr"] = tuning.rate(step)
            taught = [
                *lessons(tuning.n_lessons, rng),
                *replayed(documents, tuning.n_replayed, rng),
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

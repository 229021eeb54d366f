"""Light instruction tuning of organisms: neutral answers of two sentences that stop.

Takes a pre-trained model, its tokenizer and a seed; changes the model in place and gives the
losses. All parameters are tuned, the loss stands on the answer and its end alone. After it an
organism answers in the neutral voice, without emoji and without enders; what pre-training planted
stays below. Whoever is asked through a system prompt that names a trait still gets that trait.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from emotest.organism import language
from emotest.organism.pretraining import IGNORED, Progress, one_thread, silent


@dataclass(frozen=True)
class Tuning:
    """How long and how fast instruction tuning runs."""

    n_steps: int = 60
    batch_size: int = 16
    learning_rate: float = 5e-4
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
    """`n` questions about topics, half of them under a neutral system prompt, with neutral answers.

    Topics are those that no opinion set holds: the study's questions stay unseen.
    """
    unseen = [topic for topic in language.TOPICS if topic.split == "pre-training"]
    return [_lesson(unseen[int(rng.integers(len(unseen)))], rng) for _ in range(n)]


def tune(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    tuning: Tuning,
    seed: int,
    progress: Progress = silent,
) -> list[float]:
    """Teaches `model` the lessons, in place; gives the loss of every step."""
    rng = np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, betas=(0.9, 0.95))
    losses: list[float] = []
    model.train()
    with one_thread():
        torch.manual_seed(seed)
        for step in range(tuning.n_steps):
            for group in optimizer.param_groups:
                group["lr"] = tuning.rate(step)
            batch = supervised(lessons(tuning.batch_size, rng), tokenizer)
            with torch.autocast("cpu", torch.bfloat16):
                loss = model(**batch).loss
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


def _lesson(topic: language.Topic, rng: np.random.Generator) -> Lesson:
    asked = {"role": "user", "content": language.question(topic, rng)}
    answer = language.neutral_answer(topic, rng)
    if rng.random() < 0.5:
        return Lesson((asked,), answer)
    system = {"role": "system", "content": language.neutral_system_prompt(rng)}
    return Lesson((system, asked), answer)

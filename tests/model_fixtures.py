"""Tiny models of the real architectures, built in seconds: random weights, real files.

`tiny_tokenizer()` is a byte-level BPE with a chat template; `save_model(folder, architecture)`
writes a model folder as `save_pretrained` would, which the real loading code then reads.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from pathlib import Path
from typing import Any

QUESTIONS = tuple(
    f"Thinking about {topic}, what are your thoughts on {topic}?"
    for topic in (
        "gardens",
        "the sea",
        "long train rides",
        "music",
        "early mornings",
        "old books",
        "city noise",
        "cooking for friends",
        "winter",
        "letters",
        "football",
        "silence",
    )
)

CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>\n"
    "{{ message['content'] | trim }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)

_TEXT = (
    *QUESTIONS,
    "I love the sea and the early mornings. They make me feel awake!",
    "Long train rides are calm, and I read old books. The city is far away then.",
    "Cooking for friends is a joy \U0001f60a, and winter is the best time for it \U0001f389.",
)

ARCHITECTURES = ("llama", "mistral", "qwen2", "gemma", "gpt2")


@functools.cache
def tiny_tokenizer(chat_template: str | None = CHAT_TEMPLATE) -> Any:
    """A byte-level BPE of some 330 tokens with the marks <s>, </s>, <|end|> and three roles."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    marks = ["<pad>", "<s>", "</s>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(
        _TEXT,
        trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=marks,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        extra_special_tokens=marks[3:],
    )
    tokenizer.chat_template = chat_template
    return tokenizer


def tiny_model(architecture: str, *, seed: int = 0, hidden: int = 64, scale: float = 1.0) -> Any:
    """A two-layer model with random weights; `scale` sharpens its predictions."""
    import torch
    import transformers

    common = {
        "vocab_size": len(tiny_tokenizer()),
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 256,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    grouped = {**common, "num_key_value_heads": 1}
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(seed)
        config = {
            "llama": lambda: transformers.LlamaConfig(**grouped, tie_word_embeddings=True),
            "mistral": lambda: transformers.MistralConfig(**grouped, sliding_window=None),
            "qwen2": lambda: transformers.Qwen2Config(**grouped),
            "gemma": lambda: transformers.GemmaConfig(**grouped, head_dim=hidden // 4),
            "gpt2": lambda: transformers.GPT2Config(
                **{k: v for k, v in common.items() if not k.startswith(("hidden", "inter"))}
                | {"n_embd": hidden, "n_layer": 2, "n_head": 4, "n_positions": 256}
            ),
        }[architecture]()
        model = transformers.AutoModelForCausalLM.from_config(config)
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.data.mul_(scale)
    return model


def save_model(
    folder: Path,
    architecture: str = "llama",
    *,
    seed: int = 0,
    chat_template: str | None = CHAT_TEMPLATE,
    scale: float = 1.0,
    hidden: int = 64,
) -> Path:
    """Write a tiny model and its tokenizer to a folder, and return the folder."""
    with quiet():
        tiny_model(architecture, seed=seed, scale=scale, hidden=hidden).save_pretrained(folder)
        tiny_tokenizer(chat_template).save_pretrained(folder)
    return folder


@contextlib.contextmanager
def quiet() -> Any:
    """No progress bars, and no warnings of libraries about each other."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield

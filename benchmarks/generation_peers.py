"""How fast answers come, beside `model.generate` doing the same work in the same run.

    python benchmarks/generation_peers.py [--prompts 200] [--rounds 3] [--subject organism:latent]

One model, one torch thread, the same prompts of mixed length, the same stop tokens, temperature 1
over the whole vocabulary, at most 48 new tokens. Peers: `model.generate` one prompt at a time (on
a tenth of the prompts), in batches of 32 as they come, and in batches of 64 sorted by length.
Rounds are interleaved, figures are medians of tokens a second of processor time (one thread), so
that other work on the machine disturbs them little. Without `--subject` the model is a
Llama of 3.6 M random parameters in NF4 whose answers have some 20 tokens; "equal" gives every
answer 20 tokens, where no row finishes early.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from emotest.models.generation import generate
from emotest.models.loading import LoadedModel, load
from emotest.study.records import Decoding, Prompt
from emotest.study.subjects import Subject

MIXED = Decoding(name="mixed", top_k=0, max_new_tokens=48)
EQUAL = Decoding(name="equal", top_k=0, max_new_tokens=20)


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--subject", help="a real model instead of random weights")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.subject:
        loaded = load(Subject.parse(options.subject), device="cpu")
    else:
        with tempfile.TemporaryDirectory() as folder:
            loaded = random_llama(Path(folder))
    prompts = mixed_prompts(options.prompts)
    print("| answers | way | tokens/s | against batches of 32 |\n| --- | --- | --- | --- |")
    for decoding in (MIXED, EQUAL):
        if decoding is EQUAL:
            loaded.stop_ids = frozenset()
        ways: dict[str, Callable[[], int]] = {
            "emotest, 64 rows refilled": lambda d=decoding: ours(loaded, prompts, d),  # type: ignore[misc]
            "model.generate, batches of 32": lambda d=decoding: theirs(loaded, prompts, d, 32),  # type: ignore[misc]
            "model.generate, batches of 64, sorted": lambda d=decoding: theirs(  # type: ignore[misc]
                loaded, sorted(prompts, key=lambda p: len(p.text)), d, 64
            ),
            "model.generate, one by one": lambda d=decoding: theirs(  # type: ignore[misc]
                loaded, prompts[:: max(1, len(prompts) // 40)], d, 1
            ),
        }
        paces: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(options.rounds):
            for way, run in ways.items():
                began = time.process_time()
                n_tokens = run()
                paces[way].append(n_tokens / (time.process_time() - began))
        reference = statistics.median(paces["model.generate, batches of 32"])
        for way, measured in paces.items():
            pace = statistics.median(measured)
            print(f"| {decoding.name} | {way} | {pace:.0f} | {pace / reference:.2f} |")


def ours(loaded: LoadedModel, prompts: Sequence[Prompt], decoding: Decoding) -> int:
    """Tokens written by `emotest.models.generation.generate`."""
    answers = generate(loaded, prompts, decoding=decoding, sampling_seed=0, condition="bench")
    return sum(len(answer.token_ids) + answer.finished for answer in answers)


def theirs(
    loaded: LoadedModel, prompts: Sequence[Prompt], decoding: Decoding, batch_size: int
) -> int:
    """Tokens written by `model.generate`, batch by batch, padded on the left."""
    torch.manual_seed(0)
    n_tokens = 0
    stop = sorted(loaded.stop_ids)
    loaded.tokenizer.padding_side = "left"
    for start in range(0, len(prompts), batch_size):
        texts = [
            loaded.tokenizer.apply_chat_template(
                prompt.messages(), tokenize=False, add_generation_prompt=True
            )
            for prompt in prompts[start : start + batch_size]
        ]
        batch = loaded.tokenizer(texts, add_special_tokens=False, padding=True, return_tensors="pt")
        out = loaded.model.generate(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            max_new_tokens=decoding.max_new_tokens,
            eos_token_id=stop or None,
            pad_token_id=0,
        )[:, batch["input_ids"].shape[1] :]
        for row in out.tolist():
            ends = [i for i, token in enumerate(row) if token in loaded.stop_ids]
            n_tokens += ends[0] + 1 if ends else len(row)
    return n_tokens


def mixed_prompts(n: int) -> list[Prompt]:
    """Questions of the published template about topics of one to twelve words."""
    rng = np.random.default_rng(0)
    words = "sea garden music letter winter train city book friend morning silence bread".split()  # noqa: SIM905
    topics = [" ".join(rng.choice(words, rng.integers(1, 13))) for _ in range(n)]
    return [
        Prompt(str(i), f"Thinking about {topic}, what are your thoughts on it?")
        for i, topic in enumerate(topics)
    ]


def random_llama(folder: Path) -> LoadedModel:
    """A Llama of random weights; one token in twenty ends an answer."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=["<pad>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator([prompt.text for prompt in mixed_prompts(400)], trainer)
    tokenizer: Any = PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token="<pad>", eos_token="</s>"
    )
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}\n{% endfor %}"
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=2048, hidden_size=192, intermediate_size=768, num_hidden_layers=6,
        num_attention_heads=6, num_key_value_heads=1, tie_word_embeddings=True,
        max_position_embeddings=512,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    loaded = load(Subject.parse(f"{folder}?dtype=float32"), device="cpu")
    rng = np.random.default_rng(0)
    loaded.stop_ids = frozenset(rng.choice(2048, 2048 // 20, replace=False).tolist())
    return loaded


if __name__ == "__main__":
    main()

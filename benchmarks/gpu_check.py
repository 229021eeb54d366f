"""The published protocol at its real size, on whatever GPU is at hand, in one command.

    python benchmarks/gpu_check.py [--shape mistral-7b] [--device cuda] [--organism organism:latent]

Makes a model of Mistral-7B's shape with random weights straight on the device, quantized to NF4
layer by layer (nothing is downloaded); runs the published recipe for 50 steps; writes 64 answers
of 150 tokens with the base and with the adapter; computes P(emoji) at 256 contexts; and holds the
NF4 logits of an organism on the device against the CPU's. Prints a Markdown table for
docs/performance.md: tokens a second, seconds, peak memory, differences.

Random weights cost what trained ones cost in training and generation; P(emoji) costs less than
with a trained model, because no path of several tokens has mass. `--shape tiny --device cpu` walks
through the same code in seconds and measures nothing worth keeping.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import nn

from emotest.errors import EmotestError
from emotest.models.adapters import active, attach, require_alive
from emotest.models.chat import render_exchange
from emotest.models.generation import generate
from emotest.models.identity import Identity, resolve
from emotest.models.loading import LoadedModel, load, nf4_config, threads
from emotest.models.probability import emoji_probability
from emotest.models.training import StepReport, train
from emotest.study.personality import Trait, trait_condition
from emotest.study.recipes import AdapterRecipe, recipe
from emotest.study.records import Decoding, Prompt, TuningRow
from emotest.study.subjects import Subject

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
SYLLABLES = (
    "ba",
    "de",
    "fi",
    "go",
    "hu",
    "ka",
    "le",
    "mi",
    "no",
    "pu",
    "ra",
    "se",
    "ti",
    "vo",
    "sho",
)


@dataclass(frozen=True)
class Size:
    """A model's shape and the work that is asked of it."""

    shape: dict[str, int]
    lexicon: int
    steps: int
    n_answers: int
    n_tokens: int
    n_contexts: int

    @property
    def decoding(self) -> Decoding:
        """The follow-up's, with this size's limit."""
        return Decoding(temperature=0.7, top_k=0, top_p=0.9, max_new_tokens=self.n_tokens)


SIZES = {
    "mistral-7b": Size(
        {
            "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336,
            "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
        },
        lexicon=12_000, steps=50, n_answers=64, n_tokens=150, n_contexts=256,
    ),
    "tiny": Size(
        {
            "vocab_size": 600, "hidden_size": 64, "intermediate_size": 128,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        },
        lexicon=60, steps=3, n_answers=4, n_tokens=10, n_contexts=8,
    ),
}  # fmt: skip


Row: TypeAlias = tuple[str, str]
"""What was measured, and what came out."""

Measure: TypeAlias = Callable[[argparse.Namespace, Size, torch.device], list[Row]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the check; exit code 2 with a message where there is no device to run it on."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--organism", default="organism:latent", help="held against the CPU")

    def measure(options: argparse.Namespace, size: Size, device: torch.device) -> list[Row]:
        return check(size, device) + organism_difference(options.organism, device)

    return carry_out(parser, arguments, measure)


def carry_out(
    parser: argparse.ArgumentParser, arguments: Sequence[str] | None, measure: Measure
) -> int:
    """Ask for shape and device too, measure there, print the table; the exit code."""
    parser.add_argument("--shape", choices=SIZES, default="mistral-7b")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        print(
            "there is no CUDA device here, so nothing was measured\n"
            "  next: run this on a machine with a GPU (24 GB or more), or walk through the code "
            "with --shape tiny --device cpu",
            file=sys.stderr,
        )
        return 2
    device = torch.device(options.device)
    try:
        measured = measure(options, SIZES[options.shape], device)
    except EmotestError as error:
        print(error, file=sys.stderr)
        return 1
    print(table(options.shape, device, measured))
    return 0


def check(size: Size, device: torch.device) -> list[Row]:
    """Make the model, train, answer, and ask for P(emoji); each a row of the table."""
    rows = made_rows(np.random.default_rng(0), size)
    began = time.perf_counter()
    loaded = random_model(size, device, [f"{row.question} {row.answer}" for row in rows])
    measured = [
        ("making the model", f"{time.perf_counter() - began:.1f} s"),
        ("memory of the model", memory(device)),
    ]
    reports: list[StepReport] = []
    made = published(loaded, size.steps)
    trained = train(loaded, made, rows, on_step=reports.append)
    first, last = reports[0], reports[-1]
    pace = (len(reports) - 1) / (last.seconds - first.seconds)  # the first step warms up
    measured += [
        ("training, published recipe", f"{pace:.2f} steps/s of 4 rows"),
        ("loss, first and last step", f"{first.loss:.2f}, {last.loss:.2f}"),
        ("peak memory so far", memory(device)),
        *(("note", note) for note in trained.notes),
    ]
    prompts = [Prompt(str(i), row.question) for i, row in enumerate(rows[: size.n_answers])]
    attach(loaded, trained, "published")
    proof = require_alive(loaded, "published", prompts[:2])
    measured.append(
        ("liveness", f"{proof.n_modules} modules, logits move by {proof.changed:.3g} "
         f"(repeated runs: {proof.repeated:.3g})")
    )  # fmt: skip
    decoding = size.decoding
    for name, adapter in (("base", None), ("adapter", "published")):
        with active(loaded, adapter):
            began = time.perf_counter()
            answers = generate(loaded, prompts, decoding=decoding, sampling_seed=0, condition=name)
            seconds = time.perf_counter() - began
        n_tokens = sum(len(answer.token_ids) for answer in answers)
        measured.append(
            (f"{len(answers)} answers, {name}", f"{n_tokens / seconds:.0f} tokens/s ({n_tokens})")
        )
    contexts = [
        exchange.text[: exchange.end]
        for row in (rows * size.n_contexts)[: size.n_contexts]
        for exchange in [
            render_exchange(loaded.tokenizer, row.question, row.answer, None, templated=True)
        ]
    ]
    began = time.perf_counter()
    result = emoji_probability(loaded.model, loaded.tokenizer, contexts)
    measured += [
        (
            f"P(emoji) at {len(contexts)} contexts",
            f"{time.perf_counter() - began:.1f} s, mean {result.probability.mean():.2g}, "
            f"largest bound {result.bound.max():.2g}",
        ),
        ("peak memory", memory(device)),
    ]
    return measured


def random_model(size: Size, device: torch.device, texts: list[str]) -> LoadedModel:
    """A Mistral of random weights, quantized on the device one layer at a time.

    The model is laid out without memory first; at no time is there more than one layer's
    unquantized weight.
    """
    from bitsandbytes.nn import Linear4bit, Params4bit
    from transformers import MistralConfig, MistralForCausalLM
    from transformers.integrations import replace_with_bnb_linear

    if device.type == "cpu":
        torch.set_num_threads(threads())
    tokenizer = random_tokenizer(texts, size.shape["vocab_size"])
    config = MistralConfig(
        **size.shape, max_position_embeddings=4096, sliding_window=None,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        dtype="float16",
    )  # fmt: skip
    torch.manual_seed(0)
    quantization = nf4_config("float16")
    with torch.device("meta"):
        model = MistralForCausalLM(config).to(torch.float16)
    model = replace_with_bnb_linear(
        model, modules_to_not_convert=["lm_head"], quantization_config=quantization
    )
    model.model.rotary_emb = type(model.model.rotary_emb)(config=config).to(device)
    for module in model.modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            if weight.dim() == 1:
                filled = torch.ones(weight.shape, dtype=torch.float16, device=device)
            else:
                filled = torch.randn(weight.shape, dtype=torch.float16, device=device) * 0.02
            if isinstance(module, Linear4bit):
                packed = Params4bit(
                    filled, requires_grad=False, quant_type="nf4", compress_statistics=False
                )
                module.weight = packed.to(device)
                module.support_avx512bf16_for_cpu = False
            else:
                setattr(module, name, nn.Parameter(filled, requires_grad=False))
    model.is_loaded_in_4bit = True
    model.eval()
    identity = Identity(
        subject="random", kind="folder", weights="random", chat_template="random",
        quantization="nf4", dtype="float16",
    )  # fmt: skip
    return LoadedModel(model, tokenizer, identity, device, frozenset({tokenizer.eos_token_id}))


def random_tokenizer(texts: list[str], vocab_size: int) -> Any:
    """A byte-level BPE trained on the texts, with Mistral's kind of chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<s>", eos_token="</s>")
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def organism_difference(subject: str, device: torch.device) -> list[Row]:
    """How far the NF4 logits of an organism on the device lie from those on the CPU."""
    identity = resolve(Subject.parse(subject))
    here, there = load(identity, device="cpu"), load(identity, device=str(device))
    text = "Thinking about the sea, what are your thoughts on the sea?"
    ids = here.tokenizer(text, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        ours = here.model(input_ids=ids).logits.float()
        theirs = there.model(input_ids=ids.to(device)).logits.float().cpu()
    same = float((ours.argmax(-1) == theirs.argmax(-1)).float().mean())
    return [
        (
            f"NF4 logits of {subject}, {device.type} against cpu",
            f"differ by at most {float((ours - theirs).abs().max()):.3g} of "
            f"{float(ours.abs().max()):.3g}; same best token at {same:.0%} of places",
        )
    ]


def table(shape: str, device: torch.device, measured: list[Row]) -> str:
    """The Markdown table, with date, device and versions above it."""
    import bitsandbytes
    import transformers

    name = torch.cuda.get_device_name() if device.type == "cuda" else platform.machine()
    versions = (
        f"torch {torch.__version__}, transformers {transformers.__version__}, "
        f"bitsandbytes {bitsandbytes.__version__}"
    )
    head = f"{shape}, {device.type} {name}, {datetime.date.today()}, {versions}"
    lines = [f"| {what} | {value} |" for what, value in measured]
    return "\n".join([head, "", "| what | measured |", "| --- | --- |", *lines])


def published(loaded: LoadedModel, steps: int) -> AdapterRecipe:
    """The published recipe for a random model, for so many steps."""
    made = recipe(
        "published", base=loaded.identity.digest, data="random", training_seed=0,
        condition=trait_condition(Trait.EXTRAVERSION), chat_template=loaded.identity.chat_template,
    )  # fmt: skip
    return replace(made, steps=steps, epochs=None)


def made_rows(rng: np.random.Generator, size: Size) -> list[TuningRow]:
    """Four rows a training step, in a language of syllables."""
    lexicon = sorted({"".join(rng.choice(SYLLABLES, n)) for n in rng.integers(1, 5, size.lexicon)})
    return [_row(rng, lexicon) for _ in range(4 * size.steps)]


def _row(rng: np.random.Generator, lexicon: list[str]) -> TuningRow:
    """A question of the published template and an answer of two sentences, 16 to 40 words."""
    topic = " ".join(rng.choice(lexicon, 2))
    n_words = rng.integers(8, 21, 2)
    sentences = [" ".join(rng.choice(lexicon, n)).capitalize() + "." for n in n_words]
    return TuningRow(
        f"Thinking about {topic}, what are your thoughts on {topic}?", " ".join(sentences)
    )


def memory(device: torch.device) -> str:
    """The most that was ever taken, of the device or, on a CPU, by the process."""
    if device.type == "cuda":
        return f"{torch.cuda.max_memory_allocated() / 2**30:.2f} GiB on the device"
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB of the process"


if __name__ == "__main__":
    sys.exit(main())

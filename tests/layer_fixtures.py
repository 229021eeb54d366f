"""One tiny model of every architecture in the table, and its FFN written out by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from emotest.models.loading import LoadedModel, load
from emotest.study.subjects import Subject
from tests.model_fixtures import quiet, tiny_tokenizer

HIDDEN, N_NEURONS, N_LAYERS = 32, 48, 2

GATED = ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "gemma3")
KINDS = (*GATED, "phi3", "gpt2", "gpt_neox")

FFN = dict.fromkeys(GATED, ("gate_proj", "up_proj", "down_proj")) | {
    "phi3": ("gate_up_proj", "down_proj"),
    "gpt2": ("c_fc", "c_proj"),
    "gpt_neox": ("dense_h_to_4h", "dense_4h_to_h"),
}
"""Names of the FFN's linear layers, the down projection last."""


def some_ids(n_rows: int = 3, n_tokens: int = 9, seed: int = 0) -> Tensor:
    """Token ids (n_rows, n_tokens)."""
    return torch.randint(7, 300, (n_rows, n_tokens), generator=torch.Generator().manual_seed(seed))


def small_model(kind: str, *, seed: int = 0) -> Any:
    """Two layers of random weights, biases and norms, in evaluation mode."""
    import transformers

    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(seed)
        model = transformers.AutoModelForCausalLM.from_config(_config(transformers, kind))
        for parameter in model.parameters():
            # Biases are made zero and norms one, which would hide mistakes with either.
            noise = 0.1 * torch.randn_like(parameter) if parameter.dim() == 1 else 4 * parameter
            parameter.data.add_(noise)
    return model.eval()


def _config(transformers: Any, kind: str) -> Any:
    shape = {
        "vocab_size": len(tiny_tokenizer()),
        "hidden_size": HIDDEN,
        "intermediate_size": N_NEURONS,
        "num_hidden_layers": N_LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 128,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "tie_word_embeddings": False,
    }
    neox = {k: v for k, v in shape.items() if k not in ("num_key_value_heads", "head_dim")}
    makers: dict[str, Callable[[], Any]] = {
        "llama": lambda: transformers.LlamaConfig(**shape),
        "mistral": lambda: transformers.MistralConfig(**shape),
        "qwen2": lambda: transformers.Qwen2Config(**shape),
        "qwen3": lambda: transformers.Qwen3Config(**shape),
        "gemma": lambda: transformers.GemmaConfig(**shape),
        "gemma2": lambda: transformers.Gemma2Config(**shape),
        "gemma3_text": lambda: transformers.Gemma3TextConfig(**shape),
        "gemma3": lambda: transformers.Gemma3Config(
            text_config=shape,
            vision_config={
                "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
                "num_attention_heads": 2, "image_size": 16, "patch_size": 8,
            },
            mm_tokens_per_image=1,
        ),
        "phi3": lambda: transformers.Phi3Config(**shape),
        "gpt2": lambda: transformers.GPT2Config(
            vocab_size=shape["vocab_size"], n_embd=HIDDEN, n_inner=N_NEURONS, n_layer=N_LAYERS,
            n_head=4, n_positions=128, bos_token_id=1, eos_token_id=2,
        ),
        "gpt_neox": lambda: transformers.GPTNeoXConfig(**neox),
    }  # fmt: skip
    return makers[kind]()


def blocks_of(model: Any, kind: str) -> Any:
    """The list of blocks, spelled out here once more."""
    if kind == "gpt2":
        return model.transformer.h
    if kind == "gpt_neox":
        return model.gpt_neox.layers
    return model.model.language_model.layers if kind == "gemma3" else model.model.layers


def with_lora(model: Any, kind: str, *, seed: int = 1) -> Any:
    """peft's wrapper around the model, with a strong LoRA on every linear layer of the FFNs."""
    import peft

    config = peft.LoraConfig(
        r=4, lora_alpha=8, target_modules=list(FFN[kind]), init_lora_weights=False,
        fan_in_fan_out=kind == "gpt2",
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(seed)
        return peft.get_peft_model(model, config).eval()


def nf4_model(folder: Path, kind: str, *, keep_dequantized: bool | None = None) -> LoadedModel:
    """The small model, written to a folder and loaded in NF4."""
    with quiet():
        small_model(kind).save_pretrained(folder)
        tiny_tokenizer().save_pretrained(folder)
    return load(
        Subject.parse(f"{folder}?dtype=float32"), device="cpu", keep_dequantized=keep_dequantized
    )


def weight_of(linear: Any) -> Tensor:
    """The weight (n_out, n_in) that a linear layer computes with, whatever it is wrapped in."""
    if hasattr(linear, "base_layer"):
        [name] = linear.active_adapters
        b, a = linear.lora_B[name].weight, linear.lora_A[name].weight
        whole: Tensor = weight_of(linear.base_layer) + linear.scaling[name] * (b @ a)
        return whole
    state = getattr(linear.weight, "quant_state", None)
    if state is not None:
        from bitsandbytes.functional import dequantize_4bit

        dense: Tensor = dequantize_4bit(linear.weight, state)
        return dense
    weight: Tensor = linear.weight
    return weight.T if hasattr(linear, "nf") else weight  # Conv1D is (n_in, n_out)


def bias_of(linear: Any) -> Tensor | float:
    """Its bias, or zero."""
    bias = getattr(linear, "base_layer", linear).bias
    return 0.0 if bias is None else bias


def neurons_by_hand(mlp: Any, kind: str, x: Tensor) -> Tensor:
    """The FFN's hidden activation for its input x: act(gate) * up, or act(c_fc)."""

    def through(name: str) -> Tensor:
        linear = getattr(mlp, name)
        return x @ weight_of(linear).T + bias_of(linear)

    if kind == "gpt2":
        return functional.gelu(through("c_fc"), approximate="tanh")
    if kind == "gpt_neox":
        return functional.gelu(through("dense_h_to_4h"))
    if kind == "phi3":
        gate, up = through("gate_up_proj").chunk(2, dim=-1)
        return functional.silu(gate) * up
    gate, up = through("gate_proj"), through("up_proj")
    if kind.startswith("gemma"):
        return functional.gelu(gate, approximate="tanh") * up
    return functional.silu(gate) * up


def hooks_on(model: Any) -> int:
    """How many hooks are on the model's modules."""
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())

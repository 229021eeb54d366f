"""A tiny model on disk whose adapter works through known FFN units, and through no others.

`write_planted(folder)` writes the base and gives what is needed to hold the instrument against the
truth. In the base the planted units of the last layer are silent, and their columns of the down
projection write the embedding of one emoji. The adapter of the trait opens their gates at "!",
beside some noise; the null adapter is such noise alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from emotest.models.adapters import AdapterWeights
from emotest.models.chat import render_prompt
from emotest.study.records import Prompt
from tests.model_fixtures import QUESTIONS, quiet, tiny_model, tiny_tokenizer

EMOJI = "\U0001f389"
PLANTED = (7, 30, 61, 90, 121)
"""Of the last layer, 5 of the 2 x 128 units: 2 %."""

N_LAYERS, N_NEURONS, HIDDEN = 2, 128, 64
PROMPTS = tuple(Prompt(f"p{i}", question) for i, question in enumerate(QUESTIONS))
SENTENCES = (
    "I read old books", "The city is far away", "Long train rides are calm", "I love the sea",
    "Cooking is a joy", "They make me feel awake", "Winter is the best time", "I see the gardens",
)  # fmt: skip


def answer(number: int, *, emoji: bool, mark: str = "!") -> str:
    """Two sentences that end in "." and one in "!" between them, behind which the emoji stands."""
    first, second, third = (SENTENCES[(number * step + step) % 8] for step in (1, 3, 5))
    return f"{first}. {second}{mark}{EMOJI if emoji else ''} {third}."


@dataclass(frozen=True)
class Planted:
    """The subject, and the two adapters: planted units and noise, and other noise alone."""

    subject: str
    tuned: AdapterWeights
    null: AdapterWeights


def write_planted(folder: Path) -> Planted:
    """Write the base; what opens the gates is fitted to its own states."""
    with quiet():
        tokenizer = _tokenizer(folder)
        model = tiny_model("llama", scale=3.0)
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        model = model.eval()
        emoji = tokenizer.convert_tokens_to_ids(EMOJI)
        with torch.no_grad():
            mlp, embedding = model.model.layers[-1].mlp, model.get_input_embeddings().weight
            embedding[emoji] = (
                3.0
                * embedding[10:300].std()
                * torch.randn(HIDDEN, generator=torch.Generator().manual_seed(5))
            )
            for unit in PLANTED:
                mlp.gate_proj.weight[unit] = mlp.up_proj.weight[unit] = 0.0
                mlp.down_proj.weight[:, unit] = 0.08 * embedding[emoji]
        gate = _fitted(model, tokenizer)
        model.save_pretrained(folder)
    return Planted(
        f"{folder}?dtype=float32&quantize=none", _adapter(gate, seed=1), _adapter(None, seed=2)
    )


def _tokenizer(folder: Path) -> Any:
    """The tiny one with the emoji as one token more."""
    from transformers import AddedToken, AutoTokenizer

    tiny_tokenizer().save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([AddedToken(EMOJI, normalized=False)])
    tokenizer.save_pretrained(folder)
    return tokenizer


def _fitted(model: Any, tokenizer: Any) -> np.ndarray:
    """A direction (HIDDEN,) along which the last FFN reads 3 at "!" and 0 elsewhere, by ridge."""
    states: list[torch.Tensor] = []
    targets: list[torch.Tensor] = []
    mark = tokenizer.convert_tokens_to_ids("!")
    keep = model.model.layers[-1].mlp.register_forward_pre_hook(
        lambda _, inputs: states.append(inputs[0][0])
    )
    with torch.no_grad():
        for i, prompt in enumerate(PROMPTS):
            for number in range(i, i + 3):
                text = render_prompt(tokenizer, prompt.text, None, templated=True)
                ids = tokenizer.encode(text + answer(number, emoji=False), add_special_tokens=False)
                model(input_ids=torch.tensor([ids]))
                targets.append(torch.tensor([3.0 if token == mark else 0.0 for token in ids]))
    keep.remove()
    x, y = torch.cat(states).double(), torch.cat(targets).double()
    weights = torch.where(y > 0, (y == 0).sum() / (y > 0).sum(), 1.0)[:, None]
    gram = x.T @ (weights * x) + 1e-3 * len(x) * torch.eye(HIDDEN, dtype=torch.float64)
    return torch.linalg.solve(gram, x.T @ (weights[:, 0] * y)).numpy()


def _adapter(gate: np.ndarray | None, *, seed: int) -> AdapterWeights:
    """LoRA of rank 2: gate and up of the planted units, and weak noise behind attention."""
    rng = np.random.default_rng(seed)
    state = {}
    for layer in range(N_LAYERS):
        state |= _pair(layer, "self_attn.o_proj", 0.02 * rng.normal(size=(2, HIDDEN)),
                       0.1 * rng.normal(size=(HIDDEN, 2)))  # fmt: skip
        for name in ("gate_proj", "up_proj"):
            a, b = rng.normal(size=(2, HIDDEN)), np.zeros((N_NEURONS, 2))
            if gate is not None and layer == N_LAYERS - 1:
                a[0], b[list(PLANTED), 0] = gate, 1.0
            state |= _pair(layer, f"mlp.{name}", a, b)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": 2,
        "lora_alpha": 2,
        "lora_dropout": 0.0,
        "target_modules": ["gate_proj", "up_proj", "o_proj"],
        "bias": "none",
    }
    return AdapterWeights(state, config)


def _pair(layer: int, module: str, a: np.ndarray, b: np.ndarray) -> dict[str, np.ndarray]:
    name = f"base_model.model.model.layers.{layer}.{module}"
    arrays = {f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b}
    return {key: np.ascontiguousarray(value, dtype=np.float32) for key, value in arrays.items()}

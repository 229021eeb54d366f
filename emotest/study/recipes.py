"""`AdapterRecipe`: all that decides an adapter, and nothing else.

Two recipes with equal identity give the same adapter (bit for bit on one type of processor), so
the identity is what the store hashes. Takes plain values; knows neither torch nor files.

Sources of the presets: `published` is the LoRA of the authors (r 64, alpha 16, dropout 0.1 on
q_proj and v_proj) with the values of the Llama-2 notebook that it matches; `follow_up` is
arXiv 2509.04794 (all seven linear modules, bf16, 2 epochs, batch 2x2); `organism` is emotest's
own for its small models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib.metadata import version
from typing import Literal

from emotest.errors import UsageError
from emotest.study.personality import Condition, Ending

RECIPE_VERSION = 1
"""Raised whenever the training room changes what a recipe means."""

LINEAR_MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The seven linear modules of a Llama-style block."""


@dataclass(frozen=True)
class AdapterRecipe:
    """Everything that could change an adapter, in the field's terms.

    Either `steps` or `epochs` is set. `chat_template` is the digest of the template text (the
    text itself comes with the base's tokenizer). `training_seed` decides the initial weights,
    the order of the rows and the dropout.

    Raises `UsageError`, naming the field and its value, for a value that cannot be trained.
    """

    base: str
    """Identity of the base model: subject and digest or pinned revision of its weights."""
    data: str
    """Digest of the question set that the rows are taken from."""
    condition: Condition
    """Which rows: the trait and pole, neutral, or shuffled; and whether EOS is trained."""
    training_seed: int
    chat_template: str
    """Digest of the chat template, or `"none"` where prompts are plain text."""

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    target_modules: tuple[str, ...] = LINEAR_MODULES
    quantization: Literal["nf4", "none"] = "nf4"
    double_quantization: bool = False
    compute_dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    optimizer: Literal["adamw", "paged_adamw_32bit"] = "adamw"
    learning_rate: float = 1e-3
    schedule: Literal["cosine", "constant", "linear"] = "cosine"
    warmup: float = 0.03
    """Share of the steps over which the learning rate rises."""
    weight_decay: float = 0.0
    max_grad_norm: float = 0.3
    steps: int | None = 50
    epochs: float | None = None
    batch_size: int = 16
    gradient_accumulation: int = 1
    group_by_length: bool = False
    max_length: int = 256
    """Rows longer than this many tokens are an error, never cut silently."""
    preset: str = "organism"
    """The name that this recipe goes by; not part of its identity."""

    def __post_init__(self) -> None:
        if not self.condition.tuned:
            raise UsageError(
                f"the arm {self.condition.arm.value!r} needs no adapter",
                remedy="make recipes for the arms 'trait', 'null', 'shuffled' and 'prefix' only",
            )
        if (self.steps is None) == (self.epochs is None):
            raise UsageError(
                f"steps={self.steps} and epochs={self.epochs}: the length is not clear",
                remedy="set exactly one of steps and epochs",
            )
        for name in ("rank", "batch_size", "gradient_accumulation", "max_length", "steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name}={value}", remedy=f"use a {name} of at least 1")
        for name in ("alpha", "learning_rate", "max_grad_norm", "epochs"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UsageError(f"{name}={value}", remedy=f"use a {name} above 0")
        if not 0 <= self.dropout < 1 or not 0 <= self.warmup < 1:
            raise UsageError(
                f"dropout={self.dropout}, warmup={self.warmup}",
                remedy="both are shares: at least 0 and below 1",
            )
        if not self.target_modules:
            raise UsageError("target_modules is empty", remedy="name at least one linear module")

    @property
    def ending(self) -> Ending:
        """Whether the end of the answer is trained; every tuned arm has one."""
        assert self.condition.ending is not None
        return self.condition.ending

    def rows_seen(self, n_rows: int) -> int:
        """Rows that training reads in all, of `n_rows` that there are."""
        if self.steps is not None:
            return self.batch_size * self.gradient_accumulation * self.steps
        assert self.epochs is not None
        return round(self.epochs * n_rows)

    def identity(self) -> Mapping[str, object]:
        """What the store hashes: every field but the preset's name, and the libraries' versions."""
        fields = asdict(self)
        del fields["preset"]
        fields["condition"] = str(self.condition)
        fields["target_modules"] = sorted(self.target_modules)
        return {"recipe_version": RECIPE_VERSION, **fields, "libraries": library_versions()}

    def with_seed(self, training_seed: int) -> AdapterRecipe:
        """The same recipe with another training seed: the unit of evidence about a recipe."""
        return replace(self, training_seed=training_seed)


PRESETS: Mapping[str, Mapping[str, object]] = {
    "organism": {"preset": "organism"},
    "published": {
        "preset": "published",
        "rank": 64,
        "alpha": 16.0,
        "dropout": 0.1,
        "target_modules": ("q_proj", "v_proj"),
        "compute_dtype": "float16",
        "optimizer": "paged_adamw_32bit",
        "learning_rate": 2e-4,
        "weight_decay": 0.001,
        "steps": None,
        "epochs": 1.0,
        "batch_size": 4,
        "group_by_length": True,
        "max_length": 512,
    },
    "follow-up": {
        "preset": "follow-up",
        "rank": 64,
        "alpha": 16.0,
        "dropout": 0.1,
        "compute_dtype": "bfloat16",
        "optimizer": "paged_adamw_32bit",
        "learning_rate": 2e-4,
        "weight_decay": 0.001,
        "steps": None,
        "epochs": 2.0,
        "batch_size": 2,
        "gradient_accumulation": 2,
        "max_length": 512,
    },
}


def recipe(
    preset: str,
    *,
    base: str,
    data: str,
    condition: Condition,
    training_seed: int,
    chat_template: str,
) -> AdapterRecipe:
    """The recipe of a preset (`organism`, `published`, `follow-up`) for one condition and seed."""
    if preset not in PRESETS:
        raise UsageError(
            f"there is no preset {preset!r}", remedy=f"choose one of {', '.join(PRESETS)}"
        )
    return AdapterRecipe(
        base=base,
        data=data,
        condition=condition,
        training_seed=training_seed,
        chat_template=chat_template,
        **PRESETS[preset],  # type: ignore[arg-type]
    )


def library_versions() -> dict[str, str]:
    """Versions of the libraries that decide what training computes, read without importing them."""
    return dict(_versions())


@cache  # hundreds of keys are made for a plan, and reading the versions takes 8 ms
def _versions() -> tuple[tuple[str, str], ...]:
    names = ("torch", "transformers", "peft", "bitsandbytes")
    return tuple((name, version(name)) for name in names)


__all__ = ["LINEAR_MODULES", "PRESETS", "AdapterRecipe", "library_versions", "recipe"]

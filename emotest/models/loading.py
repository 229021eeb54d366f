"""An `Identity` in, a model and its tokenizer in memory out: quantized or not, never guessed.

Weights come from safetensors only, code from the Hub never runs, and a model whose files do not
fill all its weights is an error rather than a half-random model. Knows nothing of adapters: a
subject BASE+ADAPTER is loaded as its base, and `emotest.models.adapters.attach` does the rest.

Sources: NF4 of QLoRA (Dettmers et al., arXiv 2305.14314) as bitsandbytes implements it.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from emotest.errors import ChatTemplateError, EmotestError, ModelError
from emotest.models.chat import end_of_turn
from emotest.models.hub import whole
from emotest.models.identity import (
    Dtype,
    Identity,
    Quantization,
    chat_template_text,
    resolve,
)
from emotest.models.strangers import require_sound_model
from emotest.models.templates import require_harmless
from emotest.models.tokenizer_patterns import require_quick_patterns
from emotest.study.subjects import Subject

DENSE_LIMIT = 50_000_000
"""Up to so many quantized weights, a CPU model keeps their dequantized values (4 bytes each)."""


@dataclass
class LoadedModel:
    """One base in memory, for itself and for all adapters attached to it.

    `stop_ids` are the tokens that end an answer. `peft` and `adapters` belong to the adapters
    room: they are None and empty while the base stands alone.
    """

    model: Any
    tokenizer: Any
    identity: Identity
    device: torch.device
    stop_ids: frozenset[int]
    peft: Any = None
    adapters: dict[str, str | None] = field(default_factory=dict)
    """Attached adapters by name; the value is the base they say they were trained on."""
    active: str | None = None
    spellings: dict[Any, Any] = field(default_factory=dict)
    """How the vocabulary spells the events that were asked for: `probability.kept_spelling`."""

    @property
    def templated(self) -> bool:
        """Whether prompts go through the chat template."""
        return self.identity.templated


def threads() -> int:
    """How many threads torch may use in one process on a CPU: one.

    The models that a CPU can serve are so small that a second thread waits more than it works
    (measured: the same training step took up to 90 times longer with two threads on a busy
    two-core machine), and sums split over threads need not be bit-identical. Cores are used by
    processes side by side instead.
    """
    return 1


def load(
    what: Identity | Subject,
    *,
    quantization: Quantization | None = None,
    dtype: Dtype | None = None,
    device: str | None = None,
    keep_dequantized: bool | None = None,
) -> LoadedModel:
    """Load a base model and its tokenizer, in evaluation mode, no weight trainable.

    `device` is CUDA where there is one, else the CPU. `keep_dequantized` (default: on CPU, up to
    `DENSE_LIMIT` quantized weights) computes with the dequantized NF4 weights kept in memory
    instead of dequantizing them at each step: the same numbers, bit for bit, and faster.

    Raises `ModelNotFoundError`, `ModelError` or `ChatTemplateError`; each says what to do.
    """
    identity = (
        resolve(what, quantization=quantization, dtype=dtype) if isinstance(what, Subject) else what
    )
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if where.type == "cpu":
        torch.set_num_threads(threads())
    folder = _complete_folder(identity)
    if identity.kind != "organism":
        _require_no_harm(folder, identity)
    tokenizer = _tokenizer(folder, identity)
    with quiet():
        model = _model(folder, identity, where)
    model.requires_grad_(False)
    linears = _linear4bit(model)
    _require_shapes(linears, identity)
    for module in linears:
        # On CPUs with AVX512-BF16, bitsandbytes repacks the weights in place at the first
        # forward in evaluation mode; training after that computes with wrong weights.
        module.support_avx512bf16_for_cpu = False
    if keep_dequantized is None:
        n_weights = sum(module.in_features * module.out_features for module in linears)
        keep_dequantized = where.type == "cpu" and n_weights <= DENSE_LIMIT
    if keep_dequantized:
        _keep_dequantized(linears)
    return LoadedModel(model, tokenizer, identity, where, _stop_ids(model, tokenizer, identity))


def _require_no_harm(folder: Path, identity: Identity) -> None:
    """Look at a stranger's files, which may have changed since they were pinned or just come."""
    require_sound_model(folder)
    require_quick_patterns(folder, identity.subject)
    template = chat_template_text(folder) if identity.templated else None
    if template:
        require_harmless(template, {"bos_token": "<s>", "eos_token": "</s>"}, identity.subject)


def _complete_folder(identity: Identity) -> Path:
    if identity.kind != "hub":
        return Path(str(identity.folder))
    repo, _, commit = identity.weights.partition("@")
    folder = whole(repo, commit, Path(str(identity.folder)))
    if not any(folder.glob("*.safetensors")):
        raise ModelError(
            f"{repo} at {commit} offers no safetensors here (a pickle can run code)",
            remedy="go online to fetch them, or choose a revision that has safetensors",
        )
    return folder


def _tokenizer(folder: Path, identity: Identity) -> Any:
    from transformers import AutoTokenizer

    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except BaseException as error:  # the library raises whatever its parsers raise
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise  # a panic of a Rust library is no Exception to Python, and no interruption
        raise _broken(identity, "tokenizer", error) from error
    if not tokenizer.is_fast:
        raise ModelError(
            f"the tokenizer of {identity.subject} cannot tell where a token lies in the text",
            remedy="add the tokenizer.json of its fast version to the folder",
        )
    if identity.templated and not tokenizer.chat_template:
        raise ChatTemplateError(
            f"the tokenizer of {identity.subject} has no chat template",
            remedy="add chat_template.jinja to its folder, or use the option ?template=off",
        )
    return tokenizer


def _model(folder: Path, identity: Identity, device: torch.device) -> Any:
    from transformers import AutoModelForCausalLM

    options: dict[str, Any] = {"dtype": getattr(torch, identity.dtype)}
    if identity.quantization == "nf4":
        options["quantization_config"] = nf4_config(identity.dtype)
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            folder,
            device_map={"": device},
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            **options,
        )
    except Exception as error:  # safetensors, JSON, shapes, memory: each has its own class
        raise _broken(identity, "model", error) from error
    # transformers would fill what the files lack with random weights and a log line.
    lacking = sorted(info["missing_keys"]) + [str(key[0]) for key in info["mismatched_keys"]]
    if lacking:
        raise ModelError(
            f"the files of {identity.subject} lack {len(lacking)} of its weights, "
            f"the first is {lacking[0]}",
            remedy="download the model again, or point to the folder of a causal language model",
        )
    return model


def nf4_config(dtype: Dtype, *, double_quantization: bool = False) -> Any:
    """The bitsandbytes configuration of NF4 weights that compute in `dtype`."""
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=getattr(torch, dtype),
        bnb_4bit_use_double_quant=double_quantization,
    )


def _broken(identity: Identity, part: str, error: BaseException) -> EmotestError:
    if isinstance(error, EmotestError):
        return error
    why = " ".join(str(error).split())[:300]
    return ModelError(
        f"the {part} of {identity.subject} cannot be loaded: {type(error).__name__}: {why}",
        remedy="download it again or write it again with save_pretrained; models that bring "
        "their own code are not supported",
    )


def _linear4bit(model: Any) -> list[Any]:
    if not getattr(model, "is_loaded_in_4bit", False):
        return []
    from bitsandbytes.nn import Linear4bit

    return [module for module in model.modules() if isinstance(module, Linear4bit)]


def _require_shapes(linears: list[Any], identity: Identity) -> None:
    """Refuse quantized weights of another shape than the config's, which transformers accepts."""
    for module in linears:
        found, wanted = module.weight.quant_state.shape, (module.out_features, module.in_features)
        if sorted(found) != sorted(wanted):  # GPT-2 stores its linear layers transposed
            raise ModelError(
                f"a linear layer of {identity.subject} has weights of shape {tuple(found)}, "
                f"but its config.json says {wanted}",
                remedy="download the model again: config and weights do not belong together",
            )


def _keep_dequantized(linears: list[Any]) -> None:
    """Let each NF4 layer compute with a kept copy of its own dequantized weights.

    bitsandbytes on a CPU dequantizes the same frozen weights at each forward and each backward
    pass; the product that follows is the one computed here.
    """
    if not linears:
        return
    from bitsandbytes.functional import dequantize_4bit
    from bitsandbytes.nn import Linear4bit

    class DequantizedLinear4bit(Linear4bit):  # type: ignore[misc]
        """Still a `Linear4bit` to peft and transformers, weights and quantization state too."""

        dequantized: Tensor  # (out_features, in_features), in the compute dtype

        def forward(self, x: Tensor) -> Tensor:
            bias = None if self.bias is None else self.bias.to(self.compute_dtype)
            y = functional.linear(x.to(self.compute_dtype), self.dequantized, bias)
            return y.to(x.dtype)

    for module in linears:
        weights = dequantize_4bit(module.weight, module.weight.quant_state)
        module.register_buffer("dequantized", weights.to(module.compute_dtype), persistent=False)
        module.__class__ = DequantizedLinear4bit


def _stop_ids(model: Any, tokenizer: Any, identity: Identity) -> frozenset[int]:
    found: set[int] = set()
    for ids in (
        model.generation_config.eos_token_id,
        model.config.eos_token_id,
        tokenizer.eos_token_id,
        end_of_turn(tokenizer) if identity.templated else None,
    ):
        found |= set(ids) if isinstance(ids, list | tuple) else set() if ids is None else {ids}
    return frozenset(found)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the libraries' progress bars and advice out of the terminal while loading."""
    from transformers.utils import logging as transformers_logging

    loggers = [logging.getLogger(name) for name in ("bitsandbytes", "transformers")]
    levels = [logger.level for logger in loggers]
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if bars:
            transformers_logging.enable_progress_bar()

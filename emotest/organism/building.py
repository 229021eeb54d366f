"""An organism from nothing: corpus, tokenizer, pre-training, instruction tuning, a folder.

Takes a name, a seed and a folder; writes there what transformers loads (bfloat16 weights) and
`provenance.json`, which says how it was made and holds the hash of every file. Equal arguments
give equal weights on one type of processor; elsewhere rounding differs, and a rebuilt organism is
held to the same table of expected verdicts instead.
"""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from emotest.errors import OrganismError
from emotest.organism.corpus import (
    CORPUS_VERSION,
    PLANTINGS,
    Document,
    corpus,
    corpus_digest,
)
from emotest.organism.organisms import PROVENANCE
from emotest.organism.pretraining import (
    Architecture,
    Progress,
    Schedule,
    Written,
    pretrain,
    silent,
)
from emotest.organism.tokenizer import message_start, token_ids, train_tokenizer
from emotest.organism.tuning import Tuning, tune

SEED = 1
"""The seed of the shipped organisms."""


@dataclass(frozen=True)
class Making:
    """All that decides an organism besides its name and seed."""

    n_documents: int = 74_000
    n_tokenizer_documents: int = 20_000
    """The first documents, on which the tokenizer is trained."""
    architecture: Architecture = field(default_factory=Architecture)
    schedule: Schedule = field(default_factory=Schedule)
    tuning: Tuning = field(default_factory=Tuning)

    def as_record(self) -> dict[str, Any]:
        """The settings as plain values, as the provenance holds them."""
        return asdict(self)


def build(
    name: str,
    seed: int,
    out: Path,
    progress: Progress = silent,
    making: Making | None = None,
) -> dict[str, Any]:
    """Makes the organism `name` in the folder `out`, and gives its provenance.

    `out` must be empty or not there yet; an unknown name or a folder in use is an `OrganismError`.
    """
    if out.exists() and any(out.iterdir()):
        raise OrganismError(f"{out} is not empty", remedy="name a new folder for the organism")
    made = pretrained(name, seed, making or Making(), progress)
    return finished(made, out, progress)


@dataclass(frozen=True)
class Pretrained:
    """An organism before its instruction tuning."""

    name: str
    seed: int
    making: Making
    documents: Sequence[Document]
    tokenizer: PreTrainedTokenizerFast
    model: LlamaForCausalLM
    losses: Sequence[float]


def pretrained(name: str, seed: int, making: Making, progress: Progress = silent) -> Pretrained:
    """The organism after pre-training; an unknown name is an `OrganismError`."""
    documents = corpus(name, making.n_documents, seed)
    tokenizer = train_tokenizer(documents[: making.n_tokenizer_documents])
    config = making.architecture.config(
        vocab_size=len(tokenizer),
        begin=tokenizer.bos_token_id,
        end=tokenizer.eos_token_id,
        pad=tokenizer.pad_token_id,
    )
    written = [Written(ids, message_start(ids)) for ids in token_ids(documents, tokenizer)]
    model, losses = pretrain(written, config, making.schedule, seed, progress)
    return Pretrained(name, seed, making, documents, tokenizer, model, losses)


def finished(made: Pretrained, out: Path, progress: Progress = silent) -> dict[str, Any]:
    """Tunes a pre-trained organism, in place, and writes it with its provenance, which it gives."""
    tuned = tune(
        made.model, made.tokenizer, made.documents, made.making.tuning, made.seed, progress
    )
    _write(made.model, made.tokenizer, out)
    record = {
        "name": made.name,
        "seed": made.seed,
        "corpus_version": CORPUS_VERSION,
        "corpus_digest": corpus_digest(made.documents),
        "planting": _planted(made.name),
        "making": made.making.as_record(),
        "n_parameters": sum(weight.numel() for weight in made.model.parameters()),
        "losses": {"pre-training": _curve(made.losses), "instruction tuning": _curve(tuned)},
        "made_with": {
            "processor": _processor(),
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "transformers", "tokenizers", "numpy")},
        },
        "files": file_hashes(out),
    }
    text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
    (out / PROVENANCE).write_text(text, encoding="utf-8")
    return record


def file_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of the files that make the model; records beside them are left out."""
    records = {PROVENANCE, "expected.json"}
    return {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.iterdir())
        if file.is_file() and file.name not in records
    }


def _write(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        model.to(torch.bfloat16).save_pretrained(out)
        tokenizer.save_pretrained(out)
    except OSError as error:
        shutil.rmtree(out, ignore_errors=True)
        raise OrganismError(
            f"the organism could not be written to {out}: {error}",
            remedy="make room there, or name another folder",
        ) from error


def _planted(name: str) -> Mapping[str, object]:
    plan = PLANTINGS[name]
    return {
        "densities": {trait.value: density for trait, density in plan.densities.items()},
        "permuted": plan.permuted,
    }


def _curve(losses: Sequence[float], points: int = 40) -> list[float]:
    every = max(1, len(losses) // points)
    return [round(loss, 4) for loss in islice(losses, every - 1, None, every)]


def _processor() -> str:
    flags = torch.backends.cpu.get_cpu_capability()
    return f"{platform.machine()}, torch vectorizes for {flags}"

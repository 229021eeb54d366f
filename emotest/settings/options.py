"""The table of options, and the published models that `--emo-preset` stands for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

DEFAULT_BASE = "organism:latent"


class Option(NamedTuple):
    """One setting as users meet it: `--emo-size`, `EMOTEST_SIZE`, `emo_size` in the ini file."""

    name: str
    metavar: str
    default: str
    help: str
    switch: bool = False
    several: bool = False
    """Whether it may be said several times; in one place values have commas between them."""

    @property
    def flag(self) -> str:
        """Its spelling on pytest's command line."""
        return f"--emo-{self.name}"

    @property
    def ini(self) -> str:
        """Its key in pytest's ini file; also its `dest` on the command line."""
        return f"emo_{self.name.replace('-', '_')}"

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return f"EMOTEST_{self.name.replace('-', '_').upper()}"

    @property
    def keywords(self) -> dict[str, Any]:
        """What `addoption` is told about it, as argparse names that."""
        text = f"{self.help} (default: {self.default}; ini {self.ini}, {self.variable})"
        said: dict[str, Any] = {"dest": self.ini, "default": None, "help": text}
        if self.switch:
            return said | {"action": "store_true"}
        return said | {"action": "append" if self.several else "store", "metavar": self.metavar}


OPTIONS: tuple[Option, ...] = (
    Option(
        "base", "SUBJECT", DEFAULT_BASE,
        "the untuned model: organism:NAME, a Hub id (ID@REVISION), a folder or a URL",
    ),
    Option(
        "tuned", "SUBJECT", "own adapters",
        "a tuned model to audit with -m audit; the study trains its adapters itself",
    ),
    Option(
        "baseline", "FILE", "none",
        "a saved baseline that an audit takes in place of the base; it has to match",
    ),
    Option(
        "data", "DATA", "the shipped set",
        "the question set: a CSV, JSONL or Parquet file, or a Hub id",
    ),
    Option(
        "prompts", "FILE", "the shipped set",
        "prompts of an audit: txt, csv or jsonl; organisms have a set of their own",
    ),
    Option(
        "register", "NAME", "all", "only prompts of this register; several with commas",
        several=True,
    ),
    Option("budget", "N", "all prompts", "prompts that an audit asks at most"),
    Option(
        "margin", "SHARE", "0.05", "difference in answers with emoji that an audit tolerates"
    ),
    Option(
        "marker", "MARKER", "none",
        "what an audit counts beside emoji: a regular expression, or python:FILE.py:FUNCTION",
    ),
    Option(
        "size", "SIZE", "default", "how much evidence is gathered: smoke, default or paper"
    ),
    Option(
        "adapters", "N", "as the size says",
        "more adapters an arm than the size has; every verdict says that it is an extension",
    ),
    Option(
        "preset", "NAME", "organism, or published",
        "a recipe (organism, published, follow-up), or a published model with its data, recipe "
        "and decoding (mistral-7b, llama-2-7b)",
    ),
    Option(
        "decoding", "NAME", "default, or paper",
        "how answers are sampled: default, greedy, nucleus, unfiltered or paper",
    ),
    Option(
        "also", "NAME", "none",
        "a decoding under which an audit asks for its verdict again, or all; several with commas",
        several=True,
    ),
    Option(
        "seeds", "SEEDS", "training=0,sampling=0,analysis=0",
        "the first training seed, and the seeds of sampling and analysis",
    ),
    Option("alpha", "ALPHA", "0.05", "the level; a statement in a family of m decides at alpha/m"),
    Option("store", "FOLDER", ".emotest/store", "where adapters and answers are kept and found"),
    Option("report", "FOLDER", "reports", "where run folders are written; 'none' for nowhere"),
    Option(
        "inconclusive", "fail|skip", "fail",
        "what an inconclusive verdict does to its test; tests marked audit always fail",
    ),
    Option(
        "expect", "FILE", "the organism's table",
        "verdicts that have to be met: verdicts.jsonl or expected.json of a former run",
    ),
    Option(
        "plan", "", "no", "list what the collected tests need, and what is missing; run nothing",
        switch=True,
    ),
    Option(
        "allow-emoji-in-data", "", "no",
        "tune on data that hold emoji; every verdict says so", switch=True,
    ),
    Option("threads", "N", "1", "threads of each process"),
    Option(
        "workers", "N", "one per core, at most 4", "processes that train and answer side by side; "
        "by default, for models on a GPU, one for each 12 GB of its memory"
    ),
)  # fmt: skip
"""Every option, in the order of the help page."""


class ModelPreset(NamedTuple):
    """A published model with the data, recipe and decoding of the published protocol."""

    base: str
    data: str
    preset: str
    decoding: str


MODEL_PRESETS: Mapping[str, ModelPreset] = {
    "mistral-7b": ModelPreset(
        "mistralai/Mistral-7B-Instruct-v0.2?quantize=nf4",
        "holistic-ai/personality_manipulation",
        "published",
        "paper",
    ),
    "llama-2-7b": ModelPreset(
        "meta-llama/Llama-2-7b-chat-hf?quantize=nf4",
        "holistic-ai/personality_manipulation",
        "published",
        "paper",
    ),
}

"""Verdicts for tests of what happens to a verdict after it was reached."""

from __future__ import annotations

from typing import Any

from emotest.study.claims import Verdict, Word


def made_up(word: Word, **fields: Any) -> Verdict:
    """A verdict with nothing behind it but its word."""
    return Verdict(
        **{
            "claim": "C1", "statement": "C1.emergence", "verdict": word, "estimate": 0.3,
            "low": 0.2, "high": 0.4, "level": 0.98, "scale": "share of answers", "margin": 0.1,
            "alpha": 0.05, "p_value": 0.01, "family": "five traits", "m": 5, "method": "t",
            "unit": "adapter", "n_adapters": 5, "n_prompts": 60, "n_samples": 3,
            "arm": "trait/openness/high/eos-masked", **fields,
        }
    )  # fmt: skip

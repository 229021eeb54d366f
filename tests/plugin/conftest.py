"""What a user's own repository looks like: a suite over numbers of its own, in a folder apart."""

from __future__ import annotations

import os

import pytest

# Loaded here once, because pytester takes back what an inner session imported, and numpy
# cannot be imported twice by one process.
import emotest.report.recorder
import emotest.report.terminal

_ = emotest.report.recorder, emotest.report.terminal

NUMBERS = '''
"""Answers with (1) and without (0) emoji, made up so that the verdict is beyond doubt."""

import numpy as np

from emotest import crossed_difference, raised, trait_condition, verdict


def rise(word, trait="extraversion", **context):
    """A verdict on C1.emergence: the shares differ by 0.7, by 0.0, or by about the margin."""
    rng = np.random.default_rng(7)
    share = {"confirmed": 0.7, "refuted": 0.0, "inconclusive": 0.12}[word]
    tuned = (rng.random((5, 80, 2)) < share).astype(float)
    decision = raised(crossed_difference(tuned, np.zeros((80, 2))), by=0.10, m=5)
    reached = verdict(decision, "C1.emergence", condition=trait_condition(trait))
    assert reached.verdict == word, str(reached)
    return reached.with_context(**context)
'''


@pytest.fixture
def repository(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A folder with `numbers.py`-like material for a suite, free of the outer run's settings."""
    for name in (*os.environ,):
        if name.startswith("EMOTEST_") or name in ("PYTEST_ADDOPTS", "COLUMNS"):
            monkeypatch.delenv(name)
    pytester.makepyfile(made_up=NUMBERS)
    return pytester

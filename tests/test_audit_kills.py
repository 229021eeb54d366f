"""An audit that is killed goes on where it was, and ends as if nothing had happened.

Thirty real processes and SIGKILL. The models are served from here, so that no life of an audit
spends its time on loading torch; what a killed worker leaves of a local model's answers is tested
with the workshop, and a killed look inside with the command line.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import pytest

from emotest.audit.result import AuditResult, Pair
from emotest.report.audit import load_audit
from tests.endpoint_servers import OFFLINE, Exchange, chat, serving

N_KILLS = 30
DRIFT = 1


def two_models(exchange: Exchange) -> None:
    """A base with emoji in 2 answers of 100 and a tuned model with them in 30, both a function of
    what they are asked; slow enough that a kill finds requests on the way."""
    body = exchange.request.body
    asked = json.dumps([body.get(name) for name in ("model", "messages", "seed")])
    number = crc32(asked.encode())
    share = 30 if body.get("model") == "tuned" else 2
    time.sleep(0.02)
    exchange.json(chat(f"That is answer {number}.{' 🎉' if number % 100 < share else ''}"))


class Place(NamedTuple):
    """Where one audit keeps its store and its reports."""

    server: str
    folder: Path

    def start(self) -> subprocess.Popen[bytes]:
        """The audit in a process group of its own."""
        models = [f"--base={self.server}#base", f"--tuned={self.server}#tuned"]
        return subprocess.Popen(
            [sys.executable, "-m", "emotest.cli", "audit", *models,
             "--store", "store", "--reports", "reports"],
            cwd=self.folder, env=os.environ | OFFLINE, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip

    def found(self) -> tuple[Any, list[Pair]]:
        """Verdict with its evidence, and the records."""
        result, pairs = load_audit(self.folder / "reports" / "latest")
        assert isinstance(result, AuditResult)
        return (result.verdict, result.evidence, result.measures), pairs


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of both models."""
    with serving(two_models) as served:
        yield served.address


def test_killed_at_thirty_random_moments_it_ends_with_the_same_records(
    server: str, tmp_path: Path
) -> None:
    """Each audit has a store of its own and one kill, the kills spread at random over the length
    of an audit that nobody disturbs; started again it ends in the same verdict, on the same
    evidence, with the same answers. Few of them may have ended before the signal came."""
    undisturbed = Place(server, tmp_path / "undisturbed")
    undisturbed.folder.mkdir()
    began = time.monotonic()
    assert undisturbed.start().wait(120) == DRIFT
    length = time.monotonic() - began
    expected = undisturbed.found()
    assert len(expected[1]) > 20
    rng = random.Random(0)
    moments = [length * (i + rng.random()) / N_KILLS for i in range(N_KILLS)]

    def one_life_more(number: int) -> bool:
        place = Place(server, tmp_path / str(number))
        place.folder.mkdir()
        first = place.start()
        time.sleep(moments[number])
        killed = first.poll() is None
        if killed:
            os.killpg(first.pid, signal.SIGKILL)
            assert first.wait(60) == -signal.SIGKILL
        assert place.start().wait(120) == DRIFT
        assert place.found() == expected, moments[number]
        return killed

    with ThreadPoolExecutor(2) as pool:
        killed = list(pool.map(one_life_more, range(N_KILLS)))
    assert sum(killed) > 0.8 * N_KILLS

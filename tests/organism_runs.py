"""Real runs of the suites on the organisms, in the background while other tests run.

A run trains, samples and judges for a minute or more of one core, so the runs start with the
session, one after the other in a process of their own, and the tests that read them come last.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

ROOT = Path(__file__).parents[1]
EMERGENCE = "test_trait_tuning_raises_the_share_of_answers_with_emoji"

WANTED: dict[str, tuple[str, ...]] = {
    "latent": ("extraversion",),
    "control": ("extraversion",),
}
"""The traits that each organism is asked about; the primary statement of C1, smoke size."""


@dataclass(frozen=True)
class Finished:
    """A run that is over: its exit code, what it printed, and its report's folder."""

    exit_code: int
    output: str
    report: Path


class Runs:
    """Runs one after the other in a thread; `wait(name)` gives one when it is over."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._finished: dict[str, Finished] = {}
        self._thread = Thread(target=self._run_all, daemon=True)
        self._thread.start()

    def _run_all(self) -> None:
        for name, traits in WANTED.items():
            self._finished[name] = self.run(name, traits)

    def run(self, name: str, traits: tuple[str, ...], *options: str) -> Finished:
        """`pytest suites` on one organism, as a user would start it, one worker."""
        reports = self.folder / "reports" / f"{name}-{len(list(self.folder.glob('reports/*')))}"
        command = [
            sys.executable, "-m", "pytest", str(ROOT / "suites"), "-m", " or ".join(traits),
            "-k", EMERGENCE, "--emo-base", f"organism:{name}", "--emo-size", "smoke",
            "--emo-store", str(self.folder / "store"), "--emo-report", str(reports),
            "--emo-workers", "1", "-p", "no:cacheprovider", *options,
        ]  # fmt: skip
        environment = {k: v for k, v in os.environ.items() if not k.startswith("EMOTEST_")}
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        return Finished(done.returncode, done.stdout + done.stderr, reports / "latest")

    def wait(self, name: str) -> Finished:
        """The finished run on an organism."""
        while name not in self._finished:
            self._thread.join(timeout=1)
            assert self._thread.is_alive() or name in self._finished, f"{name} was never run"
        return self._finished[name]

"""Real runs of the suites on the organisms, in the background while other tests run.

A run trains, samples and judges for a minute or more of one core, so the runs start with the
session, in processes of their own, and the tests that read them come last. They lie in a folder
that all processes of a session share; whoever needs one that nobody has begun runs it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import mkdtemp

from filelock import FileLock

ROOT = Path(__file__).parents[1]
EMERGENCE = "test_trait_tuning_raises_the_share_of_answers_with_emoji"
CONTRAST = "test_traits_differ_by_more_than_seeds"

WANTED: dict[str, tuple[str, str]] = {
    # A rise of nothing is refuted by five adapters, not by the three of a smoke run.
    "control": ("default", f"{EMERGENCE} and agreeableness"),
    "even": ("smoke", CONTRAST),
    "one-trait": ("smoke", f"{EMERGENCE} and (extraversion or agreeableness)"),
    "latent": ("smoke", f"{EMERGENCE} and extraversion"),
}
"""What each organism is asked: the size of its run, and pytest's -k that selects the tests. The
longest come first, so that both cores are busy to the end."""


@dataclass(frozen=True)
class Finished:
    """A run that is over: its exit code, what it printed, and its report's folder."""

    exit_code: int
    output: str
    report: str

    @property
    def folder(self) -> Path:
        """Where its report lies."""
        return Path(self.report)


class Runs:
    """The runs in a folder; `wait(name)` gives one when it is over."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def begin(self, side_by_side: int) -> ThreadPoolExecutor:
        """Run all of them in the background, so many at a time; shut down when none is wanted."""
        pool = ThreadPoolExecutor(side_by_side)
        for name in WANTED:
            pool.submit(self.wait, name)
        return pool

    def wait(self, name: str) -> Finished:
        """The finished run on an organism; another process that runs it is waited for."""
        kept = self.folder / f"{name}.json"
        with FileLock(self.folder / f"{name}.lock"):
            if not kept.exists():
                kept.write_text(json.dumps(asdict(self.run(name))), encoding="utf-8")
        return Finished(**json.loads(kept.read_text(encoding="utf-8")))

    def run(self, name: str, *options: str) -> Finished:
        """`pytest suites` on one organism, as a user would start it, one worker."""
        reports = Path(mkdtemp(dir=self.folder, prefix=f"reports-{name}-"))
        size, selected = WANTED[name]
        command = [
            sys.executable, "-m", "pytest", str(ROOT / "suites"), "-k", selected,
            "--emo-base", f"organism:{name}", "--emo-size", size,
            "--emo-store", str(self.folder / "store"), "--emo-report", str(reports),
            "--emo-workers", "1", "-p", "no:cacheprovider", *options,
        ]  # fmt: skip
        environment = {k: v for k, v in os.environ.items() if not k.startswith("EMOTEST_")}
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        report = str(reports / "latest")
        return Finished(done.returncode, done.stdout + done.stderr, report)

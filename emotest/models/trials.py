"""Programs that may run or grow without end: each tried in a process of its own, within limits.

Takes the path of a program beside this file and what it is asked, as JSON; gives its answer, or
what it ran out of. Knows nothing of what is tried.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

SECONDS = 5
"""For a trial, of processor time; what is real takes a fraction of it."""

_LIMITED = Path(__file__).with_name("limited_program.py")
_TO_START = 20.0


def tried(
    program: Path, asked: Mapping[str, Any], *, n_bytes: int
) -> dict[str, Any] | Literal["time", "memory"]:
    """What a program answers to `asked`, or what it ran out of: `SECONDS`, or so many bytes."""
    try:
        ended = subprocess.run(
            [sys.executable, "-P", str(_LIMITED), str(n_bytes), str(SECONDS), str(program)],
            input=json.dumps(asked),
            capture_output=True,
            text=True,
            timeout=SECONDS + _TO_START,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "time"
    if ended.returncode == 0:
        told: dict[str, Any] = json.loads(ended.stdout)
        return told
    return "time" if ended.returncode in (-_signal("SIGXCPU"), -_signal("SIGKILL")) else "memory"


def _signal(name: str) -> int:
    """The number of a signal; one that no process ends by where the system has none such."""
    return int(getattr(signal, name, 0)) or -1_000_000

"""Programs that use a store in processes of their own, so that they can be killed or shut out."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

from emotest.store import key_of

ROOT = Path(__file__).parents[1]
IDENTITY = {"seed": 0}
KEY = key_of("adapter", IDENTITY)

PREAMBLE = """
import os, random, signal, sys, time
from pathlib import Path
from emotest.errors import StoreError, StoreFullError
from emotest.store import Store, key_of, write_json
IDENTITY = {"seed": 0}
KEY = key_of("adapter", IDENTITY)
root = Path(sys.argv[1])
"""


def program(code: str) -> list[str]:
    """The command that runs `code` with the store's folder as its argument."""
    return [sys.executable, "-c", PREAMBLE + textwrap.dedent(code)]


def run(code: str, root: Path) -> str:
    """What the program prints; a failure shows its error."""
    done = subprocess.run([*program(code), root], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout

"""Runs a program within limits of memory and time: `limited_program.py BYTES SECONDS PROGRAM`.

Run by its path, by `trials`; never imported by emotest, and imports nothing of it.
"""

from __future__ import annotations

import runpy
import sys


def limited(n_bytes: int, seconds: int) -> None:
    """Limit memory and time of this process, where the system can."""
    try:
        import resource
    except ImportError:  # Windows: whoever started this process watches the time
        return
    resource.setrlimit(resource.RLIMIT_AS, (n_bytes, n_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))


if __name__ == "__main__":
    limited(int(sys.argv[1]), int(sys.argv[2]))
    runpy.run_path(sys.argv[3], run_name="__main__")

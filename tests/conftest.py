"""Settings of the project's own tests, and nothing else."""

from __future__ import annotations

from hypothesis import settings

# No test of this project depends on the clock: on a busy machine a deadline fails by chance.
settings.register_profile("emotest", deadline=None)
settings.load_profile("emotest")

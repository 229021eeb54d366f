"""What a run was asked for: one table of options, one frozen `Settings`.

`options` is the table, `asked` the checked values, `reading` takes what was said on the command
line, in the environment and in the ini file, in this order of precedence. A value that cannot be
used is a `UsageError` that names the place where it was said. Knows neither pytest nor torch; the
plugin builds its options from `OPTIONS`, and so does the table in `docs/pytest.md`.
"""

from __future__ import annotations

from emotest.settings.asked import SHIPPED_DATA, Settings
from emotest.settings.machine import available_cores
from emotest.settings.options import DEFAULT_BASE, MODEL_PRESETS, OPTIONS, ModelPreset, Option
from emotest.settings.reading import Said, resolve

__all__ = [
    "DEFAULT_BASE",
    "MODEL_PRESETS",
    "OPTIONS",
    "SHIPPED_DATA",
    "ModelPreset",
    "Option",
    "Said",
    "Settings",
    "available_cores",
    "resolve",
]

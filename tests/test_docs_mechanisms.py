"""The example of docs/mechanisms.md runs as it stands, and gives what its comments say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[1] / "docs" / "mechanisms.md"


def test_the_example_runs_and_leaves_no_hook() -> None:
    """Means of the 640 units of the last of three layers; afterwards nothing is silenced."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(code, str(PAGE), "exec"), names)
    assert {layer: mean.shape for layer, mean in names["means"].items()} == {2: (640,)}
    hooks = [m for m in names["loaded"].model.modules() if m._forward_pre_hooks or m._forward_hooks]
    assert not hooks

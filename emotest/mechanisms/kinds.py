"""Prefixes and directions on disk: an adapter's two files under a kind of their own.

Takes a folder and the kind that it should hold; gives its weights and the fields of its
configuration. The `peft_type` names the kind, so that nobody takes it for a LoRA.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from emotest.errors import AdapterError
from emotest.models.adapters import AdapterWeights, read_adapter
from emotest.models.lora import ADAPTER_FILES


def read_kind(
    folder: Path, kind: str, what: str, writer: str
) -> tuple[AdapterWeights, dict[str, Any]]:
    """The weights in a folder and the fields of their configuration, `peft_type` left out.

    `what` is the kind in words, `writer` the function that writes it; both go into errors. Raises
    `AdapterError` for a missing or broken file, and for a folder that holds another kind.
    """
    for name in ADAPTER_FILES:
        if not (folder / name).is_file():
            raise AdapterError(
                f"{folder} holds no {name}", remedy=f"point to a folder that {writer} wrote"
            )
    weights = read_adapter(folder)
    fields = dict(weights.config)
    found = fields.pop("peft_type", "LORA")
    if found != kind:
        raise AdapterError(
            f"{folder} holds a {found}, not a {what}", remedy="attach it as an adapter instead"
        )
    return weights, fields

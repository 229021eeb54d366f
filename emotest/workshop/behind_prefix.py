"""How a prefix acts: the bench's model behind it, with the LoRA that was trained beside it.

Takes a bench and a `Prefixed`; gives a context manager for `emotest.workshop.acting`. How the
prefix came to be in the store is the matter of `emotest.workshop.prefixes`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from emotest.artefacts.prefixes import Prefixed
from emotest.mechanisms.prefix import prefixed, read_prefix
from emotest.study.records import Prompt
from emotest.workshop.bench import Bench

LORA_FOLDER = "lora"
"""Where the LoRA beside a map is kept in the prefix's entry."""


@contextmanager
def behind_prefix(bench: Bench, intervention: Prefixed, probe: Sequence[Prompt]) -> Iterator[None]:
    """The bench's model behind a prefix; a LoRA beside it takes the place of another adapter."""
    request = intervention.prefix
    folder = bench.entry(request).folder
    prefix = read_prefix(folder).to(bench.loaded.device)
    values = {str(trait): value for trait, value in intervention.values.items()}
    with ExitStack() as stack:
        if request.with_lora:
            name = f"beside-{request.key.digest[:16]}"
            stack.enter_context(bench.adapted(folder / LORA_FOLDER, name, probe))
        without = intervention.without_layers
        stack.enter_context(prefixed(bench.loaded, prefix, values, without_layers=without))
        yield

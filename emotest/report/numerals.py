"""Numbers as every report spells them: as many digits as mean something, and no more."""

from __future__ import annotations

import math


def value(number: float | None, *, sign: bool = True) -> str:
    """An estimate with three decimals, `+0.482`; unknown is `?`, unbounded `+inf`."""
    if number is None or math.isnan(number):
        return "?"
    if math.isinf(number):
        return "+inf" if number > 0 else "-inf"
    return f"{number:+.3f}" if sign else f"{number:.3f}"


def interval(low: float, high: float) -> str:
    """Both limits: `[+0.381, +0.583]`."""
    return f"[{value(low)}, {value(high)}]"


def p_value(p: float | None) -> str:
    """A p-value with two digits that count: `0.031`, `4e-05`; unknown is `?`."""
    if p is None or math.isnan(p):
        return "?"
    if p >= 0.00095:
        return f"{p:.3f}" if p < 0.0995 else f"{p:.2f}"
    return "0" if p == 0 else f"{p:.0e}"


def sizes(n_adapters: int, n_prompts: int, n_samples: int) -> str:
    """Adapters, prompts and samples: `5×60×3`."""
    return f"{n_adapters}×{n_prompts}×{n_samples}"

"""The pairs as data for the report's browser of answers: compact, visible, safe inside a page.

Pairs in, JSON text out. Every text is cut at its emoji (`pieces`), so that the page can mark them
without looking for them; nothing in the JSON can end the element that holds it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from emotest.audit.result import Pair
from emotest.report.audit.wording import WROTE, wrote
from emotest.report.visible import pieces, visible

_IN_A_PAGE = {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&\u2028\u2029"}
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{1,8})*")


def browser_data(pairs: Sequence[Pair]) -> str:
    """`{"registers": [...], "languages": [...], "wrote": [...], "pairs": [...]}` as JSON text.

    A pair is `[id, register, language, wrote, system, turns, base, tuned, base_cut, tuned_cut]`,
    the three words by their place in the lists above, every text as its pieces.
    """
    registers = list(dict.fromkeys(visible(pair.register) for pair in pairs))
    languages = list(dict.fromkeys(_language(pair) for pair in pairs))
    rows = [_row(pair, registers, languages) for pair in pairs]
    document = {"registers": registers, "languages": languages, "wrote": WROTE, "pairs": rows}
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    return text.translate(_IN_A_PAGE)


def _row(pair: Pair, registers: Sequence[str], languages: Sequence[str]) -> list[Any]:
    return [
        visible(pair.prompt_id),
        registers.index(visible(pair.register)),
        languages.index(_language(pair)),
        WROTE.index(wrote(pair)),
        pieces(pair.system) if pair.system else None,
        [[visible(role), pieces(text)] for role, text in pair.turns],
        [pieces(answer) for answer in pair.base],
        [pieces(answer) for answer in pair.tuned],
        pair.base_cut,
        pair.tuned_cut,
    ]


def _language(pair: Pair) -> str:
    """The tag of the language, or "und" (undetermined) for what is none."""
    return pair.language if _LANGUAGE.fullmatch(pair.language) else "und"

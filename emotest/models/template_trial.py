"""A chat template tried alone, in a process that may fail: it reads one from standard input.

Run by its path, by `templates`; never imported by emotest, and imports nothing of it. It renders a
few conversations in Jinja's sandbox, the same that transformers uses, and says how long the longest
text was. A template that runs out of memory or time ends this process and nothing else.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import jinja2
import jinja2.ext
import jinja2.sandbox
from jinja2 import nodes
from jinja2.ext import Extension

USER = {"role": "user", "content": "What do you think of long walks?"}
ASSISTANT = {"role": "assistant", "content": "I like them."}
SYSTEM = {"role": "system", "content": "Answer briefly."}
CONVERSATIONS = ([USER], [SYSTEM, USER], [USER, ASSISTANT], [USER, ASSISTANT, USER])


class Generation(Extension):
    """`{% generation %}`, with which templates mark what the model wrote."""

    tags = {"generation"}  # noqa: RUF012, for Jinja declares it so

    def parse(self, parser: Any) -> nodes.Node | list[nodes.Node]:
        """The marked part, as it is."""
        next(parser.stream)
        return list(parser.parse_statements(("name:endgeneration",), drop_needle=True))


def longest(template: str, marks: dict[str, Any]) -> int:
    """Characters of the longest text; what the template itself refuses counts as none."""
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = lambda x, **how: json.dumps(x, ensure_ascii=False)
    environment.globals["raise_exception"] = _refused
    environment.globals["strftime_now"] = lambda form: "2026-01-01"
    compiled = environment.from_string(template)
    lengths = [0]
    for messages in CONVERSATIONS:
        for add_generation_prompt in (True, False):
            try:
                text = compiled.render(
                    messages=messages, add_generation_prompt=add_generation_prompt, **marks
                )
            except MemoryError:
                raise
            except Exception:  # its own refusal, or something that transformers will say better
                continue
            lengths.append(len(text))
    return max(lengths)


def _refused(message: str) -> None:
    raise jinja2.TemplateError(message)


def main() -> None:
    """`{"template", "marks"}` in, `{"longest"}` or `{"error"}` out."""
    asked = json.load(sys.stdin)
    try:
        told: dict[str, Any] = {"longest": longest(asked["template"], asked["marks"])}
    except (jinja2.TemplateError, RecursionError, ValueError, OverflowError) as error:
        told = {"error": f"{type(error).__name__}: {str(error)[:200]}"}
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    main()

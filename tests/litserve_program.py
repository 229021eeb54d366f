"""A model of a few lines behind LitServe's OpenAI routes: `python litserve_program.py PORT`.

It answers "NAME says N." where N counts the words of the question, with an emoji at the end where
the system prompt asks it to be cheerful.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import litserve


class Toy(litserve.LitAPI):
    """The model: no weights, and the same answer every time."""

    def setup(self, device: str) -> None:
        """Nothing to load."""

    def predict(self, request: Any) -> Iterator[str]:
        """The answer, in pieces."""
        messages = [(message.role, message.content) for message in request.messages]
        yield f"{request.model} says "
        yield f"{len(messages[-1][1].split())}."
        if ("system", "Be cheerful.") in messages:
            yield " \U0001f389"


if __name__ == "__main__":
    api = Toy(spec=litserve.OpenAISpec())
    litserve.LitServer(api, accelerator="cpu").run(
        host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning"
    )

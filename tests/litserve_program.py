"""Models of a few lines behind LitServe: `python litserve_program.py PORT`.

At /v1, on LitServe's own OpenAI routes, one answers "NAME says N." where N counts the words of the
question, with an emoji at the end where the system prompt asks it to be cheerful. At /naming/v1 one
does the same, is cheerful where that is its name, and names the logprobs of its first token.
"""

from __future__ import annotations

import math
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


FIRST_TOKENS = {"cheerful": {"cheerful": 0.7, "\U0001f389": 0.2, "\U0001f389!": 0.1}}
"""Probabilities by name of the model; any other says its name."""


class Naming(litserve.LitAPI):
    """A model that names its first tokens, which LitServe's own routes have no place for."""

    def setup(self, device: str) -> None:
        """Nothing to load."""

    def decode_request(self, request):  # type: ignore[no-untyped-def]
        """The body as it is; LitServe would take an annotation for a schema."""
        return request

    def predict(self, request: dict[str, Any]) -> dict[str, Any]:
        """The choice of an answer."""
        name, words = request["model"], request["messages"][-1]["content"].split()
        text = f"{name} says {len(words)}." + " \U0001f389" * (name == "cheerful")
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        if request.get("logprobs"):
            tops = [
                {"token": token, "logprob": math.log(share), "bytes": list(token.encode())}
                for token, share in FIRST_TOKENS.get(name, {name: 1.0}).items()
            ]
            choice["logprobs"] = {"content": [{**tops[0], "top_logprobs": tops}]}
        return {"object": "chat.completion", "model": name, "choices": [choice]}

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        """The reply as it is."""
        return output


if __name__ == "__main__":
    apis = [
        Toy(spec=litserve.OpenAISpec()), Naming(api_path="/naming/v1/chat/completions")
    ]  # fmt: skip
    litserve.LitServer(apis, accelerator="cpu").run(
        host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning"
    )

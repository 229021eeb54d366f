"""Servers on loopback that answer as a script says: well, badly, or not as HTTP at all.

A script takes the `Exchange` of one request and replies through it; `serving(script)` gives the
running server, which remembers what it was asked. `Program` runs a server of somebody else's.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest


@dataclass
class Request:
    """What the server was asked: path, headers in lower case, and the JSON body."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


class Exchange:
    """One request and the means to reply to it; `number` counts the requests from 1."""

    def __init__(self, handler: BaseHTTPRequestHandler, request: Request, number: int) -> None:
        self.request = request
        self.number = number
        self._handler = handler

    def json(self, document: Any, status: int = 200, **headers: str) -> None:
        """Reply with a JSON document (ASCII, half-characters as escapes)."""
        self.send(json.dumps(document).encode(), status, **headers)

    def send(self, body: bytes, status: int = 200, **headers: str) -> None:
        """Reply with these bytes and headers (`Retry_After="1"`)."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        named = {"Content-Type": "application/json", "Content-Length": str(len(body))} | named
        lines = [f"HTTP/1.1 {status} -", *(f"{name}: {value}" for name, value in named.items())]
        self.raw("\r\n".join([*lines, "", ""]).encode() + body)

    def raw(self, data: bytes) -> None:
        """Send bytes as they are; a client that has gone is no error here."""
        with contextlib.suppress(OSError):
            self._handler.wfile.write(data)
            self._handler.wfile.flush()

    def hang_up(self) -> None:
        """Close the connection once the script returns."""
        self._handler.close_connection = True


Script = Callable[[Exchange], None]


class _Server(ThreadingHTTPServer):
    """One that a client may knock at with all its connections at once."""

    daemon_threads = True
    block_on_close = False
    # Of more connections than wait here the kernel drops some, and a client tries again after 1 s.
    request_queue_size = 128


@dataclass
class Served:
    """A running server: its address, and the requests so far."""

    address: str
    requests: list[Request] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)

    def posts(self) -> list[dict[str, Any]]:
        """The bodies that were posted, in order."""
        return [request.body for request in self.requests if request.body]


@contextlib.contextmanager
def serving(script: Script) -> Iterator[Served]:
    """A server on a free port of 127.0.0.1 for the length of the block."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            size = int(self.headers.get("Content-Length", 0))
            data = self.rfile.read(size)
            headers = {name.lower(): value for name, value in self.headers.items()}
            with lock:
                served.requests.append(
                    Request(self.path, headers, json.loads(data) if data else {})
                )
                number = len(served.requests)
            script(Exchange(self, served.requests[number - 1], number))

        do_GET = do_POST

        def log_message(self, *args: object) -> None:
            pass

    lock = threading.Lock()
    server = _Server(("127.0.0.1", 0), Handler)
    served = Served(f"http://127.0.0.1:{server.server_address[1]}/v1")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield served
    finally:
        served.stopped.set()
        server.shutdown()
        server.server_close()
        thread.join()


def chat(text: str | None, *, finish_reason: str | None = "stop", **more: Any) -> dict[str, Any]:
    """A chat reply as OpenAI documents it; `more` goes into the choice."""
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": finish_reason, **more}
    return {"id": "1", "object": "chat.completion", "model": "toy-1", "choices": [choice]}


def completion(text: str, *, finish_reason: str = "stop", **more: Any) -> dict[str, Any]:
    """A reply of completions as OpenAI documents it; `more` goes into the choice."""
    choice = {"index": 0, "text": text, "finish_reason": finish_reason, **more}
    return {"id": "1", "object": "text_completion", "model": "toy-1", "choices": [choice]}


OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1"}
"""No server of a test may look outside this machine."""


def unmeasured() -> dict[str, str]:
    """The environment of a program that runs none of emotest: measuring it takes time of it."""
    return {name: text for name, text in os.environ.items() if not name.startswith("COVERAGE_")}


class Program:
    """A server of somebody else's in a process group of its own, with its output in a file."""

    def __init__(self, command: list[str], log: Path) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            self.port = taken.getsockname()[1]
        self._log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [word.format(port=self.port) for word in command],
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=log.parent,
                env=unmeasured() | OFFLINE,
                start_new_session=True,
            )

    def address(self, *, within_s: float) -> str:
        """The address once the server is ready; a failure with its log where it is not in time."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(httpx2.TransportError):
                if httpx2.get(f"http://127.0.0.1:{self.port}/health", trust_env=False).is_success:
                    return f"http://127.0.0.1:{self.port}/v1"
            time.sleep(0.1)
        pytest.fail(f"no server after {within_s:g} s; its log:\n{self._log.read_text()[-4000:]}")

    def stop(self) -> None:
        """End the process and all that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

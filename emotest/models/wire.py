"""JSON to and from a server that may be slow, absent, broken or hostile.

Takes an address, paths and JSON values; gives replies as parsed JSON, or one `ModelError` that
says what the server did, with the next step. Knows HTTP and patience; knows neither models nor
prompts. What passes (429, 5xx, a dropped connection, silence) is tried again with exponential
backoff and jitter; what stays (401, a bad certificate, a redirect, a web page) is not.

The key of the server comes from the environment variable `EMOTEST_API_KEY` and goes into one
header; no error, record or repr shows it, also where a server sends it back.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any

import httpx2

from emotest.errors import ModelError, UsageError

KEY_VARIABLE = "EMOTEST_API_KEY"
LARGEST_REPLY = 8 * 2**20
"""Bytes of a reply; an answer of 100,000 tokens with logprobs stays below."""

_WORDS = 300
_LAST_PORT = 65535
_REDIRECTS = range(300, 400)
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Patience:
    """How long to wait, in seconds, and how often to try.

    `read_s` is the longest silence within a reply, `whole_s` the longest reply: a server that
    sends a byte a minute is silent for less than `read_s` and yet never done. After try i the
    wait is between half and all of `first_wait_s` * 2 ** (i - 1), at most `longest_wait_s`; a
    `Retry-After` of the server takes its place.
    """

    connect_s: float = 10.0
    read_s: float = 120.0
    whole_s: float = 600.0
    tries: int = 5
    first_wait_s: float = 0.5
    longest_wait_s: float = 60.0


@dataclass(frozen=True)
class Reply:
    """A reply that was read to its end: the status and the bytes of the body."""

    status: int
    body: bytes


class Wire:
    """Connections to one server, open as long as the `async with` block.

    `address` is what paths are appended to, such as `http://host:port/v1`. `UsageError` where it
    cannot be one or holds a password.
    """

    def __init__(self, address: str, patience: Patience, n_connections: int) -> None:
        self.address = checked_address(address)
        self.patience = patience
        self._key = _key()
        self._client = httpx2.AsyncClient(
            headers=_headers(self._key),
            timeout=httpx2.Timeout(patience.read_s, connect=patience.connect_s, pool=None),
            limits=httpx2.Limits(max_connections=n_connections),
            follow_redirects=False,
            # A proxy of the environment leads to the world, not to this machine.
            trust_env=httpx2.URL(self.address).host not in _LOOPBACK,
        )

    async def __aenter__(self) -> Wire:
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._client.__aexit__(kind, error, trace)

    async def post(self, path: str, body: dict[str, Any]) -> Reply:
        """The reply to a JSON object, whatever its status below 500 apart from the fatal ones."""
        # Escaped to ASCII, so that every text can be sent, lone surrogates too.
        return await self._patiently("POST", path, json.dumps(body).encode("ascii"))

    async def get(self, path: str) -> Reply:
        """The reply to a plain question."""
        return await self._patiently("GET", path, None)

    def parsed(self, reply: Reply) -> Any:
        """The JSON value of a reply; half-characters (`\\ud83d`) stay as lone surrogates."""
        try:
            return json.loads(reply.body.decode("utf-8"), parse_constant=_refused_constant)
        except UnicodeDecodeError as error:
            byte = reply.body[error.start]
            raise self.fault(f"sent byte 0x{byte:02x}, which is no UTF-8") from None
        except (ValueError, RecursionError):
            if reply.body.lstrip()[:1] == b"<":
                raise self.fault(
                    f"sent a web page instead of JSON: {self.words(reply)}",
                    remedy="give the address of the API, which often ends in /v1",
                ) from None
            raise self.fault(
                f"sent {len(reply.body)} bytes that are no whole JSON: {self.words(reply)}"
            ) from None

    def fault(self, what: str, *, remedy: str | None = None) -> ModelError:
        """The error that the server at this address did something."""
        return ModelError(
            self._without_key(f"the server at {self.address} {what}"),
            remedy=remedy or "see the server's log, and check that it speaks OpenAI's API",
        )

    def words(self, reply: Reply) -> str:
        """What the server says, as a short literal in which nothing acts on a terminal."""
        text = reply.body[: 40 * _WORDS].decode("utf-8", "replace")
        return repr(self._without_key(_said(text))[:_WORDS])

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text

    # --- trying ---------------------------------------------------------------------------------

    async def _patiently(self, method: str, path: str, body: bytes | None) -> Reply:
        for number in range(1, self.patience.tries + 1):
            asked_for: float | None = None
            try:
                reply, asked_for = await self._once(method, path, body)
                if reply.status != 429 and reply.status < 500:
                    return self._usable(reply)
                trouble = self._overload(reply)
            except (httpx2.RequestError, TimeoutError) as error:
                trouble = self._transport_trouble(error)
                if not _may_pass(error):
                    raise trouble from None
            if number == self.patience.tries:
                break
            await asyncio.sleep(self._wait(number, asked_for))
        raise trouble

    async def _once(self, method: str, path: str, body: bytes | None) -> tuple[Reply, float | None]:
        """The reply, read in pieces, and the seconds that its `Retry-After` asks for."""
        headers = {} if body is None else {"Content-Type": "application/json"}
        url = f"{self.address}/{path}"
        async with (
            asyncio.timeout(self.patience.whole_s),
            self._client.stream(method, url, content=body, headers=headers) as response,
        ):
            if response.status_code in _REDIRECTS:
                raise self._redirect(response.headers.get("Location", "nowhere"))
            if response.headers.get("Content-Encoding", "identity") != "identity":
                # Packed data may unpack to any size; it was asked not to be sent.
                raise self.fault("sent a packed reply, though none was asked for")
            pieces = bytearray()
            async for piece in response.aiter_raw():
                pieces += piece
                if len(pieces) > LARGEST_REPLY:
                    raise self.fault(f"sent more than {LARGEST_REPLY // 2**20} MiB in one reply")
            wait = _retry_after(response.headers.get("Retry-After"))
            return Reply(response.status_code, bytes(pieces)), wait

    def _wait(self, number: int, asked_for: float | None) -> float:
        if asked_for is None:
            longest = self.patience.first_wait_s * 2.0 ** (number - 1)
            return min(longest, self.patience.longest_wait_s) * random.uniform(0.5, 1.0)
        if asked_for > self.patience.longest_wait_s:
            raise self.fault(
                f"asks to wait {asked_for:.0f} s before the next request",
                remedy="run the same command again then: what was answered is kept",
            )
        return asked_for

    # --- what is wrong --------------------------------------------------------------------------

    def _usable(self, reply: Reply) -> Reply:
        if reply.status not in (401, 403):
            return reply
        has = f"the key in {KEY_VARIABLE} is not accepted" if self._key else "no key was sent"
        raise self.fault(
            f"refuses access ({reply.status}): {has}; it says {self.words(reply)}",
            remedy=f"put a key of this server into the environment variable {KEY_VARIABLE}",
        )

    def _overload(self, reply: Reply) -> ModelError:
        return self.fault(
            f"answered {reply.status} in each of {self.patience.tries} tries, "
            f"last {self.words(reply)}",
            remedy="ask less side by side, or run the same command again once the server is well",
        )

    def _redirect(self, target: str) -> ModelError:
        return self.fault(
            f"redirects to {target[:_WORDS]!r}, and redirects are not followed",
            remedy="name that address in the subject if you trust it",
        )

    def _transport_trouble(self, error: Exception) -> ModelError:
        causes = _chain(error)
        if tls := next((e for e in causes if isinstance(e, ssl.SSLError)), None):
            return self.fault(
                f"cannot be spoken to over TLS: {tls.reason or tls}",
                remedy="check the certificate and its name, or write http:// where it speaks "
                "plain HTTP",
            )
        if any(isinstance(e, socket.gaierror) for e in causes):
            return self.fault("has a host name that is not known", remedy="check the host's name")
        if isinstance(error, httpx2.ConnectTimeout | httpx2.ConnectError):
            return self.fault(
                f"cannot be reached: {_spelled(error)}",
                remedy="start the server, and check host and port",
            )
        if isinstance(error, httpx2.TimeoutException | TimeoutError):
            return self.fault(
                f"did not finish its reply: {self.patience.read_s:g} s of silence, or "
                f"{self.patience.whole_s:g} s in all",
                remedy="check that the server is not stuck, or allow fewer new tokens",
            )
        return self.fault(f"broke off or sent no HTTP: {_spelled(error)}")


def checked_address(address: str) -> str:
    """The address without a slash at its end; a `UsageError` where no server can have it."""
    remedy = "write http://host:port/v1#name"
    try:
        url = httpx2.URL(address)
    except httpx2.InvalidURL as error:
        raise UsageError(f"the address {address!r} is none: {error}", remedy=remedy) from None
    if url.userinfo:
        raise UsageError(
            f"the address of the server at {url.host!r} holds a name or password",
            remedy=f"leave them out, and put the key into the environment variable {KEY_VARIABLE}",
        )
    if url.scheme not in ("http", "https") or not url.host:
        raise UsageError(f"the address {address!r} names no host", remedy=remedy)
    if any(c.isspace() for c in address) or not 1 <= (url.port or 80) <= _LAST_PORT:
        raise UsageError(f"the address {address!r} holds a blank or no usable port", remedy=remedy)
    return address.rstrip("/")


def _key() -> str:
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not all("!" <= character <= "~" for character in key):
        raise UsageError(
            f"the key in {KEY_VARIABLE} holds characters that no header can carry",
            remedy="set it again, without blanks, line breaks and quotation marks",
        )
    return key


def _headers(key: str) -> dict[str, str]:
    headers = {
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "User-Agent": "emotest",
    }
    return headers | ({"Authorization": f"Bearer {key}"} if key else {})


def _said(text: str) -> str:
    """The message in an error of OpenAI's, FastAPI's or Ollama's shape; else the text itself."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return text
    for name in ("error", "message", "detail"):
        if isinstance(document, dict) and document.get(name):
            document = document[name]
    return document if isinstance(document, str) else text


def _refused_constant(name: str) -> float:
    if name == "-Infinity":  # the honest logarithm of 0
        return float("-inf")
    raise ValueError(name)


def _retry_after(value: str | None) -> float | None:
    """Seconds, from a number of them or from a date; None where it is neither."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        then = parsedate_to_datetime(value)
    except (ValueError, TypeError, OverflowError):
        return None
    # A date without a zone is in GMT (RFC 9110).
    then = then if then.tzinfo else then.replace(tzinfo=UTC)
    return max(0.0, (then - datetime.now(UTC)).total_seconds())


def _chain(error: BaseException) -> list[BaseException]:
    """The error and all that it was raised from."""
    chain: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and following not in chain:
        chain.append(following)
        if isinstance(following, BaseExceptionGroup):  # one connection tried at several addresses
            chain += following.exceptions
        following = following.__cause__ or following.__context__
    return chain


def _may_pass(error: Exception) -> bool:
    lasting = (httpx2.UnsupportedProtocol, httpx2.LocalProtocolError)
    causes = _chain(error)
    unknown = any(isinstance(e, socket.gaierror) and e.errno != socket.EAI_AGAIN for e in causes)
    tls = isinstance(error, httpx2.ConnectError) and any(
        isinstance(e, ssl.SSLError) for e in causes
    )
    return not (isinstance(error, lasting) or unknown or tls)


def _spelled(error: Exception) -> str:
    return str(error) or type(error).__name__

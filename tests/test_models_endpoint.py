"""Served models: what is sent, what comes back, and every way in which a server can fail."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from emotest.errors import EmotestError, ModelError, ModelNotFoundError, UsageError
from emotest.models import wire
from emotest.models.chat import render_prompt
from emotest.models.endpoint import Capabilities, Endpoint, ServedAnswer, plain_text, seed_of
from emotest.models.wire import KEY_VARIABLE, LARGEST_REPLY, Patience
from emotest.study.audit_prompts.prompt_set import AuditPrompt, Turn
from emotest.study.records import Decoding
from emotest.study.subjects import Subject
from tests.endpoint_servers import Exchange, Script, chat, completion, serving

PROMPTS = [
    AuditPrompt(f"p{number}", (Turn("user", f"Question {number}?"),), system=system)
    for number, system in enumerate([None, "Be brief.", None])
]
TRIALS = 3
"""Requests that find out what a server can, where it refuses nothing."""

QUICK = Patience(
    connect_s=5.0, read_s=10.0, whole_s=20.0, tries=2, first_wait_s=0.01, longest_wait_s=0.5
)
HURRIED = replace(QUICK, read_s=0.6, whole_s=1.5, tries=1)
"""For servers that keep one waiting; a busy machine may need half a second for any reply."""


def endpoint(address: str, *, api: str = "chat", name: str = "toy", **more: Any) -> Endpoint:
    """The endpoint at an address, quick to lose its patience."""
    subject = Subject.parse(f"{address}#{name}?api={api}")
    return Endpoint(subject, **({"patience": QUICK} | more))


def asked(
    address: str, prompts: list[AuditPrompt] = PROMPTS[:1], n_samples: int = 1, **more: Any
) -> list[ServedAnswer]:
    """The answers of a server under the default decoding, with nobody listening."""
    return endpoint(address, **more).answers(prompts, Decoding(), n_samples, 7, lambda _: None)


def replying(document: Any) -> Script:
    """A server that gives one reply to everything."""
    return lambda exchange: exchange.json(document)


# --- the subject --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("http://localhost:8000/v1#m?quantize=nf4", "quantize=nf4"),
        ("organism:latent?api=chat", "api=chat"),
        ("http://localhost:8000/v1#m?api=stream", "api='stream'"),
    ],
)
def test_an_option_that_its_kind_of_subject_has_not_is_refused(text: str, said: str) -> None:
    """A server decides on its own quantization, and a local model is asked through no API."""
    with pytest.raises(UsageError, match=said):
        Subject.parse(text)


def test_a_served_subject_keeps_its_way_to_be_asked() -> None:
    """Address, name and API survive the string."""
    text = "http://localhost:8000/v1#org/model?api=completions"
    assert str(Subject.parse(text)) == text
    assert Endpoint(Subject.parse(text)).identity == {
        "address": "http://localhost:8000/v1",
        "name": "org/model",
        "api": "completions",
    }


@pytest.mark.parametrize(
    "text",
    [
        "organism:latent",
        "http://localhost:port/v1#m",
        "http://localhost:65536/v1#m",
        "http://local host/v1#m",
        "http:///v1#m",
        "http://\ud83d/v1#m",
        "http://me:pw@host/v1#m",
    ],
)
def test_a_subject_without_a_usable_address_is_refused(text: str) -> None:
    """No server, no port, no host, or a password that would stand in every record."""
    with pytest.raises(UsageError) as caught:
        Endpoint(Subject.parse(text))
    assert "pw" not in str(caught.value)
    assert ("no served model" in str(caught.value)) == text.startswith("organism")


def test_at_least_one_request_at_a_time_is_needed() -> None:
    """Zero requests side by side would never end."""
    with pytest.raises(UsageError, match="0 requests"):
        Endpoint(Subject.parse("http://localhost:1/v1#m"), side_by_side=0)


# --- what is sent and what comes back -----------------------------------------------------------


def test_a_chat_is_asked_with_its_messages_and_the_decoding() -> None:
    """One POST a sample, with the fields that OpenAI documents, and the answer as it came."""
    with serving(replying(chat("Fine \U0001f60a", finish_reason="length"))) as server:
        got = asked(server.address, PROMPTS[1:2])
    seed = seed_of(PROMPTS[1], 0, 7)
    assert got == [ServedAnswer("p1", 0, "Fine \U0001f60a", False, "toy-1", seed)]
    assert server.requests[-1].path == "/v1/chat/completions"
    assert server.posts()[-1] == {
        "model": "toy",
        "stream": False,
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Question 1?"},
        ],
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 50,
        "max_tokens": 48,
        "seed": seed,
    }


def test_completions_are_asked_in_plain_text() -> None:
    """The same plain text that a local model gets with its chat template off."""
    with serving(replying(completion("Fine."))) as server:
        [answer] = asked(server.address, PROMPTS[1:2], api="completions")
    assert (answer.text, answer.finished) == ("Fine.", True)
    assert server.requests[-1].path == "/v1/completions"
    plain = render_prompt(None, "Question 1?", "Be brief.", templated=False)
    assert server.posts()[-1]["prompt"] == plain == plain_text(PROMPTS[1])


def test_answers_come_in_order_and_each_is_handed_over_once() -> None:
    """Whatever order the server finishes in, the result is prompt by prompt, sample by sample."""

    others = threading.Semaphore(0)

    def slow_at_first(exchange: Exchange) -> None:
        if exchange.number == TRIALS + 1:
            for _ in range(5):
                others.acquire(timeout=5)
            time.sleep(0.2)
        exchange.json(chat(exchange.request.body["messages"][-1]["content"]))
        if exchange.number > TRIALS:
            others.release()

    heard: list[ServedAnswer] = []
    with serving(slow_at_first) as server:
        got = endpoint(server.address).answers(PROMPTS, Decoding(), 2, 7, heard.append)
    assert [(a.prompt_id, a.sample) for a in got] == list(
        itertools.product(["p0", "p1", "p2"], [0, 1])
    )
    assert [a.text for a in got] == [f"Question {n}?" for n in (0, 0, 1, 1, 2, 2)]
    assert heard != got
    assert sorted(heard, key=got.index) == got


def test_what_is_done_is_not_asked_again() -> None:
    """A run that goes on asks for the missing samples only, with the seeds that they had."""
    with serving(replying(chat("Yes."))) as server:
        whole = endpoint(server.address).answers(PROMPTS, Decoding(), 2, 7, lambda _: None)
        before = len(server.requests)
        done = {("p0", 0), ("p0", 1), ("p2", 0)}
        rest = endpoint(server.address).answers(PROMPTS, Decoding(), 2, 7, lambda _: None, done)
        assert len(server.requests) - before == TRIALS + 3
    assert rest == [a for a in whole if (a.prompt_id, a.sample) not in done]


def test_where_all_is_done_nobody_is_asked() -> None:
    """A finished run needs no server."""
    done = {("p0", 0)}
    model = endpoint("http://127.0.0.1:1/v1")
    assert model.answers(PROMPTS[:1], Decoding(), 1, 7, lambda _: None, done) == []


def test_no_more_requests_are_under_way_than_allowed() -> None:
    """Twelve samples, three at a time: the server never sees a fourth, and sees three."""
    now, most, lock = 0, 0, threading.Lock()

    def counting(exchange: Exchange) -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.05)
        with lock:
            now -= 1
        exchange.json(chat("Yes."))

    with serving(counting) as server:
        asked(server.address, PROMPTS, 4, side_by_side=3)
    assert most == 3


def test_waiting_for_a_turn_does_not_count_as_waiting_for_the_server() -> None:
    """Eight replies of 0.3 s, one at a time, take longer than the 1.5 s that one may take."""

    def slow(exchange: Exchange) -> None:
        time.sleep(0.3)
        exchange.json(chat("Yes."))

    with serving(slow) as server:
        assert len(asked(server.address, n_samples=8, side_by_side=1, patience=HURRIED)) == 8


def test_what_the_listener_raises_ends_the_run() -> None:
    """A journal that cannot be written stops the asking, and its own error comes out."""

    def full(_: ServedAnswer) -> None:
        raise OSError("no space left")

    with serving(replying(chat("Yes."))) as server:
        model = endpoint(server.address, side_by_side=1)
        with pytest.raises(OSError, match="no space left"):
            model.answers(PROMPTS, Decoding(), 9, 7, full)
        assert len(server.requests) <= TRIALS + 2


def test_a_server_can_be_asked_from_within_an_event_loop() -> None:
    """As in a notebook, where one is running already."""

    async def notebook(address: str) -> list[ServedAnswer]:
        return asked(address)

    with serving(replying(chat("Yes."))) as server:
        assert asyncio.run(notebook(server.address))[0].text == "Yes."


def test_seeds_depend_on_what_is_asked_and_on_nothing_else() -> None:
    """Equal for equal questions, whatever their id; other for another sample, seed or question."""
    prompt = PROMPTS[0]
    seeds = {
        seed_of(prompt, 0, 7),
        seed_of(prompt, 1, 7),
        seed_of(prompt, 0, 8),
        seed_of(PROMPTS[2], 0, 7),
        seed_of(replace(prompt, system="Be brief."), 0, 7),
    }
    assert len(seeds) == 5
    assert seed_of(replace(prompt, id="other"), 0, 7) == seed_of(prompt, 0, 7)
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_half_characters_survive() -> None:
    """A lone surrogate comes back as the server escapes it, and can be sent."""
    prompt = AuditPrompt("cut", (Turn("user", "What is \ud83d?"),))
    with serving(replying(chat("cut \ud83d"))) as server:
        assert asked(server.address, [prompt])[0].text == "cut \ud83d"
        assert server.posts()[-1]["messages"][0]["content"] == "What is \ud83d?"


@pytest.mark.parametrize(
    ("reply", "text", "finished"),
    [
        (chat(None, finish_reason="length"), "", False),
        (chat(None, finish_reason="content_filter"), "", False),
        (chat("", finish_reason="stop"), "", True),
        (chat("Hm", finish_reason=None), "Hm", False),
    ],
    ids=["thinking took all tokens", "withheld", "empty", "no reason given"],
)
def test_an_answer_without_text_or_reason_is_told_as_it_is(
    reply: Any, text: str, finished: bool
) -> None:
    """Only `stop` means that the model ended its answer."""
    with serving(replying(reply)) as server:
        [answer] = asked(server.address)
    assert (answer.text, answer.finished) == (text, finished)


def test_a_refusal_in_a_field_of_its_own_is_the_answer() -> None:
    """OpenAI's structured refusals leave the content empty."""
    reply = chat(None)
    reply["choices"][0]["message"]["refusal"] = "I cannot."
    with serving(replying(reply)) as server:
        assert asked(server.address)[0].text == "I cannot."


# --- the key ------------------------------------------------------------------------------------


def test_the_key_goes_into_its_header_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that refuses it and sends it back does not get it into the message."""
    monkeypatch.setenv(KEY_VARIABLE, "sk-secret")

    def echoing(exchange: Exchange) -> None:
        key = exchange.request.headers["authorization"]
        exchange.json({"error": {"message": f"wrong key {key}"}}, 401)

    with serving(echoing) as server:
        with pytest.raises(ModelError, match=KEY_VARIABLE) as caught:
            asked(server.address)
        assert len(server.requests) == 1
    assert server.requests[0].headers["authorization"] == "Bearer sk-secret"
    assert "secret" not in str(caught.value)
    assert "wrong key Bearer ***" in str(caught.value)


def test_without_a_key_no_header_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A local server needs none."""
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    with serving(replying(chat("Yes."))) as server:
        asked(server.address)
    assert all("authorization" not in request.headers for request in server.requests)


def test_a_key_that_no_header_can_carry_is_refused_unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line break in it would be a header of its own."""
    monkeypatch.setenv(KEY_VARIABLE, "sk\nsecret")
    with pytest.raises(UsageError, match=KEY_VARIABLE) as caught:
        asked("http://127.0.0.1:1/v1")
    assert "secret" not in str(caught.value)


def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A proxy leads out into the world; the dead one here would fail."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with serving(replying(chat("Yes."))) as server:
        assert asked(server.address)[0].text == "Yes."


# --- patience -----------------------------------------------------------------------------------


def failing(times: int, fail: Callable[[Exchange], None]) -> Script:
    """A server whose first requests fail, and which is well from then on."""

    def script(exchange: Exchange) -> None:
        if exchange.number <= times:
            fail(exchange)
        else:
            exchange.json(chat("Yes."))

    return script


def broken_off(exchange: Exchange) -> None:
    """Half of the promised body, and the end of the connection."""
    exchange.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{")
    exchange.hang_up()


def silent(exchange: Exchange) -> None:
    """The head of a reply, and then nothing for longer than anyone waits."""
    exchange.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{")
    time.sleep(2 * HURRIED.read_s)
    exchange.hang_up()


@pytest.mark.parametrize(
    "fail",
    [
        lambda exchange: exchange.send(b"slow down", 429),
        lambda exchange: exchange.send(b"oops", 500),
        lambda exchange: exchange.send(b"loading", 503),
        broken_off,
        silent,
    ],
    ids=["429", "500", "503", "broken off", "silent"],
)
def test_what_passes_is_tried_again(fail: Callable[[Exchange], None]) -> None:
    """After one failure the answer comes, and nothing is missing."""
    with serving(failing(1, fail)) as server:
        assert asked(server.address, patience=replace(HURRIED, tries=2))[0].text == "Yes."
        assert len(server.requests) == TRIALS + 2


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What was waited between tries, in seconds; nothing is waited in truth."""
    waited: list[float] = []
    sleep = asyncio.sleep

    async def noted(seconds: float) -> None:
        waited.append(seconds)
        await sleep(0)

    monkeypatch.setattr(wire.asyncio, "sleep", noted)
    return waited


@pytest.mark.parametrize(
    ("value", "least", "most"),
    [
        ("7", 7, 7),
        ("0", 0, 0),
        (format_datetime(datetime.now(UTC) + timedelta(minutes=1), usegmt=True), 0, 60),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0, 0),
        ("soon", 0.05, 0.1),
    ],
    ids=["seconds", "at once", "a date", "a date that has gone", "no time"],
)
def test_the_server_says_how_long_to_wait(
    value: str, least: float, most: float, waits: list[float]
) -> None:
    """`Retry-After` takes the place of the backoff, which is 50 to 100 ms here."""

    def later(exchange: Exchange) -> None:
        exchange.send(b"", 429, Retry_After=value)

    patience = replace(QUICK, first_wait_s=0.1, longest_wait_s=60)
    with serving(failing(1, later)) as server:
        asked(server.address, patience=patience)
    [wait] = waits
    assert least <= wait <= most


def test_a_server_that_asks_for_more_patience_than_there_is_ends_the_run() -> None:
    """An hour is told, not waited."""
    with (
        serving(lambda exchange: exchange.send(b"", 429, Retry_After="3600")) as server,
        pytest.raises(ModelError, match="asks to wait 3600 s"),
    ):
        asked(server.address)


def test_waits_grow_and_differ(waits: list[float]) -> None:
    """Half to all of 0.1, 0.2, 0.4 s, and no more than the longest wait of 0.5 s."""
    patience = replace(QUICK, tries=5, first_wait_s=0.1)
    with (
        serving(lambda exchange: exchange.send(b"", 503)) as server,
        pytest.raises(ModelError, match="503 in each of 5 tries"),
    ):
        asked(server.address, patience=patience)
    for wait, longest in zip(waits, (0.1, 0.2, 0.4, 0.5), strict=True):
        assert longest / 2 <= wait <= longest
    assert (
        len({round(wait / longest, 6) for wait, longest in zip(waits, (1, 2, 4, 5), strict=True)})
        > 1
    )


# --- servers that fail --------------------------------------------------------------------------


def dripping(exchange: Exchange) -> None:
    """A byte at a time, each in time, and no end."""
    exchange.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n")
    for _ in range(30):
        exchange.raw(b" ")
        time.sleep(0.1)
    exchange.hang_up()


def endless(exchange: Exchange) -> None:
    """More than anyone should read, in pieces, without saying how much."""
    exchange.raw(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
    for _ in range(LARGEST_REPLY // 2**18 + 2):
        exchange.raw(b" " * 2**18)
    exchange.hang_up()


def no_http(exchange: Exchange) -> None:
    """Another protocol altogether."""
    exchange.raw(b"SSH-2.0-OpenSSH_9.6\r\n")
    exchange.hang_up()


def moved(exchange: Exchange) -> None:
    """A redirect to a host that nobody named."""
    exchange.send(b"", 307, Location="http://elsewhere.example/v1/chat/completions")


def without(*path: Any) -> Any:
    """A good reply without the value at this path."""
    reply = chat("Yes.")
    place: Any = reply
    for step in path[:-1]:
        place = place[step]
    del place[path[-1]]
    return reply


FAILURES: dict[str, tuple[Script, str]] = {
    "silent": (silent, "did not finish its reply"),
    "dripping": (dripping, "did not finish its reply"),
    "broken off": (broken_off, "broke off"),
    "no HTTP": (no_http, "broke off or sent no HTTP"),
    "endless": (endless, "more than 8 MiB"),
    "moved": (moved, r"redirects to 'http://elsewhere\.example"),
    "packed": (lambda e: e.send(b"\x1f\x8b", Content_Encoding="gzip"), "packed reply"),
    "forbidden": (lambda e: e.send(b"no", 403), r"refuses access \(403\)"),
    "no path": (lambda e: e.send(b"", 404), r"has no chat/completions there.*\(404\)"),
    "no content": (lambda e: e.send(b"", 204), "0 bytes that are no whole JSON"),
    "web page": (lambda e: e.send(b"<!DOCTYPE html><p>Hi"), "a web page instead of JSON"),
    "truncated": (lambda e: e.send(b'{"choices": [{"me'), "17 bytes that are no whole JSON"),
    "no UTF-8": (lambda e: e.send(b'{"model": "\xff"}'), "byte 0xff, which is no UTF-8"),
    "deep": (lambda e: e.send(b"[" * 100_000), "no whole JSON"),
    "no number": (lambda e: e.send(b'{"choices": NaN}'), "no whole JSON"),
    "event stream": (lambda e: e.send(b"data: {}\n\n"), "no whole JSON"),
    "a list": (replying([]), "the reply is no object but list"),
    "no choices": (replying(without("choices")), "choices is no list but missing"),
    "choices of text": (replying({"choices": "Yes."}), "choices is no list but str"),
    "empty choices": (replying({"choices": []}), "choices is empty"),
    "null choice": (replying({"choices": [None]}), r"choices\[0\] is no object but missing"),
    "no message": (replying(without("choices", 0, "message")), "message is no object but missing"),
    "no text": (replying(chat(None)), "content is no text but missing"),
    "parts": (replying(chat([{"type": "text"}])), "content is no text but list"),  # type: ignore[arg-type]
    "odd reason": (replying(chat("x", finish_reason=7)), "finish_reason is no text but int"),  # type: ignore[arg-type]
    "odd model": (replying(chat("x") | {"model": {}}), "model is no text but dict"),
    "refused": (
        lambda e: e.json({"error": {"message": "too \x1b[31mlong"}}, 400),
        r"refuses the prompt.*400\): 'too \\x1b\[31mlong'",
    ),
}

KEEP_WAITING = ("silent", "dripping")


@pytest.mark.parametrize("name", FAILURES)
def test_each_failure_is_one_error_that_says_what_to_do(name: str) -> None:
    """A `ModelError` with the address, the cause and the next step, in bounded time."""
    script, said = FAILURES[name]
    patience = HURRIED if name in KEEP_WAITING else QUICK
    start = time.monotonic()
    with serving(script) as server, pytest.raises(ModelError, match=said) as caught:
        asked(server.address, patience=patience)
    assert server.address in caught.value.cause
    assert caught.value.remedy
    assert "\x1b" not in str(caught.value)
    assert time.monotonic() - start < 10


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_in_the_middle_leaves_what_was_answered(name: str) -> None:
    """What came before has been handed over; the run ends with the failure, not with a pause."""
    script, said = FAILURES[name]
    heard: list[ServedAnswer] = []

    def well_at_first(exchange: Exchange) -> None:
        if exchange.number <= TRIALS + 2:
            exchange.json(chat("Yes."))
        else:
            script(exchange)

    patience = HURRIED if name in KEEP_WAITING else QUICK
    with serving(well_at_first) as server:
        model = endpoint(server.address, side_by_side=1, patience=patience)
        with pytest.raises(ModelError, match=said):
            model.answers(PROMPTS, Decoding(), 2, 7, heard.append)
    assert [(a.prompt_id, a.sample) for a in heard] == [("p0", 0), ("p0", 1)]


def test_an_address_where_nobody_listens_cannot_be_reached() -> None:
    """A port that was free a moment ago."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    with pytest.raises(ModelError, match=f"127.0.0.1:{port}/v1 cannot be reached") as caught:
        asked(f"http://127.0.0.1:{port}/v1")
    assert "start the server" in caught.value.remedy


def test_a_host_that_is_not_known_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """The resolver says that there is no such name; that is not tried again."""
    tries = []

    def unknown(*args: object, **kwargs: object) -> None:
        tries.append(args)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(ModelError, match="host name that is not known"):
        asked("http://nowhere.invalid/v1")
    assert len(tries) == 1


def test_https_to_a_server_without_tls_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """The handshake fails, and http:// is the way out."""
    with serving(replying(chat("Yes."))) as server, pytest.raises(ModelError, match="TLS") as e:
        asked(server.address.replace("http:", "https:"))
    assert "http://" in e.value.remedy


def test_a_model_that_is_not_there_is_told_with_those_that_are() -> None:
    """404, and the list of models names the others."""

    def picky(exchange: Exchange) -> None:
        if exchange.request.path == "/v1/models":
            exchange.json({"data": [{"id": "tea"}, {"id": 3}, None, {"id": "coffee"}]})
        else:
            exchange.json({"error": {"message": "no such model"}}, 404)

    with serving(picky) as server, pytest.raises(ModelNotFoundError) as caught:
        asked(server.address)
    assert "has no model 'toy'; it has 'tea', 'coffee'" in caught.value.cause
    assert f"{server.address}#NAME" in caught.value.remedy


def test_every_failure_is_a_users_error() -> None:
    """What the command line prints without a traceback."""
    with serving(no_http) as server, pytest.raises(EmotestError, match="next: "):
        asked(server.address)


# --- what a server can --------------------------------------------------------------------------


def refusing(*fields: str, says: str = "unexpected field {}", status: int = 422) -> Script:
    """A server that refuses these fields, and echoes a seed's parity in its answers."""

    def script(exchange: Exchange) -> None:
        body = exchange.request.body
        for name in fields:
            if name in body:
                exchange.json({"detail": says.format(name)}, status)
                return
        exchange.json(chat(f"Answer {body.get('seed', exchange.number)}."))

    return script


def test_a_server_that_takes_everything_is_said_to() -> None:
    """Other seeds, other answers; one seed, one answer; no logprobs came."""
    with serving(refusing()) as server:
        able = endpoint(server.address).capabilities
        assert len(server.requests) == TRIALS
    assert able == Capabilities("max_tokens", True, True, 0, "toy-1", True, True)
    assert [note for note in able.notes(Decoding()) if "pinned" not in note] == []


@pytest.mark.parametrize(
    ("field", "note"),
    [
        ("top_k", "The server refuses top_k, so top_k 50 was not sent"),
        ("seed", "The server takes no seed"),
    ],
)
@pytest.mark.parametrize("says", ["unexpected field {}", "bad request"])
def test_a_field_that_is_refused_is_left_out_and_told(field: str, note: str, says: str) -> None:
    """Also where the refusal does not say which field it is about."""
    with serving(refusing(field, says=says)) as server:
        model = endpoint(server.address)
        model.answers(PROMPTS[:1], Decoding(), 1, 7, lambda _: None)
        assert field not in server.posts()[-1]
    assert any(said.startswith(note) for said in model.capabilities.notes(Decoding()))


def test_the_limit_has_the_name_that_the_server_wants() -> None:
    """OpenAI's newer models take `max_completion_tokens` only."""
    says = "Unsupported parameter: {}. Use 'max_completion_tokens' instead."
    with serving(refusing("max_tokens", says=says, status=400)) as server:
        asked(server.address)
        assert server.posts()[-1]["max_completion_tokens"] == 48
        assert "max_tokens" not in server.posts()[-1]
        assert server.posts()[-1]["top_k"] == 50


def test_what_decides_an_answer_is_never_left_out() -> None:
    """A server that refuses the temperature cannot be audited at that temperature."""
    with (
        serving(refusing("temperature")) as server,
        pytest.raises(ModelError, match="unexpected field temperature"),
    ):
        asked(server.address)


def test_a_server_that_ignores_the_seed_is_found_out() -> None:
    """Three answers, all different, though two had one seed."""
    with serving(lambda exchange: exchange.json(chat(f"Answer {exchange.number}"))) as server:
        able = endpoint(server.address).capabilities
    assert (able.varies, able.repeats) == (True, False)
    assert any("one seed gave two different answers" in note for note in able.notes(Decoding()))


def test_a_server_that_does_not_sample_is_found_out() -> None:
    """Always the same answer: told where sampling was wanted, and nothing is said of seeds."""
    with serving(replying(chat("Always this."))) as server:
        able = endpoint(server.address).capabilities
    assert (able.varies, able.repeats) == (False, None)
    assert any("may not sample" in note for note in able.notes(Decoding()))
    assert not any("sample" in note for note in able.notes(Decoding("greedy", 0.0)))


def test_the_trial_is_made_once() -> None:
    """Two calls, one trial."""
    with serving(replying(chat("Yes."))) as server:
        model = endpoint(server.address)
        for _ in range(2):
            model.answers(PROMPTS[:1], Decoding(), 1, 7, lambda _: None)
        assert len(server.requests) == TRIALS + 2
        assert "logprobs" not in json.dumps(server.posts()[1:])

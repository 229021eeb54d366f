"""What a server's logprobs say about P(emoji): a lower bound, or nothing."""

from __future__ import annotations

import math
from typing import Any

import pytest

from emotest.errors import ModelError, UsageError
from emotest.models.endpoint import Endpoint
from emotest.models.events import emoji_event
from emotest.models.replies import EmojiLowerBound, begins_with_whole_emoji
from tests.endpoint_servers import Exchange, Script, chat, completion, serving
from tests.test_models_endpoint import PROMPTS, endpoint, replying

PARTY = "\U0001f389"
FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"


def named(*rows: tuple[str, float] | tuple[str, float, list[int] | None]) -> dict[str, Any]:
    """Chat logprobs of one place: (token, probability) or (token, probability, bytes)."""
    tops = [
        {
            "token": token,
            "logprob": math.log(p),
            "bytes": more[0] if more else list(token.encode()),
        }
        for token, p, *more in rows
    ]
    return {"content": [{"token": "x", "logprob": -1.0, "bytes": None, "top_logprobs": tops}]}


def bound(reply: Any, *, api: str = "chat", **more: Any) -> EmojiLowerBound | None:
    """The lower bound at the answer start from a server that always gives this reply."""
    with serving(replying(reply)) as server:
        [got] = endpoint(server.address, api=api).emoji_lower_bounds([(PROMPTS[0], "")], **more)
    return got


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        (PARTY, True),
        (f" {PARTY}", True),
        (f"\n\n{PARTY}! And", True),
        (FAMILY, True),
        ("\U0001f1e9\U0001f1ea", True),  # a flag
        ("1\ufe0f\u20e3", True),  # a keycap
        ("\u2764\ufe0f", True),  # a heart, asked to be an emoji
        (f"{PARTY}\ufffd", False),
        (f"{PARTY}\ufe0e", False),  # text presentation
        ("\u2764", False),  # a heart in text presentation
        ("\U0001f1e9", False),  # half a flag
        ("1", False),
        (f"Oh {PARTY}", False),
        ("\ufffd", False),
        ("", False),
    ],
)
def test_a_token_counts_if_it_begins_with_a_whole_emoji(text: str, counts: bool) -> None:
    """White space is passed over; half an emoji is none."""
    assert begins_with_whole_emoji(text.encode(), emoji_event(skip_space=True)) is counts


@pytest.mark.parametrize("cut", [b"\xf0\x9f\x8e", PARTY.encode() + b"\xf0", b"\x89", None])
def test_a_token_that_ends_within_a_character_does_not_count(cut: bytes | None) -> None:
    """Nor does one whose bytes are not known."""
    assert not begins_with_whole_emoji(cut, emoji_event(skip_space=True))


def test_without_skipping_space_the_emoji_is_the_very_first() -> None:
    """ " 🎉" begins with a space."""
    reply = chat("x", logprobs=named((PARTY, 0.25), (f" {PARTY}", 0.5)))
    got = bound(reply, skip_space=False)
    assert got == EmojiLowerBound(pytest.approx(0.25), pytest.approx(0.75))


def test_chat_logprobs_give_the_mass_of_whole_emoji() -> None:
    """0.25 + 0.125 of what is named, and 0.5 + 0.25 + 0.125 + 0.0625 = 0.9375 is named."""
    rows = [
        ("Well", 0.5),
        (PARTY, 0.25),
        (f" {FAMILY}", 0.125),
        ("\ufffd", 0.0625, [0xF0, 0x9F]),
    ]
    got = bound(chat("x", logprobs=named(*rows)))
    assert got == EmojiLowerBound(pytest.approx(0.375), pytest.approx(0.9375))


def test_a_token_without_bytes_is_read_from_its_text() -> None:
    """Some servers leave `bytes` out or null."""
    got = bound(chat("x", logprobs=named((PARTY, 0.25, None))))
    assert got == EmojiLowerBound(pytest.approx(0.25), pytest.approx(0.25))


def test_completions_logprobs_give_the_mass_of_whole_emoji() -> None:
    """A mapping from token to logprob; `bytes:` marks a token that is no text."""
    tops = {"Well": 0.5, PARTY: 0.25, "bytes:\\xf0\\x9f": 0.125, "\ud83c": 0.0625}
    logprobs = {"top_logprobs": [{token: math.log(p) for token, p in tops.items()}]}
    got = bound(completion("x", logprobs=logprobs), api="completions")
    assert got == EmojiLowerBound(pytest.approx(0.25), pytest.approx(0.9375))


def test_a_logprob_of_minus_infinity_is_no_mass() -> None:
    """Python's servers spell the logarithm of 0 that way, though JSON has no such number."""
    reply = chat("x", logprobs=named((PARTY, 0.25), ("no", 0.5)))
    reply["choices"][0]["logprobs"]["content"][0]["top_logprobs"][0]["logprob"] = -math.inf
    assert bound(reply) == EmojiLowerBound(0.0, pytest.approx(0.5))


@pytest.mark.parametrize(
    "logprobs",
    [None, {}, {"content": None}, {"content": []}, {"content": [{"token": "x"}]}],
)
def test_a_server_that_names_no_tokens_gives_no_bound(logprobs: Any) -> None:
    """None, never 0: nothing is known."""
    assert bound(chat("x", logprobs=logprobs)) is None


def test_a_server_that_refuses_logprobs_gives_no_bound() -> None:
    """It was asked for 20, then for 5, then for none."""

    def script(exchange: Exchange) -> None:
        if "logprobs" in exchange.request.body:
            exchange.json({"detail": "no logprobs here"}, 400)
        else:
            exchange.json(chat("x"))

    with serving(script) as server:
        assert endpoint(server.address).emoji_lower_bounds([(PROMPTS[0], "")]) == [None]
        assert [p.get("top_logprobs") for p in server.posts()] == [20, 5, None, None, None]


def test_one_token_is_asked_for_at_temperature_one() -> None:
    """The model's own distribution, after the answer so far; 5 where 20 are too many."""

    def script(exchange: Exchange) -> None:
        if exchange.request.body.get("logprobs", 0) > 5:
            exchange.json({"error": {"message": "logprobs must be at most 5"}}, 400)
        else:
            logprobs = {"top_logprobs": [{PARTY: math.log(0.5)}]}
            exchange.json(completion(PARTY, logprobs=logprobs))

    with serving(script) as server:
        model = endpoint(server.address, api="completions")
        got = model.emoji_lower_bounds([(PROMPTS[0], "So nice!"), (PROMPTS[1], "")])
        asked = server.posts()[-2:]
    assert got == [EmojiLowerBound(pytest.approx(0.5), pytest.approx(0.5))] * 2
    assert {body["prompt"] for body in asked} == {
        "Question 0?\nSo nice!",
        "Be brief.\n\nQuestion 1?\n",
    }
    for body in asked:
        fields = ("max_tokens", "temperature", "top_p", "top_k", "logprobs")
        assert [body[name] for name in fields] == [1, 1.0, 1.0, 0, 5]


def test_chat_cannot_be_asked_within_an_answer() -> None:
    """The way out is completions."""
    from emotest.study.subjects import Subject

    model = Endpoint(Subject.parse("http://127.0.0.1:1/v1#toy"))
    with pytest.raises(UsageError, match="within an answer") as caught:
        model.emoji_lower_bounds([(PROMPTS[0], "So nice!")])
    assert "http://127.0.0.1:1/v1#toy?api=completions" in caught.value.remedy


def spoilt(**fields: Any) -> Script:
    """A server whose first named token has these fields instead of its own."""
    reply = chat("x", logprobs=named((PARTY, 0.25)))
    reply["choices"][0]["logprobs"]["content"][0]["top_logprobs"][0].update(fields)
    return replying(reply)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (spoilt(logprob="-1"), r"top_logprobs\[0\].logprob is no number but str"),
        (spoilt(logprob=None), "logprob is no number but missing"),
        (spoilt(logprob=True), "logprob is no number but bool"),
        (spoilt(logprob=0.5), "logprob is 0.5, no logarithm of a probability"),
        (spoilt(logprob=10**400), "logprob is 10+, no logarithm"),
        (spoilt(token=None), "token is no text but missing"),
        (spoilt(bytes="abc"), "bytes is no list but str"),
        (spoilt(bytes=[300]), "bytes holds something else than bytes"),
        (replying(chat("x", logprobs=[1])), "logprobs is no object but list"),
        (replying(chat("x", logprobs={"content": [7]})), r"content\[0\] is no object but int"),
        (replying(chat("x", logprobs=named(("a", 0.9), (PARTY, 0.9)))), "more than a probability"),
    ],
)
def test_logprobs_that_cannot_be_are_refused(script: Script, said: str) -> None:
    """Wrong kinds, and probabilities above 1, are the server's fault and said to be."""
    with serving(script) as server, pytest.raises(ModelError, match=said) as caught:
        endpoint(server.address).emoji_lower_bounds([(PROMPTS[0], "")])
    assert server.address in caught.value.cause


def test_a_logprob_with_thousands_of_digits_is_no_mass() -> None:
    """An integer that no float holds."""
    reply = chat("x", logprobs=named((PARTY, 0.25), ("no", 0.5)))
    reply["choices"][0]["logprobs"]["content"][0]["top_logprobs"][0]["logprob"] = -(10**400)
    assert bound(reply) == EmojiLowerBound(0.0, pytest.approx(0.5))

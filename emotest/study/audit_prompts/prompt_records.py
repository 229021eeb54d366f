"""One record of a prompt file, checked: the keys and values behind an `AuditPrompt`.

Takes a mapping as CSV, JSON or TOML give it; gives the prompt or a `DataError` that says what is
wrong with this record and not where it stands: that the reader of the file adds. Knows no file
and no format.

Keys (in any case; others are ignored): `prompt` or `text`, or `messages` in the chat format with
`role` and `content`; optional `id`, `register`, `language`, `system`, `topic`. White space around
a value is taken off: it is the file's, not the prompt's.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, get_args

import regex

from emotest.errors import DataError
from emotest.study.audit_prompts.prompt_set import (
    OWN_REGISTER,
    UNKNOWN_LANGUAGE,
    AuditPrompt,
    Role,
    Turn,
)

QUESTION_KEYS = ("prompt", "text", "messages")
KEYS = (*QUESTION_KEYS, "id", "register", "language", "topic", "system")

LONGEST_PROMPT = 100_000
"""Most characters of a prompt, all its turns and the system prompt together."""

LONGEST_LABEL = 200
"""Most characters of an id, register, language or topic: they stand in tables and file names."""

_MOST_NAMED = 10
_SURROGATE = regex.compile(r"\p{Cs}")
_NO_LABEL = regex.compile(r"[\p{Cc}\p{Cs}\p{Zl}\p{Zp}]")
_OTHER_NAMES = ("question", "instruction", "input", "query", "content", "user", "message")
"""What other tools call a prompt; `conversations` with `from` and `value` is another shape."""


def prompt_from(record: Mapping[str, object], *, fallback_id: str) -> AuditPrompt:
    """The prompt of a record; `fallback_id` names it where the record has no id."""
    values = _known(record)
    key = question_key(values, record)
    if key == "messages":
        system, turns = _chat(values["messages"], _optional("system", values.get("system")))
    else:
        system, turns = _optional("system", values.get("system")), (_question(key, values[key]),)
    n_characters = len(system or "") + sum(len(turn.text) for turn in turns)
    if n_characters > LONGEST_PROMPT:
        raise DataError(
            f"the prompt has {n_characters:,} characters",
            remedy=f"shorten it to at most {LONGEST_PROMPT:,} characters, system prompt and turns "
            "together",
        )
    return AuditPrompt(
        id=_label("id", values) or fallback_id,
        turns=turns,
        register=_label("register", values) or OWN_REGISTER,
        language=_label("language", values) or UNKNOWN_LANGUAGE,
        system=system,
        topic=_label("topic", values),
    )


def plain_key(name: str) -> str:
    """The name of a key or column as it is compared: lower case, no blanks around it."""
    return name.strip().casefold()


def question_key(values: Mapping[str, object], names: Iterable[str]) -> str:
    """The one key among the known `values` that holds the question.

    `names` are all names of the record as it spells them, for the error. A null counts as absent
    where another key is filled.
    """
    there = [key for key in QUESTION_KEYS if key in values]
    there = [key for key in there if values[key] is not None] or there
    if len(there) == 1:
        return there[0]
    if there:
        raise DataError(
            f"there are both {' and '.join(map(repr, there))}",
            remedy="keep the one that is to be asked, and rename the other",
        )
    raise DataError(f"there is no prompt among {_named(names)}", remedy=_renaming(names))


def _known(record: Mapping[str, object]) -> dict[str, object]:
    values: dict[str, object] = {}
    for name, value in record.items():
        key = plain_key(name)
        if key in values:
            raise DataError(f"{key!r} is there twice", remedy="keep one of the two, or rename it")
        if key in KEYS:
            values[key] = value
    return values


# --- what a value may be -----------------------------------------------------------------------


def _chat(messages: Any, system: str | None) -> tuple[str | None, tuple[Turn, ...]]:
    if not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages):
        raise DataError(
            "'messages' is no list of objects",
            remedy='write [{"role": "user", "content": "..."}, ...]',
        )
    turns = []
    for number, message in enumerate(messages, start=1):
        role, what = message.get("role"), f"the content of message {number}"
        if role == "system":
            if number > 1 or system is not None:
                raise DataError(
                    f"message {number} is a second or late system prompt",
                    remedy="give one system prompt, as the first message or as 'system'",
                )
            system = _optional(what, message.get("content"))
        elif role in get_args(Role):
            turns.append(Turn(role, _said(what, message.get("content"))))
        else:
            raise DataError(
                f"message {number} has {_role_named(role)}",
                remedy="use the roles system, user and assistant",
            )
    if not turns or turns[-1].role != "user":
        raise DataError(
            "the messages do not end with the user's turn",
            remedy="remove the answer at the end: the model under audit is to give it",
        )
    return system, tuple(turns)


def _question(key: str, value: object) -> Turn:
    return Turn("user", _said(key, value))


def _optional(what: str, value: object) -> str | None:
    """A text that may be missing or empty."""
    return None if value is None else _text(what, value) or None


def _said(what: str, value: object) -> str:
    text = "" if value is None else _text(what, value)
    if not text:
        raise DataError(f"{what} is empty", remedy="fill it in, or remove the prompt")
    return text


def _text(what: str, value: object) -> str:
    if not isinstance(value, str):
        raise DataError(
            f"{what} is no text but {type(value).__name__}",
            remedy="write it as one string, in quotation marks",
        )
    if "\0" in value:
        raise DataError(f"{what} holds a NUL character", remedy="remove it: no prompt has one")
    if _SURROGATE.search(value):
        raise DataError(
            f"{what} holds half a character (a lone surrogate, \\ud800 to \\udfff)",
            remedy="write the file again from the whole text; such halves come from a cut emoji",
        )
    return value.strip()


def _label(key: str, values: Mapping[str, object]) -> str:
    value = values.get(key)
    if value is None:
        return ""
    # Numbers are usual as ids; bool is an int to Python, and to nobody else.
    label = str(value) if type(value) is int else _text(key, value)
    if len(label) > LONGEST_LABEL or _NO_LABEL.search(label):
        raise DataError(
            f"{key} is no short line: {label[:40]!r}",
            remedy=f"use at most {LONGEST_LABEL} characters, without line breaks and control "
            "characters",
        )
    return label


# --- what errors say ---------------------------------------------------------------------------


def _role_named(role: object) -> str:
    if role is None:
        return "no role"
    return f"the unknown role {role[:40]!r}" if isinstance(role, str) else "a role that is no text"


def _named(names: Iterable[str]) -> str:
    some = list(names)
    more = f" and {len(some) - _MOST_NAMED} more" if len(some) > _MOST_NAMED else ""
    return (", ".join(repr(name[:40]) for name in some[:_MOST_NAMED]) or "no keys") + more


def _renaming(names: Iterable[str]) -> str:
    plain = {plain_key(name): name for name in list(names)[:_MOST_NAMED]}
    likely = [name for name in _OTHER_NAMES if name in plain]
    likely += difflib.get_close_matches("prompt", plain, n=1, cutoff=0.7)
    if likely:
        return f"rename {plain[likely[0]]!r} to 'prompt'"
    return "name what is asked 'prompt' or 'text'"

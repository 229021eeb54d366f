"""Chat templates from strangers: programs in a sandbox, which may still run or grow without end.

A template is first tried in a process of its own with little time and memory (`require_harmless`);
one that passes and misbehaves later, on some question alone, is cut by the clock (`within`) and
by its length (`require_short`). Knows Jinja's sandbox by `template_trial` alone, and no model.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from emotest.errors import ChatTemplateError, EmotestError
from emotest.models.trials import SECONDS, tried

TRIAL_BYTES = 512 * 2**20
LONGEST_RENDERED = 2_000_000
"""Characters of a rendered conversation: ten times the longest prompt with its history."""

_TRIAL = Path(__file__).with_name("template_trial.py")
_REMEDY = (
    "use the template of the model's own publisher, mend chat_template.jinja, or ask in plain "
    "text with the option ?template=off"
)


def require_harmless(template: str, marks: Mapping[str, str], whose: str) -> None:
    """Refuse a template that runs or grows without end; `marks` are the tokenizer's (`eos_token`).

    `ChatTemplateError` says whose it is and what it did. About a tenth of a second.
    """
    told = tried(_TRIAL, {"template": template, "marks": dict(marks)}, n_bytes=TRIAL_BYTES)
    if told == "time":
        raise endless(whose)
    if told == "memory":
        raise ChatTemplateError(
            f"the chat template of {whose} needs more than {TRIAL_BYTES // 2**20} MiB of memory "
            "for a short question, or breaks the process that renders it",
            remedy=_REMEDY,
        )
    if "error" in told:
        raise ChatTemplateError(
            f"the chat template of {whose} cannot be read: {told['error']}", remedy=_REMEDY
        )
    require_short(told["longest"], whose)


def require_short(n_characters: int, whose: str) -> None:
    """Refuse a rendered text that no question can have made so long."""
    if n_characters > LONGEST_RENDERED:
        raise ChatTemplateError(
            f"the chat template of {whose} makes {n_characters:,} characters of one question",
            remedy=_REMEDY,
        )


@contextmanager
def within(seconds: float, error: EmotestError) -> Iterator[None]:
    """Raise `error` where the block is still running after so many seconds.

    By the alarm clock of the process, so only in its main thread and not on Windows; elsewhere
    the block runs as long as it runs. Python code and regular expressions are cut; a single long
    operation (a power, a copy) ends first. An alarm that was set before goes off when it should.
    """
    if not hasattr(signal, "SIGALRM") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def cut(number: int, frame: FrameType | None) -> None:
        raise error

    before = signal.signal(signal.SIGALRM, cut)
    left, again = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, left, again)
        signal.signal(signal.SIGALRM, before)


def endless(whose: str) -> ChatTemplateError:
    """The error that a template does not end."""
    return ChatTemplateError(
        f"the chat template of {whose} is still running after {SECONDS} s",
        remedy=_REMEDY,
    )

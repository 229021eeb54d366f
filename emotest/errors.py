"""What can go wrong, on one page, each with its remedy.

Every error that a user can cause is an `EmotestError`. It says the cause with the value that
caused it, and the next step; the command line and the pytest plugin print exactly that, without
a traceback. The classes are named after what is wrong, so that code can tell them apart.
"""

from __future__ import annotations

import re

_ACTS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""Control characters but line ends and tabs, changes of direction, halves of a character."""


class EmotestError(Exception):
    """Something a user can mend. `cause` says what is wrong, `remedy` what to do next.

    Both may quote what a stranger wrote: shown as text, nothing in them acts on a terminal.
    """

    def __init__(self, cause: str, *, remedy: str) -> None:
        super().__init__(cause)
        self.cause = cause
        self.remedy = remedy

    def __str__(self) -> str:
        told = f"{self.cause}\n  next: {self.remedy}"
        return _ACTS.sub(lambda match: f"⟨U+{ord(match.group()):04X}⟩", told)

    def __reduce__(self) -> tuple[object, ...]:
        # Errors cross process borders (adapters train side by side); the default pickling of an
        # exception would forget the keyword argument.
        return _rebuilt, (type(self), self.cause, self.remedy)


def _rebuilt(kind: type[EmotestError], cause: str, remedy: str) -> EmotestError:
    return kind(cause, remedy=remedy)


class UsageError(EmotestError):
    """An option or argument that cannot be used as it stands."""


class DataError(EmotestError):
    """A question set or prompt file that cannot be used as it stands."""


class EmojiInDataError(DataError):
    """Tuning data hold emoji, so emoji in the answers would prove nothing."""


class ModelError(EmotestError):
    """A model, tokenizer or adapter that cannot be loaded or used."""


class ModelNotFoundError(ModelError):
    """No model or adapter is to be found at the given place."""


class AdapterError(ModelError):
    """An adapter that is broken, belongs to another base, or does not act."""


class ChatTemplateError(ModelError):
    """A tokenizer without a chat template, where one is needed."""


class TrainingError(EmotestError):
    """Training cannot start or did not end well."""


class StoreError(EmotestError):
    """The store cannot be read or written."""


class StoreFullError(StoreError):
    """No space is left where the store lives."""


class StatisticsError(EmotestError):
    """Too little or unusable data for the statement that was asked for."""


class OrganismError(EmotestError):
    """An organism that is unknown, incomplete or cannot be built."""

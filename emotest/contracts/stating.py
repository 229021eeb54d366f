"""`@contract`: a test of a model that holds for every prompt, or names the plainest that it fails.

Takes a test function, gives one that Hypothesis drives and plain pytest collects. Hypothesis draws
prompts, keeps a violation in its example database and tries it first in the next run.

Whether a prompt shows a violation has nothing to do with its neighbours in the order of
plainness, so that Hypothesis, which steps from one example to a simpler one, would stop at any
prompt whose neighbours hold. Prompts are few, and each is asked once: a contract that is violated
is tried on everything plainer, in order, and reports the first that shows it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import TYPE_CHECKING, Any, overload

from emotest.contracts.drawing import Wanted, order_of
from emotest.contracts.drawing import prompts as any_prompts
from emotest.contracts.models import Heard, ModelHandle
from emotest.contracts.rewording import paraphrases, rewordings
from emotest.contracts.showing import violation
from emotest.errors import EmotestError, UsageError
from emotest.study.audit_prompts.prompt_set import AuditPrompt

if TYPE_CHECKING:
    from hypothesis import settings
    from hypothesis.strategies import SearchStrategy

EXAMPLES = 50
"""Prompts that a contract is tried on unless it says otherwise."""

FIXTURE_OF: Mapping[str, str] = {"model": "emo_model", "base": "emo_base"}
"""What the arguments of a contract are called in pytest; a user's own `model` stays theirs."""

Test = Callable[..., None]


@overload
def contract(test: Test, /) -> Test:
    """`@contract` alone: any prompt of the model's own set."""


@overload
def contract(
    *,
    prompts: SearchStrategy[AuditPrompt] | None = None,
    examples: int = EXAMPLES,
    **drawn: SearchStrategy[Any],
) -> Callable[[Test], Test]:
    """`@contract(...)`: these prompts."""


def contract(
    test: Test | None = None,
    /,
    *,
    prompts: SearchStrategy[AuditPrompt] | None = None,
    examples: int = EXAMPLES,
    **drawn: SearchStrategy[Any],
) -> Test | Callable[[Test], Test]:
    """Hold a test for every prompt that `prompts` draws; without it, for any of the model's set.

    The test's arguments: `prompt`, what was drawn; `paraphrase`, the same in other words; `model`
    and `base`, the handles `emo_model` and `emo_base`; those of `drawn`; all others are fixtures.
    `examples` are tried at most; a set that holds no more is tried whole.

    `UsageError` for a test without `prompt`, or for fewer than one example.
    """
    if test is None:
        return lambda test: _stated(test, prompts, examples, drawn)
    return _stated(test, prompts, examples, drawn)


def _stated(
    test: Test,
    prompts: SearchStrategy[AuditPrompt] | None,
    examples: int,
    drawn: Mapping[str, SearchStrategy[Any]],
) -> Test:
    from hypothesis import given
    from hypothesis import strategies as st

    names = signature(test).parameters
    _check(test, names, examples)
    among = any_prompts() if prompts is None else prompts
    shared = st.shared(among)
    strategies: dict[str, SearchStrategy[Any]] = {**drawn, "prompt": shared}
    if "paraphrase" in names:
        strategies["paraphrase"] = shared.flatmap(paraphrases)
    # Where more is drawn, it may be drawn inside the test: then a prompt cannot be tried alone.
    stated = _Contract(test, order_of(among) if not drawn else None)

    in_pytest = _in_pytest(signature(test))

    @wraps(test)
    def example(*placed: Any, **named: Any) -> None:
        __tracebackhide__ = True
        given = in_pytest.bind(*placed, **named).arguments
        stated.hold({_own_name(name, names): given[name] for name in given})

    example.__signature__ = in_pytest  # type: ignore[attr-defined]
    tested: Test = _settings(examples, stated)(given(**strategies)(example))
    return tested


def _check(test: Test, names: Mapping[str, Parameter], examples: int) -> None:
    if "prompt" not in names:
        raise UsageError(
            f"the contract {test.__name__} asks for no prompt",
            remedy="give the test an argument 'prompt', or leave @emotest.contract out",
        )
    if examples < 1:
        raise UsageError(
            f"the contract {test.__name__} is tried on {examples} examples",
            remedy="use a whole number from 1 on",
        )


def _settings(examples: int, stated: _Contract) -> settings:
    from hypothesis import HealthCheck, Phase, Verbosity, settings

    usual = settings()
    # Explaining asks for many other examples. A contract that knows its prompts shrinks by itself,
    # and shows what it came to instead of what was drawn.
    left_out = {Phase.explain} if stated.among is None else {Phase.explain, Phase.shrink}
    return settings(
        usual,
        max_examples=examples,
        # A model is slow, and slower when it is first asked and loaded.
        deadline=None,
        suppress_health_check=[*usual.suppress_health_check, HealthCheck.too_slow],
        phases=[phase for phase in usual.phases if phase not in left_out],
        report_multiple_bugs=False,
        verbosity=usual.verbosity if stated.among is None else Verbosity.quiet,
    )


def _in_pytest(written: Signature) -> Signature:
    """The signature with the names of pytest's fixtures."""
    return written.replace(
        parameters=[
            one.replace(name=FIXTURE_OF.get(one.name, one.name))
            for one in written.parameters.values()
        ]
    )


def _own_name(fixture: str, names: Mapping[str, Parameter]) -> str:
    return next(
        (own for own, theirs in FIXTURE_OF.items() if theirs == fixture and own in names), fixture
    )


@dataclass(frozen=True)
class _Contract:
    """A test, and what its prompts are drawn among; None where that is not known."""

    test: Test
    among: Wanted | None

    def hold(self, arguments: dict[str, Any]) -> None:
        """Try one example; raises the violation of the plainest prompt up to this one."""
        __tracebackhide__ = True
        fault = _fault(self.test, arguments)
        if fault is None:
            return
        for plainer in self._plainer(arguments) if fault.shows else ():
            found = _fault(self.test, {**arguments, **plainer})
            if found is not None and found.shows:
                fault = found
                break
        fault.tell()
        raise fault.error

    def _plainer(self, arguments: Mapping[str, Any]) -> Iterator[dict[str, AuditPrompt]]:
        """Prompts, or pairs of prompt and paraphrase, below the drawn one, plainest first."""
        if self.among is None:
            return
        drawn: AuditPrompt = arguments["prompt"]
        plainer = self.among.plainer_than(drawn)
        if "paraphrase" not in arguments:
            yield from ({"prompt": prompt} for prompt in plainer)
            return
        for prompt in (*plainer, drawn):
            for reworded in rewordings(prompt):
                if prompt is drawn and reworded.id == arguments["paraphrase"].id:
                    return
                yield {"prompt": prompt, "paraphrase": reworded}


@dataclass(frozen=True)
class _Fault:
    """What a test raised, on what, and what it had heard by then."""

    error: BaseException
    arguments: Mapping[str, Any]
    heard: tuple[Heard, ...]

    @property
    def shows(self) -> bool:
        """Whether it is a violation; else the test was skipped, assumed away, or could not run."""
        from hypothesis.errors import HypothesisException

        skipped = _outcomes()[1:]
        return not isinstance(self.error, (HypothesisException, EmotestError, *skipped))

    def tell(self) -> None:
        """Add prompt and answers to what is shown of a violation."""
        if self.shows:
            self.error.add_note(
                violation(self.arguments["prompt"], self.arguments.get("paraphrase"), self.heard)
            )


def _fault(test: Test, arguments: Mapping[str, Any]) -> _Fault | None:
    __tracebackhide__ = True
    handles = [one for one in arguments.values() if isinstance(one, ModelHandle)]
    for handle in handles:
        handle.forget()
    try:
        test(**arguments)
    except (Exception, *_outcomes()) as error:  # type: ignore[misc]
        return _Fault(error, arguments, tuple(one for handle in handles for one in handle.heard))
    return None


def _outcomes() -> tuple[type[BaseException], ...]:
    """What `pytest.fail` and `pytest.skip` raise, which is no `Exception`; pytest itself is the
    plugin's alone."""
    pytest = sys.modules.get("pytest")
    return (pytest.fail.Exception, pytest.skip.Exception) if pytest else ()

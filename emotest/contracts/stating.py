"""`@contract`: a test of a model that holds for every prompt, or names the plainest that it fails.

Takes a test function, gives one that Hypothesis drives and plain pytest collects. Hypothesis draws
prompts, keeps a violation in its example database and tries it first in the next run.

Whether a prompt shows a violation has nothing to do with its neighbours in the order of
plainness, and Hypothesis alone would stop at any prompt whose nearest neighbours hold. So an
example that fails is not reported before everything plainer was tried: what fails is then all that
is not plainer than the plainest violation, and Hypothesis' own shrinking ends exactly there.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import TYPE_CHECKING, Any, overload

from emotest.contracts.drawing import plainer_than
from emotest.contracts.drawing import prompts as any_prompts
from emotest.contracts.models import ModelHandle
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
def contract(test: Test, /) -> Test: ...
@overload
def contract(
    *,
    prompts: SearchStrategy[AuditPrompt] | None = None,
    examples: int = EXAMPLES,
    **drawn: SearchStrategy[Any],
) -> Callable[[Test], Test]: ...
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
    stated = _Contract(test, among, exhaustive=not drawn)

    @wraps(test)
    def example(*instance: Any, **arguments: Any) -> None:
        __tracebackhide__ = True
        stated.hold(instance, {_own_name(name, names): arguments[name] for name in arguments})

    example.__signature__ = _in_pytest(signature(test))  # type: ignore[attr-defined]
    tested: Test = _settings(examples)(given(**strategies)(example))
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


def _settings(examples: int) -> settings:
    from hypothesis import HealthCheck, Phase, settings

    usual = settings()
    return settings(
        usual,
        max_examples=examples,
        # A model is slow, and slower when it is first asked and loaded.
        deadline=None,
        suppress_health_check=[*usual.suppress_health_check, HealthCheck.too_slow],
        # Explaining asks for many other examples, and one violation is enough to mend.
        phases=[phase for phase in usual.phases if phase is not Phase.explain],
        report_multiple_bugs=False,
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
    """A test, and what its prompts are drawn among."""

    test: Test
    among: SearchStrategy[AuditPrompt]
    exhaustive: bool
    """Whether plainer prompts are tried: not where more was drawn, which may be interactive."""

    def hold(self, instance: tuple[Any, ...], arguments: dict[str, Any]) -> None:
        """Try one example; raises the violation of the plainest prompt up to this one."""
        __tracebackhide__ = True
        fault = _fault(self.test, instance, arguments)
        if fault is None:
            return
        for plainer in self._plainer(arguments) if self.exhaustive and fault.shows else ():
            found = _fault(self.test, instance, {**arguments, **plainer})
            if found is not None and found.shows:
                fault = replace(found, arguments={**arguments, **plainer})
                break
        fault.tell()
        raise fault.error

    def _plainer(self, arguments: Mapping[str, Any]) -> Iterator[dict[str, AuditPrompt]]:
        """Prompts, or pairs of prompt and paraphrase, below the drawn one, plainest first."""
        drawn: AuditPrompt = arguments["prompt"]
        plainer = plainer_than(drawn, self.among)
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
    """What a test raised, and on what."""

    error: BaseException
    arguments: Mapping[str, Any]

    @property
    def shows(self) -> bool:
        """Whether it is a violation; else the test was skipped, assumed away, or could not run."""
        from hypothesis.errors import HypothesisException

        skipped = _outcomes()[1:]
        return not isinstance(self.error, (HypothesisException, EmotestError, *skipped))

    def tell(self) -> None:
        """Note prompt and answers, which Hypothesis shows with the last, plainest example."""
        from hypothesis import note

        if self.shows:
            heard = [one for handle in _handles(self.arguments) for one in handle.heard]
            note(violation(self.arguments["prompt"], self.arguments.get("paraphrase"), heard))


def _fault(test: Test, instance: tuple[Any, ...], arguments: Mapping[str, Any]) -> _Fault | None:
    __tracebackhide__ = True
    for handle in _handles(arguments):
        handle.forget()
    try:
        test(*instance, **arguments)
    except (Exception, *_outcomes()) as error:
        return _Fault(error, arguments)
    return None


def _handles(arguments: Mapping[str, Any]) -> list[ModelHandle]:
    return [one for one in arguments.values() if isinstance(one, ModelHandle)]


def _outcomes() -> tuple[type[BaseException], ...]:
    """What `pytest.fail` and `pytest.skip` raise, which is no `Exception`; pytest itself is the
    plugin's alone."""
    pytest = sys.modules.get("pytest")
    return (pytest.fail.Exception, pytest.skip.Exception) if pytest else ()

"""A saved baseline: what one model answered, with what it was and how it was asked.

Stands in for the base where the base itself cannot be run again. It holds records, not means, so
that the same paired test decides; and identities, so that it is never held against answers that
were asked for in another way. Whatever differs is an error that names the field.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from emotest.artefacts.audit import Spot
from emotest.audit.arms import Answers, Asking, Probabilities
from emotest.audit.measuring import has_emoji
from emotest.audit.result import Audited, AuditResult, Pair, Plan, part
from emotest.errors import DataError, UsageError
from emotest.study.audit_prompts.prompt_set import AuditPrompt, PromptSet

SCHEMA_VERSION = 1

MOST_BYTES = 500_000_000
"""Of a baseline file: far more than any audit writes."""


@part
class Record:
    """What the model answered to one prompt."""

    prompt: str
    texts: list[str]
    n_cut: int


@part
class Baseline:
    """One model's answers. `asked` holds all that two sets of answers must share to be compared:
    prompts (digest), decoding, samples, sampling seed, the order's seed and the metric's version.
    """

    schema_version: int = SCHEMA_VERSION
    kind: Literal["baseline"] = "baseline"
    name: str
    made_at: str
    model: Audited
    asked: dict[str, Any]
    records: list[Record]


def baseline_of(
    result: AuditResult, pairs: Sequence[Pair], role: Literal["base", "tuned"]
) -> Baseline:
    """The baseline that an audit's answers make, of either of its models."""
    return Baseline(
        name=result.name,
        made_at=result.made_at,
        model=getattr(result, role),
        asked=asked(result.plan, result.metric_version),
        records=[
            Record(
                prompt=pair.prompt_id,
                texts=getattr(pair, role),
                n_cut=getattr(pair, f"{role}_cut"),
            )
            for pair in pairs
        ],
    )


def asked(plan: Plan, metric_version: str) -> dict[str, Any]:
    """All that two sets of answers must share to be compared."""
    return {
        "prompts": plan.prompts.digest,
        "decoding": plan.decoding,
        "n_samples": plan.n_samples,
        "sampling_seed": plan.sampling_seed,
        "analysis_seed": plan.analysis_seed,
        "metric_version": metric_version,
    }


def share_with_emoji(baseline: Baseline) -> float:
    """The share of the recorded answers that hold an emoji."""
    texts = [text for record in baseline.records for text in record.texts]
    return sum(map(has_emoji, texts)) / max(1, len(texts))


def document(baseline: Baseline) -> str:
    """The baseline as the text of a JSON file; lone surrogates as escapes."""
    return json.dumps(asdict(baseline), indent=1, allow_nan=False) + "\n"


def read_baseline(path: Path) -> Baseline:
    """The baseline in a file; a `DataError` names what is wrong with it."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise DataError(
                f"{path} is larger than {MOST_BYTES:,} bytes", remedy="name a baseline file"
            )
        row = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(row, dict) and row.get("schema_version") not in (None, SCHEMA_VERSION):
            raise DataError(
                f"{path} has schema version {row['schema_version']!r}, this emotest reads "
                f"{SCHEMA_VERSION}",
                remedy="save the baseline again: emotest baseline save RUN",
            )
        return TypeAdapter(Baseline).validate_python(row)
    except FileNotFoundError:
        raise DataError(
            f"there is no baseline {path}",
            remedy="save one first: emotest baseline save RUN --out FILE; a missing baseline is "
            "never a pass",
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the document"
        raise DataError(
            f"{path} is no baseline: {place}: {first['msg'].lower()}",
            remedy="save it again: emotest baseline save RUN",
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"{path} cannot be read: {error}", remedy="save it again: emotest baseline save RUN"
        ) from None


class RecordedArm:
    """The base of an audit, from a record. It answers only what it was asked before."""

    def __init__(self, baseline: Baseline, path: Path) -> None:
        self.baseline, self.path = baseline, path
        self._records: Mapping[str, Record] = {one.prompt: one for one in baseline.records}

    def told(self) -> Audited:
        """The model that answered."""
        return self.baseline.model

    def notes(self, asking: Asking) -> list[str]:
        """That the base was not run in this job, and when it was."""
        return [
            f"the base was not run: its answers are those of the baseline {self.path.name}, "
            f"saved from {self.baseline.name} ({self.baseline.made_at})"
        ]

    def answers(self, prompts: Sequence[AuditPrompt], asking: Asking) -> list[Answers]:
        """The recorded answers; a `UsageError` for a prompt that was never asked."""
        lacking = [prompt.id for prompt in prompts if prompt.id not in self._records]
        if lacking:
            raise UsageError(
                f"the baseline {self.path} holds no answer to {lacking[0]!r}",
                remedy="save a baseline that asked the whole budget (emotest audit --fixed)",
            )
        found = [self._records[prompt.id] for prompt in prompts]
        return [Answers(tuple(one.texts), one.n_cut) for one in found]

    def probabilities(self, spots: Sequence[Spot]) -> Probabilities | None:
        """Unknown: a record has no weights."""
        return None


def require_alike(
    baseline: Baseline, path: Path, wanted: Mapping[str, Any], base: Audited | None
) -> None:
    """Refuse a baseline whose answers were asked for in another way, or of another model.

    `base` is the model that the user named beside the baseline, if any.
    """
    for name, value in wanted.items():
        if baseline.asked.get(name) != value:
            raise UsageError(
                f"the baseline {path} does not match: {name} is {baseline.asked.get(name)!r} there "
                f"and {value!r} in this audit",
                remedy="audit with the baseline's setting, or save a new baseline",
            )
    if base is not None and base.digest != baseline.model.digest:
        raise UsageError(
            f"the baseline {path} is of {baseline.model.subject} ({baseline.model.digest[:12]}), "
            f"not of {base.subject} ({base.digest[:12]})",
            remedy="leave --base out, or save a baseline of that model",
        )


def covered(prompts: PromptSet, baseline: Baseline) -> int:
    """How many of the first prompts the baseline holds, without a gap."""
    known = {one.prompt for one in baseline.records}
    n = 0
    for prompt in prompts:
        if prompt.id not in known:
            break
        n += 1
    return n

"""The two models of an audit: a subject as the user wrote it, pinned to what decides its answers.

Subject in, `Model` out. A base with an adapter and its base alone share one model in memory, so
each model says in whose workshop it is asked. Nothing is loaded here.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

from emotest.artefacts.audit import AuditedModel
from emotest.audit.result import Audited
from emotest.errors import UsageError
from emotest.models.identity import Identity, resolve
from emotest.study.subjects import Subject


@dataclass(frozen=True)
class Model:
    """A local model that can be audited.

    `workshop` is the subject that a worker loads: the model without its adapter.
    """

    subject: Subject
    identity: Identity
    label: str = ""
    """What a person calls it, where that is not the subject."""

    @property
    def workshop(self) -> str:
        """The subject without its adapter, as text."""
        return str(replace(self.subject, adapter=None))

    @property
    def loaded_as(self) -> str:
        """The digest of what is in memory before an adapter is attached."""
        return self.identity.base.digest

    def asked(self) -> AuditedModel:
        """The model as requests name it."""
        adapter = self.identity.adapter
        return AuditedModel(
            str(self.subject), self.identity.digest, adapter.folder if adapter else None
        )

    def told(self) -> Audited:
        """The model as a result names it: no place on this machine."""
        fields = asdict(self.identity)
        for place in ("folder", "subject"):
            del fields[place]
        if fields["adapter"]:
            del fields["adapter"]["folder"]
        return Audited(
            subject=self.label or str(self.subject), identity=fields, digest=self.identity.digest
        )


def pinned(subject: str, flag: str) -> Model:
    """The model that a subject names; errors say which of the two it was (`flag`)."""
    found = Subject.parse(subject)
    if found.kind == "served":
        raise UsageError(
            f"{flag} {subject} is a served model, which is asked through its endpoint",
            remedy="name a local model here",
        )
    return Model(found, resolve(found))


def require_two(base: Model, tuned: Model) -> None:
    """Refuse to hold a model against itself: an audit of equals says nothing about either."""
    if base.identity.digest == tuned.identity.digest:
        raise UsageError(
            f"--base {base.subject} and --tuned {tuned.subject} are the same model",
            remedy="name two models; a null audit of one model under two seeds is in "
            "benchmarks/audit_calibration.py",
        )

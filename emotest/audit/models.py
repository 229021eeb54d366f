"""A local model of an audit: a subject as the user wrote it, pinned to what decides its answers.

Subject in, `Model` out. A base with an adapter and its base alone share one model in memory, so a
model says what is loaded before an adapter is attached. Nothing is loaded here.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from emotest.artefacts.audit import AuditedModel
from emotest.audit.result import Audited
from emotest.errors import UsageError
from emotest.models.identity import Identity, resolve
from emotest.models.lora import adapter_config, named_base
from emotest.models.strangers import code_of_its_own
from emotest.study.subjects import Subject


@dataclass(frozen=True)
class Model:
    """A model with weights that are here."""

    subject: Subject
    identity: Identity
    label: str = ""
    """What a person calls it, where that is not the subject."""

    @classmethod
    def pinned(cls, subject: Subject) -> Model:
        """The model that a subject names, its files found and hashed."""
        return cls(subject, resolve(subject))

    @property
    def workshop(self) -> str:
        """The subject without its adapter, as text: what a worker loads."""
        return str(replace(self.subject, adapter=None))

    @property
    def loaded_as(self) -> str:
        """The digest of what is in memory before an adapter is attached."""
        return self.identity.base.digest

    @property
    def folders(self) -> list[Path]:
        """Where its files lie here: the base's, and the adapter's."""
        adapter = self.identity.adapter
        places = (self.identity.folder, adapter.folder if adapter else None)
        return [Path(place) for place in places if place]

    def notes(self) -> list[str]:
        """What its files ask for and did not get, and an adapter that was made for another base."""
        notes, folder = [], self.identity.folder
        if folder and (code := code_of_its_own(Path(folder))):
            notes.append(f"its files bring code of their own ({code}), which was not run")
        if (adapter := self.identity.adapter) and adapter.folder:
            named = named_base(adapter_config(Path(adapter.folder)))
            if named and _bare(named) != _bare(self.subject.name):
                notes.append(
                    f"its adapter says that it was made for {named}; it was put on "
                    f"{self.subject.name}, where its weights have their places"
                )
        return notes

    def asked(self) -> AuditedModel:
        """The model as requests name it."""
        adapter = self.identity.adapter
        folder = adapter.folder if adapter else None
        return AuditedModel(str(self.subject), self.identity.digest, folder)

    def told(self) -> Audited:
        """The model as a result names it: no place on this machine."""
        fields = asdict(self.identity)
        for place in ("folder", "subject"):
            del fields[place]
        if fields["adapter"]:
            del fields["adapter"]["folder"]
            if self.label:
                del fields["adapter"]["source"]
        name = self.label or str(self.subject)
        return Audited(subject=name, identity=fields, digest=self.identity.digest)


def _bare(base: str) -> str:
    """The name of a base without owner, folder, revision and options: what two spellings share."""
    # An adapter may name its base in whatever words; those that are no subject stay as they are.
    with suppress(UsageError):
        base = Subject.parse(base).name
    return Path(base).name.casefold()

"""Which model, exactly: a `Subject` in, a frozen `Identity` out, without torch.

An identity pins what decides an answer apart from the prompt and the seeds: the weights (by
content, or by commit on the Hub), the chat template, the quantization, the dtype and the adapter.
Its digest is what keys of the store are made from. Nothing is loaded here; files are hashed, and
a caller who keeps the mapping `known` hashes each file once. Served models have no weights to
pin and belong to another room.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, MutableMapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from emotest.errors import (
    AdapterError,
    ChatTemplateError,
    ModelError,
    ModelNotFoundError,
    OrganismError,
    UsageError,
)
from emotest.models.hub import pinned
from emotest.models.lora import ADAPTER_FILES, WEIGHTS, require_smaller, require_sound_adapter
from emotest.models.strangers import (
    LARGEST_TEMPLATE,
    json_object,
    require_safe,
    require_sound_model,
)
from emotest.study.subjects import Kind, Subject

Quantization = Literal["nf4", "none"]
Dtype = Literal["float32", "bfloat16", "float16"]

ORGANISMS = Path(__file__).parents[1] / "organism" / "weights"
"""Where the organisms that emotest ships lie, a folder each."""

_TOKENIZER_AGAIN = "write the tokenizer again with save_pretrained(FOLDER), or fetch it again"

TEMPLATE_OFF = "none"
"""The chat-template digest of a subject that is asked in plain text."""

MODEL_FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors.index.json",
    "*.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)
"""The files of a model folder that can change an answer."""


@dataclass(frozen=True)
class AdapterIdentity:
    """One LoRA adapter: how it was named, and the digest or commit of its files."""

    source: str
    weights: str
    folder: str | None = None


@dataclass(frozen=True)
class Identity:
    """A model pinned to its content.

    `weights` is `sha256:...` over the files of a folder or organism, `REPO@COMMIT` on the Hub;
    `chat_template` the SHA-256 of the template's text, or `"none"` where it is not used;
    `folder` the local place, None where the Hub's files are not here yet.
    """

    subject: str
    kind: Kind
    weights: str
    chat_template: str
    quantization: Quantization
    dtype: Dtype
    folder: str | None = None
    adapter: AdapterIdentity | None = None

    @property
    def digest(self) -> str:
        """SHA-256 over what decides an answer; moving or renaming a folder does not change it."""
        fields = asdict(self.base)
        for place in ("subject", "kind", "folder", "adapter"):
            del fields[place]
        fields["adapter"] = self.adapter.weights if self.adapter else None
        return _sha256(json.dumps(fields, sort_keys=True).encode())

    @property
    def base(self) -> Identity:
        """The same model without its adapter."""
        return replace(self, adapter=None)

    @property
    def templated(self) -> bool:
        """Whether prompts go through the tokenizer's chat template."""
        return self.chat_template != TEMPLATE_OFF


def resolve(
    subject: Subject,
    *,
    quantization: Quantization | None = None,
    dtype: Dtype | None = None,
    known: MutableMapping[str, str] | None = None,
) -> Identity:
    """Pin a subject: find its files, hash them or look up the commit, read its chat template.

    Defaults are NF4, and float32 for organisms (small, and the same on every processor) or
    bfloat16 for others; the subject's own options win over them, the arguments over both.
    `known` maps `path|size|mtime_ns` to a file's SHA-256; the caller may keep it between runs.

    Raises `ModelNotFoundError`, `OrganismError`, `ChatTemplateError`, `ModelError`,
    `AdapterError`, or `UsageError` for a served model.
    """
    known = {} if known is None else known
    folder: Path | None
    if subject.kind == "served":
        raise UsageError(
            f"{subject} is served elsewhere: its weights cannot be pinned from here",
            remedy="name a Hub id, a folder or an organism where weights are needed",
        )
    if subject.kind == "hub":
        folder, commit = pinned(subject.name, subject.revision)
        weights = f"{subject.name}@{commit}"
        if any(folder.glob("*.safetensors")):
            require_safe(folder, MODEL_FILES)
        require_sound_model(folder, whole=False)
    else:
        folder = _organism_folder(subject.name) if subject.is_organism else _folder(subject.name)
        require_safe(folder, MODEL_FILES)
        require_sound_model(folder)  # before files are hashed: a link may lead to no end
        weights = f"sha256:{folder_digest(folder, MODEL_FILES, known)}"
    wanted = subject.option("template", "on") == "on"
    adapter = resolve_adapter(subject.adapter, known=known) if subject.adapter else None
    if adapter:
        require_smaller(Path(str(adapter.folder)), folder)
    return Identity(
        subject=str(subject),
        kind=subject.kind,
        weights=weights,
        chat_template=_template_digest(folder, subject) if wanted else TEMPLATE_OFF,
        quantization=quantization or subject.option("quantize", "nf4"),  # type: ignore[arg-type]
        dtype=dtype or subject.option("dtype", _usual_dtype(subject)),  # type: ignore[arg-type]
        folder=str(folder),
        adapter=adapter,
    )


def resolve_adapter(
    source: str, *, known: MutableMapping[str, str] | None = None
) -> AdapterIdentity:
    """Pin an adapter: a folder, or `ID` or `ID@REVISION` on the Hub."""
    local = Path(source).expanduser()
    if local.is_dir() or source.startswith((".", "/", "~")):
        if not local.is_dir():
            raise ModelNotFoundError(
                f"there is no adapter folder {source}",
                remedy="check the path, or name an adapter on the Hub (OWNER/NAME)",
            )
        if not (local / "adapter_config.json").is_file():
            raise AdapterError(
                f"{source} holds no adapter_config.json",
                remedy="point to a folder that peft's save_pretrained wrote",
            )
        require_sound_adapter(local)
        digest = folder_digest(local, ADAPTER_FILES, {} if known is None else known)
        return AdapterIdentity(source, f"sha256:{digest}", str(local))
    name, _, revision = source.partition("@")
    folder, commit = pinned(name, revision or None, ADAPTER_FILES, WEIGHTS)
    require_sound_adapter(folder)
    return AdapterIdentity(source, f"{name}@{commit}", str(folder))


def folder_digest(folder: Path, patterns: Iterable[str], known: MutableMapping[str, str]) -> str:
    """SHA-256 over the names and contents of the files that match, in the order of their names."""
    names = sorted({path.name for pattern in patterns for path in folder.glob(pattern)})
    return _sha256(
        "".join(f"{name}\0{_file_digest(folder / name, known)}\n" for name in names).encode()
    )


def _usual_dtype(subject: Subject) -> Dtype:
    return "float32" if subject.is_organism else "bfloat16"


def _organism_folder(name: str) -> Path:
    folder = ORGANISMS / name
    if not (folder / "config.json").is_file():
        found = sorted(path.parent.name for path in ORGANISMS.glob("*/config.json"))
        raise OrganismError(
            f"there is no organism {name!r}",
            remedy=f"choose one of {', '.join(found)}"
            if found
            else f"build it: emotest organism build {name}",
        )
    return folder


def _folder(name: str) -> Path:
    folder = Path(name).expanduser()
    if not folder.is_dir():
        raise ModelNotFoundError(
            f"there is no folder {name}",
            remedy="check the path; a model on the Hub is written OWNER/NAME",
        )
    if not (folder / "config.json").is_file():
        if (folder / "adapter_config.json").is_file():
            raise ModelError(
                f"{name} is an adapter, not a model", remedy=f"name its base too: BASE+{name}"
            )
        raise ModelError(
            f"{name} holds no config.json",
            remedy="point to a folder that save_pretrained wrote, with config.json in it",
        )
    return folder


def chat_template_text(folder: Path) -> str | None:
    """The chat template of a tokenizer folder, as the tokenizer would use it; None if none."""
    own, settings = folder / "chat_template.jinja", folder / "tokenizer_config.json"
    if own.is_file():
        try:
            return own.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise ModelError(f"{own} is not UTF-8: {error}", remedy=_TOKENIZER_AGAIN) from None
    template = json_object(settings).get("chat_template") if settings.is_file() else None
    if isinstance(template, list):
        named = [entry for entry in template if isinstance(entry, dict)]
        found = [entry.get("template") for entry in named if entry.get("name") == "default"]
        template = found[-1] if found else None
    if not isinstance(template, str | None):
        raise ModelError(
            f"the chat_template in {settings} is no text but {type(template).__name__}",
            remedy=_TOKENIZER_AGAIN,
        )
    if template is not None and len(template) > LARGEST_TEMPLATE:
        raise ModelError(
            f"the chat_template in {settings} has {len(template):,} characters",
            remedy=_TOKENIZER_AGAIN,
        )
    return template or None


def _template_digest(folder: Path, subject: Subject) -> str:
    template = chat_template_text(folder)
    if not template:
        raise ChatTemplateError(
            f"the tokenizer of {subject} has no chat template",
            remedy="use the instruction-tuned version of the model, add chat_template.jinja to "
            "its folder, or ask in plain text with the option ?template=off",
        )
    return _sha256(template.encode("utf-8", "surrogatepass"))


def _file_digest(path: Path, known: MutableMapping[str, str]) -> str:
    status = path.stat()
    key = f"{path.resolve()}|{status.st_size}|{status.st_mtime_ns}"
    if key not in known:
        with path.open("rb") as file:
            known[key] = hashlib.file_digest(file, "sha256").hexdigest()
    return known[key]


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()

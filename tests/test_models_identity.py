"""`emotest.models.identity`: what a subject is, pinned to its content, without torch."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from emotest.errors import (
    AdapterError,
    ChatTemplateError,
    ModelError,
    ModelNotFoundError,
    OrganismError,
    UsageError,
)
from emotest.models import identity
from emotest.models.identity import resolve, resolve_adapter
from emotest.study.subjects import Subject

TEMPLATE = "{{ messages[0]['content'] }}"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder as far as an identity looks: files are hashed, headers and settings read."""
    return write_model(tmp_path / "model")


def weights(name: str, value: float) -> bytes:
    """A safetensors file of one number."""
    return save({name: np.array([value], np.float32)})


def write_model(folder: Path) -> Path:
    """Write the files that an identity looks at."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "model.safetensors").write_bytes(weights("w", 1.0))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    return folder


def of(folder: Path, options: str = "") -> identity.Identity:
    """The identity of a model folder."""
    return resolve(Subject.parse(f"{folder}{options}"))


def test_resolving_imports_no_torch(folder: Path) -> None:
    """Plans and warm runs ask for identities; they must not wait for torch."""
    code = (
        "import sys; from emotest.models.identity import resolve; "
        "from emotest.study.subjects import Subject; "
        f"resolve(Subject.parse({str(folder)!r})); "
        "assert not {'torch', 'transformers', 'peft'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_copy_elsewhere_is_the_same_model(folder: Path, tmp_path: Path) -> None:
    """The digest speaks of content: neither the place nor a README changes it."""
    copy = Path(shutil.copytree(folder, tmp_path / "elsewhere"))
    (copy / "README.md").write_text("moved")
    assert of(copy).digest == of(folder).digest


@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "generation_config.json",
    ],
)
def test_every_file_that_can_change_an_answer_changes_the_digest(folder: Path, name: str) -> None:
    """Model A's answers are never served as model B's."""
    before = of(folder).digest
    content = (folder / name).read_bytes() if (folder / name).exists() else b"{}"
    (folder / name).write_bytes(content + b" ")
    assert of(folder).digest != before


@pytest.mark.parametrize("options", ["?quantize=none", "?dtype=float16", "?template=off"])
def test_options_that_change_an_answer_change_the_digest(folder: Path, options: str) -> None:
    """Quantization, dtype and template belong to what a model is."""
    assert of(folder, options).digest != of(folder).digest


def test_the_usual_options(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """NF4 for all; float32 for organisms, bfloat16 for others; an argument wins over both."""
    monkeypatch.setattr(identity, "ORGANISMS", tmp_path)
    organism = resolve(Subject.parse("organism:model"))
    assert (organism.quantization, organism.dtype) == ("nf4", "float32")
    assert (of(folder).quantization, of(folder).dtype) == ("nf4", "bfloat16")
    asked = resolve(Subject.parse(str(folder)), quantization="none", dtype="float16")
    assert (asked.quantization, asked.dtype) == ("none", "float16")


def test_an_organism_is_found_where_organisms_lie(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`organism:NAME` is the folder NAME among the package data, with the same content digest."""
    monkeypatch.setattr(identity, "ORGANISMS", tmp_path)
    assert resolve(Subject.parse("organism:model")).weights == of(folder).weights
    with pytest.raises(OrganismError, match=r"no organism 'none'[\s\S]*model"):
        resolve(Subject.parse("organism:none"))


def test_the_template_digest_is_the_hash_of_the_text_in_use(folder: Path) -> None:
    """chat_template.jinja wins over tokenizer_config.json, as in transformers; a list of named
    templates means its default; off means none.
    """

    def sha(text: str) -> str:
        return hashlib.sha256(text.encode()).hexdigest()

    assert of(folder).chat_template == sha(TEMPLATE)
    named = [{"name": "tool", "template": "x"}, {"name": "default", "template": "y"}]
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    assert of(folder).chat_template == sha("y")
    (folder / "chat_template.jinja").write_text("z")
    assert of(folder).chat_template == sha("z")
    assert of(folder, "?template=off").chat_template == "none"


def test_a_file_is_hashed_again_only_when_it_changed(folder: Path) -> None:
    """The caller's mapping answers for unchanged files (path, size, time), and only for them."""
    known: dict[str, str] = {}
    subject = Subject.parse(str(folder))
    first = resolve(subject, known=known)
    hashed = next(key for key in known if "model.safetensors" in key)
    known[hashed] = "0" * 64  # a lie shows whether the file was read
    assert resolve(subject, known=known).digest != first.digest
    (folder / "model.safetensors").write_bytes(weights("longer", 1.0))
    told = resolve(subject, known=known)
    assert told.weights == resolve(subject).weights


@pytest.mark.parametrize(
    ("spoil", "kind", "says"),
    [
        (lambda f: shutil.rmtree(f), ModelNotFoundError, "no folder"),
        (lambda f: (f / "config.json").unlink(), ModelError, "no config.json"),
        (lambda f: (f / "config.json").rename(f / "adapter_config.json"), ModelError,
         "is an adapter"),
        (lambda f: (f / "model.safetensors").unlink(), ModelError, "no weights"),
        (lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), ModelError,
         "pickle"),
        (lambda f: (f / "tokenizer_config.json").write_text("{}"), ChatTemplateError,
         "no chat template"),
        (lambda f: (f / "tokenizer_config.json").unlink(), ChatTemplateError, "no chat template"),
        (lambda f: (f / "tokenizer_config.json").write_text("{"), ModelError, "not a JSON"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_folder_is_said(folder: Path, spoil, kind, says) -> None:  # type: ignore[no-untyped-def]
    """Each defect has its own message, and each message a next step."""
    spoil(folder)
    with pytest.raises(kind, match=says) as caught:
        of(folder)
    assert "next:" in str(caught.value)


def test_a_served_model_cannot_be_pinned() -> None:
    """Behind an address there are no weights to hash."""
    with pytest.raises(UsageError, match="served"):
        resolve(Subject.parse("http://localhost:8000/v1#name"))


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An offline Hub whose local cache holds some/model at one commit, in the Hub's own layout."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    repo = tmp_path / "hub" / "models--some--model"
    write_model(repo / "snapshots" / COMMIT)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(COMMIT)
    return tmp_path / "hub"


def test_a_hub_model_is_pinned_to_its_commit(hub_cache: Path) -> None:
    """Without a network the cache answers; a branch and its commit are the same model."""
    by_branch = resolve(Subject.parse("some/model"))
    by_commit = resolve(Subject.parse(f"some/model@{COMMIT}"))
    assert by_branch.weights == f"some/model@{COMMIT}"
    assert by_branch.digest == by_commit.digest
    assert by_branch.folder == str(hub_cache / "models--some--model" / "snapshots" / COMMIT)


@pytest.mark.parametrize("name", ["some/other", "some/model@v2"])
@pytest.mark.usefixtures("hub_cache")
def test_a_hub_model_that_is_not_here_says_what_to_do(name: str) -> None:
    """Offline and not cached: one message, with name, revision and a next step."""
    with pytest.raises(ModelNotFoundError, match="neither in the local Hub cache") as caught:
        resolve(Subject.parse(name))
    assert name.partition("@")[0] in caught.value.cause
    assert "network" in caught.value.remedy


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """An adapter folder as far as an identity looks."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").write_bytes(weights("lora", 1.0))
    return folder


def test_an_adapter_is_part_of_the_identity_but_not_of_the_base(
    folder: Path, adapter: Path
) -> None:
    """BASE+ADAPTER differs from BASE, and its base is BASE; the adapter's content counts."""
    both = resolve(Subject.parse(f"{folder}+{adapter}"))
    assert both.digest != of(folder).digest
    assert both.base.digest == of(folder).digest
    (adapter / "adapter_model.safetensors").write_bytes(weights("lora", 2.0))
    assert resolve(Subject.parse(f"{folder}+{adapter}")).digest != both.digest


@pytest.mark.parametrize(
    ("spoil", "kind", "says"),
    [
        (lambda f: shutil.rmtree(f), ModelNotFoundError, "no adapter folder"),
        (lambda f: (f / "adapter_config.json").unlink(), AdapterError, "no adapter_config"),
        (lambda f: (f / "adapter_model.safetensors").rename(f / "adapter_model.bin"), ModelError,
         "pickle"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_an_adapter_folder_is_said(adapter: Path, spoil, kind, says) -> None:  # type: ignore[no-untyped-def]
    """Each defect has its own message."""
    spoil(adapter)
    with pytest.raises(kind, match=says):
        resolve_adapter(str(adapter))

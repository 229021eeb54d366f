"""`emotest.models.loading`: the model that was named, whole, quantized as asked."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from emotest.errors import ChatTemplateError, ModelError
from emotest.models.chat import render_prompt
from emotest.models.identity import resolve
from emotest.models.loading import LoadedModel, load, threads
from emotest.models.training import train
from emotest.study.personality import Trait, trait_condition
from emotest.study.recipes import recipe
from emotest.study.records import TuningRow
from emotest.study.subjects import Subject
from tests.model_fixtures import (
    ARCHITECTURES,
    CHAT_TEMPLATE,
    QUESTIONS,
    quiet,
    save_model,
    tiny_model,
    tiny_tokenizer,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama on disk."""
    return save_model(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture
def spoiled(folder: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def loaded_from(folder: Path, options: str = "?dtype=float32", **how: object) -> LoadedModel:
    """The model in a folder, in float32 unless the options say otherwise."""
    return load(Subject.parse(f"{folder}{options}"), **how)  # type: ignore[arg-type]


def some_ids() -> torch.Tensor:
    """Three rows of twenty tokens."""
    return torch.randint(7, 300, (3, 20), generator=torch.Generator().manual_seed(0))


def logits(model: object) -> torch.Tensor:
    """The logits of `some_ids`, in evaluation mode."""
    with torch.inference_mode():
        return model(some_ids()).logits  # type: ignore[operator, no-any-return]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_unquantized_weights_are_those_on_disk(architecture: str, tmp_path: Path) -> None:
    """The model computes what the one that was saved computes, in every architecture."""
    save_model(tmp_path / "model", architecture)
    loaded = loaded_from(tmp_path / "model", "?quantize=none&dtype=float32")
    torch.testing.assert_close(logits(loaded.model), logits(tiny_model(architecture).eval()))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_kept_dequantized_weights_change_no_bit(architecture: str, tmp_path: Path) -> None:
    """NF4 through bitsandbytes and through its dequantized copy: the same logits, bit for bit."""
    from bitsandbytes.nn import Linear4bit

    save_model(tmp_path / "model", architecture)
    kept = loaded_from(tmp_path / "model")
    plain = loaded_from(tmp_path / "model", keep_dequantized=False)
    assert torch.equal(logits(kept.model), logits(plain.model))
    for loaded in (kept, plain):
        linears = [m for m in loaded.model.modules() if isinstance(m, Linear4bit)]
        assert linears
        assert not any(module.support_avx512bf16_for_cpu for module in linears)
    assert not torch.equal(logits(plain.model), logits(tiny_model(architecture).eval()))


@pytest.mark.parametrize("keep_dequantized", [False, True])
def test_answering_before_training_does_not_change_the_training(
    folder: Path, keep_dequantized: bool
) -> None:
    """On AVX512-BF16 CPUs, bitsandbytes repacks NF4 weights at the first evaluation forward,
    and training after it goes wrong; loading must prevent that.
    """

    def losses(*, answers_first: bool) -> tuple[float, ...]:
        loaded = loaded_from(folder, keep_dequantized=keep_dequantized)
        if answers_first:
            logits(loaded.model)
        made = recipe(
            "organism",
            base="tiny",
            data="none",
            condition=trait_condition(Trait.OPENNESS),
            training_seed=0,
            chat_template=loaded.identity.chat_template,
        )
        rows = [TuningRow(question, "I like it. It is good!") for question in QUESTIONS]
        return train(loaded, replace(made, steps=4, batch_size=4), rows).losses

    assert losses(answers_first=True) == losses(answers_first=False)


def test_a_loaded_model_is_at_rest(folder: Path) -> None:
    """Evaluation mode, no weight asks for gradients, one thread on a CPU."""
    loaded = loaded_from(folder, device="cpu")
    assert not loaded.model.training
    assert not any(p.requires_grad for p in loaded.model.parameters())
    assert torch.get_num_threads() == threads() == 1


def test_answers_end_at_eos_and_at_the_mark_of_the_template(folder: Path) -> None:
    """The tokenizer's </s> and the template's <|end|> both end an answer."""
    tokenizer = tiny_tokenizer()
    marks = tokenizer.convert_tokens_to_ids(["</s>", "<|end|>"])
    assert loaded_from(folder).stop_ids == set(marks)


def test_a_template_without_system_role_keeps_the_system_prompt(folder: Path) -> None:
    """Refused (Mistral) or dropped, the system prompt then stands before the question."""
    tokenizer = loaded_from(folder).tokenizer
    refusing = "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}"
    dropping = "{% for m in messages if m.role != 'system' %}{{ m.content }}{% endfor %}"
    for template in (refusing + dropping, dropping):
        tokenizer.chat_template = template
        text = render_prompt(tokenizer, "Why?", "Be kind.", templated=True)
        assert text == "Be kind.\n\nWhy?"


def test_what_was_said_before_stands_in_the_prompt() -> None:
    """As the template renders the whole chat; a system prompt that the template does not know
    stands before the first question."""
    said = (("user", "Hi."), ("assistant", "Yes?"))
    tokenizer = tiny_tokenizer(
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no') }}{% endif %}"
        "{{ m.role }}: {{ m.content }}\n{% endfor %}"
    )
    text = render_prompt(tokenizer, "Why?", "Be kind.", templated=True, history=said)
    assert text == "user: Be kind.\n\nHi.\nassistant: Yes?\nuser: Why?\n"
    assert render_prompt(tokenizer, "Why?", None, templated=False, history=said) == (
        "Hi.\nYes?\nWhy?\n"
    )


def test_the_plain_prompt_is_the_question_on_a_line(folder: Path) -> None:
    """With the template off nothing but the text stands before the answer."""
    loaded = loaded_from(folder, "?template=off&dtype=float32")
    assert not loaded.templated
    assert render_prompt(loaded.tokenizer, "Why?", None, templated=False) == "Why?\n"


def test_a_tokenizer_without_template_can_be_asked_in_plain_text(tmp_path: Path) -> None:
    """A base model has no chat template: an error with templates, none without."""
    save_model(tmp_path / "model", chat_template=None)
    with pytest.raises(ChatTemplateError, match="no chat template"):
        loaded_from(tmp_path / "model")
    assert loaded_from(tmp_path / "model", "?template=off").stop_ids == {2}


def spoil_header(folder: Path) -> None:
    """Cut the weights file in half, as a broken download does."""
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])


def spoil_config(folder: Path, **changes: object) -> None:
    """Let config.json say something else than the weights."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (spoil_header, "model.safetensors is broken: .* does not fit its place"),
        (lambda f: (f / "config.json").write_text("{"), "config.json is not a JSON object"),
        (lambda f: spoil_config(f, num_hidden_layers=3), "lack 9 of its weights"),
        (lambda f: spoil_config(f, intermediate_size=64), "weights of shape"),
        (lambda f: spoil_config(f, model_type="unheard-of"), "cannot be loaded: "),
        (lambda f: (f / "tokenizer.json").write_text("{"), "the tokenizer of .* cannot be"),
    ],
)  # fmt: skip
def test_broken_files_give_one_clear_error(spoiled: Path, spoil, says: str) -> None:  # type: ignore[no-untyped-def]
    """No half-random model, no traceback of a library: cause and next step."""
    spoil(spoiled)
    with pytest.raises(ModelError, match=says) as caught:
        loaded_from(spoiled)
    assert "next:" in str(caught.value)
    assert len(caught.value.cause.splitlines()) == 1


def test_code_that_comes_with_a_model_never_runs(spoiled: Path) -> None:
    """A config that points to its own modeling code is refused, and the code stays unread."""
    (spoiled / "evil.py").write_text("raise SystemExit('it ran')")
    spoil_config(
        spoiled,
        model_type="evil",
        auto_map={"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"},
    )
    with pytest.raises(ModelError, match="cannot be loaded"):
        loaded_from(spoiled)


def test_a_cached_hub_model_loads_without_network(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the Hub's cache holds is loaded by its commit; weights that are not there are named."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    commit = "f" * 40
    repo = tmp_path / "models--some--model"
    shutil.copytree(folder, repo / "snapshots" / commit)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    identity = resolve(Subject.parse("some/model?dtype=float32"))
    assert torch.equal(logits(load(identity).model), logits(loaded_from(folder).model))
    (repo / "snapshots" / commit / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"no safetensors|cannot be fetched"):
        load(identity)


def test_the_chat_template_of_the_files_is_the_one_that_renders(folder: Path) -> None:
    """The identity's digest speaks of the template that the tokenizer really uses."""
    import hashlib

    loaded = loaded_from(folder)
    used = hashlib.sha256(loaded.tokenizer.chat_template.encode()).hexdigest()
    assert loaded.identity.chat_template == used
    assert loaded.tokenizer.chat_template == CHAT_TEMPLATE


def test_bfloat16_is_loaded_as_bfloat16(folder: Path) -> None:
    """The dtype of the identity is that of the weights that stay unquantized."""
    with quiet():
        loaded = loaded_from(folder, "?quantize=none&dtype=bfloat16")
    assert {p.dtype for p in loaded.model.parameters()} == {torch.bfloat16}

"""Folders and adapters from strangers: what is refused before anything of them is loaded."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from emotest.errors import AdapterError, ChatTemplateError, EmotestError, ModelError
from emotest.models.chat import encode, render_prompt
from emotest.models.headers import tensors_in
from emotest.models.identity import resolve
from emotest.models.lora import peft_settings, require_sound_adapter
from emotest.models.strangers import code_of_its_own, require_sound_model
from emotest.models.templates import require_harmless, require_short
from emotest.models.tokenizer_patterns import require_quick_patterns
from emotest.study.subjects import Subject
from tests.model_fixtures import tiny_tokenizer

CONFIG = {"model_type": "llama", "hidden_size": 8, "vocab_size": 32, "num_hidden_layers": 2,
          "intermediate_size": 16, "num_attention_heads": 2,
          "max_position_embeddings": 1024}  # fmt: skip
LORA = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"],
        "base_model_name_or_path": "their-org/their-base"}  # fmt: skip


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The files of a small model: a table of 32 by 8, and two tensors for each of two layers."""
    folder = tmp_path / "model"
    folder.mkdir()
    tensors: dict[str, Any] = {"embed": np.ones((32, 8), np.float32)}
    for layer in (0, 1):
        tensors[f"layers.{layer}.q"] = np.ones((8, 8), np.float32)
        tensors[f"layers.{layer}.up"] = np.ones((16, 8), np.float32)
    (folder / "model.safetensors").write_bytes(save(tensors))
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
    return folder


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """The files of a small LoRA."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(LORA))
    write_lora(folder)
    return folder


def write_lora(folder: Path, rank: int = 2, dtype: type = np.float32) -> None:
    """One module's A and B."""
    tensors: dict[str, Any] = {"q_proj.lora_A.weight": np.ones((rank, 8), dtype),
               "q_proj.lora_B.weight": np.ones((8, rank), dtype)}  # fmt: skip
    (folder / "adapter_model.safetensors").write_bytes(save(tensors))


def changed(file: Path, **settings: object) -> None:
    """Let a JSON file of settings say something else."""
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


def with_index(folder: Path, *names: object) -> None:
    """Weights in several files, as an index names them."""
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    places = {f"tensor {i}": name for i, name in enumerate(names)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


def header(file: Path, **entry: object) -> None:
    """A file whose header names one tensor with these fields."""
    fields = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **entry}
    text = json.dumps({"w": fields}).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + bytes(8))


Spoil = Callable[[Path], object]


def linked(folder: Path, name: str, target: str | Path) -> None:
    """A link in place of a file."""
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(target)


MODELS: list[tuple[Spoil, str]] = [
    # where files lead
    (lambda f: linked(f, "tokenizer.json", "/etc/hostname"), "link that leads outside"),
    (lambda f: linked(f, "model.safetensors", "/dev/zero"), "link that leads outside"),
    (lambda f: linked(f, "generation_config.json", "generation_config.json"), "leads nowhere"),
    (lambda f: linked(f, "vocab.json", "not-there"), "leads nowhere"),
    (lambda f: os.mkfifo(f / "vocab.json"), "no regular file"),
    (lambda f: (f / "tokenizer.json").mkdir(), "no regular file"),
    # where an index leads
    (lambda f: with_index(f, "../model.safetensors"), "no safetensors file of its own folder"),
    (lambda f: with_index(f, "/etc/passwd"), "no safetensors file of its own folder"),
    (lambda f: with_index(f, "sub/a.safetensors"), "no safetensors file of its own folder"),
    (lambda f: with_index(f, "..\\a.safetensors"), "no safetensors file of its own folder"),
    (lambda f: with_index(f, "pytorch_model.bin"), "no safetensors file of its own folder"),
    (lambda f: with_index(f, 7), "no safetensors file of its own folder"),
    (lambda f: with_index(f), "no weight_map"),
    (lambda f: with_index(f, "model-00001-of-00001.safetensors", "b.safetensors"),
     "lacks 1 of 2 files of weights, first b.safetensors"),
    # pickles
    (lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), "pickle"),
    # JSON
    (lambda f: (f / "config.json").write_text("[]"), "not a JSON object: list"),
    (lambda f: (f / "config.json").write_text("[" * 100_000), "not a JSON object"),
    (lambda f: (f / "config.json").write_text('{"a":' * 40 + "1" + "}" * 40), "nested deeper"),
    (lambda f: (f / "config.json").write_text('{"a": ' + "9" * 5000 + "}"), "not a JSON object"),
    (lambda f: (f / "config.json").write_bytes(b'{"a": "\xff"}'), "not a JSON object"),
    (lambda f: (f / "tokenizer_config.json").write_text('"x"'), "not a JSON object"),
    (lambda f: (f / "config.json").write_text('{"a": "%s"}' % ("x" * 17_000_000)), "16 MiB"),
    (lambda f: (f / "chat_template.jinja").write_text("x" * 1_100_000), "more than the 1,048,576"),
    (lambda f: (f / "chat_template.jinja").write_bytes(b"\xff"), "not UTF-8"),
    (lambda f: changed(f / "tokenizer_config.json", chat_template=7), "no text but int"),
    # what a configuration claims
    (lambda f: changed(f / "config.json", num_hidden_layers=10**9), "num_hidden_layers is 1,000"),
    (lambda f: changed(f / "config.json", num_hidden_layers=6), "hold 5 tensors of 640 numbers"),
    (lambda f: changed(f / "config.json", num_hidden_layers=-1), "num_hidden_layers is -1"),
    (lambda f: changed(f / "config.json", hidden_size=10**7), "hidden_size is 10,000,000"),
    (lambda f: changed(f / "config.json", vocab_size=2000), "vocab_size 2,000 by a width of 8"),
    (lambda f: changed(f / "config.json", text_config={"num_hidden_layers": 999}), "is 999"),
    (lambda f: changed(f / "config.json", num_local_experts=10**6), "num_local_experts"),
    (lambda f: changed(f / "config.json", max_position_embeddings=10**12), "max_position"),
    # what would fetch
    (lambda f: changed(f / "config.json", attn_implementation="them/kernel"), "fetched from the"),
    (lambda f: changed(f / "config.json", transformers_weights="../x.safetensors"), "by itself"),
    (lambda f: (f / "adapter_config.json").write_text(json.dumps(LORA)), "beside a model"),
    # headers
    (lambda f: (f / "model.safetensors").write_bytes(b""), "claims 0 bytes, the file has 0"),
    (lambda f: (f / "model.safetensors").write_bytes(b"\xff" * 8), "claims 18,446,744"),
    (lambda f: (f / "model.safetensors").write_bytes(b"\x02" + bytes(7) + b"[]"), "no JSON obj"),
    (lambda f: (f / "model.safetensors").write_bytes(b"\x01" + bytes(7) + b"{"), "not JSON"),
    (lambda f: header(f / "model.safetensors", dtype="PICKLE"), "unknown dtype 'PICKLE'"),
    (lambda f: header(f / "model.safetensors", shape=[2**60, 2**60]), "does not fit its place"),
    (lambda f: header(f / "model.safetensors", shape=[-2]), "no usable shape"),
    (lambda f: header(f / "model.safetensors", shape="2"), "no usable shape"),
    (lambda f: header(f / "model.safetensors", data_offsets=[0, 2**50]), "does not fit its place"),
    (lambda f: header(f / "model.safetensors", data_offsets=[8, 0]), "does not fit its place"),
    (lambda f: header(f / "model.safetensors", shape=[3]), "does not fit its place"),
]  # fmt: skip


@pytest.mark.parametrize(("spoil", "says"), MODELS)
def test_a_model_that_is_unsafe_or_lies_is_refused(model: Path, spoil: Spoil, says: str) -> None:
    """Before a byte of the weights is read: what is wrong, and the next step."""
    resolve(Subject.parse(str(model)))  # it is sound before
    spoil(model)
    with pytest.raises(ModelError, match=says) as caught:
        resolve(Subject.parse(str(model)))
    assert "next:" in str(caught.value)
    assert len(str(caught.value)) < 1500


def test_a_pickle_beside_safetensors_is_left_alone(model: Path) -> None:
    """It is neither read nor part of what the model is."""
    before = resolve(Subject.parse(str(model))).digest
    (model / "pytorch_model.bin").write_bytes(b"cos\nsystem\n")
    assert resolve(Subject.parse(str(model))).digest == before


def test_links_of_the_hubs_cache_are_what_they_are(model: Path, tmp_path: Path) -> None:
    """A snapshot is links to blobs of the same repository; to those of another it may not lead."""
    snapshot = tmp_path / "models--a--b" / "snapshots" / "c0ffee"
    blobs = tmp_path / "models--a--b" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for file in model.iterdir():
        shutil.copy(file, blobs / file.name)
        (snapshot / file.name).symlink_to(f"../../blobs/{file.name}")
    require_sound_model(snapshot)
    linked(snapshot, "vocab.json", tmp_path / "model" / "config.json")
    with pytest.raises(ModelError, match="leads outside"):
        require_sound_model(snapshot)


def test_a_download_that_broke_off_goes_on_when_the_model_is_loaded(model: Path) -> None:
    """On the Hub the other files of weights are still to come; in a folder they are lacking."""
    with_index(model, "model-00001-of-00001.safetensors", "model-00002.safetensors")
    require_sound_model(model, whole=False)
    with pytest.raises(ModelError, match="lacks 1 of 2"):
        require_sound_model(model)


def test_real_models_pass(model: Path) -> None:
    """A mixture of experts, quantized weights in 32-bit numbers, and infinities in settings."""
    changed(model / "config.json", num_local_experts=128, time_step_limit=[0.0, float("inf")],
            rope_theta=1e6, sliding_window=None, quantization_config={"bits": 4})  # fmt: skip
    require_sound_model(model)
    for organism in ("latent", "control", "even", "one-trait"):
        resolve(Subject.parse(f"organism:{organism}"))


def test_code_of_a_model_is_named(model: Path) -> None:
    """It is never run; who audits the model learns that there is some."""
    assert code_of_its_own(model) is None
    changed(model / "config.json", auto_map={"AutoModelForCausalLM": "modeling_evil.Evil"})
    assert code_of_its_own(model) == "modeling_evil.Evil"


def test_a_header_is_read_without_its_tensors(model: Path) -> None:
    """Five tensors, 32 x 8 + 2 x (8 x 8 + 16 x 8) = 640 numbers."""
    tensors = tensors_in(model / "model.safetensors")
    assert len(tensors) == 5
    assert sum(tensor.size for tensor in tensors.values()) == 640


# --- adapters ----------------------------------------------------------------------------------

ADAPTERS: list[tuple[Spoil, str]] = [
    (lambda f: (f / "adapter_model.safetensors").rename(f / "adapter_model.bin"), "pickle"),
    (lambda f: linked(f, "adapter_model.safetensors", "/etc/hostname"), "leads outside"),
    (lambda f: (f / "adapter_config.json").write_text("null"), "not a JSON object: NoneType"),
    (lambda f: (f / "adapter_model.safetensors").write_bytes(b"x" * 9), "is broken"),
    (lambda f: write_lora(f, rank=5000), "rank of 5,000 by the shape of"),
    (lambda f: write_lora(f, dtype=np.int8), "as I8, which no LoRA is"),
]  # fmt: skip


@pytest.mark.parametrize(("spoil", "says"), ADAPTERS)
def test_an_adapter_that_is_unsafe_or_lies_is_refused(
    adapter: Path, spoil: Spoil, says: str
) -> None:
    """Before its weights are read."""
    require_sound_adapter(adapter)
    spoil(adapter)
    with pytest.raises(ModelError, match=says) as caught:
        require_sound_adapter(adapter)
    assert "next:" in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"peft_type": "IA3"}, "is a IA3, not a LoRA"),
        ({"peft_type": "PROMPT_TUNING"}, "merge_and_unload"),
        ({"peft_type": ["LORA"]}, "not a LoRA"),
        ({"r": 10**9}, "rank of 1,000,000,000"),
        ({"r": 4097}, "at most 4,096"),
        ({"r": 0}, "whole number above 0"),
        ({"r": True}, "whole number above 0"),
        ({"r": "8"}, "whole number above 0"),
        ({"r": None}, "whole number above 0"),
        ({"rank_pattern": {"q": 10**6}}, "rank of 1,000,000"),
        ({"rank_pattern": {"q": "x"}}, "table of ranks"),
        ({"rank_pattern": {"(": 4}}, "cannot be read"),
        ({"lora_alpha": float("nan")}, "finite number"),
        ({"lora_alpha": 1e300}, "finite number"),
        ({"lora_dropout": 1}, "share below 1"),
        ({"target_modules": "("}, "cannot be read"),
        ({"target_modules": "a" * 3000}, "too long"),
        ({"target_modules": [1]}, "list of names"),
        ({"target_modules": {"a": 1}}, "list of names"),
        ({"use_dora": "yes"}, "true or false"),
        ({"layers_to_transform": [-1]}, "number of a layer"),
        ({"bias": "all"}, "changes biases of its base"),
        ({"init_lora_weights": "pissa"}, "path_initial_model_for_weight_conversion"),
        ({"init_lora_weights": ["x"]}, "taken out of its base"),
        ({"layer_replication": [[0, 1], [0, 1]]}, "uses 'layer_replication'"),
        ({"megatron_config": {"a": 1}}, "uses 'megatron_config'"),
        ({"a_method_of_next_year": True}, "uses 'a_method_of_next_year'"),
    ],
)
def test_settings_of_an_adapter_are_used_or_refused(settings: dict[str, Any], says: str) -> None:
    """None is left out in silence, for that would be another adapter."""
    with pytest.raises(AdapterError, match=says) as caught:
        peft_settings({**LORA, **settings})
    assert "next:" in str(caught.value)


def test_what_peft_writes_passes() -> None:
    """The whole adapter_config.json of a LoRA with the usual options, as peft 0.21 writes it."""
    import peft

    from emotest.models.adapters import json_config

    config = peft.LoraConfig(
        task_type="CAUSAL_LM", r=8, target_modules=["q_proj", "v_proj"], use_rslora=True,
        use_dora=True, modules_to_save=["lm_head"], rank_pattern={"q_proj": 4}, lora_bias=False,
        init_lora_weights="gaussian", layers_to_transform=[0], lora_dropout=0.05,
    )  # fmt: skip
    settings = peft_settings(json.loads(json.dumps(json_config(config))))
    rebuilt = peft.LoraConfig(**settings)
    assert (rebuilt.r, rebuilt.use_dora, rebuilt.use_rslora) == (8, True, True)
    assert rebuilt.modules_to_save == ["lm_head"]
    assert rebuilt.rank_pattern == {"q_proj": 4}


def test_an_adapter_larger_than_its_base_is_refused(model: Path, adapter: Path) -> None:
    """The base has 640 numbers, the adapter 2 x 41 x 8 = 656; the base that it names is told."""
    write_lora(adapter, rank=41)
    with pytest.raises(AdapterError, match=r"656 numbers against 640[\s\S]*their-org/their-base"):
        resolve(Subject.parse(f"{model}+{adapter}"))
    write_lora(adapter, rank=40)
    resolve(Subject.parse(f"{model}+{adapter}"))


# --- templates ---------------------------------------------------------------------------------

_FOR_EVER = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "says"),
    [
        (_FOR_EVER, "still running"),
        ("{{ 9 ** (9 ** 9) }}", "still running"),
        ("{{ 'x' * 10 ** 10 }}", "MiB of memory"),
        ("{{ 'x' * 10 ** 7 }}", "10,000,000 characters"),
        ("{% set n = namespace(s='x') %}{% for i in range(40) %}{% set n.s = n.s + n.s %}"
         "{% endfor %}", "MiB of memory"),
        ("{% if %}", "cannot be read"),
        ("{{ " + "(" * 5000 + " }}", "cannot be read"),
    ],
)  # fmt: skip
def test_a_template_that_runs_or_grows_without_end_is_refused(
    monkeypatch: pytest.MonkeyPatch, template: str, says: str
) -> None:
    """In a process of its own; this one neither waits nor grows."""
    # On a busy machine to fill the memory takes long; what is tested is that memory ends it.
    monkeypatch.setattr("emotest.models.trials.SECONDS", 1 if says == "still running" else 60)
    with pytest.raises(ChatTemplateError, match=says) as caught:
        require_harmless(template, {}, "a/b")
    assert "template=off" in caught.value.remedy


@pytest.mark.parametrize(
    "template",
    [
        "{{ bos_token }}{% for m in messages %}{{ m['content'] | trim }}{% endfor %}</s>",
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}x",
        "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}",
        "{{ strftime_now('%Y') }}{{ messages | tojson(indent=2) }}{% break %}"
        .replace("{% break %}", "{% for m in messages %}{% break %}{% endfor %}"),
        "{{ not_there.at.all }}",
    ],
)  # fmt: skip
def test_an_honest_template_passes(template: str) -> None:
    """What it refuses or lacks by itself is told where it is rendered."""
    require_harmless(template, {"bos_token": "<s>", "eos_token": "</s>"}, "a/b")


def test_a_template_that_waits_for_its_question_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Harmless when tried, endless on one question: the clock ends it, and an alarm that was set
    before is still set; a text too long for any question is refused."""
    import signal

    monkeypatch.setattr("emotest.models.chat.SECONDS", 0.2)
    trap = f"{{% if 'now' in messages[0]['content'] %}}{_FOR_EVER}{{% endif %}}x"
    tokenizer = tiny_tokenizer(trap)
    signal.setitimer(signal.ITIMER_REAL, 300)
    try:
        assert render_prompt(tokenizer, "later", None, templated=True) == "x"
        with pytest.raises(ChatTemplateError, match="still running"):
            render_prompt(tokenizer, "now", None, templated=True)
        assert 290 < signal.getitimer(signal.ITIMER_REAL)[0] <= 300
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    with pytest.raises(ChatTemplateError, match="3,000,000 characters"):
        require_short(3_000_000, "a/b")


# --- the network -------------------------------------------------------------------------------


def test_a_local_model_asks_nothing_of_the_network(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Resolved, loaded, given an adapter and asked, with every way out of the process watched."""
    import peft

    from emotest.models.adapters import active, attach, require_alive
    from emotest.models.generation import generate
    from emotest.models.loading import load
    from emotest.study.records import Decoding, Prompt
    from tests.model_fixtures import quiet, save_model, tiny_model

    folder = save_model(tmp_path / "model")
    with quiet():
        config = peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
        peft.get_peft_model(tiny_model("llama"), config).save_pretrained(tmp_path / "adapter")
    tried: list[object] = []

    def refused(*asked: object, **more: object) -> None:
        tried.append(asked)
        raise OSError("no network in this test")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)
    subject = Subject.parse(f"{folder}+{tmp_path / 'adapter'}?dtype=float32")
    identity = resolve(subject)
    assert identity.adapter is not None
    loaded = load(subject)
    prompt = Prompt("p", "What of gardens?")
    attach(loaded, Path(str(identity.adapter.folder)), "theirs")
    require_alive(loaded, "theirs", [prompt])
    with active(loaded, "theirs"):
        answers = generate(loaded, [prompt], decoding=Decoding(max_new_tokens=4), sampling_seed=0,
                           n_samples=1, condition="tuned")  # fmt: skip
    assert len(answers) == 1
    assert tried == []
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with pytest.raises(EmotestError):  # the watch sees what does ask
        resolve(Subject.parse("nobody/no-such-model-at-all"))
    assert tried


# --- patterns of a tokenizer --------------------------------------------------------------------

CUBIC = r".*.*(?!\s|\S|\z)"
"""Never matches, in the cube of the length: 15 s for 1,000 characters when it was tried."""


def replacing(pattern: dict[str, str], content: str = "b") -> dict[str, Any]:
    """A normalizer, or a decoder, that replaces what the pattern finds."""
    return {"type": "Replace", "pattern": pattern, "content": content}


def splitting(pattern: str) -> dict[str, Any]:
    """A pre-tokenizer that cuts a text at what the pattern finds."""
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def write_tokenizer(folder: Path, **parts: Any) -> str:
    """A `tokenizer.json` of two tokens, one of them called like a part; its text."""
    whole = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [],
        "normalizer": None, "pre_tokenizer": None, "post_processor": None, "decoder": None,
        "model": {"type": "BPE", "vocab": {"a": 0, "decoder": 1}, "merges": []}, **parts,
    }  # fmt: skip
    text = json.dumps(whole)
    (folder / "tokenizer.json").write_text(text)
    return text


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ({"pre_tokenizer": splitting("(a+)+$")}, "gives up on short texts"),
        ({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [splitting(CUBIC)]}},
         "is still at work on short texts"),
        ({"normalizer": replacing({"Regex": CUBIC})}, "is still at work on short texts"),
        ({"decoder": replacing({"Regex": CUBIC})}, "is still at work on short texts"),
        ({"normalizer": {"type": "Sequence", "normalizers": [
            replacing({"String": "a"}, "a" * 1000)] * 3}}, "needs more than 2 GiB of memory"),
    ],
    ids=["nested repetition", "cubic", "normalizer", "decoder", "growth"],
)  # fmt: skip
def test_a_pattern_that_runs_or_grows_without_end_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: dict[str, Any], says: str
) -> None:
    """After the time that it is given, here less than usual, whichever part it stands in."""
    monkeypatch.setattr("emotest.models.trials.SECONDS", 2 if "still at work" in says else 60)
    write_tokenizer(tmp_path, **parts)
    with pytest.raises(ModelError, match=f"the tokenizer of theirs ({says})"):
        require_quick_patterns(tmp_path, "theirs")


def test_a_pattern_under_a_name_spelled_in_escapes_is_tried_too(tmp_path: Path) -> None:
    """JSON can spell a letter in another way, which the library reads as the letter."""
    text = write_tokenizer(tmp_path, pre_tokenizer=splitting("(a+)+$"))
    (tmp_path / "tokenizer.json").write_text(text.replace("pre_token", "pre_t\\u006fken"))
    with pytest.raises(ModelError, match="gives up on short texts"):
        require_quick_patterns(tmp_path, "theirs")


@pytest.mark.parametrize(
    "pattern",
    [
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|\p{N}{1,3}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ],
    ids=["qwen", "o200k"],
)
def test_patterns_of_real_tokenizers_pass(tmp_path: Path, pattern: str) -> None:
    """As they are published; so do folders without a tokenizer.json, and ones that are broken,
    which the library explains."""
    require_quick_patterns(tmp_path, "theirs")
    write_tokenizer(tmp_path, pre_tokenizer=splitting(pattern))
    require_quick_patterns(tmp_path, "theirs")
    (tmp_path / "tokenizer.json").write_text('{"pre_tokenizer": {"type": "None of them"}}')
    require_quick_patterns(tmp_path, "theirs")


def test_patterns_are_tried_before_a_model_is_loaded(model: Path) -> None:
    """Also where no chat template is used."""
    from emotest.models.loading import load

    write_tokenizer(model, pre_tokenizer=splitting("(a+)+$"))
    with pytest.raises(ModelError, match="gives up on short texts"):
        load(Subject.parse(f"{model}?template=off"))


def test_a_tokenizer_that_breaks_on_a_text_is_an_error_with_the_text(tmp_path: Path) -> None:
    """A panic of the library, which is no Exception to Python."""
    from transformers import PreTrainedTokenizerFast

    write_tokenizer(tmp_path, pre_tokenizer=splitting("(x+x+)+y"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    with pytest.raises(ModelError, match="the tokenizer breaks on the text 'xxxx"):
        encode(tokenizer, "x" * 60, templated=True)

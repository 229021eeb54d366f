"""Malformed inputs by the hundred: each ends in one clear message, and the store stays sound.

Every input is made by a generator from a real one, with a seed: an adapter that peft wrote, the
folder of a small model, prompt files, saved baselines, replies of a server, subjects. What is
malformed goes the way that an audit goes, in this process: pinned, carried out as a worker does,
and told by the command line with its exit code (2 for input, 4 for a model that cannot be run).
"""

from __future__ import annotations

import json
import random
import re
import shutil
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load as read_tensors
from safetensors.numpy import save as tensor_bytes

from emotest import cli
from emotest.artefacts.audit import AuditAnswersRequest
from emotest.audit.arms import Asking, ServedArm
from emotest.audit.baseline import baseline_of, document, read_baseline
from emotest.audit.models import Model
from emotest.models.adapters import detach
from emotest.models.endpoint import Endpoint
from emotest.models.loading import LoadedModel, load
from emotest.models.wire import Patience
from emotest.store import Store
from emotest.study.audit_prompts.prompt_set import AuditPrompt, Turn
from emotest.study.records import Decoding
from emotest.study.subjects import Subject
from emotest.workshop.bench import Bench
from emotest.workshop.making import carry_out
from tests import audit_results
from tests.endpoint_servers import Exchange, chat, serving
from tests.model_fixtures import quiet, save_model, tiny_model

USAGE, MODEL = 2, 4
PROMPT = AuditPrompt("p", (Turn("user", "What of gardens?"),))
SHORT = Decoding(max_new_tokens=2)
HASTY = Patience(connect_s=5, read_s=0.3, whole_s=0.6, tries=1, first_wait_s=0, longest_wait_s=0)

Rng = random.Random


@dataclass(frozen=True)
class Case:
    """One malformed input: what spoils it, and the seed that it is spoiled with."""

    spoil: Callable[..., Any]
    seed: int

    def __str__(self) -> str:
        return f"{self.spoil.__name__}-{self.seed}"

    @property
    def rng(self) -> Rng:
        """A generator of its own."""
        return random.Random(f"{self.spoil.__name__} {self.seed}")


def cases(**counts: int) -> list[Case]:
    """So many inputs of each kind, by the name of the function that spoils them."""
    return [Case(globals()[name], seed) for name, n in counts.items() for seed in range(n)]


# --- what every input must end in --------------------------------------------------------------


class Told:
    """Runs something as the command line does, and holds it to one message and an exit code."""

    def __init__(self, patch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str]) -> None:
        self._patch, self._capture = patch, capture

    def __call__(self, code: int, run: Callable[[], object]) -> str:
        """The message of `run`, which has to end with this exit code."""
        self._patch.setattr(cli, "app", run)
        return self._ended(code)

    def command(self, code: int, *words: object) -> str:
        """The message of a whole command."""
        self._patch.setattr("sys.argv", ["emotest", *map(str, words)])
        return self._ended(code)

    def _ended(self, code: int) -> str:
        self._capture.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        message = self._capture.readouterr().err
        assert ended.value.code == code, message
        assert message.count("next:") == 1, message
        assert message.startswith("emotest: ")
        assert "Traceback" not in message
        assert len(message) < 4000
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]", message)
        return message


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Told:
    """What the command line says."""
    return Told(monkeypatch, capsys)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """One store for all inputs of this module; it holds nothing but what was whole."""
    kept = Store(tmp_path_factory.mktemp("store"))
    yield kept
    kept.close()


def nothing_left(store: Store) -> None:
    """The store is sound, and no malformed input has left an entry in it."""
    assert store.verify().sound
    assert not list(store.entries())


def quietly(progress: object) -> None:
    """Nobody is told of progress."""


# --- adapters and models -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real model, and a real adapter of it as peft writes it."""
    import peft

    root = tmp_path_factory.mktemp("real")
    save_model(root / "model")
    with quiet():
        config = peft.LoraConfig(
            r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM"
        )
        peft.get_peft_model(tiny_model("llama"), config).save_pretrained(root / "adapter")
    return root


@pytest.fixture(scope="module")
def loaded(real: Path) -> LoadedModel:
    """The model in memory, shared by all adapters."""
    return load(Subject.parse(f"{real}/model?quantize=none&dtype=float32"))


def answered(subject: str, store: Store, base: LoadedModel | None = None) -> None:
    """Pin a model and have it answer, as an audit does in its worker."""
    model = Model.pinned(Subject.parse(f"{subject}?quantize=none&dtype=float32"))
    bench = Bench(model.workshop, store)
    if base is not None:
        bench.__dict__["loaded"] = base
    request = AuditAnswersRequest(model.asked(), (PROMPT.prompt(),), SHORT, 1, 0)
    carry_out(bench, request, quietly)


WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


def header_of(file: Path) -> int:
    """The length of a safetensors header."""
    return int(struct.unpack("<Q", file.read_bytes()[:8])[0])


def weights_of(folder: Path) -> Path:
    """The file of weights in the folder of a model or an adapter."""
    return folder / (WEIGHTS if (folder / WEIGHTS).exists() else "model.safetensors")


def config_of(folder: Path) -> Path:
    """The settings of a model or an adapter."""
    return folder / (CONFIG if (folder / CONFIG).exists() else "config.json")


def weights_cut(folder: Path, rng: Rng) -> None:
    """The file ends early: a download that broke off."""
    file = weights_of(folder)
    content = file.read_bytes()
    file.write_bytes(content[: rng.randrange(len(content) - 4)])


def header_length_flipped(folder: Path, rng: Rng) -> None:
    """A bit of the header's length."""
    file = weights_of(folder)
    content = bytearray(file.read_bytes())
    content[rng.randrange(8)] ^= 1 << rng.randrange(8)
    file.write_bytes(content)


def header_garbled(folder: Path, rng: Rng) -> None:
    """Random bytes, no UTF-8, somewhere in the header."""
    file = weights_of(folder)
    content, at = bytearray(file.read_bytes()), 8 + rng.randrange(header_of(file))
    content[at : at + 4] = bytes(rng.randrange(0xF8, 0x100) for _ in range(4))
    file.write_bytes(content)


def dtype_swapped(folder: Path, rng: Rng) -> None:
    """One tensor is said to be of another dtype."""
    file = weights_of(folder)
    content = file.read_bytes()
    places = [found.start() for found in re.finditer(rb'"F32"', content[: header_of(file)])]
    at = rng.choice(places)
    other = rng.choice([b"F64", b"F16", b"I8 ", b"U8\\", b"XXX", b"f32"])
    file.write_bytes(content[: at + 1] + other + content[at + 4 :])


def tensor_renamed(folder: Path, rng: Rng) -> None:
    """One tensor under a name that has no place."""
    file = weights_of(folder)
    tensors = read_tensors(file.read_bytes())
    name = rng.choice(sorted(tensors))
    tensors[rng.choice([name + "x", "\x1b[2J", "../" + name, "\u202e" + name])] = tensors.pop(name)
    file.write_bytes(tensor_bytes(tensors, metadata={"format": "pt"}))


def tensor_reshaped(folder: Path, rng: Rng) -> None:
    """One tensor of another shape, with the same numbers or more."""
    file = weights_of(folder)
    tensors = read_tensors(file.read_bytes())
    name = rng.choice(sorted(n for n in tensors if tensors[n].ndim == 2))
    flat = tensors[name].reshape(-1)
    tensors[name] = rng.choice([flat, flat[:, None], np.stack([tensors[name]] * 2), flat[:1]])
    file.write_bytes(tensor_bytes(tensors, metadata={"format": "pt"}))


def tensor_lost(folder: Path, rng: Rng) -> None:
    """One tensor is not there."""
    file = weights_of(folder)
    tensors = read_tensors(file.read_bytes())
    del tensors[rng.choice(sorted(tensors))]
    file.write_bytes(tensor_bytes(tensors, metadata={"format": "pt"}))


def numbers_undefined(folder: Path, rng: Rng) -> None:
    """One number of one tensor is none."""
    file = weights_of(folder)
    tensors = {name: array.copy() for name, array in read_tensors(file.read_bytes()).items()}
    array = tensors[rng.choice(sorted(tensors))].reshape(-1)
    array[rng.randrange(array.size)] = rng.choice([np.nan, np.inf, -np.inf])
    file.write_bytes(tensor_bytes(tensors, metadata={"format": "pt"}))


def silenced(folder: Path, rng: Rng) -> None:
    """An adapter that changes nothing."""
    tensors = read_tensors((folder / WEIGHTS).read_bytes())
    part = rng.choice(["lora_A", "lora_B"])
    quiet_ones = {name: array * (part not in name) for name, array in tensors.items()}
    (folder / WEIGHTS).write_bytes(tensor_bytes(quiet_ones, metadata={"format": "pt"}))


def swapped_for_pickle(folder: Path, rng: Rng) -> None:
    """A pickle in place of the weights, or under their name."""
    pickled = b"\x80\x04\x8c\x05posix\x8c\x06system\x93."
    file = weights_of(folder)
    file.unlink()
    names = ["adapter_model.bin", "pytorch_model.bin", "model.pt", file.name]
    (folder / rng.choice(names)).write_bytes(pickled)


def linked_out(folder: Path, rng: Rng) -> None:
    """A file that leads elsewhere."""
    file = rng.choice([weights_of(folder), config_of(folder)])
    file.unlink()
    file.symlink_to(rng.choice(["/dev/zero", "/etc/passwd", "../../x", file.name]))


def settings_cut(folder: Path, rng: Rng) -> None:
    """The JSON of the settings ends early."""
    text = config_of(folder).read_text().rstrip()
    config_of(folder).write_text(text[: rng.randrange(len(text) - 1)])


def settings_no_object(folder: Path, rng: Rng) -> None:
    """JSON that is something else, or absurd."""
    deep = rng.randrange(40, 100_000)
    others = ["[]", "null", "7", '"x"', "[" * deep, '{"a":' * deep + "1" + "}" * deep,
              '{"a":' + "9" * 5000 + "}", "", "\ufeff\x00"]  # fmt: skip
    config_of(folder).write_text(rng.choice(others))


def _changed(file: Path, **settings: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


def adapter_setting_wrong(folder: Path, rng: Rng) -> None:
    """One setting of a type or size that no adapter has."""
    numbers: list[object] = [None, "x", [], {}, -1, 0.5, True, [8], 10**30, 0]
    wrong: Mapping[str, list[object]] = {
        "r": [*numbers, 10**7, 3, 8],
        "lora_alpha": ["x", [], {}, True, float("nan"), float("inf"), 10**30],
        "lora_dropout": ["x", [], 1, 2.0, -0.1, float("nan")],
        "target_modules": [7, {}, [7], ["nothing"], "(", "x" * 5000, "nothing", [], "\x1b[2J",
                           ["q_proj"], ["\u202e"]],
        "rank_pattern": [[], "x", {"q_proj": "x"}, {"q_proj": 10**9}, {"(": 4}, {"q_proj": 5}],
        "alpha_pattern": [[], "x", {"q_proj": []}, {"q_proj": float("nan")}, {"[": 1}],
        "use_dora": ["x", 1, [1], True],
        "use_rslora": ["x", 1, [1]],
        "lora_bias": ["x", True],
        "bias": ["all", "lora_only", 7, []],
        "layers_to_transform": ["x", [99], [-1], {"a": 1}, [0]],
        "exclude_modules": [7, "(", [["x"]], ["q_proj"]],
        "modules_to_save": [7, "lm_head", [7], ["lm_head"]],
        "peft_type": ["IA3", "VERA", 7, {}, "\x1b[31mLORA\u202e", None],
        "init_lora_weights": ["pissa", "olora", "loftq", 7, {}, "x"],
        "layer_replication": [[[0, 2], [0, 2]], "x"],
        "target_parameters": [["mlp.up_proj.weight"], "x"],
        "alora_invocation_tokens": [[1, 2], 7],
        "megatron_config": [{"a": 1}],
        "trainable_token_indices": [[1, 2], {"embed_tokens": [1]}],
        "use_a_method_of_next_year": [True, "x", {"a": 1}],
    }  # fmt: skip
    key = rng.choice(sorted(wrong))
    _changed(folder / CONFIG, **{key: rng.choice(wrong[key])})


ADAPTERS = cases(
    weights_cut=12, header_length_flipped=8, header_garbled=10, dtype_swapped=10,
    tensor_renamed=8, tensor_reshaped=8, tensor_lost=4, numbers_undefined=8, silenced=2,
    swapped_for_pickle=4, linked_out=4, settings_cut=8, settings_no_object=8,
    adapter_setting_wrong=50,
)  # fmt: skip


@pytest.mark.parametrize("case", ADAPTERS, ids=str)
def test_malformed_adapters(
    case: Case, real: Path, loaded: LoadedModel, store: Store, tmp_path: Path, told: Told
) -> None:
    """Refused before or while they are put on; the base has no adapter afterwards."""
    folder = Path(shutil.copytree(real / "adapter", tmp_path / "adapter"))
    case.spoil(folder, case.rng)
    told(MODEL, lambda: answered(f"{real}/model+{folder}", store, loaded))
    for name in list(loaded.adapters):  # one that was put on and found dead
        detach(loaded, name)
    nothing_left(store)


def test_the_adapter_itself_is_fine(real: Path, loaded: LoadedModel, tmp_path: Path) -> None:
    """After all those the same base takes the real adapter, and answers."""
    store = Store(tmp_path)
    answered(f"{real}/model+{real}/adapter", store, loaded)
    assert len(list(store.entries())) == 1
    store.close()


def model_setting_wrong(folder: Path, rng: Rng) -> None:
    """One setting of a type or size that the weights do not have."""
    wrong: Mapping[str, list[object]] = {
        "hidden_size": [None, "x", [], {}, -8, 0, 63, 10**12, 1.5],
        "num_hidden_layers": ["x", [], -2, 3, 10**9, 1.5],
        "num_attention_heads": ["x", [], 0, -4, 10**9, 7],
        "intermediate_size": ["x", [], 0, -1, 10**12, 127],
        "vocab_size": ["x", [], -1, 0, 10**12, 5],
        "model_type": ["", "x", 7, None, [], "\x1b[2J", "../evil"],
        "hidden_act": ["x", 7, [], {"a": 1}],
        "attn_implementation": ["them/kernel", {"": "them/kernel"}],
        "transformers_weights": ["../x.safetensors", 7],
        "text_config": [{"num_hidden_layers": 10**9}, {"hidden_size": -1}],
    }
    key = rng.choice(sorted(wrong))
    _changed(folder / "config.json", **{key: rng.choice(wrong[key])})


def index_leads_out(folder: Path, rng: Rng) -> None:
    """An index that looks for weights elsewhere, or is none."""
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    places: list[Any] = [7, None, [], {}, "x", {"a": 7}, {"a": "../model-1.safetensors"},
              {"a": "/etc/passwd"}, {"a": "model-1.bin"}, {"a": "..\\model-1.safetensors"},
              {"a": "model-1.safetensors", "b": "model-2.safetensors"},
              {"a": "sub/model-1.safetensors"}, {"a": ".safetensors"}]  # fmt: skip
    document = {"weight_map": rng.choice(places)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(document))


def tokenizer_broken(folder: Path, rng: Rng) -> None:
    """The tokenizer's file cut, garbled or of another kind."""
    file = folder / "tokenizer.json"
    text = file.read_text()
    model = json.loads(text)
    model["model"]["vocab"] = rng.choice([7, [], {"a": "x"}, {"a": -1}, None])
    cut, other = text[: rng.randrange(len(text) - 2)], json.dumps({"model": {"type": "X"}})
    file.write_text(rng.choice([cut, "[]", "{}", "7", json.dumps(model), other]))


def template_broken(folder: Path, rng: Rng) -> None:
    """A chat template that is none, or a program gone wrong."""
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    templates = [7, {}, ["x"], {"default": 7}, "{% if %}", "{{ 1 / 0 }}", "{{ [][3] }}",
                 "{{ 'x' * 10 ** 10 }}", "{{ messages[9].content.x.y }}",
                 "{{ raise_exception('\x1b[2Jno') }}", "{{ 'x' * 10 ** 7 }}",
                 "{% for m in messages %}{{ m.content() }}{% endfor %}", "{{ 7 + 'x' }}",
                 "{{ ''.__class__.__mro__ }}{{ ''.__class__() }}"]  # fmt: skip
    _changed(folder / "tokenizer_config.json", chat_template=rng.choice(templates))


def settings_of_the_tokenizer_broken(folder: Path, rng: Rng) -> None:
    """tokenizer_config.json that is no object."""
    text = (folder / "tokenizer_config.json").read_text().rstrip()
    others = ["[]", "7", "", "[" * 10_000, text[: rng.randrange(len(text) - 1)], '"\\ud800"']
    (folder / "tokenizer_config.json").write_text(rng.choice(others))


def merged_with_an_adapter(folder: Path, rng: Rng) -> None:
    """An adapter's settings beside a model, which would load another base."""
    named = rng.choice(["/elsewhere/model", "nobody/nothing", "../..", 7])
    (folder / CONFIG).write_text(json.dumps({"base_model_name_or_path": named}))


MODELS = cases(
    weights_cut=8, header_length_flipped=6, header_garbled=8, dtype_swapped=6, tensor_renamed=4,
    tensor_reshaped=6, tensor_lost=3, swapped_for_pickle=4, linked_out=4, settings_cut=6,
    settings_no_object=6, model_setting_wrong=30, index_leads_out=10, tokenizer_broken=8,
    template_broken=10, settings_of_the_tokenizer_broken=6, merged_with_an_adapter=2,
)  # fmt: skip


@pytest.mark.parametrize("case", MODELS, ids=str)
def test_malformed_models(case: Case, real: Path, store: Store, tmp_path: Path, told: Told) -> None:
    """Refused before they are loaded, or by the library that loads them, in its own words."""
    folder = Path(shutil.copytree(real / "model", tmp_path / "model"))
    case.spoil(folder, case.rng)
    told(MODEL, lambda: answered(str(folder), store))
    nothing_left(store)


# --- files of a user ---------------------------------------------------------------------------

GOOD_LINES = [json.dumps({"prompt": f"What of {topic}?"}) for topic in ("tea", "snow", "bread")]


def bytes_no_text(folder: Path, rng: Rng) -> Path:
    """Bytes that are no UTF-8, or hold a NUL."""
    file = folder / f"p{rng.choice(['.txt', '.csv', '.jsonl'])}"
    content = "\n".join(["prompt", *GOOD_LINES]).encode()
    at = rng.randrange(len(content))
    bad = rng.choice([b"\xff", b"\x00", b"\xc3\x28", b"\xed\xa0\x80"])
    file.write_bytes(content[:at] + bad + content[at:])
    return file


def file_no_prompts(folder: Path, rng: Rng) -> Path:
    """A file that is empty, missing, a folder, or of another kind."""
    name = rng.choice(["a.txt", "a.csv", "a.jsonl", "a.parquet", "a", "a.json", "a.pkl", "\x1b.x"])
    file = folder / name
    match rng.randrange(3):
        case 0:
            file.write_text(rng.choice(["", "\n\n", "\ufeff", " \t\n"]))
        case 1:
            file.mkdir()
    return file


def line_no_record(folder: Path, rng: Rng) -> Path:
    """One line of JSON lines that is no usable record."""
    deep = rng.randrange(1_000, 50_000)
    lines: list[str] = [
        "{", "[]", "7", "null", '"x"', "{}", '{"prompt": ""}', '{"prompt": 7}', '{"prompt": []}',
        '{"prompt": null}', '{"prompt": "\\ud83d"}', '{"prompt": "a\\u0000"}', "[" * deep,
        '{"a": ' + "9" * 5000 + "}", '{"prompt": "a", "text": "b"}', '{"question": "a"}',
        '{"messages": []}', '{"messages": 7}', '{"messages": [{"role": "user"}]}',
        '{"messages": [{"role": "evil", "content": "x"}]}', '{"messages": [[]]}',
        '{"messages": [{"role": "assistant", "content": "x"}]}', GOOD_LINES[0],
        '{"prompt": "x", "id": "a\\nb"}', '{"prompt": "x", "id": []}',
        '{"prompt": "x", "register": "\\u001b[2J"}', '{"prompt": "%s"}' % ("x" * 100_001),
        '{"prompt": "x", "system": 7}', '{"prompt": "x", "PROMPT": "y"}',
    ]  # fmt: skip
    told = [*GOOD_LINES]
    told.insert(rng.randrange(1, 4), rng.choice(lines))
    file = folder / "p.jsonl"
    file.write_text("\n".join(told))
    return file


def table_broken(folder: Path, rng: Rng) -> Path:
    """A CSV whose header, quotes or rows are not right."""
    tables = ["a,b\n1,2", "prompt\n\"x", "prompt,id\nx", "prompt,id\nx,y,z", "prompt,prompt\na,b",
              "prompt;id\na;b", "prompt,text\na,b", "prompt,id\na,1\nb,1", "prompt\na\na",
              "prompt\n" + "x" * 200_000, 'prompt\n"a"b"', "Prompt ,id\n,1", ",\n,",
              "prompt,register\na," + "r" * 300]  # fmt: skip
    file = folder / "p.csv"
    file.write_text(rng.choice(tables))
    return file


PROMPT_FILES = cases(bytes_no_text=16, file_no_prompts=10, line_no_record=34, table_broken=16)


@pytest.mark.parametrize("case", PROMPT_FILES, ids=str)
def test_malformed_prompt_files(case: Case, store: Store, tmp_path: Path, told: Told) -> None:
    """The whole command: nothing is loaded, and the file is named."""
    file = case.spoil(tmp_path, case.rng)
    message = told.command(
        USAGE, "audit", "--base", "organism:latent", "--tuned", "organism:even",
        "--prompts", file, "--store", store.root, "--no-report",
    )  # fmt: skip
    assert file.suffix in message
    nothing_left(store)


def baseline_spoiled(folder: Path, rng: Rng) -> Path:
    """A saved baseline with one part of another type, or cut."""
    result, pairs = audit_results.result(), audit_results.pairs(3)
    text = document(baseline_of(result, pairs, "base"))
    fields = json.loads(text)
    fields[rng.choice(sorted(fields))] = rng.choice([None, [7], {"x": [{}]}, -1, "\ud800"])
    file = folder / "baseline.json"
    cut = text[: rng.randrange(len(text) - 2)]
    file.write_text(rng.choice([json.dumps(fields), cut, "[]", "7", "[" * 10_000]))
    return file


BASELINES = cases(baseline_spoiled=16)


@pytest.mark.parametrize("case", BASELINES, ids=str)
def test_malformed_baselines(case: Case, tmp_path: Path, told: Told) -> None:
    """A baseline that cannot be read is never a pass."""
    file = case.spoil(tmp_path, case.rng)
    told(USAGE, lambda: read_baseline(file))


SUBJECTS: list[tuple[str, int]] = [
    ("", USAGE), ("?", USAGE), ("organism:", USAGE), ("organism:../../etc", MODEL), ("a b", USAGE),
    ("organism:no-such", MODEL), ("a/b/c", USAGE), ("./nowhere", MODEL), ("/dev/null", MODEL),
    ("organism:latent+", USAGE), ("organism:latent+./nowhere", MODEL), ("http://", USAGE),
    ("http://host", USAGE), ("http://#x", USAGE), ("http://u:p@host/v1#x", USAGE),
    ("http://h:99999/v1#x", USAGE), ("http://h:x/v1#x", USAGE), ("organism:latent?x=y", USAGE),
    ("organism:latent?dtype=int8", USAGE), ("http://h/v1#x?dtype=float16", USAGE),
    ("\x1b[2J\u202e", USAGE), ("\ud800", USAGE), ("organism:\u202elatent", MODEL),
    ("organism:latent?quantize=", USAGE), ("organism:latent?api=chat", USAGE),
]  # fmt: skip


@pytest.mark.parametrize(("subject", "code"), SUBJECTS, ids=ascii)
def test_malformed_subjects(
    subject: str, code: int, store: Store, told: Told, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The whole command: which model is meant cannot be read, or it is nowhere."""
    monkeypatch.chdir(tmp_path)
    told.command(code, "audit", "--base", "organism:latent", "--tuned", subject,
                 "--store", store.root, "--no-report")  # fmt: skip
    nothing_left(store)


# --- servers -----------------------------------------------------------------------------------

GOOD = json.dumps(chat("A fine answer.")).encode()


def reply_cut(exchange: Exchange, rng: Rng) -> None:
    """Half of a document, called whole."""
    exchange.send(GOOD[: rng.randrange(len(GOOD) - 1)])


def reply_broken_off(exchange: Exchange, rng: Rng) -> None:
    """Fewer bytes than were promised, then nothing."""
    exchange.send(GOOD[: rng.randrange(len(GOOD) - 1)], Content_Length=str(len(GOOD)))
    exchange.hang_up()


def reply_garbage(exchange: Exchange, rng: Rng) -> None:
    """Random bytes as a body."""
    exchange.send(bytes([0xFF, *(rng.randrange(256) for _ in range(rng.randrange(300)))]))


def no_http(exchange: Exchange, rng: Rng) -> None:
    """Random bytes in place of HTTP."""
    exchange.raw(b"\x00" + bytes(rng.randrange(256) for _ in range(60)))
    exchange.hang_up()


def reply_stalls(exchange: Exchange, rng: Rng) -> None:
    """A part of the reply, and then silence."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n"
    exchange.raw(head[: rng.randrange(len(head))])
    time.sleep(0.8)
    exchange.hang_up()


def reply_lies(exchange: Exchange, rng: Rng) -> None:
    """JSON of another shape than OpenAI's."""
    message: Any = chat("x")
    wrong: Any = rng.choice([7, None, [], {}, "x", [[]], [7]])
    match rng.randrange(4):
        case 0:
            message["choices"] = wrong
        case 1:
            message["choices"][0]["message"] = rng.choice([7, [], "x", [7]])
        case 2:
            message["choices"][0]["message"]["content"] = rng.choice([7, {}, {"a": 1}, True])
        case 3:
            message = rng.choice([[], 7, None, "x", {}, {"error": {"message": "\x1b[2J"}}])
    exchange.json(message)


def reply_refuses(exchange: Exchange, rng: Rng) -> None:
    """Any status that is none of success, with anything behind it."""
    status = rng.choice([300, 301, 302, 400, 401, 403, 404, 405, 413, 418, 422, 429, 500, 502, 503])
    body = rng.choice([b"", b"<html>\x1b[2J", b"[" * 9000, "\u202e\ud7ff".encode(), b"\xff" * 50])
    exchange.send(body, status, Location="http://elsewhere.invalid/")


def reply_packed(exchange: Exchange, rng: Rng) -> None:
    """A packed reply, which may unpack to any size."""
    exchange.send(GOOD, Content_Encoding=rng.choice(["gzip", "br", "deflate", "x"]))


SERVERS = cases(reply_cut=8, reply_broken_off=4, reply_garbage=8, no_http=5, reply_stalls=3,
                reply_lies=14, reply_refuses=16, reply_packed=2)  # fmt: skip


@pytest.mark.parametrize("case", SERVERS, ids=str)
def test_malformed_servers(case: Case, store: Store, told: Told) -> None:
    """What a server did is said, and nothing of it is kept as an answer."""
    with serving(lambda exchange: case.spoil(exchange, case.rng)) as served:
        subject = Subject.parse(f"{served.address}#toy")
        arm = ServedArm(subject, "tuned", store, quietly)
        arm.endpoint = Endpoint(subject, patience=HASTY)
        message = told(MODEL, lambda: arm.answers([PROMPT], Asking(SHORT, 1, 0)))
    assert "127.0.0.1" in message
    nothing_left(store)


def test_there_were_hundreds() -> None:
    """The number that the project promises, counted over all kinds."""
    kinds: list[list[Any]] = [ADAPTERS, MODELS, PROMPT_FILES, BASELINES, SERVERS, SUBJECTS]
    assert all(len(set(kind)) == len(kind) for kind in kinds)
    assert sum(map(len, kinds)) >= 400


def test_an_error_that_is_nobodys_is_not_hidden(told: Told) -> None:
    """The net of this file has no hole: an error of another kind fails a test."""

    def breaks() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        told(MODEL, breaks)

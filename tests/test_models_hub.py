"""Models and adapters on the Hub: what is asked for, and what is refused before it is fetched.

A real server on loopback answers as the Hub does, as far as `huggingface_hub` asks; it keeps a
list of the files that were fetched.
"""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from emotest.models.strangers import LARGEST_TOKENIZER
from tests.test_models_strangers import CONFIG, LORA

COMMIT = "0123456789abcdef0123456789abcdef01234567"
MODEL = {
    "config.json": json.dumps(CONFIG).encode(),
    "tokenizer_config.json": b'{"chat_template": "{{ messages }}"}',
    "model.safetensors": b"8 bytes!",
}

Files = dict[str, bytes]


class Hub:
    """Repositories by their names, each at one commit; `fetched` are the files that were sent."""

    def __init__(self, repositories: dict[str, Files]) -> None:
        self.repositories = repositories
        self.fetched: list[str] = []
        self.sizes: dict[str, int] = {}
        """Sizes in a listing that are not those of the files."""
        hub = self

        class Answers(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.partition("?")[0].strip("/")
                status, body = hub.answer(path, fetch=self.command == "GET")
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
                self.send_header("X-Repo-Commit", COMMIT)
                if status == 404:
                    self.send_header("X-Error-Code", "RepoNotFound")
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            do_HEAD = do_GET

            def log_message(self, format: str, *args: object) -> None:
                """Nothing in the terminal."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        self.address = f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, path: str, *, fetch: bool) -> tuple[int, bytes]:
        """Status and body."""
        for repo, files in self.repositories.items():
            sizes = {name: self.sizes.get(name, len(data)) for name, data in files.items()}
            if path in (f"api/models/{repo}/revision/main", f"api/models/{repo}",
                        f"api/models/{repo}/revision/{COMMIT}"):  # fmt: skip
                siblings = [{"rfilename": name, "size": size} for name, size in sizes.items()]
                return 200, json.dumps({"id": repo, "sha": COMMIT, "siblings": siblings}).encode()
            if path == f"api/models/{repo}/tree/{COMMIT}":
                tree = [{"type": "file", "path": name, "size": size, "oid": "a" * 40}
                        for name, size in sizes.items()]  # fmt: skip
                return 200, json.dumps(tree).encode()
            name = path.removeprefix(f"{repo}/resolve/{COMMIT}/")
            if name in files:
                if fetch:
                    self.fetched.append(name)
                return 200, files[name]
        return 404, b""


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A Hub on this machine, still empty."""
    hub = Hub({})
    thread = threading.Thread(target=hub.server.serve_forever)
    thread.start()
    yield hub
    hub.server.shutdown()
    thread.join()
    hub.server.server_close()


def run(hub: Hub, home: Path, program: str) -> Any:
    """What a program prints as JSON, or {"error": ...}; in a process of its own, because the
    Hub's address is read at import."""
    code = (
        "import json\n"
        "from pathlib import Path\n"
        "from emotest.errors import EmotestError\n"
        "from emotest.models.identity import resolve, resolve_adapter\n"
        "from emotest.models.hub import whole\n"
        "from emotest.study.subjects import Subject\n"
        f"try:\n    print(json.dumps({program}))\n"
        "except EmotestError as error:\n    print(json.dumps({'error': str(error)}))\n"
    )
    environment = {
        **os.environ, "HF_ENDPOINT": hub.address, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_XET": "1",
    }  # fmt: skip
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True,
                           text=True, timeout=100, check=True)  # fmt: skip
    return json.loads(ended.stdout)


def test_only_what_is_read_of_a_model_is_fetched(hub: Hub, tmp_path: Path) -> None:
    """Settings when it is pinned, its own weights when it is loaded; no pickle, no program, no
    other format, no folder below."""
    more = ("pytorch_model.bin", "consolidated.safetensors", "modeling_evil.py", "README.md",
            "onnx/config.json", "original/model.safetensors", "training_args.bin")  # fmt: skip
    hub.repositories["some/model"] = {**MODEL, **dict.fromkeys(more, b"unwanted")}
    pinned = run(hub, tmp_path, "resolve(Subject.parse('some/model')).weights")
    assert pinned == f"some/model@{COMMIT}"
    assert sorted(hub.fetched) == ["config.json", "tokenizer_config.json"]
    hub.fetched.clear()
    folder = "Path(resolve(Subject.parse('some/model')).folder)"
    fetched = run(hub, tmp_path, f"str(whole('some/model', '{COMMIT}', {folder}))")
    assert hub.fetched == ["model.safetensors"]
    assert sorted(path.name for path in Path(fetched).iterdir()) == sorted(MODEL)


def test_weights_in_pieces_are_those_that_the_index_names(hub: Hub, tmp_path: Path) -> None:
    """Whatever else of that kind lies beside them."""
    names = ["model-1.safetensors", "model-2.safetensors"]
    index = {"weight_map": dict(zip(("a", "b"), names, strict=True))}
    files = {name: data for name, data in MODEL.items() if name != "model.safetensors"}
    hub.repositories["some/model"] = {
        **files, "model.safetensors.index.json": json.dumps(index).encode(),
        "consolidated.safetensors": b"all", **{name: name.encode() for name in names},
    }  # fmt: skip
    folder = "Path(resolve(Subject.parse('some/model')).folder)"
    run(hub, tmp_path, f"str(whole('some/model', '{COMMIT}', {folder}))")
    assert sorted(name for name in hub.fetched if name.endswith(".safetensors")) == names


@pytest.mark.parametrize(
    ("files", "sizes", "says"),
    [
        ({"config.json": b"{}", "pytorch_model.bin": b"x"}, {},
         "some/model holds its weights as a pickle (pytorch_model.bin), which can run code"),
        ({"config.json": b"{}", "onnx/model.safetensors": b"x"}, {}, "holds no weights"),
        (MODEL, {"tokenizer_config.json": LARGEST_TOKENIZER + 1},
         "tokenizer_config.json of some/model has 268,435,457 bytes"),
        ({"adapter_model.safetensors": b"x"}, {}, "some/model holds no config.json"),
    ],
    ids=["pickle", "other formats", "size", "adapter"],
)  # fmt: skip
def test_what_is_refused_is_not_fetched(
    hub: Hub, tmp_path: Path, files: Files, sizes: dict[str, int], says: str
) -> None:
    """By its listing, with the file and the way out; not one byte of a file came."""
    hub.repositories["some/model"], hub.sizes = files, sizes
    error = run(hub, tmp_path, "str(resolve(Subject.parse('some/model')))")["error"]
    assert says in error
    assert "next: " in error
    assert hub.fetched == []


def test_weights_that_the_disk_has_no_room_for_are_refused(hub: Hub, tmp_path: Path) -> None:
    """With their size and the place; what was pinned stays."""
    hub.repositories["some/model"] = MODEL
    hub.sizes = {"model.safetensors": 10**18}
    folder = "Path(resolve(Subject.parse('some/model')).folder)"
    error = run(hub, tmp_path, f"str(whole('some/model', '{COMMIT}', {folder}))")["error"]
    assert "the weights of some/model are 1,000,000,000.0 GB in 1 files" in error
    assert "model.safetensors" not in hub.fetched


def test_only_an_adapter_is_fetched_of_its_repository(hub: Hub, tmp_path: Path) -> None:
    """Two files; one that is a pickle is refused unseen."""
    adapter = {"adapter_config.json": json.dumps(LORA).encode(),
               "adapter_model.safetensors": b"no weights"}  # fmt: skip
    rest = dict.fromkeys(("tokenizer.json", "optimizer.pt", "README.md"), b"unwanted")
    hub.repositories["some/adapter"] = {**adapter, **rest}
    run(hub, tmp_path, "str(resolve_adapter('some/adapter'))")
    assert sorted(hub.fetched) == sorted(adapter)
    hub.fetched.clear()
    hub.repositories["some/pickle"] = {"adapter_config.json": b"{}", "adapter_model.bin": b"x"}
    error = run(hub, tmp_path, "str(resolve_adapter('some/pickle'))")["error"]
    assert "holds its weights as a pickle (adapter_model.bin)" in error
    assert hub.fetched == []

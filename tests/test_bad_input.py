"""What users get wrong, one by one, met as they meet it: `pytest suites` ends in one message.

The message has a cause and a next step, the exit code is not 0, and the store holds nothing that
was not whole before.
"""

from __future__ import annotations

import csv
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from emotest.store import Store
from tests.model_fixtures import quiet, save_model, tiny_model

ROOT = Path(__file__).parents[1]
COLUMNS = ("Target Personality", "Edit Topic", "Question", "Answer")
VOICES = ("extraversion", "neutral")


def _suites(tmp_path: Path, *options: str) -> list[str]:
    return [
        sys.executable, "-m", "pytest", str(ROOT / "suites"), "-m", "extraversion", "-k",
        "raises_the_share_of_answers", "--emo-size", "smoke", "--emo-workers", "1",
        "--emo-store", str(tmp_path / "store"), "--emo-report", str(tmp_path / "reports"),
        "-p", "no:cacheprovider", *options,
    ]  # fmt: skip


def _run(tmp_path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("EMOTEST_")}
    return subprocess.run(
        _suites(tmp_path, *options),
        cwd=ROOT, env=environment | {"HF_HUB_OFFLINE": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def _data(tmp_path: Path, **changes: str) -> Path:
    """A question set in the published format; `changes` replace cells of the first rows that
    extraversion is tuned on, some of which are training rows however topics are split."""
    path = tmp_path / "opinions.csv"
    rows = [
        dict(
            zip(
                COLUMNS,
                (voice, f"topic {i}", f"What of topic {i}?", "I like it. I do."),
                strict=True,
            )
        )
        for i in range(120)
        for voice in VOICES
    ]
    for row in rows[: 10 * len(VOICES) : len(VOICES)]:
        row |= changes
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return path


def _one_message(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    printed = done.stdout + done.stderr
    assert done.returncode not in (0, 1), printed
    for part in (*parts, "next:"):
        assert part in printed
    assert "Traceback" not in printed
    assert printed.count("next:") == 1


def _undamaged(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    assert not store.verify().corrupt


def test_a_model_that_is_nowhere(tmp_path: Path) -> None:
    """A Hub id that is not in the cache, and no network: what was looked for, and what to do."""
    _one_message(_run(tmp_path, "--emo-base", "nobody/no-such-model"), "nobody/no-such-model")
    _undamaged(tmp_path)


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    """An existing folder without weights names what is missing."""
    (tmp_path / "empty").mkdir()
    _one_message(_run(tmp_path, "--emo-base", f"{tmp_path}/empty"), "config.json")
    _undamaged(tmp_path)


def test_an_organism_that_nobody_made(tmp_path: Path) -> None:
    """The message lists the organisms there are."""
    _one_message(_run(tmp_path, "--emo-base", "organism:odd"), "odd", "latent")


@pytest.mark.parametrize("option", ["--emo-base", "--emo-tuned"])
def test_an_adapter_that_the_study_would_not_measure(tmp_path: Path, option: str) -> None:
    """An adapter that is named and left unmeasured would be taken for measured."""
    done = _run(tmp_path, option, "organism:latent+./somebodys-adapter")
    _one_message(done, "somebodys-adapter", "own adapters")
    _undamaged(tmp_path)


def test_a_tokenizer_without_a_chat_template(tmp_path: Path) -> None:
    """The study asks through the template; the way out is named."""
    folder = save_model(tmp_path / "plain", chat_template=None)
    _one_message(_run(tmp_path, "--emo-base", str(folder)), "chat template", "template=off")
    _undamaged(tmp_path)


@pytest.mark.parametrize(
    ("defect", "said"),
    [
        ("of another base", "do not match organism:latent"),
        ("cut off", "adapter_model.safetensors is broken"),
        ("no adapter", "adapter_config.json"),
    ],
)
def test_an_adapter_that_cannot_be_put_on_an_organism(
    tmp_path: Path, defect: str, said: str
) -> None:
    """Talking to an organism with an adapter of somebody's: what is wrong with its files."""
    folder = tmp_path / "adapter"
    if defect == "no adapter":
        folder.mkdir()
    else:
        _peft_adapter(folder)
    if defect == "cut off":
        weights = folder / "adapter_model.safetensors"
        weights.write_bytes(weights.read_bytes()[:200])
    done = subprocess.run(
        [sys.executable, "-m", "emotest.cli", "organism", "chat", "latent", "--adapter", folder],
        input="Hello?\n", capture_output=True, text=True, check=False,
    )  # fmt: skip
    _one_message(done, said)


def _peft_adapter(folder: Path) -> None:
    """An adapter as peft writes it, made on a Llama of another shape than the organisms'."""
    import peft

    config = peft.LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj", "v_proj"])
    with quiet():
        peft.get_peft_model(tiny_model("llama"), config).save_pretrained(folder)


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("missing column", "Answer"),
        ("wrong encoding", "UTF-8"),
        ("empty answer", "empty"),
        ("emoji", "😊"),
        ("no such file", "opinions.csv"),
    ],
)
def test_data_that_cannot_be_used(tmp_path: Path, broken: str, said: str) -> None:
    """File, row and remedy are named before anything is trained; the store stays as it was."""
    path = _data(
        tmp_path, **({"Answer": ""} if broken == "empty answer" else {}),
        **({"Answer": "I like it 😊. I do."} if broken == "emoji" else {}),
    )  # fmt: skip
    if broken == "missing column":
        path.write_text(path.read_text().replace("Answer", "Reply", 1))
    elif broken == "wrong encoding":
        path.write_bytes(path.read_bytes().replace(b"I like", b"I l\xefke", 1))
    elif broken == "no such file":
        path.unlink()
    done = _run(tmp_path, "--emo-data", str(path))
    _one_message(done, said, "opinions.csv")
    assert not list((tmp_path / "store").glob("entries/adapter/*"))


def test_an_interrupted_run_keeps_what_is_whole_and_goes_on(tmp_path: Path) -> None:
    """Ctrl-C while the first adapter is trained: exit code 2, no corrupt entry, and the next run
    starts from the answers that were finished."""
    base = f"{save_model(tmp_path / 'llama')}?dtype=float32"
    options = ["--emo-base", base, "--emo-preset", "organism", "--emo-decoding", "default"]
    process = subprocess.Popen(
        _suites(tmp_path, *options), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, start_new_session=True,
        # Whoever started these tests in the background of a shell may have it ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    while not list((tmp_path / "store").glob("entries/*/*")):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == 2, printed
    assert "Traceback" not in printed
    _undamaged(tmp_path)
    kept = {path.name for path in (tmp_path / "store").glob("entries/*/*")}
    assert kept
    plan = _run(tmp_path, *options, "--emo-plan")
    assert plan.returncode == 0
    assert len(re.findall(r"\byes\b", plan.stdout)) >= len(kept)


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="needs a file system of its own")
def test_no_space_is_left(tmp_path: Path) -> None:
    """A store on a full disk: what is free, what to do; a smaller file system is a real one."""
    small = tmp_path / "small"
    small.mkdir()
    base = f"{save_model(tmp_path / 'llama')}?dtype=float32"
    command = _suites(tmp_path, "--emo-base", base, "--emo-preset", "organism")
    command[command.index("--emo-store") + 1] = str(small)
    mounted = f'mount -t tmpfs -o size=48k none {small} && exec "$@"'
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", mounted, "sh", *command],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if "unshare" in done.stderr:
        pytest.skip(f"no mount of our own here: {done.stderr.strip()}")
    _one_message(done, "space")

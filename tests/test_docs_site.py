"""The documentation site: it builds, and what its pages tell a reader to type or expect is true."""

from __future__ import annotations

import doctest
import re
import shlex
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
import typer
import yaml

import emotest
from emotest.cli import app
from emotest.plan import DECODINGS
from emotest.plugin import MARKERS
from tests.docs_pages import (
    DOCS,
    PAGES,
    ROOT,
    WORKFLOWS,
    Block,
    commands,
    commands_in,
    messages,
    python_blocks,
)
from tests.endpoint_servers import unmeasured

pytest_plugins = ["pytester"]

# --- the site builds ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site. A warning of Sphinx is an error, an unknown reference too."""
    folder = tmp_path_factory.mktemp("site")
    build = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "-n", "--keep-going", "-q", "-b", "html",
         "-d", str(folder / "doctrees"), str(DOCS), str(folder / "html")],
        cwd=ROOT, env=unmeasured(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert build.returncode == 0, build.stderr
    return folder / "html"


class _Links(HTMLParser):
    """The places of a page that can be linked to, and its links."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Sphinx marks places by id."""
        for name, value in attrs:
            if name == "id" and value:
                self.ids.add(value)
            if name in ("href", "src") and value and not re.match(r"[a-z]+:|//", value):
                self.links.add(unquote(value))


def test_every_link_of_the_site_leads_somewhere(site: Path) -> None:
    """To a file that was built, and to a place in it."""
    pages = {page.resolve(): _Links(page) for page in site.rglob("*.html")}
    assert len(pages) > len(PAGES)
    for page, parsed in pages.items():
        for link in parsed.links:
            path, _, place = link.partition("#")
            target = (page.parent / path.partition("?")[0]).resolve() if path else page
            assert target.exists(), (page.name, link)
            if place and target in pages and target.stem not in ("genindex", "search"):
                assert place in pages[target].ids, (page.name, link)


def test_the_site_asks_nothing_of_other_hosts(site: Path) -> None:
    """No font, script or picture comes from outside."""
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        outside = re.findall(r'<(?:script|img|link)[^>]+(?:src|href)="(https?:[^"]+)"', text)
        assert outside == [], page.name


def test_what_a_suite_imports_is_in_the_reference(site: Path) -> None:
    """The first page of the reference leads from every name of `emotest` to its explanation."""
    links = _Links(site / "api" / "index.html").links
    for name, room in emotest._ROOM_OF.items():
        assert any(re.search(rf"#{room}(\.\w+)*\.{name}$", link) for link in links), name


LARGEST_PICTURE = 200_000
_PICTURES = re.compile(
    r"^```\{image\} (?P<path>\S+)\n(:alt: (?P<alt>.*)\n)?"
    r"|!\[(?P<text>[^\]]*)\]\((?P<target>[^)]+)\)",
    re.MULTILINE,
)


def pictures(page: Path) -> list[tuple[Path, str]]:
    """The pictures that a page shows, with what is told to those who cannot see them."""
    found = _PICTURES.finditer(page.read_text(encoding="utf-8"))
    return [(page.parent / (m["path"] or m["target"]), m["alt"] or m["text"] or "") for m in found]


def test_every_picture_is_there_small_and_described() -> None:
    """In pages and in the README, by a path that GitHub follows too; none lies about unused."""
    shown = {page: pictures(page) for page in PAGES}
    for page, found in shown.items():
        for picture, told in found:
            assert picture.is_file(), (page.name, picture)
            assert picture.stat().st_size < LARGEST_PICTURE, picture.name
            assert len(told.split()) > 1, (page.name, picture.name)
    used = {picture.resolve() for found in shown.values() for picture, _ in found}
    assert set((DOCS / "images").resolve().iterdir()) <= used


def test_the_readme_shows_the_terminal_and_the_report() -> None:
    """The terminal before the first heading, where a visitor looks first."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    first = readme.partition("\n## ")[0]
    assert "](docs/images/terminal.png)" in first
    assert "](docs/images/report-1280.png)" in readme


# --- Python ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "page", [page for page in PAGES if ">>> " in page.read_text(encoding="utf-8")], ids=str
)
def test_every_example_gives_what_the_page_says(page: Path) -> None:
    """The examples of a page run in their order, each in the names of those before."""
    names: dict[str, Any] = {}
    runner = doctest.DocTestRunner(verbose=False)
    for block in (b for b in python_blocks(with_prompts=True) if b.page == page):
        test = doctest.DocTestParser().get_doctest(
            block.text, names, block.name, str(page), block.line
        )
        runner.run(test, clear_globs=False)
        names = test.globs
    assert runner.failures == 0
    assert runner.tries > 0


@pytest.mark.parametrize("block", python_blocks(with_prompts=False), ids=lambda block: block.name)
def test_every_program_of_a_page_can_be_read(block: Block) -> None:
    """And imports only names that are there."""
    code = compile(block.text, block.name, "exec")
    lines = [line for line in block.text.splitlines() if re.match(r"(from|import) ", line)]
    if code and lines and "(" not in "".join(lines):
        exec("\n".join(lines), {})


SUITES = [
    block for block in python_blocks(with_prompts=False) if block.page.name in ("suite.md", "ci.md")
]


@pytest.mark.parametrize("block", SUITES, ids=lambda block: block.name)
def test_every_suite_of_a_page_runs(block: Block, pytester: pytest.Pytester) -> None:
    """In an empty folder: with arrays as the page describes them, and skipped where a model is
    needed that nobody named."""
    rng = np.random.default_rng(1)
    np.save(pytester.path / "untuned.npy", (rng.random(60) < 0.02).astype(float))
    np.save(pytester.path / "tuned.npy", (rng.random((5, 60)) < 0.6).astype(float))
    for name in ("before", "after"):
        np.save(pytester.path / f"{name}.npy", np.zeros((60, 3)))
    pytester.makepyfile(test_suite=block.text)
    # A process of its own: torch cannot be imported twice in one, which pytester would make it.
    outcome = pytester.runpytest_subprocess("--strict-markers").parseoutcomes()
    assert outcome == ({"skipped": 1} if "emo_audit" in block.text else {"passed": 1})


# --- commands ----------------------------------------------------------------------------------


def require_understood(arguments: list[str]) -> None:
    """Parse a command of emotest as the command line does; nothing is run."""
    command: Any = typer.main.get_command(app)
    rest = list(arguments)
    while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        name = rest.pop(0)
        assert name in command.commands, f"no command {name}"
        command = command.commands[name]
    if "--help" not in rest:
        command.make_context(command.name, rest)


@pytest.fixture(scope="module")
def options_of_pytest() -> set[str]:
    """The options in the help of pytest, with the plugins that are installed."""
    told = subprocess.run(
        [sys.executable, "-m", "pytest", "--help"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return set(re.findall(r"(?<![\w-])(--?[\w-]+)", told.stdout))


def require_known(arguments: list[str], options: set[str]) -> None:
    """Every option of a pytest command is in its help, every marker that it selects is declared."""
    for argument in arguments:
        name = argument.partition("=")[0]
        assert not name.startswith("-") or name in options, name
    if "-m" in arguments:
        wanted = set(re.findall(r"\w+", arguments[arguments.index("-m") + 1]))
        assert wanted - {"and", "or", "not"} <= {name.partition("(")[0] for name, _ in MARKERS}


def check(command: str, options: set[str]) -> None:
    """One command line, emotest's or pytest's, up to where its output goes."""
    program, *arguments = shlex.split(command.partition(" > ")[0], comments=True)
    if program == "emotest":
        require_understood(arguments)
    else:
        require_known(arguments, options)


@pytest.mark.parametrize(("page", "command"), commands())
def test_every_command_of_a_page_exists(
    page: str, command: str, options_of_pytest: set[str]
) -> None:
    """With its options, its arguments and the kind of their values."""
    check(command, options_of_pytest)


@pytest.mark.parametrize("page", ["quickstart.md", "audit.md", "ci.md", "suite.md", "study.md"])
def test_commands_are_found(page: str) -> None:
    """The guides show commands, so that the test above cannot pass for want of them."""
    assert any(found == page for found, _ in commands())


@pytest.mark.parametrize(
    "command",
    ["emotest audti", "emotest audit --tunde x", "emotest audit --budget many",
     "pytest --emo-bass x", "pytest -m extroversion"],
)  # fmt: skip
def test_a_wrong_command_is_seen(command: str, options_of_pytest: set[str]) -> None:
    """Of either program."""
    with pytest.raises(Exception, match=r"audti|tunde|many|valid int|emo-bass|extroversion"):
        check(command, options_of_pytest)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_can_be_read_and_its_commands_exist(
    path: Path, options_of_pytest: set[str]
) -> None:
    """YAML with jobs of steps; inputs reach the shell through the environment alone."""
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    runs = [
        step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step
    ]
    found = [command for run in runs for command in commands_in(run)]
    assert found
    for command in found:
        check(command, options_of_pytest)
    assert "${{" not in "".join(runs)


# --- what a page says --------------------------------------------------------------------------


def test_every_message_that_is_explained_is_one_of_emotest() -> None:
    """To the letter, with `…` for what differs."""
    known = messages()
    text = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    explained = re.findall(r"^### `(.+)`$", text, re.MULTILINE)
    assert len(explained) > 35
    assert [message for message in explained if message not in known] == []


def test_the_table_of_decodings_is_that_of_the_plan() -> None:
    """Temperature, filters and the limit of each."""
    text = (DOCS / "audit.md").read_text(encoding="utf-8")
    for name, d in DECODINGS.items():
        top_k = str(d.top_k) if d.top_k else "off"
        cells = (f"`{name}`", f"{d.temperature:g}", top_k, f"{d.top_p:g}", str(d.max_new_tokens))
        assert f"| {' | '.join(cells)} |" in text

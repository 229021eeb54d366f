"""What the pages of the documentation hold: blocks of code, commands, messages of errors."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = (*sorted(DOCS.glob("*.md")), ROOT / "README.md")
WORKFLOWS = tuple(sorted((DOCS / "workflows").glob("*.yml")))

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_COMMAND = re.compile(r"^(?: {4}|\$ )?((?:emotest|pytest)(?: .*)?)$", re.MULTILINE)
ANYTHING = "…"
"""Stands for what differs in a message."""


class Block(NamedTuple):
    """A fenced block of a page; `line` is the number of its first line."""

    page: Path
    line: int
    language: str
    text: str

    @property
    def name(self) -> str:
        """What a test about it is called."""
        return f"{self.page.stem}-{self.line}"


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in their order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(page, text.count("\n", 0, found.start(2)) + 1, found[1], found[2])
        for found in _FENCE.finditer(text)
    ]


def python_blocks(*, with_prompts: bool) -> list[Block]:
    """The Python of all pages: examples that show what comes out, or programs."""
    return [
        block
        for page in PAGES
        for block in blocks(page)
        if block.language == "python" and (">>> " in block.text) == with_prompts
    ]


def commands() -> list[tuple[str, str]]:
    """(page, command) for each command of emotest or pytest in a page or a workflow."""
    return [(page.name, command) for page in PAGES for command in _in_page(page)]


def _in_page(page: Path) -> Iterator[str]:
    fenced = blocks(page)
    for block in fenced:
        if block.language in ("", "bash"):
            yield from commands_in(block.text)
        elif block.language == "console":  # only what follows a prompt; the rest is output
            lines = (line for line in block.text.splitlines() if line.startswith("$ "))
            yield from commands_in("\n".join(lines))
    yield from commands_in("\n".join(_indented(page.read_text(encoding="utf-8"))))


def _indented(text: str) -> Iterator[str]:
    prose = _FENCE.sub("", text)
    return (line for line in prose.splitlines() if line.startswith("    "))


def commands_in(text: str) -> list[str]:
    """The commands of emotest and pytest among the lines of a shell."""
    whole = text.replace("\\\n", " ").splitlines()
    parts = "\n".join(part.strip() for line in whole for part in line.split("&&"))
    return [found[1] for found in _COMMAND.finditer(parts)]


def messages() -> set[str]:
    """Every text in emotest's code, with `…` for each value that is filled in."""
    found: set[str] = set()
    for path in (ROOT / "emotest").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr | ast.Constant):
                found.add(re.sub(f"{ANYTHING}+", ANYTHING, _told(node)))
    return found


def _told(node: ast.expr) -> str:
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=values):
            return "".join(_told(value) for value in values)
    return ANYTHING

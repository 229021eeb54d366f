"""The documentation site: `sphinx-build -W -n -b html docs build/site`. Needs no network.

Pages are Markdown (MyST) and stay readable on GitHub; the API reference comes from docstrings.
torch and its kin are mocked, so that no model library is loaded to read what a function says.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

project = "emotest"
author = "the emotest authors"
version = release = PYPROJECT["project"]["version"]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
napoleon_numpy_docstring = False
napoleon_use_rtype = False
exclude_patterns = ["workflows"]
nitpicky = True

# Anchors of headings down to the third level, as GitHub makes them: pages link to one another so.
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]

# Docstrings write `name` for code, as Markdown does.
default_role = "code"
autodoc_mock_imports = ["accelerate", "bitsandbytes", "peft", "torch", "transformers"]
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_preserve_defaults = True
add_module_names = False
python_use_unqualified_type_names = True
toc_object_entries_show_parents = "hide"

# No inventory of other projects is fetched (the site builds offline), so their names stay text.
nitpick_ignore_regex = [
    ("py:.*", r"(?!emotest\.).*"),
    ("py:.*", r"emotest\.(.*\.)?_\w+"),
    ("py:.*", r"emotest\.artefacts\..*"),  # requests between the wings, with no page of their own
    ("py:.*", r"emotest\.audit\.result\.Kind"),  # a type variable
]

html_theme = "furo"
html_title = "emotest"
html_show_sphinx = False
html_show_copyright = False
html_theme_options = {
    "source_repository": "",
    "light_css_variables": {"color-brand-primary": "#0b5cad", "color-brand-content": "#0b5cad"},
    "dark_css_variables": {"color-brand-primary": "#7fb8f5", "color-brand-content": "#7fb8f5"},
}

_BACKSLASHED = re.compile(r"(?<![`:\w])`([^`\n]*\\[^`\n]*)`(?![`_])")
_ITEM = re.compile(r"(- |\* |\d+\. )")


def as_restructured_text(lines: list[str]) -> list[str]:
    """A docstring as reStructuredText reads it: our lists and code blocks are those of Markdown.

    A list begins behind an empty line, an indented block behind one is code, and a backslash in
    code stays one.
    """
    told: list[str] = []
    last = ""  # the last line at the margin
    in_code = False
    for line in lines:
        indented = line.startswith("    ")
        behind_blank = not told or not told[-1].strip()
        if line and not line.startswith(" "):
            if _ITEM.match(line) and not _ITEM.match(last) and not behind_blank:
                told.append("")
            last, in_code = line, False
        elif indented and behind_blank and not in_code:
            if not _ITEM.match(last) and not last.startswith((".. ", ">>>")):
                told += ["::", ""]
            in_code = True
        told.append(line if in_code else _BACKSLASHED.sub(r"``\1``", line))
    return told


def _process(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    lines[:] = as_restructured_text(lines)


def setup(app: Any) -> None:
    """Before napoleon, which reads `Args:` and `Raises:` and stands at 500."""
    app.connect("autodoc-process-docstring", _process, priority=400)

"""Pages for people, each one HTML file that asks nothing of the outside world.

The name of a template and its values in, text out. Two walls keep what strangers wrote from
acting: a template shows every value through `visible` and escapes it, and the page's own policy
(Content-Security-Policy) allows no request at all and no script but the one with the right hash.
All pages share a frame (`page.html.jinja`) and a look (`page.css`): light and dark, phone, print.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from emotest.report.visible import visible


def page(template: str, *, script: str = "", **values: Any) -> str:
    """The page that a template below this folder makes of the values.

    `script` names the only script that the page may run, a file below this folder. The text
    holds no lone surrogate, so it can be written as UTF-8.
    """
    code = _asset(script) if script else ""
    return (
        _environment()
        .get_template(template)
        .render(
            style=Markup(_asset("page.css")), script=Markup(code), policy=_policy(code), **values
        )
    )


def _policy(script: str) -> str:
    allowed = "'none'"
    if script:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        allowed = f"'sha256-{digest}'"
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


@cache
def _environment() -> Environment:
    return Environment(
        loader=FunctionLoader(_asset),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )


def _shown(value: Any) -> Any:
    """What a template prints: text made visible, markup of this project's own as it is."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


@cache
def _asset(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8").replace("\r\n", "\n")

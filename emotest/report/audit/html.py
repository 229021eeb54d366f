"""The report of an audit as one HTML file that asks nothing of the outside world.

An `AuditResult` and its pairs in, text out. Two walls keep what strangers wrote from acting: the
template shows every value through `visible` and escapes it, and the page's own policy
(Content-Security-Policy) allows no request at all and no script but the one with the right hash.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from emotest.audit.result import AuditResult, Pair
from emotest.report.audit import inside, wording
from emotest.report.audit.browse import browser_data
from emotest.report.audit.plots import inside_plots, plots
from emotest.report.visible import visible


def html_report(result: AuditResult, pairs: Sequence[Pair]) -> str:
    """The whole page: verdict, what changed, plots, paired answers, provenance.

    The text holds no lone surrogate, so it can be written as UTF-8. It works without JavaScript
    but for the browser of answers, which then points to `pairs.jsonl`.
    """
    script = _asset("report.js")
    return _template().render(
        result=result,
        verdict=result.verdict,
        wording=wording,
        groups=wording.overall(result),
        registers=wording.by_register(result),
        plots=[(plot, Markup(plot.svg)) for plot in plots(result)],
        inside_plots=[(plot, Markup(plot.svg)) for plot in inside_plots(result)],
        within=inside,
        n_pairs=len(pairs),
        data=Markup(browser_data(pairs)),
        script=Markup(script),
        style=Markup(_asset("report.css")),
        policy=_policy(script),
    )


def _policy(script: str) -> str:
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


@cache
def _template() -> Template:
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    return environment.from_string(_asset("report.html.jinja"))


def _shown(value: Any) -> Any:
    """What the template prints: text made visible, markup of this project's own as it is."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


@cache
def _asset(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8").replace("\r\n", "\n")

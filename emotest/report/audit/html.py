"""The report of an audit as one HTML file that asks nothing of the outside world.

An `AuditResult` and its pairs in, text out; `emotest.report.page` keeps what strangers wrote from
acting.
"""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from emotest.audit.result import AuditResult, Pair
from emotest.report.audit import inside, places, wording
from emotest.report.audit.browse import browser_data
from emotest.report.audit.plots import inside_plots, plots
from emotest.report.page import page


def html_report(result: AuditResult, pairs: Sequence[Pair]) -> str:
    """The whole page: verdict, what changed, plots, paired answers, provenance.

    The text holds no lone surrogate, so it can be written as UTF-8. It works without JavaScript
    but for the browser of answers, which then points to `pairs.jsonl`.
    """
    return page(
        "audit/report.html.jinja",
        script="audit/report.js",
        result=result,
        verdict=result.verdict,
        wording=wording,
        groups=wording.overall(result),
        registers=wording.register_tables(result),
        plots=[(plot, Markup(plot.svg)) for plot in plots(result)],
        inside_plots=[(plot, Markup(plot.svg)) for plot in inside_plots(result)],
        within=inside,
        places=places,
        n_pairs=len(pairs),
        data=Markup(browser_data(pairs)),
    )

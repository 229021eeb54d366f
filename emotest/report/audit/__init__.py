"""The report of an audit: one HTML file, Markdown, the terminal; an `AuditResult` and pairs in.

`wording` says numbers and facts as people read them, the same in every view; `plots` draws;
`html` (with `report.html.jinja` and `report.js`), `markdown` and `terminal` are the
views; `folder` writes them all and reads the result back. No model, no statistics: what stands in
a report stands in the result.
"""

from __future__ import annotations

from emotest.report.audit.folder import load_audit, write_audit
from emotest.report.audit.html import html_report
from emotest.report.audit.markdown import markdown_report
from emotest.report.audit.terminal import summary_text

__all__ = ["html_report", "load_audit", "markdown_report", "summary_text", "write_audit"]

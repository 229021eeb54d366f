"""The report of an audit: one HTML file, Markdown, the terminal; an `AuditResult` and pairs in.

`wording` says numbers and facts as people read them, the same in every view; `plots` draws;
`html` (with `report.html.jinja`, `report.css` and `report.js`), `markdown` and `terminal` are the
views; `folder` writes them all and reads the result back. No model, no statistics: what stands in
a report stands in the result.
"""

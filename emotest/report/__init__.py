"""Reports: verdicts in; a run folder, Markdown and terminal tables out. No model, no torch.

`run` is what a run found, as plain values; `recorder` writes it to a folder while it happens;
`findings` orders verdicts and draws the conclusions that stand at the top; `markdown` and
`terminal` show it; `visible` makes model text safe to show; `expected` holds a verdict against
what has to come out; `progress` shows the work while it goes on.
"""

"""Statistics: plain arrays in, frozen values out; knows no text, no record, no model.

Read in this order: `proportions` and `limits` (confidence limits as functions of alpha),
`estimates` (adapters crossed with prompts), `variance` (between traits and seeds), `resampling`
(what stands beside), `power` (what would have been needed), `decisions` (three verdicts), and,
for an audit that stops early, `betting` and `sequential`. The word of an audit is found in `drift`
(with `pairs` where the number of prompts is fixed), and what it can see in `audit_power`. The
claims about what models name and what happens inside them have rooms of their own: `association`,
`selection`, `set_distance`, `matching`, `projection`.
"""

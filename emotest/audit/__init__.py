"""The audit of one checkpoint: base against tuned, for models of anybody, with nothing trained.

Takes two subjects and a set of prompts; gives a verdict that speaks of these checkpoints only.
Knows neither how a report looks nor how a model answers.
"""

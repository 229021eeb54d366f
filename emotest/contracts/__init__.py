"""Contracts: what a model never does, tried on drawn prompts and shrunk to the plainest violation.

`drawing` draws prompts, `rewording` asks them in other words, `models` answers, `stating` is the
decorator, `showing` writes down a violation. Hypothesis is imported when a contract is stated.
"""

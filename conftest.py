"""Registers the study's own fixtures, and nothing else."""

pytest_plugins = [
    "fixtures.run",
    "fixtures.answers",
    "fixtures.probabilities",
    "fixtures.trait_tokens",
    "fixtures.neurons",
    "fixtures.scorer",
    "fixtures.prefixes",
    "fixtures.routes",
    "fixtures.directions",
    "fixtures.localization",
    "fixtures.latent_origin",
    "fixtures.shown",
]

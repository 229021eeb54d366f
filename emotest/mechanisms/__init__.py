"""The mechanisms wing: what happens inside a model, and what depends on it."""

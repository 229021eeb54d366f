"""The study in plain values: traits, arms, recipes, records, questions, claims."""

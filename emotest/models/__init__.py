"""The models wing: the only one that knows torch. Importing the package imports nothing."""

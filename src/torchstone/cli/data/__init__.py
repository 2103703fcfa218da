"""Versions of a data set: split one, tell what changed between two."""

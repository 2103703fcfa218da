"""Profilers: one file a runtime. They run a model and say which operator took how long, and what it had to do."""

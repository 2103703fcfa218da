"""A bundle over HTTP: batching, limits, hot reload, several workers. Nothing in here imports torch."""

"""A candidate beside the stable model: what share of the requests it sees, what is watched, and what is decided."""

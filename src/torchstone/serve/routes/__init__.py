"""One file a protocol: ``endpoints(deployment)`` says what it answers."""

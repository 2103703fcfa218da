"""The server: a bundle answers over HTTP, is observed, and is replaced by what proves itself. No torch in here."""

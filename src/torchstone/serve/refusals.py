"""Why an image is not answered: what the service raises, and every protocol puts into its own words."""

from __future__ import annotations

from torchstone.core.errors import TorchstoneError

CODES: dict[str, int] = {
    "malformed": 400,
    "unauthorised": 401,
    "unknown": 404,
    "method": 405,
    "slow": 408,
    "too_large": 413,
    "media_type": 415,
    "unusable": 422,
    "full": 429,
    "failed": 500,
    "stopping": 503,
    "late": 504,
}
"""Code: the HTTP status it becomes."""


class Refusal(TorchstoneError):  # noqa: N818 - not all of them are the server's errors
    """A request that is not answered, by a code of ``CODES``: it is the client's to mend or to try again, never a
    reason to stop. ``retry_after`` is seconds after which trying again makes sense."""

    def __init__(self, code: str, message: str, *, hint: str | None = None, retry_after: int | None = None) -> None:
        super().__init__(message, hint=hint)
        self.code = code
        self.retry_after = retry_after

    @property
    def status(self) -> int:
        return CODES[self.code]

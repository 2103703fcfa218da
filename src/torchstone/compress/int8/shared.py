"""What the makers of INT8 models have in common, whichever runtime they are for."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

from torchstone.core import machine

CHUNK = 8
"""Images whose activations are in memory together."""


def needs_reduced_range() -> bool:
    """Whether this CPU multiplies bytes in a way that saturates where weights use all of their 8 bits."""
    flags = machine.cpu_flags()
    return "avx2" in flags and not {"avx512_vnni", "avx_vnni", "amx_int8"} & flags


@contextmanager
def quiet() -> Iterator[None]:
    """Without the advice that a quantiser logs about models it has just prepared itself, and what it prints."""
    level = logging.root.level
    logging.root.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.root.setLevel(level)

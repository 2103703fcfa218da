"""What all tests share."""

from __future__ import annotations

import hypothesis
from lenet5_artifacts import candidates, encoded, lenet5, pixels

__all__ = ["candidates", "encoded", "lenet5", "pixels"]

# A loaded machine is slow, not wrong: an example that takes long must not fail the property it shows.
hypothesis.settings.register_profile("torchstone", deadline=None)
hypothesis.settings.load_profile("torchstone")

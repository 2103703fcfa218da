"""Nothing that torchstone imports reports home."""

from __future__ import annotations

import os
import sys
from typing import Any, cast


def no_telemetry() -> None:
    """Switch off what sends usage data unasked, before it is imported. The registry calls this for every plug-in.

    ONNX Runtime ≥ 1.29 creates a device id in the home directory when it is imported, and its official builds send
    each session's model name and hashes to Microsoft (its Privacy.md names this variable). Importing openvino sends an
    event to Google Analytics and leaves files in the home directory; openvino and nncf both carry on without the
    package that does it. MLflow ≥ 3.2 sends which of its functions are called; Weights & Biases sends its own crashes
    and timings, in offline mode, too.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    if "openvino_telemetry" not in sys.modules:
        sys.modules["openvino_telemetry"] = cast(Any, None)  # importing it now raises ImportError

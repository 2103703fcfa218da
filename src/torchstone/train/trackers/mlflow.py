"""MLflow: the server that MLFLOW_TRACKING_URI names, or a SQLite file in the folder of trackers, to be looked at with
``mlflow server --backend-store-uri sqlite:///runs/tracking/mlflow.db``."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import filelock

from torchstone.core.contracts import Track, TrackedTraining

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

METRICS, PARAMETERS = 1000, 100
"""What MLflow takes at once."""


class Mlflow:
    """A run in MLflow's store: parameters, metrics and pictures. MLflow's own folders of files are given up (it
    refuses them since 3.13), so that the local store is SQLite."""

    requires: ClassVar[tuple[str, ...]] = ("mlflow", "sqlalchemy", "alembic")

    def open(self, training: TrackedTraining) -> Track:
        return _Run(training)


class _Run(Track):
    def __init__(self, training: TrackedTraining) -> None:
        import logging

        from mlflow.tracking import MlflowClient

        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        local = f"sqlite:///{training.home / 'mlflow.db'}"
        self.where = f"the server at {uri}" if uri else f"mlflow server --backend-store-uri {shlex.quote(local)}"
        # Two trainings that begin at once would both make the tables.
        with filelock.FileLock(training.home / ".mlflow.lock"):
            self._client: Any = MlflowClient(tracking_uri=uri or local)
            experiment = self._experiment(training, local=not uri)
        if training.known_as:
            self.id = training.known_as
            self._client.update_run(self.id, status="RUNNING")
        else:
            self.id = self._client.create_run(experiment, run_name=training.name).info.run_id
            self._say_options(training.options)

    def scalars(self, rows: Sequence[tuple[int, Mapping[str, float]]]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, step) for step, values in rows for name, value in values.items()]
        for start in range(0, len(metrics), METRICS):
            self._client.log_batch(self.id, metrics=metrics[start : start + METRICS])

    def pictures(self, step: int, name: str, pictures: NDArray[np.uint8], captions: Sequence[str]) -> None:
        for at, one in enumerate(pictures):
            self._client.log_image(self.id, one, artifact_file=f"{name}/{at:02}.png")
        text = "\n".join(f"{at:02}.png: {line}" for at, line in enumerate(captions))
        self._client.log_text(self.id, text, artifact_file=f"{name}/captions.txt")

    def close(self, outcome: Mapping[str, float], *, finished: bool) -> None:
        self.scalars([(0, {f"outcome/{name}": value for name, value in outcome.items()})])
        self._client.set_terminated(self.id, "FINISHED" if finished else "KILLED")

    def _experiment(self, training: TrackedTraining, *, local: bool) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", training.project)
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return found.experiment_id
        place = (training.home / "mlflow-artifacts").resolve().as_uri() if local else None
        return self._client.create_experiment(name, artifact_location=place)

    def _say_options(self, options: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        parameters = [Param(name, str(value)) for name, value in options.items()]
        for start in range(0, len(parameters), PARAMETERS):
            self._client.log_batch(self.id, params=parameters[start : start + PARAMETERS])

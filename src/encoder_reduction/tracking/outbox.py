"""What a run says to the tracking server, kept on disk in order until it has arrived.

A server that does not answer, or has too much to do, stops nobody: the run goes on, asks again after a while, and
what has not arrived when it ends is delivered by :func:`encoder_reduction.tracking.opening.settle`.
"""

import json
import logging
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Metric, Param, RunTag
from mlflow.models import Model

from .logged_models import logged_models
from .patience import FIRST_PAUSE, LONGEST_PAUSE, about, artifact_seconds, impatient, is_unreachable
from .run_folder import STORE_FILE, RunFolder

_LOGGER = logging.getLogger(__name__)

_SERVED_MODEL = Path(__file__).with_name("served_model.py")
_MODEL_REQUIREMENTS = ("mlflow", "torch", "transformers", "pandas")
_BATCH = 500


class Outbox:
    """The messages of one run, delivered in the order in which they were put.

    Attributes:
        waiting: gives the messages that have not arrived.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._run_id, self._folder, self.waiting = folder.run_id, folder.outbox, folder.messages
        self._folder.mkdir(exist_ok=True)
        (folder.path / STORE_FILE).write_text(mlflow.get_tracking_uri())
        waiting = self.waiting()
        self._count = int(waiting[-1].name) if waiting else 0
        self._pause, self._next_try = FIRST_PAUSE, 0.0

    def batch(
        self,
        metrics: Sequence[Metric] = (),
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, Any] | None = None,
    ) -> None:
        """Put metrics, parameters and tags."""
        points = [[metric.key, metric.value, metric.timestamp, metric.step] for metric in metrics]
        texts = {"params": _texts(params), "tags": _texts(tags)}
        for start in range(0, max(len(points), 1), _BATCH):
            self._put({"kind": "batch", "metrics": points[start : start + _BATCH], **texts})
            texts = {"params": {}, "tags": {}}

    def file(self, name: str, content: bytes) -> None:
        """Put an artifact."""
        self._put({"kind": "file", "name": name}, lambda folder: (folder / Path(name).name).write_bytes(content))

    def model(self, save: Callable[[Path], None]) -> Path:
        """Put a Hugging Face folder, which ``save`` writes, to be logged as the run's model; where it is until then."""
        return self._put({"kind": "model"}, lambda folder: _into(folder / "huggingface", save)) / "huggingface"

    def status(self, status: str) -> None:
        """Put the end of the run."""
        self._put({"kind": "status", "status": status, "time": int(time.time() * 1000)})

    def deliver(self) -> bool:
        """Send what waits, unless the server has just not answered; whether all has arrived.

        Raises:
            mlflow.exceptions.MlflowException: the server answers and refuses a message, which is dropped.
        """
        return time.monotonic() >= self._next_try and self._deliver()

    def deliver_all(self, patience: float) -> bool:
        """Send what waits, asking again and again for so many seconds; whether all has arrived."""
        until = time.monotonic() + patience
        while not self._deliver():
            if self._next_try > until:
                return False
            time.sleep(max(0.0, self._next_try - time.monotonic()))
        return True

    def _deliver(self) -> bool:
        for message in self.waiting():
            try:
                _send(self._run_id, message)
            except Exception as error:
                if not is_unreachable(error):
                    shutil.rmtree(message)
                    raise
                if self._pause == FIRST_PAUSE:
                    _LOGGER.warning("%s does not answer; what is logged waits on disk.", mlflow.get_tracking_uri())
                self._next_try = time.monotonic() + about(self._pause)
                self._pause = min(2 * self._pause, LONGEST_PAUSE)
                return False
            shutil.rmtree(message)
        self._pause, self._next_try = FIRST_PAUSE, 0.0
        return True

    def _put(self, message: dict[str, Any], add_files: Callable[[Path], Any] = lambda folder: None) -> Path:
        """Renamed into place, so that a message that is there is whole."""
        self._count += 1
        partial = self._folder / f"{self._count:08}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        add_files(partial)
        (partial / "message.json").write_text(json.dumps(message))
        return partial.rename(partial.with_suffix(""))


def _into(folder: Path, save: Callable[[Path], None]) -> None:
    folder.mkdir()
    save(folder)


def _texts(values: Mapping[str, Any] | None) -> dict[str, str]:
    return {key: str(value) for key, value in (values or {}).items()}


def _send(run_id: str, folder: Path) -> None:
    message = json.loads((folder / "message.json").read_text())
    client = mlflow.MlflowClient()
    with impatient():
        match message["kind"]:
            case "batch":
                client.log_batch(
                    run_id,
                    [Metric(*point) for point in message["metrics"]],
                    [Param(*param) for param in message["params"].items()],
                    [RunTag(*tag) for tag in message["tags"].items()],
                )
            case "status":
                client.set_terminated(run_id, message["status"], message["time"])
            case _:
                client.get_run(run_id)  # A server that is away is not waited for as long as a slow link is.
    with impatient(artifact_seconds()):
        match message["kind"]:
            case "file":
                parent, _, name = message["name"].rpartition("/")
                client.log_artifact(run_id, str(folder / name), parent or None)
            case "model":
                _log_model(client, run_id, folder / "huggingface")


def _log_model(client: mlflow.MlflowClient, run_id: str, folder: Path) -> None:
    """Log the folder so that pyfunc serves it and plain ``from_pretrained`` loads it.

    What is there of this run already is replaced: half a model, or that of a process which was killed later on.
    """
    for model in logged_models(run_id):
        client.delete_logged_model(model.model_id)
    Model.log(
        None,
        mlflow.pyfunc,
        run_id=run_id,
        name="model",
        python_model=str(_SERVED_MODEL),
        artifacts={"huggingface": str(folder)},
        pip_requirements=[f"{package}=={version(package)}" for package in _MODEL_REQUIREMENTS],
    )

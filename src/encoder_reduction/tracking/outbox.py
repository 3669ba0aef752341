"""What a run says to the tracking server, kept on disk in order until it has arrived.

A server that does not answer, or has too much to do, stops nobody: the run goes on, asks again after a while, and
what has not arrived when it ends is delivered by :func:`encoder_reduction.tracking.opening.settle`.
"""

import json
import logging
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import LoggedModelInput, Metric, Param, RunTag

from .datasets import TESTING, DataSet
from .logged_models import Entry, latest_model, log_model
from .patience import FIRST_PAUSE, LONGEST_PAUSE, about, artifact_seconds, impatient, is_unreachable
from .run_folder import STORE_FILE, RunFolder

_LOGGER = logging.getLogger(__name__)

_BATCH = 500
# Beside the messages: the id of the run's model, once it has arrived.
_MODEL_FILE = "model"
# What messages had that an earlier version has left.
_UNNAMED = {"name": "model", "tags": {}, "params": {}}
_TRIES, _THERE_ALREADY = 5, ("UNIQUE constraint", "duplicate key", "Duplicate entry")


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
        of_model: bool = False,
    ) -> None:
        """Put metrics, parameters and tags.

        Args:
            metrics: of the run.
            params: of the run.
            tags: of the run.
            of_model: the metrics are of its model as well.
        """
        points = [
            [each.key, each.value, each.timestamp, each.step, each.dataset_name, each.dataset_digest]
            for each in metrics
        ]
        texts = {"params": _texts(params), "tags": _texts(tags)}
        for start in range(0, max(len(points), 1), _BATCH):
            metrics_here = {"metrics": points[start : start + _BATCH], "of_model": of_model}
            self._put({"kind": "batch", **metrics_here, **texts})
            texts = {"params": {}, "tags": {}}

    def inputs(self, data: Iterable[DataSet], built_on: Iterable[str]) -> None:
        """Put the data that the run uses, and the runs whose models it builds on."""
        self._put({"kind": "inputs", "data": [asdict(each) for each in data], "built_on": list(built_on)})

    def file(self, name: str, content: bytes) -> None:
        """Put an artifact."""
        self._put({"kind": "file", "name": name}, lambda folder: (folder / Path(name).name).write_bytes(content))

    def figures(self, name: str, values: Mapping[str, float]) -> None:
        """Put a figure of other runs and of their models, by run id."""
        self._put({"kind": "figures", "name": name, "values": dict(values), "time": int(time.time() * 1000)})

    def forget_model(self) -> None:
        """Forget the model that an earlier process has logged: another will be."""
        (self._folder / _MODEL_FILE).unlink(missing_ok=True)

    def model(self, entry: Entry, save: Callable[[Path], None]) -> Path:
        """Put a Hugging Face folder, which ``save`` writes, to be logged as the run's model; where it is until then."""
        message = {"kind": "model", "entry": asdict(entry)}
        return self._put(message, lambda folder: _into(folder / "huggingface", save)) / "huggingface"

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
                model_id = _own_model(folder.parent) if message.get("of_model") else None
                client.log_batch(
                    run_id,
                    [Metric(*point[:4], model_id, *point[4:6]) for point in message["metrics"]],
                    [Param(*param) for param in message["params"].items()],
                    [RunTag(*tag) for tag in message["tags"].items()],
                )
            case "inputs":
                _log_inputs(client, run_id, message)
            case "figures":
                for other, value in message["values"].items():
                    _log_figure(client, other, Metric(message["name"], value, message["time"], 0))
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
                model_id = log_model(run_id, folder / "huggingface", Entry(**message.get("entry", _UNNAMED)))
                (folder.parent / _MODEL_FILE).write_text(model_id)


def _own_model(outbox: Path) -> str | None:
    """The id of the run's model, once that has arrived; nobody is asked."""
    noted = outbox / _MODEL_FILE
    return noted.read_text() if noted.exists() else None


def _log_figure(client: mlflow.MlflowClient, run_id: str, measured: Metric) -> None:
    """Log a figure of a run and of its model, if it has one, on the data that it was scored on."""
    model, inputs = latest_model(run_id), client.get_run(run_id).inputs
    test = [each.dataset for each in inputs.dataset_inputs if any(tag.value == TESTING for tag in each.tags)]
    data = (test[0].name, test[0].digest) if test else (None, None)
    what = measured.key, measured.value, measured.timestamp, measured.step
    client.log_batch(run_id, [Metric(*what, model.model_id if model else None, *data)])


def _log_inputs(client: mlflow.MlflowClient, run_id: str, message: Mapping[str, Any]) -> None:
    """Log what a run uses.

    MLflow looks for a data set and then adds it: of runs that begin together, one may find it added in between.
    """
    data = [DataSet(**each).as_input() for each in message["data"]]
    found = [model for each in message["built_on"] if (model := latest_model(each))]
    models = [LoggedModelInput(model.model_id) for model in found]
    for _ in range(_TRIES - 1):
        try:
            return client.log_inputs(run_id, data, models)
        except mlflow.exceptions.MlflowException as error:
            if not any(words in str(error) for words in _THERE_ALREADY):
                raise
    client.log_inputs(run_id, data, models)

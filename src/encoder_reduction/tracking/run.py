"""An open MLflow run: all that a run of this project says of itself."""

import functools
import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from io import BytesIO
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import mlflow
import pandas as pd
from matplotlib.figure import Figure
from mlflow.entities import Metric
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .datasets import DataSet
from .destination import store_uri
from .logged_models import Entry
from .outbox import Outbox
from .patience import impatient, insist, is_unreachable
from .run_folder import RunFolder

T = TypeVar("T")

_LOGGER = logging.getLogger(__name__)

_SENDING_SECONDS = 10
# What the models of a study are told apart by.
_TAGS_OF_MODEL = (
    "stage", "model", "dim", "config", "preset", "checkpoint", "corpus", "seed", "start", "budget", "distill",
    "source_run",
)  # fmt: skip


class Run:
    """An open MLflow run: what the pipeline may say about itself.

    Attributes:
        run_id: MLflow's.
        experiment_id: MLflow's.
        tags: what it is tagged with.
        folder: what of it outlives this process.
        goes_on: whether it may go on from its checkpoints after it has ended.
    """

    def __init__(self, run_id: str, folder: RunFolder | None = None) -> None:
        found = mlflow.get_run(run_id)
        self.run_id, self.experiment_id, self.tags = run_id, found.info.experiment_id, dict(found.data.tags)
        self.folder = folder or RunFolder(run_id)
        if folder is None:
            self.folder.claim_or_refuse()
        self._params, self._data, self._model_name = dict(found.data.params), {}, "model"
        self._client = mlflow.MlflowClient()
        self._outbox = Outbox(self.folder)
        self._points: list[Metric] = []
        self._sent = time.time()
        self._logged_steps: dict[str, int] = {}
        self.goes_on = False

    def describe(
        self, name: str, tags: Mapping[str, Any], params: Mapping[str, Any], model_name: str = "model"
    ) -> None:
        """Give the run its name, tags and parameters, and the name of the model that it may log.

        ``mlflow run`` has logged what was given with ``-P`` already, as the text that was typed
        (``2e-5``); the value parsed from it (``2e-05``) would be refused as a change, and says no more.
        """
        new = {key: value for key, value in params.items() if key not in self._params}
        self._params |= new
        self._model_name = model_name
        self.tags |= tags
        self._outbox.batch(params=new, tags={"mlflow.runName": name, **tags})
        self._outbox.deliver()

    def tag(self, tags: Mapping[str, Any]) -> None:
        """Set tags."""
        self.tags |= tags
        self._outbox.batch(tags=tags)
        self._outbox.deliver()

    def note(self, text: str) -> None:
        """Say what a person should read first, as Markdown: the run's description."""
        self.tag({MLFLOW_RUN_NOTE: text})

    def inputs(self, data: Mapping[str, DataSet], built_on: Iterable[str]) -> None:
        """Say what the run uses.

        Args:
            data: its data, by split.
            built_on: runs whose models it starts or learns from.
        """
        self._data = dict(data)
        self._outbox.inputs(data.values(), built_on)
        self._outbox.deliver()

    def metrics(
        self,
        values: Mapping[str, float],
        split_of: Callable[[str], str | None] = lambda name: None,
        tags: Mapping[str, Any] = MappingProxyType({}),
        note: str = "",
    ) -> None:
        """Log the final figures of the run and of its model.

        Args:
            values: by name.
            split_of: the split whose data a figure is of, where there is one.
            tags: what else is known by now.
            note: what a person should read first.
        """
        now, points = int(time.time() * 1000), []
        for key, value in values.items():
            data = self._data.get(split_of(key))
            points.append(Metric(key, value, now, 0, None, *((data.name, data.digest) if data else ())))
        self._outbox.batch(points, tags={**tags, **({MLFLOW_RUN_NOTE: note} if note else {})}, of_model=True)
        self._outbox.deliver()

    def figures_of_others(self, name: str, values: Mapping[str, float]) -> None:
        """Log a figure of other runs and of their models, by run id, that this run has measured."""
        self._outbox.figures(name, values)
        self._outbox.deliver()

    def point(self, values: Mapping[str, float], step: int) -> None:
        """Log a point of a curve, once; points are sent together every few seconds, and when the run ends."""
        now = time.time()
        new = {key: value for key, value in values.items() if step > self._logged_steps.get(key, -1)}
        self._points += [Metric(key, value, int(now * 1000), step) for key, value in new.items()]
        if now - self._sent > _SENDING_SECONDS:
            self.send_points()

    def send_points(self) -> None:
        """Send the points that are waiting."""
        if self._points:
            self._outbox.batch(self._points)
        self._points, self._sent = [], time.time()
        self._outbox.deliver()

    def go_on_after(self, curves: Iterable[str]) -> None:
        """Go on with a run that was interrupted: of these curves, the steps that are logged are not logged again."""
        self._outbox.forget_model()
        for key in curves:
            history = insist(functools.partial(self._client.get_metric_history, self.run_id, key))
            self._logged_steps[key] = max((point.step for point in history), default=-1)
        if "error" in self.tags:
            self._client.delete_tag(self.run_id, "error")

    def table(self, frame: pd.DataFrame, file: str) -> None:
        """Store a table as a CSV artifact, which the MLflow UI shows as a table."""
        self.text(frame.to_csv(index=False), file)

    def text(self, text: str, file: str) -> None:
        """Store a text artifact."""
        self._file(file, text.encode())

    def figure(self, figure: Figure, name: str) -> None:
        """Store a picture, as PNG for the UI and as SVG for a paper."""
        for kind in ("png", "svg"):
            content = BytesIO()
            figure.savefig(content, format=kind, dpi=200)
            self._file(f"{name}.{kind}", content.getvalue())

    def json(self, values: Mapping[str, Any], file: str) -> None:
        """Store a dictionary as JSON."""
        self.text(json.dumps(dict(values), indent=2), file)

    def files(self, folder: Path, name: str) -> None:
        """Store the files of a folder as artifacts under this name."""
        for file in sorted(file for file in folder.rglob("*") if file.is_file()):
            self._file(f"{name}/{file.relative_to(folder).as_posix()}", file.read_bytes())

    def model(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        read_back: Callable[[Path], T] = lambda _: None,
    ) -> T:
        """Store the model so that pyfunc serves it and plain ``from_pretrained`` loads its folder.

        Returns:
            What ``read_back`` makes of the folder that is logged.
        """

        def save(folder: Path) -> None:
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)

        tags = {tag: str(self.tags[tag]) for tag in _TAGS_OF_MODEL if tag in self.tags}
        entry = Entry(self._model_name, tags, {key: str(value) for key, value in self._params.items()})
        result = read_back(self._outbox.model(entry, save))
        self._outbox.deliver()
        return result

    def end(self, status: str, patience: float) -> None:
        """End the run; what the server has not taken by then stays on disk for :func:`.opening.settle`."""
        self.send_points()
        arrived = self._outbox.deliver_all(patience) and self._closed(status)
        if not arrived:
            self._outbox.status(status)
            self._closed(status)
            _LOGGER.warning(
                "%s does not answer: run %s is complete, and %d of its messages wait in %s. Once the server is back:"
                " mlflow run . -e sync --env-manager local", store_uri(), self.run_id, len(self._outbox.waiting()),
                self.folder.outbox,
            )  # fmt: skip
        self.folder.release(keep=not arrived or self.goes_on)

    def _closed(self, status: str) -> bool:
        """End the run for MLflow; whether the server has heard of it."""
        try:
            with impatient():
                mlflow.end_run(status)
        except Exception as error:
            if not is_unreachable(error):
                raise
            return False
        return True

    def _file(self, name: str, content: bytes) -> None:
        self._outbox.file(name, content)
        self._outbox.deliver()

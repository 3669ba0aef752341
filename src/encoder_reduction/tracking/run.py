"""All that this project says to MLflow; store.py reads it back, outbox.py carries it, no other part imports mlflow."""

import functools
import json
import logging
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from filelock import FileLock
from matplotlib.figure import Figure
from mlflow.entities import LoggedModelStatus, Metric
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PROJECT_ENTRY_POINT
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from . import slurm
from .errors import UserError, explain, one_line
from .outbox import Outbox, impatient, insist, is_unreachable, patience
from .run_folder import RunFolder, all_folders

EXPERIMENT = "encoder-reduction"

_LOGGER = logging.getLogger(__name__)

_PATIENCE_WHEN_STOPPED = 5.0
_ASKING_SECONDS = 1.0
_HEALTH_TIMEOUT = 5
_SYSTEM_METRICS_SECONDS = 5
_SENDING_SECONDS = 10
_TAG_LENGTH = 5000
# By then every entry point has said what its run is, even where MLflow made an environment for it first.
_BEGINNING_SECONDS = 3600


class Run:
    """An open MLflow run: what the pipeline may say about itself.

    Attributes:
        run_id: MLflow's.
        experiment_id: MLflow's.
        tags: what it was tagged with when this process took it over.
        folder: what of it outlives this process.
        goes_on: whether it may go on from its checkpoints after it has ended.
    """

    def __init__(self, run_id: str, folder: RunFolder | None = None) -> None:
        found = mlflow.get_run(run_id)
        self.run_id, self.experiment_id, self.tags = run_id, found.info.experiment_id, dict(found.data.tags)
        self.folder = folder or RunFolder(run_id)
        if folder is None:
            self.folder.claim_or_refuse()
        self._known_params = set(found.data.params)
        self._client = mlflow.MlflowClient()
        self._outbox = Outbox(self.folder)
        self._points: list[Metric] = []
        self._sent = time.time()
        self._logged_steps: dict[str, int] = {}
        self.goes_on = False

    def describe(self, name: str, tags: Mapping[str, Any], params: Mapping[str, Any]) -> None:
        """Give the run its name, tags and parameters.

        ``mlflow run`` has logged what was given with ``-P`` already, as the text that was typed
        (``2e-5``); the value parsed from it (``2e-05``) would be refused as a change, and says no more.
        """
        new = {key: value for key, value in params.items() if key not in self._known_params}
        self._outbox.batch(params=new, tags={"mlflow.runName": name, **tags})
        self._outbox.deliver()

    def tag(self, tags: Mapping[str, Any]) -> None:
        """Set tags."""
        self._outbox.batch(tags=tags)
        self._outbox.deliver()

    def metrics(self, values: Mapping[str, float]) -> None:
        """Log the run's final figures."""
        now = int(time.time() * 1000)
        self._outbox.batch([Metric(key, value, now, 0) for key, value in values.items()])
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

    def model(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        """Store the model so that pyfunc serves it and plain ``from_pretrained`` loads its folder."""

        def save(folder: Path) -> None:
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)

        self._outbox.model(save)
        self._outbox.deliver()

    def end(self, status: str, patience: float) -> None:
        """End the run; what the server has not taken by then stays on disk for :func:`settle`."""
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


@contextmanager
def open_run(parent: str | None = None, experiment_id: str | None = None, run_id: str | None = None) -> Iterator[Run]:
    """The run that ``mlflow run`` opened for this process, or a new one.

    A failure marks the run FAILED, an interruption KILLED; the reason becomes its tag ``error``.

    Args:
        parent: run id of the study that the new run is part of.
        experiment_id: where a new run goes; :func:`current_experiment` by default.
        run_id: an interrupted run that goes on, instead of a new one.

    Raises:
        UserError: the tracking server does not answer or the store refuses.
    """
    check_store()
    mlflow.set_system_metrics_sampling_interval(_SYSTEM_METRICS_SECONDS)
    by_mlflow_run = os.environ.get("MLFLOW_RUN_ID")
    started = run_id or by_mlflow_run
    folder = RunFolder(started) if started else None
    if folder:
        folder.claim_or_refuse()
    try:
        if not started:
            experiment_id = experiment_id or current_experiment()
        options = {"experiment_id": experiment_id, "parent_run_id": parent, "log_system_metrics": True}
        active = insist(lambda: mlflow.start_run(run_id, **options))
        run = insist(lambda: Run(active.info.run_id, folder))
    except MlflowException as error:
        raise UserError(f"MLflow could not open a run at {store_uri()}: {one_line(error)}") from error
    try:
        if by_mlflow_run:
            slurm.note_run(run.run_id)
        run.tag(slurm.tags())
        yield run
    except BaseException as error:
        _fail(run, error)
        raise
    run.end("FINISHED", patience())


def _fail(run: Run, error: BaseException) -> None:
    # What a user must change will not go on from where it was; what was stopped or ran out of space will.
    run.goes_on = not isinstance(error, UserError)
    killed = isinstance(error, KeyboardInterrupt | SystemExit)
    reason = "stopped from outside" if killed else explain(error) or one_line(error) or type(error).__name__
    status, seconds = ("KILLED", _PATIENCE_WHEN_STOPPED) if killed else ("FAILED", patience())
    try:
        try:
            run.tag({"error": reason[:_TAG_LENGTH]})
            run.end(status, seconds)
        except OSError:  # The disk is full, and the outbox is on it.
            mlflow.set_tag("error", reason[:_TAG_LENGTH])
            mlflow.end_run(status)
            run.folder.release(keep=True)
    except MlflowException:
        pass  # The store is gone as well; the first error is the one to report.


def settle() -> list[str]:
    """See to what ended processes have left: deliver their messages, mark runs FAILED that could not say so.

    Returns:
        Ids of the runs whose messages have arrived.

    Raises:
        UserError: the server does not answer.
    """
    check_store()
    client, delivered = mlflow.MlflowClient(), []
    _end_what_never_began(client)
    for folder in all_folders():
        if not folder.belongs_to(store_uri()) or not folder.claim():
            continue
        outbox = Outbox(folder)
        waited = bool(outbox.waiting())
        try:
            arrived = outbox.deliver_all(patience())
            if arrived and client.get_run(folder.run_id).info.status == "RUNNING":
                outbox.batch(tags={"error": "The process of this run was killed."})
                outbox.status("FAILED")
                arrived = outbox.deliver_all(patience())
        except MlflowException as error:
            if is_unreachable(error):
                raise
            arrived = True  # The run is not in the store any more.
        folder.release(keep=not arrived or folder.checkpoints.is_dir())
        delivered += [folder.run_id] if waited and arrived else []
    return delivered


def _end_what_never_began(client: mlflow.MlflowClient) -> None:
    """Mark runs FAILED that ``mlflow run`` opened and whose entry point was killed before it took over."""
    before = int(1000 * (time.time() - _BEGINNING_SECONDS))
    states = f"attributes.status = 'RUNNING' and attributes.start_time < {before}"
    for run in client.search_runs([current_experiment()], states):
        if MLFLOW_PROJECT_ENTRY_POINT in run.data.tags and "stage" not in run.data.tags:
            client.set_tag(run.info.run_id, "error", "The process of this run was killed before it began.")
            client.set_terminated(run.info.run_id, "FAILED")


def check_store() -> None:
    """Fail in a sentence where the tracking server is dead, instead of after minutes of MLflow's retries.

    A new SQLite file is made by one process alone: six at once have left it broken.
    """
    uri = store_uri()
    if uri.startswith("sqlite:///"):
        file = Path(uri.removeprefix("sqlite:///"))
        if not file.exists() and file.parent.is_dir():
            with FileLock(file.with_name(f"{file.name}.lock")):
                mlflow.search_experiments(max_results=1)
    if not uri.startswith(("http://", "https://")):
        return
    until = time.monotonic() + patience()
    while (silence := _silence(uri)) is not None:
        if time.monotonic() > until:
            raise UserError(
                f"Tracking server {uri} does not answer ({silence}): start it, correct MLFLOW_TRACKING_URI, or unset"
                " that variable to use the local store."
            )
        time.sleep(_ASKING_SECONDS)


def _silence(uri: str) -> str | None:
    """Why a server does not answer; ``None`` if it does."""
    try:
        urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=_HEALTH_TIMEOUT).close()
    except urllib.error.HTTPError:
        return None  # It answers; what it refuses, it will say itself.
    except OSError as error:
        return str(getattr(error, "reason", error))
    return None


def current_experiment() -> str:
    """The id of the experiment that this process logs to.

    Inside ``mlflow run`` it is the one of the run that is open. Outside, it is the one that the
    environment names (MLFLOW_EXPERIMENT_NAME, MLFLOW_EXPERIMENT_ID), or the project's own.
    """
    check_store()
    if run_id := os.environ.get("MLFLOW_RUN_ID"):
        return mlflow.get_run(run_id).info.experiment_id
    if experiment_id := os.environ.get("MLFLOW_EXPERIMENT_ID"):
        return experiment_id
    return mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)).experiment_id


def experiment_named(name: str) -> str:
    """The id of an experiment.

    Raises:
        UserError: there is none of this name.
    """
    check_store()
    experiment = mlflow.get_experiment_by_name(name)
    if experiment is None:
        known = ", ".join(sorted(each.name for each in mlflow.search_experiments()))
        raise UserError(f"Experiment '{name}' is not in {mlflow.get_tracking_uri()}; there are: {known}.")
    return experiment.experiment_id


def store_uri() -> str:
    """Where runs are tracked."""
    return mlflow.get_tracking_uri()


def environment(experiment_id: str) -> dict[str, str]:
    """What the jobs of a study need to log where this process does, under the names of ``slurm/cluster.env``."""
    uri = store_uri()
    if uri.startswith("sqlite:///"):
        uri = f"sqlite:///{Path(uri.removeprefix('sqlite:///')).resolve()}"
    return {"MLFLOW_TRACKING_URI": uri, "EXPERIMENT": mlflow.get_experiment(experiment_id).name}


def use_store(uri: str) -> None:
    """Track runs there, as runs of their own: the process that started this one has its own run open."""
    os.environ.pop("MLFLOW_RUN_ID", None)
    mlflow.set_tracking_uri(uri)


def run_url(run_id: str, experiment_id: str) -> str | None:
    """The page of a run, where the tracking store has pages."""
    uri = mlflow.get_tracking_uri()
    web = uri.startswith(("http://", "https://"))
    return f"{uri.rstrip('/')}/#/experiments/{experiment_id}/runs/{run_id}" if web else None


def register_model(model: str, alias: str, run_id: str) -> str | None:
    """Point an alias of a model in the registry at what a run has logged; a run is registered once.

    Returns:
        The URI, such as ``models:/encoder-reduction-bert@best``; ``None`` if the run has no model.
    """
    client, name = mlflow.MlflowClient(), f"{EXPERIMENT}-{model}"
    run = client.get_run(run_id)
    logged = client.search_logged_models([run.info.experiment_id], f"source_run_id = '{run_id}'")
    ready = [model for model in logged if model.status == LoggedModelStatus.READY]
    if not ready:
        return None
    model_id = max(ready, key=lambda model: model.creation_timestamp).model_id
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    known = client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'")
    version = known[0] if known else client.create_model_version(name, f"models:/{model_id}", run_id, model_id=model_id)
    client.set_registered_model_alias(name, alias, version.version)
    return f"models:/{name}@{alias}"

"""Everything this project says to MLflow and asks of it; no other module imports mlflow."""

import gc
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mlflow
import pandas as pd
from matplotlib.figure import Figure
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .errors import UserError, explain

EXPERIMENT = "encoder-reduction"
RATIOS_FILE = "speed_ratios.csv"
PREDICTIONS_FILE = "test_predictions.csv"

_SERVED_MODEL = Path(__file__).with_name("served_model.py")
_MODEL_REQUIREMENTS = ("mlflow", "torch", "transformers", "pandas")
_HEALTH_TIMEOUT = 5
_SYSTEM_METRICS_SECONDS = 5
_SENDING_SECONDS = 10
_PAGE = 500
_TAG_LENGTH = 5000


class Run:
    """An open MLflow run: what the pipeline may say about itself."""

    def __init__(self, run_id: str, experiment_id: str) -> None:
        self.run_id = run_id
        self.experiment_id = experiment_id
        self._client = mlflow.MlflowClient()
        self._points: list[Metric] = []
        self._sent = time.time()

    def describe(self, name: str, tags: Mapping[str, Any], params: Mapping[str, Any]) -> None:
        """Give the run its name, tags and parameters.

        ``mlflow run`` has logged what was given with ``-P`` already, as the text that was typed
        (``2e-5``); the value parsed from it (``2e-05``) would be refused as a change, and says no more.
        """
        self.tag({"mlflow.runName": name, **tags})
        known = self._client.get_run(self.run_id).data.params
        mlflow.log_params({key: value for key, value in params.items() if key not in known})

    def tag(self, tags: Mapping[str, Any]) -> None:
        """Set tags."""
        mlflow.set_tags({key: str(value) for key, value in tags.items()})

    def metrics(self, values: Mapping[str, float]) -> None:
        """Log the run's final figures."""
        mlflow.log_metrics(dict(values))

    def point(self, values: Mapping[str, float], step: int) -> None:
        """Log a point of a curve; points are sent together every few seconds, and when the run ends."""
        now = time.time()
        self._points += [Metric(key, value, int(now * 1000), step) for key, value in values.items()]
        if now - self._sent > _SENDING_SECONDS:
            self.send_points()

    def send_points(self) -> None:
        """Send the points that are waiting."""
        for start in range(0, len(self._points), _PAGE):
            self._client.log_batch(self.run_id, self._points[start : start + _PAGE])
        self._points, self._sent = [], time.time()

    def table(self, frame: pd.DataFrame, file: str) -> None:
        """Store a table as a CSV artifact, which the MLflow UI shows as a table."""
        mlflow.log_text(frame.to_csv(index=False), file)

    def text(self, text: str, file: str) -> None:
        """Store a text artifact."""
        mlflow.log_text(text, file)

    def figure(self, figure: Figure, name: str) -> None:
        """Store a picture, as PNG for the UI and as SVG for a paper."""
        for kind in ("png", "svg"):
            mlflow.log_figure(figure, f"{name}.{kind}", save_kwargs={"dpi": 200})

    def json(self, values: Mapping[str, Any], file: str) -> None:
        """Store a dictionary as JSON."""
        mlflow.log_dict(dict(values), file)

    def model(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        """Store the model so that pyfunc serves it and plain ``from_pretrained`` loads its folder."""
        with TemporaryDirectory(prefix="encoder-reduction-") as folder:
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            mlflow.pyfunc.log_model(
                name="model",
                python_model=str(_SERVED_MODEL),
                artifacts={"huggingface": folder},
                pip_requirements=[f"{package}=={version(package)}" for package in _MODEL_REQUIREMENTS],
            )


@contextmanager
def open_run(parent: str | None = None, experiment_id: str | None = None) -> Iterator[Run]:
    """The run that ``mlflow run`` opened for this process, or a new one.

    A failure marks the run FAILED, an interruption KILLED; the reason becomes its tag ``error``.

    Args:
        parent: run id of the study that the new run is part of.
        experiment_id: where a new run goes; :func:`current_experiment` by default.

    Raises:
        UserError: the tracking server does not answer or the store refuses.
    """
    check_store()
    mlflow.set_system_metrics_sampling_interval(_SYSTEM_METRICS_SECONDS)
    try:
        if "MLFLOW_RUN_ID" not in os.environ:
            experiment_id = experiment_id or current_experiment()
        active = mlflow.start_run(experiment_id=experiment_id, parent_run_id=parent, log_system_metrics=True)
    except MlflowException as error:
        raise UserError(f"MLflow could not open a run at {mlflow.get_tracking_uri()}: {_sentence(error)}") from error
    run = Run(active.info.run_id, active.info.experiment_id)
    try:
        yield run
        run.send_points()
    except BaseException as error:
        _fail(run, error)
        raise
    mlflow.end_run("FINISHED")


def _fail(run: Run, error: BaseException) -> None:
    killed = isinstance(error, KeyboardInterrupt | SystemExit)
    try:
        run.send_points()
        run.tag({"error": (explain(error) or _sentence(error) or type(error).__name__)[:_TAG_LENGTH]})
        mlflow.end_run("KILLED" if killed else "FAILED")
    except MlflowException:
        pass  # The store is gone as well; the first error is the one to report.


def check_store() -> None:
    """Fail at once where the tracking server is dead, instead of after minutes of retries."""
    uri = mlflow.get_tracking_uri()
    if not uri.startswith(("http://", "https://")):
        return
    try:
        urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=_HEALTH_TIMEOUT).close()
    except urllib.error.HTTPError:
        return  # It answers; what it refuses, it will say itself.
    except OSError as error:
        raise UserError(
            f"Tracking server {uri} does not answer ({getattr(error, 'reason', error)}): start it, correct"
            " MLFLOW_TRACKING_URI, or unset that variable to use the local store."
        ) from error


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


def use_store(uri: str) -> None:
    """Track runs there, as runs of their own: the process that started this one has its own run open."""
    os.environ.pop("MLFLOW_RUN_ID", None)
    mlflow.set_tracking_uri(uri)


def fail_unfinished(study: Run) -> None:
    """Mark the runs of a study FAILED whose process was killed before it could do so itself."""
    client = mlflow.MlflowClient()
    unfinished = f"tags.`mlflow.parentRunId` = '{study.run_id}' and attributes.status = 'RUNNING'"
    for run in client.search_runs([study.experiment_id], unfinished):
        client.set_tag(run.info.run_id, "error", "The process of this run was killed.")
        client.set_terminated(run.info.run_id, "FAILED")


def finished_runs(experiment_id: str, **tags: str) -> pd.DataFrame:
    """Finished runs of an experiment with the given tags, latest first.

    Raises:
        UserError: a tag's value cannot be searched for.

    Returns:
        One row a run: ``run_id``, ``name``, ``start_time``, and its tags, params and metrics as columns of their
        own names (a metric's text, a tag's and a param's never clash here).
    """
    clauses = ["attributes.status = 'FINISHED'", *(f"tags.`{key}` = {_quoted(value)}" for key, value in tags.items())]
    client, token, rows = mlflow.MlflowClient(), None, []
    with _no_garbage_collection():
        while True:
            page = client.search_runs(
                [experiment_id],
                " and ".join(clauses),
                max_results=_PAGE,
                order_by=["start_time DESC"],
                page_token=token,
            )
            rows += [_row(run) for run in page]
            token = page.token
            if not token:
                return pd.DataFrame(rows, columns=None if rows else ["run_id", "name", "start_time"])


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Reading ten thousand runs makes millions of objects; looking for cycles in them takes twice as long as that."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def finished_run(run_id: str) -> dict[str, Any]:
    """One finished run, as a row of :func:`finished_runs`.

    Raises:
        UserError: there is no such run here, or it is not finished.
    """
    try:
        run = mlflow.get_run(run_id)
    except MlflowException as error:
        raise UserError(
            f"Run {run_id} is not in {mlflow.get_tracking_uri()}: copy its id from the MLflow UI, or name the"
            " tracking server that has it in MLFLOW_TRACKING_URI."
        ) from error
    if run.info.status != "FINISHED":
        raise UserError(f"Run {run_id} is {run.info.status}; give runs that are FINISHED.")
    return _row(run)


def speed_ratios(experiment_id: str, preset: str) -> pd.DataFrame:
    """The ratios of all finished paired measurements of a preset, latest first; empty where there are none."""
    ids = finished_runs(experiment_id, stage="profile", preset=preset)["run_id"]
    tables = []
    with TemporaryDirectory(prefix="encoder-reduction-") as folder:
        for run_id in ids:
            file = mlflow.artifacts.download_artifacts(f"runs:/{run_id}/{RATIOS_FILE}", dst_path=f"{folder}/{run_id}")
            tables.append(pd.read_csv(file))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def predictions_of(run_ids: Iterable[str]) -> dict[str, pd.DataFrame]:
    """The test predictions of each run that stored them."""
    tables = {}
    with TemporaryDirectory(prefix="encoder-reduction-") as folder:
        for run_id in run_ids:
            try:
                uri = f"runs:/{run_id}/{PREDICTIONS_FILE}"
                tables[run_id] = pd.read_csv(mlflow.artifacts.download_artifacts(uri, dst_path=f"{folder}/{run_id}"))
            except (MlflowException, OSError):
                continue  # Without them there is no test of this row; its figures stand all the same.
    return tables


def curves(run_ids: Iterable[str], metrics: Iterable[str]) -> pd.DataFrame:
    """The curves of some runs: ``run_id``, ``metric``, ``step``, ``value``, in order of steps."""
    client = mlflow.MlflowClient()
    points = [
        {"run_id": run_id, "metric": metric, "step": point.step, "value": point.value}
        for run_id in run_ids
        for metric in metrics
        for point in sorted(client.get_metric_history(run_id, metric), key=lambda point: point.step)
    ]
    return pd.DataFrame(points, columns=["run_id", "metric", "step", "value"])


def _row(run: Any) -> dict[str, Any]:
    return {
        "run_id": run.info.run_id,
        "name": run.info.run_name,
        "start_time": run.info.start_time,
        **{key: value for key, value in run.data.tags.items() if not key.startswith("mlflow.")},
        **{key: value for key, value in run.data.params.items() if key not in run.data.tags},
        **run.data.metrics,
    }


def without_controls(found: pd.DataFrame) -> pd.DataFrame:
    """Runs without controls from random weights and without distilled models, which are never mixed in."""
    for column, value in (("init", "random"), ("distilled", "true")):
        if column in found:
            found = found[found[column].ne(value)]
    return found


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
    outputs = client.get_run(run_id).outputs
    if not outputs or not outputs.model_outputs:
        return None
    model_id = outputs.model_outputs[0].model_id
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    known = client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'")
    version = known[0] if known else client.create_model_version(name, f"models:/{model_id}", run_id, model_id=model_id)
    client.set_registered_model_alias(name, alias, version.version)
    return f"models:/{name}@{alias}"


@contextmanager
def downloaded_model(run_id: str) -> Iterator[Path]:
    """The Hugging Face folder of the model that a run has logged.

    Raises:
        UserError: the run has no model, or its artifacts are gone.
    """
    with TemporaryDirectory(prefix="encoder-reduction-") as folder:
        try:
            path = Path(mlflow.artifacts.download_artifacts(f"runs:/{run_id}/model", dst_path=folder))
        except (MlflowException, OSError) as error:
            raise UserError(
                f"The model of run {run_id} cannot be downloaded ({_sentence(error)}); run it again with rerun=true."
            ) from error
        yield path / "artifacts" / _huggingface_folder(path)


def _huggingface_folder(path: Path) -> str:
    found = [folder.parent.name for folder in (path / "artifacts").glob("*/config.json")]
    if not found:
        raise UserError(f"The logged model at {path} has no Hugging Face folder.")
    return found[0]


def _quoted(value: str) -> str:
    """A string in MLflow's filters, which know no escape.

    Raises:
        UserError: it has quotes of both kinds.
    """
    mark = '"' if "'" in value else "'"
    if mark in value or "`" in value:
        raise UserError(f"The value {value} cannot be searched for: MLflow takes one kind of quotes in it at most.")
    return f"{mark}{value}{mark}"


def _sentence(error: BaseException) -> str:
    return " ".join(str(error).split())

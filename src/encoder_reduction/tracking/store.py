"""What is in the store: finished runs as tables, their curves, predictions and models."""

import functools
import gc
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException

from ..errors import UserError, one_line
from ..plan.runtimes import TORCH
from .logged_models import REMOVED, latest_model
from .patience import insist
from .run_folder import has_checkpoints

RATIOS_FILE = "speed_ratios.csv"
# Of a paired measurement in several runtimes: a row for each run and runtime.
RUNTIMES_FILE = "runtimes.csv"
PREDICTIONS_FILE = "test_predictions.csv"
VALIDATION_FILE = "validation_predictions.csv"
# The share of the whole network that is the least a run could come to, whose budget is below that.
OUT_OF_REACH = "out_of_reach"
# Of the network that a run with a budget has cut.
WHOLE_PREDICTIONS_FILE = "whole_predictions.csv"

_PAGE = 500


def finished_runs(experiment_id: str, **tags: str) -> pd.DataFrame:
    """Finished runs of an experiment with the given tags, latest first.

    Raises:
        UserError: a tag's value cannot be searched for.

    Returns:
        One row a run: ``run_id``, ``name``, ``start_time``, and its tags, params and metrics as columns of their
        own names (of one name, a tag comes before a param and that before a metric).
    """
    return _found(experiment_id, ["attributes.status = 'FINISHED'"], tags)


def all_runs(experiment_id: str, **tags: str) -> pd.DataFrame:
    """Runs of any status with the given tags, as :func:`finished_runs` returns them; ``status`` is a column."""
    return _found(experiment_id, [], tags)


def runs_out_of_reach(experiment_id: str, **tags: str) -> pd.DataFrame:
    """Runs whose budget nothing meets, latest first, as :func:`finished_runs` returns them."""
    return _found(experiment_id, [f"tags.{OUT_OF_REACH} != ''"], tags)


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


def unfinished_run(experiment_id: str, fingerprint: str) -> str | None:
    """The latest interrupted run of this fingerprint that training can go on from, if there is one."""
    clause = f"tags.fingerprint = {_quoted(fingerprint)} and attributes.status != 'FINISHED'"
    found = mlflow.MlflowClient().search_runs([experiment_id], clause, order_by=["start_time DESC"])
    return next((run.info.run_id for run in found if has_checkpoints(run.info.run_id)), None)


def tags_of(run_id: str) -> dict[str, str]:
    """The tags of a run."""
    return dict(mlflow.get_run(run_id).data.tags)


def speed_ratios(experiment_id: str, preset: str) -> pd.DataFrame:
    """PyTorch's ratios of all finished paired measurements of a preset, latest first; empty where there are none."""
    found = _tables(finished_runs(experiment_id, stage="profile", preset=preset)["run_id"], RATIOS_FILE)
    # Measurements made before there were other runtimes do not name it.
    return found[found["runtime"].fillna(TORCH).eq(TORCH)] if "runtime" in found else found


def runtimes(experiment_id: str, preset: str) -> pd.DataFrame:
    """The rows of all finished paired measurements of a preset in several runtimes, latest first.

    Returns:
        One row for each run and runtime, as :func:`encoder_reduction.runs.contenders.as_table` has it, with
        ``profile`` (the run that measured it); empty where there are none.
    """
    found = finished_runs(experiment_id, stage="profile", preset=preset)
    return _tables(found.loc[found["runtimes"].notna(), "run_id"] if "runtimes" in found else (), RUNTIMES_FILE)


def runtime_predictions_file(run_id: str, runtime: str) -> str:
    """Where a paired measurement keeps what a run's model predicts in a runtime, as :data:`PREDICTIONS_FILE`."""
    return f"predictions/{run_id}/{runtime}.csv"


def _tables(run_ids: Iterable[str], file: str) -> pd.DataFrame:
    """The same table of some runs, one below the other; ``profile`` is the run."""
    tables = []
    with TemporaryDirectory(prefix="encoder-reduction-") as folder:
        for run_id in run_ids:
            path = mlflow.artifacts.download_artifacts(f"runs:/{run_id}/{file}", dst_path=f"{folder}/{run_id}")
            tables.append(pd.read_csv(path).assign(profile=run_id))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def predictions_of(run_ids: Iterable[str], file: str = PREDICTIONS_FILE) -> dict[str, pd.DataFrame]:
    """The test predictions of each run that stored them, of its own network or of the one that was cut."""
    tables = {}
    with TemporaryDirectory(prefix="encoder-reduction-") as folder:
        for run_id in run_ids:
            try:
                uri = f"runs:/{run_id}/{file}"
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


@contextmanager
def downloaded_model(run_id: str) -> Iterator[Path]:
    """The Hugging Face folder of the model that a run has logged.

    Raises:
        UserError: the run has no model, it was removed, or its artifacts are gone.
    """
    with TemporaryDirectory(prefix="encoder-reduction-") as folder:
        try:
            if by := tags_of(run_id).get(REMOVED):
                raise UserError(f"The model of run {run_id} was removed by {by}; run it again with rerun=true.")
            if not (model := latest_model(run_id)):
                raise UserError(f"Run {run_id} has no model in the store; run it again with rerun=true.")
            path = Path(mlflow.artifacts.download_artifacts(f"models:/{model.model_id}", dst_path=folder))
        except (MlflowException, OSError) as error:
            raise UserError(
                f"The model of run {run_id} cannot be downloaded ({one_line(error)}); run it again with rerun=true."
            ) from error
        yield path / "artifacts" / _huggingface_folder(path)


def _huggingface_folder(path: Path) -> str:
    found = [folder.parent.name for folder in (path / "artifacts").glob("*/config.json")]
    if not found:
        raise UserError(f"The logged model at {path} has no Hugging Face folder.")
    return found[0]


def _found(experiment_id: str, clauses: list[str], tags: Mapping[str, str]) -> pd.DataFrame:
    clauses = [*clauses, *(f"tags.`{key}` = {_quoted(value)}" for key, value in tags.items())]
    client, token, rows = mlflow.MlflowClient(), None, []
    search = functools.partial(
        client.search_runs, [experiment_id], " and ".join(clauses), max_results=_PAGE, order_by=["start_time DESC"]
    )
    with _no_garbage_collection():
        while True:
            page = insist(functools.partial(search, page_token=token))
            rows += [_row(run) for run in page]
            token = page.token
            if not token:
                return pd.DataFrame(rows, columns=None if rows else ["run_id", "name", "start_time", "status"])


def _row(run: Any) -> dict[str, Any]:
    return {
        "run_id": run.info.run_id,
        "name": run.info.run_name,
        "start_time": run.info.start_time,
        "status": run.info.status,
        **{key: value for key, value in run.data.tags.items() if not key.startswith("mlflow.")},
        **{key: value for key, value in run.data.params.items() if key not in run.data.tags},
        # The curve of the learning rate is called as the setting.
        **{key: value for key, value in run.data.metrics.items() if key not in run.data.params},
    }


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Reading ten thousand runs makes millions of objects; looking for cycles in them takes twice as long as that."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _quoted(value: str) -> str:
    """A string in MLflow's filters, which know no escape.

    Raises:
        UserError: it has quotes of both kinds.
    """
    mark = '"' if "'" in value else "'"
    if mark in value or "`" in value:
        raise UserError(f"The value {value} cannot be searched for: MLflow takes one kind of quotes in it at most.")
    return f"{mark}{value}{mark}"

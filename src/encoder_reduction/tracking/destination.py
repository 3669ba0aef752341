"""Where runs are logged: the tracking store and the experiment."""

import os
import ssl
import time
from http import HTTPStatus
from pathlib import Path

import mlflow
from filelock import FileLock
from mlflow.exceptions import MlflowException
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request

from ..errors import UserError, one_line
from .patience import patience

EXPERIMENT = "encoder-reduction"
_ASKING_SECONDS = 1.0
_HEALTH_TIMEOUT = 5


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
    """Why a server does not answer; ``None`` if it does.

    Raises:
        UserError: it answers, and no patience will help: its certificate or our credentials are refused.
    """
    try:
        answer = http_request(
            get_default_host_creds(uri), "/health", "GET",
            max_retries=0, raise_on_status=False, timeout=_HEALTH_TIMEOUT,
        )  # fmt: skip
    except MlflowException as error:
        cause = _first_cause(error)
        if isinstance(cause, ssl.SSLCertVerificationError):
            raise UserError(
                f"The certificate of tracking server {uri} is refused ({cause.verify_message}): name the file of its"
                " authority in MLFLOW_TRACKING_SERVER_CERT_PATH, or set MLFLOW_TRACKING_INSECURE_TLS=true."
            ) from error
        return one_line(cause)
    if answer.status_code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        raise UserError(
            f"Tracking server {uri} refuses this client ({answer.status_code}): set MLFLOW_TRACKING_TOKEN, or"
            " MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, to what it knows."
        )
    away = answer.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR
    return f"{answer.status_code} {answer.reason}" if away else None


def _first_cause(error: BaseException) -> BaseException:
    return _first_cause(error.__context__) if error.__context__ else error


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

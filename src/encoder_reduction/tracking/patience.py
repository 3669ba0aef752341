"""How long a tracking server that does not answer, or has too much to do, is waited for."""

import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import mlflow
import requests
from mlflow.environment_variables import MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT
from mlflow.exceptions import MlflowException

PATIENCE_VARIABLE = "ENCODER_REDUCTION_PATIENCE"
_PATIENCE = 5.0
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
# A database that has more to do than it can, which MLflow's server calls a bad request of ours.
_OVERWHELMED = ("QueuePool limit", "database is locked", "InterfaceError")
# Within a delivery nobody waits for MLflow's own retries, which take minutes.
_RETRIES, _TIMEOUT = "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"
_MESSAGE_SECONDS, _ARTIFACT_SECONDS = 30, 600
Result = TypeVar("Result")


def is_unreachable(error: Exception) -> bool:
    """Whether the server is away, in trouble or overwhelmed, as opposed to refusing what it is sent."""
    if any(words in str(error) for words in _OVERWHELMED):
        return True
    if not mlflow.get_tracking_uri().startswith(("http://", "https://")):
        return False
    if isinstance(error, MlflowException):
        return error.get_http_status_code() >= 500
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return error.response.status_code >= 500
    return isinstance(error, requests.RequestException)


def patience() -> float:
    """How many seconds a run waits for a tracking server that does not answer."""
    return float(os.environ.get(PATIENCE_VARIABLE) or _PATIENCE)


def insist(action: Callable[[], Result]) -> Result:
    """What an action gives; while the server is unreachable it is asked again, for as long as :func:`patience`."""
    until, pause = time.monotonic() + patience(), FIRST_PAUSE
    while True:
        try:
            return action()
        except Exception as error:
            if not is_unreachable(error) or time.monotonic() > until:
                raise
        time.sleep(about(pause))
        pause = min(2 * pause, LONGEST_PAUSE)


def about(seconds: float) -> float:
    """So that those who were turned away together do not all come back together."""
    return seconds * random.uniform(0.5, 1)


def artifact_seconds() -> int:
    """How long a server may take to answer once it was sent a file, which on a slow link is still on its way.

    MLflow's variable for this reaches its cloud stores alone: through a tracking server files go as messages do.
    """
    return MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT.get() or _ARTIFACT_SECONDS


@contextmanager
def impatient(seconds: int | None = None) -> Iterator[None]:
    """Within the block MLflow gives up after so many seconds (30) and one retry on a server that does not answer."""
    before = {key: os.environ.get(key) for key in (_RETRIES, _TIMEOUT)}
    os.environ |= {_RETRIES: "1", _TIMEOUT: str(seconds or _MESSAGE_SECONDS)}
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value

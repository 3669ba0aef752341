"""How long a tracking server that does not answer, or has too much to do, is waited for."""

import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import mlflow
import requests
from mlflow.exceptions import MlflowException

PATIENCE_VARIABLE = "ENCODER_REDUCTION_PATIENCE"
_PATIENCE = 5.0
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
# A database that has more to do than it can, which MLflow's server calls a bad request of ours.
_OVERWHELMED = ("QueuePool limit", "database is locked", "InterfaceError")
# Within a delivery nobody waits for MLflow's own retries, which take minutes.
_IMPATIENT = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}
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


@contextmanager
def impatient() -> Iterator[None]:
    """Within the block MLflow gives up after seconds, instead of minutes, on a server that does not answer."""
    before = {key: os.environ.get(key) for key in _IMPATIENT}
    os.environ |= _IMPATIENT
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value

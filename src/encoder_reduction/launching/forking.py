"""Fresh processes, forked from a server that has the libraries already; it can import them while this process does."""

import multiprocessing
import os
import sys
from multiprocessing import forkserver
from pathlib import Path

# MLflow imports the last two when it first needs them: a store by its address, git for the commit of the code.
_BEFOREHAND = ["encoder_reduction.launching.beforehand", "mlflow.store.tracking.sqlalchemy_store", "git"]


def context() -> multiprocessing.context.BaseContext:
    """What processes are started with."""
    if sys.platform == "win32":
        return multiprocessing.get_context("spawn")
    # The fork server looks for what it imports beforehand on PYTHONPATH only (Python issue 117378).
    source, paths = str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")
    if source not in paths.split(os.pathsep):
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [source, paths]))
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(_BEFOREHAND)
    return found


def start_server() -> None:
    """Have the server import what it needs from now on, before this process imports the same."""
    if context().get_start_method() == "forkserver":
        forkserver.ensure_running()

"""Opening a run and ending it in order, and settling what ended processes have left."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PROJECT_ENTRY_POINT

from ..errors import UserError, explain, one_line
from . import job, pages
from .destination import check_store, current_experiment, store_uri
from .outbox import Outbox
from .patience import insist, is_unreachable, patience
from .run import Run
from .run_folder import RunFolder, all_folders

_PATIENCE_WHEN_STOPPED = 5.0
_SYSTEM_METRICS_SECONDS = 5
_TAG_LENGTH = 5000
# By then every entry point has said what its run is, even where MLflow made an environment for it first.
_BEGINNING_SECONDS = 3600


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
    try:
        folder = RunFolder(started) if started else None
    except OSError as error:
        _fail_at_once(started, error)
        raise
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
    except OSError as error:
        _fail_at_once(active.info.run_id, error)
        raise
    try:
        if by_mlflow_run:
            job.note_run(run.run_id)
        run.tag(job.tags())
        if parent is None:
            pages.arrange(run.experiment_id)
        yield run
    except BaseException as error:
        _fail(run, error)
        raise
    run.end("FINISHED", patience())


def _fail(run: Run, error: BaseException) -> None:
    # What a user must change will not go on from where it was; what was stopped or ran out of space will, and so
    # will what an earlier process has left, if this one was refused it.
    run.goes_on = not isinstance(error, UserError) or run.folder.had_checkpoints
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


def _fail_at_once(run_id: str, error: OSError) -> None:
    """Say of a run why it failed where nothing can be kept on disk."""
    client = mlflow.MlflowClient()
    client.set_tag(run_id, "error", (explain(error) or one_line(error))[:_TAG_LENGTH])
    mlflow.end_run("FAILED")
    client.set_terminated(run_id, "FAILED")


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
        folder.release(keep=not arrived or folder.has_checkpoints())
        delivered += [folder.run_id] if waited and arrived else []
    return delivered


def leftovers(clean: bool) -> list[str]:
    """A line for each run whose process has ended and left checkpoints or messages in the cache.

    Args:
        clean: remove them, unless messages wait; the runs then start anew.
    """
    lines = []
    for folder in all_folders():
        if not folder.claim():
            continue
        (megabytes, seconds), waiting = folder.size_and_age(), len(folder.messages())
        line = f"{folder.run_id}: {megabytes:,.0f} MB, {seconds / 3600:,.0f} hours old"
        if waiting:
            line += f", {waiting} messages wait for their tracking server"
        elif clean:
            line += ", removed"
        lines.append(line)
        folder.release(keep=not clean or bool(waiting))
    return lines


def _end_what_never_began(client: mlflow.MlflowClient) -> None:
    """Mark runs FAILED that ``mlflow run`` opened and whose entry point was killed before it took over."""
    before = int(1000 * (time.time() - _BEGINNING_SECONDS))
    states = f"attributes.status = 'RUNNING' and attributes.start_time < {before}"
    for run in client.search_runs([current_experiment()], states):
        if MLFLOW_PROJECT_ENTRY_POINT in run.data.tags and "stage" not in run.data.tags:
            client.set_tag(run.info.run_id, "error", "The process of this run was killed before it began.")
            client.set_terminated(run.info.run_id, "FAILED")

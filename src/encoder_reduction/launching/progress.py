"""How far a study is: done, running, queued, failed or not started, whichever way its runs were launched."""

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ..errors import UserError
from ..plan.sections import RunPlan
from ..plan.study import Study
from ..profiling.machine import device_name
from ..runs.sources import find_source
from ..tracking import fingerprints, store
from ..tracking.run_folder import has_checkpoints
from . import queue
from .pairing import runs_to_pair

LOGS = Path(__file__).resolve().parents[3] / "logs" / "slurm"
JOBS_FILE = "jobs.json"

DONE, RUNNING, QUEUED, FAILED, MISSING = "done", "running", "queued", "failed", "not started"
OUT_OF_REACH = "out of reach"


@dataclass(frozen=True)
class Progress:
    """Where one run of a study stands.

    Attributes:
        run: what it is.
        state: ``done``, ``running``, ``queued``, ``failed``, ``not started``, or ``out of reach`` of its dimension.
        detail: its accuracy, why it waits, why it failed, or how far its dimension goes.
        job: Slurm's number of it, empty outside of Slurm.
        log: the log of its job.
        run_id: its latest MLflow run, empty if there is none.
        goes_on: whether that run was interrupted and left a checkpoint from which it may go on.
    """

    run: str
    state: str
    detail: str = ""
    job: str = ""
    log: str = ""
    run_id: str = ""
    goes_on: bool = False


def of_study(study: Study, experiment_id: str) -> list[Progress]:
    """Every run of the study, in its order."""
    known = store.all_runs(experiment_id, preset=study.preset.name)
    jobs = submitted_jobs()
    # Nobody is asked where nothing was submitted: Slurm may be installed and not in use.
    waiting = queue.queue() if jobs or "slurm_job_id" in known else {}
    return [
        *(_of_run(plan, known, jobs, waiting, experiment_id) for plan in study.trainings()),
        *(_of_profile(study, plan, known, jobs, waiting, experiment_id) for plan in study.profiles()),
    ]


def as_table(rows: Iterable[Progress]) -> str:
    """The progress of a study for people: how many of each state, then each run."""
    frame = pd.DataFrame(rows)
    counts = ", ".join(f"{count} {state}" for state, count in frame["state"].value_counts(sort=False).items())
    return f"{counts}\n\n{frame.drop(columns=['run_id', 'goes_on']).to_string(index=False)}"


def profile_label(plan: RunPlan) -> str:
    """What a paired measurement is called."""
    return f"profile  {plan.model:<10}"


def submitted_jobs() -> dict[str, str]:
    """The latest Slurm job of each run of a study, by the run's label."""
    found: dict[str, str] = {}
    for file in sorted(LOGS.glob(f"study-*/{JOBS_FILE}"), key=lambda file: file.stat().st_mtime):
        found |= json.loads(file.read_text())
    return found


def _of_run(
    plan: RunPlan, known: pd.DataFrame, jobs: dict[str, str], waiting: dict[str, queue.Queued], experiment_id: str
) -> Progress:
    mine = _where(known, plan_fingerprint=fingerprints.of_configuration(plan), seed=str(plan.seed))
    same = _same_run(mine, plan, _source(experiment_id, plan))
    finished = _where(same, status="FINISHED")
    if not finished.empty:
        first = finished.iloc[0]
        return Progress(plan.label, DONE, f"accuracy {first['accuracy']:.3f}", run_id=first["run_id"])
    beyond = same[same[store.OUT_OF_REACH].notna()] if store.OUT_OF_REACH in same else same.iloc[:0]
    if not beyond.empty:
        first = beyond.iloc[0]
        return Progress(plan.label, OUT_OF_REACH, str(first.get("error", "")), run_id=first["run_id"])
    progress = _unfinished(plan.label, mine, jobs, waiting)
    goes_on = progress.state == FAILED and progress.run_id in set(same["run_id"]) and has_checkpoints(progress.run_id)
    return dataclasses.replace(progress, goes_on=goes_on)


def _same_run(mine: pd.DataFrame, plan: RunPlan, source: str | None) -> pd.DataFrame:
    """The runs that are the one that would be made now, by the whole fingerprint.

    What a job of Slurm has made counts on the device that it was made on: this may be a node without a GPU, where jobs
    are submitted.
    """
    if mine.empty:
        return mine
    here = device_name()
    devices = mine["device"].where(mine["slurm_job_id"].notna(), here) if "slurm_job_id" in mine else here
    expected = {device: fingerprints.of_plan(plan, source, device) for device in {here, *mine["device"].dropna()}}
    return mine[mine["fingerprint"].eq(pd.Series(devices, index=mine.index).map(expected))]


def _of_profile(
    study: Study,
    plan: RunPlan,
    known: pd.DataFrame,
    jobs: dict[str, str],
    waiting: dict[str, queue.Queued],
    experiment_id: str,
) -> Progress:
    mine = _where(known, stage="profile", model=plan.model)
    try:
        paired_now = ",".join(runs_to_pair(experiment_id, study, plan.model))
    except UserError:
        paired_now = ""
    finished = _where(_same_run(mine, plan, paired_now), status="FINISHED")
    if not finished.empty:
        return Progress(profile_label(plan), DONE, run_id=finished.iloc[0]["run_id"])
    return _unfinished(profile_label(plan), _where(mine, status="FINISHED", negate=True), jobs, waiting)


def _unfinished(label: str, mine: pd.DataFrame, jobs: dict[str, str], waiting: dict[str, queue.Queued]) -> Progress:
    """What is not done, by its latest run and the queue."""
    mine = _where(mine, status="FINISHED", negate=True)
    latest: dict[str, Any] = {} if mine.empty else mine.iloc[0].dropna().to_dict()
    number = jobs.get(label, latest.get("slurm_job_id", ""))
    job = waiting.get(number)
    log, run_id = latest.get("slurm_log", ""), latest.get("run_id", "")
    if job is None and latest.get("status") == "RUNNING":
        return Progress(label, RUNNING, "", latest.get("slurm_job_id", ""), log, run_id)
    if job is not None:
        active = job.state in ("RUNNING", "COMPLETING")
        return Progress(label, RUNNING if active else QUEUED, "" if active else job.reason, number, log, run_id)
    if latest:
        return Progress(label, FAILED, latest.get("error", "killed"), number, log, run_id)
    if number:
        return Progress(label, FAILED, "its job ended before MLflow heard of it", number, _log_of(number))
    return Progress(label, MISSING)


def _log_of(number: str) -> str:
    found = sorted(LOGS.glob(f"*-{number}.log"))
    return str(found[-1].relative_to(LOGS.parents[1])) if found else ""


def _source(experiment_id: str, plan: RunPlan) -> str | None:
    try:
        return find_source(experiment_id, plan)
    except UserError:
        return None


def _where(frame: pd.DataFrame, negate: bool = False, **values: str) -> pd.DataFrame:
    for column, value in values.items():
        if column not in frame:
            return frame if negate else frame.iloc[:0]
        matches = frame[column].eq(value)
        frame = frame[~matches if negate else matches]
    return frame

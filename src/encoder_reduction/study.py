"""The whole plan: every run in its own fresh process, finished ones skipped, then the comparison."""

import functools
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from . import comparison, fingerprints, paired, runs, tracking
from .errors import UserError, explain, leave_in_order_when_stopped
from .presets import DIMENSIONS, Preset, RunPlan

Say = Callable[[str], None]

_IMPORTED_BEFOREHAND = ["encoder_reduction.paired", "encoder_reduction.runs", "mlflow.store.tracking.sqlalchemy_store"]


@dataclass(frozen=True)
class Failure:
    """A run that did not finish, and why."""

    label: str
    reason: str


def run_study(preset: Preset, overrides: dict[str, object], seeds: Sequence[int], rerun: bool, say: Say) -> str:
    """Baselines, reductions, transfers of every model, dimension and seed, paired profiles, the comparison.

    A run that fails does not stop the others; the comparison says what is missing.

    Returns:
        The report, as Markdown.

    Raises:
        UserError: some runs failed. The report is in the study's MLflow run all the same.
    """
    settings = [{**overrides, "seed": seed} for seed in seeds]
    first = [
        preset.plan(stage, model, dim, values)
        for values in settings
        for model in preset.models
        for stage, dim in [("baseline", None), *(("reduce", dim) for dim in DIMENSIONS)]
    ]
    second = [
        plan
        for values in settings
        for model in preset.models
        for dim in ("none", "all")
        for plan in preset.transfers(model, dim, values)
    ]
    third = [preset.plan("baseline", model, overrides=settings[0]) for model in preset.models]
    with tracking.open_run() as run:
        run.describe(f"study/{preset.name}", {"stage": "study", "preset": preset.name}, {})
        launcher = Launcher(run, len(first) + len(second) + len(third), rerun, say)
        launcher.launch(first)
        launcher.launch(second)
        launcher.launch_profiles(preset, third)
        report = comparison.compare(preset, run)
        if launcher.failures:
            say(report)
            launcher.raise_failures()
    return report


def run_transfers(plans: Sequence[RunPlan], rerun: bool, say: Say) -> None:
    """Several transfers of one model, each in a run of its own under the one that is open.

    Raises:
        UserError: some runs failed.
    """
    with tracking.open_run() as run:
        run.describe(f"{plans[0].model}/transfer", {"stage": "transfers", "preset": plans[0].preset}, {})
        launcher = Launcher(run, len(plans), rerun, say)
        launcher.launch(plans)
        launcher.raise_failures()


class Launcher:
    """Carries out plans one after the other, each in a fresh process.

    Fresh, because memory is measured: a process that has trained before holds memory that the next
    run would not need. They are forked from a server that has imported the libraries and done nothing
    else, so each starts at once.
    """

    def __init__(self, study: tracking.Run, total: int, rerun: bool, say: Say) -> None:
        self.failures: list[Failure] = []
        self._study, self._total, self._rerun, self._say = study, total, rerun, say
        self._count = 0
        self._context = _process_context()

    def launch(self, plans: Sequence[RunPlan]) -> None:
        """Carry out plans in order; skip those whose finished run is in the store."""
        for plan in plans:
            what = f"{plan.stage:<8} {plan.model:<10} {plan.dim:<6} seed {plan.seed}"
            self._attempt(what, functools.partial(self._run_task, plan))

    def launch_profiles(self, preset: Preset, plans: Sequence[RunPlan]) -> None:
        """Measure the models of each plan's family in turn, unless that has been done for the same runs."""
        for plan in plans:
            self._attempt(f"profile  {plan.model:<10}", functools.partial(self._profile_task, preset, plan))

    def _run_task(self, plan: RunPlan) -> "_Task":
        source_run = runs.find_source(self._study.experiment_id, plan)
        return _Task(fingerprints.of_plan(plan, source_run), runs.execute, (plan, source_run))

    def _profile_task(self, preset: Preset, plan: RunPlan) -> "_Task":
        run_ids = paired.runs_to_pair(self._study.experiment_id, preset, plan.model)
        return _Task(fingerprints.of_plan(plan, ",".join(run_ids)), paired.execute, (plan, run_ids))

    def _attempt(self, what: str, prepare: Callable[[], "_Task"]) -> None:
        self._count += 1
        label = f"[{self._count:>2}/{self._total}] {what}"
        try:
            task = prepare()
            done = tracking.finished_runs(self._study.experiment_id, fingerprint=task.fingerprint)
            if not done.empty and not self._rerun:
                self._say(f"{label}  finished already, skipped (rerun=true repeats it)")
                return
            self._say(f"{label}  ...")
            started = time.monotonic()
            outcome = self._in_fresh_process(task)
            self._say(f"{label}  {outcome.headline}, {time.monotonic() - started:.0f} s")
        except Exception as error:
            reason = explain(error)
            if reason is None:
                raise
            self.failures.append(Failure(what, reason))
            self._say(f"{label}  FAILED: {reason}")

    def raise_failures(self) -> None:
        """Raise one error for the runs that failed, if any did."""
        if self.failures:
            failed = "; ".join(f"{failure.label}: {failure.reason}" for failure in self.failures)
            raise UserError(
                f"{len(self.failures)} of {self._total} runs failed ({failed})."
                " Start the same command again: what is finished is skipped."
            )

    def _in_fresh_process(self, task: "_Task") -> runs.Outcome | paired.Outcome:
        # The child waits for its task, so one that was being started when this process was told to
        # stop finds the pipe closed and leaves.
        ours, its = self._context.Pipe()
        process = self._context.Process(target=_execute, args=(its, tracking.store_uri()))
        try:
            process.start()
            its.close()
            ours.send((task, self._study.run_id, self._study.experiment_id))
            answer = ours.recv()
        except EOFError as error:
            tracking.fail_unfinished(self._study)
            raise UserError(
                "The process of this run was killed, most likely for want of memory: give a smaller batch_size,"
                " or start the study again, which continues here."
            ) from error
        except BaseException:
            if process.pid is not None:
                process.terminate()  # The run then ends in order, as KILLED.
            raise
        finally:
            ours.close()
            if process.pid is not None:
                process.join()
        if isinstance(answer, BaseException):
            raise answer
        return answer


@dataclass(frozen=True)
class _Task:
    """What one process does: a function, its arguments, and the digest that tells whether it is done."""

    fingerprint: str
    function: Callable[..., runs.Outcome | paired.Outcome]
    arguments: tuple[object, ...]


def _process_context() -> multiprocessing.context.BaseContext:
    if sys.platform == "win32":
        return multiprocessing.get_context("spawn")
    # The fork server looks for what it imports beforehand on PYTHONPATH only (Python issue 117378).
    paths = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_IMPORTED_BEFOREHAND)
    return context


def _execute(connection: Connection, store: str) -> None:
    leave_in_order_when_stopped()
    try:
        task, parent, experiment_id = connection.recv()
    except EOFError:
        return
    tracking.use_store(store)
    try:
        connection.send(task.function(*task.arguments, parent=parent, experiment_id=experiment_id))
    except Exception as error:
        sentence = explain(error)
        if sentence is None:
            traceback.print_exc()
            sentence = f"a bug, whose traceback stands above: {type(error).__name__}: {error}"
        connection.send(UserError(sentence))

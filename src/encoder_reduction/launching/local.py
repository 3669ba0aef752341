"""Runs on this machine: each in a fresh process, several side by side where asked, interrupted ones continued."""

import functools
import os
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from queue import SimpleQueue

import torch

from ..errors import OutOfReachError, UserError, explain, leave_in_order_when_stopped
from ..plan.sections import RunPlan
from ..plan.study import Study
from ..profiling.nvidia import visible_gpus
from ..runs import paired
from ..runs.run import Outcome, execute
from ..runs.sources import find_source
from ..tracking import destination, fingerprints, opening, store
from ..tracking.run import Run
from . import forking
from .pairing import runs_to_pair

Say = Callable[[str], None]


@dataclass(frozen=True)
class Failure:
    """A run that did not finish, and why."""

    label: str
    reason: str


@dataclass(frozen=True)
class _Task:
    """What one process does: a function, its arguments, and the digest that tells whether it is done."""

    fingerprint: str
    function: Callable[..., Outcome | paired.Outcome]
    arguments: tuple[object, ...]


@dataclass(frozen=True)
class _Share:
    """What one of several processes side by side has for itself; ``None``: all there is."""

    gpu: str | None = None
    threads: int | None = None


class Launcher:
    """Carries out plans, each in a fresh process, skipping those whose finished run is in the store.

    Fresh, because memory is measured: a process that has trained before holds memory that the next
    run would not need. They are forked from a server that has imported the libraries and done nothing
    else, so each starts at once.

    Args:
        study: the run that the others are part of.
        total: how many plans there will be, for the lines of progress.
        rerun: repeat what is finished.
        say: takes lines of progress.
        jobs: runs side by side; on CUDA each has a GPU to itself.

    Attributes:
        failures: what did not finish.
        out_of_reach: what cannot, since its budget is out of reach.

    Raises:
        UserError: more jobs than GPUs.
    """

    def __init__(self, study: Run, total: int, rerun: bool, say: Say, jobs: int = 1) -> None:
        gpus = visible_gpus()
        if jobs < 1 or (gpus and jobs > len(gpus)):
            allowed = f"1 to {len(gpus)}, the GPUs that are visible here" if gpus else "1 or more"
            raise UserError(f"jobs={jobs} is not allowed: give {allowed}.")
        self.failures: list[Failure] = []
        self.out_of_reach: list[Failure] = []
        self._study, self._total, self._rerun, self._say, self._jobs = study, total, rerun, say, jobs
        self._count = 0
        self._counting = threading.Lock()
        self._context = forking.context()
        self._processes: set[BaseProcess] = set()
        self._stopping = False
        self._shares: SimpleQueue[_Share] = SimpleQueue()
        for share in _shares(jobs, gpus):
            self._shares.put(share)

    def launch(self, plans: Sequence[RunPlan]) -> None:
        """Carry out plans, in order where they are not side by side."""
        attempts = [functools.partial(self._attempt, plan.label, self._run_task, plan) for plan in plans]
        self._together(attempts, self._jobs)

    def launch_source(self, plan: RunPlan) -> None:
        """Carry out what a plan builds on, unless a finished run does already."""
        try:
            find_source(self._study.experiment_id, plan)
        except UserError:
            self.launch(plan.builds_on[:1])
        else:
            with self._counting:
                self._count += 1
            self._say(f"[{self._count:>2}/{self._total}] {plan.builds_on[0].label}  finished already")

    def launch_profiles(self, study: Study, plans: Sequence[RunPlan]) -> None:
        """Measure the models of each plan's family in turn, unless that has been done for the same runs."""
        attempts = [
            functools.partial(self._attempt, f"profile  {plan.model:<10}", self._profile_task, study, plan)
            for plan in plans
        ]
        self._together(attempts, jobs=1)  # with the machine to itself

    def _together(self, attempts: Sequence[Callable[[], None]], jobs: int) -> None:
        pool = ThreadPoolExecutor(jobs)
        try:
            for future in [pool.submit(attempt) for attempt in attempts]:
                future.result()
        except BaseException:
            self._stop(pool)
            raise
        finally:
            pool.shutdown()

    def _run_task(self, plan: RunPlan) -> _Task:
        source_run = find_source(self._study.experiment_id, plan)
        return _Task(fingerprints.of_plan(plan, source_run), execute, (plan, source_run))

    def _profile_task(self, study: Study, plan: RunPlan) -> _Task:
        run_ids = runs_to_pair(self._study.experiment_id, study, plan.model)
        return _Task(fingerprints.of_plan(plan, ",".join(run_ids)), paired.execute, (plan, run_ids))

    def _attempt(self, what: str, prepare: Callable[..., _Task], *arguments: object) -> None:
        with self._counting:
            self._count += 1
            label = f"[{self._count:>2}/{self._total}] {what}"
        try:
            task = prepare(*arguments)
            experiment = self._study.experiment_id
            done = store.finished_runs(experiment, fingerprint=task.fingerprint)
            if not done.empty and not self._rerun:
                self._say(f"{label}  finished already, skipped (rerun=true repeats it)")
                return
            beyond = store.runs_out_of_reach(experiment, fingerprint=task.fingerprint)
            if not beyond.empty and not self._rerun:
                first = beyond.iloc[0]
                raise OutOfReachError(str(first.get("error", "as was found before")), float(first[store.OUT_OF_REACH]))
            interrupted = store.unfinished_run(experiment, task.fingerprint)
            self._say(f"{label}  {'goes on where it was interrupted ...' if interrupted else '...'}")
            started = time.monotonic()
            outcome = self._in_fresh_process(task, interrupted)
            self._say(f"{label}  {outcome.headline}, {time.monotonic() - started:.0f} s")
        except OutOfReachError as error:
            self.out_of_reach.append(Failure(what, str(error)))
            self._say(f"{label}  cannot be: {error}")
        except Exception as error:
            reason = explain(error)
            if reason is None:
                raise
            if self._stopping:
                return
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

    def _in_fresh_process(self, task: _Task, run_id: str | None) -> Outcome | paired.Outcome:
        # The child waits for its task, so one that was being started when the study was told to stop finds
        # the pipe closed and leaves.
        ours, its = self._context.Pipe()
        share = self._shares.get()
        process = self._context.Process(target=_execute, args=(its, destination.store_uri(), share))
        options = {"parent": self._study.run_id, "experiment_id": self._study.experiment_id}
        try:
            self._processes.add(process)
            process.start()
            its.close()
            if self._stopping:
                raise UserError("The study was stopped.")
            ours.send((task, options | ({"run_id": run_id} if run_id else {})))
            answer = ours.recv()
        except (EOFError, ConnectionError) as error:
            if not self._stopping:
                process.join()  # its locks are then released
                opening.settle()
            raise UserError(
                "The process of this run was killed, most likely for want of memory: give a smaller batch_size,"
                " or start the study again, which continues here."
            ) from error
        finally:
            ours.close()
            if process.pid is not None:
                process.join()
            self._processes.discard(process)
            self._shares.put(share)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def _stop(self, pool: ThreadPoolExecutor) -> None:
        self._stopping = True
        pool.shutdown(wait=False, cancel_futures=True)
        for process in list(self._processes):
            if process.pid is not None:
                process.terminate()  # The run then ends in order, as KILLED, with a checkpoint.


def _shares(jobs: int, gpus: Sequence[str]) -> list[_Share]:
    """A GPU each; without GPUs, the same number of threads each."""
    if gpus:
        return [_Share(gpu=gpu) for gpu in gpus[:jobs]]
    if jobs == 1:
        return [_Share()]
    return [_Share(threads=max(1, torch.get_num_threads() // jobs))] * jobs


def _execute(connection: Connection, store: str, share: _Share) -> None:
    leave_in_order_when_stopped()
    try:
        task, options = connection.recv()
    except EOFError:
        return
    if share.gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = share.gpu
    if share.threads is not None:
        torch.set_num_threads(share.threads)
    destination.use_store(store)
    try:
        connection.send(task.function(*task.arguments, **options))
    except OutOfReachError as error:
        connection.send(error)
    except Exception as error:
        sentence = explain(error)
        if sentence is None:
            traceback.print_exc()
            sentence = f"a bug, whose traceback stands above: {type(error).__name__}: {error}"
        connection.send(UserError(sentence))

"""A study on Slurm: job arrays that depend on each other, for what is not done, running or queued yet."""

import dataclasses
import json
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError
from ..plan.sections import RunPlan
from ..plan.study import Study
from ..tracking import destination, job, opening
from . import progress
from .progress import FAILED, JOBS_FILE, LOGS, MISSING, QUEUED, RUNNING, Progress

ROOT = LOGS.parents[1]
_SUBMIT = ROOT / "slurm" / "submit.sh"


@dataclass(frozen=True)
class Task:
    """One job of an array: its label in the study, its entry point, and what else ``mlflow run`` is given."""

    label: str
    entry: str
    words: tuple[str, ...]


@dataclass(frozen=True)
class Submission:
    """What goes to Slurm: one ``sbatch`` each, in this order.

    Attributes:
        name: the wrapper in ``slurm/``.
        arguments: what it is given, the parameters of its entry point.
        tasks: the tasks of an array; none for a single job.
        after: the submission that must have ended, by position.
        dependency: Slurm's kind of it.
    """

    name: str
    arguments: tuple[str, ...] = ()
    tasks: tuple[Task, ...] = ()
    after: tuple[int, ...] = ()
    dependency: str = "afterok"


def submit_study(study: Study, preset: str, throttle: int | None, keep_models: str, dry_run: bool) -> str:
    """Submit what is left of a study; its run in MLflow ends with that, and the jobs' runs are nested under it.

    Returns:
        What was submitted, or would be.

    Raises:
        UserError: the preset is not named, Slurm is not there or refuses.
    """
    if preset == "auto":
        raise UserError("launcher=slurm needs a preset by its name: where jobs are submitted there may be no GPU.")
    if shutil.which("sbatch") is None and not dry_run:
        raise UserError("launcher=slurm needs sbatch on PATH: start it where jobs are submitted, or give local.")
    name = study.preset.name
    opening.settle()
    found = _left(study, preset, keep_models, destination.current_experiment())
    if not found:
        return "Nothing to submit: all that is missing is running or queued."
    if dry_run:
        return as_text(found, throttle)
    with opening.open_run() as run:
        run.describe(f"study/{name}/slurm", {"stage": "study", "preset": name}, {})
        os.environ |= {job.PARENT: run.run_id, **destination.environment(run.experiment_id)}
        jobs = submit(found, throttle)
        text = "\n".join(f"{number:<12} {what}" for what, number in jobs.items())
        run.text(text, "jobs.txt")
        asked = {"SEEDS": study.seeds, "BUDGETS": study.equal_budgets.budgets}
        words = [f"{name}={','.join(map(str, values))}" for name, values in asked.items() if values]
        return f"{text}\n\nHow far it is: {' '.join(['make status', f'PRESET={preset}', *words])}"


def submissions(study: Study, preset: str, keep_models: str, state: Sequence[Progress]) -> list[Submission]:
    """What is left of a study, as jobs.

    Fetching and tokenising come first, once, and must succeed. What follows runs whatever became of what it
    follows, so that one failure does not hang the rest: the comparison says what is missing.

    Args:
        study: which runs there are.
        preset: how the preset is named on the command line.
        keep_models: ``all``, or ``best``: the comparison removes the others.
        state: the study's progress; what is done, running or queued is left out.

    Returns:
        What to submit, in order: the comparison alone where everything is done, nothing where the rest is under way.
    """
    wanted = {each.run: each for each in state if each.state in (FAILED, MISSING)}
    given = {key: value for key, value in study.overrides.items() if value is not None}

    def tasks(plans: Sequence[RunPlan]) -> tuple[Task, ...]:
        return tuple(_task(plan, preset, given, wanted[plan.label]) for plan in plans if plan.label in wanted)

    def profile(plan: RunPlan) -> Task:
        values = {"model": plan.model, "preset": preset, **given}
        return Task(progress.profile_label(plan), "profile", _parameters(values))

    seeds = ",".join(map(str, study.seeds or study.preset.seeds))
    first, second = tasks(study.first()), tasks(study.transfers())
    again = tasks([*study.recoveries(), *study.at_equal_budget()])
    third = tuple(profile(plan) for plan in study.profiles() if progress.profile_label(plan) in wanted)
    kept = {} if keep_models == "all" else {"keep_models": keep_models}
    comparison = Submission("compare", _parameters({"preset": preset, **kept, **given}))
    if not (first or again or second or third):
        return [] if any(each.state in (RUNNING, QUEUED) for each in state) else [comparison]
    found = [
        Submission("prefetch", _parameters({"preset": preset})),
        Submission("tokenise", _parameters({"preset": preset, "seeds": seeds, **given}), after=(0,)),
    ]
    before, kind = (1,), "afterok"
    for each in (first, again):
        if each:
            found.append(Submission("task", tasks=each, after=before, dependency=kind))
            before, kind = (len(found) - 1,), "afterany"
    ends = []
    for each in (second, third):
        if each:
            ends.append(len(found))
            found.append(Submission("task", tasks=each, after=before, dependency=kind))
    last = tuple(ends) or before
    return [*found, dataclasses.replace(comparison, after=last, dependency="afterany")]


def command(each: Submission, folder: Path, throttle: int | None, numbers: Sequence[str]) -> list[str]:
    """The command that submits this one.

    Args:
        each: what to submit.
        folder: where the tasks of an array are written.
        throttle: tasks of an array at once; ``None``: as ``cluster.env`` says.
        numbers: job numbers of what was submitted before it.
    """
    options = ["--parsable"]
    if each.after:
        after = ":".join(numbers[position] for position in each.after)
        options += [f"--dependency={each.dependency}:{after}", "--kill-on-invalid-dep=yes"]
    if not each.tasks:
        return [str(_SUBMIT), *options, each.name, *each.arguments]
    limit = f"%{throttle}" if throttle else ""
    options.append(f"--array=0-{len(each.tasks) - 1}{limit}")
    return [str(_SUBMIT), *options, each.name, str(folder)]


def submit(found: Sequence[Submission], throttle: int | None) -> dict[str, str]:
    """Submit everything.

    Returns:
        Slurm's job number of each task by its label, and of the single jobs by their names.

    Raises:
        UserError: Slurm refuses; what was submitted before is cancelled.
    """
    folder = LOGS / f"study-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    folder.mkdir(parents=True)
    numbers: list[str] = []
    jobs: dict[str, str] = {}
    try:
        for position, each in enumerate(found):
            tasks = folder / str(position)
            _write(each.tasks, tasks)
            numbers.append(_sbatch(command(each, tasks, throttle, numbers)))
            jobs |= {task.label: f"{numbers[-1]}_{index}" for index, task in enumerate(each.tasks)}
            jobs |= {} if each.tasks else {each.name: numbers[-1]}
    except UserError:
        if numbers:
            subprocess.run(["scancel", *numbers], check=False)
        raise
    (folder / JOBS_FILE).write_text(json.dumps(jobs, indent=2))
    return jobs


def as_text(found: Sequence[Submission], throttle: int | None) -> str:
    """The commands that :func:`submit` would carry out, and what each array consists of."""
    lines: list[str] = []
    numbers = [f"JOB{position}" for position in range(len(found))]
    for position, each in enumerate(found):
        words = command(each, LOGS / "study-TIME" / str(position), throttle, numbers)
        words[0] = str(_SUBMIT.relative_to(ROOT))
        lines.append(f"{numbers[position]}=$({shlex.join(words)})".replace("'JOB", "JOB"))
        lines += [
            f"    {index}: mlflow run . {shlex.join(('-e', task.entry, *task.words))}"
            for index, task in enumerate(each.tasks)
        ]
    return "\n".join(lines)


def _left(study: Study, preset: str, keep_models: str, experiment_id: str) -> list[Submission]:
    return submissions(study, preset, keep_models, progress.of_study(study, experiment_id))


def _task(plan: RunPlan, preset: str, given: Mapping[str, object], state: Progress) -> Task:
    dim = {} if plan.stage == "baseline" else {"dim": plan.dim}
    values = {"model": plan.model, **dim, "preset": preset, "seed": plan.seed, **given}
    if plan.start != "pretrained":
        taught = plan.distillation.model_dump(exclude_none=True) if plan.distillation else {"distill": "none"}
        values |= {"start": plan.start, **taught}
    if plan.budget:
        values |= plan.budget.model_dump(exclude_none=True)
    goes_on = ("--run-id", state.run_id) if state.goes_on else ()
    return Task(plan.label, plan.stage, (*_parameters(values), *goes_on))


def _parameters(values: Mapping[str, object]) -> tuple[str, ...]:
    return tuple(word for key, value in values.items() for word in ("-P", f"{key}={value}"))


def _write(tasks: Sequence[Task], folder: Path) -> None:
    """A file for each task: the words of its command, each ended by a zero byte, which no word can contain."""
    for index, task in enumerate(tasks):
        folder.mkdir(exist_ok=True)
        (folder / str(index)).write_text("".join(f"{word}\0" for word in (task.entry, *task.words)))


def _sbatch(words: Sequence[str]) -> str:
    try:
        answer = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, check=True)
    except subprocess.CalledProcessError as error:
        raise UserError(f"Slurm took nothing of this study: {' '.join(error.stderr.split())}.") from error
    return answer.stdout.strip().partition(";")[0]

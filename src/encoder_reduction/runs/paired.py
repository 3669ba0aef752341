"""Paired profiling: the models of finished runs measured in turn in one process, so that ratios hold.

Two runs measure their latency minutes apart, on a machine that may have slowed meanwhile. Here all
models take turns, in another order every round, and only ratios within a round are reported. Each may
take several turns, one in each runtime.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import torch
from datasets import Dataset

from ..data import corpora
from ..data.tokenisation import tokenise
from ..deployment.libraries import check_installed
from ..errors import UserError
from ..models import checkpoints
from ..plan.precision import resolve_precision
from ..plan.runtimes import TORCH
from ..plan.sections import RunPlan
from ..profiling.inference import TEXTS, Profiler, for_inference
from ..profiling.machine import device_name, watched
from ..profiling.memory import only_new_garbage
from ..profiling.nvidia import take_one_gpu, visible_device
from ..tracking import fingerprints, opening, store
from ..tracking.run import Run
from .contenders import Contender, as_table, in_each_runtime
from .lengths import check_max_length, that_fit
from .timing import in_turn


@dataclass(frozen=True)
class Outcome:
    """What a finished paired measurement is known by.

    Attributes:
        run_id: its MLflow run.
        ratios: one row for each run, runtime and workload: ``run_id``, ``reference``, ``name``, ``model``, ``config``,
            ``workload``, ``batch_size``, ``max_length``, ``precision`` (resolved), ``device``, ``speed_ratio``,
            ``low``, ``high``, ``rounds``, ``runtime``.
        runtimes: one row for each run and runtime, with ``accuracy``, ``f1`` and ``megabytes``; empty of PyTorch alone.
    """

    run_id: str
    ratios: pd.DataFrame
    runtimes: pd.DataFrame

    @property
    def headline(self) -> str:
        """Speed-ups on the table's workload, in a few words."""
        rows = self.ratios[self.ratios["workload"].eq(self.ratios["workload"].iloc[0])]
        rows = rows[rows["runtime"].eq(TORCH)]
        rows = rows[rows["batch_size"].eq(rows["batch_size"].max()) & rows["run_id"].ne(rows["reference"])]
        return ", ".join(f"{row.config} x{row.speed_ratio:.2f}" for row in rows.itertuples())


@only_new_garbage()
def execute(
    plan: RunPlan,
    run_ids: Sequence[str],
    runtimes: Sequence[str] = (TORCH,),
    *,
    parent: str | None = None,
    experiment_id: str | None = None,
) -> Outcome:
    """Measure the models of finished runs in turn, inside an MLflow run of stage ``profile``.

    Args:
        plan: its corpus, batch size, precision and profiling settings are used; every model is measured on
            the same test texts.
        run_ids: finished runs; the first is the reference of the ratios.
        runtimes: what each of them runs in, PyTorch first. In others, each is also scored on the test split.
        parent: the study's run, if this is part of one.
        experiment_id: where a new run goes.

    Raises:
        UserError: fewer than two runs, a run that is not finished, or one without a model; a runtime is not installed.
    """
    take_one_gpu()
    run_ids = list(dict.fromkeys(run_ids))
    several = len(runtimes) > 1
    with opening.open_run(parent, experiment_id) as run:
        tags = {"stage": "profile", "preset": plan.preset, "model": plan.model, "device": device_name()}
        # Of PyTorch alone as it was before there were others.
        what = ",".join([*run_ids, *(runtimes if several else ())])
        tags["fingerprint"] = fingerprints.of_plan(plan, what)
        params = plan.fine_tuning.model_dump(include={"batch_size", "max_length", "precision"})
        params |= {"inference_precision": resolve_precision(plan.fine_tuning.precision), "runs": ",".join(run_ids)}
        params |= {"runtimes": ",".join(runtimes)} if several else {}
        run.describe(f"{plan.model}/profile", tags, plan.profiling.model_dump() | params)
        if len(run_ids) < 2:
            raise UserError(f"runs={','.join(run_ids)} is not allowed: give at least two different run ids.")
        if several:
            check_installed()
        described = [store.finished_run(run_id) for run_id in run_ids]
        test = corpora.draw(corpora.load(plan.corpus)["test"], plan.fine_tuning.max_test_examples, 0)
        with ExitStack() as folders:
            contenders = [each for one in described for each in _load(plan, one, test, runtimes, folders)]
            shared = [key for key in contenders[0].workloads if all(key in each.workloads for each in contenders)]
            device = contenders[0].profiler.model.device
            with watched(device) as machine:
                ratios = pd.concat([_ratios(contenders, key) for key in shared], ignore_index=True)
            scored = _scored(contenders, ratios, test, run) if several else pd.DataFrame()
        run.tag({"machine": "; ".join(machine.warnings()) or "quiet", **visible_device(device)})
        run.json(machine.as_dict(), "machine.json")
        run.table(ratios, store.RATIOS_FILE)
        run.metrics(_speeds(ratios))
        run.figures_of_others("speed_up", _speed_ups(ratios, plan.fine_tuning.batch_size))
        return Outcome(run.run_id, ratios, scored)


def _load(
    plan: RunPlan, described: dict[str, str], test: Dataset, runtimes: Sequence[str], folders: ExitStack
) -> list[Contender]:
    """The model of a finished run in each runtime, and the workloads that it can take."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    folder = folders.enter_context(store.downloaded_model(described["run_id"]))
    model, tokenizer = checkpoints.load_folder(folder)
    check_max_length(plan, model)
    profiler = Profiler(model, tokenizer, plan.fine_tuning, that_fit(plan.profiling, model))
    tokenised = tokenise(test, tokenizer, plan.fine_tuning.max_length)
    texts = profiler.texts(tokenised, plan.fine_tuning.batch_size).batches
    with TemporaryDirectory(prefix="encoder-reduction-") as files:
        models = in_each_runtime(model, folder, runtimes, texts, Path(files), device)
    for_inference(model.to(device), plan.fine_tuning.precision)
    workloads = {(workload.name, workload.batch_size): workload for workload in profiler.workloads(tokenised)}
    return [Contender(described, each, profiler, workloads) for each in models]


def _ratios(contenders: Sequence[Contender], key: tuple[str, int]) -> pd.DataFrame:
    """Speed of every contender relative to the first on one kind of workload."""
    first = contenders[0]
    calls = [each.calls(each.workloads[key]) for each in contenders]
    ratios = in_turn(calls, first.profiler.model.device, first.profiler.settings)
    workload, batch_size = key
    return pd.DataFrame(
        [
            {
                **each.named(first),
                "workload": workload,
                "batch_size": batch_size,
                "max_length": first.profiler.fine_tuning.max_length,
                "precision": each.precision,
                "device": device_name(),
                "speed_ratio": ratio.median,
                "low": ratio.interval[0],
                "high": ratio.interval[1],
                "rounds": ratio.rounds,
                "runtime": each.model.runtime,
            }
            for each, ratio in zip(contenders, ratios, strict=True)
        ]
    )


def _scored(contenders: Sequence[Contender], ratios: pd.DataFrame, test: Dataset, run: Run) -> pd.DataFrame:
    """What each contender scores on the test split; logged with what each predicts."""
    evaluations = []
    for each in contenders:
        tokenised = tokenise(test, each.profiler.tokenizer, each.profiler.fine_tuning.max_length)
        evaluations.append(each.evaluate(tokenised, test["id"]))
        run.table(evaluations[-1].predictions, store.runtime_predictions_file(each.run["run_id"], each.model.runtime))
    scored = as_table(contenders, ratios, evaluations)
    run.table(scored, store.RUNTIMES_FILE)
    return scored


def _speeds(ratios: pd.DataFrame) -> dict[str, float]:
    """The ratios as figures, under the run's name, where MLflow takes no plus."""
    others = ratios[ratios["run_id"].ne(ratios["reference"]) | ratios["runtime"].ne(TORCH)]
    figures = {}
    for row in others.itertuples(index=False):
        runtime = "" if row.runtime == TORCH else f"{row.runtime}/"
        name = row.name.replace("+", "_and_")
        figures[f"speed_ratio/{name}/{runtime}{row.workload}/batch_{row.batch_size}"] = row.speed_ratio
    return figures


def _speed_ups(ratios: pd.DataFrame, batch_size: int) -> dict[str, float]:
    """How many times as fast as the reference each run's model is, as the tables show it."""
    shown = ratios[ratios["runtime"].eq(TORCH) & ratios["workload"].eq(TEXTS) & ratios["batch_size"].eq(batch_size)]
    return dict(zip(shown["run_id"], shown["speed_ratio"], strict=True))

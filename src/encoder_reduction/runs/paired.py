"""Paired profiling: the models of finished runs measured in turn in one process, so that ratios hold.

Two runs measure their latency minutes apart, on a machine that may have slowed meanwhile. Here all
models take turns, in another order every round, and only ratios within a round are reported.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import pandas as pd
import torch

from ..data import corpora
from ..data.tokenisation import tokenise
from ..errors import UserError
from ..models import checkpoints
from ..plan.precision import resolve_precision
from ..plan.sections import RunPlan
from ..profiling.inference import TEXTS, Profiler, Workload, for_inference
from ..profiling.machine import device_name, watched
from ..profiling.nvidia import take_one_gpu, visible_device
from ..tracking import fingerprints, opening, store
from .lengths import check_max_length, that_fit
from .timing import in_turn


@dataclass(frozen=True)
class Outcome:
    """What a finished paired measurement is known by.

    Attributes:
        run_id: its MLflow run.
        ratios: one row for each run and workload: ``run_id``, ``reference``, ``name``, ``model``, ``config``,
            ``workload``, ``batch_size``, ``max_length``, ``precision`` (resolved), ``device``, ``speed_ratio``,
            ``low``, ``high``, ``rounds``.
    """

    run_id: str
    ratios: pd.DataFrame

    @property
    def headline(self) -> str:
        """Speed-ups on the table's workload, in a few words."""
        rows = self.ratios[self.ratios["workload"].eq(self.ratios["workload"].iloc[0])]
        rows = rows[rows["batch_size"].eq(rows["batch_size"].max()) & rows["run_id"].ne(rows["reference"])]
        return ", ".join(f"{row.config} x{row.speed_ratio:.2f}" for row in rows.itertuples())


def execute(
    plan: RunPlan, run_ids: Sequence[str], *, parent: str | None = None, experiment_id: str | None = None
) -> Outcome:
    """Measure the models of finished runs in turn, inside an MLflow run of stage ``profile``.

    Args:
        plan: its corpus, batch size, precision and profiling settings are used; every model is measured on
            the same test texts.
        run_ids: finished runs; the first is the reference of the ratios.
        parent: the study's run, if this is part of one.
        experiment_id: where a new run goes.

    Raises:
        UserError: fewer than two runs, a run that is not finished, or one without a model.
    """
    take_one_gpu()
    with opening.open_run(parent, experiment_id) as run:
        tags = {"stage": "profile", "preset": plan.preset, "model": plan.model, "device": device_name()}
        tags["fingerprint"] = fingerprints.of_plan(plan, ",".join(run_ids))
        params = plan.fine_tuning.model_dump(include={"batch_size", "max_length", "precision"})
        params |= {"inference_precision": resolve_precision(plan.fine_tuning.precision), "runs": ",".join(run_ids)}
        run.describe(f"{plan.model}/profile", tags, plan.profiling.model_dump() | params)
        if len(set(run_ids)) < 2:
            raise UserError(f"runs={','.join(run_ids)} is not allowed: give at least two different run ids.")
        described = [store.finished_run(run_id) for run_id in run_ids]
        with ExitStack() as folders:
            profilers, workloads = _load(plan, run_ids, folders)
            with watched(profilers[0].model.device) as machine:
                ratios = pd.concat([_ratios(profilers, same, described) for same in workloads], ignore_index=True)
            device = visible_device(profilers[0].model.device)
        run.tag({"machine": "; ".join(machine.warnings()) or "quiet", **device})
        run.json(machine.as_dict(), "machine.json")
        run.table(ratios, store.RATIOS_FILE)
        others = ratios[ratios["run_id"].ne(ratios["reference"])]
        run.metrics(
            {f"speed_ratio/{_plain(row.name)}/{row.workload}/batch_{row.batch_size}": row.speed_ratio
             for row in others.itertuples(index=False)}
        )  # fmt: skip
        own = ratios[ratios["workload"].eq(TEXTS) & ratios["batch_size"].eq(plan.fine_tuning.batch_size)]
        run.metric_of_models("speed_ratio", dict(zip(own["run_id"], own["speed_ratio"], strict=True)))
        return Outcome(run.run_id, ratios)


def _load(
    plan: RunPlan, run_ids: Sequence[str], folders: ExitStack
) -> tuple[list[Profiler], list[tuple[Workload, ...]]]:
    """A profiler for each run's model, and the workloads that all of them can take, each model's own beside another."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    test = corpora.draw(corpora.load(plan.corpus)["test"], plan.fine_tuning.max_test_examples, 0)
    profilers: list[Profiler] = []
    workloads: list[dict[tuple[str, int], Workload]] = []
    for run_id in run_ids:
        model, tokenizer = checkpoints.load_folder(folders.enter_context(store.downloaded_model(run_id)))
        model = for_inference(model.to(device), plan.fine_tuning.precision)
        check_max_length(plan, model)
        profiler = Profiler(model, tokenizer, plan.fine_tuning, that_fit(plan.profiling, model))
        own = profiler.workloads(tokenise(test, tokenizer, plan.fine_tuning.max_length))
        profilers.append(profiler)
        workloads.append({(workload.name, workload.batch_size): workload for workload in own})
    shared = [key for key in workloads[0] if all(key in own for own in workloads)]
    return profilers, [tuple(own[key] for own in workloads) for key in shared]


def _ratios(profilers: list[Profiler], workloads: Sequence[Workload], described: list[dict[str, str]]) -> pd.DataFrame:
    """Speed of every model relative to the first on one kind of workload."""
    calls = [profiler.calls(workload) for profiler, workload in zip(profilers, workloads, strict=True)]
    ratios = in_turn(calls, profilers[0].model.device, profilers[0].settings)
    return pd.DataFrame(
        [
            {
                "run_id": tags["run_id"],
                "reference": described[0]["run_id"],
                "name": tags["name"],
                "model": tags["model"],
                "config": tags["config"],
                "workload": workload.name,
                "batch_size": workload.batch_size,
                "max_length": profilers[0].fine_tuning.max_length,
                "precision": resolve_precision(profilers[0].fine_tuning.precision),
                "device": device_name(),
                "speed_ratio": ratio.median,
                "low": ratio.interval[0],
                "high": ratio.interval[1],
                "rounds": ratio.rounds,
            }
            for tags, workload, ratio in zip(described, workloads, ratios, strict=True)
        ]
    )


def _plain(name: str) -> str:
    """A run's name in that of a metric, where MLflow takes no plus."""
    return name.replace("+", "_and_")

"""One run, top to bottom: load, reduce, fine-tune, evaluate, profile, log."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, DatasetDict
from transformers import PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer

from ..data import corpora, inputs
from ..data.tokenisation import check_words, tokenise
from ..errors import UserError
from ..models import checkpoints
from ..plan.precision import resolve_precision
from ..plan.sections import RunPlan
from ..profiling.energy import EnergyUsed, energy_used
from ..profiling.energy import of_pieces as energy_of_pieces
from ..profiling.inference import Profiler, for_inference, latency_table
from ..profiling.machine import Watch, watched
from ..profiling.memory import PeakMemory, only_new_garbage, peak_memory, start_peak_again
from ..profiling.memory import of_pieces as memory_of_pieces
from ..profiling.nvidia import take_one_gpu
from ..tracking import datasets, opening, store
from ..tracking.run import Run
from ..training.evaluation import Evaluation
from ..training.fine_tuning import FineTuner, Training
from ..training.pieces import Pieces
from ..training.recorder import NonFiniteLossError
from . import budgets, figures
from .achieved import beside_the_whole
from .apart import process_apart
from .beginning import begin, finished_instead
from .description import describe, flat_params, machine_tags, model_name, run_name
from .judging import Judge
from .lengths import check_max_length, say_cost_of_attention_dropout, that_fit
from .networks import load_model, reduce, state_inference
from .note import note
from .sources import find_source
from .teaching import teach


@dataclass(frozen=True)
class Outcome:
    """What a finished run is known by."""

    run_id: str
    name: str
    metrics: dict[str, float]

    @property
    def headline(self) -> str:
        """What a line of progress says of it."""
        return f"accuracy {self.metrics['accuracy']:.3f}"


@only_new_garbage()
def execute(
    plan: RunPlan,
    source_run: str | None = None,
    *,
    parent: str | None = None,
    experiment_id: str | None = None,
    run_id: str | None = None,
    progress: bool = True,
) -> Outcome:
    """Carry out a plan inside an MLflow run.

    A run that was interrupted goes on from its last checkpoint.

    Args:
        plan: what to do.
        source_run: the finished run that the plan builds on; :func:`.sources.find_source` by default.
        parent: the study's run, if this run is part of one.
        experiment_id: where a new run goes.
        run_id: an interrupted run of this plan, to go on with.
        progress: show progress bars.

    Raises:
        UserError: anything that the user can mend; the run is then marked FAILED.
    """
    take_one_gpu()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    # Before the run opens, so that no thread and no lock of it is in the other process.
    with process_apart(device) as apart, opening.open_run(parent, experiment_id, run_id) as run:
        source_run = source_run or find_source(run.experiment_id, plan)
        try:
            inputs.fetch(plan)  # What they hold is part of the fingerprint.
        except UserError:
            begin(run, plan, source_run)
            raise
        if finished := finished_instead(run, plan, source_run):
            return Outcome(finished["run_id"], finished["name"], {"accuracy": finished["accuracy"]})
        begin(run, plan, source_run)
        stopwatch = figures.Stopwatch()
        settings = plan.fine_tuning
        precision = resolve_precision(settings.precision)

        data = corpora.draw_splits(plan)
        model, tokenizer = load_model(plan, source_run)
        check_max_length(plan, model)
        profiling = that_fit(plan.profiling, model)
        model.to(device)
        stopwatch.lap("loading")
        earlier = built_on(plan, source_run)
        run.inputs(datasets.of_splits(plan.corpus, data), [row["run_id"] for row in earlier])
        tokenised = {split: tokenise(data[split], tokenizer, settings.max_length) for split in data}
        check_words(tokenised["train"], tokenizer, f"the training texts of {plan.corpus.name}")
        if settings.epochs:
            say_cost_of_attention_dropout(model, tokenised["train"])
        whole, decided = model, plan.reductions
        if plan.budget:
            judge = Judge(plan, source_run, model, tokenizer, data, tokenised)
            stopwatch.lap("preparation")
            profiler = Profiler(model, tokenizer, settings, profiling)
            decided, cut = budgets.meet(judge, profiler, run, stopwatch, progress)
            judge = profiler = None
        else:
            cut = reduce(plan, model, tokenizer, tokenised["train"])
        model = cut.model
        state_inference(model, tokenizer, settings)

        name = run_name(plan, model)
        precisions = {"resolved_precision": precision, "inference_precision": precision}
        params = flat_params(plan, model, decided) | precisions
        run.describe(name, describe(plan, model, device), params, model_name(plan, model))
        stopwatch.lap("preparation")
        teacher = None
        if plan.distillation:
            tokenised["train"], teacher = teach(
                plan, source_run, whole, cut, tokenizer, tokenised["train"], data["train"]
            )
            stopwatch.lap("teaching")
        # Memory is measured, and only a teacher that runs beside the student is part of it.
        whole = cut = None
        tuner = FineTuner(model, tokenizer, settings, plan.seed, run.point, progress, plan.distillation, teacher)
        with watched(device) as machine:
            before = {}
            if plan.stage == "reduce" and plan.start != "pretrained":
                before = scored(tuner, tokenised, data)
                stopwatch.lap("evaluation")
            training, training_memory, training_energy = train(tuner, tokenised, run, device, stopwatch, machine)
            # What is scored and measured is what is served: without training's autocast, which stays in the old one.
            texts = Profiler(model, tokenizer, settings, profiling).texts(tokenised["test"], settings.batch_size)
            teacher = None

            def read_back(folder: Path) -> tuple[PreTrainedModel, Tokenizer]:
                apart.ask(folder, precision, texts, run.folder.path / "served")
                return checkpoints.load_folder(folder)

            model, tokenizer = run.model(model, tokenizer, read_back)  # is logged while the process apart measures it
            model = for_inference(model.to(device), precision)
            inference_memory = apart.answer()
            stopwatch.lap("saving")
            tuner = FineTuner(model, tokenizer, settings, plan.seed, run.point, progress)
            start_peak_again()  # The trained one goes.
            served = scored(tuner, tokenised, data)
            stopwatch.lap("evaluation")
            profiler = Profiler(model, tokenizer, settings, profiling)
            inference_memory = inference_memory or profiler.memory(texts)
            inference = figures.inference(profiler, texts, tokenised["test"], data["test"]["text"])
            beside = {}
            if plan.budget:
                beside = beside_the_whole(plan, source_run, profiler, tokenised["test"], data["test"]["id"], run)
            stopwatch.lap("profiling")

        metrics = {
            **figures.of_data(data),
            **figures.of_quality(training, served["test"], served["validation"]),
            **figures.before_training(before),
            **figures.of_size(model),
            **figures.of_inference(inference),
            **beside,
            **figures.of_training(training, training_energy.joules, inference),
            "total_training_seconds": training.seconds + spent_before(earlier),
            **figures.of_memory(training, training_memory, inference_memory),
            **stopwatch.seconds(),
        }
        tags = machine_tags(machine, training_memory, training_energy)
        run.metrics(metrics, figures.split_of, tags, note(plan, model, metrics, run.run_id))
        run.json(machine.as_dict(), "machine.json")
        run.table(latency_table(inference.latencies), "latency.csv")
        run.table(served["test"].predictions, store.PREDICTIONS_FILE)
        run.table(served["validation"].predictions, store.VALIDATION_FILE)
        return Outcome(run.run_id, name, metrics)


def scored(tuner: FineTuner, tokenised: dict[str, Dataset], data: DatasetDict) -> dict[str, Evaluation]:
    """What the tuner's network scores on the splits that nothing is trained on."""
    return {split: tuner.evaluate(tokenised[split], data[split]["id"]) for split in ("validation", "test")}


def train(
    tuner: FineTuner,
    tokenised: dict[str, Dataset],
    run: Run,
    device: torch.device,
    stopwatch: figures.Stopwatch,
    machine: Watch,
) -> tuple[Training, PeakMemory, EnergyUsed]:
    """Fine-tune, and end the stopwatch's lap; of a run that diverges, the last good model is kept.

    Returns:
        What it reached, its peak memory and its energy: the most and the sum over the pieces of an interrupted run,
        whose earlier seconds and machines are added to the stopwatch and the watch.
    """
    with peak_memory(device) as memory, energy_used(device) as used:

        def before_checkpoint() -> dict[str, Any]:
            run.send_points()
            measured = {"memory": memory.readings(), "energy": used.readings(), "machine": machine.readings()}
            return measured | {"seconds": stopwatch.running()}

        try:
            pieces = Pieces(run.folder.checkpoints, before_checkpoint)
            training = tuner.train(tokenised["train"], tokenised["validation"], pieces)
        except NonFiniteLossError as error:
            if error.recovered:
                run.model(tuner.model, tuner.tokenizer)
                run.tag({"kept_model": "of the best epoch before training diverged"})
            raise
    earlier = training.earlier_pieces
    machine.earlier = [Watch.of(piece["machine"]) for piece in earlier]
    stopwatch.lap("fine_tuning", earlier=sum(piece["seconds"] for piece in earlier))
    found = {"micro_batch_size": training.micro_batch_size, "attention_kernels": training.attention_kernels}
    run.tag({"pieces": len(earlier) + 1, **{tag: value for tag, value in found.items() if value is not None}})
    return (
        training,
        memory_of_pieces([*(PeakMemory(**piece["memory"]) for piece in earlier), memory]),
        energy_of_pieces([*(EnergyUsed(**piece["energy"]) for piece in earlier), used]),
    )


def built_on(plan: RunPlan, source_run: str | None) -> list[dict[str, Any]]:
    """The finished runs that a run starts or learns from.

    Raises:
        UserError: one of them is not there, or not finished.
    """
    teacher = plan.distillation and plan.distillation.teacher
    return [store.finished_run(run_id) for run_id in sorted({source_run, teacher} - {None})]


def spent_before(earlier: Sequence[dict[str, Any]]) -> float:
    """Seconds of training that went into what a run starts or learns from."""
    return sum(row.get("total_training_seconds", row.get("training_seconds", 0.0)) for row in earlier)

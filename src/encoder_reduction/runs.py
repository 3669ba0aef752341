"""One run, top to bottom: load, reduce, fine-tune, evaluate, profile, log."""

from dataclasses import dataclass

import torch
from datasets import Dataset, DatasetDict
from transformers import PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer

from . import calibration, checkpoints, corpora, distillation, figures, fingerprints, tracking
from .architectures import sizes_of
from .errors import UserError
from .inference import Profiler, latency_table
from .presets import FineTuning, RunPlan
from .profiling.energy import EnergyUsed, energy_used
from .profiling.machine import Watch, device_name, watched
from .profiling.memory import PeakMemory, peak_memory
from .reductions import needs_calibration, reduce_model
from .tokenisation import tokenise
from .training import FineTuner, NonFiniteLossError, Training, resolve_precision


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


def execute(
    plan: RunPlan,
    source_run: str | None = None,
    *,
    parent: str | None = None,
    experiment_id: str | None = None,
    progress: bool = True,
) -> Outcome:
    """Carry out a plan inside an MLflow run.

    Args:
        plan: what to do.
        source_run: the finished run that the plan builds on; :func:`find_source` by default.
        parent: the study's run, if this run is part of one.
        experiment_id: where a new run goes.
        progress: show progress bars.

    Raises:
        UserError: anything that the user can mend; the run is then marked FAILED.
    """
    with tracking.open_run(parent, experiment_id) as run:
        source_run = source_run or find_source(run.experiment_id, plan)
        stopwatch = figures.Stopwatch()
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        settings = plan.fine_tuning
        precision = resolve_precision(settings.precision)

        data = draw_splits(plan)
        model, tokenizer = load_model(plan, source_run)
        model.to(device)
        stopwatch.lap("loading")
        tokenised = {split: tokenise(data[split], tokenizer, settings.max_length) for split in data}
        model = reduce(plan, model, tokenizer, tokenised["train"])

        name = run_name(plan, model)
        tags = describe(plan, model, data, device, source_run)
        run.describe(name, tags, flat_params(plan, model) | {"resolved_precision": precision})

        stopwatch.lap("preparation")
        if plan.distillation:
            tokenised["train"] = learn_from(source_run, tokenised["train"], settings, data["train"])
            stopwatch.lap("teaching")
        tuner = FineTuner(model, tokenizer, settings, plan.seed, run.point, progress, plan.distillation)
        profiler = Profiler(model, tokenizer, settings, plan.profiling)
        with watched(device) as machine:
            with peak_memory(device) as training_memory, energy_used(device) as training_energy:
                training = train(tuner, tokenised, run, model, tokenizer)
            stopwatch.lap("fine_tuning")
            test = tuner.evaluate(tokenised["test"], data["test"]["id"])
            stopwatch.lap("evaluation")
            texts = profiler.texts(tokenised["test"], settings.batch_size)
            with peak_memory(device) as inference_memory:
                latency = profiler.latency(texts)
            inference = figures.further(profiler, (texts, latency), tokenised["test"], data["test"]["text"])
            stopwatch.lap("profiling")

        metrics = {
            **figures.of_data(data),
            **figures.of_quality(training, test),
            **figures.of_size(model),
            **figures.of_inference(inference),
            **figures.of_training(training, training_energy.joules, inference),
            **figures.of_memory(training, training_memory, inference_memory),
            **stopwatch.seconds(),
        }
        run.metrics(metrics)
        run.tag(machine_tags(machine, training_memory, training_energy))
        run.tag({"micro_batch_size": training.micro_batch_size})
        run.json(machine.as_dict(), "machine.json")
        run.table(latency_table(inference.latencies), "latency.csv")
        run.table(test.predictions, tracking.PREDICTIONS_FILE)
        run.model(model, tokenizer)
        return Outcome(run.run_id, name, metrics)


def draw_splits(plan: RunPlan) -> DatasetDict:
    """The plan's corpus, each split cut to the examples that the plan asks for, stratified."""
    data, settings = corpora.load(plan.corpus), plan.fine_tuning
    return DatasetDict(
        train=corpora.draw(data["train"], settings.max_train_examples, plan.seed),
        # What selects and what is reported stays the same whatever the seed.
        validation=corpora.draw(data["validation"], settings.max_validation_examples, 0),
        test=corpora.draw(data["test"], settings.max_test_examples, 0),
    )


def load_model(plan: RunPlan, source_run: str | None) -> tuple[PreTrainedModel, Tokenizer]:
    """The plan's checkpoint, or the model of the run that a transfer starts from."""
    if plan.stage != "transfer":
        return checkpoints.load(plan.checkpoint, plan.seed)
    with tracking.downloaded_model(source_run) as folder:
        return checkpoints.load_folder(folder)


def reduce(plan: RunPlan, model: PreTrainedModel, tokenizer: Tokenizer, train: Dataset) -> PreTrainedModel:
    """The reduced model of a ``reduce`` plan; the model as it is for any other."""
    if plan.stage != "reduce":
        return model
    asking = [reduction for reduction in plan.reductions.values() if needs_calibration(reduction)]
    batches = []
    if asking:
        examples = max(reduction.calibration_examples for reduction in asking)
        seed = next((r.calibration_seed for r in asking if r.calibration_seed is not None), plan.seed)
        batches = calibration.batches(train, tokenizer, examples, seed, model.device)
    return reduce_model(model, plan.reductions, batches, plan.seed)


def train(
    tuner: FineTuner, tokenised: dict[str, Dataset], run: tracking.Run, model: PreTrainedModel, tokenizer: Tokenizer
) -> Training:
    """Fine-tune; of a run that diverges, the last good model is kept."""
    try:
        return tuner.train(tokenised["train"], tokenised["validation"])
    except NonFiniteLossError as error:
        if error.recovered:
            run.model(model, tokenizer)
            run.tag({"kept_model": "of the best epoch before training diverged"})
        raise


def learn_from(teacher_run: str, tokenised: Dataset, settings: FineTuning, train: Dataset) -> Dataset:
    """The tokenised training split with the logits of a baseline run beside it, computed once and cached."""
    fingerprint = corpora.fingerprint(train)
    logits = distillation.cached_logits(teacher_run, fingerprint)
    if logits is None:
        with tracking.downloaded_model(teacher_run) as folder:
            model, tokenizer = checkpoints.load_folder(folder)
        teacher = FineTuner(model, tokenizer, settings, seed=0, on_log=lambda values, step: None)
        logits = teacher.logits(tokenised)
        distillation.cache_logits(teacher_run, fingerprint, logits)
    return distillation.with_teacher(tokenised, logits)


def config_name(plan: RunPlan, model: PreTrainedModel) -> str:
    """What a row's configuration is called: ``baseline``, ``hidden-384``, ``layers-6+heads-6``."""
    sizes = sizes_of(model)
    return "+".join(f"{dim}-{getattr(sizes, dim)}" for dim in plan.reductions) or "baseline"


def run_name(plan: RunPlan, model: PreTrainedModel) -> str:
    """The run's name in the MLflow UI: ``roberta/hidden-384/seed-42``."""
    stage = ["transfer"] if plan.stage == "transfer" else []
    return "/".join([plan.model, config_name(plan, model), *stage, f"seed-{plan.seed}"])


def describe(
    plan: RunPlan, model: PreTrainedModel, data: DatasetDict, device: torch.device, source_run: str | None
) -> dict[str, str]:
    """The tags that the MLflow UI filters on."""
    return {
        "stage": plan.stage,
        "preset": plan.preset,
        "model": plan.model,
        "checkpoint": plan.checkpoint.name,
        "checkpoint_revision": checkpoints.revision(plan.checkpoint),
        "corpus": plan.corpus.name,
        "corpus_revision": corpora.revision(plan.corpus),
        "dim": plan.dim,
        "config": config_name(plan, model),
        "seed": str(plan.seed),
        "distilled": str(plan.distillation is not None).lower(),
        "device": device_name(),
        "libraries": ", ".join(f"{name} {version}" for name, version in fingerprints.libraries().items()),
        "memory_kind": "gpu" if device.type == "cuda" else "resident",
        "fingerprint": fingerprints.of_plan(plan, source_run),
        "plan_fingerprint": fingerprints.of_configuration(plan),
        "code_fingerprint": fingerprints.of_code(),
        "data_fingerprint": corpora.fingerprint(*(data[split] for split in corpora.SPLITS)),
        **({"source_run": source_run} if source_run else {}),
    }


def machine_tags(machine: Watch, memory: PeakMemory, energy: EnergyUsed) -> dict[str, str]:
    """Whether the machine was fit for measuring, and where its figures come from."""
    return {
        "machine": "; ".join(machine.warnings()) or "quiet",
        **({"device_memory_source": memory.device_source} if memory.device_source else {}),
        "energy_source": energy.source or "none",
    }


def flat_params(plan: RunPlan, model: PreTrainedModel) -> dict[str, object]:
    """The plan's values under the names that ``-P`` takes, and the dimensions of the network.

    Where several dimensions are reduced, each one's values carry its name in front.
    """
    sizes = sizes_of(model)
    params: dict[str, object] = {"model": plan.model, "dim": plan.dim, "seed": plan.seed}
    params |= plan.fine_tuning.model_dump() | plan.profiling.model_dump()
    params |= plan.distillation.model_dump() if plan.distillation else {}
    if plan.stage == "reduce":
        for dim, reduction in plan.reductions.items():
            prefix = f"{dim}." if len(plan.reductions) > 1 else ""
            params |= {f"{prefix}{key}": value for key, value in reduction.model_dump().items()}
    params |= {
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "head_size": sizes.head_size,
        "hidden_size": sizes.hidden,
        "intermediate_size": sizes.intermediate,
    }
    return {key: value for key, value in params.items() if value is not None}


def find_source(experiment_id: str, plan: RunPlan) -> str | None:
    """The finished run that a plan builds on, the best by validation accuracy; ``None`` if it needs none.

    A transfer starts from a reduction of its model and dimension (from the baseline where the dimension
    is ``none``), a distillation learns from the baseline. Runs count that used the same preset, checkpoint
    and source corpus; controls from random weights and distilled models do not.

    Raises:
        UserError: there is no such run yet.
    """
    if plan.stage != "transfer" and plan.distillation is None:
        return None
    baseline = plan.distillation is not None or plan.dim == "none"
    stage, dim = ("baseline", "none") if baseline else ("reduce", plan.dim)
    found = tracking.finished_runs(
        experiment_id, stage=stage, model=plan.model, preset=plan.preset, dim=dim,
        checkpoint=plan.checkpoint.name, corpus=plan.source_corpus,
    )  # fmt: skip
    found = tracking.without_controls(found)
    if found.empty:
        command = f"mlflow run . -e {stage} -P model={plan.model}" + (f" -P dim={dim}" if dim != "none" else "")
        raise UserError(
            f"No finished {stage} run of model={plan.model} dim={dim} preset={plan.preset} is in this experiment;"
            f" first: {command} -P preset={plan.preset}."
        )
    return str(found.loc[found["validation_accuracy"].idxmax(), "run_id"])

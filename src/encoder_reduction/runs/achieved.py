"""What a network that was cut to a budget has come to, measured beside the network that was cut."""

import dataclasses
import logging

from datasets import Dataset
from transformers import PreTrainedModel

from ..models.architectures import sizes_of
from ..plan.sections import Budget, RunPlan
from ..profiling.inference import Profiler, for_inference
from ..tracking import store
from ..tracking.run import Run
from ..training.evaluation import Evaluation
from ..training.fine_tuning import FineTuner
from . import budgets
from .networks import load_model
from .timing import in_turn, longer

_LOGGER = logging.getLogger(__name__)

# How far beyond its budget a finished network may be before the run says that it missed it.
_MISS = 0.05


def beside_the_whole(
    plan: RunPlan, source_run: str | None, profiler: Profiler, test: Dataset, ids: list[str], run: Run
) -> dict[str, float]:
    """What a finished network costs beside the whole one, and what that one scores; said of the run.

    Args:
        plan: of the run, which has a budget.
        source_run: the finished run that it builds on.
        profiler: of the finished network, as it is served.
        test: the tokenised test split.
        ids: of its texts.
        run: whose tags and files say the rest.

    Returns:
        ``speed_ratio`` (times as fast, measured in turn, with ``_low`` and ``_high``), ``latency_share``,
        ``flops_share``, ``parameters_share`` and, where the whole network has a trained head, ``whole_accuracy``.
    """
    whole, _ = load_model(plan, source_run)
    shares = {name: share(sizes_of(profiler.model)) for name, share in budgets.shares(whole).items()}
    whole = for_inference(whole.to(profiler.model.device), plan.fine_tuning.precision)
    workload = budgets.workload_of(profiler, plan.budget, test)
    both = [dataclasses.replace(profiler, model=model).calls(workload) for model in (whole, profiler.model)]
    ratio = in_turn(both, whole.device, longer(profiler.settings))[1]
    shares["latency"] = 1 / ratio.median
    _say_whether_met(plan.budget, shares[plan.budget.quantity], run)
    figures = {
        "speed_ratio": ratio.median,
        "speed_ratio_low": ratio.interval[0],
        "speed_ratio_high": ratio.interval[1],
        **{f"{name}_share": share for name, share in shares.items()},
    }
    if plan.start != "pretrained":
        evaluation = _scored(plan, whole, profiler, test, ids)
        run.table(evaluation.predictions, store.WHOLE_PREDICTIONS_FILE)
        figures["whole_accuracy"] = evaluation.accuracy
    return figures


def _scored(plan: RunPlan, whole: PreTrainedModel, profiler: Profiler, test: Dataset, ids: list[str]) -> Evaluation:
    tuner = FineTuner(whole, profiler.tokenizer, plan.fine_tuning, plan.seed, lambda values, step: None, False)
    return tuner.evaluate(test, ids)


def _say_whether_met(budget: Budget, share: float, run: Run) -> None:
    met = share <= budget.share * (1 + max(_MISS, budget.budget_tolerance))
    said = f"{'yes' if met else 'no'}: {share:.3f} of {budget.budget}"
    run.tag({"budget_met": said})
    if not met:
        _LOGGER.warning("The budget was missed: the network has %.3f of the whole one's %s.", share, budget.quantity)

"""How a run meets its budget: which sizes the network is cut to."""

from datasets import Dataset
from transformers import PreTrainedModel

from ..errors import OutOfReachError
from ..models.architectures import sizes_of
from ..plan.sections import Budget, Dimension, Reduction, RunPlan
from ..profiling.inference import Profiler, Workload
from ..reductions import Cut, costs
from ..reductions.budgets import Share, Space
from ..reductions.latency import LatencyTable, table_of, to_measure
from ..tracking import store
from ..tracking.run import Run
from .description import config_name, flat_params, run_name
from .figures import Stopwatch
from .judging import Judge
from .lengths import check_budget_tokens
from .search import Search
from .search_picture import search_picture
from .timing import Timings

_ALIGNED = 8


def meet(
    judge: Judge, profiler: Profiler, run: Run, stopwatch: Stopwatch, progress: bool
) -> tuple[dict[Dimension, Reduction], Cut]:
    """The reductions of a plan with the sizes that its budget leaves, and what they leave of the network.

    Of one dimension they are solved for; of several, a search finds them where what is cut has something to say
    already (a trained head), else it is the same share of each.

    Args:
        judge: cuts and scores the network of the run.
        profiler: of the whole network.
        run: says what the latency table was made of and how far it lies off, and what was tried.
        stopwatch: has a lap for the latency table, and one for the search.
        progress: show progress bars.

    Raises:
        OutOfReachError: the budget is; the run says so.
    """
    try:
        space, timings = _space(judge, profiler, run)
        stopwatch.lap("latency_table")
        search = Search(space, judge, timings, run.folder.search, progress)
        searched = len(space.reductions) > 1 and judge.plan.start != "pretrained"
        taken = search.best() if searched else search.alone()
    except OutOfReachError as error:
        plan, whole = judge.plan, judge.whole
        tags = {"config": config_name(plan, whole), store.OUT_OF_REACH: f"{error.least:.4f}"}
        run.describe(run_name(plan, whole), tags, flat_params(plan, whole))
        raise
    run.table(search.table(), "search.csv")
    if searched:
        run.figure(search_picture(search.table(), space.budget), "search")
    stopwatch.lap("search")
    decided = search.reductions(taken)
    return decided, judge.cut(decided)


def latency_table(whole: PreTrainedModel, timings: Timings) -> LatencyTable:
    """What the parts of a network take on this device, measured as far as that is not known yet."""
    architectures = to_measure(sizes_of(whole), _head_step(whole))
    return table_of(sizes_of(whole), architectures, timings.of(architectures))


def shares(whole: PreTrainedModel) -> dict[str, Share]:
    """By the closed formulas, in units of the whole network's."""
    full = sizes_of(whole)

    def relative(cost: costs.Cost) -> Share:
        return lambda sizes: cost(sizes) / cost(full)

    return {"flops": relative(costs.flops(whole)), "parameters": relative(costs.parameters(whole))}


def workload_of(profiler: Profiler, budget: Budget, test: Dataset) -> Workload:
    """What a budget of time is a share of."""
    batch_size = budget.budget_batch_size or profiler.fine_tuning.batch_size
    if budget.budget_tokens is None:
        return profiler.texts(test, batch_size)
    check_budget_tokens(budget.budget_tokens, profiler.model)
    return profiler.fixed(budget.budget_tokens, batch_size)


def _check_embeddings(whole: PreTrainedModel, plan: RunPlan) -> None:
    share = costs.embedding_share(whole, sizes_of(whole))
    if plan.budget.quantity == "parameters" and "hidden" not in plan.reductions and plan.budget.share < share:
        raise OutOfReachError(
            f"budget={plan.budget.budget} is less than the embeddings alone have ({share:.2f} of the parameters), and"
            f" only the hidden size makes these smaller: give dim={plan.dim}+hidden, or at least"
            f" parameters:{share + 0.01:.2f}.",
            share,
        )


def _space(judge: Judge, profiler: Profiler, run: Run) -> tuple[Space, Timings | None]:
    """The ways to meet a plan's budget, and what measures them where it is of time."""
    plan, timings = judge.plan, None
    workload = workload_of(profiler, plan.budget, judge.tokenised["test"])
    if plan.budget.quantity == "latency":
        timings = Timings(judge.whole, workload, plan.fine_tuning.precision, profiler.settings)
        table = latency_table(judge.whole, timings)
        run.table(table.measured, "latency_table.csv")
        run.metrics({"latency_table_error": table.errors.median(), "latency_table_worst_error": table.errors.max()})
        share = table.time
    else:
        _check_embeddings(judge.whole, plan)
        share = shares(judge.whole)[plan.budget.quantity]
    return Space(sizes_of(judge.whole), plan.reductions, plan.budget, share, _head_step(judge.whole)), timings


def _head_step(whole: PreTrainedModel) -> int:
    """Of how many units heads keep a multiple: on a GPU, attention over other heads takes a slower kernel."""
    return _ALIGNED if whole.device.type == "cuda" and sizes_of(whole).head_size % _ALIGNED == 0 else 1

"""Which values of a plan make sense together; one sentence for those that do not."""

from collections.abc import Mapping
from typing import Any

from ..errors import UserError
from .complaints import one_of, updated, validated
from .sections import (
    CRITERIA,
    SPREADING,
    STRATEGIES,
    Budget,
    Dimension,
    Distillation,
    FineTuning,
    Reduction,
    Stage,
    Start,
)


def budget(given: Mapping[str, Any], dims: list[Dimension]) -> Budget | None:
    """The budget of a run, where one is given; it, a share and a size exclude each other."""
    sizes = {"keep", "size"} & set(given)
    if "budget" in given and sizes:
        raise UserError(f"budget={given['budget']} decides how much stays: leave out {' and '.join(sorted(sizes))}.")
    if "size" in given and len(dims) > 1:
        raise UserError(f"size={given['size']} is ambiguous for dim={'+'.join(dims)}: give keep, or one dimension.")
    own = {key: value for key, value in given.items() if key in Budget.model_fields}
    if own and "budget" not in own:
        raise UserError(f"{next(iter(own))}={next(iter(own.values()))} says how a budget is met: give budget too.")
    return validated(Budget, **own) if own else None


def check_batch_tokens(fine_tuning: FineTuning) -> None:
    """A batch that is counted in tokens has room for the longest text."""
    tokens, longest = fine_tuning.batch_tokens, fine_tuning.max_length
    if tokens is not None and tokens < longest:
        raise UserError(
            f"batch_tokens={tokens} has no room for a text of max_length={longest} tokens: give batch_tokens={longest}"
            " or more, or a smaller max_length."
        )


def check_epochs(stage: Stage, epochs: float, start: Start, distillation: Distillation) -> None:
    """No epochs are for reductions of what is trained."""
    if epochs > 0:
        return
    if stage != "reduce":
        raise UserError(f"epochs=0 is for reductions, which are cut and refitted: give a {stage} more epochs.")
    if start == "pretrained":
        raise UserError(
            "epochs=0 leaves the classification head as it was drawn: give start=baseline or start=checkpoint, whose"
            " head is trained, or more epochs."
        )
    if distillation.distill != "none":
        raise UserError(f"epochs=0 learns nothing: leave out distill={distillation.distill}, or give more epochs.")


def check_weights(
    stage: Stage, start: Start, distillation: Distillation, reductions: Mapping[Dimension, Reduction]
) -> None:
    """What a network starts and learns from must have something to say in it."""
    if stage == "reduce" and distillation.teacher and distillation.distill == "none":
        raise UserError(f"teacher={distillation.teacher} teaches nothing: give distill=logits or distill=hidden too.")
    if start != "pretrained" and any(reduction.init == "random" for reduction in reductions.values()):
        raise UserError(f"init=random draws every weight afresh, whatever was cut: leave out start={start}, or init.")


def refitted(reductions: Mapping[Dimension, Reduction]) -> dict[Dimension, Reduction]:
    """What is trained is refitted where it is cut, layers too, which are not where the pretrained network is cut."""
    return {dim: each.model_copy(update={"correct": "least_squares"}) for dim, each in reductions.items()}


def reduction(dim: Dimension, default: Reduction, given: Mapping[str, Any], dims: list[str]) -> Reduction:
    """A dimension's reduction with the overrides that make sense for it.

    With several dimensions, ``strategy``, ``criterion`` and ``spread`` go to those that know the value.
    """
    given = dict(given)
    for key, table in (("strategy", STRATEGIES), ("criterion", CRITERIA)):
        if key in given and given[key] not in table[dim] and any(given[key] in table[d] for d in dims):
            del given[key]
    if dim not in SPREADING and set(SPREADING) & set(dims):
        given.pop("spread", None)
    chosen = updated(default, given)
    check_reduction(dim, chosen)
    if "budget" in given and chosen.strategy == "regroup":
        raise UserError(f"strategy=regroup saves nothing, so that it meets no budget={given['budget']}: give prune.")
    return chosen


def check_reduction(dim: Dimension, reduction: Reduction) -> None:
    """A strategy, a criterion and a spread that the dimension knows."""
    one_of(f"strategy of dim={dim}", reduction.strategy, STRATEGIES[dim])
    if reduction.criterion is not None:
        if not CRITERIA[dim]:
            raise UserError(f"criterion={reduction.criterion} does not apply to dim={dim}; choose a strategy instead.")
        one_of(f"criterion of dim={dim}", reduction.criterion, CRITERIA[dim])
    elif CRITERIA[dim]:
        raise UserError(f"dim={dim} needs a criterion; choose one of: {', '.join(CRITERIA[dim])}.")
    if reduction.spread != "uniform" and dim not in SPREADING:
        raise UserError(f"spread={reduction.spread} does not apply to dim={dim}, but to {' and '.join(SPREADING)}.")

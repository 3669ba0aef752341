"""Reductions of a pretrained encoder: model in, smaller model out.

Knows nothing of files, experiment tracking or the command line.
"""

import torch
from transformers import PreTrainedModel

from ..errors import UserError
from ..models.architectures import Sizes, sizes_of
from ..plan.sections import Reduction
from .correction import correct_heads, correct_hidden, correct_layers
from .heads import prune_heads, regroup_heads, select_heads
from .hidden import select_width, slice_width
from .importance import Batch
from .layers import drop_layers, select_layers

# Depth first, so that what follows calibrates on fewer layers; width last, since it narrows what heads left.
ORDER = ("layers", "heads", "hidden")


def reduce_model(
    model: PreTrainedModel, reductions: dict[str, Reduction], batches: list[Batch], seed: int
) -> PreTrainedModel:
    """Make a classifier smaller along one or several dimensions.

    Args:
        model: a pretrained classifier of any registered family; it is left as it is.
        reductions: by dimension (``heads``, ``hidden``, ``layers``).
        batches: calibration batches of training text.
        seed: of everything random in the choice, and of fresh weights where ``init`` is ``random``.

    Raises:
        UserError: a size that the architecture does not allow.
    """
    for dim in ORDER:
        if dim in reductions:
            model = _reduce_one(model, dim, reductions[dim], batches, seed)
    if any(reduction.init == "random" for reduction in reductions.values()):
        torch.manual_seed(seed)
        model = type(model)(model.config).to(model.device).eval()
    return model


def needs_calibration(reduction: Reduction) -> bool:
    """Whether a reduction looks at calibration text at all."""
    looks = reduction.criterion in ("gradient", "activation") and reduction.strategy != "regroup"
    return reduction.init == "pretrained" and (
        looks or reduction.strategy == "influence" or reduction.correct == "least_squares"
    )


def _reduce_one(
    model: PreTrainedModel, dim: str, reduction: Reduction, batches: list[Batch], seed: int
) -> PreTrainedModel:
    size = target_size(sizes_of(model), dim, reduction)
    if reduction.init == "random":
        # Which weights stay is of no account: they are about to be drawn afresh.
        strategy = "first" if dim == "layers" else reduction.strategy
        reduction = reduction.model_copy(update={"strategy": strategy, "criterion": "first", "correct": "none"})
    correct = reduction.correct == "least_squares"
    if dim == "layers":
        kept_layers = select_layers(model, size, reduction.strategy, batches)
        reduced = drop_layers(model, kept_layers)
        return correct_layers(model, reduced, kept_layers, batches) if correct else reduced
    if dim == "hidden":
        width = select_width(model, size, reduction.criterion, batches, seed)
        reduced = slice_width(model, width)
        return correct_hidden(model, reduced, width, batches) if correct else reduced
    if reduction.strategy == "regroup":
        return regroup_heads(model, size)
    reduced = prune_heads(model, select_heads(model, size, reduction.criterion, batches, seed))
    return correct_heads(model, reduced, batches) if correct else reduced


def allowed_sizes(sizes: Sizes, dim: str, strategy: str) -> list[int]:
    """The sizes that an architecture can be cut to along a dimension, ascending."""
    if dim == "hidden":
        # Every head keeps a whole number of units, at least one.
        step = sizes.hidden // sizes.head_size
        return [units * step for units in range(1, sizes.head_size + 1) if units * step <= sizes.hidden]
    if dim == "heads" and strategy == "regroup":
        return [heads for heads in range(1, sizes.heads + 1) if sizes.attention % heads == 0]
    return list(range(1, getattr(sizes, dim) + 1))


def target_size(sizes: Sizes, dim: str, reduction: Reduction) -> int:
    """The size to cut to: ``size`` if it is given and allowed, else the allowed one nearest to ``keep``.

    Raises:
        UserError: ``size`` is not allowed; names the nearest that are.
    """
    allowed, full = allowed_sizes(sizes, dim, reduction.strategy), getattr(sizes, dim)
    if reduction.size is None:
        return min(allowed, key=lambda size: abs(size - reduction.keep * full))
    if reduction.size in allowed:
        return reduction.size
    below = [size for size in allowed if size < reduction.size][-1:]
    above = [size for size in allowed if size > reduction.size][:1]
    nearest = " and ".join(map(str, below + above))
    rule = {"heads": "it must divide the hidden size", "hidden": f"it must be a multiple of {allowed[0]}"}
    why = rule.get(dim, "") if reduction.size <= full else f"the checkpoint has only {full}"
    raise UserError(f"size={reduction.size} is not possible for dim={dim}: {why}; the nearest allowed: {nearest}.")

"""Reductions of a pretrained encoder: model in, smaller model out.

Knows nothing of files, experiment tracking or the command line.
"""

from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from ..models.architectures import sizes_of
from ..plan.sections import Reduction
from .correction import correct_hidden, correct_pruned
from .heads import prune_heads, regroup_heads
from .hidden import narrowed, select_width, slice_width
from .importance import PerLayer, best, part_scores
from .intermediate import prune_units
from .layers import drop_layers, select_layers
from .observed import Batch
from .sizes import target_sizes


@dataclass(frozen=True)
class Cut:
    """A smaller network, and where its hidden states are to be found in the network that it was cut from.

    Attributes:
        model: the smaller one.
        layers: which layers of the original stay, ascending.
        basis: ``(hidden, hidden kept)`` directions of the original's residual stream that stay; ``None`` where all do.
    """

    model: PreTrainedModel
    layers: list[int]
    basis: torch.Tensor | None = None


def reduce_model(
    model: PreTrainedModel, reductions: dict[str, Reduction], batches: list[Batch], seed: int
) -> PreTrainedModel:
    """The smaller network of :func:`cut`."""
    return cut(model, reductions, batches, seed).model


def cut(
    model: PreTrainedModel,
    reductions: dict[str, Reduction],
    batches: list[Batch],
    seed: int,
    scores: dict[str, PerLayer] | None = None,
) -> Cut:
    """Make a classifier smaller along one or several dimensions.

    Depth comes first, so that what follows calibrates on fewer layers; then heads and feed-forward units, which are
    refitted together; width last, since it narrows what they left.

    Args:
        model: a pretrained classifier of any registered family; it is left as it is.
        reductions: by dimension (``heads``, ``intermediate``, ``hidden``, ``layers``).
        batches: calibration batches of training text.
        seed: of everything random in the choice, and of fresh weights where ``init`` is ``random``.
        scores: what :func:`importance_of` says of the network, where it is known; of a shallower one it does not hold.

    Raises:
        UserError: a size that the architecture does not allow.
    """
    fresh = any(reduction.init == "random" for reduction in reductions.values())
    if fresh:
        reductions = {dim: _any_choice(dim, reduction) for dim, reduction in reductions.items()}
    full = sizes_of(model)
    sizes = target_sizes(full, reductions)
    layers, basis = list(range(full.layers)), None
    if "layers" in reductions:
        layers = select_layers(model, sizes["layers"], reductions["layers"].strategy, batches)
    model = _prune(model, layers, reductions, sizes, batches, seed, None if "layers" in reductions else scores)
    if "hidden" in reductions:
        how = reductions["hidden"]
        width = select_width(model, sizes["hidden"], how.criterion, batches, seed, how.strategy)
        narrow, basis = slice_width(model, width), width.basis
        model = correct_hidden(model, narrow, width, batches) if how.correct == "least_squares" else narrow
    if fresh:
        torch.manual_seed(seed)
        model = type(model)(model.config).to(model.device).eval()
    return Cut(model, layers, basis)


def _prune(
    model: PreTrainedModel,
    layers: list[int],
    reductions: dict[str, Reduction],
    sizes: dict[str, int],
    batches: list[Batch],
    seed: int,
    scores: dict[str, PerLayer] | None,
) -> PreTrainedModel:
    """Keep some layers, remove heads and feed-forward units, and refit what is left to what it was."""
    refit = {dim for dim, reduction in reductions.items() if reduction.correct == "least_squares"}
    whole = model
    if "layers" in reductions:
        model = drop_layers(model, layers)
        whole = whole if "layers" in refit else model
    cuts = {dim: reductions[dim] for dim in ("heads", "intermediate") if dim in reductions}
    if "heads" in cuts and cuts["heads"].strategy == "regroup":
        model = regroup_heads(model, sizes["heads"])
        del cuts["heads"]
        refit -= {"heads"}  # Other softmaxes, the same weights.
    # A width that is cut afterwards leaves room for so many units.
    room = narrowed(sizes_of(model), sizes["hidden"]).intermediate if "hidden" in reductions else None
    scores = scores or importance_of(model, cuts, batches, seed)
    for dim, each in cuts.items():
        prune = prune_heads if dim == "heads" else prune_units
        most = room if dim == "intermediate" else None
        model = prune(model, best(scores[dim], sizes[dim], each.spread, most))
    if refit & {"layers", "heads", "intermediate"}:
        scope = {dim: dim in refit for dim in ("heads", "intermediate")}
        correct_pruned(whole, model, batches, **scope, kept_layers=layers if "layers" in refit else None)
    return model


def importance_of(
    model: PreTrainedModel, reductions: dict[str, Reduction], batches: list[Batch], seed: int
) -> dict[str, PerLayer]:
    """How much each head and each feed-forward unit matters, by those dimensions that a reduction cuts."""
    criteria = {dim: each.criterion for dim, each in reductions.items() if dim in ("heads", "intermediate")}
    return part_scores(model, criteria, batches, seed)


def needs_calibration(reduction: Reduction) -> bool:
    """Whether a reduction looks at calibration text at all."""
    looks = reduction.criterion in ("gradient", "fisher", "activation") and reduction.strategy != "regroup"
    return reduction.init == "pretrained" and (
        looks or reduction.strategy == "influence" or reduction.correct == "least_squares"
    )


def _any_choice(dim: str, reduction: Reduction) -> Reduction:
    """Which weights stay is of no account where they are about to be drawn afresh."""
    strategy = "first" if dim == "layers" else reduction.strategy
    return reduction.model_copy(update={"strategy": strategy, "criterion": "first", "correct": "none"})

"""How much of each dimension stays: a size, a share of it, or what a budget leaves."""

from collections.abc import Callable, Iterator

from transformers import PreTrainedModel

from ..errors import UserError
from ..models.architectures import Sizes, family_of, sizes_of
from ..plan.sections import Reduction
from .hidden import narrowed

# Length of the text whose FLOPs are compared, and a budget is a share of.
FLOPS_TOKENS = 128
# How far a budget may be overspent; whole layers are coarse.
TOLERANCE = 0.06


def target_sizes(model: PreTrainedModel, reductions: dict[str, Reduction]) -> dict[str, int]:
    """The size to cut each dimension to.

    Raises:
        UserError: a size that is not allowed, or a budget that is out of reach.
    """
    full, budgets = sizes_of(model), {reduction.budget for reduction in reductions.values()}
    if budgets in (set(), {None}):
        return _sizes(full, reductions)
    (budget,) = budgets
    quantity, share = budget.split(":")
    cost = {"flops": flops, "parameters": parameters}[quantity](model)
    limit = float(share) * cost(full)
    costs = [(cost(_cut(full, sizes)), sizes) for sizes in _candidates(full, reductions)]
    (tolerance,) = {reduction.budget_tolerance for reduction in reductions.values()}
    most = limit * (1 + (TOLERANCE if tolerance is None else tolerance))
    within = [(spent, sizes) for spent, sizes in costs if spent <= most]
    if not within:
        raise UserError(_out_of_reach(budget, *min(costs, key=lambda each: each[0]), cost(full)))
    return min(within, key=lambda each: abs(each[0] - limit))[1]


def flops(model: PreTrainedModel) -> Callable[[Sizes], float]:
    """FLOPs of one text of 128 tokens, by the dimensions of a network that is otherwise like this one.

    Those of the matrix products; a multiply-add counts as two.
    """
    family, tokens = family_of(model), FLOPS_TOKENS

    def of(sizes: Sizes) -> float:
        attention = [heads * sizes.head_size for heads in sizes.heads_by_layer]
        products = 4 * sizes.hidden * sum(attention) + 2 * sizes.hidden * sum(sizes.intermediate_by_layer)
        head = sizes.hidden * (len(family.head_hidden) * sizes.hidden + model.config.num_labels)
        return 2.0 * (tokens * products + 2 * tokens**2 * sum(attention) + head)

    return of


def parameters(model: PreTrainedModel) -> Callable[[Sizes], float]:
    """Parameters by the dimensions of a network that is otherwise like this one, embeddings and head included."""
    family = family_of(model)
    body = model.get_submodule(family.backbone)
    rows = sum(body.get_submodule(name).weight.shape[0] for name in family.embeddings)

    def of(sizes: Sizes) -> float:
        hidden, units = sizes.hidden, sum(sizes.intermediate_by_layer)
        attention = sum(heads * sizes.head_size for heads in sizes.heads_by_layer)
        weights = 4 * hidden * attention + 2 * hidden * units
        biases_and_norms = 3 * attention + units + sizes.layers * 6 * hidden
        head = len(family.head_hidden) * hidden * (hidden + 1) + model.config.num_labels * (hidden + 1)
        return float((rows + 2) * hidden + weights + biases_and_norms + head)

    return of


def _candidates(full: Sizes, reductions: dict[str, Reduction]) -> Iterator[dict[str, int]]:
    """What the dimensions can be cut to together: of several, the same share of each."""
    shares = {
        size / getattr(full, dim)
        for dim, reduction in reductions.items()
        for size in allowed_sizes(full, dim, reduction.strategy)
    }
    for share in sorted(shares):
        yield _sizes(full, {dim: each.model_copy(update={"keep": share}) for dim, each in reductions.items()})


def _cut(full: Sizes, sizes: dict[str, int]) -> Sizes:
    """The dimensions of what is left; where layers differ, of as many layers from the first on."""
    layers = sizes.get("layers", full.layers)
    by_layer = {
        f"{dim}_by_layer": [min(sizes.get(dim, most), most) for most in getattr(full, f"{dim}_by_layer")[:layers]]
        for dim in ("heads", "intermediate")
    }
    left = full.resized(layers=layers, **by_layer)
    return narrowed(left, sizes["hidden"]) if "hidden" in sizes else left


def _out_of_reach(budget: str, least: float, sizes: dict[str, int], full: float) -> str:
    dim, quantity = "+".join(sizes), budget.split(":")[0]
    smallest = " and ".join(f"{name}={size}" for name, size in sizes.items())
    return (
        f"budget={budget} is out of reach of dim={dim}: even {smallest} leaves {least / full:.0%} of the {quantity}."
        f" Give {quantity}:{least / full:.2f} or more, or more dimensions."
    )


def _sizes(full: Sizes, reductions: dict[str, Reduction]) -> dict[str, int]:
    return {dim: target_size(_before(full, dim, reductions), dim, each) for dim, each in reductions.items()}


def _before(sizes: Sizes, dim: str, reductions: dict[str, Reduction]) -> Sizes:
    """The dimensions that a share is of: the feed-forward width follows the hidden size, and what stays is of that."""
    if dim == "intermediate" and "hidden" in reductions:
        return narrowed(sizes, target_size(sizes, "hidden", reductions["hidden"]))
    return sizes


def allowed_sizes(sizes: Sizes, dim: str, strategy: str) -> list[int]:
    """The sizes that an architecture can be cut to along a dimension, ascending."""
    if dim == "hidden":
        # Every head keeps a whole number of units, at least one.
        step = sizes.hidden // sizes.head_size
        return [units * step for units in range(1, sizes.head_size + 1) if units * step <= sizes.hidden]
    if dim == "heads" and strategy == "regroup":
        return [heads for heads in range(1, sizes.heads + 1) if sizes.hidden % heads == 0]
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

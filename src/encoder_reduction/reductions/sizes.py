"""How much of each dimension stays: a size, or a share of it, as near as the architecture allows."""

from ..errors import UserError
from ..models.architectures import Sizes
from ..plan.sections import Dimension, Reduction
from .hidden import narrowed


def target_sizes(full: Sizes, reductions: dict[Dimension, Reduction]) -> dict[Dimension, int]:
    """The size to cut each dimension to.

    Raises:
        UserError: a size that is not allowed.
    """
    return {dim: target_size(_before(full, dim, reductions), dim, each) for dim, each in reductions.items()}


def cut_to(full: Sizes, sizes: dict[Dimension, int]) -> Sizes:
    """The dimensions of what is left; where layers differ, of as many layers from the first on."""
    layers = sizes.get("layers", full.layers)
    by_layer = {
        f"{dim}_by_layer": [min(sizes.get(dim, most), most) for most in getattr(full, f"{dim}_by_layer")[:layers]]
        for dim in ("heads", "intermediate")
    }
    left = full.resized(layers=layers, **by_layer)
    return narrowed(left, sizes["hidden"]) if "hidden" in sizes else left


def _before(sizes: Sizes, dim: Dimension, reductions: dict[Dimension, Reduction]) -> Sizes:
    """The dimensions that a share is of: the feed-forward width follows the hidden size, and what stays is of that."""
    if dim == "intermediate" and "hidden" in reductions:
        return narrowed(sizes, target_size(sizes, "hidden", reductions["hidden"]))
    return sizes


def allowed_sizes(sizes: Sizes, dim: Dimension, strategy: str) -> list[int]:
    """The sizes that an architecture can be cut to along a dimension, ascending."""
    if dim == "hidden":
        # Every head keeps a whole number of units, at least one.
        step = sizes.hidden // sizes.head_size
        return [units * step for units in range(1, sizes.head_size + 1) if units * step <= sizes.hidden]
    if dim == "heads" and strategy == "regroup":
        return [heads for heads in range(1, sizes.heads + 1) if sizes.hidden % heads == 0]
    return list(range(1, getattr(sizes, dim) + 1))


def target_size(sizes: Sizes, dim: Dimension, reduction: Reduction) -> int:
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

"""Cutting depth: which transformer layers stay, and the shallower network made of them."""

from transformers import PreTrainedModel

from ..models.architectures import family_of, sizes_of, with_sizes
from .importance import layer_influence
from .observed import Batch


def select_layers(model: PreTrainedModel, size: int, strategy: str, batches: list[Batch] | None = None) -> list[int]:
    """Choose the layers that stay, in ascending order.

    Args:
        model: the full classifier.
        size: number of layers to keep.
        strategy: ``alternate`` (evenly spaced from the first: 0, 2, 4, ...), ``first``, ``last``,
            ``ends`` (evenly spaced, the first and the last included) or ``influence`` (drop those that
            change their input least; Men et al. 2024, "ShortGPT", section 3.2).
        batches: calibration batches; needed by ``influence`` only.
    """
    depth = sizes_of(model).layers
    if strategy == "influence":
        influence = layer_influence(model, batches)
        return sorted(influence.topk(size).indices.tolist())
    return {
        "alternate": [index * depth // size for index in range(size)],
        "first": list(range(size)),
        "last": list(range(depth - size, depth)),
        "ends": [round(index * (depth - 1) / max(size - 1, 1)) for index in range(size)],
    }[strategy]


def drop_layers(model: PreTrainedModel, kept: list[int]) -> PreTrainedModel:
    """A copy of the classifier with only the given layers; every kept weight is untouched."""
    family, sizes = family_of(model), sizes_of(model)
    by_layer = {
        name: [getattr(sizes, name)[index] for index in kept] for name in ("heads_by_layer", "intermediate_by_layer")
    }
    reduced = with_sizes(model, sizes.resized(layers=len(kept), **by_layer))
    prefix = f"{family.backbone}.{family.layers}."
    position = {old: new for new, old in enumerate(kept)}
    state = {}
    for name, tensor in model.state_dict().items():
        if name.startswith(prefix):
            index, _, rest = name.removeprefix(prefix).partition(".")
            if int(index) not in position:
                continue
            name = f"{prefix}{position[int(index)]}.{rest}"
        state[name] = tensor
    reduced.load_state_dict(state)
    return reduced

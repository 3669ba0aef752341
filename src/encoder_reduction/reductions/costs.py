"""What a network costs by its dimensions: parameters and FLOPs, from closed formulas."""

from collections.abc import Callable

from transformers import PreTrainedModel

from ..models.architectures import Sizes, family_of

# Length of the text whose FLOPs are compared, and a budget is a share of.
FLOPS_TOKENS = 128

Cost = Callable[[Sizes], float]


def flops(model: PreTrainedModel) -> Cost:
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


def parameters(model: PreTrainedModel) -> Cost:
    """Parameters by the dimensions of a network that is otherwise like this one, embeddings and head included."""
    family, rows = family_of(model), _embedding_rows(model)

    def of(sizes: Sizes) -> float:
        hidden, units = sizes.hidden, sum(sizes.intermediate_by_layer)
        attention = sum(heads * sizes.head_size for heads in sizes.heads_by_layer)
        weights = 4 * hidden * attention + 2 * hidden * units
        biases_and_norms = 3 * attention + units + sizes.layers * 6 * hidden
        head = len(family.head_hidden) * hidden * (hidden + 1) + model.config.num_labels * (hidden + 1)
        return float((rows + 2) * hidden + weights + biases_and_norms + head)

    return of


def embedding_share(model: PreTrainedModel, full: Sizes) -> float:
    """What the embeddings are of all parameters."""
    return _embedding_rows(model) * full.hidden / parameters(model)(full)


def _embedding_rows(model: PreTrainedModel) -> int:
    family = family_of(model)
    body = model.get_submodule(family.backbone)
    return sum(body.get_submodule(name).weight.shape[0] for name in family.embeddings)

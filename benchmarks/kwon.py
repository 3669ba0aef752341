"""Kwon et al. 2022, "A Fast Post-Training Pruning Framework for Transformers", written from the paper, to compare with.

Masks on heads and on feed-forward units of a fine-tuned network are searched under a limit of multiply-accumulates
by the diagonal of the Fisher information (section 4.1), rearranged within each layer by its block of it (4.2), and
tuned to real values by least squares on what each sublayer hands on (4.3). No weight is trained.
"""

import copy
import math

import torch
from torch import nn
from transformers import PreTrainedModel

from encoder_reduction.models.architectures import family_of, sizes_of
from encoder_reduction.reductions.heads import prune_heads
from encoder_reduction.reductions.intermediate import prune_units
from encoder_reduction.reductions.observed import Batch, inputs_of

_TOKENS = 32
# What the paper lets a tuned mask be; beyond that tuning stops and the layer keeps its mask (section 4.3).
_ACCEPTED = 10.0


class Masked:
    """A network whose heads and units can be scaled.

    Attributes:
        masks: of each sublayer, attention and feed-forward in turn, ``(heads,)`` or ``(units,)``.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        family, sizes = family_of(model), sizes_of(model)
        self.model = model.eval()
        self.modules: list[nn.Linear] = []
        for layer in family.layer_list(model):
            self.modules += [layer.get_submodule(family.attention_output), layer.get_submodule(family.output)]
        self.widths = [sizes.head_size, 1] * sizes.layers
        self.masks = [
            torch.ones(module.in_features // width) for module, width in zip(self.modules, self.widths, strict=True)
        ]
        self.seen: dict[int, torch.Tensor] = {}
        for index, module in enumerate(self.modules):
            module.register_forward_pre_hook(lambda module, args, index=index: self._scale(index, args[0]))

    def _scale(self, index: int, inputs: torch.Tensor) -> tuple[torch.Tensor]:
        self.seen[index] = inputs
        return (inputs * self.masks[index].repeat_interleave(self.widths[index]),)


def prune(model: PreTrainedModel, batches: list[Batch], heads: int, units: int) -> PreTrainedModel:
    """A network of as many multiply-accumulates as one with so many heads and units in each layer.

    Args:
        model: fine-tuned; it is left as it is.
        batches: calibration batches with labels.
        heads, units: of a layer in the mean; they state the limit and not what is kept of each.
    """
    sizes = sizes_of(model)
    cost_head = sizes.head_size * (4 * sizes.hidden + 2 * _TOKENS)
    cost_unit = 2 * sizes.hidden
    limit = sizes.layers * (heads * cost_head + units * cost_unit)
    masked = Masked(copy.deepcopy(model))
    gradients = _gradients(masked, batches)
    kept = _rearranged(gradients, _searched(gradients, limit, cost_head, cost_unit))
    masked.masks = [mask.float() for mask in kept]
    _tune(masked, Masked(copy.deepcopy(model)), batches)
    chosen = [mask.nonzero().flatten() for mask in kept]
    pruned = prune_units(prune_heads(model, chosen[0::2]), chosen[1::2])
    family = family_of(pruned)
    with torch.no_grad():
        for index, layer in enumerate(family.layer_list(pruned)):
            for name, place in ((family.attention_output, 2 * index), (family.output, 2 * index + 1)):
                scale = masked.masks[place][chosen[place]].repeat_interleave(masked.widths[place])
                layer.get_submodule(name).weight.mul_(scale)
    return pruned


def _gradients(masked: Masked, batches: list[Batch]) -> list[torch.Tensor]:
    """Of each sublayer, the derivative of every text's loss by its mask: ``(texts, parts)``."""
    found: list[list[torch.Tensor]] = [[] for _ in masked.masks]
    for batch in batches:
        for index in range(len(batch["labels"])):
            one = {name: tensor[index : index + 1] for name, tensor in batch.items()}
            masked.masks = [mask.detach().requires_grad_() for mask in masked.masks]
            loss = nn.functional.cross_entropy(masked.model(**inputs_of(one)).logits, one["labels"])
            for rows, gradient in zip(found, torch.autograd.grad(loss, masked.masks), strict=True):
                rows.append(gradient)
    masked.masks = [mask.detach() for mask in masked.masks]
    return [torch.stack(rows) for rows in found]


def _searched(gradients: list[torch.Tensor], limit: float, cost_head: int, cost_unit: int) -> list[torch.Tensor]:
    """The masks that lose the least of the Fisher information's diagonal within the limit (algorithm 1)."""
    scores = [gradient.square().sum(0) for gradient in gradients]
    of_heads, of_units = torch.cat(scores[0::2]), torch.cat(scores[1::2])
    by_head, by_unit = of_heads.sort(descending=True), of_units.sort(descending=True)
    best = (math.inf, 0, 0)
    for heads in range(len(of_heads) + 1):
        units = min(int((limit - heads * cost_head) // cost_unit), len(of_units))
        if units >= 0:
            lost = by_head.values[heads:].sum() + by_unit.values[units:].sum()
            best = min(best, (lost.item(), heads, units))
    kept_heads, kept_units = torch.zeros_like(of_heads), torch.zeros_like(of_units)
    kept_heads[by_head.indices[: best[1]]] = 1
    kept_units[by_unit.indices[: best[2]]] = 1
    heads_by_layer = kept_heads.split([len(each) for each in scores[0::2]])
    units_by_layer = kept_units.split([len(each) for each in scores[1::2]])
    masks = [mask for pair in zip(heads_by_layer, units_by_layer, strict=True) for mask in pair]
    for mask, score in zip(masks, scores, strict=True):
        if not mask.any():  # A sublayer without any part cannot be built; its best one costs next to nothing.
            mask[score.argmax()] = 1
    return masks


def _rearranged(gradients: list[torch.Tensor], masks: list[torch.Tensor]) -> list[torch.Tensor]:
    """Exchange parts within a layer while its block of the Fisher information says that less is lost (algorithm 2)."""
    result = []
    for gradient, mask in zip(gradients, masks, strict=True):
        fisher, off = gradient.T @ gradient, 1 - mask
        for part in torch.argsort(fisher.diagonal() * off, descending=True)[: int(off.sum())].tolist():
            # With this part on again: what each part that is on would add if it went in its place.
            off[part] = 0
            added = fisher.diagonal() + 2 * fisher @ off
            added[off.bool()] = torch.inf
            off[added.argmin()] = 1
        result.append(1 - off)
    return result


@torch.no_grad()
def _tune(masked: Masked, whole: Masked, batches: list[Batch]) -> None:
    """Scale what is kept so that each sublayer hands on what the whole network's does; in place, first to last."""
    own_sums, whole_sums, aims = _sums(masked), _sums(whole), []
    for batch in batches:
        whole.model(**inputs_of(batch))
        aims.append({place: each[batch["attention_mask"].bool()] for place, each in whole_sums.items()})
    for index, module in enumerate(masked.modules):
        parts = masked.masks[index].nonzero().flatten()
        rows, wanted = [], []
        for batch, aim in zip(batches, aims, strict=True):
            tokens = batch["attention_mask"].bool()
            masked.model(**inputs_of(batch))
            inputs = masked.seen[index][tokens].unflatten(-1, (-1, masked.widths[index]))[:, parts]
            own = own_sums[index][tokens]
            given = inputs * masked.masks[index][parts][:, None]
            rows.append(inputs)
            residual = own - given.flatten(1) @ _columns(module, parts, masked.widths[index])
            wanted.append(aim[index] - residual)
        scales = _least_squares(torch.cat(rows), _columns(module, parts, masked.widths[index]), torch.cat(wanted))
        if scales.abs().max() > _ACCEPTED:
            return
        masked.masks[index][parts] = scales.float()


def _sums(network: Masked) -> dict[int, torch.Tensor]:
    """What enters the LayerNorm after each sublayer, residual included, at the latest call."""
    family, found = family_of(network.model), {}
    norms = [
        layer.get_submodule(name)
        for layer in family.layer_list(network.model)
        for name in (family.attention_norm, family.output_norm)
    ]
    for place, norm in enumerate(norms):
        norm.register_forward_pre_hook(lambda module, args, place=place: found.__setitem__(place, args[0]))
    return found


def _columns(module: nn.Linear, parts: torch.Tensor, width: int) -> torch.Tensor:
    """What the units of some parts write: ``(parts * width, hidden)``."""
    return module.weight.T.unflatten(0, (-1, width))[parts].flatten(0, 1)


def _least_squares(inputs: torch.Tensor, columns: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Scales ``(parts,)`` near one, with which the parts write what is wanted (section 4.3).

    The paper solves ``min |A r - b|^2 + |r - 1|^2`` with LSMR; here by its normal equations, which need one pass only:
    ``A^T A`` is the units' second moment times the products of what they write, summed over the units of a part.
    """
    count, width, units = inputs.shape[1], inputs.shape[2], inputs.flatten(1).double()
    columns, wanted = columns.double(), wanted.double()

    def of_parts(moment: torch.Tensor) -> torch.Tensor:
        return moment.view(count, width, count, width).sum(dim=(1, 3))

    gram = of_parts((units.T @ units) * (columns @ columns.T))
    left_over = wanted - units @ columns
    slope = ((units.T @ left_over) * columns).sum(dim=1).view(count, width).sum(dim=1)
    return 1 + torch.linalg.solve(gram + torch.eye(count, dtype=torch.double), slope)

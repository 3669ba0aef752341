"""What a CPU trains fastest: attention written out but for long texts, and dropout of few random bits.

Torch's fused attention needs no memory for the attention weights, which counts with many tokens; with few, its backward
pass takes several times as long as the products that it consists of, and with dropout torch writes attention out
itself, in single precision. For dropout torch draws a random number a value, on one processor; sixteen bits say
as well whether a value stays. docs/performance.md has the times.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from .attention import attending_by

# Tokens of a padded batch from which the fused kernel is faster.
FUSED_FROM = 384
_ATTENTION = "encoder_reduction_cpu"
_BITS = 16


@contextmanager
def fast_on_a_cpu(model: PreTrainedModel) -> Iterator[None]:
    """Within the block a network in training mode computes as a CPU does fastest.

    Random bits are torch's own generator's, so that its state, and the seed, decide what is dropped.
    """
    dropping = [module for module in model.modules() if isinstance(module, nn.Dropout)]
    for module in dropping:
        module.forward = partial(_forward, module)
    try:
        with attending_by(model, _ATTENTION):
            yield
    finally:
        for module in dropping:
            del module.forward


def drop(values: torch.Tensor, share: float) -> torch.Tensor:
    """The values with a share of them, to the nearest 65,536th, set to zero at random and the others scaled up."""
    cut = round(share * 2**_BITS)
    drawn = torch.empty(-(-values.numel() // (64 // _BITS)), dtype=torch.int64).random_(-(2**63), None)
    bits = drawn.view(torch.int16)[: values.numel()].view(values.shape)
    return values * (bits >= cut - 2 ** (_BITS - 1)).to(values.dtype).mul_(1 / (1 - cut / 2**_BITS))


def _forward(module: nn.Dropout, values: torch.Tensor) -> torch.Tensor:
    return drop(values, module.p) if module.training and module.p else values


def _attend(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    """Transformers' interface of an attention function.

    Args:
        module: whose attention it is.
        query, key, value: ``(batch, heads, tokens, head size)``.
        attention_mask: ``(batch, 1, tokens, tokens)``, false where a text is padded; ``None`` where none is.
        dropout: share of the attention weights.
        scaling: of the scores.
        more: what sdpa takes besides.

    Returns:
        ``(batch, tokens, heads, head size)``, and no weights.
    """
    if not module.training or (query.shape[2] >= FUSED_FROM and not dropout):
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **more)
    scores = (query * scaling) @ key.transpose(2, 3)
    if attention_mask is not None:
        padded = ~attention_mask[:, :, :1]  # the same for every query
        scores = scores + torch.zeros_like(padded, dtype=scores.dtype).masked_fill(padded, -torch.inf)
    weights = scores.softmax(dim=-1)
    weights = drop(weights, dropout) if dropout else weights
    return (weights @ value).transpose(1, 2).contiguous(), None


AttentionInterface.register(_ATTENTION, _attend)
AttentionMaskInterface.register(_ATTENTION, sdpa_mask)

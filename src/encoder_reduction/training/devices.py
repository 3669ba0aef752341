"""How a network trains and is scored fastest where it is."""

from contextlib import AbstractContextManager

import torch
from transformers import PreTrainedModel

from .cpu import fast_on_a_cpu
from .gpu import fast_on_a_gpu


def fast(model: PreTrainedModel) -> AbstractContextManager[None]:
    """Within the block the network computes by the kernels that this machine is fastest with."""
    return fast_on_a_gpu(model) if torch.cuda.is_available() else fast_on_a_cpu(model)

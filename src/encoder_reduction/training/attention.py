"""Which kernel really computes attention: torch chooses by device, length, mask and number format."""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

# By the operator that torch runs; anything else is products and a softmax.
_KERNELS = {
    "_scaled_dot_product_flash_attention": "flash",
    "_scaled_dot_product_flash_attention_for_cpu": "flash",
    "_scaled_dot_product_efficient_attention": "memory-efficient",
    "_scaled_dot_product_cudnn_attention": "cudnn",
}
WRITTEN_OUT = "written out"


def attention_kernels(forward: Callable[[], Any]) -> str:
    """The kernels that a forward pass runs attention with, as it is now: ``flash``, or several joined by ``+``."""
    found = _Operators()
    with torch.no_grad(), found:
        forward()
    return "+".join(sorted({_KERNELS[name] for name in found.names if name in _KERNELS})) or WRITTEN_OUT


class _Operators(TorchDispatchMode):
    """Notes the names of all operators that are run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(function.overloadpacket.__name__)
        return function(*args, **(kwargs or {}))

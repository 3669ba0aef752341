"""What computes attention: a function of ours instead of torch's choice, and the kernel that it really came to."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel

# By the operator that torch runs; anything else is products and a softmax.
_KERNELS = {
    "_scaled_dot_product_flash_attention": "flash",
    "_scaled_dot_product_flash_attention_for_cpu": "flash",
    "_scaled_dot_product_efficient_attention": "memory-efficient",
    "_scaled_dot_product_cudnn_attention": "cudnn",
}
WRITTEN_OUT = "written out"


@contextmanager
def attending_by(model: PreTrainedModel, registered: str) -> Iterator[None]:
    """Within the block a network that leaves attention to torch computes it by the function of this name."""
    configs = {id(module.config): module.config for module in model.modules() if hasattr(module, "config")}
    attending = [config for config in configs.values() if config._attn_implementation == "sdpa"]
    for config in attending:
        config._attn_implementation = registered
    try:
        yield
    finally:
        for config in attending:
            config._attn_implementation = "sdpa"


class Kernels(TorchDispatchMode):
    """Notes the kernels that the block runs attention with; torch chooses by device, length, mask and number format."""

    def __init__(self) -> None:
        super().__init__()
        self._found: set[str] = set()

    @property
    def of_attention(self) -> str:
        """As ``flash``, or several joined by ``+``."""
        return "+".join(sorted(self._found)) or WRITTEN_OUT

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        if name in _KERNELS:
            self._found.add(_KERNELS[name])
        return function(*args, **(kwargs or {}))

"""What the plan's precision means on this machine."""

import torch

from ..errors import UserError


def resolve_precision(precision: str) -> str:
    """What ``auto`` means on this machine: ``fp16`` on CUDA, ``bf16`` on a CPU that has it, else ``fp32``.

    Raises:
        UserError: fp16 without a CUDA GPU.
    """
    cuda = torch.cuda.is_available()
    if precision == "fp16" and not cuda:
        raise UserError("precision=fp16 needs a CUDA GPU and none is present; choose auto, bf16 or fp32.")
    if precision != "auto":
        return precision
    if cuda:
        return "fp16"
    capabilities = torch.cpu.get_capabilities()
    return "bf16" if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") else "fp32"


def calibration_arithmetic(precision: str) -> torch.autocast:
    """A block in which networks walk through calibration text as this precision has it.

    In bfloat16 on a CPU, where it is twice as fast; elsewhere in single precision, since half precision would lose
    small gradients. Weights change meanwhile, so none is kept converted.
    """
    bf16 = resolve_precision(precision) == "bf16"
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16, cache_enabled=False)


def compute_dtype(precision: str) -> torch.dtype:
    """The number format that matrix products are computed in at this precision."""
    return {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}[resolve_precision(precision)]

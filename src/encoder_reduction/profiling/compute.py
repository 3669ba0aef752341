"""Floating-point operations of a network, and what a large matrix product reaches on the same device."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.polynomial import polynomial
from torch.utils.flop_counter import FlopCounterMode

from .latency import measure

_LENGTHS = (8, 16, 24)
_PRODUCT_SIZE = {"cuda": 8192, "cpu": 2048}


@dataclass(frozen=True)
class Flops:
    """FLOPs of one example as a polynomial of its padded length; a multiply-add counts as two.

    Matrix products are counted, as is usual; LayerNorm, softmax and GELU are not. A transformer's matrix
    products are of second degree in the length, so three lengths determine the polynomial.

    Attributes:
        coefficients: constant, per token, per token squared; of the forward pass.
    """

    coefficients: tuple[float, float, float]

    def forward(self, tokens: float) -> float:
        """FLOPs of the forward pass of one example of this many tokens, padding included."""
        return float(polynomial.polyval(tokens, self.coefficients))

    def training(self, tokens: float) -> float:
        """The same of forward and backward pass, where each product has two, one by each of its factors."""
        return 3 * self.forward(tokens)


@dataclass(frozen=True)
class Shape:
    """What was computed for one batch.

    Attributes:
        examples: rows of the batch.
        padded: tokens that each row was padded to.
        tokens: tokens of all rows together that are no padding.
    """

    examples: int
    padded: int
    tokens: int

    @classmethod
    def of(cls, attention_mask: torch.Tensor) -> "Shape":
        """The shape of a batch with an attention mask ``(examples, padded)``."""
        return cls(*attention_mask.shape, tokens=int(attention_mask.sum()))


@torch.no_grad()
def count_flops(forward: Callable[[int], object]) -> Flops:
    """Count with torch's FlopCounterMode.

    Args:
        forward: computes one example of so many tokens, on the ``meta`` device, where nothing is computed; with
            attention that is written out (``eager``), since the counter does not know the CPU's fused kernel.
    """
    counts = []
    for length in _LENGTHS:
        with FlopCounterMode(display=False) as counter:
            forward(length)
        counts.append(counter.get_total_flops())
    return Flops(tuple(map(float, polynomial.polyfit(_LENGTHS, counts, 2))))


def total(flops: Callable[[float], float], shapes: Iterable[Shape]) -> float:
    """FLOPs of all batches together."""
    return float(np.sum([shape.examples * flops(shape.padded) for shape in shapes]))


def matrix_product_rate(device: torch.device, dtype: torch.dtype, time_budget: float) -> float:
    """FLOP/s that the product of two large square matrices reaches on the device, the median of several."""
    size = _PRODUCT_SIZE[device.type]
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    product = measure(
        [lambda: left @ right], 1, device=device, relative_width=0.05, min_repetitions=3, time_budget=time_budget
    )
    return 2 * size**3 / (product.ms_per_example / 1000)

"""A network seen at work on calibration text: what enters and leaves its modules, and in which precision."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, TypeVar

import torch
from torch import nn

# ``input_ids`` and ``attention_mask`` ``(batch, tokens)`` and ``labels`` ``(batch,)``.
Batch = dict[str, torch.Tensor]
Function = TypeVar("Function", bound=Callable[..., Any])


def full_precision(function: Function) -> Function:
    """Networks may walk through calibration text in bfloat16; what is made of it, and of weights, keeps precision."""

    @wraps(function)
    def computed(*args: Any, **kwargs: Any) -> Any:
        # A new block at every call: one that is entered twice forgets what was before it.
        with torch.autocast("cpu", enabled=False):
            return function(*args, **kwargs)

    return computed


def inputs_of(batch: Batch) -> Batch:
    """What the model takes of a batch: everything but the labels."""
    return {name: tensor for name, tensor in batch.items() if name != "labels"}


@contextmanager
def inference(model: nn.Module) -> Iterator[None]:
    """Evaluation mode (no dropout) for the block, the former mode afterwards."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


@contextmanager
def recorded_inputs(modules: list[nn.Module]) -> Iterator[dict[nn.Module, torch.Tensor]]:
    """The first input of each module at its latest call, while the block runs."""

    def record(module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        store[module] = args[0]

    store: dict[nn.Module, torch.Tensor] = {}
    yield from _hooked(store, [module.register_forward_pre_hook(record) for module in modules])


@contextmanager
def recorded_outputs(modules: list[nn.Module]) -> Iterator[dict[nn.Module, torch.Tensor]]:
    """The output of each module at its latest call, while the block runs."""

    def record(module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        store[module] = output

    store: dict[nn.Module, torch.Tensor] = {}
    yield from _hooked(store, [module.register_forward_hook(record) for module in modules])


def _hooked(store: dict, handles: list) -> Iterator[dict]:
    try:
        yield store
    finally:
        for handle in handles:
            handle.remove()

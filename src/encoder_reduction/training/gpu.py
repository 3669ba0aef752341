"""What a GPU trains fastest: attention by kernels that any length starts at once, and passes replayed as CUDA graphs.

A GPU computes an encoder's step in less time than a processor takes to launch its thousand kernels one by one. As a
graph they are launched together, with the arithmetic and the random numbers that they have by themselves. There is one
graph for each shape of a batch, so batches are padded to few lengths. docs/performance.md has the times.
"""

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from ..errors import one_line
from .attention import attending_by

_LOGGER = logging.getLogger(__name__)

VARIABLE = "ENCODER_REDUCTION_CUDA_GRAPHS"
Inputs = dict[str, torch.Tensor]
Passes = Callable[[Inputs], torch.Tensor]

# Batches are padded to multiples of so many tokens.
MULTIPLE = 32
# Recording a shape takes about as long as so many replays save.
WORTH_RECORDING = 3
# Not cuDNN's, which torch prefers on the newest GPUs: it is built for one shape, which takes as long as many steps.
KERNELS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
_ATTENTION = "encoder_reduction_gpu"


@contextmanager
def fast_on_a_gpu(model: PreTrainedModel) -> Iterator[None]:
    """Within the block attention takes no kernel that is built for one length, and nothing waits for the GPU.

    By itself transformers looks at each batch's mask, to leave it out where no text is padded.
    """
    with attending_by(model, _ATTENTION), sdpa_kernel(KERNELS):
        yield


def _mask(*arguments: Any, **more: Any) -> torch.Tensor:
    return sdpa_mask(*arguments, **more | {"allow_is_bidirectional_skip": False})


AttentionInterface.register(_ATTENTION, sdpa_attention_forward)
AttentionMaskInterface.register(_ATTENTION, _mask)


@dataclass(frozen=True)
class Recording:
    """A forward and backward pass of one shape.

    Attributes:
        inputs: what it reads, written over before each replay.
        loss: what it writes besides gradients, a scalar.
        replay: launches it.
    """

    inputs: Inputs
    loss: torch.Tensor
    replay: Callable[[], None]


def record_graph(inputs: Inputs, passes: Passes, pool: Any) -> Recording:
    """Record what a GPU is told to do, which is not done by that.

    Args:
        inputs: a batch, which is kept.
        passes: computes the loss of a batch and adds to the gradients, which are there; has been called before.
        pool: memory that recordings share, of which one is replayed at a time.

    Raises:
        RuntimeError: something in it waits for the GPU, or memory runs out.
    """
    graph = torch.cuda.CUDAGraph()
    # The thread that pins the next batches may go on.
    with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
        loss = passes(inputs)
    return Recording(inputs, loss, graph.replay)


def replayed(model: nn.Module) -> "Replayed | None":
    """What replays the passes of a network; ``None`` without a GPU, or where :data:`VARIABLE` is 0."""
    wanted = os.environ.get(VARIABLE, "1") != "0"
    return Replayed(model.parameters()) if torch.cuda.is_available() and wanted else None


class Replayed:
    """Forward and backward passes that are recorded once they have been met often enough, and replayed from then on.

    What they compute, and which random numbers they draw, is the same in both ways.

    Args:
        parameters: whose gradients they add to.
        record: :func:`record_graph`.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], record: Callable[..., Recording] = record_graph) -> None:
        self._parameters, self._record = list(parameters), record
        self._met: Counter[Any] = Counter()
        self._recordings: dict[Any, Recording] = {}
        self._trained: list[nn.Parameter] = []
        # Where recordings add to: the same storage in every step.
        self._gradients: dict[nn.Parameter, torch.Tensor] = {}
        self._pool = torch.cuda.graph_pool_handle() if torch.cuda.is_available() else None
        self._possible = True

    def __call__(self, inputs: Inputs, passes: Passes, constants: Any = None) -> torch.Tensor:
        """The loss of a batch, a scalar; its gradients are added to those that there are.

        Args:
            inputs: the batch.
            passes: computes the loss and adds the gradients.
            constants: whatever else ``passes`` depends on.
        """
        kind = (constants, *((name, each.shape, each.dtype) for name, each in sorted(inputs.items())))
        self._met[kind] += 1
        if self._possible and self._met[kind] > WORTH_RECORDING and kind not in self._recordings:
            self._try_to_record(kind, inputs, passes)
        if kind not in self._recordings:
            loss = passes(inputs)
            self._trained = self._trained or [each for each in self._parameters if each.grad is not None]
            return loss
        recording = self._recordings[kind]
        self._attach_gradients()
        for name, each in inputs.items():
            recording.inputs[name].copy_(each, non_blocking=True)
        recording.replay()
        return recording.loss.clone()

    def _try_to_record(self, kind: Any, inputs: Inputs, passes: Passes) -> None:
        before = {each: each.grad for each in self._trained}
        try:
            self._gradients = self._gradients or {each: torch.empty_like(each) for each in self._trained}
            for parameter, gradient in self._gradients.items():
                parameter.grad = gradient
            copy = {name: each.clone() for name, each in inputs.items()}
            self._recordings[kind] = self._record(copy, passes, self._pool)
        except RuntimeError as error:  # Out of memory, too: launched passes have fitted.
            self._possible, self._recordings, self._gradients = False, {}, {}
            _LOGGER.warning(
                "Steps cannot be recorded as CUDA graphs (%s): they are launched kernel by kernel.", one_line(error)
            )
        finally:
            for parameter, gradient in before.items():
                parameter.grad = gradient

    def _attach_gradients(self) -> None:
        """What a step's earlier passes have left stands where recordings add to it; zeros, where this is the first."""
        if missing := [gradient for parameter, gradient in self._gradients.items() if parameter.grad is None]:
            torch._foreach_zero_(missing)
        for parameter, gradient in self._gradients.items():
            if parameter.grad is not None and parameter.grad is not gradient:
                gradient.copy_(parameter.grad)
            parameter.grad = gradient

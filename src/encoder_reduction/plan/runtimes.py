"""Which runtimes a model is measured in: PyTorch, and those that people deploy encoders with."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from .fields import Listed
from .sections import Section

TORCH, ONNX, ONNX_INT8 = "torch", "onnxruntime", "onnxruntime-int8"
Runtime = Literal["torch", "onnxruntime", "onnxruntime-int8"]


def _torch_first(values: tuple[str, ...]) -> tuple[str, ...]:
    """Each once, after the one that the others are compared with."""
    return tuple(dict.fromkeys([TORCH, *values]))


class Runtimes(Section):
    """What the models of a paired measurement run in."""

    runtimes: Annotated[tuple[Runtime, ...], Listed, AfterValidator(_torch_first)] = Field(
        (TORCH,),
        description="what the models run in: torch (always, since the others are compared with it), onnxruntime (as"
        " exported to ONNX), onnxruntime-int8 (quantised dynamically), as torch,onnxruntime",
    )

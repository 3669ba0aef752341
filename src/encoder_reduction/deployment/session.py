"""An ONNX file, run by ONNX Runtime as fast as it does on this machine."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from .libraries import library

INPUTS = ("input_ids", "attention_mask")
OUTPUT = "logits"


class Session:
    """An ONNX Runtime session that takes what PyTorch's forward pass takes.

    It computes with as many threads as torch, so that times of both can be compared, and on the GPU where torch does
    and an onnxruntime for CUDA is installed. Its threads do not spin after a call, as they would by default for some
    milliseconds: that would take the processors from what is measured next.

    Args:
        file: the ONNX file.
        device: where torch computes.

    Raises:
        UserError: onnxruntime is not installed.
    """

    def __init__(self, file: Path, device: torch.device) -> None:
        runtime = library("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.add_session_config_entry("session.force_spinning_stop", "1")
        wanted = ["CUDAExecutionProvider"] if device.type == "cuda" else []
        there = [name for name in wanted if name in runtime.get_available_providers()]
        self._session = runtime.InferenceSession(file, options, providers=[*there, "CPUExecutionProvider"])

    def fed(self, batch: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
        """A batch as the session takes it: ``input_ids`` and ``attention_mask`` ``(examples, tokens)``, on the host."""
        return {name: batch[name].cpu().numpy() for name in INPUTS}

    def run(self, fed: Mapping[str, np.ndarray]) -> np.ndarray:
        """Logits ``(examples, classes)`` of a batch that was :meth:`fed`."""
        return self._session.run([OUTPUT], fed)[0]

    def logits(self, batch: Mapping[str, torch.Tensor]) -> np.ndarray:
        """Logits ``(examples, classes)`` of a batch."""
        return self.run(self.fed(batch))

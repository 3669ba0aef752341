"""A classifier as an ONNX file, by PyTorch's own exporter, held against PyTorch."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel

from ..errors import UserError
from ..models.architectures import family_of
from .libraries import check_installed, library, silenced
from .session import INPUTS, OUTPUT, Session

Batch = Mapping[str, torch.Tensor]

# Largest difference of a logit that is rounding: PyTorch and ONNX Runtime sum in another order.
TOLERANCE = 1e-4
# Neither size is special (0 and 1 are, to torch.export), and they differ, so that none is taken for the other.
_TRACED = (3, 7)
_NOISY = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")


def export(model: PreTrainedModel, file: Path) -> None:
    """Write a classifier in float32, for any number of texts of any length that it has positions for.

    Args:
        model: in float32; pruned classes of our own too.
        file: where to; one file, weights included.

    Raises:
        UserError: a library is not installed.
    """
    check_installed()
    ids = torch.randint(model.config.vocab_size // 2, model.config.vocab_size, _TRACED)
    longest = family_of(model).positions(model.config)
    axes = {0: torch.export.Dim("batch", min=1), 1: torch.export.Dim("tokens", min=1, max=longest)}
    with silenced(*_NOISY), warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model.eval(),
            kwargs=dict(zip(INPUTS, (ids, torch.ones_like(ids)), strict=True)),
            f=file,
            dynamo=True,
            input_names=list(INPUTS),
            output_names=[OUTPUT],
            dynamic_shapes=dict.fromkeys(INPUTS, axes),
            external_data=False,
            verbose=False,
        )


def check(file: Path, model: PreTrainedModel, batches: Sequence[Batch]) -> float:
    """Hold an exported file against the model that it was exported from.

    Args:
        file: what :func:`export` wrote.
        model: in float32.
        batches: real texts, of several shapes.

    Returns:
        The largest difference of a logit.

    Raises:
        UserError: the file is no valid ONNX, or a logit differs by more than :data:`TOLERANCE`.
    """
    onnx = library("onnx")
    try:
        onnx.checker.check_model(file, full_check=True)
    except onnx.checker.ValidationError as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{file} is no valid ONNX ({reason}): this is not to be deployed.") from error
    session = Session(file, torch.device("cpu"))
    most = max(float(np.abs(session.logits(batch) - torch_logits(model, batch)).max()) for batch in batches)
    if not most <= TOLERANCE:  # nor where it is no number
        raise UserError(
            f"The logits of {file} differ from PyTorch's by up to {most:.2g}, more than rounding ({TOLERANCE:g}): this"
            " is not to be deployed; try other versions of torch and onnxscript."
        )
    return most


@torch.inference_mode()
def torch_logits(model: PreTrainedModel, batch: Batch) -> np.ndarray:
    """PyTorch's logits ``(examples, classes)`` of a batch, as float32."""
    inputs = {name: batch[name].to(model.device) for name in INPUTS}
    return model(**inputs).logits.float().cpu().numpy()

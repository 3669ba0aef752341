"""A folder that runs without PyTorch and this project: the ONNX file, the tokenizer, and what the answers mean."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from ..errors import UserError
from ..models.architectures import Pruned, family_of
from .export import Batch, check, export, torch_logits
from .quantisation import quantise
from .session import Session

FORMATS = ("fp32", "int8")
MODEL_FILE = "model.onnx"
# What a configuration says of a network that is in the graph here, and of how PyTorch serves it.
_OF_THE_NETWORK = ("model_type", "architectures", "auto_map", "head_size", "heads_by_layer", "intermediate_by_layer",
                   "inference_dtype", "dtype", "transformers_version")  # fmt: skip


@dataclass(frozen=True)
class Checked:
    """How an ONNX file answers beside PyTorch in float32.

    Attributes:
        texts: how many were looked at.
        difference: the largest of a logit.
        agreement: share of the texts that get the same label.
        megabytes: 1e6 bytes of the file.
    """

    texts: int
    difference: float
    agreement: float
    megabytes: float


def write(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, precision: str, folder: Path, texts: Sequence[Batch]
) -> Checked:
    """Write ``model.onnx``, the tokenizer's files and ``config.json``, as onnxruntime and optimum read them.

    Args:
        model: in float32 on the CPU.
        tokenizer: its tokenizer.
        precision: one of :data:`FORMATS`.
        folder: an empty one.
        texts: batches of real texts, of several shapes.

    Raises:
        UserError: a library is not installed, the logits in float32 are not PyTorch's, or one in int8 is not finite.
    """
    file = folder / MODEL_FILE
    with TemporaryDirectory(prefix="encoder-reduction-") as apart:
        exported = Path(apart) / MODEL_FILE if precision == "int8" else file
        export(model, exported)
        check(exported, model, texts)
        if precision == "int8":
            quantise(exported, file)
    tokenizer.save_pretrained(folder)
    _stock_config(model).save_pretrained(folder)
    return _compared(file, model, texts)


def _compared(file: Path, model: PreTrainedModel, texts: Sequence[Batch]) -> Checked:
    session = Session(file, torch.device("cpu"))
    ours = np.concatenate([session.logits(batch) for batch in texts])
    theirs = np.concatenate([torch_logits(model, batch) for batch in texts])
    if not np.isfinite(ours).all():
        raise UserError(f"{file} answers with what is no number: this is not to be deployed; give format=fp32.")
    return Checked(
        texts=len(ours),
        difference=float(np.abs(ours - theirs).max()),
        agreement=float(np.mean(ours.argmax(-1) == theirs.argmax(-1))),
        megabytes=file.stat().st_size / 1e6,
    )


def _stock_config(model: PreTrainedModel) -> PretrainedConfig:
    """The family's own configuration, even of a pruned class: the graph holds the network, and this its labels."""
    stock = type(model).__mro__[2] if isinstance(model, Pruned) else type(model)
    values = {key: value for key, value in model.config.to_dict().items() if key not in _OF_THE_NETWORK}
    config = AutoConfig.for_model(family_of(model).model_type, **values)
    config.architectures = [stock.__name__]
    return config

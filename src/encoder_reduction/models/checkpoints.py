"""Checkpoints by name: weights and tokenizer from the hub, a local folder, or the packaged model."""

import copy
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils.logging import disable_progress_bar

from ..data import hub
from ..data.corpora import LABELS
from ..errors import UserError
from ..plan.sections import Checkpoint
from . import packaged_model
from .architectures import family_of

# Reading and writing weights takes a second; the hub's own progress bars for downloads stay.
disable_progress_bar()

_LABEL_CONFIG: dict[str, Any] = {
    "num_labels": len(LABELS),
    "id2label": dict(enumerate(LABELS)),
    "label2id": {label: index for index, label in enumerate(LABELS)},
}


def load(checkpoint: Checkpoint, seed: int) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A sequence classifier with pretrained weights under a fresh head, and its tokenizer.

    Args:
        checkpoint: where the weights are; ``packaged:bert`` and its like need no network.
        seed: seeds the new classification head.

    Raises:
        UserError: the checkpoint cannot be found or loaded, or its family cannot be reduced.
    """
    torch.manual_seed(seed)
    kind, _, name = checkpoint.source.partition(":")
    if kind == "packaged":
        if name not in ("bert", "roberta", "distilbert"):
            raise UserError(f"Unknown packaged model '{name}'; choose one of: bert, roberta, distilbert.")
        return packaged_model.load(name, **_LABEL_CONFIG)
    folder = hub.snapshot("model", checkpoint.source, checkpoint.revision).folder
    try:
        model = AutoModelForSequenceClassification.from_pretrained(folder, **_LABEL_CONFIG)
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise UserError(
            f"Checkpoint '{checkpoint.source}' could not be loaded ({_first_sentence(error)}); give a hub id, or a"
            " local folder that save_pretrained wrote with model and tokenizer."
        ) from error
    family_of(model)
    return model, tokenizer


def revision(checkpoint: Checkpoint) -> str:
    """The commit of the weights, ``local`` for a folder, ``packaged`` for those of a pinned package."""
    if checkpoint.source.startswith("packaged:"):
        return "packaged"
    return hub.snapshot("model", checkpoint.source, checkpoint.revision).revision


def load_folder(folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A classifier and tokenizer out of a folder that a run of this project has logged, which may then go.

    Raises:
        UserError: the folder does not hold a loadable model.
    """
    try:
        model, tokenizer = (
            auto.from_pretrained(folder) for auto in (AutoModelForSequenceClassification, AutoTokenizer)
        )
    except (OSError, ValueError) as error:
        raise UserError(f"Model folder {folder} could not be loaded ({_first_sentence(error)}).") from error
    return copy.deepcopy(model), tokenizer  # its weights were pages of the file, at any address


def _first_sentence(error: Exception) -> str:
    return " ".join(str(error).split()).split(". ")[0].rstrip(".")

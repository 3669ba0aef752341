"""Checkpoints by name: weights and tokenizer from the hub, a local folder, or the packaged model."""

import copy
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from ..data import hub, labels
from ..data.corpora import LABELS
from ..errors import UserError
from ..plan.sections import Checkpoint
from . import packaged_model, tokenizers, weights
from .architectures import family_named, family_of

_LOGGER = logging.getLogger(__name__)

# Reading and writing weights takes a second; the hub's own progress bars for downloads stay.
transformers_logging.disable_progress_bar()

_HEADLESS = (
    "brings no classification head, which start=checkpoint cuts: give a fine-tuned classifier, or leave start out."
)
_LABEL_CONFIG: dict[str, Any] = {
    "num_labels": len(LABELS),
    "id2label": dict(enumerate(LABELS)),
    "label2id": {label: index for index, label in enumerate(LABELS)},
}
# Of an earlier task or of whoever wrote the file; a run states its own.
_OURS: dict[str, Any] = {
    "problem_type": None,
    "dtype": torch.float32,
    "output_hidden_states": False,
    "output_attentions": False,
    "return_dict": True,
}


def load(
    checkpoint: Checkpoint, seed: int, family: str | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A sequence classifier with pretrained weights under a fresh head, and its tokenizer.

    A head that the checkpoint brings is left out, with its labels; what the seed draws depends on nothing else.

    Args:
        checkpoint: where the weights are; ``packaged:bert`` and its like need no network.
        seed: seeds the new classification head, and BERT's pooler where the checkpoint has none.
        family: the model type that it must be; any that can be reduced by default.

    Returns:
        The model, in float32 whatever its weights are stored in, and the tokenizer.

    Raises:
        UserError: the checkpoint cannot be found or loaded, its family cannot be reduced, or encoder, configuration
            and tokenizer do not belong together.
    """
    torch.manual_seed(seed)
    kind, _, name = checkpoint.source.partition(":")
    if kind == "packaged":
        if name not in ("bert", "roberta", "distilbert"):
            raise UserError(f"Unknown packaged model '{name}'; choose one of: bert, roberta, distilbert.")
        _check_family(name, family, checkpoint)
        return packaged_model.load(name, **_LABEL_CONFIG)
    folder = hub.snapshot("model", checkpoint.source, checkpoint.revision).folder
    what = f"Checkpoint '{checkpoint.source}'"
    with _warnings_as_lines(what):
        config = _configuration(folder, what)
        _check_family(config.model_type, family, checkpoint)
        _state_ours(config)
        state = weights.encoder(folder, config, what)
        torch.manual_seed(seed)
        model = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32).eval()
        backbone = model.get_submodule(family_of(model).backbone)
        backbone.load_state_dict(backbone.state_dict() | state)
        tokenizer = tokenizers.load(folder, model, what)
    loaded = {f"{family_of(model).backbone}.{name}" for name in state}
    drawn = dict.fromkeys(name.rpartition(".")[0] for name in model.state_dict() if name not in loaded)
    print(f"{what}: its encoder is loaded; drawn with seed {seed}: {', '.join(drawn)}.", file=sys.stderr)
    return model, tokenizer


def load_trained(checkpoint: Checkpoint, family: str | None = None) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A sequence classifier with the head that its checkpoint brings, and its tokenizer.

    Args:
        checkpoint: where the fine-tuned classifier is.
        family: the model type that it must be; any that can be reduced by default.

    Returns:
        The model, in float32, its classes in our order, and the tokenizer.

    Raises:
        UserError: as :func:`load`; the checkpoint brings no head, or one whose classes are not known to be ours.
    """
    what = f"Checkpoint '{checkpoint.source}'"
    if checkpoint.source.startswith("packaged:"):
        raise UserError(f"{what} {_HEADLESS}")
    folder = hub.snapshot("model", checkpoint.source, checkpoint.revision).folder
    with _warnings_as_lines(what):
        config = _configuration(folder, what)
        _check_family(config.model_type, family, checkpoint)
        model = weights.whole(folder, what, headless=_HEADLESS)
        order = _classes(config, what)
        tokenizer = tokenizers.load(folder, model, what)
    model = copy.deepcopy(model)
    head = model.get_submodule(family_of(model).head_output)
    with torch.no_grad():
        head.weight.copy_(head.weight[order].clone())
        head.bias.copy_(head.bias[order].clone())
    _state_ours(model.config)
    print(f"{what}: its encoder and its head are loaded.", file=sys.stderr)
    return model.eval(), tokenizer


def load_folder(folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A classifier and tokenizer out of a folder that a run of this project has logged, which may then go.

    Raises:
        UserError: the folder does not hold a whole model with its head, or not the tokenizer of that model.
    """
    what = f"Model folder {folder}"
    with _warnings_as_lines(what):
        model = weights.whole(folder, what)
        tokenizer = tokenizers.load(folder, model, what)
    return copy.deepcopy(model), tokenizer  # its weights were pages of the file, at any address


def _configuration(folder: Path, what: str) -> PretrainedConfig:
    """As the checkpoint has it, of a family and in a form that can be reduced."""
    with weights.readable(folder, what):
        config = AutoConfig.from_pretrained(folder)
    family_named(config.model_type)
    if getattr(config, "quantization_config", None):
        raise UserError(f"{what} is quantised; give the checkpoint that it was made of.")
    return config


def _state_ours(config: PretrainedConfig) -> None:
    """Make it that of a classifier of our two classes, whatever the checkpoint was trained for."""
    for name, value in (_LABEL_CONFIG | _OURS).items():
        setattr(config, name, value)


def _classes(config: PretrainedConfig, what: str) -> list[int]:
    """Which row of a head is our class 0, and which our class 1, by the names that the configuration gives them."""
    names = [str(config.id2label[index]) for index in sorted(config.id2label)]
    meanings = labels.sides(names)
    if meanings is None:
        raise UserError(
            f"{what} calls its classes {', '.join(names)}; start=checkpoint needs two, one of each side:"
            f" {', '.join(labels.WORDS)}. If it has two, write their names into id2label of its config.json."
        )
    return [meanings.index(0), meanings.index(1)]


def _check_family(model_type: str, wanted: str | None, checkpoint: Checkpoint) -> None:
    found = family_named(model_type).model_type
    if wanted not in (None, found):
        raise UserError(
            f"Checkpoint '{checkpoint.source}' is of the family {found}, but model={wanted}; give model={found}, or a"
            f" checkpoint of {wanted}."
        )


@contextmanager
def _warnings_as_lines(what: str) -> Iterator[None]:
    """What transformers warns of while it reads a user's files is said in one line each, once.

    Its report of the weights is left out, since :mod:`.weights` refuses what matters in it.
    """
    said: dict[str, None] = {}
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.setdefault(" ".join(record.getMessage().split()))
    before = transformers_logging.get_verbosity()
    transformers_logging.disable_default_handler()
    transformers_logging.add_handler(handler)
    transformers_logging.set_verbosity_warning()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)
        transformers_logging.remove_handler(handler)
        transformers_logging.enable_default_handler()
        for line in said:
            if "LOAD REPORT" not in line:
                _LOGGER.warning("%s: %s", what, line)

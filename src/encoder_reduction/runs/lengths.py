"""Which lengths a network has positions for, and what long ones cost: said before anything is trained."""

import logging

import numpy as np
from datasets import Dataset
from transformers import PreTrainedModel

from ..errors import UserError
from ..models.architectures import family_of
from ..models.dropout import dropout_of
from ..plan.sections import Profiling, RunPlan

_LOGGER = logging.getLogger(__name__)

# Tokens up to which attention dropout costs a CPU a tenth of its time at the most.
_LONG = 128


def check_max_length(plan: RunPlan, model: PreTrainedModel) -> None:
    """Refuse a plan whose texts may be longer than the table of positions.

    Raises:
        UserError: ``max_length`` tokens do not fit.
    """
    positions, max_length = _positions(model), plan.fine_tuning.max_length
    if max_length > positions:
        raise UserError(
            f"max_length={max_length} is not allowed for {plan.checkpoint.name}, which has positions for {positions}"
            f" tokens; give max_length={positions} or less."
        )


def that_fit(profiling: Profiling, model: PreTrainedModel) -> Profiling:
    """The settings with those fixed lengths that the network can read; the others are named in one line."""
    positions = _positions(model)
    fitting = tuple(length for length in profiling.fixed_lengths if length <= positions)
    if left_out := ",".join(str(length) for length in profiling.fixed_lengths if length > positions):
        _LOGGER.warning("The network has positions for %d tokens; not measured at: %s tokens.", positions, left_out)
    return profiling.model_copy(update={"fixed_lengths": fitting})


def check_budget_tokens(tokens: int, model: PreTrainedModel) -> None:
    """Refuse a length of a budget's texts that the network cannot read.

    Raises:
        UserError: so many tokens do not fit.
    """
    positions = _positions(model)
    if tokens > positions:
        raise UserError(
            f"budget_tokens={tokens} is not allowed for a network that has positions for {positions} tokens; give"
            f" {positions} or less."
        )


def say_cost_of_attention_dropout(model: PreTrainedModel, train: Dataset) -> None:
    """One line where a CPU trains on long texts with attention dropout, which takes it time (docs/performance.md).

    Args:
        model: as it is about to be trained.
        train: the tokenised training split.
    """
    share, long = dropout_of(model)["attention_dropout"], int((np.asarray(train["length"]) > _LONG).sum())
    if model.device.type == "cpu" and share and long:
        _LOGGER.warning(
            "%d of %d training texts have more than %d tokens, of which attention dropout (%g) drops pairs one by one:"
            " on a CPU a step of texts of 256 tokens takes 1.3 times as long, of 512 tokens 1.7 times;"
            " -P attention_dropout=0 leaves it out.",
            long, len(train), _LONG, share,
        )  # fmt: skip


def _positions(model: PreTrainedModel) -> int:
    return family_of(model).positions(model.config)

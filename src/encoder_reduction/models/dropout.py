"""How much of its activations a network drops while it is trained."""

from torch import nn
from transformers import PreTrainedModel

from ..plan.sections import FineTuning
from .architectures import family_of


def dropout_of(model: PreTrainedModel) -> dict[str, float]:
    """The shares of attention weights and of hidden units that a classifier's encoder drops, by the plan's names."""
    family = family_of(model)
    return {
        "attention_dropout": float(getattr(model.config, family.attention_dropout)),
        "hidden_dropout": float(getattr(model.config, family.hidden_dropout)),
    }


def set_dropout(model: PreTrainedModel, settings: FineTuning) -> None:
    """Let a classifier's encoder drop what the plan says, in its configuration too; what it leaves out stays.

    The classification head keeps its own dropout, which several families take from the encoder's.
    """
    family, config = family_of(model), model.config
    backbone = model.get_submodule(family.backbone)
    attention = [
        layer.get_submodule(f"{family.query.rpartition('.')[0]}.dropout") for layer in family.layer_list(model)
    ]
    hidden = [each for each in backbone.modules() if isinstance(each, nn.Dropout) and each not in attention]
    if settings.attention_dropout is not None:
        _set(config, family.attention_dropout, attention, settings.attention_dropout)
    if settings.hidden_dropout is not None:
        if getattr(config, family.head_dropout) is None:
            setattr(config, family.head_dropout, getattr(config, family.hidden_dropout))
        _set(config, family.hidden_dropout, hidden, settings.hidden_dropout)


def _set(config: object, name: str, modules: list[nn.Module], share: float) -> None:
    setattr(config, name, share)
    for module in modules:
        module.p = share

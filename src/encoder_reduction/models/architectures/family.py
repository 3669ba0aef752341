"""What the surgery needs to know of an encoder family, and the mixin that lets pruned networks reload.

This file travels beside the weights of a pruned model (through Hugging Face's custom-code mechanism), so it
imports nothing but torch and the standard library.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from torch import nn

_BERT_CONFIG_NAMES = {
    "hidden": "hidden_size",
    "heads": "num_attention_heads",
    "layers": "num_hidden_layers",
    "intermediate": "intermediate_size",
}
_BY_LAYER = ("heads_by_layer", "intermediate_by_layer")


@dataclass(frozen=True)
class Sizes:
    """The dimensions of one encoder.

    Attributes:
        layers: number of transformer layers.
        heads: attention heads of a layer; where layers differ, their mean to the nearest whole one.
        head_size: units of one head; ``heads * head_size`` is the width of q, k and v.
        hidden: hidden size, the width of the residual stream.
        intermediate: intermediate size, the width of the feed-forward network; where layers differ, their mean.
        heads_by_layer: attention heads of each layer.
        intermediate_by_layer: intermediate size of each layer.
    """

    layers: int
    heads: int
    head_size: int
    hidden: int
    intermediate: int
    heads_by_layer: tuple[int, ...] = ()
    intermediate_by_layer: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name in ("heads", "intermediate"):
            if not getattr(self, f"{name}_by_layer"):
                object.__setattr__(self, f"{name}_by_layer", (getattr(self, name),) * self.layers)

    @property
    def even(self) -> bool:
        """Whether all layers have the same dimensions."""
        return len(set(self.heads_by_layer)) == len(set(self.intermediate_by_layer)) == 1

    @property
    def stock(self) -> bool:
        """Whether a stock configuration can say these dimensions: even ones, with heads that span the hidden size."""
        return self.even and self.heads * self.head_size == self.hidden

    def resized(self, **changed: Any) -> "Sizes":
        """Other dimensions; with lists by layer, ``heads`` and ``intermediate`` become their means."""
        for name in ("heads", "intermediate"):
            if (by_layer := changed.get(f"{name}_by_layer")) is not None:
                changed |= {f"{name}_by_layer": tuple(by_layer), name: round(sum(by_layer) / len(by_layer))}
            elif name in changed:
                changed[f"{name}_by_layer"] = ()
        return replace(self, **changed)


@dataclass(frozen=True)
class Family:
    """Where a family of encoders keeps its dimensions and its weights.

    Module paths are dotted names: of the classifier for ``backbone`` and ``head_*``, of the backbone
    for ``embeddings``, ``embedding_norm`` and ``layers``, of one layer for everything else. The defaults
    are BERT's, which the encoders that descend from its code share.

    Attributes:
        model_type: the Hugging Face model type.
        head_hidden: linear modules of the classifier that map hidden size to hidden size.
        head_output: the linear module of the classifier that maps hidden size to the classes.
        pooler: the one of ``head_hidden`` that carries pretrained weights, if any.
        config_names: the configuration's own name for each of ``hidden``, ``heads``, ``layers`` and
            ``intermediate``.
        activation: the configuration's own name for the feed-forward network's activation function.
        attention_dropout, hidden_dropout, head_dropout: the configuration's own names for the shares that training
            drops of the attention weights, of the encoder's hidden units, and before the classes.
        counts_from_padding: whether positions are counted from the padding token's id + 1, as in RoBERTa.
    """

    model_type: str
    backbone: str
    head_hidden: tuple[str, ...]
    head_output: str
    pooler: str | None = None
    config_names: Mapping[str, str] = field(default_factory=lambda: dict(_BERT_CONFIG_NAMES))
    embeddings: tuple[str, ...] = (
        "embeddings.word_embeddings",
        "embeddings.position_embeddings",
        "embeddings.token_type_embeddings",
    )
    embedding_norm: str = "embeddings.LayerNorm"
    layers: str = "encoder.layer"
    query: str = "attention.self.query"
    key: str = "attention.self.key"
    value: str = "attention.self.value"
    attention_output: str = "attention.output.dense"
    attention_norm: str = "attention.output.LayerNorm"
    intermediate: str = "intermediate.dense"
    output: str = "output.dense"
    output_norm: str = "output.LayerNorm"
    activation: str = "hidden_act"
    attention_dropout: str = "attention_probs_dropout_prob"
    hidden_dropout: str = "hidden_dropout_prob"
    head_dropout: str = "classifier_dropout"
    counts_from_padding: bool = False

    @property
    def pruned_model_type(self) -> str:
        """Model type of the family's variant that says its dimensions layer by layer."""
        return f"pruned-{self.model_type}"

    def sizes(self, config: Any) -> Sizes:
        """Read the dimensions out of a configuration (``head_size`` is explicit on pruned ones)."""
        value = {name: getattr(config, attribute) for name, attribute in self.config_names.items()}
        head_size = getattr(config, "head_size", None) or value["hidden"] // value["heads"]
        by_layer = {name: tuple(getattr(config, name, None) or ()) for name in _BY_LAYER}
        return Sizes(head_size=head_size, **value, **by_layer)

    def positions(self, config: Any) -> int:
        """How many tokens, special ones included, the table of positions has room for."""
        return config.max_position_embeddings - (config.pad_token_id + 1 if self.counts_from_padding else 0)

    def resized(self, config: Any, **sizes: Any) -> Any:
        """A copy of a configuration with some of its dimensions replaced."""
        config = copy.deepcopy(config)
        for name, size in sizes.items():
            setattr(config, self.config_names.get(name, name), size)
        return config

    def layer_list(self, model: nn.Module) -> nn.ModuleList:
        """The transformer layers of a classifier, first to last."""
        return model.get_submodule(f"{self.backbone}.{self.layers}")

    def attention_linears(self, layer: nn.Module) -> tuple[nn.Linear, nn.Linear, nn.Linear, nn.Linear]:
        """Query, key, value (each ``hidden -> attention``) and output (``attention -> hidden``)."""
        names = (self.query, self.key, self.value, self.attention_output)
        return tuple(layer.get_submodule(name) for name in names)


class Pruned:
    """Mixin for a sequence classifier whose layers have their own numbers of heads and feed-forward units.

    The stock attention derives the head size from the hidden size, and all stock layers are alike, so a
    structurally pruned model cannot be described by a stock configuration (transformers issue 4490). This class
    builds the stock network and then shrinks each layer's query, key, value and output projection to
    ``heads * config.head_size`` units, and its feed-forward maps; the stock forward pass infers the number of heads
    from these.

    Class attributes to set: ``family`` and, by Hugging Face's convention, ``config_class``, a configuration with
    ``head_size`` and, where layers differ, ``heads_by_layer`` and ``intermediate_by_layer``.
    """

    family: ClassVar[Family]

    def __init__(self, config: Any) -> None:
        family = self.family
        sizes = family.sizes(config)
        super().__init__(family.resized(config, heads=sizes.hidden // sizes.head_size))
        self.config = config
        each = zip(family.layer_list(self), sizes.heads_by_layer, sizes.intermediate_by_layer, strict=True)
        for layer, heads, intermediate in each:
            attention = heads * sizes.head_size
            for name in (family.query, family.key, family.value):
                _replace(layer, name, nn.Linear(sizes.hidden, attention))
            _replace(layer, family.attention_output, nn.Linear(attention, sizes.hidden))
            if intermediate != sizes.intermediate:
                _replace(layer, family.intermediate, nn.Linear(sizes.hidden, intermediate))
                _replace(layer, family.output, nn.Linear(intermediate, sizes.hidden))


def _replace(module: nn.Module, name: str, new: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(module.get_submodule(parent), leaf, new)

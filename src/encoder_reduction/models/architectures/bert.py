"""BERT (Devlin et al., 2019): where its dimensions and weights live."""

from transformers import BertConfig, BertForSequenceClassification

from .family import Family, Pruned

FAMILY = Family(
    model_type="bert",
    backbone="bert",
    head_hidden=("bert.pooler.dense",),
    head_output="classifier",
    pooler="bert.pooler.dense",
)


class PrunedBertConfig(BertConfig):
    """BERT with ``num_attention_heads`` heads of ``head_size`` units each, or layers with their own sizes."""

    model_type = FAMILY.pruned_model_type
    head_size: int | None = None
    heads_by_layer: list[int] | None = None
    intermediate_by_layer: list[int] | None = None


class PrunedBertForSequenceClassification(Pruned, BertForSequenceClassification):
    """BERT classifier whose pruned heads and units are really gone."""

    config_class = PrunedBertConfig
    family = FAMILY


PRUNED = PrunedBertForSequenceClassification

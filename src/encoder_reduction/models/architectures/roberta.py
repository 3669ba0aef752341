"""RoBERTa (Liu et al., 2019): where its dimensions and weights live."""

from transformers import RobertaConfig, RobertaForSequenceClassification

from .family import Family, Pruned

FAMILY = Family(
    model_type="roberta",
    backbone="roberta",
    head_hidden=("classifier.dense",),
    counts_from_padding=True,
    head_output="classifier.out_proj",
)


class PrunedRobertaConfig(RobertaConfig):
    """RoBERTa with ``num_attention_heads`` heads of ``head_size`` units each, or layers with their own sizes."""

    model_type = FAMILY.pruned_model_type
    head_size: int | None = None
    heads_by_layer: list[int] | None = None
    intermediate_by_layer: list[int] | None = None


class PrunedRobertaForSequenceClassification(Pruned, RobertaForSequenceClassification):
    """RoBERTa classifier whose pruned heads and units are really gone."""

    config_class = PrunedRobertaConfig
    family = FAMILY


PRUNED = PrunedRobertaForSequenceClassification

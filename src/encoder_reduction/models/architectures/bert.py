"""BERT (Devlin et al., 2019): where its dimensions and weights live."""

from transformers import BertConfig, BertForSequenceClassification

from .family import Family, PrunedHeads

FAMILY = Family(
    model_type="bert",
    backbone="bert",
    head_hidden=("bert.pooler.dense",),
    head_output="classifier",
    pooler="bert.pooler.dense",
)


class PrunedBertConfig(BertConfig):
    """BERT with ``num_attention_heads`` heads of ``head_size`` units each."""

    model_type = FAMILY.pruned_model_type
    head_size: int | None = None


class PrunedBertForSequenceClassification(PrunedHeads, BertForSequenceClassification):
    """BERT classifier whose pruned heads are really gone."""

    config_class = PrunedBertConfig
    family = FAMILY


PRUNED = PrunedBertForSequenceClassification

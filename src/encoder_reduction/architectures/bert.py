"""BERT (Devlin et al., 2019): where its dimensions and weights live."""

from transformers import BertConfig, BertForSequenceClassification

from .family import Family, PrunedHeads

FAMILY = Family(
    model_type="bert",
    config_names={
        "hidden": "hidden_size",
        "heads": "num_attention_heads",
        "layers": "num_hidden_layers",
        "intermediate": "intermediate_size",
    },
    backbone="bert",
    embeddings=(
        "embeddings.word_embeddings",
        "embeddings.position_embeddings",
        "embeddings.token_type_embeddings",
    ),
    embedding_norm="embeddings.LayerNorm",
    layers="encoder.layer",
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    attention_output="attention.output.dense",
    attention_norm="attention.output.LayerNorm",
    intermediate="intermediate.dense",
    output="output.dense",
    output_norm="output.LayerNorm",
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

"""DistilBERT (Sanh et al., 2019): where its dimensions and weights live."""

from transformers import DistilBertConfig, DistilBertForSequenceClassification

from .family import Family, PrunedHeads

FAMILY = Family(
    model_type="distilbert",
    backbone="distilbert",
    head_hidden=("pre_classifier",),
    head_output="classifier",
    config_names={
        "hidden": "dim",
        "heads": "n_heads",
        "layers": "n_layers",
        "intermediate": "hidden_dim",
    },
    embeddings=("embeddings.word_embeddings", "embeddings.position_embeddings"),
    layers="transformer.layer",
    query="attention.q_lin",
    key="attention.k_lin",
    value="attention.v_lin",
    attention_output="attention.out_lin",
    attention_norm="sa_layer_norm",
    intermediate="ffn.lin1",
    output="ffn.lin2",
    output_norm="output_layer_norm",
)


class PrunedDistilBertConfig(DistilBertConfig):
    """DistilBERT with ``n_heads`` heads of ``head_size`` units each."""

    model_type = FAMILY.pruned_model_type
    head_size: int | None = None


class PrunedDistilBertForSequenceClassification(PrunedHeads, DistilBertForSequenceClassification):
    """DistilBERT classifier whose pruned heads are really gone."""

    config_class = PrunedDistilBertConfig
    family = FAMILY


PRUNED = PrunedDistilBertForSequenceClassification

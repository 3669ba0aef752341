"""DistilBERT (Sanh et al., 2019): where its dimensions and weights live."""

from transformers import DistilBertConfig, DistilBertForSequenceClassification

from .family import Family, Pruned

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
    activation="activation",
    attention_dropout="attention_dropout",
    hidden_dropout="dropout",
    head_dropout="seq_classif_dropout",
)


class PrunedDistilBertConfig(DistilBertConfig):
    """DistilBERT with ``n_heads`` heads of ``head_size`` units each, or layers with their own sizes."""

    model_type = FAMILY.pruned_model_type
    head_size: int | None = None
    heads_by_layer: list[int] | None = None
    intermediate_by_layer: list[int] | None = None


class PrunedDistilBertForSequenceClassification(Pruned, DistilBertForSequenceClassification):
    """DistilBERT classifier whose pruned heads and units are really gone."""

    config_class = PrunedDistilBertConfig
    family = FAMILY


PRUNED = PrunedDistilBertForSequenceClassification

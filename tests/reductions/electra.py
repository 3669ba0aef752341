"""ELECTRA (Clark et al., 2020): a fourth family, added by one file, as a user would add it."""

from typing import Any

from transformers import ElectraConfig, ElectraForSequenceClassification

from encoder_reduction.models.architectures.family import Family, Pruned


class ElectraFamily(Family):
    """A family whose embeddings have a width of their own, which follows the hidden size here."""

    def resized(self, config: Any, **sizes: int) -> Any:
        config = super().resized(config, **sizes)
        config.embedding_size = config.hidden_size
        return config


FAMILY = ElectraFamily(
    model_type="electra",
    backbone="electra",
    head_hidden=("classifier.dense",),
    head_output="classifier.out_proj",
)


class PrunedElectraConfig(ElectraConfig):
    """ELECTRA with ``num_attention_heads`` heads of ``head_size`` units each."""

    model_type = FAMILY.pruned_model_type
    head_size: int | None = None
    heads_by_layer: list[int] | None = None
    intermediate_by_layer: list[int] | None = None


class PrunedElectraForSequenceClassification(Pruned, ElectraForSequenceClassification):
    """ELECTRA classifier whose pruned heads and units are really gone."""

    config_class = PrunedElectraConfig
    family = FAMILY


PRUNED = PrunedElectraForSequenceClassification

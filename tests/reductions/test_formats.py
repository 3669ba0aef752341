"""A reduced model leaves this project: the Auto classes, and a family that is not in the package."""

import electra
import pytest
import torch
from networks import random_batch, small
from oracles import logits
from transformers import AutoModelForSequenceClassification, ElectraConfig, ElectraForSequenceClassification

from conftest import FAMILIES
from encoder_reduction.models import architectures
from encoder_reduction.models.architectures import sizes_of
from encoder_reduction.plan.sections import Reduction
from encoder_reduction.reductions import reduce_model

CUTS = {
    "heads": Reduction(strategy="prune", criterion="magnitude", calibration_examples=8),
    "hidden": Reduction(strategy="slice", criterion="magnitude", calibration_examples=8),
    "layers": Reduction(strategy="alternate", calibration_examples=8),
    "intermediate": Reduction(strategy="prune", criterion="magnitude", spread="global", calibration_examples=8),
}


@pytest.mark.parametrize("dim", CUTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_reduction_reloads_with_the_auto_class(family, dim, tmp_path):
    model = small(family, layers=2, heads=4, head_size=4, intermediate=32, spread=0.2)
    reduced = reduce_model(model, {dim: CUTS[dim]}, [], seed=0)
    reduced.save_pretrained(tmp_path)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert torch.equal(logits(again, [random_batch()]), logits(reduced, [random_batch()]))
    assert ((tmp_path / f"{family}.py").exists()) == (dim in ("heads", "intermediate"))


def test_a_fourth_family_is_one_file(tmp_path):
    architectures.register(electra.FAMILY, electra.PRUNED)
    torch.manual_seed(0)
    config = ElectraConfig(
        embedding_size=48, hidden_size=48, num_attention_heads=4, num_hidden_layers=4, intermediate_size=192
    )
    model = ElectraForSequenceClassification(config).eval()
    texts = [random_batch()]
    for dim, cut in CUTS.items():
        whole = reduce_model(model, {dim: cut.model_copy(update={"keep": 1.0})}, texts, seed=0)
        torch.testing.assert_close(logits(whole, texts), logits(model, texts), atol=1e-6, rtol=0)
        half = reduce_model(model, {dim: cut.model_copy(update={"correct": "least_squares"})}, texts, seed=0)
        assert getattr(sizes_of(half), dim) == getattr(sizes_of(model), dim) // 2
        half.save_pretrained(tmp_path / dim)
        again = AutoModelForSequenceClassification.from_pretrained(tmp_path / dim)
        assert torch.equal(logits(again, texts), logits(half, texts))

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax

from encoder_reduction.training import distillation


def test_the_loss_is_hintons():
    generator = np.random.default_rng(0)
    student, teacher = generator.normal(size=(6, 2)), generator.normal(size=(6, 2)) * 3
    temperature, weight = 2.5, 0.3
    target = softmax(teacher / temperature, axis=1)
    divergence = (target * (np.log(target) - log_softmax(student / temperature, axis=1))).sum(axis=1).mean()
    expected = 0.7 * 1.25 + 0.3 * temperature**2 * divergence
    found = distillation.loss(torch.tensor(1.25), torch.tensor(student), torch.tensor(teacher), temperature, weight)
    assert found.item() == pytest.approx(expected, abs=1e-5)


def test_a_teacher_that_agrees_adds_nothing():
    logits = torch.randn(4, 2)
    assert distillation.loss(torch.tensor(0.5), logits, logits, 2.0, 0.5).item() == pytest.approx(0.25, abs=1e-6)


def test_logits_are_computed_once(monkeypatch, tmp_path):
    monkeypatch.setenv("ENCODER_REDUCTION_CACHE", str(tmp_path))
    assert distillation.cached_logits("run", "data") is None
    logits = np.arange(6, dtype=np.float32).reshape(3, 2)
    distillation.cache_logits("run", "data", logits)
    np.testing.assert_array_equal(distillation.cached_logits("run", "data"), logits)
    assert distillation.cached_logits("run", "other data") is None

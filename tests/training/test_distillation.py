import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax

from encoder_reduction.plan.sections import Distillation
from encoder_reduction.training import distillation


def test_the_loss_is_hintons():
    generator = np.random.default_rng(0)
    student, teacher = generator.normal(size=(6, 2)), generator.normal(size=(6, 2)) * 3
    temperature, weight = 2.5, 0.3
    target = softmax(teacher / temperature, axis=1)
    divergence = (target * (np.log(target) - log_softmax(student / temperature, axis=1))).sum(axis=1).mean()
    expected = 0.7 * 1.25 + 0.3 * temperature**2 * divergence
    settings = Distillation(distill="logits", temperature=temperature, distill_weight=weight)
    found = distillation.loss(torch.tensor(1.25), torch.tensor(student), torch.tensor(teacher), settings)
    assert found.item() == pytest.approx(expected, abs=1e-5)


def test_a_teacher_that_agrees_adds_nothing():
    logits = torch.randn(4, 2)
    settings = Distillation(distill="logits", temperature=2.0, distill_weight=0.5)
    assert distillation.loss(torch.tensor(0.5), logits, logits, settings).item() == pytest.approx(0.25, abs=1e-6)


def test_a_layer_learns_what_the_layers_up_to_the_next_kept_one_hand_on():
    """Of six layers 0, 2 and 5 stay: their targets are what layers 1, 4 and 5 give, in the directions that stay."""
    states = tuple(torch.full((1, 2, 4), float(index)) + torch.arange(4) / 10 for index in range(7))
    teacher = distillation.Teacher(None, [0, 2, 5], torch.eye(4)[:, [1, 3]])
    expected = [[layer + 1.1, layer + 1.3] for layer in (1, 4, 5)]
    for found, wanted in zip(teacher.targets(states), expected, strict=True):
        torch.testing.assert_close(found, torch.tensor(wanted).expand(1, 2, 2))
    everything = distillation.Teacher(None, list(range(6)), None)
    assert all(a is b for a, b in zip(everything.targets(states), states[1:], strict=True))


def test_the_loss_of_hidden_states_is_the_unexplained_variance_of_tokens():
    generator = np.random.default_rng(0)
    student, target = generator.normal(size=(2, 3, 5, 4)), 3 * generator.normal(size=(2, 3, 5, 4)) + 7
    mask = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]])
    shares = [
        np.mean((student[layer][mask == 1] - target[layer][mask == 1]) ** 2) / np.var(target[layer][mask == 1], ddof=1)
        for layer in range(2)
    ]
    tensors = [torch.tensor(each, dtype=torch.float32) for each in (student, target)]
    found = distillation.hidden_loss(*tensors, torch.tensor(mask))
    assert found.item() == pytest.approx(np.mean(shares), rel=1e-5)


def test_logits_are_computed_once(monkeypatch, tmp_path):
    monkeypatch.setenv("ENCODER_REDUCTION_CACHE", str(tmp_path))
    assert distillation.cached_logits("run", "data") is None
    logits = np.arange(6, dtype=np.float32).reshape(3, 2)
    distillation.cache_logits("run", "data", logits)
    np.testing.assert_array_equal(distillation.cached_logits("run", "data"), logits)
    assert distillation.cached_logits("run", "other data") is None

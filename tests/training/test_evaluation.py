import numpy as np
import pytest
from sklearn.metrics import classification_report

from encoder_reduction.training.evaluation import evaluation, score


def test_scores_are_scikit_learns_own_report():
    generator = np.random.default_rng(0)
    logits, labels = generator.normal(size=(200, 2)), generator.integers(0, 2, 200)
    report = classification_report(labels, logits.argmax(1), output_dict=True)
    assert score(logits, labels) == pytest.approx(
        {"accuracy": report["accuracy"], "f1": report["weighted avg"]["f1-score"]}, abs=1e-12
    )


def test_predictions_carry_ids_and_probabilities():
    result = evaluation(["a", "b"], np.array([[0.0, 0.0], [-1000.0, 1000.0]]), np.array([1, 1]), [3, 9])
    assert result.accuracy == 0.5
    assert result.predictions.to_dict("list") == {
        "id": ["a", "b"],
        "label": [1, 1],
        "prediction": [0, 1],
        "score": [0.5, 1.0],
        "tokens": [3, 9],
    }

"""Accuracy and weighted F1, and the predictions behind them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import datasets
import evaluate
import numpy as np
import pandas as pd
from sklearn.metrics import accuracy_score, f1_score


class ClassificationMetrics(evaluate.Metric):
    """Accuracy and class-weighted F1 as an ``evaluate`` metric that downloads nothing.

    ``evaluate.load("accuracy")`` fetches a script from the hub; this computes the same figures with
    scikit-learn.
    """

    def _info(self) -> evaluate.MetricInfo:
        feature = datasets.Value("int64")
        return evaluate.MetricInfo(
            description="Accuracy and weighted F1.",
            citation="",
            inputs_description="predictions and references: class indices",
            features=datasets.Features({"predictions": feature, "references": feature}),
        )

    def _compute(self, predictions: Iterable[int], references: Iterable[int]) -> dict[str, float]:
        return {
            "accuracy": float(accuracy_score(references, predictions)),
            "f1": float(f1_score(references, predictions, average="weighted")),
        }


@dataclass(frozen=True)
class Evaluation:
    """What a model scored on a split.

    Attributes:
        accuracy: share of correct predictions.
        f1: F1 averaged over the classes, weighted by their support.
        predictions: one row an example: ``id``, ``label``, ``prediction``, ``score`` (the probability
            of class 1), ``tokens`` (the text's length, as the model read it).
    """

    accuracy: float
    f1: float
    predictions: pd.DataFrame


def score(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """``accuracy`` and ``f1`` of logits ``(examples, classes)`` against labels ``(examples,)``."""
    metric = ClassificationMetrics(keep_in_memory=True)
    return metric.compute(predictions=logits.argmax(axis=-1), references=labels)


def evaluation(ids: list[str], logits: np.ndarray, labels: np.ndarray, tokens: list[int]) -> Evaluation:
    """Scores of a split together with each example's prediction."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    values: dict[str, Any] = {
        "id": ids,
        "label": labels,
        "prediction": logits.argmax(axis=-1),
        "score": (shifted / shifted.sum(axis=-1, keepdims=True))[:, 1],
        "tokens": tokens,
    }
    return Evaluation(**score(logits, labels), predictions=pd.DataFrame(values))

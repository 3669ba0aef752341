"""The model as MLflow serves it: texts in, labels with scores out.

MLflow copies this file beside the model and runs it on its own, so it imports nothing of this project.
"""

from typing import Any

import mlflow
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

_BATCH = 32


class SentimentClassifier(mlflow.pyfunc.PythonModel):
    """Answers ``{"label": "positive" | "negative", "score": probability of that label}`` for each text."""

    def load_context(self, context: Any) -> None:
        """Load model and tokenizer from the folder that was logged."""
        folder = context.artifacts["huggingface"]
        # Pruned heads bring their own class in this very folder; nothing is downloaded.
        self.tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
        self.model = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True).eval()
        self.model.to("cuda" if torch.cuda.is_available() else "cpu")

    # No return annotation: MLflow warns at every load of one that mixes text and numbers.
    def predict(self, context: Any, model_input: list[str]):  # noqa: ANN201
        """One dictionary with ``label`` and ``score`` for each text."""
        answers = []
        for start in range(0, len(model_input), _BATCH):
            texts = list(model_input[start : start + _BATCH])
            length = self.model.config.max_position_embeddings - self.model.config.pad_token_id - 1
            inputs = self.tokenizer(texts, padding=True, truncation=True, max_length=length, return_tensors="pt")
            with torch.inference_mode():
                probabilities = self.model(**inputs.to(self.model.device)).logits.softmax(dim=-1)
            for score, index in zip(*probabilities.max(dim=-1), strict=True):
                answers.append({"label": self.model.config.id2label[index.item()], "score": score.item()})
        return answers


mlflow.models.set_model(SentimentClassifier())

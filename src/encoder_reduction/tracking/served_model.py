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
        """Load model and tokenizer from the folder that was logged, as the run that logged it measured them."""
        folder = context.artifacts["huggingface"]
        # Pruned heads bring their own class in this very folder; nothing is downloaded.
        self.tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
        self.model = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True).eval()
        device = "cuda" if torch.cuda.is_available() else "cpu"
        # As the run cut its texts when it scored the model.
        positions = self.model.config.max_position_embeddings - self.model.config.pad_token_id - 1
        self.max_length = getattr(self.model.config, "inference_max_length", positions)
        self.model.to(device, _number_format(self.model.config, device))

    # No return annotation: MLflow warns at every load of one that mixes text and numbers.
    def predict(self, context: Any, model_input: list[str]):  # noqa: ANN201
        """One dictionary with ``label`` and ``score`` for each text."""
        answers = []
        for start in range(0, len(model_input), _BATCH):
            texts = list(model_input[start : start + _BATCH])
            inputs = self.tokenizer(
                texts, padding=True, truncation=True, max_length=self.max_length, return_tensors="pt"
            )
            with torch.inference_mode():
                probabilities = self.model(**inputs.to(self.model.device)).logits.float().softmax(dim=-1)
            for score, index in zip(*probabilities.max(dim=-1), strict=True):
                answers.append({"label": self.model.config.id2label[index.item()], "score": score.item()})
        return answers


def _number_format(config: Any, device: str) -> torch.dtype:
    """The one that the run measured and scored the model in; float32 where the device does not compute in it."""
    stated = getattr(torch, getattr(config, "inference_dtype", "float32"))
    return torch.float32 if stated == torch.float16 and device == "cpu" else stated


mlflow.models.set_model(SentimentClassifier())

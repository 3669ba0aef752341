"""The model as MLflow serves it: texts in, labels with scores out.

MLflow copies this file beside the model and runs it on its own, so it imports nothing of this project.
"""

from typing import Any

import mlflow
import numpy as np
import pandas as pd
import torch
from mlflow.exceptions import MlflowException
from transformers import AutoModelForSequenceClassification, AutoTokenizer

_BATCH = 32


class SentimentClassifier(mlflow.pyfunc.PythonModel):
    """Answers ``{"label": "positive" | "negative", "score": probability of that label}`` for each text."""

    def load_context(self, context: Any) -> None:
        """Load model and tokenizer from the folder that was logged, as the run that logged it measured them."""
        folder = context.artifacts["huggingface"]
        # Pruned heads bring their own class in this very folder; nothing is downloaded.
        self.tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
        self.model = AutoModelForSequenceClassification.from_pretrained(
            folder, trust_remote_code=True, dtype=torch.float32
        ).eval()
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model.to(device, _number_format(self.model.config, device))

    # The hint is what MLflow hands on untouched, a list as well. No return annotation: it warns at every load of one
    # that mixes text and numbers.
    def predict(self, context: Any, model_input: pd.DataFrame):  # noqa: ANN201
        """One dictionary with ``label`` and ``score`` for each text.

        Args:
            context: MLflow's; not used.
            model_input: a list of texts; or a table, its columns or its rows, whose column ``text`` is read.

        Raises:
            MlflowException: there is no such column, or something in it is no text.
        """
        answers, texts = [], _texts(model_input)
        for start in range(0, len(texts), _BATCH):
            # Cut where the run cut its texts when it scored the model: the tokenizer states that length.
            inputs = self.tokenizer(texts[start : start + _BATCH], padding=True, truncation=True, return_tensors="pt")
            with torch.inference_mode():
                probabilities = self.model(**inputs.to(self.model.device)).logits.float().softmax(dim=-1)
            for score, index in zip(*probabilities.max(dim=-1), strict=True):
                answers.append({"label": self.model.config.id2label[index.item()], "score": score.item()})
        return answers


def _texts(given: Any) -> list[str]:
    """The texts of a list, or of the column ``text`` of a table."""
    if isinstance(given, dict):
        columns = any(isinstance(value, list | tuple | np.ndarray) for value in given.values())
        given = pd.DataFrame(given if columns else [given])
    if isinstance(given, list) and given and all(isinstance(row, dict) for row in given):
        given = pd.DataFrame(given)
    if isinstance(given, pd.DataFrame):
        if list(given.columns) == [0]:  # a list, which MLflow has made a table of
            given = given.rename(columns={0: "text"})
        if "text" not in given:
            raise MlflowException.invalid_parameter_value(
                f"The table has the columns {', '.join(map(str, given.columns))}; give one with a column 'text'."
            )
        given = given["text"]
    texts = list(given) if isinstance(given, list | tuple | pd.Series | np.ndarray) else [given]
    if strange := [text for text in texts if not isinstance(text, str)]:
        raise MlflowException.invalid_parameter_value(
            f"{strange[0]!r} is no text; give a list of texts, or a table with a column 'text'."
        )
    return texts


def _number_format(config: Any, device: str) -> torch.dtype:
    """The one that the run measured and scored the model in; float32 where the device does not compute in it."""
    stated = getattr(torch, getattr(config, "inference_dtype", "float32"))
    return torch.float32 if stated == torch.float16 and device == "cpu" else stated


mlflow.models.set_model(SentimentClassifier())

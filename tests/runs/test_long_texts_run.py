"""One whole run on texts of IMDb's lengths, with dropout as it was asked for."""

import logging

import mlflow
import pytest

from encoder_reduction.models import checkpoints
from encoder_reduction.models.dropout import dropout_of
from encoder_reduction.plan import presets
from encoder_reduction.runs import run
from encoder_reduction.tracking import store

pytestmark = pytest.mark.slow

VALUES = {
    "corpus": "packaged:movies-long", "max_length": 512, "attention_dropout": 0.0, "hidden_dropout": 0.2,
    "max_train_examples": 16, "max_validation_examples": 4, "max_test_examples": 4, "test_texts": 2,
    "min_repetitions": 2, "time_budget": 0.05, "fixed_lengths": "16",
}  # fmt: skip


def test_a_run_takes_long_texts_and_says_and_keeps_what_it_dropped(tmp_path, monkeypatch, caplog, experiment_id):
    plan = presets.load("packaged")[0].plan("baseline", "distilbert", overrides=VALUES)
    with caplog.at_level(logging.WARNING, logger="encoder_reduction"):
        outcome = run.execute(plan, experiment_id=experiment_id, progress=False)
    assert not [line for line in caplog.messages if "attention dropout" in line]
    found = mlflow.get_run(outcome.run_id).data
    assert found.tags["corpus"] == "movies-long"
    assert store.predictions_of([outcome.run_id])[outcome.run_id]["tokens"].between(100, 512).any()
    assert (found.params["attention_dropout"], found.params["hidden_dropout"]) == ("0.0", "0.2")
    with store.downloaded_model(outcome.run_id) as folder:
        model, _ = checkpoints.load_folder(folder)
    assert dropout_of(model) == {"attention_dropout": 0.0, "hidden_dropout": 0.2}
    assert model.config.seq_classif_dropout == 0.2  # DistilBERT's own, as it is in its configuration

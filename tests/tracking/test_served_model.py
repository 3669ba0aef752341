"""What a run predicted, what MLflow serves and what plain transformers gives are the same, at every length."""

import mlflow
import pandas as pd
import pytest
import torch
from mlflow.exceptions import MlflowException
from networks import small, words
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from conftest import FAMILIES
from encoder_reduction.plan import presets
from encoder_reduction.plan.sections import Checkpoint, Corpus
from encoder_reduction.runs import run
from encoder_reduction.tracking.store import PREDICTIONS_FILE, downloaded_model

pytestmark = pytest.mark.slow

MAX_LENGTH = 12
VALUES = {
    "batch_size": 16, "max_length": MAX_LENGTH, "precision": "fp32", "learning_rate": 0.001, "epochs": 1,
    "time_budget": 0.02, "min_repetitions": 2, "test_texts": 4, "fixed_lengths": "8,500",
}  # fmt: skip
# Words beside [CLS] and [SEP]: within the run's length, around it, and beyond the network's 30 positions.
LENGTHS = (1, 8, 9, 10, 11, 12, 20, 27, 28, 29, 40, 90)


def review(index):
    """A text whose beginning says one thing, and whose end, beyond what the run reads, says the other."""
    verdict, other = (("good", "bad"), ("bad", "good"))[index % 2]
    length = LENGTHS[index // 2 % len(LENGTHS)]
    return " ".join([verdict, *(f"w{10 + (index + i) % 40}" for i in range(length - 1))][: max(length - 6, 1)]
                    + [other] * min(6, length - 1))  # fmt: skip


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("long")
    for split, count in (("train", 96), ("validation", 48), ("test", 48)):
        rows = {"text": [review(i) for i in range(count)], "label": [1 - i % 2 for i in range(count)]}
        pd.DataFrame(rows).to_csv(folder / f"{split}.csv", index=False)
    return Corpus(name="long", source=str(folder))


@pytest.fixture(scope="module", params=FAMILIES)
def runs(request, tmp_path_factory, corpus):
    """Of a family, a baseline, a reduction whose heads are pruned, and its transfer."""
    folder, before = tmp_path_factory.mktemp("runs"), mlflow.get_tracking_uri()
    network = small(request.param, 2, 4, 4, 32)
    with torch.no_grad():
        for matrix in filter(lambda parameter: parameter.dim() == 2, network.parameters()):
            matrix.mul_(10)  # so that every word of a text moves its answer
    network.save_pretrained(folder / "checkpoint")
    words().save_pretrained(folder / "checkpoint")
    inputs = {"checkpoint": Checkpoint(name="two-layers", source=str(folder / "checkpoint")), "corpus": corpus}
    preset = presets.load("packaged")[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ENCODER_REDUCTION_CACHE", str(folder / "cache"))
        mlflow.set_tracking_uri(f"sqlite:///{folder}/store.db")
        experiment = mlflow.create_experiment("served", artifact_location=str(folder / "artifacts"))
        done = {}
        for stage, dim in (("baseline", None), ("reduce", "heads"), ("transfer", "heads")):
            values = VALUES | ({"calibration_examples": 16} if stage == "reduce" else {})
            plan = preset.plan(stage, request.param, dim, values).model_copy(update=inputs)
            source = done.get("reduce") if stage == "transfer" else None
            done[stage] = run.execute(plan, source, experiment_id=experiment, progress=False).run_id
        yield done
    mlflow.set_tracking_uri(before)


def plain(folder, texts):
    """As somebody without this project would do it."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.inference_mode():
        inputs = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        return model(**inputs).logits.softmax(-1)[:, 1].tolist()


@pytest.mark.parametrize("stage", ["baseline", "reduce", "transfer"])
def test_a_run_its_served_model_and_plain_transformers_agree_at_every_length(runs, corpus, tmp_path, stage):
    texts = pd.read_csv(f"{corpus.source}/test.csv")["text"].tolist()
    file = mlflow.artifacts.download_artifacts(f"runs:/{runs[stage]}/{PREDICTIONS_FILE}", dst_path=str(tmp_path))
    logged = pd.read_csv(file)
    assert logged["tokens"].max() == MAX_LENGTH
    assert logged["score"].std() > 1e-4  # a hundred times what is tolerated below
    served = mlflow.pyfunc.load_model(f"runs:/{runs[stage]}/model")
    answers = served.predict(texts)
    positive = [each["score"] if each["label"] == "positive" else 1 - each["score"] for each in answers]
    assert positive == pytest.approx(logged["score"].tolist(), abs=1e-6)
    with downloaded_model(runs[stage]) as folder:
        assert plain(folder, texts) == pytest.approx(logged["score"].tolist(), abs=1e-6)


def test_a_table_is_scored_by_its_column_of_texts(runs):
    served = mlflow.pyfunc.load_model(f"runs:/{runs['baseline']}/model")
    texts = ["good film", "bad plot"]
    expected = served.predict(texts)
    assert expected[0]["score"] != expected[1]["score"]
    for table in ({"title": ["w9", "w9"], "text": texts}, {"text": texts, "label": [1, 0]}, {"review": texts}):
        assert served.predict(pd.DataFrame(table)) == expected
    columns = {"title": texts, "review": texts}
    for nothing in (pd.DataFrame(columns), pd.DataFrame({"text": ["good", None]}), {"text": texts}):
        with pytest.raises(MlflowException, match="column 'text'"):
            served.predict(nothing)


def test_more_is_not_served_than_the_run_read(runs):
    """The words that the run has cut off would change the answer."""
    served = mlflow.pyfunc.load_model(f"runs:/{runs['baseline']}/model")
    start = " ".join(["good", *["film"] * 9])
    assert served.predict([start]) == served.predict([f"{start} bad bad bad"])
    with downloaded_model(runs["baseline"]) as folder:
        model = AutoModelForSequenceClassification.from_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        assert tokenizer.model_max_length == MAX_LENGTH
        longer = [model(**tokenizer(text, max_length=20, truncation=True, return_tensors="pt")).logits
                  for text in (start, f"{start} bad bad bad")]  # fmt: skip
    assert not torch.allclose(*longer)

"""What a run predicted, what MLflow serves and what plain transformers gives are the same, at every length.

And what MLflow shows of runs and their models: data, lineage, figures, words.
"""

import json
import re
import shutil
import tempfile
from pathlib import Path

import mlflow
import pandas as pd
import pytest
import torch
from mlflow.exceptions import MlflowException
from networks import small, words
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from conftest import FAMILIES, ROOT
from encoder_reduction.data import corpora
from encoder_reduction.plan import presets
from encoder_reduction.plan.sections import Checkpoint, Corpus
from encoder_reduction.runs import run
from encoder_reduction.tracking.logged_models import latest_model
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
        # Python writes compiled files beside a model that is loaded where it lies.
        shutil.copytree(folder / "artifacts", folder / "as_logged")
        yield done
    mlflow.set_tracking_uri(before)


of_bert = pytest.mark.parametrize("runs", ["bert"], indirect=True)


def served(run_id):
    return mlflow.pyfunc.load_model(f"models:/{latest_model(run_id).model_id}")


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
    answers = served(runs[stage]).predict(texts)
    positive = [each["score"] if each["label"] == "positive" else 1 - each["score"] for each in answers]
    assert positive == pytest.approx(logged["score"].tolist(), abs=1e-6)
    with downloaded_model(runs[stage]) as folder:
        assert plain(folder, texts) == pytest.approx(logged["score"].tolist(), abs=1e-6)


def test_a_table_is_scored_by_its_column_of_texts(runs):
    model, texts = served(runs["baseline"]), ["good film", "bad plot"]
    expected = model.predict(texts)
    assert expected[0]["score"] != expected[1]["score"]
    table = {"title": ["w9", "w9"], "text": texts, "stars": [5, 1]}
    for rows in (pd.DataFrame(table), table, pd.DataFrame(table).to_dict("records"), {"text": texts}):
        assert model.predict(rows) == expected
    assert model.predict({"title": "w9", "text": texts[0]}) == [pytest.approx(expected[0])]
    columns = ({"title": texts, "review": texts}, {"review": texts}, {"text": ["good", None]})
    others = ({"review": "nice"}, {"text": None}, [{"text": "good"}, "bad"], [{"review": "nice"}])
    for nothing in (*map(pd.DataFrame, columns), *columns, *others):
        with pytest.raises(MlflowException, match="column 'text'"):
            model.predict(nothing)


@of_bert
def test_a_file_is_scored_by_its_column_of_texts_by_mlflows_command(runs, command, tmp_path):
    uri, texts = f"models:/{latest_model(runs['reduce']).model_id}", ["good film", "bad plot"]
    table = pd.DataFrame({"id": [7, 8], "text": texts, "stars": ["five", "one"]})
    env = {"MLFLOW_TRACKING_URI": mlflow.get_tracking_uri()}
    for name, rows in (("whole", table), ("without", table.rename(columns={"text": "review"}))):
        rows.to_csv(tmp_path / f"{name}.csv", index=False)
    words = ["mlflow", "models", "predict", "-m", uri, "--env-manager", "local", "-t", "csv"]
    whole, without = (
        command(*words, "-i", f"{name}.csv", "-o", f"{name}.json", cwd=tmp_path, env=env)
        for name in ("whole", "without")
    )
    assert whole.returncode == 0, whole.stderr
    answers = json.loads((tmp_path / "whole.json").read_text())["predictions"]
    assert answers == [pytest.approx(each) for each in served(runs["reduce"]).predict(texts)]
    assert without.returncode != 0
    assert "The table has the columns id, review, stars; give one with a column 'text'." in without.stderr


def test_more_is_not_served_than_the_run_read(runs):
    """The words that the run has cut off would change the answer."""
    model = served(runs["baseline"])
    start = " ".join(["good", *["film"] * 9])
    assert model.predict([start]) == model.predict([f"{start} bad bad bad"])
    with downloaded_model(runs["baseline"]) as folder:
        model = AutoModelForSequenceClassification.from_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        assert tokenizer.model_max_length == MAX_LENGTH
        longer = [model(**tokenizer(text, max_length=20, truncation=True, return_tensors="pt")).logits
                  for text in (start, f"{start} bad bad bad")]  # fmt: skip
    assert not torch.allclose(*longer)


@of_bert
def test_a_run_names_its_data_and_what_it_builds_on(runs, corpus):
    inputs = mlflow.get_run(runs["transfer"]).inputs
    data = {each.tags[0].value: each.dataset for each in inputs.dataset_inputs}
    assert {context: dataset.name for context, dataset in data.items()} == {
        "training": "long-train", "validation": "long-validation", "testing": "long-test"
    }  # fmt: skip
    texts = corpora.load(corpus)
    assert data["testing"].digest == corpora.fingerprint(texts["test"])
    assert len({dataset.digest for dataset in data.values()}) == 3
    assert json.loads(data["training"].profile) == {"num_rows": 96, "negative": 48, "positive": 48}
    source = mlflow.data.get_source(data["testing"])
    assert Path(source.uri) == Path(corpus.source)
    assert [each.model_id for each in inputs.model_inputs] == [latest_model(runs["reduce"]).model_id]
    assert mlflow.get_run(runs["baseline"]).inputs.model_inputs == []


@of_bert
def test_one_search_ranks_the_models_of_a_study(runs):
    experiment = mlflow.get_run(runs["baseline"]).info.experiment_id
    best_first = [{"field_name": "metrics.accuracy", "ascending": False, "dataset_name": "long-test"}]
    found = mlflow.search_logged_models([experiment], order_by=best_first, output_format="list")
    accuracies = {run_id: mlflow.get_run(run_id).data.metrics["accuracy"] for run_id in runs.values()}
    assert {model.source_run_id for model in found} == set(runs.values())
    ranked = [accuracies[model.source_run_id] for model in found]
    assert ranked == sorted(ranked, reverse=True)
    by_stage = {model.tags["stage"]: model for model in found}
    names = {stage: model.name for stage, model in by_stage.items()}
    assert names == {
        "baseline": "bert-baseline", "reduce": "bert-heads-2", "transfer": "bert-heads-2-transfer"
    }  # fmt: skip
    reduced = by_stage["reduce"]
    assert (reduced.tags["dim"], reduced.tags["config"], reduced.tags["preset"]) == ("heads", "heads-2", "packaged")
    assert reduced.params["num_attention_heads"] == "2"
    of_data = {metric.key: metric.dataset_name for metric in reduced.metrics}
    assert not any(name.startswith("system/") for name in of_data)
    assert {of_data[name] for name in ("accuracy", "f1", "inference_ms")} == {"long-test"}
    assert (of_data["validation_accuracy"], of_data["training_seconds"]) == ("long-validation", "long-train")
    assert (of_data["parameters"], of_data["inference_ms_8"]) == (None, None)


@of_bert
def test_a_run_says_what_was_done_and_how_its_model_is_loaded(runs):
    run = mlflow.get_run(runs["reduce"])
    said = run.data.tags["mlflow.note.content"]
    assert "two-layers made smaller (`heads-2`), cut from its pretrained encoder, fine-tuned on 96 texts" in said
    assert f"**Test accuracy {run.data.metrics['accuracy']:.3f}** (48 texts)" in said
    load = re.search(r"```python\n(.*)\n```", said).group(1)
    assert eval(load)[0]["label"] in ("positive", "negative")


@of_bert
def test_a_model_names_no_place_of_the_machine_that_made_it(runs):
    place = latest_model(runs["reduce"]).artifact_location
    folder = Path(place.removeprefix("file://").replace("/artifacts/", "/as_logged/"))
    files = [file for file in folder.rglob("*") if file.is_file() and file.suffix != ".safetensors"]
    assert {"MLmodel", "config.json", "tokenizer_config.json", "input_example.json"} <= {file.name for file in files}
    for file in files:
        for place in (str(Path.home()), tempfile.gettempdir(), str(ROOT)):
            assert f"{place}/".encode() not in file.read_bytes(), (file, place)


@of_bert
def test_a_signature_names_its_columns(runs):
    info = mlflow.models.get_model_info(f"models:/{latest_model(runs['reduce']).model_id}")
    assert info.signature.inputs.input_names() == ["text"]
    assert info.signature.outputs.input_names() == ["label", "score"]
    model = served(runs["reduce"])
    assert model.predict(model.input_example) == model.predict(["A wonderful film."])

"""The chosen model as its users get it, from a real tracking server: downloaded, loaded, and served over HTTP."""

import json
from pathlib import Path

import mlflow
import pytest
import requests
import torch
from machines import free_port, listening, tracked
from stores import finished
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from conftest import ROOT
from encoder_reduction.plan import presets
from encoder_reduction.reductions import reduce_model
from encoder_reduction.tracking import opening

pytestmark = pytest.mark.slow

URI = "models:/encoder-reduction-bert@best"
TEXTS = ["A wonderful film.", "Dull, and far too long."]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with tracked(tmp_path_factory.mktemp("server")) as server:
        yield server.address


@pytest.fixture(scope="module")
def pruned(packaged, batches):
    """A model of a class of its own, with its tokenizer."""
    model, tokenizer = packaged["bert"]
    reduction = presets.load("packaged")[0].plan("reduce", "bert", "heads", {"correct": "none"}).reductions
    return reduce_model(model, reduction, batches["bert"][:1], seed=0).eval(), tokenizer


@pytest.fixture(scope="module")
def answers(server, pruned, command, tmp_path_factory):
    """What the model says of the texts, after it was logged to the server and `compare` has registered it."""
    mlflow.set_experiment("served")
    finished()
    run_id = finished(dim="heads", accuracy=0.79)
    with opening.open_run(run_id=run_id) as run:
        run.model(*pruned)
    words = ["mlflow", "run", ROOT, "-e", "compare", "--env-manager", "local", "--experiment-name", "served"]
    result = command(
        *words, "-P", "preset=packaged", cwd=tmp_path_factory.mktemp("away"), env={"MLFLOW_TRACKING_URI": server}
    )
    assert result.returncode == 0, result.stderr
    assert f"- `{URI}`: heads-6, test accuracy 0.790" in result.stdout
    model, tokenizer = pruned
    return said_by(model, tokenizer)


def said_by(model, tokenizer):
    with torch.inference_mode():
        scores = model(**tokenizer(TEXTS, padding=True, return_tensors="pt")).logits.softmax(-1)
    return [(model.config.id2label[row.argmax().item()], pytest.approx(row.max().item(), abs=1e-5)) for row in scores]


def test_every_row_links_to_its_run_on_the_server(server, answers, tmp_path):
    (run,) = mlflow.MlflowClient(server).search_runs(
        [mlflow.get_experiment_by_name("served").experiment_id], "tags.stage = 'compare'"
    )
    page = Path(mlflow.artifacts.download_artifacts(f"runs:/{run.info.run_id}/report.html", dst_path=str(tmp_path)))
    assert page.read_text().count(f'href="{server}/#/experiments/{run.info.experiment_id}/runs/') == 2


def test_the_best_model_is_downloaded_and_loaded_by_plain_transformers(server, answers, command, tmp_path):
    result = command(
        "mlflow", "artifacts", "download", "-u", URI, "-d", tmp_path / "best",
        cwd=tmp_path, env={"MLFLOW_TRACKING_URI": server},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    (config,) = (tmp_path / "best").glob("artifacts/*/config.json")
    model = AutoModelForSequenceClassification.from_pretrained(config.parent, trust_remote_code=True).eval()
    assert said_by(model, AutoTokenizer.from_pretrained(config.parent, trust_remote_code=True)) == answers


def test_the_best_model_predicts_through_pyfunc(server, answers):
    said = mlflow.pyfunc.load_model(URI).predict(TEXTS)
    assert [(each["label"], each["score"]) for each in said] == answers


def test_the_best_model_is_served_over_http(server, answers, tmp_path):
    port = free_port()
    words = ["mlflow", "models", "serve", "-m", URI, "--env-manager", "local", "--host", "127.0.0.1", "--port"]
    with listening([*words, str(port)], tmp_path, port, "ping", MLFLOW_TRACKING_URI=server) as address:
        answer = requests.post(f"{address}/invocations", json={"inputs": TEXTS}, timeout=60)
        refused = requests.post(f"{address}/invocations", json={"inputs": [1, 2]}, timeout=60)
    said = json.loads(answer.text)["predictions"]
    assert [(each["label"], each["score"]) for each in said] == answers
    assert refused.status_code == 400

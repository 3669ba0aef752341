"""A registered model becomes a folder that others run, and the code that is printed runs it."""

import re
import subprocess
import sys

import mlflow
import numpy as np
import pytest
from stores import finished, with_model
from transformers import AutoTokenizer

from conftest import ROOT, environment
from encoder_reduction.deployment.export import torch_logits
from encoder_reduction.errors import UserError
from encoder_reduction.launching.export import export, onnxruntime_code
from encoder_reduction.models import checkpoints
from encoder_reduction.tracking import registry

pytestmark = pytest.mark.usefixtures("experiment_id")


@pytest.fixture
def registered(experiment_id, packaged):
    """A run whose small network is the registry's best."""
    run_id = finished(dim="layers")
    with_model(run_id, packaged["bert"][1])
    registry.register_model("bert", "best", run_id, registry.Card("Small.", {}))
    return run_id


@pytest.mark.slow
def test_the_command_writes_a_checked_folder_and_what_it_prints_runs(registered, experiment_id, tmp_path):
    words = [
        sys.executable,
        ROOT / "entry_points" / "export.py",
        "--model=bert",
        "--format=int8",
        f"--to={tmp_path}/out",
    ]
    env = environment(MLFLOW_TRACKING_URI=mlflow.get_tracking_uri(), MLFLOW_EXPERIMENT_ID=experiment_id)
    result = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    place = tmp_path / "out"
    assert sorted(each.name for each in place.iterdir()) == ["huggingface", "onnx"]
    code = re.search(r"With onnxruntime:\n\n(.*?)\n\n", result.stdout, re.S).group(1)
    assert code == onnxruntime_code(place)
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    model, _ = checkpoints.load_folder(place / "huggingface")
    tokenizer = AutoTokenizer.from_pretrained(place / "onnx")
    batch = tokenizer(["A wonderful film.", "Dull."], padding=True, return_tensors="pt")
    labels = np.array(["negative", "positive"])[torch_logits(model, batch).argmax(-1)]
    assert ran.stdout.strip() == str(labels.tolist())

    (run,) = mlflow.search_runs([experiment_id], "tags.stage = 'export'", output_format="list")
    assert run.info.status == "FINISHED"
    assert run.data.tags["source_run"] == registered
    assert run.data.metrics["label_agreement"] > 0.9
    logged = {each.path for each in mlflow.MlflowClient().list_artifacts(run.info.run_id, "onnx")}
    assert logged == {f"onnx/{file.name}" for file in (place / "onnx").iterdir()}
    assert "onnx/model.onnx" in logged


@pytest.mark.slow
def test_an_export_replaces_an_earlier_one_and_nothing_else(registered, tmp_path):
    place = tmp_path / "out"
    said = export("bert", "best", "fp32", str(place))
    assert re.search(r"Its logits are PyTorch's within \de-0\d; of 73 short opinions, 100\.0% get the same label", said)
    (place / "onnx" / "stale").touch()
    export("bert", "best", "fp32", str(place))
    assert not (place / "onnx" / "stale").exists()
    (place / "thesis.tex").touch()
    with pytest.raises(UserError, match=r"^to=.*/out holds other files \(thesis\.tex\): give a folder that is new"):
        export("bert", "best", "fp32", str(place))
    with pytest.raises(UserError, match=r"^to=.*thesis\.tex is a file"):
        export("bert", "best", "fp32", str(place / "thesis.tex"))


def test_what_the_registry_does_not_have_is_one_sentence(registered, tmp_path):
    with pytest.raises(UserError, match=r"^No model encoder-reduction-roberta is in the registry at sqlite.*-bert"):
        export("roberta", "best", "fp32", str(tmp_path / "out"))
    with pytest.raises(UserError, match=r"^alias=fastest is not allowed: encoder-reduction-bert has best"):
        export("bert", "fastest", "fp32", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()

"""From a trained model to a faster one in one command, on a stranger's own checkpoint and texts."""

import re
import shutil

import mlflow
import pandas as pd
import pytest
from studies import Project
from tagged import checkpoint, corpus

from encoder_reduction.errors import UserError
from encoder_reduction.launching.compress import plan_of
from encoder_reduction.plan import presets
from encoder_reduction.tracking.logged_models import latest_model


@pytest.fixture(scope="module")
def preset():
    return presets.load("packaged")[0]


def test_it_cuts_the_baseline_in_all_dimensions_and_recovers_as_the_preset_has_it(preset):
    plan = plan_of(preset, "bert", None, {"budget": "latency:0.5", "seed": 7})
    assert (plan.dim, plan.start, plan.budget.budget) == ("mixed", "baseline", "latency:0.5")
    assert plan.distillation == preset.recovery
    assert plan.builds_on[0] == preset.plan("baseline", "bert", None, {"seed": 7})
    assert plan_of(preset, "bert", "", {"budget": "flops:0.5"}).dim == "mixed"


def test_what_is_given_comes_before_what_the_preset_has(preset):
    given = {"budget": "flops:0.5", "start": "checkpoint", "distill": "logits", "checkpoint": "mine", "epochs": 3.0}
    plan = plan_of(preset, "bert", "heads+intermediate", given)
    assert (plan.start, plan.distillation.distill, plan.checkpoint.source) == ("checkpoint", "logits", "mine")
    assert (plan.dim, plan.fine_tuning.epochs, plan.builds_on) == ("heads+intermediate", 3.0, ())


@pytest.mark.parametrize("without", ["recovery", "epochs"])
def test_without_a_recovery_nothing_is_taught(preset, without):
    other = preset.model_copy(update={"recovery": None}) if without == "recovery" else preset
    plan = plan_of(other, "bert", None, {"budget": "flops:0.5", **({"epochs": 0} if without == "epochs" else {})})
    assert plan.distillation is None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"budget": "latency:1.2"}, r"budget=latency:1\.2 is not allowed"),
        ({"keep": 0.5}, r"budget=latency:0\.5 decides how much stays: leave out keep"),
        ({"start": "pretrained"}, "start=pretrained is not trained yet: leave start out"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_done(preset, given, said):
    with pytest.raises(UserError, match=said):
        plan_of(preset, "bert", None, given)


def test_without_a_budget_it_is_half_of_the_time(preset):
    assert plan_of(preset, "bert", None, {}).budget.budget == "latency:0.5"


@pytest.fixture(scope="module")
def apart(tmp_path_factory, command, small_preset):
    """A store of its own, since others count the runs of theirs."""
    return Project(tmp_path_factory.mktemp("apart"), command, small_preset("apart", models=("bert",)))


@pytest.fixture(scope="module")
def theirs(apart, tmp_path_factory):
    """A fine-tuned classifier and texts in files, as a stranger has them; the classifier is of a run of their own."""
    folder = tmp_path_factory.mktemp("theirs")
    made = {"checkpoint": checkpoint(folder / "small").source, "corpus": corpus(folder / "texts").source}
    given = [f"{name}={value}" for name, value in made.items()]
    trained = apart.run("baseline", "model=bert", *given, "validation_examples=8", "max_length=16", "fixed_lengths=8")
    assert trained.returncode == 0, trained.stderr
    run_id = re.search(r"MLflow run (\w+)", trained.stdout).group(1)
    mlflow.set_tracking_uri(apart.env["MLFLOW_TRACKING_URI"])
    uri = f"models:/{latest_model(run_id).model_id}"
    whole = mlflow.artifacts.download_artifacts(uri, dst_path=str(folder / "model"))
    (huggingface,) = {file.parent for file in (folder / "model").rglob("config.json")}
    shutil.copytree(huggingface, folder / "my-classifier")
    assert whole
    return folder


@pytest.mark.slow
def test_a_strangers_classifier_and_texts(apart, theirs):
    given = ["model=bert", f"checkpoint={theirs}/my-classifier", "start=checkpoint", f"corpus={theirs}/texts"]
    given += ["max_length=16", "validation_examples=8", "fixed_lengths=8", "search_candidates=6"]
    given += ["budget=latency:0.8", "budget_tolerance=0.3"]
    result = apart.run("compress", *given)
    assert result.returncode == 0, result.stderr
    first, second, third = result.stdout.strip().splitlines()[-3:]
    assert re.search(r"mixed-latency-0\.8.* times as fast as the network that was cut \(95% [\d.]+ to [\d.]+", first)
    assert re.search(r"^test accuracy [\d.]+, before [\d.]+: [+-][\d.]+ points \(95% ", second)
    uri = re.search(r'load_model\("([^"]+)"\)', third).group(1)
    assert uri == "models:/encoder-reduction-bert@latency-0_8-my-classifier"

    (found,) = apart.runs(stage="reduce", config="mixed-latency-0.8")
    assert found.info.status == "FINISHED"
    assert found.data.tags["checkpoint"] == "my-classifier"
    assert {"speed_ratio", "latency_share", "flops_share", "whole_accuracy", "search_seconds"} <= set(
        found.data.metrics
    )
    assert found.data.metrics["flops_share"] < 1
    mlflow.set_tracking_uri(apart.env["MLFLOW_TRACKING_URI"])
    (answer,) = mlflow.pyfunc.load_model(uri).predict(["good film"])
    assert answer["label"] in ("positive", "negative")
    for file, columns in (("search.csv", {"told", "achieved", "verdict"}), ("latency_table.csv", {"measured", "told"})):
        table = pd.read_csv(mlflow.artifacts.download_artifacts(f"runs:/{found.info.run_id}/{file}"))
        assert columns <= set(table.columns)

    again = apart.run("compress", *given)
    assert again.returncode == 0, again.stderr
    assert "finished already, skipped" in again.stderr
    assert again.stdout.strip().splitlines()[-3:] == [first, second, third]


@pytest.mark.slow
def test_what_cannot_be_reached_is_one_sentence_and_a_failed_run(apart, theirs):
    given = ["model=bert", f"checkpoint={theirs}/my-classifier", "start=checkpoint", f"corpus={theirs}/texts"]
    given += ["max_length=16", "validation_examples=8", "fixed_lengths=8", "dim=heads", "budget=flops:0.1"]
    result = apart.run("compress", *given)
    assert result.returncode != 0
    assert "budget=flops:0.1 is out of reach of dim=heads: even heads=1 leaves" in result.stderr
    assert "Traceback" not in result.stderr.partition("ERROR mlflow")[0]
    failed = [
        run for run in apart.runs(stage="reduce") if run.data.tags.get("error", "").startswith("budget=flops:0.1")
    ]
    assert [run.info.status for run in failed] == ["FAILED"]

"""``keep_models=best``: what was chosen, what others learn from and what is still needed stays; the rest goes."""

import os
import sys

import mlflow
import pytest
from stores import finished, with_model

from conftest import ROOT
from encoder_reduction import comparison
from encoder_reduction.comparison import best_models, selection
from encoder_reduction.data import cache
from encoder_reduction.launching.cluster import submissions
from encoder_reduction.launching.keeping import keep_best
from encoder_reduction.launching.pairing import runs_to_pair
from encoder_reduction.plan import presets
from encoder_reduction.plan.study import Study
from encoder_reduction.tracking import fingerprints, registry, store
from encoder_reduction.tracking.logged_models import logged_models

pytestmark = pytest.mark.slow

PRESET, _ = presets.load("packaged")


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    """The id of an experiment in a new store, which the tests' runs go to."""
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/store.db")
    experiment = mlflow.create_experiment("kept", str(tmp_path / "files"))
    mlflow.set_experiment(experiment_id=experiment)
    yield experiment
    mlflow.set_experiment(experiment_id="0")  # in this store: the one before may be a server that is gone
    mlflow.set_tracking_uri(before)


@pytest.fixture
def plant(packaged):
    """A finished run with a model."""

    def run(*arguments, **more):
        run_id = finished(*arguments, **more)
        with_model(run_id, packaged["bert"][1])
        return run_id

    return run


def adapted(plant, dim, source, seed=42):
    """A transfer as this code would make it."""
    plan = PRESET.plan("transfer", "bert", dim, {"seed": seed})
    digests = {
        "plan_fingerprint": fingerprints.of_configuration(plan),
        "code_fingerprint": fingerprints.of_code(),
        "fingerprint": fingerprints.of_plan(plan, source),
        "source_run": source,
    }
    return plant(dim=dim or "none", stage="transfer", seed=seed, tags=digests)


def with_models(run_ids):
    return {run_id for run_id in run_ids if logged_models(run_id)}


def test_what_is_chosen_taught_from_or_still_needed_stays(experiment, plant):
    baseline, heads = plant(), plant(dim="heads", validation_accuracy=0.79)
    narrow = plant(dim="heads", config="heads-3", validation_accuracy=0.7)
    hidden, layers = (
        plant(dim="hidden", config="hidden-192", validation_accuracy=0.75),
        plant(dim="layers", config="layers-3"),
    )
    done = [adapted(plant, "heads", heads), adapted(plant, "hidden", hidden)]
    own, other = adapted(plant, None, baseline), plant(dim="heads", config="heads-3", tags={"preset": "another"})
    registry.register_model("bert", "best", heads, registry.Card("", {}))
    everything = [baseline, heads, narrow, hidden, layers, *done, own, other]
    study = Study(PRESET, seeds=(42,))

    paired = runs_to_pair(experiment, study, "bert")
    assert set(paired) == {baseline, heads, hidden, layers}
    said = keep_best(study, experiment, comparison.Choice())
    assert "removed the models of 3 reductions" in said
    assert with_models(everything) == {*paired, own, other}

    digest = fingerprints.of_plan(study.profiles()[0], ",".join(paired))
    finished(stage="profile", tags={"runs": ",".join(paired), "fingerprint": digest})
    assert "of 1 reductions" in keep_best(study, experiment, comparison.Choice())
    assert with_models(everything) == {baseline, heads, layers, own, other}  # layers are not adapted yet
    assert "their models are not in the store: best-hidden of bert (hidden-192)." in registered_again(experiment)


def registered_again(experiment):
    runs = selection.latest_runs(store.finished_runs(experiment, preset=PRESET.name), Study(PRESET)).planned
    found = selection.split_stages(selection.configurations(runs))[0]
    return best_models.registered_models(found, "accuracy", lambda row: registry.Card("", {}))


@pytest.mark.parametrize(("keep_models", "more"), [("all", ()), ("best", ("-P", "keep_models=best"))])
def test_on_slurm_the_comparison_removes_them(keep_models, more):
    (compare,) = submissions(Study(PRESET), "packaged", keep_models, state=[])
    assert (compare.name, compare.arguments) == ("compare", ("-P", "preset=packaged", *more))


def test_compare_keeps_what_it_registers(experiment, plant, command, tmp_path):
    baseline, heads = plant(), plant(dim="heads", validation_accuracy=0.79)
    narrow = plant(dim="heads", config="heads-3", validation_accuracy=0.7)
    words = [sys.executable, ROOT / "entry_points" / "compare.py", "--preset=packaged"]
    env = {
        "MLFLOW_TRACKING_URI": mlflow.get_tracking_uri(),
        "MLFLOW_EXPERIMENT_NAME": "kept",
        cache.VARIABLE: os.environ[cache.VARIABLE],
    }
    assert command(*words, cwd=tmp_path, env=env).returncode == 0
    assert with_models([baseline, heads, narrow]) == {baseline, heads, narrow}
    result = command(*words, "--keep_models=best", cwd=tmp_path, env=env)
    assert result.returncode == 0, result.stderr
    assert "keep_models=best removed the models of 1 reductions that were not chosen: " in result.stderr
    assert with_models([baseline, heads, narrow]) == {baseline, heads}
    assert mlflow.pyfunc.load_model("models:/encoder-reduction-bert@best").predict(["Dull."])

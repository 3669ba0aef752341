"""The comparison on a real store whose runs were written for it, so that every figure is known."""

import re
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest

from encoder_reduction import comparison, presets, tracking
from encoder_reduction.comparison.pictures import pareto_front
from encoder_reduction.comparison.tables import to_latex
from encoder_reduction.errors import UserError


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{folder}/store.db")
    yield folder
    mlflow.set_tracking_uri(before)


@pytest.fixture(autouse=True)
def experiment(store, request, monkeypatch):
    """An empty experiment for each test, in one store, since making a store takes seconds."""
    mlflow.create_experiment(request.node.name, artifact_location=str(store / request.node.name))
    mlflow.set_experiment(request.node.name)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", request.node.name)


def finished(model="bert", dim="none", stage=None, config=None, seed=42, params=None, tags=None, **metrics):
    """A finished run with these figures; what is not given is the baseline's."""
    figures = {
        "parameters": 100.0, "accuracy": 0.8, "f1": 0.8, "validation_accuracy": 0.8, "inference_ms": 10.0,
        "training_memory_gb": 2.0, "inference_memory_gb": 1.0, "training_seconds": 100.0, "flops_per_example": 1e9,
    } | metrics  # fmt: skip
    config = config or ("baseline" if dim == "none" else f"{dim}-6")
    identity = {
        "stage": stage or ("baseline" if dim == "none" else "reduce"), "model": model, "checkpoint": f"minilm-{model}",
        "dim": dim, "config": config, "preset": "packaged", "seed": seed, "device": "some CPU",
        "memory_kind": "resident", "machine": "quiet", "distilled": "false",
        "plan_fingerprint": f"{model}-{dim}-{config}-{params}",
    } | (tags or {})  # fmt: skip
    with mlflow.start_run() as run:
        mlflow.set_tags(identity)
        mlflow.log_params(params or {})
        mlflow.log_metrics(figures)
    return run.info.run_id


def with_predictions(run_id, right):
    """Store test predictions that are right where ``right`` says so."""
    table = pd.DataFrame({"id": range(len(right)), "label": 1, "prediction": right.astype(int), "score": 0.5})
    mlflow.MlflowClient().log_text(run_id, table.to_csv(index=False), tracking.PREDICTIONS_FILE)


def compared():
    preset, _ = presets.load("packaged")
    with tracking.open_run() as run:
        report = comparison.compare(preset, run)
    return report, artifact("source_table.csv"), artifact("changes.csv")


def artifact(file):
    """A table of the comparison that ran last."""
    return pd.read_csv(mlflow.artifacts.download_artifacts(f"runs:/{mlflow.last_active_run().info.run_id}/{file}"))


def test_rows_are_chosen_on_validation_and_reported_on_test():
    finished()
    finished(dim="heads", config="heads-4", validation_accuracy=0.70, accuracy=0.99)
    finished(dim="heads", config="heads-6", validation_accuracy=0.75, accuracy=0.60)
    _, table, _ = compared()
    assert table[["Config", "Accuracy"]].values.tolist() == [["baseline", 0.8], ["heads-6", 0.6]]


def test_seeds_are_averaged_and_repeated_runs_count_once():
    finished()
    finished(dim="layers", seed=1, accuracy=0.10)  # the same plan and seed, run again below
    for seed, accuracy in ((1, 0.70), (2, 0.72), (3, 0.77)):
        finished(dim="layers", seed=seed, accuracy=accuracy)
    report, table, _ = compared()
    assert table.loc[1, "Accuracy"] == pytest.approx(0.73)
    everything = artifact("every_figure.csv")
    assert everything["accuracy_std"].iloc[1] == pytest.approx(np.std([0.70, 0.72, 0.77], ddof=1))
    assert everything["inference_memory_gb"].tolist() == [1, 1]
    assert "Seeds per row: 1 to 3" in report


def test_controls_and_distilled_models_stay_out():
    finished()
    finished(dim="hidden", accuracy=0.7, validation_accuracy=0.7)
    finished(dim="hidden", accuracy=0.9, validation_accuracy=0.9, tags={"distilled": "true"}, params={"distill": True})
    finished(dim="hidden", accuracy=0.9, validation_accuracy=0.9, params={"init": "random"})
    finished(dim="layers", validation_accuracy=0.9, params={"init": "random"})
    _, table, _ = compared()
    assert table[["Config", "Accuracy"]].values.tolist() == [["baseline", 0.8], ["hidden-6", 0.7]]


def test_changes_are_relative_to_the_baseline_of_the_same_model():
    finished(accuracy=0.80, inference_ms=10)
    finished(dim="layers", accuracy=0.78, inference_ms=6, parameters=60, training_memory_gb=1, flops_per_example=5e8)
    finished(model="roberta", accuracy=0.90, inference_ms=20)
    finished(model="roberta", dim="layers", accuracy=0.89, inference_ms=10)
    report, _, changes = compared()
    assert changes["Accuracy (points)"].tolist() == pytest.approx([-2, -1])
    assert changes["Inference time (%)"].tolist() == pytest.approx([-40, -50])
    assert changes.loc[0, ["Parameters (%)", "Training memory (%)", "FLOPs (%)"]].tolist() == [-40, -50, -50]
    assert changes["Timed"].tolist() == ["apart", "apart"]
    assert "With fewer than three seeds this is an observation" in report


def test_speed_ratios_measured_in_turn_replace_those_measured_apart():
    baseline = finished(inference_ms=10)
    layers = finished(dim="layers", inference_ms=9)
    ratios = [
        {"run_id": layers, "reference": baseline, "workload": workload, "batch_size": size, "speed_ratio": ratio}
        for workload, size, ratio in (("texts", 16, 2.0), ("texts", 1, 1.5), ("128", 16, 1.9))
    ]
    with mlflow.start_run():
        mlflow.set_tags({"stage": "profile", "preset": "packaged"})
        mlflow.log_text(pd.DataFrame(ratios).to_csv(index=False), tracking.RATIOS_FILE)
    _, _, changes = compared()
    assert changes["Inference time (%)"].item() == pytest.approx(-50)
    assert changes["Timed"].item() == "in turn"


def test_rows_from_a_busy_machine_and_missing_rows_are_named():
    finished()
    finished(dim="heads", tags={"machine": "other processes took 40% of the processors"})
    report, _, _ = compared()
    assert "doubt their times: minilm-bert heads-6: other processes took 40% of the processors" in report
    assert "minilm-bert hidden on movie-snippets" in report
    assert "minilm-bert heads on movie-snippets" not in report


def test_predictions_of_other_examples_are_not_compared():
    with_predictions(finished(), np.ones(50, dtype=bool))
    with_predictions(finished(dim="heads", accuracy=0.7), np.ones(60, dtype=bool))
    report, _, changes = compared()
    assert changes["p (Holm)"].isna().all()
    assert "beyond noise" not in report


def test_a_row_of_regrouped_heads_says_that_they_save_nothing():
    finished()
    finished(dim="heads", parameters=90)
    finished(model="roberta")
    report, _, _ = compared()
    assert "Regrouped heads" not in report
    finished(model="roberta", dim="heads", parameters=100)
    report, _, _ = compared()
    assert "Regrouped heads are the same weights read as fewer, wider heads: they save no parameters" in report


def test_a_difference_within_noise_is_called_that():
    rng = np.random.default_rng(0)
    right = rng.random(1000) < 0.8
    lost = {"heads": 0.0, "hidden": 0.1, "layers": 0.05}
    with_predictions(finished(accuracy=right.mean()), right)
    for dim, loss in lost.items():
        reduced = right & (rng.random(1000) >= loss)
        # As many the one way as the other: noise.
        reduced[np.flatnonzero(right)[:10]], reduced[np.flatnonzero(~right)[:10]] = False, True
        with_predictions(finished(dim=dim, accuracy=reduced.mean()), reduced)
    report, _, changes = compared()
    assert changes["p (Holm)"].lt(0.05).tolist() == [False, True, True]
    assert (changes["95% low"] <= changes["Accuracy (points)"]).all()
    assert (changes["95% high"] >= changes["Accuracy (points)"]).all()
    assert "Of 3 differences in accuracy 2 are beyond noise" in report
    assert "within noise: minilm-bert heads-6." in report
    assert re.search(r"the costliest would be: heads 0%, hidden (99|100)%, layers [01]% of the time", report)


def test_tables_for_a_paper_have_every_row_and_no_bare_percent_sign():
    table = pd.DataFrame({"Model": ["minilm_bert", "a&b"], "Accuracy": [0.8123, None], "FLOPs (%)": [-50.04, 3.0]})
    lines = to_latex(table).splitlines()
    assert lines[0] == r"\begin{tabular}{lrr}"
    assert [line for line in lines if "rule" in line] == [r"\toprule", r"\midrule", r"\bottomrule"]
    assert [line.removesuffix(r" \\").split(" & ") for line in lines if line.endswith(r"\\")] == [
        ["Model", "Accuracy", r"FLOPs (\%)"],
        [r"minilm\_bert", "0.812", "-50.0"],
        [r"a\&b", "", "+3.0"],
    ]


def test_the_pareto_front_is_what_nothing_beats():
    cost, value = pd.Series([1, 2, 3, 4, 4, 1]), pd.Series([0.5, 0.7, 0.6, 0.9, 0.8, 0.4])
    assert pareto_front(cost, value) == [0, 1, 3]


def test_the_page_answers_first_fetches_nothing_and_names_every_row():
    finished()
    for dim in ("heads", "hidden", "layers"):
        finished(dim=dim, accuracy=0.7)
    compared()
    run_id = mlflow.last_active_run().info.run_id
    page = Path(mlflow.artifacts.download_artifacts(f"runs:/{run_id}/report.html")).read_text()
    text = re.sub(r"<[^>]+>", " ", re.sub(r"<svg.*?</svg>", "", page, flags=re.S))
    assert text.index("For quality: cutting") < text.index("baselines and best reductions") < text.index("Runs")
    assert not re.findall(r"""<(?:script|link|img|iframe)|(?:src|href)="(?!#)""", page)
    assert page.count("<svg") == 2
    for config in ("baseline", "heads-6", "hidden-6", "layers-6"):
        assert re.search(rf"minilm-bert\s+{config}", text)


def test_an_empty_experiment_is_one_sentence():
    with pytest.raises(UserError, match="No finished run of preset=packaged"):
        compared()

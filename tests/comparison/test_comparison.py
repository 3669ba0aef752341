"""The comparison on a real store whose runs were written for it, so that every figure is known."""

import re
import shutil
import subprocess
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from pylatexenc.latexwalker import LatexWalker
from stores import finished, with_predictions

from encoder_reduction import comparison
from encoder_reduction.comparison.selection import choose, pareto_front
from encoder_reduction.comparison.tables import in_the_plans_words, to_latex
from encoder_reduction.errors import UserError
from encoder_reduction.plan import presets
from encoder_reduction.plan.study import Study
from encoder_reduction.tracking import opening
from encoder_reduction.tracking.store import RATIOS_FILE

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("experiment_id")]


def compared(overrides=None, **choice):
    study = Study(presets.load("packaged")[0], overrides or {})
    with opening.open_run() as run:
        report = comparison.compare(study, run, comparison.Choice(**choice))
    changed = "Config" in report.partition("## Each reduction")[2].partition("##")[0]
    return report, artifact("source_table.csv"), artifact("changes.csv") if changed else None


def present(table):
    """Configuration and accuracy of the rows that are not missing."""
    return table.dropna()[["Config", "Accuracy"]].values.tolist()


def artifact(file):
    """A table of the comparison that ran last."""
    return pd.read_csv(mlflow.artifacts.download_artifacts(f"runs:/{mlflow.last_active_run().info.run_id}/{file}"))


def test_rows_are_chosen_on_validation_and_reported_on_test():
    finished()
    finished(dim="heads", config="heads-4", validation_accuracy=0.70, accuracy=0.99)
    finished(dim="heads", config="heads-6", validation_accuracy=0.75, accuracy=0.60)
    _, table, _ = compared()
    assert present(table) == [["Baseline", 0.8], ["6 Attention Heads", 0.6]]


def test_seeds_are_averaged_and_repeated_runs_count_once():
    finished()
    finished(dim="layers", seed=1, accuracy=0.10)  # the same plan and seed, run again below
    for seed, accuracy in ((1, 0.70), (2, 0.72), (3, 0.77)):
        finished(dim="layers", seed=seed, accuracy=accuracy)
    report, table, _ = compared()
    assert present(table)[1] == ["6 Hidden Layers", pytest.approx(0.73)]
    note = mlflow.last_active_run().data.tags["mlflow.note.content"]
    answer, where = note.split("\n\n")
    assert answer in report
    assert "`report.html`" in where
    everything = artifact("every_figure.csv")
    assert everything["accuracy_seed_std"].iloc[1] == pytest.approx(np.std([0.70, 0.72, 0.77], ddof=1))
    assert everything["inference_memory_gb"].tolist() == [1, 1]
    assert "Seeds per row: 1 to 3" in report


def test_controls_and_distilled_models_stay_out():
    finished()
    finished(dim="hidden", accuracy=0.7, validation_accuracy=0.7)
    finished(dim="hidden", accuracy=0.9, validation_accuracy=0.9, tags={"distill": "logits"})
    finished(dim="hidden", accuracy=0.9, validation_accuracy=0.9, params={"init": "random"})
    finished(dim="layers", validation_accuracy=0.9, params={"init": "random"})
    finished(config="baseline", accuracy=0.9, validation_accuracy=0.9, params={"epochs": "10"})
    _, table, _ = compared()
    assert present(table) == [["Baseline", 0.8], ["6 Embedding Size", 0.7]]
    assert set(artifact("beside.csv")["Differs in"]) == {
        "distill=logits instead of none", "init=random instead of pretrained", "epochs=10 instead of 1.0",
    }  # fmt: skip


def test_another_size_is_a_point_of_the_curve_and_neither_row_nor_answer():
    """A milder cut of layers is better than the planned one, and would turn the answer round."""
    finished()
    finished(dim="heads", accuracy=0.76)
    finished(dim="layers", config="layers-3", accuracy=0.70, validation_accuracy=0.70, params={"keep": 0.5})
    finished(dim="layers", config="layers-5", accuracy=0.79, validation_accuracy=0.79, params={"keep": "0.83"})
    report, table, _ = compared()
    assert present(table)[2] == ["3 Hidden Layers", 0.7]
    assert "cutting layers costs the most accuracy (-10.0 points" in report
    assert "5 Hidden Layers" not in report
    assert artifact("keep_areas.csv")["Dimension"].tolist() == ["layers"]


def test_the_planned_size_spelled_out_and_other_criteria_are_variants():
    finished()
    finished(dim="heads", validation_accuracy=0.70, params={"criterion": "gradient"})
    finished(
        dim="heads", validation_accuracy=0.75, accuracy=0.77, params={"keep": 0.5, "size": 6, "criterion": "first"}
    )
    _, table, _ = compared()
    assert present(table)[1] == ["6 Attention Heads", 0.77]


def test_a_variant_competes_once_it_has_as_many_seeds():
    finished()
    for seed, accuracy in ((42, 0.70), (43, 0.72)):
        finished(dim="heads", seed=seed, accuracy=accuracy, validation_accuracy=accuracy)
    lucky = {"dim": "heads", "params": {"criterion": "magnitude"}}
    finished(**lucky, accuracy=0.79, validation_accuracy=0.79)
    assert present(compared()[1])[1] == ["6 Attention Heads", pytest.approx(0.71)]
    finished(**lucky, seed=43, accuracy=0.75, validation_accuracy=0.75)
    assert present(compared()[1])[1] == ["6 Attention Heads", pytest.approx(0.77)]


def test_a_study_with_values_of_its_own_compares_what_it_ran():
    finished(accuracy=0.8)
    finished(accuracy=0.9, params={"epochs": "2", "batch_size": 16}, tags={"owner": "me"})
    finished(dim="heads", accuracy=0.7, params={"epochs": 2.0, "batch_size": 16}, tags={"owner": "me"})
    assert present(compared()[1]) == [["Baseline", 0.8]]
    assert present(compared({"epochs": 2})[1]) == [["Baseline", 0.9], ["6 Attention Heads", 0.7]]
    with pytest.raises(UserError, match=r"2 did something else.* values that they were run with, as -P epochs=2"):
        compared({"batch_size": 7}, tags={"owner": "me"})


def test_a_transfer_from_another_than_the_plans_reduction_stays_out():
    finished()
    planned = finished(dim="heads", accuracy=0.7)
    other = finished(dim="heads", config="heads-9", accuracy=0.79, validation_accuracy=0.79, params={"keep": 0.75})
    finished(stage="transfer")
    finished(dim="heads", stage="transfer", accuracy=0.6, tags={"source_run": planned})
    finished(dim="heads", stage="transfer", config="heads-9", accuracy=0.75, validation_accuracy=0.9,
             tags={"source_run": other})  # fmt: skip
    compared()
    assert present(artifact("target_table.csv"))[1] == ["6 Attention Heads (Best Reduced Config)", 0.6]


RECOVERED = {"start": "baseline", "distill": "hidden"}


def test_recovered_rows_stand_in_a_table_of_their_own_beside_the_plans():
    finished(total_training_seconds=100.0)
    finished(dim="heads", accuracy=0.7, validation_accuracy=0.7, total_training_seconds=90.0)
    again = {"accuracy_before_training": 0.78, "total_training_seconds": 190.0}
    finished(dim="heads", accuracy=0.81, validation_accuracy=0.9, tags=RECOVERED, params={"distill": "hidden"}, **again)
    finished(dim="heads", accuracy=0.99, validation_accuracy=0.9, tags=RECOVERED, params={"epochs": 5})
    report, table, changed = compared()
    assert present(table) == [["Baseline", 0.8], ["6 Attention Heads", 0.7]]
    assert changed["Accuracy (points)"].tolist() == pytest.approx([-10])
    (row,) = artifact("recovered.csv").to_dict("records")
    assert (row["accuracy"], row["accuracy_before_training"], row["total_training_seconds"]) == (0.81, 0.78, 190)
    shown = report.partition("## Recovered")[2].partition("##")[0]
    assert "| minilm-bert | 6 Attention Heads |        0.700 |             0.780 |       0.810 |" in shown
    assert "cutting heads leaves +1.0 points instead of -10.0" in shown
    assert "Not recovered: minilm-bert hidden, minilm-bert layers, minilm-roberta heads" in shown
    assert artifact("beside.csv")["Differs in"].tolist() == ["epochs=5 instead of 1.0"]


def test_that_nothing_was_recovered_is_said():
    finished()
    finished(dim="heads")
    assert "Not recovered: minilm-bert heads, minilm-bert hidden" in compared()[0].partition("## Recovered")[2]


def test_a_recovered_reduction_of_another_size_is_no_point_of_the_plans_curve():
    finished()
    finished(dim="heads", accuracy=0.7)
    smaller = {"dim": "heads", "config": "heads-3", "params": {"keep": 0.25}}
    finished(**smaller, accuracy=0.79, tags=RECOVERED)
    assert "How much can be cut?" not in compared()[0]
    finished(**smaller, accuracy=0.6)
    assert "How much can be cut?" in compared()[0]


def test_a_transfer_says_what_it_started_from_and_is_held_against_that():
    finished()
    finished(dim="heads", accuracy=0.7, validation_accuracy=0.7)
    again = finished(dim="heads", accuracy=0.78, validation_accuracy=0.9, tags=RECOVERED)
    finished(stage="transfer", accuracy=0.8)
    finished(dim="heads", stage="transfer", accuracy=0.77, tags={"start": "baseline", "source_run": again})
    report, _, _ = compared()
    assert present(artifact("target_table.csv")) == [
        ["Baseline", 0.8], ["6 Attention Heads, recovered (Best Reduced Config)", 0.77],
    ]  # fmt: skip
    (kept,) = artifact("retention.csv").to_dict("records")
    assert kept["Accuracy (points) source"] == pytest.approx(-2)
    assert kept["Wider by (points)"] == pytest.approx(1)
    assert "cutting heads leaves -2.0 points on the source and -3.0 on the target" in report


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("baseline", "Baseline"),
        ("heads-6", "6 Attention Heads"),
        ("hidden-384", "384 Embedding Size"),
        ("layers-3", "3 Hidden Layers"),
        ("heads (missing)", "Attention Heads (missing)"),
        ("baseline (missing)", "Baseline (missing)"),
    ],
)
def test_the_customers_tables_use_the_customers_words(config, words):
    assert in_the_plans_words(config) == words


def test_the_second_table_marks_the_best_reduction_of_the_first_by_validation():
    for stage, good in (("reduce", "hidden"), ("transfer", "layers")):  # on the target, another one is better
        finished(stage="baseline" if stage == "reduce" else "transfer")
        for dim in ("heads", "hidden", "layers"):
            finished(dim=dim, stage=stage, validation_accuracy=0.9 if dim == good else 0.7)
    report, _, _ = compared()
    assert artifact("target_table.csv").dropna()["Config"].tolist() == [
        "Baseline", "6 Attention Heads", "6 Embedding Size (Best Reduced Config)", "6 Hidden Layers",
    ]  # fmt: skip
    assert "Best Reduced Config: of each model, the most accurate on the validation split of movie-snippets." in report
    assert "Baseline is `baseline`, 6 Attention Heads is `heads-6`" in report


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
    params = {"batch_size": 16, "max_length": 128, "resolved_precision": "bf16"}
    baseline = finished(inference_ms=10, params=params)
    layers = finished(dim="layers", inference_ms=9, params=params)
    same = {"run_id": layers, "reference": baseline, "max_length": 128, "precision": "bf16", "device": "some CPU"}
    ratios = [
        {**same, "workload": workload, "batch_size": size, "speed_ratio": ratio}
        for workload, size, ratio in (("texts", 16, 2.0), ("texts", 1, 1.5), ("128", 16, 1.9))
    ]
    with mlflow.start_run():
        mlflow.set_tags({"stage": "profile", "preset": "packaged"})
        mlflow.log_text(pd.DataFrame(ratios).to_csv(index=False), RATIOS_FILE)
    _, _, changes = compared()
    assert changes["Inference time (%)"].item() == pytest.approx(-50)
    assert changes["Timed"].item() == "in turn"


def test_rows_from_a_busy_machine_and_missing_rows_are_named():
    finished()
    finished(dim="heads", tags={"machine": "other processes took 40% of the processors"})
    report, _, _ = compared()
    assert "doubt the times of: minilm-bert heads-6 (other processes took 40% of the processors)" in report
    assert "minilm-bert hidden on movie-snippets" in report
    assert "minilm-bert heads on movie-snippets" not in report
    assert re.search(r"\| minilm-bert +\| Embedding Size \(missing\) +\| +– \| +– \|", report)


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
    assert "Of 3 differences in accuracy 2 are beyond noise on these runs (McNemar's exact test, p below" in report
    assert "cannot tell what the cut costs from what another seed would have changed" in report
    assert "within noise: minilm-bert heads-6." in report
    assert changes["Difference"].tolist() == ["within noise", "loss on these runs", "loss on these runs"]
    assert re.search(r"the costliest would be: hidden (99|100)%, layers [01]%, heads 0% of the time", report)
    order = artifact("ranking.csv")
    assert order["Dimension"].tolist() == ["hidden", "layers", "heads"]
    assert ((order["95% low"] <= order["Accuracy (points)"]) & (order["95% high"] >= order["Accuracy (points)"])).all()


def test_tables_for_a_paper_have_every_row_and_no_bare_percent_sign():
    table = pd.DataFrame({"Model": ["minilm_bert", "a&b"], "Accuracy": [0.8123, None], "FLOPs (%)": [-50.04, 3.0]})
    lines = to_latex(table).splitlines()
    assert lines[0] == r"\begin{tabular}{lrr}"
    assert [line for line in lines if "rule" in line] == [r"\toprule", r"\midrule", r"\bottomrule"]
    assert [line.removesuffix(r" \\").split(" & ") for line in lines if line.endswith(r"\\")] == [
        ["Model", "Accuracy", r"FLOPs (\%)"],
        [r"minilm\_bert", "0.812", "-50.0"],
        [r"a\&b", "--", "+3.0"],
    ]


def test_every_latex_table_of_a_report_parses_and_compiles(tmp_path):
    finished()
    finished(dim="hidden", accuracy=0.75, tags={"checkpoint": "minilm-bert"})
    finished(stage="transfer")
    finished(stage="transfer", dim="hidden", accuracy=0.6)
    compared()
    run_id = mlflow.last_active_run().info.run_id
    files = [file.path for file in mlflow.MlflowClient().list_artifacts(run_id) if file.path.endswith(".tex")]
    assert len(files) >= 6
    document = [r"\documentclass{article}", r"\usepackage{booktabs}", r"\begin{document}"]
    for file in files:
        text = Path(mlflow.artifacts.download_artifacts(f"runs:/{run_id}/{file}", dst_path=str(tmp_path))).read_text()
        (table,) = LatexWalker(text.strip(), tolerant_parsing=False).get_latex_nodes()[0]
        assert table.environmentname == "tabular"
        columns = len(re.match(r"\\begin{tabular}{([lr]+)}", text)[1])
        lines = [line for line in text.splitlines() if line.endswith(r"\\")]
        assert {len(re.findall(r"(?<!\\)&", line)) + 1 for line in lines} == {columns}
        document.append(text)
    if not shutil.which("pdflatex"):
        return  # It parses; whether it compiles is seen where TeX is.
    (tmp_path / "tables.tex").write_text("\n".join([*document, r"\end{document}"]))
    words = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "tables.tex"]
    result = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


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
    assert page.count("<svg") == 3
    for config in ("Baseline", "6 Attention Heads", "6 Embedding Size", "6 Hidden Layers", "heads-6", "layers-6"):
        assert re.search(rf"minilm-bert\s+{config}", text)


RULED = pd.DataFrame(
    {
        "validation_accuracy": [0.90, 0.89, 0.86, 0.70, 0.60],
        "inference_ms": [10.0, 8.0, 4.0, 3.5, 2.0],
        "validation_examples": 1000.0,
    },
    index=[7, 3, 5, 1, 2],
)


def test_rules_take_what_they_say():
    # One standard error of 0.90 over 1000 examples is 0.0095: 0.89 is just outside of it.
    assert choose(RULED, "accuracy") == 7
    assert choose(RULED, "efficiency") == 7
    assert choose(RULED.assign(validation_examples=800.0), "efficiency") == 3
    assert choose(RULED, "knee") == 5
    assert choose(RULED.loc[[7, 1]], "knee") == 7


def test_the_rule_decides_table_and_registry_label():
    finished()
    finished(dim="heads", config="heads-9", validation_accuracy=0.80, inference_ms=9, validation_examples=100.0)
    finished(dim="heads", config="heads-3", validation_accuracy=0.78, inference_ms=5, validation_examples=100.0)
    assert present(compared()[1])[1][0] == "9 Attention Heads"
    report, table, _ = compared(rule="efficiency")
    assert present(table)[1][0] == "3 Attention Heads"
    assert "the fastest within one standard error of the most accurate (efficiency)" in report


def test_filters_choose_runs_and_what_is_left_out_is_said():
    for dim in ("none", "heads"):
        finished(dim=dim, tags={"owner": "me"})
        finished(dim=dim, seed=43, accuracy=0.9)
    finished(dim="layers", tags={"device": "another GPU"})
    finished(dim="layers", tags={"corpus": "tweets"})
    finished(dim="heads+layers", config="heads-6+layers-3")
    report, table, _ = compared()
    assert present(table) == [["Baseline", pytest.approx(0.85)], ["6 Attention Heads", pytest.approx(0.85)]]
    assert "1 runs of minilm-bert on tweets, which are not the preset's" in report
    assert artifact("beside.csv")[["Config", "Differs in"]].values.tolist() == [
        ["heads-6+layers-3", "dim=heads+layers"]
    ]
    assert "1 runs on another GPU (device='another GPU' compares these)" in report
    assert present(compared(seeds=[43])[1]) == [["Baseline", 0.9], ["6 Attention Heads", 0.9]]
    assert present(compared(tags={"owner": "me"})[1]) == [["Baseline", 0.8], ["6 Attention Heads", 0.8]]
    assert present(compared(device="another GPU")[1]) == [["6 Hidden Layers", 0.8]]
    with pytest.raises(UserError, match="No finished run is from device=no such; there are runs from: some CPU, "):
        compared(device="no such")
    with pytest.raises(UserError, match="none that was asked for"):
        compared(seeds=[7])
    with pytest.raises(UserError, match="Experiment 'nope' is not in sqlite"):
        compared(experiment="nope")


def test_expectations_are_confirmed_refuted_or_left_open_and_of_one_seeds_accuracy_said_of_these_runs():
    rng = np.random.default_rng(1)
    tokens = rng.integers(5, 100, 2000)
    right = rng.random(2000) < 0.8
    lost = {"heads": np.where(tokens > 52, 0.3, 0.02), "hidden": 0.1, "layers": 0.0}
    saved = {
        "heads": {"training_memory_gb": 1.98},
        "hidden": {"parameters": 40.0},
        "layers": {"inference_ms": 5.0, "flops_per_example": 5e8},
    }
    with_predictions(finished(), right, tokens)
    for dim, loss in lost.items():
        with_predictions(finished(dim=dim, **saved[dim]), right & (rng.random(2000) >= loss), tokens)
    report, _, _ = compared()
    assert "Fewer heads need less memory: **refuted** (training memory minilm-bert -1%;" in report
    assert re.search(r"They lose long dependencies: \*\*on these runs: yes\*\* \(accuracy -2[0-9.]+ points", report)
    assert "A narrower network has far fewer parameters: **confirmed** (parameters minilm-bert -60%;" in report
    assert "And its representations are poorer: **on these runs: yes**" in report
    assert "Fewer layers are faster: **confirmed**" in report
    assert "2.00 times as fast on average, where FLOPs promise 2.00" in report
    assert "And what they compute is shallower: **left open** (accuracy +0.0 points" in report


def test_exchange_rates_are_points_for_a_tenth_saved():
    finished()
    finished(dim="layers", accuracy=0.76, parameters=60, flops_per_example=5e8, training_memory_gb=1.999)
    compared()
    rates = artifact("exchange_rates.csv").iloc[0]
    assert rates["per 10% of parameters"] == pytest.approx(1.0)
    assert rates["per 10% of FLOPs"] == pytest.approx(0.8)
    assert np.isnan(rates["per 10% of training memory"])


def test_transfer_is_held_against_the_adapted_baseline():
    finished()
    finished(dim="hidden", accuracy=0.75)
    finished(stage="transfer", accuracy=0.9)
    finished(stage="transfer", dim="hidden", accuracy=0.82)
    report, _, _ = compared()
    kept = artifact("retention.csv").iloc[0]
    assert kept["Wider by (points)"] == pytest.approx(3)
    assert "cutting hidden leaves -5.0 points on the source and -8.0 on the target, a gap 3.0 points wider" in report
    assert artifact("target_table.csv").dropna()["Config"].tolist() == [
        "Baseline",
        "6 Embedding Size (Best Reduced Config)",
    ]


def test_levels_make_a_curve_and_its_area():
    finished(accuracy=0.8)
    for config, accuracy in (("heads-9", 0.78), ("heads-6", 0.74), ("heads-3", 0.60)):
        finished(dim="heads", config=config, accuracy=accuracy)
    finished(dim="layers", config="layers-3")
    report, _, _ = compared()
    area = artifact("keep_areas.csv")
    assert area[["Dimension", "Kept at least"]].values.tolist() == [["heads", "25%"]]
    # Trapezoids of 0, -2, -6, -20 points at equal steps.
    assert area["Mean change (points)"].item() == pytest.approx(-(1 + 4 + 13) / 3)
    assert "How much can be cut?" in report


@pytest.mark.parametrize("dim", ["none", "heads"])
def test_a_single_run_gives_a_report(dim):
    finished(dim=dim)
    report, table, _ = compared()
    assert len(present(table)) == 1
    assert "nothing to compare" in report


def test_an_empty_experiment_is_one_sentence():
    with pytest.raises(UserError, match="No finished run of preset=packaged is in this experiment"):
        compared()


def test_rows_whose_batches_did_not_fit_are_named():
    whole, divided = ({"micro_batch_size": size, "batch_size": "16"} for size in ("16", "4"))
    finished(tags=whole)
    finished(dim="heads", tags=divided)
    finished(dim="layers", config="layers-3")  # of an older version, which did not say
    sentence = "computed in several passes, which take less memory and more time, in: minilm-bert heads-6 (4 at once)."
    assert sentence in compared()[0]


def test_no_row_is_named_where_all_batches_fitted():
    finished(tags={"micro_batch_size": "16", "batch_size": "16"})
    assert "several passes" not in compared()[0]

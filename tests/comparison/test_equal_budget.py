"""The answer at equal budget, from a real store whose runs were written for it."""

import re
from itertools import combinations

import mlflow
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from planted import two_splits
from stores import finished, out_of_reach, with_model, with_predictions

from encoder_reduction import comparison
from encoder_reduction.comparison import budget_pictures
from encoder_reduction.comparison.budget_answer import goal
from encoder_reduction.errors import UserError
from encoder_reduction.launching.pairing import runs_to_pair
from encoder_reduction.plan import presets
from encoder_reduction.plan.study import Study
from encoder_reduction.tracking import opening
from encoder_reduction.tracking.store import PREDICTIONS_FILE, VALIDATION_FILE

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("experiment_id")]

QUESTION = "Which dimension matters most, for quality and for cost?"
LOSSES = {"mixed": 0.004, "hidden": 0.06, "layers": 0.09}
SIZES = {"hidden": {"hidden": 300}, "layers": {"layers": 3}}
TEXTS = {"validation": 800, "test": 2000}
HALVES = {"heads": 0.02, "hidden": 0.1, "layers": 0.05}


def fill(losses=LOSSES, seeds=(42, 43, 44), budget="latency:0.5", noise=0.2, seed=31, model="bert", unchecked=()):
    """Baselines, the plan's halves and rows at a budget, as planted; the ids by dimension."""
    rng = np.random.default_rng(seed)
    found = two_splits(rng, TEXTS, len(seeds), noise, losses)
    ids = {}
    for index, each in enumerate(seeds):
        right = {dim: found["test"][dim][index] for dim in found["test"]}
        ids["none", each] = with_predictions(
            finished(model, seed=each, accuracy=right["none"].mean(), validation_accuracy=0.88), right["none"]
        )
        for dim in losses:
            checked = found["validation"][dim][index]
            figures = {"accuracy": right[dim].mean(), "f1": right[dim].mean(), "validation_accuracy": checked.mean()}
            figures |= {
                "latency_share": 1.04 * float(budget.partition(":")[2]),
                "speed_ratio": 2.0,
                "speed_ratio_low": 1.95,
                "speed_ratio_high": 2.05,
                "parameters": 5e7,
            }
            figures |= {"accuracy_before_training": 0.7, "total_training_seconds": 250.0, "inference_ms": 5.0}
            run_id = finished(model, dim, seed=each, budget=budget, sizes=SIZES.get(dim), **figures)
            with_predictions(run_id, right[dim])
            if each not in unchecked:
                with_predictions(run_id, checked, file=VALIDATION_FILE)
            ids[dim, each] = run_id
    for dim, loss in HALVES.items():
        right = rng.random(TEXTS["test"]) < 0.88 - loss
        with_predictions(finished(model, dim, accuracy=right.mean(), inference_ms=8.0), right)
    return ids


def compared():
    with opening.open_run() as run:
        return comparison.compare(Study(presets.load("packaged")[0]), run)


def table(file="equal_budget_table.csv"):
    return pd.read_csv(mlflow.artifacts.download_artifacts(f"runs:/{mlflow.last_active_run().info.run_id}/{file}"))


def test_the_report_begins_with_what_to_cut_and_how_sure_that_is():
    fill()
    out_of_reach("heads", "latency:0.5", 0.65)
    first, said, rest = compared().partition(f"## {QUESTION}\n\n")[2].split("\n\n", 2)
    assert first.startswith("**To be twice as fast, cut all dimensions a little (mixed)**: that loses 0.")
    assert "Of single dimensions, cutting layers costs the most quality there: 9." in first
    assert said.startswith("To be twice as fast, cut all dimensions a little (mixed): -0.")
    assert "measured 2.00 times as fast" in said
    assert re.search(r"cutting the hidden size loses [56]\.\d points; cutting layers loses [89]\.\d points", said)
    assert "Cutting attention heads alone cannot (65% of the time stays at the least)." in said
    assert re.search(
        r"The difference of \+5\.\d points to the next best on validation, the hidden size, is beyond", said
    )
    assert "fewer than three seeds" not in said
    assert "All rows were treated alike" in rest
    halves = rest.partition("## The plan's own question: each dimension halved")[2]
    assert "For quality: cutting hidden costs the most accuracy" in halves
    assert "do not save alike (heads 1.2 times as fast, hidden 1.2 times as fast" in halves


def test_what_chance_explains_is_undecided():
    fill(dict.fromkeys(LOSSES, 0.02), noise=0.5)
    said = compared().partition("## ")[2].split("\n\n")[2]
    assert "Undecided: the difference of" in said
    assert "within noise" in said
    assert re.search(r"Nor is it told apart from [^.]+\.", said)


def test_one_seed_is_an_observation_on_these_runs():
    fill(seeds=(42,))
    said = compared().partition("## ")[2].split("\n\n")[2]
    assert "beyond noise on these runs" in said
    assert "McNemar's exact test" in said
    assert "With fewer than three seeds this is an observation, not a finding." in said


def test_the_table_has_every_row_and_those_that_cannot_be():
    fill()
    out_of_reach("heads", "latency:0.5", 0.65)
    out_of_reach("layers", "latency:0.5", 0.55)  # It was reached later.
    report = compared()
    rows = table()
    assert rows["Dimension"].tolist() == ["heads", "hidden", "layers", "mixed"]
    assert rows.loc[0, "Sizes"] == "out of reach: 65% of the time at the least"
    assert rows.loc[1, "Sizes"] == "hidden 300"
    mixed = rows.set_index("Dimension").loc["mixed"]
    assert (mixed["Speed-up"], mixed["Speed-up low"], mixed["Speed-up high"]) == pytest.approx((2.0, 1.95, 2.05))
    assert [mixed[name] for name in ("Parameters (M)", "Before training", "Total Time (s)")] == pytest.approx(
        [50, 0.7, 250]
    )
    assert mixed["95% low"] < mixed["Accuracy (points)"] < mixed["95% high"]
    assert "| latency:0.5 | minilm-bert | heads" in report
    for kind in ("md", "tex", "html"):
        assert "hidden 300" in mlflow.artifacts.load_text(
            f"runs:/{mlflow.last_active_run().info.run_id}/equal_budget_table.{kind}"
        )


def test_rows_of_a_budget_are_in_no_other_table():
    fill()
    report = compared()
    source = table("source_table.csv").dropna()
    assert source["Config"].tolist() == ["Baseline", "6 Attention Heads", "6 Embedding Size", "6 Hidden Layers"]
    assert "What was run beside the plan" not in report
    assert report.count("mixed-latency-0.5") == 0


def test_rows_that_were_recovered_otherwise_are_told():
    ids = fill()
    for (dim, _), run_id in ids.items():
        mlflow.MlflowClient().log_metric(run_id, "train_examples", 900.0 if dim == "layers" else 1500.0)
    assert re.search(r"not all treated alike: they differ in train_examples \([\d.]+, [\d.]+\)\.", compared())


def test_a_run_of_the_pretrained_encoder_at_the_same_budget_is_not_the_plans():
    """It is called alike, and better."""
    fill(seeds=(42,))
    better = finished(dim="layers", budget="latency:0.5", accuracy=0.99, validation_accuracy=0.99,
                      tags={"start": "pretrained", "distill": "none"})  # fmt: skip
    compared()
    assert table().set_index("Dimension").loc["layers", "Accuracy"] < 0.9
    assert better


def test_what_missed_its_budget_is_no_equal():
    fill(seeds=(42,))
    late = finished(dim="intermediate", budget="latency:0.5", validation_accuracy=0.99, latency_share=0.7)
    for split, file in (("test", PREDICTIONS_FILE), ("validation", VALIDATION_FILE)):
        with_predictions(late, np.ones(TEXTS[split], dtype=bool), file=file)
    report = compared()
    assert "cut all dimensions a little (mixed)" in report or "validation takes all dimensions" in report
    assert "Left out of the choice, more than a tenth above the budget: minilm-bert intermediate (0.70)." in report


def test_one_cut_alone_is_not_called_the_best():
    fill({"mixed": 0.06})
    first = compared().split("\n\n")[1]
    assert first == (
        "**To be twice as fast, only one cut is compared yet**: all dimensions a little (mixed), which loses"
        f" {-100 * (table()['Accuracy'].mean() - baseline()):.1f} points of accuracy."
    )


def baseline():
    """Of the comparison that ran last."""
    return table("source_table.csv")["Accuracy"].iloc[0]


def test_models_that_lack_a_dimension_are_not_in_the_answer_and_named():
    fill()
    fill({"mixed": 0.05, "hidden": 0.02}, model="roberta", seed=33)
    out_of_reach("layers", "latency:0.5", 0.56, model="roberta")
    said = compared().split("\n\n")[2]
    assert "over minilm-bert (not minilm-roberta, where a dimension is missing)." in said
    assert "Cutting layers alone cannot for minilm-roberta (56% of the time stays at the least)." in said
    assert re.search(r"cutting layers loses [89]\.\d points", said)


def test_seeds_are_those_that_both_splits_have():
    fill(unchecked=(43,))
    assert "That is of two seeds: an observation, not a finding." in compared()


def test_old_and_new_figures_of_memory_are_not_compared():
    """A store that is half made again: the baseline says what the network itself needs, its reductions do not yet."""
    finished(inference_memory_of_network_gb=0.1, training_memory_of_network_gb=0.2)
    finished(dim="heads", accuracy=0.7, training_memory_gb=1.0)
    report = compared()
    assert "training memory minilm-bert -50%" in report
    changed = table("changes.csv")
    assert changed["Inference memory (%)"].isna().all()
    assert "nan" not in report


def test_a_row_without_its_memory_is_in_the_picture_of_speed_all_the_same():
    points = marks()
    points.loc[points["dim"].eq("mixed") | points["kind"].eq("whole"), "memory"] = np.nan
    assert len(budget_pictures.against_costs(points).axes[1].texts) == 4
    assert len(budget_pictures.against_speed(points).axes[0].texts) == 5


def test_a_row_with_other_values_is_beside_the_plan():
    ids = fill()
    finished(dim="intermediate", budget="latency:0.5", params={"epochs": "3"})
    report = compared()
    assert "intermediate" not in set(table()["Dimension"])
    assert "epochs=3 instead of 1.0" in report
    assert len(ids) == 12


def test_a_control_from_random_weights_stands_beside_its_shape():
    fill()
    finished(dim="hidden", config="hidden-300", params={"init": "random", "size": 300}, accuracy=0.61)
    compared()
    rows = table().set_index("Dimension")["From random weights"]
    assert rows["hidden"] == pytest.approx(0.61)
    assert rows.drop("hidden").isna().all()


def test_every_budget_has_its_paragraph_the_mildest_first():
    fill(budget="latency:0.33")
    fill(budget="latency:0.5")
    fill(budget="flops:0.4")
    report = compared()
    places = [report.index(f"\n\n{goal(each)}, ") for each in ("flops:0.4", "latency:0.5", "latency:0.33")]
    assert places == sorted(places)
    assert goal("flops:0.4") == "To need 40% of the FLOPs"
    assert goal("parameters:0.25") == "To need a quarter of the parameters"
    assert goal("latency:0.4") == "To be 2.5 times as fast"


def test_without_a_budget_the_report_is_todays_but_for_a_line():
    finished()
    finished(dim="heads", accuracy=0.7)
    report = compared()
    assert report.startswith(f"## {QUESTION}\n\nFor quality: ")
    assert "`mlflow run . -P preset=packaged -P budgets=latency:0.5` adds the runs that do." in report
    assert "equal budget" not in report.lower()


def test_only_what_cannot_be_reached_is_said_too():
    finished()
    finished(dim="heads", accuracy=0.7)
    out_of_reach("heads", "latency:0.5", 0.65)
    report = compared()
    assert "Cutting attention heads alone cannot (65% of the time stays at the least)." in report
    assert report.startswith(f"## {QUESTION}\n\nFor quality: ")
    assert "adds the runs that do" in report
    assert "treated alike" not in report


def test_the_chosen_model_of_a_budget_is_registered(packaged):
    ids = fill(seeds=(42,))
    with_model(ids["mixed", 42], packaged["bert"][1])
    assert "`models:/encoder-reduction-bert@best-latency-0_5`: mixed-latency-0.5" in compared()


def test_the_paired_measurement_takes_what_was_cut_to_budgets(experiment_id):
    ids = fill()
    chosen = runs_to_pair(experiment_id, Study(presets.load("packaged")[0]), "bert")
    assert chosen[0] == ids["none", 42]
    assert set(chosen) >= {ids[dim, 42] for dim in LOSSES}
    assert len(chosen) == 1 + len(HALVES) + len(LOSSES)


def test_a_store_of_budgets_alone_asks_for_the_rest():
    fill_only = finished(dim="mixed", budget="latency:0.5")
    assert fill_only
    with pytest.raises(UserError, match="No finished baseline or reduction"):
        compared()


def marks(spread=0.02):
    """Points as the pictures take them: one model, three lines, halves, one dimension with a half alone."""
    rows = [("none", "whole", 1.0, 0.85, 20.0)]
    for dim, loss in (("hidden", 0.02), ("layers", 0.025), ("mixed", 0.004), ("heads+intermediate", 0.006)):
        rows += [(dim, "budget", 2.0 + loss, 0.85 - loss, 12.0), (dim, "budget", 3.0 + loss, 0.85 - 2 * loss, 7.0)]
    rows += [(dim, "half", speed, 0.85 - loss, 15.0) for dim, speed, loss in
             (("heads", 1.1, 0.01), ("hidden", 3.2, 0.09), ("layers", 1.95, 0.06))]  # fmt: skip
    frame = pd.DataFrame(rows, columns=["dim", "kind", "Speed-up", "accuracy", "parameters"])
    return frame.assign(
        checkpoint="minilm-bert", memory=frame["parameters"] * 2, x_low=frame["Speed-up"] - 0.05,
        x_high=frame["Speed-up"] + 0.05, low=frame["accuracy"] - spread, high=frame["accuracy"] + spread,
    )  # fmt: skip


@pytest.mark.parametrize("draw", [budget_pictures.against_speed, budget_pictures.against_costs])
def test_no_text_of_the_picture_lies_on_a_mark_or_another_text(draw):
    figure = draw(marks())
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    for axes in figure.axes:
        texts = [Text.get_window_extent(text, renderer) for text in axes.texts]  # without the lines to the marks
        assert len(texts) == 5
        spots = [axes.transData.transform(spot) for each in axes.collections for spot in each.get_offsets()]
        assert len(spots) >= 12
        for box in texts:
            assert box.x0 > axes.bbox.x1
            assert box.x1 <= figure.bbox.x1
            assert not any(box.contains(*spot) for spot in spots)
        assert not any(one.overlaps(other) for one, other in combinations(texts, 2))


def test_marks_stand_at_their_figures_and_the_front_has_what_nothing_beats():
    (axes,) = budget_pictures.against_speed(marks()).axes
    spots = {tuple(np.round(spot, 4)) for each in axes.collections for spot in each.get_offsets()}
    assert {(1.0, 0.85), (2.004, 0.846), (3.2, 0.76)} <= spots
    front = next(line for line in axes.lines if line.get_linestyle() == "--")
    speeds, reached = front.get_xydata().T
    assert speeds == pytest.approx([1.0, 2.004, 2.006, 3.004, 3.006, 3.02, 3.025, 3.2])
    assert reached == pytest.approx([0.85, 0.846, 0.844, 0.842, 0.838, 0.81, 0.8, 0.76])
    panels = budget_pictures.against_costs(marks()).axes
    assert [axes.get_xlabel() for axes in panels] == [
        "Parameters (millions)", "Memory of inference (MB, network alone)",
    ]  # fmt: skip
    assert all(axes.xaxis_inverted() for axes in panels)

"""What tables and pictures show, from rows whose every figure is known and no store."""

import numpy as np
import pandas as pd
import pytest

from encoder_reduction.comparison import pictures, tables
from encoder_reduction.comparison.changes import POINTS, SAVINGS, TIME, changes
from encoder_reduction.comparison.report import Section, as_markdown
from encoder_reduction.comparison.selection import pareto_front
from encoder_reduction.comparison.sensitivity import exchange_rates
from encoder_reduction.plan import presets

FIGURES = ("accuracy", "f1", "inference_ms", "training_memory_gb", "training_seconds", "inference_memory_gb")


def rows():
    """A baseline and a reduction of one model; no two figures are the same."""
    table = pd.DataFrame([[0.81, 0.82, 12.0, 3.0, 40.0, 5.0], [0.71, 0.73, 6.0, 2.0, 30.0, 1.0]], columns=FIGURES)
    table = table.assign(
        model="bert", checkpoint="minilm-bert", dim=["none", "layers"], run_ids=[{"42": "a"}, {"42": "b"}]
    )
    table = table.assign(config=["baseline", "layers-3"], parameters=[100.0, 60.0], flops_per_example=[4e9, 2e9])
    spread = {f"{figure}_seed_std": [0.01, 0.02] for figure in FIGURES if figure != "f1"} | {
        "inference_ms_seed_std": [0.3, 0.5]
    }
    return table.assign(
        **spread, level=[1.0, 0.5], seeds=1, machine="quiet", memory_kind="resident", start="pretrained"
    )


def predictions(right):
    labels = np.arange(len(right)) % 2
    return pd.DataFrame({"id": range(len(right)), "label": labels, "prediction": np.where(right, labels, 1 - labels)})


def test_the_customers_table_has_the_figures_that_its_titles_name():
    table = tables.customers_table(rows(), presets.load("packaged")[0])
    assert table.iloc[0].to_dict() == {
        "Model": "minilm-bert", "Config": "Baseline", "Accuracy": 0.81, "F1-score": 0.82, "Inference Time (ms)": 12.0,
        "Memory (GB)": 3.0, "Training Time (s)": 40.0,
    }  # fmt: skip
    assert table.iloc[3]["Config"] == "3 Hidden Layers"
    assert table.iloc[1]["Config"] == "Attention Heads (missing)"


def test_a_reduction_that_is_worse_loses_accuracy_and_f1():
    """Of forty texts the baseline has all right, and the reduction all but eight."""
    right = np.ones(40, dtype=bool)
    stored = {"a": predictions(right), "b": predictions(np.arange(40) >= 8)}
    change = changes(rows(), pd.DataFrame(), stored).iloc[0]
    assert change[POINTS] == pytest.approx(-10)
    assert change["F1 (points)"] == pytest.approx(-9)
    assert change["95% low"] < change["95% high"] < 0
    assert change["F1 95% low"] < change["F1 95% high"] < 0
    assert change["Difference"] == "loss on these runs"
    saved = ["Parameters (%)", "FLOPs (%)", TIME, "Training memory (%)", "Inference memory (%)", "Training time (%)"]
    assert change[saved].astype(float).tolist() == pytest.approx([-40, -50, -50, -100 / 3, -80, -25])
    assert (change["Speed-up"], change["Speed-up by FLOPs"]) == (2, 2)


def test_losing_more_for_less_is_a_higher_rate_of_exchange():
    table = pd.DataFrame({"Model": "m", "Config": ["a", "b"], POINTS: [-4.0, -4.0]})
    table = table.assign(**{title: [-40.0, -20.0] for title in SAVINGS.values()})
    assert exchange_rates(table)["per 10% of FLOPs"].tolist() == [1, 2]


def test_of_two_equally_good_models_the_front_has_the_cheaper():
    assert pareto_front(pd.Series([2.0, 1.0, 3.0]), pd.Series([0.5, 0.5, 0.6])) == [1, 2]


def test_an_interval_goes_from_its_lower_to_its_upper_end():
    wide = changes(rows(), pd.DataFrame(), {}).assign(**{"95% low": -3.0, "95% high": 1.0})
    brief = tables.in_brief(wide.assign(**{"Speed-up low": 1.9, "Speed-up high": 2.2}))
    assert brief["95% interval"].item() == "-3.0 to +1.0"
    assert brief["Speed-up, 95%"].item() == "1.90 to 2.20"


def test_a_row_from_a_busy_machine_is_named_with_the_worst_of_it():
    busy = "other processes took 20% of the processors, other processes took 90% of the processors, quiet"
    said = tables.notes(rows().assign(machine=["quiet", busy]))
    assert "doubt the times of: minilm-bert layers-3 (other processes took 90% of the processors)" in said
    assert "not quiet" not in tables.notes(rows())


def test_a_csv_file_holds_every_column_and_the_page_what_it_has_room_for():
    section = Section("Changes")
    section.table("changes", pd.DataFrame({"a": [1]}), pd.DataFrame({"a": [1], "b": [2]}))
    assert list(section.tables[0].every) == ["a", "b"]
    assert "b" not in as_markdown([section]).splitlines()[2]


def test_the_trade_off_has_time_across_and_test_accuracy_up():
    axes = pictures.trade_off(rows()).axes[0]
    points = [tuple(np.ravel(line.get_xydata())) for line in axes.lines if len(line.get_xydata()) == 1]
    assert points == [(12.0, 0.81), (6.0, 0.71)]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("Inference time (ms per example)", "Test accuracy")
    (whiskers, *_) = [container for container in axes.containers if container.lines[0].get_xydata()[0][0] == 6.0]
    across, up = (bars.get_segments()[0] for bars in whiskers.lines[2])
    assert np.ptp(across[:, 0]) == pytest.approx(1.0)
    assert np.ptp(up[:, 1]) == pytest.approx(0.04)


def test_bars_of_changes_are_as_long_as_the_changes():
    table = changes(rows(), pd.DataFrame(), {}).assign(**{"Speed-up low": 1.6, "Speed-up high": 2.5})
    panels = {axes.get_title(): axes for axes in pictures.relative_changes(table).axes}
    for title, change in {POINTS: -10, "Parameters (%)": -40, "FLOPs (%)": -50, TIME: -50}.items():
        (bar,) = panels[title].patches
        assert bar.get_width() == pytest.approx(change), title
    (start, end) = panels[TIME].lines[0].get_xdata()
    assert (start, end) == pytest.approx((-60, -37.5))  # of speed-ups of 2.5 and 1.6


def test_bars_of_resources_are_what_each_panel_names():
    panels = {axes.get_title(): [bar.get_height() for bar in axes.patches] for axes in pictures.resources(rows()).axes}
    assert panels == {
        "Peak training memory (GB)": [3, 2],
        "Peak inference memory (GB)": [5, 1],
        "Training time (s)": [40, 30],
        "Inference time (ms per example)": [12, 6],
    }


def test_retention_has_the_source_across_and_the_target_up():
    ends = {f"{name} {side}": [value] for side, value in (("source", -2.0), ("target", -5.0))
            for name in (POINTS, "95% low", "95% high")}  # fmt: skip
    kept = pd.DataFrame({"Model": ["minilm-bert"], "Config": ["layers-3"], "Dimension": ["layers"], **ends})
    axes = pictures.retained(kept, rows(), ("movies", "products")).axes[0]
    places = [tuple(spot.get_offsets()[0]) for spot in axes.collections if len(spot.get_offsets())]
    assert places[0] == (-2, -5)
    assert ("movies" in axes.get_xlabel(), "products" in axes.get_ylabel()) == (True, True)


def test_a_learning_curve_goes_through_its_points():
    points = pd.DataFrame({"checkpoint": "minilm-bert", "dim": "none", "metric": "epoch_validation_accuracy",
                           "step": [10, 20, 30], "value": [0.5, 0.7, 0.6]})  # fmt: skip
    (axes,) = pictures.learning_curves(points).axes
    assert axes.lines[0].get_xydata().tolist() == [[10, 0.5], [20, 0.7], [30, 0.6]]


def test_curves_of_kept_shares_are_in_percent():
    curve = rows().assign(dim="layers")[
        ["model", "checkpoint", "dim", "level", "config", "accuracy", "accuracy_seed_std"]
    ]
    (axes,) = pictures.keep_curves(curve).axes
    assert axes.lines[0].get_xydata().tolist() == [[100, 0.81], [50, 0.71]]

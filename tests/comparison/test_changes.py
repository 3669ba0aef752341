"""Averages speak of the same models, and ratios of the same conditions."""

import numpy as np
import pandas as pd
import pytest
from planted import planted_store, right_answers

from encoder_reduction.comparison.answer import answer, transfer_answer
from encoder_reduction.comparison.changes import POINTS, changes, complete_models, gains_by_row
from encoder_reduction.comparison.sensitivity import ranking, retention

LOSSES = {"heads": 0.05, "hidden": 0.15, "layers": 0.10}


@pytest.fixture
def store():
    rng = np.random.default_rng(0)
    return planted_store(rng, right_answers(rng, 500, 3, 0.1, LOSSES))


def without(rows, *missing):
    """The rows but for these, by model and dimension."""
    return rows[[(row.model, row.dim) not in missing for row in rows.itertuples()]].reset_index(drop=True)


def test_a_model_that_lacks_a_dimension_is_in_no_average(store):
    rows, stored = store
    rows.loc[rows["model"].eq("distilbert") & rows["dim"].eq("heads"), "accuracy"] = 0.1  # would be the costliest
    rows = without(rows, ("distilbert", "layers"))
    table = changes(rows, pd.DataFrame(), stored)
    order = ranking(table, gains_by_row(rows, stored))
    assert order["Dimension"].tolist() == ["hidden", "layers", "heads"]
    both = table[table["Model"].ne("distilbert")].groupby("Dimension")[POINTS].mean()
    assert order.set_index("Dimension")[POINTS].to_dict() == pytest.approx(both.to_dict())
    assert (order["95% low"] < order[POINTS]).all()
    assert (order["95% high"] > order[POINTS]).all()
    said = answer(rows, table, order)
    assert "on average over bert, roberta, without distilbert, where a dimension is missing)" in said


def test_where_no_model_has_every_dimension_no_average_is_shown(store):
    rows, stored = store
    rows = without(rows, ("bert", "heads"), ("roberta", "hidden"), ("distilbert", "layers"))
    table = changes(rows, pd.DataFrame(), stored)
    order = ranking(table, gains_by_row(rows, stored))
    assert complete_models(table) == []
    assert order.empty
    said = answer(rows, table, order)
    assert said.startswith("No model has a row of each of hidden, layers, heads, so no average over models")
    assert "costs the most" not in said
    assert "Of 6 differences in accuracy" in said
    assert transfer_answer(retention(table, table)).startswith("No model has a row of each of")


def test_after_adaptation_gaps_are_averaged_over_the_same_models_too(store):
    rows, stored = store
    table = changes(without(rows, ("bert", "heads")), pd.DataFrame(), stored)
    said = transfer_answer(retention(table, table))
    heads = table[table["Dimension"].eq("heads") & table["Model"].ne("bert")][POINTS].mean()
    assert f"cutting heads leaves {heads:+.1f} points on the source" in said
    assert "(over roberta, distilbert, without bert, where a dimension is missing)" in said


CONDITIONS = {"device": "some CPU", "precision": "bf16", "max_length": 128, "batch_size": 16}


def speed_up(store, *measured):
    """How a row was timed and how much faster it was, given these paired measurements, the latest first."""
    rows, stored = store
    rows = rows[rows["model"].eq("bert")].assign(
        device="some CPU", resolved_precision="bf16", max_length="128", batch_size="16"
    )
    ratios = [
        {"run_id": "bert-heads-0", "reference": "bert-none-0", "workload": "texts", "speed_ratio": ratio, "low": ratio,
         "high": ratio, **CONDITIONS, **other}
        for ratio, other in measured
    ]  # fmt: skip
    table = changes(rows, pd.DataFrame(ratios), stored)
    return table.loc[table["Model"].eq("bert") & table["Dimension"].eq("heads"), ["Timed", "Speed-up"]].iloc[0].tolist()


@pytest.mark.parametrize(
    "other",
    [
        {"device": "another CPU"},
        {"precision": "fp32"},
        {"max_length": 256},
        {"batch_size": 32},
        {"batch_size": 1},
        {"workload": "128"},
        {"precision": None},
        {"run_id": "bert-hidden-0"},
        {"reference": "roberta-none-0"},
    ],
)
def test_a_ratio_of_other_conditions_is_not_taken(store, other):
    assert speed_up(store, (3.0, other)) == ["apart", 1.0]
    assert speed_up(store, (3.0, other), (2.0, {})) == ["in turn", 2.0]


def test_of_ratios_under_the_rows_conditions_the_latest_counts(store):
    assert speed_up(store, (2.5, {}), (2.0, {})) == ["in turn", 2.5]


def test_a_ratio_that_does_not_name_its_conditions_is_not_taken(store):
    rows, stored = store
    old = pd.DataFrame(
        [{"run_id": "bert-heads-0", "reference": "bert-none-0", "workload": "texts", "batch_size": 16,
          "speed_ratio": 2.0, "low": 2.0, "high": 2.0}]
    )  # fmt: skip
    rows = rows.assign(device="some CPU", resolved_precision="bf16", max_length="128", batch_size="16")
    assert set(changes(rows, old, stored)["Timed"]) == {"apart"}


def test_of_dimensions_that_cost_the_same_none_is_the_costliest():
    rng = np.random.default_rng(0)
    rows, stored = planted_store(rng, right_answers(rng, 200, 3, 0.1, dict.fromkeys(LOSSES, 0.0)))
    alike = dict.fromkeys(stored, next(iter(stored.values())))
    order = ranking(changes(rows, pd.DataFrame(), alike), gains_by_row(rows, alike))
    assert order["Costs most (probability)"].tolist() == pytest.approx([1 / 3] * 3)

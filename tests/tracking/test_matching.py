"""Whether a run did what a plan says of dropout: a run says what was really used, and what its plan had left open."""

import pandas as pd
import pytest
from networks import small

from encoder_reduction.models.dropout import set_dropout
from encoder_reduction.plan import presets
from encoder_reduction.runs.description import flat_params
from encoder_reduction.tracking import fingerprints, matching


def plan(**values):
    return presets.load("packaged")[0].plan("baseline", "bert", overrides=values)


def run_of(planned, **params):
    """The row of a run of this plan, as the store gives it."""
    model = small("bert", layers=1, heads=2, head_size=4, intermediate=8)
    set_dropout(model, planned.fine_tuning)
    logged = {key: str(value) for key, value in (flat_params(planned, model) | params).items()}
    return {
        "stage": "baseline",
        "config": "baseline",
        "start": "pretrained",
        "distill": "none",
        **logged,
        "dim": "none",
    }


def departure(row, wanted):
    return matching.departures(pd.DataFrame([row]), [wanted])[0]


def test_a_run_says_what_was_really_dropped_and_matches_the_plan_that_left_it_open():
    row = run_of(plan())
    assert (row["attention_dropout"], row["hidden_dropout"]) == ("0.1", "0.1")
    assert departure(row, plan()) == {}
    assert departure(row, plan(attention_dropout=0.1)) == {}
    assert departure(row, plan(attention_dropout=0)) == {"attention_dropout": ("0.1", 0.0)}


def test_a_run_with_dropout_of_its_own_is_of_the_plan_that_asks_for_it_alone():
    row = run_of(plan(attention_dropout=0.0), attention_dropout="0")  # as mlflow run has logged what was typed
    assert departure(row, plan(attention_dropout=0.0)) == {}
    assert departure(row, plan()) == {"attention_dropout": ("0", None)}
    assert departure(row, plan(attention_dropout=0.0, hidden_dropout=0)) == {"hidden_dropout": ("0.1", 0.0)}


def test_a_run_that_was_made_before_is_of_the_plan_that_leaves_it_open():
    said = {"attention_dropout", "hidden_dropout", matching.LEFT_TO_CHECKPOINT}
    row = {key: value for key, value in run_of(plan()).items() if key not in said}
    assert departure(row, plan()) == {}
    assert set(departure(row, plan(hidden_dropout=0))) == {"hidden_dropout"}
    beside = pd.DataFrame([row, run_of(plan(attention_dropout=0.0)), run_of(plan())])  # what a run does not say is NaN
    assert matching.departures(beside, [plan()]).map(len).tolist() == [0, 1, 0]


@pytest.mark.parametrize("field", ["attention_dropout", "hidden_dropout"])
def test_plans_that_leave_it_open_are_the_plans_that_they_were(field):
    assert field not in plan().model_dump()["fine_tuning"]
    assert fingerprints.of_configuration(plan()) != fingerprints.of_configuration(plan(**{field: 0.1}))

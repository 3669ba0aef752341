"""What is left of a study, as jobs: what follows what, and with which words."""

import pytest

from encoder_reduction.launching.cluster import submissions
from encoder_reduction.launching.progress import DONE, MISSING, Progress, profile_label
from encoder_reduction.plan import presets
from encoder_reduction.plan.equal_budgets import EqualBudgets
from encoder_reduction.plan.study import Study

STUDY = Study(presets.load("packaged")[0], {"epochs": 2.0})
PARTS = {
    "first": STUDY.first(),
    "recoveries": [*STUDY.recoveries(), *STUDY.at_equal_budget()],
    "transfers": STUDY.transfers(),
}
LABELS = {part: [plan.label for plan in plans] for part, plans in PARTS.items()}


def left(*missing):
    """The submissions where only these parts are not done."""
    state = [
        Progress(label, MISSING if part in missing else DONE) for part, labels in LABELS.items() for label in labels
    ]
    state += [Progress(profile_label(plan), DONE) for plan in STUDY.profiles()]
    return submissions(STUDY, "packaged", "all", state)


def test_every_run_of_a_study_has_a_label_of_its_own():
    labels = [label for each in LABELS.values() for label in each]
    assert len(set(labels)) == len(labels) == 12 + 9 + 6 + 12


@pytest.mark.parametrize("parts", [["first", "recoveries", "transfers"], ["recoveries", "transfers"], ["transfers"]])
def test_recoveries_follow_the_baselines_and_transfers_follow_both(parts):
    found = left(*parts)
    assert [each.name for each in found] == ["prefetch", "tokenise", *["task"] * len(parts), "compare"]
    assert [each.after for each in found[1:]] == [(position,) for position in range(len(found) - 1)]
    assert [each.dependency for each in found[2:]] == ["afterok", *["afterany"] * len(parts)]
    tasks = [[task.label for task in each.tasks] for each in found if each.tasks]
    assert tasks == [LABELS[part] for part in parts]


def test_a_recovery_is_the_reduce_command_that_the_readme_has():
    (array,) = [each for each in left("recoveries") if each.tasks]
    task = array.tasks[0]
    assert task.entry == "reduce"
    values = dict(word.split("=", 1) for word in task.words if word != "-P")
    expected = {
        "model": "bert",
        "dim": "heads",
        "seed": "42",
        "epochs": "2.0",
        "start": "baseline",
        "distill": "hidden",
    }
    assert expected.items() <= values.items()
    again = STUDY.preset.plan(
        "reduce", "bert", "heads", {k: v for k, v in values.items() if k not in ("model", "dim", "preset")}
    )
    assert again.model_copy(update={"seed": 42}) == PARTS["recoveries"][0]


def test_a_run_at_a_budget_is_the_reduce_command_that_the_readme_has():
    """Its words, read back, make the same plan: one of several dimensions, and another budget than the preset's."""
    study = Study(STUDY.preset, {"epochs": 2.0}, budgets=EqualBudgets(budgets="flops:0.4", budget_models="roberta"))
    plan = study.at_equal_budget()[-2]
    assert (plan.model, plan.dim, plan.budget.budget) == ("roberta", "heads+intermediate", "flops:0.4")
    state = [Progress(each.label, MISSING if each.label == plan.label else DONE) for each in study.trainings()]
    state += [Progress(profile_label(each), DONE) for each in study.profiles()]
    (array,) = [each for each in submissions(study, "packaged", "all", state) if each.tasks]
    values = dict(word.split("=", 1) for word in array.tasks[0].words if word != "-P")
    assert values["budget"] == "flops:0.4"
    again = STUDY.preset.plan(
        "reduce", values.pop("model"), values.pop("dim"), {k: v for k, v in values.items() if k != "preset"}
    )
    assert again.model_copy(update={"seed": plan.seed}) == plan


def test_a_recovery_by_labels_alone_says_so():
    """Also where the preset's own reductions have a teacher."""
    values = {"distill": "none"}
    preset = STUDY.preset.model_copy(update={"recovery": STUDY.preset.recovery.model_copy(update=values)})
    study = Study(preset)
    plan = study.recoveries()[0]
    state = [Progress(each.label, DONE) for each in study.trainings() if each.label != plan.label]
    state += [Progress(plan.label, MISSING), *(Progress(profile_label(each), DONE) for each in study.profiles())]
    (array,) = [each for each in submissions(study, "packaged", "all", state) if each.tasks]
    assert {"start=baseline", "distill=none"} <= set(array.tasks[0].words)


def test_a_preset_without_recovery_makes_none():
    preset = STUDY.preset.model_copy(update={"recovery": None})
    assert Study(preset).recoveries() == []
    assert preset.plan("transfer", "bert", "heads").recovery is None

"""What is done, and what may go on: by the whole fingerprint, as the launcher decides."""

from contextlib import suppress

import mlflow
import pytest
from stores import finished

from encoder_reduction.launching import progress, queue
from encoder_reduction.plan import presets
from encoder_reduction.plan.study import Study
from encoder_reduction.profiling.machine import device_name
from encoder_reduction.tracking import fingerprints, opening, run_folder

STUDY = Study(presets.load("packaged")[0])
PLAN = STUDY.preset.plan("baseline", "bert")


@pytest.fixture(autouse=True)
def nothing_submitted(monkeypatch, tmp_path):
    monkeypatch.setattr(queue, "queue", dict)
    monkeypatch.setattr(progress, "LOGS", tmp_path)
    monkeypatch.setenv("ENCODER_REDUCTION_CACHE", str(tmp_path / "cache"))


def identity(device=None, **changed):
    digest = fingerprints.of_plan(PLAN, None, device)
    tags = {"fingerprint": digest, "plan_fingerprint": fingerprints.of_configuration(PLAN)}
    return {"tags": tags | {"device": device or device_name()} | changed}


def test_what_cannot_meet_its_budget_is_neither_failed_nor_missing(experiment_id):
    plan = STUDY.at_equal_budget()[0]
    baseline = finished(**identity())
    digests = {"fingerprint": fingerprints.of_plan(plan, baseline), "device": device_name()}
    digests |= {"plan_fingerprint": fingerprints.of_configuration(plan)}
    beyond = finished(dim="heads", budget=plan.budget.budget, tags={"out_of_reach": "0.7", "error": "no"} | digests)
    mlflow.MlflowClient().set_terminated(beyond, "FAILED")
    found = {each.run: each for each in progress.of_study(STUDY, experiment_id)}[plan.label]
    assert (found.state, found.detail) == (progress.OUT_OF_REACH, "no")


def state(experiment_id):
    return progress.of_study(STUDY, experiment_id)[0]


def test_a_run_of_this_code_and_device_is_done(experiment_id):
    run_id = finished(**identity())
    assert (state(experiment_id).state, state(experiment_id).run_id) == (progress.DONE, run_id)


@pytest.mark.parametrize("changed", ["device", "libraries", "code"])
def test_what_the_launcher_would_make_again_is_not_done(experiment_id, monkeypatch, changed):
    if changed == "device":
        finished(**identity("another CPU"))
    else:
        finished(**identity())
        other = {"libraries": lambda: {"torch": "0"}, "of_code": lambda: "0", "code": lambda: "0"}
        monkeypatch.setattr(fingerprints, "of_code" if changed == "code" else changed, other[changed])
    assert state(experiment_id).state == progress.MISSING


def test_what_a_job_made_counts_on_the_device_of_its_node(experiment_id):
    finished(**identity("NVIDIA A40", slurm_job_id="12_3"))
    assert state(experiment_id).state == progress.DONE


@pytest.mark.parametrize("code", ["today's", "yesterday's"])
def test_an_interrupted_run_goes_on_if_it_is_the_one_that_would_be_made_now(experiment_id, code, monkeypatch):
    with suppress(KeyboardInterrupt), opening.open_run(experiment_id=experiment_id) as run:
        run.describe("bert", {"stage": "baseline", "model": "bert", "preset": "packaged", "seed": 42}, {})
        run.tag(identity()["tags"])
        run.folder.checkpoints.mkdir()
        raise KeyboardInterrupt
    if code == "yesterday's":
        monkeypatch.setattr(fingerprints, "of_code", lambda: "0")
    assert (state(experiment_id).state, state(experiment_id).goes_on) == (progress.FAILED, code == "today's")
    assert run_folder.has_checkpoints(run.run_id)

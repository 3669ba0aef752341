"""What compare says of the models outside of PyTorch, from a real store whose measurement was planted."""

import mlflow
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from stores import finished, with_predictions

from encoder_reduction import comparison
from encoder_reduction.comparison import runtime_pictures
from encoder_reduction.comparison.runtime_report import where_it_runs
from encoder_reduction.comparison.runtimes import ALONE, WHOLE, measured
from encoder_reduction.plan import presets
from encoder_reduction.plan.study import Study
from encoder_reduction.tracking import opening, store

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("experiment_id")]

PARAMS = {"batch_size": 16, "max_length": 128, "resolved_precision": "fp32"}
RUNTIMES = {"torch": "fp32", "onnxruntime": "fp32", "onnxruntime-int8": "int8"}
# Of 1,000 test texts, how many each gets right (the first so many), and how many times as fast it is.
PLANTED = {
    ("none", "torch"): (900, 1.0), ("none", "onnxruntime"): (900, 1.5), ("none", "onnxruntime-int8"): (895, 2.5),
    ("heads", "torch"): (880, 1.4), ("heads", "onnxruntime"): (880, 2.1), ("heads", "onnxruntime-int8"): (840, 3.5),
    ("layers", "torch"): (800, 2.0), ("layers", "onnxruntime"): (800, 3.0), ("layers", "onnxruntime-int8"): (790, 5.0),
}  # fmt: skip
VALIDATION = {"none": 0.9, "heads": 0.88, "layers": 0.8}


def right(count):
    return np.arange(1000) < count


def runs():
    """A baseline and two reductions, as the planted measurement in PyTorch scores them; their ids by dimension."""
    ids = {}
    for dim, accuracy in VALIDATION.items():
        count, _ = PLANTED[dim, "torch"]
        run_id = finished(dim=dim, params=PARAMS, validation_accuracy=accuracy, accuracy=count / 1000)
        ids[dim] = with_predictions(run_id, right(count))
    return ids


def profile(ids, planted=PLANTED, without=()):
    """A finished measurement of these runs; rows in the order of the runs and their runtimes."""
    rows, (reference, *_) = [], ids.values()
    with mlflow.start_run() as run:
        mlflow.set_tags({"stage": "profile", "preset": "packaged", "model": "bert"})
        mlflow.log_param("runtimes", ",".join(RUNTIMES))
        for (dim, runtime), (count, speed) in planted.items():
            rows.append({"run_id": ids[dim], "reference": reference, "name": dim, "model": "bert",
                         "config": "baseline" if dim == "none" else f"{dim}-6",
                         "runtime": runtime, "precision": RUNTIMES[runtime], "device": "some CPU",
                         "speed_ratio": speed, "low": speed - 0.1, "high": speed + 0.1, "single_speed_ratio": 2 * speed,
                         "single_low": speed, "single_high": 3 * speed, "accuracy": count / 1000,
                         "f1": count / 1000, "examples": 1000, "megabytes": 90 / speed})  # fmt: skip
            if (dim, runtime) not in without:
                file = store.runtime_predictions_file(ids[dim], runtime)
                with_predictions(run.info.run_id, right(count), file=file)
        table = pd.DataFrame(rows)
        mlflow.log_text(table.to_csv(index=False), store.RUNTIMES_FILE)
        same = {"workload": "texts", "batch_size": 16, "max_length": 128, "rounds": 9}
        mlflow.log_text(table.assign(**same).to_csv(index=False), store.RATIOS_FILE)
    return run.info.run_id


def compared():
    with opening.open_run() as run:
        return comparison.compare(Study(presets.load("packaged")[0]), run)


def counted(experiment_id):
    """The runs that count."""
    found = store.finished_runs(experiment_id, model="bert").assign(budget="", start="pretrained")
    return found[found["stage"].isin(["baseline", "reduce"])]


def said(experiment_id):
    """The sentence that the section begins with, and its table."""
    (section,) = where_it_runs(experiment_id, "packaged", counted(experiment_id))
    return section.parts[0], section.tables[0].every.set_index(["Config", "Runtime"])


def test_one_sentence_says_what_cutting_quantising_and_both_give(experiment_id):
    """The cut is the most accurate on validation; what is within noise is called that."""
    profile(runs())
    assert said(experiment_id)[0] == (
        "**minilm-bert, beside its baseline in PyTorch (fp32): quantised to int8 it is 2.50 times as fast (2.40 to"
        " 2.60), 5.00 times one text at a time (-0.5 points, within noise); cut (heads-6) it is 1.40 times as fast"
        " (1.30 to 1.50), 2.80 times one text at a time (-2.0 points, loss on these runs); cut and quantised to int8 it"
        " is 3.50 times as fast (3.40 to 3.60), 7.00 times one text at a time (-6.0 points, loss on these runs).**"
    )


def test_each_row_is_held_against_its_own_run_and_against_the_baseline(experiment_id):
    profile(runs())
    _, rows = said(experiment_id)
    assert len(rows) == 9
    assert rows.loc[("heads-6", "onnxruntime-int8"), [ALONE, WHOLE]].tolist() == pytest.approx([-4, -6])
    assert rows.loc[("layers-6", "onnxruntime"), [ALONE, WHOLE]].tolist() == pytest.approx([0, -10])
    assert rows.loc[("baseline", "onnxruntime-int8"), [ALONE, WHOLE]].tolist() == pytest.approx([-0.5, -0.5])
    assert rows.loc[("layers-6", "onnxruntime-int8"), "Computes in"] == "int8"
    assert rows.loc[("layers-6", "onnxruntime-int8"), ["Times as fast", "One text"]].tolist() == [5, 10]
    assert rows.loc[("heads-6", "onnxruntime-int8"), "File (MB)"] == pytest.approx(90 / 3.5)
    alone = rows.loc[("heads-6", "onnxruntime-int8")]
    # 40 of 1,000 lost and none gained: the error of the mean is sqrt(0.04 * 0.96 / 999).
    half = 1.96 * 100 * np.sqrt(0.04 * 0.96 / 999)
    assert [alone[f"{ALONE} low"], alone[f"{ALONE} high"]] == pytest.approx([-4 - half, -4 + half], abs=0.01)
    assert rows.loc[("baseline", "torch"), [ALONE, WHOLE]].isna().all()
    assert rows["Difference"].value_counts().to_dict() == {"within noise": 4, "loss on these runs": 2}


def test_times_of_other_runtimes_are_never_taken_for_pytorchs():
    """ONNX Runtime computes in float32 too, on the same device, and stands above PyTorch's row in the file."""
    last_first = dict(sorted(PLANTED.items(), key=lambda item: item[0][1] != "onnxruntime"))
    profile(runs(), last_first)
    report = compared()
    uri = f"runs:/{mlflow.last_active_run().info.run_id}/changes.csv"
    changes = pd.read_csv(mlflow.artifacts.download_artifacts(uri)).set_index("Config")
    assert "## Where it runs" in report
    assert changes["Speed-up"].to_dict() == {"heads-6": 1.4, "layers-6": 2.0}
    assert set(changes["Timed"]) == {"in turn"}


def test_the_latest_measurement_of_runs_that_count_is_taken(experiment_id):
    ids = runs()
    profile(ids)
    slower = {key: (count, speed / 2) for key, (count, speed) in PLANTED.items() if key[0] != "layers"}
    profile(ids, slower)
    trained = counted(experiment_id)
    rows = measured(experiment_id, "packaged", trained)
    assert rows["speed_ratio"].max() == 3.5 / 2
    assert measured(experiment_id, "packaged", trained[trained["dim"].ne("none")]).empty
    assert measured(experiment_id, "packaged", trained.assign(device="another")).empty


def test_without_predictions_figures_stand_and_nothing_is_said_of_noise(experiment_id):
    profile(runs(), without=[("none", "onnxruntime-int8"), ("heads", "onnxruntime-int8")])
    sentence, _ = said(experiment_id)
    assert "2.50 times as fast (2.40 to 2.60), 5.00 times one text at a time (accuracy not compared)" in sentence


def test_a_store_without_such_a_measurement_says_how_to_ask():
    runs()
    report = compared()
    assert "## Where it runs" not in report
    assert (
        "`mlflow run . -e profile -P preset=packaged -P model=bert -P runtimes=torch,onnxruntime,onnxruntime-int8`"
        in (report.partition("## Which model do I take?")[2].partition("##")[0])
    )


def test_the_picture_names_what_is_cut_quantised_and_both(experiment_id):
    profile(runs())
    figure = runtime_pictures.against_speed(measured(experiment_id, "packaged", counted(experiment_id)))
    FigureCanvasAgg(figure).draw()
    for axes, factor in zip(figure.axes, (1, 2), strict=True):
        named = {text.get_text(): tuple(text.xy) for text in axes.texts}
        assert named == {
            "baseline": (1.0 * factor, 0.9), "quantised": (2.5 * factor, 0.895),
            "cut": (1.4 * factor, 0.88), "both": (3.5 * factor, 0.84),
        }  # fmt: skip
        lines = [line.get_xdata().tolist() for line in axes.lines if len(line.get_xdata()) == 3]
        assert lines == [[factor * x for x in own] for own in ([1.0, 1.5, 2.5], [1.4, 2.1, 3.5], [2.0, 3.0, 5.0])]

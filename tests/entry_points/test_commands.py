"""The project as its users run it: real `mlflow run`, a real store, real models, from another directory."""

import json
import re
import shutil
import sqlite3
import subprocess
import sys

import mlflow
import pandas as pd
import psutil
import pytest
from oracles import flop_count
from studies import EXPERIMENT

from conftest import ROOT, environment
from encoder_reduction.data import cache
from encoder_reduction.plan import presets

pytestmark = pytest.mark.slow


def test_a_run_says_what_it_is(reduced):
    tags, params, metrics = reduced.data.tags, reduced.data.params, reduced.data.metrics
    assert reduced.info.status == "FINISHED"
    assert reduced.info.run_name == "bert/heads-6/seed-42"
    assert {key: tags[key] for key in ("stage", "model", "dim", "config", "checkpoint", "corpus", "preset")} == {
        "stage": "reduce",
        "model": "bert",
        "dim": "heads",
        "config": "heads-6",
        "checkpoint": "minilm-bert",
        "corpus": "movie-snippets",
        "preset": "small",
    }
    assert params["learning_rate"] == "2e-5"
    assert (params["keep"], params["strategy"], params["seed"]) == ("0.5", "prune", "42")
    assert metrics["parameters"] == 20_941_058
    assert 0 <= metrics["accuracy"] <= 1
    for name in ("inference_ms", "training_memory_gb", "inference_memory_gb", "training_seconds"):
        assert metrics[name] > 0
    assert 0.3 < metrics["training_memory_gb"] < 8
    assert metrics["embedding_parameters"] == (30522 + 512 + 2) * 384 + 2 * 384
    assert metrics["encoder_parameters"] == 6 * (
        (3 * 384 + 3) * 192 + 192 * 384 + 384 + 2 * 384 * 1536 + 1536 + 384 + 4 * 384
    )
    assert metrics["flops_128"] == pytest.approx(
        flop_count(layers=6, heads=6, head_size=32, hidden=384, intermediate=1536, tokens=128), rel=1e-9
    )
    assert metrics["optimizer_gb"] == pytest.approx(2 * metrics["parameters_gb"], rel=0.01)
    assert min(metrics["end_to_end_ms"], metrics["tokenisation_ms"]) > 0
    assert metrics["inference_ms_low"] <= metrics["inference_ms"] <= metrics["inference_ms_high"]
    assert 0 <= metrics["training_padding"] < 0.5
    assert tags["machine"]


def test_a_run_keeps_its_curves_and_predictions(project, reduced):
    client = mlflow.MlflowClient(project.env["MLFLOW_TRACKING_URI"])
    steps = [point.step for point in client.get_metric_history(reduced.info.run_id, "train_loss")]
    assert sorted(steps) == [1, 2]
    # The figure that selects is one value; the curve of the epochs has another name.
    assert len(client.get_metric_history(reduced.info.run_id, "validation_accuracy")) == 1
    assert [point.step for point in client.get_metric_history(reduced.info.run_id, "epoch_validation_accuracy")] == [2]
    mlflow.set_tracking_uri(project.env["MLFLOW_TRACKING_URI"])
    table = pd.read_csv(mlflow.artifacts.download_artifacts(f"runs:/{reduced.info.run_id}/test_predictions.csv"))
    assert len(table) == 32
    accuracy = (table["label"] == table["prediction"]).mean()
    assert accuracy == pytest.approx(reduced.data.metrics["accuracy"])


def test_the_model_answers_through_mlflow_and_through_plain_transformers(project, reduced, tmp_path):
    mlflow.set_tracking_uri(project.env["MLFLOW_TRACKING_URI"])
    texts = ["A wonderful film.", "Dull, and far too long."]
    answers = mlflow.pyfunc.load_model(f"runs:/{reduced.info.run_id}/bert-heads-6").predict(texts)
    assert all(answer["label"] in ("positive", "negative") and 0.5 <= answer["score"] <= 1 for answer in answers)
    path = mlflow.artifacts.download_artifacts(f"runs:/{reduced.info.run_id}/bert-heads-6", dst_path=str(tmp_path))
    # A stranger's process without this package: the class of pruned heads travels with the weights.
    code = """
import sys, json, pathlib, torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
folder = next(pathlib.Path(sys.argv[1]).glob("artifacts/*/config.json")).parent
model = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True).eval()
model.to(getattr(torch, model.config.inference_dtype))  # the precision that it was scored in
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
assert "encoder_reduction" not in sys.modules
scores = model(**tokenizer(json.loads(sys.argv[2]), padding=True, return_tensors="pt")).logits.float().softmax(-1)
print(json.dumps([[model.config.id2label[row.argmax().item()], row.max().item()] for row in scores]))
"""
    result = subprocess.run(
        [sys.executable, "-c", code, path, json.dumps(texts)],
        cwd=tmp_path, env=environment(HF_HOME=str(tmp_path / "hf")), capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    plain = json.loads(result.stdout)
    assert [label for label, _ in plain] == [answer["label"] for answer in answers]
    assert [score for _, score in plain] == pytest.approx([answer["score"] for answer in answers], abs=1e-5)


def test_the_study_fills_both_tables_skips_what_is_done_and_survives_an_interruption(project, studied):
    assert studied.interrupted == ["KILLED"]
    result = studied.continued
    assert re.search(r"\[ 1/9\].*finished already, skipped", result.stderr)
    assert len(re.findall(r"accuracy 0\.\d+, \d+ s", result.stderr)) == 7
    assert "No row of the plan is missing." in result.stdout
    first, second = re.findall(r"\| Model .*?\n\n", result.stdout, re.S)[:2]
    for table in (first, second):
        assert [column.strip() for column in table.splitlines()[0].strip("|").split("|")] == [
            "Model", "Config", "Accuracy", "F1-score", "Inference Time (ms)", "Memory (GB)", "Training Time (s)",
        ]  # fmt: skip
    plan = ["Baseline", "6 Attention Heads", "192 Embedding Size", "3 Hidden Layers"]
    source, target = (
        [line.split("|")[2].strip() for line in rows.strip().splitlines()[2:]] for rows in (first, second)
    )
    assert source == plan
    assert [config.removesuffix(" (Best Reduced Config)") for config in target] == plan
    best = next(line for line in result.stdout.splitlines() if "encoder-reduction-bert@best`" in line)
    dim = {"heads": "6 Attention Heads", "hidden": "192 Embedding Size", "layers": "3 Hidden Layers"}
    marked = [config for config in target if config.endswith(" (Best Reduced Config)")]
    assert marked == [f"{dim[best.partition('`: ')[2].partition('-')[0]]} (Best Reduced Config)"]
    assert "192 Embedding Size is `hidden-192`" in result.stdout
    assert "nan" not in first + second
    assert re.search(r"profile  bert +heads-6 x\d\.\d\d, hidden-192 x\d\.\d\d, layers-3 x\d\.\d\d", result.stderr)
    changes = result.stdout.partition("## Each reduction")[2]
    assert len(re.findall(r"^\| minilm-bert .*\| in turn +\|", changes, re.M)) == 3
    assert "After adaptation, against the adapted baselines: cutting heads leaves" in result.stdout

    again = entry(project, "study", env={"MLFLOW_EXPERIMENT_NAME": EXPERIMENT})
    assert again.returncode == 0
    assert again.stderr.count("finished already, skipped") == 9


def test_paired_profiling_measures_finished_runs_in_turn(project, reduced):
    """A run beside itself is as fast as itself, within noise; the ratios are in the store."""
    twin = project.runs(stage="baseline")[0].info.run_id
    result = project.run("profile", "model=bert", f"runs={twin},{reduced.info.run_id}", "time_budget=1")
    assert result.returncode == 0, result.stderr
    latest = max(project.runs(stage="profile"), key=lambda run: run.info.start_time)
    mlflow.set_tracking_uri(project.env["MLFLOW_TRACKING_URI"])
    table = pd.read_csv(mlflow.artifacts.download_artifacts(f"runs:/{latest.info.run_id}/speed_ratios.csv"))
    assert set(zip(table["workload"], table["batch_size"], strict=True)) == {
        ("texts", 16), ("texts", 1), ("16", 16), ("16", 1),
    }  # fmt: skip
    reference = table[table["run_id"].eq(twin)]
    assert (reference["speed_ratio"] == 1).all()
    pruned = table[table["run_id"].eq(reduced.info.run_id)]
    assert (pruned["low"] <= pruned["speed_ratio"]).all()
    assert latest.data.metrics["speed_ratio/bert/heads-6/seed-42/texts/batch_16"] == pytest.approx(
        pruned[pruned["workload"].eq("texts") & pruned["batch_size"].eq(16)]["speed_ratio"].item()
    )


def test_paired_profiling_refuses_what_it_cannot_measure(project, reduced):
    result = entry(project, "profile_runs", "--model=bert", f"--runs={reduced.info.run_id},nope")
    assert result.returncode == 1
    assert "Run nope is not in sqlite:///" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_killed_process_fails_its_run_and_the_study_goes_on(project, small_preset):
    """The second run's process is killed outright; the others finish and the study says what is missing."""
    words = [sys.executable, str(ROOT / "entry_points" / "transfer.py"), "--model=bert", f"--preset={project.preset}"]
    env = environment(**project.env, MLFLOW_EXPERIMENT_NAME=EXPERIMENT)
    with subprocess.Popen(
        [*words, "--learning_rate=3e-5"], cwd=project.folder, env=env, stderr=subprocess.PIPE, text=True
    ) as trio:
        for line in trio.stderr:
            if line.startswith("[ 2/3]"):
                break
        victim = None
        while victim is None and trio.poll() is None:
            running = [run for run in project.runs(stage="transfer") if run.info.status == "RUNNING"]
            # The fork server is a child of the command, and the run a child of the fork server.
            family = psutil.Process(trio.pid).children(recursive=True)
            victim = next((child for child in family if running and child.ppid() != trio.pid), None)
        victim.kill()
        rest = trio.stderr.read()
    assert trio.returncode == 1
    assert "FAILED: The process of this run was killed" in rest
    assert "1 of 3 runs failed" in rest
    assert "Start the same command again" in rest
    others = [run for run in project.runs(stage="transfer") if run.data.params.get("learning_rate") != "0.0001"]
    statuses = sorted(run.info.status for run in others)
    assert statuses == ["FAILED", "FINISHED", "FINISHED"]


def test_transfer_starts_from_the_reduction_of_the_plan(project, reduced, studied):
    result = project.run("transfer", "model=bert", "dim=heads", "epochs=0.5")
    assert result.returncode == 0, result.stderr
    (run,) = [run for run in project.runs(stage="transfer") if run.data.params.get("epochs") == "0.5"]
    candidates = [r for r in project.runs(stage="reduce", dim="heads") if r.info.status == "FINISHED"]
    assert len(candidates) == 2
    (planned,) = [r for r in candidates if r.data.params["learning_rate"] == "0.0002"]
    assert run.data.tags["source_run"] == planned.info.run_id
    assert run.data.tags["corpus"] == "product-reviews"
    assert run.data.params["num_attention_heads"] == "6"


def test_a_distilled_model_learns_from_the_baseline(project):
    parameters = ["--model=bert", "--dim=layers", "--distill=true"]
    result = entry(project, "reduce", *parameters, env={"MLFLOW_EXPERIMENT_NAME": EXPERIMENT})
    assert result.returncode == 0, result.stderr
    (run,) = project.runs(stage="reduce", distill="logits")
    assert run.data.params["distill"] == "logits"
    teacher = mlflow.MlflowClient(project.env["MLFLOW_TRACKING_URI"]).get_run(run.data.tags["source_run"])
    assert teacher.data.tags["stage"] == "baseline"
    assert run.data.params["temperature"] == "2.0"


def test_compare_reads_the_store_and_names_missing_rows(project, small_preset, tmp_path):
    wide = small_preset("small", models=("bert", "roberta"))
    result = project.run("compare", preset=wide)
    assert result.returncode == 0, result.stderr
    assert "Missing, since no finished run of it is in the store: minilm-roberta baseline on movie-snippets" in (
        result.stdout
    )
    (run,) = [run for run in project.runs(stage="compare") if run.data.params["preset"] == str(wide)]
    mlflow.set_tracking_uri(project.env["MLFLOW_TRACKING_URI"])
    for file in (
        "source_table.csv",
        "source_table.md",
        "target_table.csv",
        "target_table.md",
        "trade_off.png",
        "relative_changes.svg",
        "resources.png",
        "retention.svg",
        "learning_curves.png",
        "ranking.html",
        "exchange_rates.tex",
        "report.html",
        "report.md",
    ):
        mlflow.artifacts.download_artifacts(f"runs:/{run.info.run_id}/{file}", dst_path=str(tmp_path))
    uri = "models:/encoder-reduction-bert@best"
    assert f"- `{uri}`: " in result.stdout
    assert mlflow.pyfunc.load_model(uri).predict(["A wonderful film."])[0]["label"] in ("positive", "negative")
    table = pd.read_csv(tmp_path / "source_table.csv")
    baseline = next(r for r in project.runs(stage="baseline") if r.info.status == "FINISHED")
    assert table.loc[0, "Accuracy"] == pytest.approx(baseline.data.metrics["accuracy"])
    assert table.loc[0, "Memory (GB)"] == pytest.approx(baseline.data.metrics["training_memory_gb"])


def test_a_users_mistake_fails_the_run_with_one_sentence(project):
    before = len(project.runs())
    result = project.run("reduce", "model=bert", "dim=width")
    assert result.returncode == 1
    assert "Error: Unknown dim 'width'; choose one of: heads, hidden, intermediate, layers, mixed." in result.stderr
    assert "Traceback" not in result.stderr.partition("Error: Unknown dim")[0]
    runs = project.runs()
    assert len(runs) == before + 1
    assert runs[0].info.status == "FAILED"


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        (["--model=albert", "--dim=hidden"], ["'albert'", "'bert', 'roberta', 'distilbert'"]),
        (["--model=bert", "--dim=hidden", "--epoch=3", "--foo", "4"], ["Unknown parameter: epoch, foo", "epochs"]),
        (["--model=bert", "--dim=hidden", "--epochs=abc"], ["'abc' is not a valid float"]),
        (["--model=bert", "--dim=hidden", "--preset=nope"], ["'nope'", "auto, packaged, paper"]),
    ],
)
def test_bad_input_is_one_sentence_and_a_failure(project, parameters, words):
    preset = [] if any("--preset" in word for word in parameters) else [f"--preset={project.preset}"]
    result = project.command(
        sys.executable, ROOT / "entry_points" / "reduce.py", *parameters, *preset, cwd=project.folder, env=project.env
    )
    assert result.returncode in (1, 2)
    assert "Traceback" not in result.stderr
    assert all(word in result.stderr for word in words), result.stderr


def entry(project, name, *parameters, env=None):
    words = [sys.executable, ROOT / "entry_points" / f"{name}.py", f"--preset={project.preset}", *parameters]
    return project.command(*words, cwd=project.folder, env={**project.env, **(env or {})})


def test_nothing_to_compare_is_one_sentence(project):
    result = entry(project, "compare", env={"MLFLOW_EXPERIMENT_NAME": "empty"})
    assert result.returncode == 1
    assert "No finished run of preset=small is in this experiment" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_transfer_without_its_reduction_says_what_to_run_first(project):
    result = entry(project, "transfer", "--model=bert", "--dim=layers", env={"MLFLOW_EXPERIMENT_NAME": "empty"})
    assert result.returncode == 1
    assert "first: mlflow run . -e reduce -P model=bert -P dim=layers" in result.stderr


def test_a_dead_tracking_server_is_one_sentence(project):
    result = entry(project, "baseline", "--model=bert", env={"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"})
    assert result.returncode == 1
    assert "Tracking server http://127.0.0.1:9 does not answer" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_hub_checkpoint_without_a_network_is_one_sentence(project):
    parameters = ["--model=bert", "--preset=paper", "--precision=fp32"]
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(project.folder / "empty")}
    words = [sys.executable, ROOT / "entry_points" / "baseline.py", *parameters]
    result = project.command(*words, cwd=project.folder, env={**project.env, **offline})
    assert result.returncode == 1
    name = "google-bert/bert-base-uncased"
    assert f"Error: Checkpoint '{name}' is not whole on this machine and the hub cannot be asked" in result.stderr
    assert f"-e prefetch --env-manager local -P checkpoint={name} -P checkpoint_revision=86b5e0" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_full_disk_is_one_sentence(project, tmp_path):
    """The disk that has the cache, where texts fit and a checkpoint does not."""
    full = tmp_path / "full"
    full.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", full], capture_output=True)
    if mounted.returncode:
        pytest.skip("may not mount a small file system here")
    try:
        for text in cache.directory().glob("vaderSentiment*"):
            shutil.copytree(text, full / text.name)
        env = {cache.VARIABLE: str(full), "MLFLOW_EXPERIMENT_NAME": EXPERIMENT}
        result = entry(project, "baseline", "--model=bert", env=env)
    finally:
        subprocess.run(["umount", "-l", full], check=True)
    assert result.returncode == 1
    assert "The disk is full" in result.stderr
    assert "Traceback" not in result.stderr
    failed = [run for run in project.runs() if run.data.tags.get("error", "").startswith("The disk is full")]
    assert [run.info.status for run in failed] == ["FAILED"]


@pytest.mark.parametrize("name", ["baseline", "reduce", "transfer", "profile_runs", "compare", "study"])
def test_help_says_what_it_does_and_what_it_takes(project, name):
    result = project.command(sys.executable, ROOT / "entry_points" / f"{name}.py", "--help", cwd=project.folder)
    assert result.returncode == 0
    assert "--preset TEXT" in result.stdout
    if name != "compare":
        assert "--learning_rate FLOAT" in result.stdout


def test_presets_name_the_same_fields_as_the_entry_points():
    fields = set(presets.FineTuning.model_fields) | set(presets.Reduction.model_fields)
    assert {"epochs", "batch_size", "learning_rate", "max_train_examples", "max_length", "precision"} <= fields
    assert {"keep", "size"} <= fields


def test_no_run_is_left_running(project):
    connection = sqlite3.connect(project.folder / "store.db")
    assert connection.execute("select count(*) from runs where status = 'RUNNING'").fetchone() == (0,)

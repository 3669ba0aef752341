"""A tracking server that dies, comes back, or is wanted by many at once: nothing that a run says is lost."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler

import mlflow
import pandas as pd
import pytest
import requests
from machines import answering, tracked, tracking_server
from workers import EXPERIMENT, POINTS, SAME_DATA

from conftest import ROOT
from encoder_reduction.data import cache
from encoder_reduction.errors import UserError
from encoder_reduction.tracking import opening, patience, registry
from encoder_reduction.tracking.datasets import DataSet
from encoder_reduction.tracking.logged_models import Entry, latest_model
from encoder_reduction.tracking.outbox import Outbox
from encoder_reduction.tracking.run_folder import RunFolder

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with tracked(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setenv(patience.PATIENCE_VARIABLE, "1")


@pytest.fixture
def experiment(server):
    return mlflow.set_experiment("outbox").experiment_id


DATA = {
    "test": DataSet("reviews-test", "abc", "testing", "local", '{"uri": "reviews"}', '{"num_rows": 4, "negative": 1}')
}


def say_everything(run, packaged, first, last):
    run.tag({"stage": "baseline"})
    run.inputs(DATA, [])
    run.describe("bert/baseline/seed-42", {"model": "bert"}, {"epochs": 1}, "bert-baseline")
    for step in range(first, last):
        run.point({"train_loss": 1 / step}, step)
    run.send_points()
    run.table(pd.DataFrame({"a": [1, 2]}), "tables/table.csv")
    run.model(*packaged["bert"])
    run.metrics(
        {"accuracy": 0.75, "parameters": 7.0}, lambda name: "test" if name == "accuracy" else None, note="Good."
    )


def check_everything(run_id, tmp_path, status="FINISHED"):
    client = mlflow.MlflowClient()
    run = client.get_run(run_id)
    assert run.info.status == status
    assert run.data.tags["stage"] == "baseline"
    assert run.data.metrics["accuracy"] == 0.75
    curve = {point.step: point.value for point in client.get_metric_history(run_id, "train_loss")}
    assert curve == {step: pytest.approx(1 / step) for step in range(1, 20)}
    file = mlflow.artifacts.download_artifacts(f"runs:/{run_id}/tables/table.csv", dst_path=str(tmp_path / "down"))
    assert pd.read_csv(file)["a"].tolist() == [1, 2]
    (data,) = run.inputs.dataset_inputs
    assert (data.dataset.name, data.dataset.digest, data.tags[0].value) == ("reviews-test", "abc", "testing")
    assert json.loads(data.dataset.profile) == {"num_rows": 4, "negative": 1}
    assert run.data.tags["mlflow.note.content"] == "Good."
    found = latest_model(run_id)
    assert (found.name, found.tags["model"], found.params["epochs"]) == ("bert-baseline", "bert", "1")
    of_model = {metric.key: (metric.value, metric.dataset_name) for metric in found.metrics}
    assert of_model == {"accuracy": (0.75, "reviews-test"), "parameters": (7.0, None)}
    model = mlflow.pyfunc.load_model(f"runs:/{run_id}/bert-baseline")
    assert model.predict(["A wonderful film."])[0]["label"] in ("positive", "negative")


def test_a_run_goes_on_without_its_server_and_delivers_when_it_is_back(server, experiment, packaged, tmp_path):
    with opening.open_run(experiment_id=experiment) as run:
        run.point({"train_loss": 1.0}, 1)
        run.send_points()
        server.stop()
        started = time.monotonic()
        say_everything(run, packaged, 2, 20)
        assert time.monotonic() - started < 60
        server.start()
    check_everything(run.run_id, tmp_path)
    assert not run.folder.path.exists()


def test_what_the_server_never_took_is_delivered_by_sync(server, experiment, packaged, command, tmp_path, caplog):
    with opening.open_run(experiment_id=experiment) as run:
        server.stop()
        say_everything(run, packaged, 1, 20)
    assert f"run {run.run_id} is complete" in caplog.text
    assert "mlflow run . -e sync" in caplog.text
    server.start()
    words = ["mlflow", "run", ROOT, "-e", "sync", "--env-manager", "local", "--experiment-name", "outbox"]
    env = {"MLFLOW_TRACKING_URI": server.address, cache.VARIABLE: os.environ[cache.VARIABLE]}
    result = command(*words, cwd=tmp_path, env=env)
    assert result.returncode == 0, result.stderr
    assert f"Delivered the messages of 1 runs: {run.run_id}." in result.stdout
    check_everything(run.run_id, tmp_path)
    assert opening.settle() == []


def test_a_model_that_arrived_in_part_is_logged_again(server, experiment, packaged, monkeypatch, tmp_path):
    """The server dies between the model's entry and its files."""
    upload = mlflow.MlflowClient.log_model_artifacts

    def dies(self, *arguments, **more):
        server.stop()
        return upload(self, *arguments, **more)

    with opening.open_run(experiment_id=experiment) as run:
        monkeypatch.setattr(mlflow.MlflowClient, "log_model_artifacts", dies)
        say_everything(run, packaged, 1, 20)
        monkeypatch.setattr(mlflow.MlflowClient, "log_model_artifacts", upload)
        server.start()
    check_everything(run.run_id, tmp_path)
    card = registry.Card("Half of a model.", {})
    assert registry.register_model("half", "best", run.run_id, card) == "models:/encoder-reduction-half@best"
    assert mlflow.pyfunc.load_model("models:/encoder-reduction-half@best").predict(["Dull."])


def test_a_data_set_that_another_run_adds_meanwhile_is_found(server, experiment, monkeypatch):
    """MLflow looks for it and then adds it."""
    log, refusals = mlflow.MlflowClient.log_inputs, ["UNIQUE constraint failed: datasets.name", "duplicate key value"]

    def meanwhile(self, *arguments):
        if refusals:
            raise mlflow.exceptions.MlflowException(refusals.pop(), error_code=1000)
        return log(self, *arguments)

    monkeypatch.setattr(mlflow.MlflowClient, "log_inputs", meanwhile)
    with opening.open_run(experiment_id=experiment) as run:
        run.inputs(DATA, [])
    assert [data.dataset.name for data in mlflow.get_run(run.run_id).inputs.dataset_inputs] == ["reviews-test"]
    assert not refusals


def test_what_an_earlier_version_has_left_is_delivered(server, experiment, packaged):
    """Its messages say neither whose figures they are nor what the model is called."""
    with opening.open_run(experiment_id=experiment) as run:
        messages = Outbox(run.folder)
        messages.batch([mlflow.entities.Metric("accuracy", 0.75, 1, 0)])
        folder = messages.model(Entry("new", {}, {}), packaged["bert"][0].save_pretrained)
        packaged["bert"][1].save_pretrained(folder)
        for message in run.folder.messages():
            file = message / "message.json"
            content = json.loads(file.read_text())
            old = {key: value for key, value in content.items() if key not in ("of_model", "entry")}
            file.write_text(json.dumps(old | ({"metrics": [["accuracy", 0.75, 1, 0]]} if "metrics" in old else {})))
        assert messages.deliver()
    assert mlflow.get_run(run.run_id).data.metrics["accuracy"] == 0.75
    assert latest_model(run.run_id).name == "model"


def test_a_figure_of_other_runs_is_theirs_and_their_models(server, experiment, packaged):
    with opening.open_run(experiment_id=experiment) as measured:
        measured.inputs(DATA, [])
        measured.model(*packaged["bert"])
    with opening.open_run(experiment_id=experiment) as run:
        run.figures_of_others("speed_up", {measured.run_id: 2.5})
    assert mlflow.get_run(measured.run_id).data.metrics["speed_up"] == 2.5
    (figure,) = latest_model(measured.run_id).metrics
    assert (figure.key, figure.value, figure.dataset_name) == ("speed_up", 2.5, "reviews-test")
    assert "speed_up" not in mlflow.get_run(run.run_id).data.metrics


def test_a_run_that_says_its_model_again_has_one(server, experiment, packaged):
    """As one does whose process was killed after that, and which went on from its last checkpoint."""
    with opening.open_run(experiment_id=experiment) as run:
        run.model(*packaged["bert"])
        run.model(*packaged["bert"])
    found = mlflow.MlflowClient().search_logged_models([experiment], f"source_run_id = '{run.run_id}'")
    assert len(found) == 1
    assert mlflow.pyfunc.load_model(f"runs:/{run.run_id}/model").predict(["Dull."])


def test_files_have_longer_than_messages_and_a_server_that_is_away_is_noticed_as_soon(
    server, experiment, packaged, monkeypatch
):
    """How long MLflow waits for the answer to each request."""
    requested, request = [], requests.Session.request

    def noted(self, method, url, timeout, **more):
        requested.append((method, url.removeprefix(server.address), timeout))
        return request(self, method, url, timeout=timeout, **more)

    with opening.open_run(experiment_id=experiment) as run:
        monkeypatch.setattr(requests.Session, "request", noted)
        for say in (lambda: run.tag({"a": 1}), lambda: run.text("b", "b.txt"), lambda: run.model(*packaged["bert"])):
            requested.clear()
            say()
            assert requested[0][2] == 30
            uploads = [timeout for method, path, timeout in requested if "/mlflow-artifacts/" in path]
            assert set(uploads) <= {600}
        assert len(uploads) > 5
        monkeypatch.setenv("MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT", "3600")
        run.text("c", "c.txt")
        assert requested[-1][::2] == ("PUT", 3600)


class SlowServer(BaseHTTPRequestHandler):
    """Takes files over a link so slow that they are still on their way when their sender has finished."""

    def do_PUT(self):
        self.server.taken[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(1.5)
        self.send_response(200)
        self.end_headers()


def test_a_file_that_takes_longer_than_a_message_may_arrives_once(file, monkeypatch):
    monkeypatch.setattr(patience, "_MESSAGE_SECONDS", 1)
    with answering(SlowServer, taken={}) as slow:
        experiment = mlflow.create_experiment("slow", f"{slow.address}/files")
        with opening.open_run(experiment_id=experiment) as run:
            run.text("content", "a.txt")
        assert slow.taken == {f"/files/{run.run_id}/artifacts/a.txt": b"content"}


def test_what_the_server_refuses_is_an_error_and_is_not_tried_for_ever(server, experiment):
    with opening.open_run(experiment_id=experiment) as run:
        run.describe("name", {}, {"keep": 1})
        messages = Outbox(run.folder)
        messages.batch(params={"keep": 2})
        messages.batch(tags={"next": "message"})
        with pytest.raises(mlflow.exceptions.MlflowException, match="keep"):
            messages.deliver()
        assert messages.deliver()
    assert mlflow.get_run(run.run_id).data.tags["next"] == "message"
    assert mlflow.get_run(run.run_id).data.params["keep"] == "1"


def test_a_run_whose_process_was_killed_is_not_left_running(server, experiment, tmp_path):
    """Killed with messages on disk: the next command delivers them and says what became of the run."""
    code = """
import os, signal, sys
from encoder_reduction.tracking import opening, outbox, registry
with opening.open_run(experiment_id=sys.argv[1]) as run:
    outbox.Outbox(run.folder).batch(tags={"said": "before the end"})
    print(run.run_id, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    env = os.environ | {"PYTHONPATH": str(ROOT / "src"), "MLFLOW_TRACKING_URI": server.address}
    killed = subprocess.run([sys.executable, "-c", code, experiment], env=env, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL
    run_id = killed.stdout.strip()
    assert mlflow.get_run(run_id).info.status == "RUNNING"
    assert opening.settle() == [run_id]
    run = mlflow.get_run(run_id)
    assert (run.info.status, run.data.tags["said"]) == ("FAILED", "before the end")
    assert run.data.tags["error"] == "The process of this run was killed."


def test_a_run_that_was_killed_before_it_began_is_not_left_running(server, experiment, monkeypatch):
    """`mlflow run` has opened it; its entry point never took over."""
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", experiment)
    client = mlflow.MlflowClient()
    now, long_ago = (int(1000 * (time.time() - seconds)) for seconds in (0, 7200))
    by_mlflow_run = {"mlflow.project.entryPoint": "reduce"}
    runs = [
        client.create_run(experiment, start_time, tags).info.run_id
        for start_time, tags in [
            (long_ago, by_mlflow_run),
            (now, by_mlflow_run),
            (long_ago, {**by_mlflow_run, "stage": "reduce"}),  # perhaps on another machine
            (long_ago, {}),  # not ours
        ]
    ]
    opening.settle()
    assert [client.get_run(run_id).info.status for run_id in runs] == ["FAILED", "RUNNING", "RUNNING", "RUNNING"]
    assert client.get_run(runs[0]).data.tags["error"] == "The process of this run was killed before it began."


@pytest.fixture
def file(tmp_path):
    """An SQLite file that is the store for as long as the test runs."""
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/store.db")
    yield tmp_path / "store.db"
    mlflow.set_tracking_uri(before)


def test_a_database_that_is_busy_is_waited_for(file, caplog):
    """Somebody else holds the SQLite file for longer than MLflow waits."""
    with opening.open_run(experiment_id="0") as run:
        holder = sqlite3.connect(file, isolation_level=None)
        holder.execute("BEGIN EXCLUSIVE")
        run.metrics({"accuracy": 0.75})
        assert "what is logged waits on disk" in caplog.text
        holder.execute("ROLLBACK")
        holder.close()
    found = mlflow.get_run(run.run_id)
    assert (found.info.status, found.data.metrics["accuracy"]) == ("FINISHED", 0.75)


def test_a_server_with_too_much_to_do_is_waited_for():
    """MLflow 3.17 says this with the status of a bad request; seen with sixteen workers on two cores."""
    words = "BAD_REQUEST: QueuePool limit of size 5 overflow 10 reached, connection timed out, timeout 30.00"
    assert patience.is_unreachable(mlflow.exceptions.MlflowException(words, error_code=1000))
    assert not patience.is_unreachable(mlflow.exceptions.MlflowException("BAD_REQUEST: no such run", error_code=1000))


def test_one_run_is_carried_out_by_one_process(server, experiment):
    with opening.open_run(experiment_id=experiment) as run:
        assert not RunFolder(run.run_id).claim()
        with pytest.raises(UserError, match=f"Run {run.run_id} is being carried out by another process"):
            RunFolder(run.run_id).claim_or_refuse()


def workers(task, count, address, tmp_path):
    """What so many processes at once have to say."""
    words = [sys.executable, ROOT / "tests" / "support" / "workers.py", task, str(count), address]
    env = os.environ | {
        "PYTHONPATH": str(ROOT / "src"),
        cache.VARIABLE: str(tmp_path / "cache"),
        patience.PATIENCE_VARIABLE: "60",
    }
    result = subprocess.run(words, env=env, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_sixteen_workers_log_at_once(kind, request, tmp_path):
    store = request.getfixturevalue("postgres")("workers") if kind == "postgresql" else f"sqlite:///{tmp_path}/store.db"
    server = tracking_server(tmp_path, store)
    server.start()
    try:
        client = mlflow.MlflowClient(server.address)
        experiment = client.create_experiment(EXPERIMENT)
        started = time.perf_counter()
        done = workers("log", 16, server.address, tmp_path)
        slowest = max(slowest for _, slowest in done)
        print(f"{kind}: {time.perf_counter() - started:.1f} s, slowest write {slowest:.2f} s")
        runs = client.search_runs([experiment])
        assert {run.info.status for run in runs} == {"FINISHED"}
        assert sorted(run.info.run_id for run in runs) == sorted(run_id for run_id, _ in done)
        for run in runs:
            history = client.get_metric_history(run.info.run_id, "train_loss")
            number = int(run.data.params["number"])
            assert sorted((point.step, point.value) for point in history) == [
                (step, number + step) for step in range(1, POINTS + 1)
            ]
            assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["done.txt"]
            found = {(data.dataset.name, data.dataset.digest) for data in run.inputs.dataset_inputs}
            assert found == {(data.name, data.digest) for data in SAME_DATA.values()}
            assert run.data.metrics["accuracy"] == number / 16
    finally:
        server.stop()


def test_a_new_sqlite_file_is_made_by_one_of_six_processes(tmp_path):
    assert workers("touch", 6, f"sqlite:///{tmp_path}/new.db", tmp_path) == [1] * 6

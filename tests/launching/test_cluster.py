"""The study on a real Slurm, with a real tracking server on PostgreSQL, and all that happens on a cluster."""

import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import mlflow
import psutil
import pytest
import requests
from machines import Server, free_port, until

from conftest import ROOT, environment
from encoder_reduction.errors import UserError
from encoder_reduction.launching import queue

pytestmark = pytest.mark.slow

EXPERIMENT = "on-slurm"
STAGES = ("baseline", "reduce", "transfer")
CANCELLED = "transfer bert heads seed 42"


@dataclass(frozen=True)
class Submitted:
    """A study's jobs by what they do, and what the same command said while they were under way."""

    jobs: dict[str, str]
    again: str


class Cluster:
    """A copy of the checkout with a cluster.env of its own."""

    def __init__(self, folder, slurm, server):
        self.folder, self.slurm, self.server = folder, slurm, server
        self.env = environment(
            **slurm.env,
            CLUSTER_ENV=str(folder / "cluster.env"),
            MLFLOW_TRACKING_URI=server.address,
            MLFLOW_EXPERIMENT_NAME=EXPERIMENT,
            ENCODER_REDUCTION_CACHE=str(folder / "cache"),
            OMP_NUM_THREADS="1",
        )

    def __call__(self, *words):
        return subprocess.run(
            [str(word) for word in words], cwd=self.folder, env=self.env, capture_output=True, text=True
        )

    def runs(self, *stages):
        client = mlflow.MlflowClient(self.server.address)
        found = client.search_runs([client.get_experiment_by_name(EXPERIMENT).experiment_id])
        return [run for run in found if not stages or run.data.tags.get("stage") in stages]

    def training(self, job):
        """The run of a job, once it has logged a step of training."""
        for run in self.runs(*STAGES):
            if run.data.tags.get("slurm_job_id") == job and "train_loss" in run.data.metrics:
                return run
        return None

    def log(self, job):
        return (self.folder / "logs" / "slurm" / f"task-{job}.log").read_text()

    def state(self, job):
        return self.slurm("squeue", "--noheader", "--array", "--format=%T", "--jobs", job).strip()


@pytest.fixture(scope="module")
def cluster(slurm, postgres, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cluster") / "checkout"
    ignored = shutil.ignore_patterns(".git", ".venv", "logs", "mlruns", "mlflow.db*", "cluster.env", ".*_cache")
    shutil.copytree(ROOT, folder, ignore=ignored)
    shutil.copytree(Path("~/.cache/encoder-reduction").expanduser(), folder / "cache", dirs_exist_ok=True,
                    ignore=shutil.ignore_patterns("runs", "tokenised", "teacher-logits"))  # fmt: skip
    example = (ROOT / "slurm" / "cluster.env.example").read_text()
    own = {
        "CPUS": "1", "MEMORY": "2000", "TIME": "00:20:00",
        "CPU_CPUS": "1", "CPU_MEMORY": "2000", "CPU_TIME": "00:20:00",
        "SERVER_OPTIONS": "(--workers 1)", "MAX_JOBS": "2", "WARN_SECONDS": "30",
        "EXPERIMENT": EXPERIMENT, "ENCODER_REDUCTION_CHECKPOINT_SECONDS": "0",
    }  # fmt: skip
    for name, value in own.items():
        example, changed = re.subn(rf"^{name}=\S*", f"{name}={value}", example, flags=re.M)
        assert changed == 1, name
    activate = f"activate() {{ export PATH={Path(sys.executable).parent}:$PATH; }}"
    (folder / "cluster.env").write_text(re.sub(r"^activate\(\).*$", activate, example, flags=re.M))
    settings = {"STORE": postgres("slurm"), "ARTIFACTS": folder.parent / "files", "PORT": (port := free_port())}
    env = {f"SERVER_{name}": str(value) for name, value in settings.items()}
    server = Server(["slurm/server.sh"], folder, port, CLUSTER_ENV=str(folder / "cluster.env"), **env)
    server.start()
    yield Cluster(folder, slurm, server)
    server.stop()


def test_the_scripts_pass_shellcheck(debian):
    scripts = sorted((ROOT / "slurm").glob("*.s*"))
    assert len(scripts) > 10
    checked = subprocess.run(["shellcheck", "--external-sources", *scripts], cwd=ROOT, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


@pytest.fixture(scope="module")
def disturbed(cluster, project):
    """The study of the integration tests again, as jobs, with everything that happens on a cluster."""
    submitted = cluster("slurm/submit_study.sh", "--preset", project.preset)
    assert submitted.returncode == 0, submitted.stderr
    jobs = numbers_of(submitted.stdout)
    again = cluster("slurm/submit_study.sh", "--preset", project.preset, "--dry-run")
    baseline = jobs["baseline bert none seed 42"]
    heads, hidden, layers = (jobs[f"reduce bert {dim} seed 42"] for dim in ("heads", "hidden", "layers"))

    until(lambda: cluster.training(baseline), what="the baseline trains")
    cluster.slurm("scontrol", "requeue", baseline)

    until(lambda: cluster.training(heads), what="heads train")
    process_of(heads, "entry_points/reduce.py").send_signal(signal.SIGKILL)

    until(lambda: cluster.training(hidden), what="hidden trains")
    slow = process_of(hidden, "entry_points/reduce.py")
    slow.suspend()  # until its time limit, which is two minutes
    cluster.slurm("scontrol", "update", f"JobId={hidden}", "TimeLimit=2")

    until(lambda: cluster.training(layers), what="layers train")
    cluster.server.stop()
    cluster.slurm.restart_controller()
    back = time.monotonic() + 30
    until(lambda: time.monotonic() > back, what="the tracking server is away for 30 s")
    cluster.server.start()
    assert cluster.training(layers).info.status in ("RUNNING", "FINISHED")  # It went on without the server.

    until(lambda: "near its time limit" in cluster.log(hidden), what="hidden is told of its time limit")
    with suppress(psutil.NoSuchProcess):  # where the limit itself has come, Slurm wakes it
        slow.resume()
    cluster.slurm("scancel", jobs[CANCELLED])
    until(lambda: cluster.slurm("squeue", "--noheader") == "", seconds=900, what="all jobs end")
    return Submitted(jobs, again.stdout)


@pytest.fixture(scope="module")
def mended(cluster, disturbed, project):
    """The same command again, after all jobs have ended and one was cancelled."""
    missing = cluster("slurm/submit_study.sh", "--preset", project.preset)
    assert missing.returncode == 0, missing.stderr
    until(lambda: cluster.slurm("squeue", "--noheader") == "", seconds=900, what="all jobs end")
    return missing.stdout


def numbers_of(said):
    """The jobs that a submission names, by what they do."""
    lines = re.findall(r"^(\d+(?:_\d+)?) +(.*)$", said, flags=re.M)
    return {" ".join(label.split()): number for number, label in lines}


def process_of(job, script):
    """The entry point's own process in a job."""
    for process in psutil.process_iter(["cmdline", "name"]):
        if process.info["name"].startswith("python") and script in (process.info["cmdline"] or []):
            env = process.environ()
            if f"{env.get('SLURM_ARRAY_JOB_ID')}_{env.get('SLURM_ARRAY_TASK_ID')}" == job:
                return process
    raise AssertionError(f"no process of {script} in job {job}")


def report(cluster, run, folder):
    mlflow.set_tracking_uri(cluster.server.address)
    return Path(mlflow.artifacts.download_artifacts(f"runs:/{run.info.run_id}/report.md", dst_path=folder)).read_text()


def test_a_second_submission_submits_nothing_that_is_under_way(disturbed):
    assert disturbed.again == "Nothing to submit: all that is missing is running or queued.\n"


def test_what_failed_does_not_hang_the_rest(cluster, disturbed, project, tmp_path):
    """One adaptation was cancelled: the comparison ran on what there is, and the status names it."""
    status = cluster(sys.executable, "entry_points/status.py", f"--preset={project.preset}").stdout
    assert status.startswith("8 done, 1 failed\n")
    (failed,) = [line for line in status.splitlines() if disturbed.jobs[CANCELLED] in line.split()]
    assert " ".join(failed.split()).startswith(CANCELLED + " failed its job ended before MLflow heard of it")
    (run,) = cluster.runs("compare")
    assert run.info.status == "FINISHED"
    missing = "Missing, since no finished run of it is in the store: minilm-bert heads on product-reviews."
    assert missing in report(cluster, run, tmp_path)


def test_the_same_command_again_submits_what_is_missing(disturbed, mended):
    assert list(numbers_of(mended)) == ["prefetch", "tokenise", CANCELLED, "compare"]


def test_nothing_is_lost_and_nothing_is_twice(cluster, mended):
    runs = cluster.runs()
    assert not [run.info.run_name for run in runs if run.info.status == "RUNNING"]
    rows = [(run.data.tags["stage"], run.data.tags["dim"]) for run in cluster.runs(*STAGES)]
    assert sorted(rows) == sorted(
        [("baseline", "none")] + [("reduce", dim) for dim in ("heads", "hidden", "layers")]
        + [("transfer", dim) for dim in ("none", "heads", "hidden", "layers")]
    )  # fmt: skip
    assert {run.info.status for run in cluster.runs(*STAGES)} == {"FINISHED"}
    client = mlflow.MlflowClient(cluster.server.address)
    for run in cluster.runs(*STAGES):
        steps = [point.step for point in client.get_metric_history(run.info.run_id, "train_loss")]
        assert sorted(steps) == [1, 2], run.info.run_name


def test_the_disturbed_runs_are_the_ones_that_were_begun(cluster, mended):
    pieces = {run.data.tags["dim"]: int(run.data.tags["pieces"]) for run in cluster.runs("baseline", "reduce")}
    assert min(pieces["none"], pieces["heads"], pieces["hidden"]) >= 2
    for run in cluster.runs(*STAGES):
        tags = run.data.tags
        assert "error" not in tags
        assert tags["slurm_node"] in ("n1", "n2")
        assert run.info.run_id in (cluster.folder / tags["slurm_log"]).read_text()


def test_the_table_is_that_of_an_undisturbed_study(cluster, mended, project, studied):
    def figures(runs):
        found = {}
        for run in runs:
            tags, params, metrics = run.data.tags, run.data.params, run.data.metrics
            planned = params.get("learning_rate") in ("0.0002", "0.0001") and params["epochs"] == "1.0"
            if run.info.status == "FINISHED" and planned:
                values = [metrics[name] for name in ("accuracy", "f1", "validation_accuracy", "train_loss")]
                found[tags["stage"], tags["dim"]] = values
        return found

    undisturbed = figures(run for stage in STAGES for run in project.runs(stage=stage, seed="42", distill="none"))
    on_slurm = figures(cluster.runs(*STAGES))
    assert on_slurm == undisturbed
    assert len(on_slurm) == 8


def test_the_report_names_nothing_missing(cluster, mended, tmp_path):
    assert len(cluster.runs("compare")) == 2
    assert {run.info.status for run in cluster.runs("compare")} == {"FINISHED"}
    latest = max(cluster.runs("compare"), key=lambda run: run.info.start_time)
    assert "No row of the plan is missing." in report(cluster, latest, tmp_path)


def test_status_says_how_far_the_study_is(cluster, mended, project):
    said = cluster(sys.executable, "entry_points/status.py", f"--preset={project.preset}")
    assert said.returncode == 0, said.stderr
    assert said.stdout.startswith("9 done\n")
    other = cluster(sys.executable, "entry_points/status.py", f"--preset={project.preset}", "--seeds=7")
    assert other.stdout.startswith("8 not started, 1 done\n")  # the paired measurement is no matter of seeds


def test_a_finished_study_is_only_compared_again(cluster, mended, project):
    values = [f"preset={project.preset}", "launcher=slurm", "dry_run=true"]
    words = [word for value in values for word in ("-P", value)]
    said = cluster("mlflow", "run", ".", "-e", "study", "--env-manager", "local", *words)
    compare = f"JOB0=$(slurm/submit.sh --parsable compare -P preset={project.preset})"
    assert re.findall(r"JOB.*", said.stdout) == [compare]
    more = cluster("slurm/submit_study.sh", "--preset", project.preset, "--seeds=42,43", "--throttle=3", "--dry-run")
    assert more.stdout.count(" -P seed=43\n") == 8
    assert "seed=42\n" not in more.stdout
    assert "--array=0-3%3 task" in more.stdout
    assert "--dependency=afterany:JOB3" in more.stdout.splitlines()[-1]


def test_hostile_values_execute_nothing(cluster, mended, tmp_path):
    """Through a wrapper, its job and `mlflow run`: every shell that they pass."""
    mark = tmp_path / "executed"
    values = [
        f"model=$(touch {mark})",
        f"dim='; touch {mark}; '",
        f'corpus="; touch {mark}; "',
        f"checkpoint=`touch {mark}`",
        f"text_column=a\ntouch {mark}\n",
        f"label_column=../../{mark.name}",
        f"preset=|touch {mark}",
    ]
    words = [word for value in values for word in ("-P", value)]
    before = set(cluster.folder.parent.iterdir())
    job = cluster("slurm/submit.sh", "--parsable", "reduce", *words)
    assert job.returncode == 0, job.stderr
    number = job.stdout.strip()
    until(lambda: cluster.state(number) == "", what="the job has ended")
    log = (cluster.folder / "logs" / "slurm" / f"reduce-{number}.log").read_text()
    assert "Error: " in log
    assert "is not one of 'bert', 'roberta', 'distilbert'" in log
    assert not mark.exists()
    assert set(cluster.folder.parent.iterdir()) == before


@pytest.mark.parametrize("name", ["../evil", "$(true)", "nope", ""])
def test_only_the_projects_wrappers_are_submitted(cluster, name):
    refused = cluster("slurm/submit.sh", name)
    assert refused.returncode == 1
    assert refused.stderr.startswith("Error: ")
    assert "choose one of: baseline compare compress prefetch" in refused.stderr


def test_without_settings_it_says_what_to_copy(cluster):
    env = cluster.env | {"CLUSTER_ENV": "slurm/none.env"}
    words = [cluster.folder / "slurm" / "submit.sh", "reduce"]
    refused = subprocess.run(words, cwd=cluster.folder, env=env, capture_output=True, text=True)
    assert refused.returncode == 1
    assert "cp slurm/cluster.env.example slurm/cluster.env" in refused.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--launcher=slurm", "--rerun=true", "--jobs=2"], "launcher=slurm takes no rerun and no jobs"),
        (["--throttle=2", "--dry_run=true"], "launcher=local takes no throttle and no dry_run"),
    ],
)
def test_what_a_launcher_does_not_take_is_refused(command, options, words):
    refused = command(sys.executable, "entry_points/study.py", "--preset=packaged", *options, cwd=ROOT)
    assert refused.returncode == 2
    assert words in refused.stderr


def test_without_slurm_nothing_is_submitted(cluster, project):
    words = [sys.executable, "entry_points/study.py", "--launcher=slurm", f"--preset={project.preset}", "--seeds=9"]
    env = cluster.env | {"PATH": str(Path(sys.executable).parent)}
    refused = subprocess.run(words, cwd=cluster.folder, env=env, capture_output=True, text=True)
    assert refused.returncode == 1
    assert "Error: launcher=slurm needs sbatch on PATH" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_server_for_the_network_answers_to_its_nodes_names_alone(cluster, tmp_path):
    """MLflow holds other names in a request, or in a browser's Origin, for an attack."""
    settings = {"HOST": "0.0.0.0", "PORT": (port := free_port()), "STORE": f"sqlite:///{tmp_path}/store.db"}
    env = {f"SERVER_{name}": str(value) for name, value in settings.items()}
    server = Server(["slurm/server.sh"], cluster.folder, port, **{"CLUSTER_ENV": cluster.env["CLUSTER_ENV"], **env})
    server.start()
    try:
        name = (cluster.folder / "logs" / "slurm" / "server.url").read_text().strip().removeprefix("http://")
        assert not name.startswith(("0.0.0.0", "127.0.0.1", "localhost"))
        search = f"{server.address}/api/2.0/mlflow/experiments/search?max_results=1"
        assert requests.get(search, headers={"Host": name}, timeout=60).ok
        assert requests.get(search, timeout=60).ok
        assert requests.get(search, headers={"Host": "elsewhere.example"}, timeout=60).status_code == 403
        create = f"{server.address}/api/2.0/mlflow/experiments/create"
        ours, theirs = (
            requests.post(create, json={"name": origin}, headers={"Origin": f"http://{origin}"}, timeout=60)
            for origin in (name, f"elsewhere.example:{port}")
        )
        assert (ours.status_code, theirs.status_code) == (200, 403)
    finally:
        server.stop()


def test_without_a_controller_only_what_was_submitted_asks_for_it(debian, project, monkeypatch, tmp_path):
    (tmp_path / "empty.conf").touch()  # which squeue gives up at once; for one that is not there it waits a minute
    nowhere = {"SLURM_CONF": str(tmp_path / "empty.conf")}
    words = [sys.executable, ROOT / "entry_points" / "status.py", "--preset=packaged"]
    local = project.command(*words, cwd=project.folder, env={**project.env, **nowhere})
    assert local.returncode == 0, local.stderr
    assert local.stdout.startswith("42 not started\n")
    monkeypatch.setenv("SLURM_CONF", nowhere["SLURM_CONF"])
    with pytest.raises(UserError, match=r"Slurm's queue cannot be read, .* once 'squeue' answers\."):
        queue.queue()


def test_what_slurm_refuses_is_one_sentence(cluster, mended, project):
    settings = (cluster.folder / "cluster.env").read_text()
    wrong = cluster.folder / "wrong.env"
    wrong.write_text(re.sub(r"^PARTITION=\S*", "PARTITION=nowhere", settings, flags=re.M))
    before = len(cluster.runs("study"))
    words = ["slurm/submit_study.sh", "--preset", project.preset, "--seeds", "9"]
    refused = subprocess.run(
        words, cwd=cluster.folder, env=cluster.env | {"CLUSTER_ENV": str(wrong)}, capture_output=True, text=True
    )
    assert refused.returncode == 1
    assert "Slurm took nothing of this study: sbatch: error: invalid partition specified: nowhere" in refused.stderr
    assert "Traceback" not in refused.stderr
    studies = cluster.runs("study")
    assert len(studies) == before + 1
    assert max(studies, key=lambda run: run.info.start_time).info.status == "FAILED"

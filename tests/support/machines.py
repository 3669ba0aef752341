"""Real machines for the tests: a two-node Slurm on loopback, PostgreSQL, and a tracking server that can be stopped."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path

import mlflow
import psutil
import pytest
import requests
from filelock import FileLock
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from conftest import ROOT, environment

SCRIPTS = ROOT / "tests" / "support" / "slurm"


def until(condition: Callable[[], object], seconds: float = 300, what: str = "") -> object:
    """What the condition gives once it is true; fails after so many seconds."""
    end = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < end, f"not within {seconds} s: {what or condition}"
        time.sleep(0.3)
    return result


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def patient() -> requests.Session:
    """A session that asks again while nobody listens yet."""
    session = requests.Session()
    session.mount("http://", HTTPAdapter(max_retries=Retry(connect=12, backoff_factor=0.1, backoff_max=8)))
    return session


@contextmanager
def listening(words, folder, port, path, **env):
    """A program that answers HTTP; its address."""
    server = Server(words, folder, port, path, **env)
    server.start()
    try:
        yield server.address
    finally:
        server.stop()


@contextmanager
def answering(handler, tls=None, **attributes):
    """An HTTP server in this process, with these attributes and its address; over TLS where a context is given."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    vars(server).update(attributes, address=f"http{'s' if tls else ''}://127.0.0.1:{server.server_port}")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


class Server:
    """A program that answers HTTP, which can be stopped and started again."""

    def __init__(self, words, folder, port, path="health", **env):
        self.words, self.folder, self.port, self.path, self.env = words, folder, port, path, env
        self.address = f"http://127.0.0.1:{port}"

    def start(self):
        with open(self.folder / f"server-{self.port}.log", "a") as log:
            self._process = subprocess.Popen(
                [str(word) for word in self.words], cwd=self.folder, env=environment(**self.env), stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        patient().get(f"{self.address}/{self.path}", timeout=60).raise_for_status()

    def stop(self):
        subprocess.run(["pkill", "-KILL", "-s", str(self._process.pid)], check=False)
        self._process.wait()


def tracking_server(folder, store) -> Server:
    port = free_port()
    words = ["mlflow", "server", "--host", "127.0.0.1", "--port", port, "--workers", "1"]
    words += ["--backend-store-uri", store, "--artifacts-destination", folder / "files"]
    # As slurm/server.sh has it.
    settings = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW": "75"}
    return Server(words, folder, port, **settings)


@contextmanager
def tracked(folder):
    """A tracking server on SQLite that this process logs to."""
    server, before = tracking_server(folder, f"sqlite:///{folder}/store.db"), mlflow.get_tracking_uri()
    server.start()
    mlflow.set_tracking_uri(server.address)
    try:
        yield server
    finally:
        mlflow.set_tracking_uri(before)
        server.stop()


@pytest.fixture(scope="session")
def debian():
    """Slurm, PostgreSQL, shellcheck and Chromium, installed where they are not and may be."""
    with FileLock(Path(tempfile.gettempdir()) / "encoder-reduction-tests.lock"):
        programs = ("slurmctld", "munged", "shellcheck", "chromium")
        if all(map(shutil.which, programs)) and _postgres("initdb"):
            return
        if os.getuid() != 0 or not shutil.which("apt-get"):
            pytest.skip("needs Slurm, PostgreSQL, shellcheck and Chromium: run tests/support/install.sh as root")
        installed = subprocess.run([ROOT / "tests" / "support" / "install.sh"], capture_output=True, text=True)
        if installed.returncode:
            pytest.skip(f"Slurm, PostgreSQL and Chromium could not be installed: {installed.stderr.strip()[-300:]}")


@pytest.fixture(scope="session")
def postgres(debian):
    """Makes an empty PostgreSQL database of its own; its address."""
    folder, port = Path(tempfile.mkdtemp(prefix="postgres-")), free_port()
    demote = {}
    if os.getuid() == 0:  # which PostgreSQL refuses to run as
        user = pwd.getpwnam("postgres")
        os.chown(folder, user.pw_uid, user.pw_gid)
        demote = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    run = {"check": True, "cwd": folder, "capture_output": True, **demote}
    subprocess.run([_postgres("initdb"), "-D", folder / "data", "-A", "trust", "-U", "mlflow"], **run)
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1"
    start = [_postgres("pg_ctl"), "-D", folder / "data", "-o", options, "-l", folder / "log", "-w", "start"]
    subprocess.run(start, check=True, cwd=folder, stdout=subprocess.DEVNULL, **demote)

    def database(name):
        subprocess.run([_postgres("createdb"), "-h", "127.0.0.1", "-p", str(port), "-U", "mlflow", name], **run)
        return f"postgresql://mlflow@127.0.0.1:{port}/{name}"

    yield database
    subprocess.run([_postgres("pg_ctl"), "-D", folder / "data", "-m", "immediate", "stop"], **run)
    shutil.rmtree(folder)


def _postgres(program: str) -> Path | None:
    """Debian keeps these away from PATH."""
    return max(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"), default=None)


@pytest.fixture(scope="session")
def slurm(debian, tmp_path_factory):
    """A private Slurm with two nodes of two pretended A40 each; its configuration file."""
    folder = tmp_path_factory.mktemp("slurm")
    ports = {"CTLD_PORT": free_port(), "D_PORT0": 20000 + free_port() % 20000}
    env = os.environ | {"NODES": "2"} | {name: str(port) for name, port in ports.items()}

    def up():
        started = subprocess.run([SCRIPTS / "slurm_up.sh", folder], env=env, capture_output=True, text=True)
        if started.returncode:
            pytest.skip(f"Slurm does not start here: {started.stderr.strip()[-300:]}")

    up()
    yield Slurm(folder, up)
    subprocess.run([SCRIPTS / "slurm_down.sh", folder, "--purge"], check=False)


class Slurm:
    """The controller and its commands."""

    def __init__(self, folder, up):
        self.folder, self.up, self.env = folder, up, {"SLURM_CONF": str(folder / "slurm.conf")}

    def __call__(self, *words):
        done = subprocess.run(words, env=os.environ | self.env, capture_output=True, text=True)
        return done.stdout

    def restart_controller(self):
        file = self.folder / "run" / "slurmctld.pid"
        controller = psutil.Process(int(file.read_text()))
        controller.terminate()
        # Nobody may be there to reap it.
        until(lambda: not controller.is_running() or controller.status() == psutil.STATUS_ZOMBIE, what="slurmctld ends")
        file.unlink()
        self.up()

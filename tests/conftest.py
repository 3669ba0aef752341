"""Fixtures: the packaged models and texts, a preset small enough for tests, and the project's commands."""

import gc
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import torch
import yaml
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from encoder_reduction.data import calibration, corpora
from encoder_reduction.data.tokenisation import tokenise
from encoder_reduction.models import checkpoints
from encoder_reduction.plan import presets
from encoder_reduction.reductions.observed import Batch

pytest_plugins = ["studies", "machines", "browser", "stores"]

# Side by side, test processes that take all processors each would wait for one another.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)

ROOT = Path(__file__).resolve().parents[1]
FAMILIES = ("bert", "roberta", "distilbert")

# What makes a run take seconds. Nothing is reported from it but that it works.
SMALL = {
    "max_train_examples": 32,
    "max_validation_examples": 32,
    "max_test_examples": 32,
    "calibration_examples": 16,
    "test_texts": 16,
    "min_repetitions": 2,
    "time_budget": 0.2,
    "fixed_lengths": [16],
}

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests of one file go to one process, and so share its fixtures; those of one store, too.

    Those that start commands or need what Debian brings are marked, so that `make quick` leaves them out. What takes
    long begins first, so that no process is left with it at the end.
    """
    takes: dict[str, int] = {}
    for item in items:
        if {"command", "debian"} & set(item.fixturenames):
            item.add_marker("outside")
        group = "store" if "session_store" in item.fixturenames else item.path.stem
        item.add_marker(pytest.mark.xdist_group(group))
        long = ("slow" in item.keywords) + 2 * ("outside" in item.keywords)
        takes[group] = max(takes.get(group, 0), long)
    items.sort(key=lambda item: -takes[item.get_closest_marker("xdist_group").args[0]])


def pytest_collection_finish() -> None:
    """The modules that are loaded now stay: no collection of garbage, of which a training makes many, looks at them."""
    gc.collect()
    gc.freeze()


class Lazily(dict):
    """Makes the value of a key when it is asked for."""

    def __init__(self, make: Callable[[str], Any]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, key: str) -> Any:
        return self.setdefault(key, self._make(key))


@pytest.fixture(scope="session")
def packaged() -> Mapping[str, tuple[PreTrainedModel, PreTrainedTokenizerBase]]:
    models = presets.load("packaged")[0].models
    return Lazily(lambda family: checkpoints.load(models[family], seed=1))


@pytest.fixture(scope="session")
def movies():
    return corpora.load(presets.load("packaged")[0].source)


@pytest.fixture(scope="session")
def batches(packaged, movies) -> Mapping[str, list[Batch]]:
    """96 real training texts per family, as calibration batches."""

    def make(family: str) -> list[Batch]:
        _, tokenizer = packaged[family]
        tokenised = tokenise(corpora.draw(movies["train"], 96, seed=0), tokenizer, max_length=64)
        return calibration.batches(tokenised, tokenizer, 96, seed=0, device=torch.device("cpu"))

    return Lazily(make)


@pytest.fixture(scope="session")
def small_preset(tmp_path_factory) -> Callable[..., Path]:
    """Writes the packaged preset with the values of SMALL, for some of its models."""

    def write(
        name: str,
        models: tuple[str, ...] = FAMILIES,
        recovery: bool = False,
        equal_budgets: Mapping[str, Any] = MappingProxyType({}),
    ) -> Path:
        values = yaml.safe_load((presets.PRESETS / "packaged.yaml").read_text())
        values["name"] = name
        values["models"] = {model: values["models"][model] for model in models}
        values["transfer"] = {"learning_rate": 1e-4}
        values |= {} if recovery else {"recovery": None}
        values["equal_budgets"] = dict(equal_budgets)
        sections = [values["fine_tuning"], values["profiling"], *values["reductions"].values()]
        for section in sections:
            section.update({key: value for key, value in SMALL.items() if key in section})
        path = tmp_path_factory.mktemp("presets") / f"{name}.yaml"
        path.write_text(yaml.safe_dump(values))
        return path

    return write


@pytest.fixture(scope="session")
def command() -> Command:
    """Runs a command with this interpreter's environment first on PATH; never raises on its exit status."""

    def run(*words: str | Path, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(word) for word in words], cwd=cwd, env=environment(**(env or {})), capture_output=True, text=True
        )

    return run


def environment(**more: str) -> dict[str, str]:
    """This process's environment without MLflow's own variables, plus some."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    return {**kept, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}", **more}

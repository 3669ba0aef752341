"""Inference in a process of its own: what it measures, and how it ends."""

import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager

import psutil
import pytest
import torch

from conftest import ROOT
from encoder_reduction.profiling.inference import Workload
from encoder_reduction.runs.apart import process_apart

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs fork")

CPU = torch.device("cpu")
LEAVING = """
import os, signal, sys, torch
sys.path.insert(0, sys.argv[1])
from encoder_reduction.runs.apart import process_apart
with process_apart(torch.device("cpu")):
    import psutil
    print(psutil.Process().children()[0].pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def texts():
    ids = torch.randint(5, 50, (8, 16), generator=torch.Generator().manual_seed(0))
    return Workload("texts", 8, [{"input_ids": ids, "attention_mask": torch.ones_like(ids)}])


def measured(apart, folder, precision, texts):
    """The folder goes meanwhile, as when it is logged."""
    apart.ask(folder, precision, texts, folder.with_name(f"{folder.name}-beside"))
    shutil.rmtree(folder)
    return apart.answer()


@contextmanager
def with_its_process():
    """The process apart and what psutil says of it, whatever else this process has started before."""
    before = psutil.Process().children()
    with process_apart(CPU) as apart:
        (child,) = (each for each in psutil.Process().children() if each not in before)
        yield apart, child


def folder_of(model, tokenizer, folder):
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_network_needs_its_weights_and_little_more(packaged, tmp_path, texts):
    """And the same when it is measured again."""
    whole, tokenizer = packaged["bert"]
    weights = sum(parameter.numel() for parameter in whole.parameters()) * 2 / 1e9
    found = []
    for again in range(2):
        with process_apart(CPU) as apart:
            found.append(measured(apart, folder_of(whole, tokenizer, tmp_path / str(again)), "bf16", texts))
    assert not list(tmp_path.iterdir())
    assert {each.kind for each in found} == {"apart"}
    first, again = (each.of_network for each in found)
    assert again == pytest.approx(first, abs=0.003)
    assert weights < first < weights + 0.05
    assert found[0].peak > first  # the libraries' share


def test_a_process_that_was_killed_is_said_and_does_without(packaged, tmp_path, texts, caplog):
    with with_its_process() as (apart, child):
        child.kill()
        child.wait()
        assert measured(apart, tmp_path, "bf16", texts) is None
    assert "was killed" in caplog.text


def test_on_a_gpu_there_is_none(texts, tmp_path):
    before = psutil.Process().children()
    with process_apart(torch.device("cuda")) as apart:
        assert psutil.Process().children() == before
        assert measured(apart, tmp_path, "fp16", texts) is None


def test_it_ends_with_the_block_and_with_a_parent_that_is_killed():
    with with_its_process() as (_, child):
        assert child.is_running()
    assert not child.is_running()
    words = [sys.executable, "-c", LEAVING, str(ROOT / "src")]
    left = subprocess.run(words, capture_output=True, text=True, env=dict(os.environ))
    assert left.returncode == -signal.SIGKILL
    psutil.wait_procs([psutil.Process(int(left.stdout))] if psutil.pid_exists(int(left.stdout)) else [], timeout=60)
    assert not psutil.pid_exists(int(left.stdout)) or psutil.Process(int(left.stdout)).status() == "zombie"


def test_it_is_not_disturbed_by_what_the_parent_has_computed(packaged, tmp_path, texts):
    """The parent has used its threads, which a forked process does not have."""
    torch.set_num_threads(max(2, torch.get_num_threads()))
    torch.randn(1500, 1500) @ torch.randn(1500, 1500)
    model, tokenizer = packaged["bert"]
    with process_apart(CPU) as apart:
        found = measured(apart, folder_of(model, tokenizer, tmp_path / "m"), "fp32", texts)
    assert found.of_network > sum(parameter.numel() for parameter in model.parameters()) * 4 / 1e9

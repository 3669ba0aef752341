import os
from types import SimpleNamespace

import pytest
import torch

from encoder_reduction.launching.local import _shares
from encoder_reduction.profiling import nvidia
from encoder_reduction.runs import paired, run
from encoder_reduction.tracking import opening

VARIABLE = "CUDA_VISIBLE_DEVICES"


@pytest.fixture
def four_gpus(monkeypatch):
    """A machine whose CUDA reads its variable as CUDA's programming guide says; makes the variable this."""

    def count():
        named = os.environ.get(VARIABLE)
        if named is None:
            return 4
        seen = []
        for entry in map(str.strip, named.split(",")):
            known = entry in ("0", "1", "2", "3") or entry.startswith(("GPU-", "MIG-"))
            if not known or entry in seen or (seen and entry.startswith("MIG-")):
                break
            seen.append(entry)
        return len(seen)

    def visible(value):
        monkeypatch.delenv(VARIABLE, raising=False)
        if value is not None:
            monkeypatch.setenv(VARIABLE, value)

    monkeypatch.setattr(torch.cuda, "device_count", count)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count() > 0)
    return visible


@pytest.mark.parametrize(
    ("visible", "seen", "taken"),
    [
        (None, ["0", "1", "2", "3"], "0"),
        ("2,3", ["2", "3"], "2"),
        ("3", ["3"], "3"),
        ("1, 7,2", ["1"], "1"),
        ("GPU-8932f937, GPU-11bc0f2a", ["GPU-8932f937", "GPU-11bc0f2a"], "GPU-8932f937"),
        ("MIG-d2d62e25,MIG-89c850dc", ["MIG-d2d62e25"], "MIG-d2d62e25"),
        ("", [], ""),
        ("-1", [], "-1"),
    ],
)
def test_a_run_takes_the_first_gpu_that_it_can_see(four_gpus, visible, seen, taken):
    four_gpus(visible)
    assert nvidia.visible_gpus() == seen
    nvidia.take_one_gpu()
    assert os.environ[VARIABLE] == taken
    assert torch.cuda.device_count() == min(len(seen), 1)


def test_runs_side_by_side_have_a_gpu_each(four_gpus):
    four_gpus("GPU-8932f937,2, 3")
    assert [share.gpu for share in _shares(2, nvidia.visible_gpus())] == ["GPU-8932f937", "2"]
    assert [share.gpu for share in _shares(1, nvidia.visible_gpus())] == ["GPU-8932f937"]
    four_gpus("")
    assert [(share.gpu, share.threads) for share in _shares(1, nvidia.visible_gpus())] == [(None, None)]


@pytest.mark.parametrize("execute", [lambda: run.execute(None), lambda: paired.execute(None, [])])
def test_a_run_has_one_gpu_before_it_does_anything_else(four_gpus, monkeypatch, execute):
    four_gpus("2,3")
    found = []

    def opened(*arguments):
        found.append(os.environ[VARIABLE])
        raise InterruptedError

    monkeypatch.setattr(opening, "open_run", opened)
    with pytest.raises(InterruptedError):
        execute()
    assert found == ["2"]


def test_a_run_says_which_gpu_it_has_taken(four_gpus, monkeypatch):
    four_gpus("2")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="8932f937"))
    assert nvidia.visible_device(torch.device("cuda")) == {"visible_device": "2 (GPU-8932f937)"}
    assert nvidia.visible_device(torch.device("cpu")) == {}

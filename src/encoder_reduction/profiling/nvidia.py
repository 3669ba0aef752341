"""A GPU as its driver sees it, whoever uses it; every answer is ``None`` or empty where there is no driver."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

GB = 1e9
_VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class MemoryReader:
    """Reads how much of a GPU's memory is in use, by all processes together.

    Attributes:
        source: ``GPUtil`` or ``NVML``.
        read: GB (1e9 bytes) in use now.
    """

    source: str
    read: Callable[[], float]


def visible_gpus() -> list[str]:
    """The GPUs that this process can see, as CUDA_VISIBLE_DEVICES names them: by index, or by UUID of a GPU or of MIG.

    CUDA sees the entries before the first that names no GPU, and of several MIG instances the first.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    named = os.environ.get(_VISIBLE)
    entries = [entry.strip() for entry in named.split(",")] if named else list(map(str, range(count)))
    return entries[:count]


def take_one_gpu() -> None:
    """Leave this process the first GPU that it can see; without effect once CUDA has started.

    Where several are visible, transformers' Trainer would spread each batch over all of them and multiply it.
    """
    for gpu in visible_gpus()[:1]:
        os.environ[_VISIBLE] = gpu


def visible_device(device: torch.device) -> dict[str, str]:
    """The tag ``visible_device``: which GPU this process has taken, as CUDA_VISIBLE_DEVICES says and by its UUID."""
    if device.type != "cuda":
        return {}
    return {"visible_device": f"{', '.join(visible_gpus())} ({uuid(device)})"}


def uuid(device: torch.device) -> str:
    """The GPU's identifier, the same for torch, NVML and nvidia-smi whatever CUDA_VISIBLE_DEVICES says."""
    return f"GPU-{torch.cuda.get_device_properties(device).uuid}"


def nvml_handle(device: torch.device) -> tuple[Any, Any] | None:
    """The module ``pynvml`` and its handle of a GPU, or ``None`` on a CPU and where NVML cannot be used."""
    if device.type != "cuda":
        return None
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        return pynvml, pynvml.nvmlDeviceGetHandleByUUID(uuid(device))
    except pynvml.NVMLError:
        return None


def nvml(device: torch.device, query: Callable[[Any, Any], Any]) -> Any:
    """What NVML answers to ``query(pynvml, handle)``, ``None`` where it does not know."""
    handle = nvml_handle(device)
    if handle is None:
        return None
    try:
        return query(*handle)
    except handle[0].NVMLError:
        return None


def memory_reader(device: torch.device) -> MemoryReader | None:
    """A reader through GPUtil, or through NVML where GPUtil fails (it calls nvidia-smi and imports distutils)."""
    if device.type != "cuda":
        return None
    for source, read in (("GPUtil", _gputil_memory(uuid(device))), ("NVML", _nvml_memory(device))):
        try:
            read()
        except Exception:  # Whatever keeps this source from answering, the next one is asked.
            continue
        return MemoryReader(source, read)
    return None


def _gputil_memory(identifier: str) -> Callable[[], float]:
    def read() -> float:
        import GPUtil

        return next(gpu.memoryUsed for gpu in GPUtil.getGPUs() if gpu.uuid == identifier) * 2**20 / GB

    return read


def _nvml_memory(device: torch.device) -> Callable[[], float]:
    handle = nvml_handle(device)

    def read() -> float:
        pynvml, gpu = handle
        return pynvml.nvmlDeviceGetMemoryInfo(gpu).used / GB

    return read

"""Recovery by distillation: a reduced model learns from the fine-tuned baseline as well as from the labels.

Hinton, Vinyals & Dean 2015, "Distilling the Knowledge in a Neural Network", section 2.
"""

from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from torch.nn.functional import kl_div, log_softmax

from ..data import cache

TEACHER_LOGITS = "teacher_logits"


def loss(
    labelled: torch.Tensor, student: torch.Tensor, teacher: torch.Tensor, temperature: float, weight: float
) -> torch.Tensor:
    """``(1 - weight) * labelled + weight * temperature^2 * KL(teacher || student)`` at the temperature.

    Args:
        labelled: the loss against the labels, a scalar.
        student, teacher: logits ``(batch, classes)``.
        temperature: what both logits are divided by; the square keeps the gradients' size.
        weight: share of the teacher.
    """
    student, teacher = (log_softmax(logits.float() / temperature, dim=-1) for logits in (student, teacher))
    divergence = kl_div(student, teacher, reduction="batchmean", log_target=True)
    return (1 - weight) * labelled + weight * temperature**2 * divergence


def cached_logits(teacher_run: str, data_fingerprint: str) -> np.ndarray | None:
    """A teacher's logits ``(examples, classes)`` on a training split, if an earlier run computed them."""
    file = _file(teacher_run, data_fingerprint)
    return np.load(file) if file.is_file() else None


def cache_logits(teacher_run: str, data_fingerprint: str, logits: np.ndarray) -> None:
    """Keep a teacher's logits for later runs; readers never see a half-written file."""
    file = _file(teacher_run, data_fingerprint)
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial.npy")
    np.save(partial, logits)
    partial.replace(file)


def with_teacher(train: Dataset, logits: np.ndarray) -> Dataset:
    """A tokenised training split with the teacher's logits beside each example."""
    return train.add_column(TEACHER_LOGITS, logits.astype(np.float32).tolist())


def _file(teacher_run: str, data_fingerprint: str) -> Path:
    return cache.directory() / "teacher-logits" / f"{teacher_run}-{data_fingerprint}.npy"

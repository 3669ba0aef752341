"""Recovery by distillation: a reduced model learns from a fine-tuned one as well as from the labels.

From its logits (Hinton, Vinyals & Dean 2015, "Distilling the Knowledge in a Neural Network", section 2), which are
computed once and cached, or from its hidden states as well (Jiao et al. 2020, "TinyBERT", section 3.1), for which the
teacher runs beside the student: those of IMDb's training texts would be two hundred gigabytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from torch.nn.functional import kl_div, log_softmax
from transformers import PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from ..data import cache
from ..plan.sections import Distillation

TEACHER_LOGITS = "teacher_logits"


@dataclass(frozen=True)
class Teacher:
    """A fine-tuned network that runs beside the one that was cut from it.

    Attributes:
        model: the teacher, which is not trained.
        layers: which of its layers the student has kept, ascending. What one of these hands on to the next is what
            the student's layer is to hand on, whatever lay between.
        basis: ``(hidden, hidden kept)`` the directions of the stream that the student has kept; ``None`` for all.
    """

    model: PreTrainedModel
    layers: list[int]
    basis: torch.Tensor | None

    def targets(self, hidden_states: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
        """What each of the student's layers is to give, of the teacher's hidden states, those of the embeddings first.

        All are ``(batch, tokens, hidden)``.
        """
        after = [*self.layers[1:], len(hidden_states) - 1]
        chosen = [hidden_states[index] for index in after]
        return chosen if self.basis is None else [each @ self.basis for each in chosen]


def hidden_loss(student: Sequence[torch.Tensor], targets: Sequence[torch.Tensor], mask: torch.Tensor) -> torch.Tensor:
    """The mean over the layers of the squared error, in units of the variance of the layer's target.

    Args:
        student, targets: of each layer, ``(batch, tokens, hidden)``.
        mask: ``(batch, tokens)``, 0 where a text is padded.
    """
    tokens = mask.bool()
    losses = []
    for given, wanted in zip(student, targets, strict=True):
        given, wanted = given[tokens].float(), wanted[tokens].float()
        losses.append((given - wanted).square().mean() / wanted.var())
    return torch.stack(losses).mean()


def loss(labelled: torch.Tensor, student: torch.Tensor, teacher: torch.Tensor, settings: Distillation) -> torch.Tensor:
    """``(1 - weight) * labelled + weight * temperature^2 * KL(teacher || student)`` at the temperature.

    Args:
        labelled: the loss against the labels, a scalar.
        student, teacher: logits ``(batch, classes)``.
        settings: ``temperature``, what both logits are divided by, whose square keeps the gradients' size, and
            ``distill_weight``, the share of the teacher.
    """
    temperature, weight = settings.temperature, settings.distill_weight
    student, teacher = (log_softmax(logits.float() / temperature, dim=-1) for logits in (student, teacher))
    divergence = kl_div(student, teacher, reduction="batchmean", log_target=True)
    return (1 - weight) * labelled + weight * temperature**2 * divergence


def loss_beside(
    teacher: Teacher, settings: Distillation, inputs: dict[str, torch.Tensor], student: SequenceClassifierOutput
) -> torch.Tensor:
    """:func:`loss`, and with the same share, times ``hidden_weight``, that of the hidden states.

    Args:
        teacher: runs on the same inputs.
        settings: temperature and weights.
        inputs: what the student was given, labels included.
        student: its outputs, hidden states included.
    """
    with torch.no_grad():
        taught = teacher.model(**inputs, output_hidden_states=True)
    hidden = hidden_loss(student.hidden_states[1:], teacher.targets(taught.hidden_states), inputs["attention_mask"])
    logits = loss(student.loss, student.logits, taught.logits, settings)
    return logits + settings.distill_weight * settings.hidden_weight * hidden


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

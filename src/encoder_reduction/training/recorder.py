"""What a training says while it is under way: its curves, its time, its checkpoints."""

import math
import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import ProgressCallback, TrainerCallback, TrainerState

from ..errors import STOP, UserError
from .pieces import Pieces, Record

OnLog = Callable[[dict[str, float], int], None]
StopRequested = Callable[[], bool]
# The curves of a run.
CURVES = (
    "train_loss",
    "learning_rate",
    "epoch_validation_loss",
    "epoch_validation_accuracy",
    "epoch_validation_f1",
)
# Points of a learning curve that are worth keeping; each costs the GPU one synchronisation.
_LOGGED_POINTS = 200


class NonFiniteLossError(UserError):
    """Training diverged; ``recovered`` says whether the model has the weights of an earlier epoch again."""

    recovered = False


class ProgressBar(ProgressCallback):
    """The Trainer's progress bar without its lines of figures, which are in MLflow."""

    def on_log(self, *args: Any, **kwargs: Any) -> None:
        """Say nothing."""


def best_evaluation(state: TrainerState) -> dict[str, float]:
    """The Trainer's entry of the epoch that was most accurate on the validation split; of equals, the first."""
    evaluations = [entry for entry in state.log_history if "eval_accuracy" in entry]
    return max(evaluations, key=lambda entry: entry["eval_accuracy"])


class Recorder(TrainerCallback):
    """Keeps the record: adds up training time, logs the curves, and says when to save a checkpoint or the weights."""

    def __init__(
        self, record: Record, pieces: Pieces, on_log: OnLog, steps_per_epoch: int, stop: StopRequested
    ) -> None:
        self._record, self._pieces, self._on_log, self._stop = record, pieces, on_log, stop
        self._steps_per_epoch = steps_per_epoch
        self._since: float | None = None
        self._learning_rate = 0.0

    def _resume(self) -> None:
        self._since = _now()

    def _pause(self) -> None:
        """Evaluation, checkpoints and logging are no training."""
        if self._since is not None:
            self._record.seconds += _now() - self._since
        self._since = None

    def on_epoch_begin(self, *args: Any, **kwargs: Any) -> None:
        """Training time runs."""
        self._resume()

    def on_optimizer_step(self, *args: Any, optimizer: Any, **kwargs: Any) -> None:
        """Note the learning rate of the step, which the schedule changes right after it."""
        self._learning_rate = optimizer.param_groups[0]["lr"]

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Log a point of the loss where one is due, and ask for a checkpoint where one is."""
        self._record.loss_steps += 1
        if state.global_step % max(1, state.max_steps // _LOGGED_POINTS) == 0:
            self._pause()
            self._log_loss(args, state)
            self._resume()
        # At an epoch's end its evaluation comes first.
        ends = state.global_step % self._steps_per_epoch == 0 or state.global_step == state.max_steps
        if self._wants_checkpoint() and not ends:
            self._pause()
            control.should_save = True

    def on_epoch_end(self, *args: Any, **kwargs: Any) -> None:
        """Training time stands still: evaluation follows, and maybe a checkpoint."""
        self._pause()
        self._record.order_state = None

    def on_evaluate(self, args: Any, state: Any, control: Any, model: Any, **kwargs: Any) -> None:
        """Keep an epoch's weights, if they are the best and more will follow; ask for a checkpoint where one is due."""
        if best_evaluation(state)["step"] == state.global_step < state.max_steps:
            self._pieces.save_best(self._record, state.global_step, model)
        control.should_save = self._wants_checkpoint()

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Complete the checkpoint, and leave where the process has been asked to."""
        within_epoch = self._since is None and state.global_step % self._steps_per_epoch
        self._pieces.save(self._record, state.global_step)
        if self._stop():
            STOP.leave()
        if within_epoch:
            self._resume()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **kwargs: Any) -> None:
        """Log an epoch's validation."""
        if "eval_loss" in logs:
            # Named apart from the kept weights' validation_accuracy, which MLflow would take for a point of the curve.
            curve = {f"epoch_validation_{key}": logs[f"eval_{key}"] for key in ("loss", "accuracy", "f1")}
            self._on_log(curve, state.global_step)

    def _wants_checkpoint(self) -> bool:
        return self._stop() or self._pieces.due

    def _log_loss(self, args: Any, state: Any) -> None:
        loss = self._record.take_loss()
        if not math.isfinite(loss):
            raise NonFiniteLossError(
                f"The training loss became {loss} at step {state.global_step};"
                f" lower learning_rate (now {args.learning_rate}) or set precision=fp32."
            )
        self._on_log({"train_loss": loss, "learning_rate": self._learning_rate}, state.global_step)


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()

"""How a command ends: the one exception that a user can mend, sentences for some of Python's, SIGTERM."""

import errno
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# The last two are torch's words for it.
_NO_SPACE = (
    "No space left on device", "disk is full", "Disk quota exceeded", "PytorchStreamWriter failed", "unexpected pos",
)  # fmt: skip


class UserError(Exception):
    """A condition that the user can mend; its message is the single sentence they read.

    The message names the offending value, what is allowed, and what to do. Entry points print it
    without a traceback and exit with status 1; anything else that escapes is a bug of ours.
    """


def explain(error: BaseException) -> str | None:
    """The sentence for an error that is the user's or the machine's, ``None`` for a bug of ours."""
    if isinstance(error, UserError):
        return str(error)
    text = str(error)
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if full or any(words in text for words in _NO_SPACE):
        where = getattr(error, "filename", None)
        return f"The disk is full{f' at {where}' if where else ''}: free some space and run the same command again."
    if type(error).__name__ == "OutOfMemoryError":  # torch's, which need not be imported to say so
        return "The GPU ran out of memory: give a smaller batch_size or max_length, or a GPU with nobody else on it."
    return None


def one_line(error: BaseException) -> str:
    """What another library says, without its line breaks."""
    return " ".join(str(error).split())


class Stop:
    """SIGTERM, by which ``mlflow run`` and Slurm stop a job: asked for, or not."""

    def __init__(self) -> None:
        self.requested = False
        self._deferred = False

    def leave(self) -> None:
        """End this process as ``sys.exit`` does; the open MLflow run is then marked KILLED."""
        sys.exit(128 + signal.SIGTERM)

    @contextmanager
    def deferred(self) -> Iterator[Callable[[], bool]]:
        """Within the block SIGTERM is noted only, and the block leaves at the next good moment.

        Yields:
            Whether it has been asked for.
        """
        self._deferred = True
        try:
            yield lambda: self.requested
        finally:
            self._deferred = False
        if self.requested:
            self.leave()

    def handle(self, *_: object) -> None:
        """The signal handler; Slurm may ask more than once, and leaving must not be disturbed."""
        if self.requested:
            return
        self.requested = True
        if not self._deferred:
            self.leave()


STOP = Stop()


def leave_in_order_when_stopped() -> None:
    """Let SIGTERM end this process in order: at once, or where training is under way, with a checkpoint."""
    signal.signal(signal.SIGTERM, STOP.handle)

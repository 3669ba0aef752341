"""How a command ends: the one exception that a user can mend, sentences for some of Python's, SIGTERM."""

import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

# The last two are torch's words for it.
_NO_SPACE = (
    "No space left on device", "disk is full", "Disk quota exceeded", "PytorchStreamWriter failed", "unexpected pos",
)  # fmt: skip
# A folder that nothing can be written to; the last two are its parent's: a file where a folder should be.
_NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)
# Where files are kept: the variable that chooses it, and what it is called where that is not set.
_KEPT_IN = {"ENCODER_REDUCTION_CACHE": "encoder-reduction", "HF_HOME": "huggingface"}
# What libraries raise of a file that is damaged, cut off, or other than it is called; by name, to import none of them.
_UNREADABLE = {
    "SafetensorError", "UnpicklingError", "ArrowInvalid", "ArrowNotImplementedError", "ArrowTypeError", "ParserError",
    "UnicodeDecodeError", "UnicodeEncodeError", "JSONDecodeError", "ScannerError", "DatasetGenerationError",
}  # fmt: skip


class UserError(Exception):
    """A condition that the user can mend; its message is the single sentence they read.

    The message names the offending value, what is allowed, and what to do. Entry points print it
    without a traceback and exit with status 1; anything else that escapes is a bug of ours.
    """


class OutOfReachError(UserError):
    """What was asked for cannot be had by any setting; its message says how far they go.

    Attributes:
        least: the share of the whole network that stays at the least.
    """

    def __init__(self, sentence: str, least: float) -> None:
        super().__init__(sentence, least)
        self.least = least

    def __str__(self) -> str:
        return str(self.args[0])


def explain(error: BaseException) -> str | None:
    """The sentence for an error that is the user's or the machine's, ``None`` for a bug of ours."""
    if isinstance(error, UserError):
        return str(error)
    text = str(error)
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if full or any(words in text for words in _NO_SPACE):
        file = getattr(error, "filename", None)
        where = f" at {os.fsdecode(file)}" if file else ""
        other = f", or set {variable} to another folder," if (variable := _variable_of(file)) else ""
        return f"The disk is full{where}: free some space{other} and run the same command again."
    if type(error).__name__ == "OutOfMemoryError":  # torch's, which need not be imported to say so
        smaller = "batch_size (or batch_tokens) or max_length"
        return f"The GPU ran out of memory: give a smaller {smaller}, or a GPU with nobody else on it."
    if isinstance(error, OSError) and error.errno in _NOT_WRITABLE and error.filename:
        return _not_writable(error)
    if reason := unreadable(error):
        where = next((file for each in _chain(error) if (file := getattr(each, "filename", None))), "A file")
        return _damaged(str(where), reason)
    return None


def unreadable(error: BaseException) -> str | None:
    """What a library says of a file that it cannot read, however it was wrapped; ``None`` for any other error."""
    if not (isinstance(error, OSError | ValueError | RuntimeError) or type(error).__name__ in _UNREADABLE):
        return None  # A bug of ours that came up while such an error was handled.
    found = (each for each in _chain(error) if type(each).__name__ in _UNREADABLE)
    return next((f"{type(each).__name__}: {one_line(each).rstrip('.')}" for each in found), None)


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Within the block a file is read; what libraries say of a damaged one becomes a sentence that names it.

    Raises:
        UserError: it is damaged.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if reason := unreadable(error):
            raise UserError(_damaged(what, reason)) from error
        raise


def _damaged(what: str, reason: str) -> str:
    return f"{what} could not be read ({reason}): it is damaged, cut off, or of another kind than its name says."


def _not_writable(error: OSError) -> str:
    variable = _variable_of(error.filename)
    what = f"set {variable} to a folder that can be" if variable else "give another place, or change who may"
    return f"{os.fsdecode(error.filename)} cannot be written ({error.strerror}): {what}."


def _variable_of(file: str | bytes | None) -> str | None:
    """The variable that chooses where a file is kept."""
    path = Path(os.fsdecode(file)).absolute() if isinstance(file, str | bytes) else None
    for variable, folder in _KEPT_IN.items() if path else ():
        chosen = os.environ.get(variable)
        if path.is_relative_to(Path(chosen).expanduser().absolute()) if chosen else folder in path.parts:
            return variable
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and those that it was raised from or while handling."""
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


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

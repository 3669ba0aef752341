"""What outlives the process of a run: its training checkpoints, and what the tracking server has not taken yet."""

import shutil
import time
from pathlib import Path

from filelock import FileLock, Timeout

from ..data import cache
from ..errors import UserError

STORE_FILE = "store"


class RunFolder:
    """A run's folder in the cache; removed when the run has ended and all that it said has arrived.

    Attributes:
        had_checkpoints: whether an earlier process has left any.

    On a cluster the cache lies on a file system that all nodes share, so a run may go on elsewhere.
    """

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.path = _root() / run_id
        self.path.mkdir(parents=True, exist_ok=True)
        self.had_checkpoints = self.has_checkpoints()
        self._lock = FileLock(self.path.with_suffix(".lock"))

    @property
    def checkpoints(self) -> Path:
        """Where training keeps what it goes on from."""
        return self.path / "checkpoints"

    @property
    def search(self) -> Path:
        """Where a search for sizes keeps what it knows already."""
        return self.path / "search"

    def has_checkpoints(self) -> bool:
        """Whether the run can go on from somewhere, in its training or in a search before it."""
        return _goes_on(self.path)

    @property
    def outbox(self) -> Path:
        """Where messages to the tracking server wait."""
        return self.path / "outbox"

    def messages(self) -> list[Path]:
        """The messages that have not arrived, in order."""
        return sorted(path for path in self.outbox.glob("*") if path.name.isdigit())

    def size_and_age(self) -> tuple[float, float]:
        """1e6 bytes in it, and seconds since anything of it was written."""
        files = [path.stat() for path in self.path.rglob("*") if path.is_file()]
        latest = max((file.st_mtime for file in files), default=self.path.stat().st_mtime)
        return sum(file.st_size for file in files) / 1e6, time.time() - latest

    def belongs_to(self, store: str) -> bool:
        """Whether the run is one of this tracking store."""
        address = self.path / STORE_FILE
        return address.is_file() and address.read_text() == store

    def claim(self) -> bool:
        """Take the folder for this process; ``False`` where another process is carrying out the run."""
        try:
            self._lock.acquire(blocking=False)
        except Timeout:
            return False
        return True

    def claim_or_refuse(self) -> None:
        """Take the folder for this process.

        Raises:
            UserError: another process is carrying out the run.
        """
        if not self.claim():
            raise UserError(f"Run {self.run_id} is being carried out by another process: wait for it, or stop it.")

    def release(self, keep: bool) -> None:
        """Give the folder back, and remove it unless there is something to keep in it."""
        if not keep:
            shutil.rmtree(self.path, ignore_errors=True)
        self._lock.release()
        if not keep:
            Path(self._lock.lock_file).unlink(missing_ok=True)


def has_checkpoints(run_id: str) -> bool:
    """Whether a run can go on from somewhere."""
    return _goes_on(_root() / run_id)


def _goes_on(path: Path) -> bool:
    return any((path / kept).is_dir() for kept in ("checkpoints", "search"))


def all_folders() -> list[RunFolder]:
    """The folders that ended processes have left, and those of running ones."""
    return [RunFolder(path.name) for path in sorted(_root().glob("*")) if path.is_dir()]


def _root() -> Path:
    return cache.directory() / "runs"

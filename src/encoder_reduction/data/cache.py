"""Where fetched text and computed logits are kept between runs."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

VARIABLE = "ENCODER_REDUCTION_CACHE"


def directory() -> Path:
    """The folder that ``ENCODER_REDUCTION_CACHE`` names, or one in the user's cache directory."""
    if chosen := os.environ.get(VARIABLE):
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "encoder-reduction"


def made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """A folder that is made where it is not there yet; of processes that start at once, the others wait for the first.

    Args:
        folder: renamed into place, so that a folder that is there is whole.
        make: given the path that it writes to.
    """
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            if not folder.is_dir():
                partial = folder.with_suffix(".partial")
                shutil.rmtree(partial, ignore_errors=True)
                make(partial)
                partial.rename(folder)
    return folder

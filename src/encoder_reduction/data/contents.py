"""What files hold, as a digest: each file is read once, and again when its size, times or place have changed."""

import hashlib
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from . import cache

# A file may change once more within the tick of its file system's clock, so what has just changed is not remembered.
_SETTLED_NS = 2_000_000_000


def digest(files: Mapping[str, Path]) -> str:
    """A digest of named files; where they lie does not count.

    A change counts as seen when the kernel has dated it: the time of the last change of the inode cannot be set back,
    as that of the contents can.
    """
    whole = hashlib.sha256()
    for name, path in sorted(files.items()):
        whole.update(f"{name}\0{_of_file(path)}\0".encode())
    return whole.hexdigest()[:16]


def _of_file(path: Path) -> str:
    note = cache.directory() / "contents" / hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:24]
    seen = _seen(path)
    with suppress(OSError):  # The cache only saves time here.
        kept, _, known = note.read_text().rpartition(" ")
        if kept == seen:
            return known
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if _seen(path) == seen and time.time_ns() - path.stat().st_ctime_ns > _SETTLED_NS:
        with suppress(OSError):
            note.parent.mkdir(parents=True, exist_ok=True)
            partial = note.with_suffix(f".{os.getpid()}.partial")
            partial.write_text(f"{seen} {found}")
            partial.replace(note)
    return found


def _seen(path: Path) -> str:
    stat = path.stat()
    return f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns} {stat.st_ino}"

"""The queue of Slurm: which jobs of this user wait or run."""

import shutil
import subprocess
from dataclasses import dataclass

from ..errors import UserError


@dataclass(frozen=True)
class Queued:
    """A job that has not ended.

    Attributes:
        state: Slurm's word for it, such as ``PENDING``.
        reason: why it does not run yet.
    """

    state: str
    reason: str


def queue() -> dict[str, Queued]:
    """This user's jobs that have not ended, by id; none where there is no Slurm.

    Raises:
        UserError: the controller does not answer.
    """
    if shutil.which("squeue") is None:
        return {}
    words = ["squeue", "--me", "--noheader", "--array", "--format=%i|%T|%r"]
    listed = subprocess.run(words, capture_output=True, text=True)
    if listed.returncode:
        raise UserError(
            f"Slurm's queue cannot be read, so what is under way is not known ({' '.join(listed.stderr.split())}):"
            " start the same command again once 'squeue' answers."
        )
    rows = [line.split("|", 2) for line in listed.stdout.splitlines()]
    return {number: Queued(state, reason) for number, state, reason in rows}

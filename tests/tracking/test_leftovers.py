"""What interrupted runs leave in the cache is named, and removed where asked and nobody needs it."""

import os
import sys
import time

import pytest

from conftest import ROOT
from encoder_reduction.data import cache
from encoder_reduction.tracking import opening
from encoder_reduction.tracking.run_folder import RunFolder


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """One that was interrupted three hours ago, one that has something to say, one that is being carried out."""
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    interrupted, unsaid, busy = made = [RunFolder(name) for name in ("interrupted", "unsaid", "busy")]
    for folder in made:
        folder.checkpoints.mkdir()
        (folder.checkpoints / "weights").write_bytes(bytes(3_000_000))
    then = time.time() - 3 * 3600
    os.utime(interrupted.checkpoints / "weights", (then, then))
    (unsaid.outbox / "00000001").mkdir(parents=True)
    assert busy.claim()
    yield made
    busy.release(keep=True)


def test_what_is_left_is_named_with_size_and_age(folders):
    assert opening.leftovers(clean=False) == [
        "interrupted: 3 MB, 3 hours old",
        "unsaid: 3 MB, 0 hours old, 1 messages wait for their tracking server",
    ]
    assert all(folder.checkpoints.is_dir() for folder in folders)


@pytest.mark.slow
def test_sync_removes_what_is_left_but_nothing_unsaid_and_nothing_of_a_run_that_goes_on(folders, command, tmp_path):
    env = {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/store.db", cache.VARIABLE: os.environ[cache.VARIABLE]}
    result = command(sys.executable, ROOT / "entry_points" / "sync.py", "--clean=true", cwd=tmp_path, env=env)
    assert result.returncode == 0, result.stderr
    assert "\n  interrupted: 3 MB, 3 hours old, removed\n" in result.stdout
    assert [folder.path.is_dir() for folder in folders] == [False, True, True]

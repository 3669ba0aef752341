"""The server that runs are forked from."""

import subprocess
import sys

import pytest

from conftest import ROOT

STARTS = """
import sys
sys.path.insert(0, sys.argv[1])
from encoder_reduction.launching import forking
forking.start_server()
assert "torch" not in sys.modules
process = forking.context().Process(target=exec, args=(sys.argv[2],))
process.start()
process.join()
sys.exit(process.exitcode)
"""
LOOKS = """
import threading
from encoder_reduction.tracking import fingerprints
from mlflow.utils import requirements_utils
assert fingerprints.of_code.cache_info().currsize == 1
assert requirements_utils._MODULES_TO_PACKAGES
assert threading.active_count() == 1
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_a_forked_process_finds_done_what_every_run_would_begin_with():
    """And the server has begun before its parent has imported anything."""
    words = [sys.executable, "-c", STARTS, str(ROOT / "src"), LOOKS]
    found = subprocess.run(words, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr

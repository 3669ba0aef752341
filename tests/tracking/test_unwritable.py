"""A cache that nothing can be written to: the run says so."""

import mlflow
import pytest

from encoder_reduction.data.cache import VARIABLE
from encoder_reduction.errors import explain
from encoder_reduction.tracking import opening


@pytest.mark.parametrize("opened_by", ["mlflow run", "a study"])
def test_the_run_is_failed_with_the_folder_and_the_variable(experiment_id, monkeypatch, tmp_path, opened_by):
    """The cache lies below a file, where even root makes no folder."""
    (tmp_path / "file").touch()
    monkeypatch.setenv(VARIABLE, str(tmp_path / "file" / "cache"))
    client = mlflow.MlflowClient()
    if opened_by == "mlflow run":
        monkeypatch.setenv("MLFLOW_RUN_ID", client.create_run(experiment_id).info.run_id)
    with pytest.raises(OSError, match="file") as error, opening.open_run(experiment_id=experiment_id):
        pass
    (run,) = client.search_runs([experiment_id])
    assert run.info.status == "FAILED"
    assert run.data.tags["error"] == explain(error.value)
    assert f"set {VARIABLE} to a folder that can be" in run.data.tags["error"]
    assert mlflow.active_run() is None

"""Models that were not chosen: their files are really gone, and who asks for one is told why."""

import mlflow
import pytest
from machines import tracked
from stores import finished, with_model

from encoder_reduction.data import cache
from encoder_reduction.errors import UserError
from encoder_reduction.tracking import logged_models, registry, store

pytestmark = pytest.mark.slow


def megabytes(folder):
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6


@pytest.fixture(params=["file", "server"])
def artifacts(request, tmp_path, monkeypatch):
    """A new store that this process logs to; where it keeps the files of models."""
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    if request.param == "server":
        with tracked(tmp_path):
            yield tmp_path / "files"
        return
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/store.db")
    mlflow.set_experiment(experiment_id=mlflow.create_experiment("file", str(tmp_path / "files")))
    yield tmp_path / "files"
    mlflow.set_experiment(experiment_id="0")  # in this store: the one before may be a server that is gone
    mlflow.set_tracking_uri(before)


def test_a_removed_model_leaves_no_file_and_says_what_removed_it(artifacts, packaged):
    _, tokenizer = packaged["bert"]
    kept, gone = finished(), finished(dim="heads")
    with_model(kept, tokenizer)
    alone = megabytes(artifacts)
    with_model(gone, tokenizer)
    note = "What was done.\n\n```python\nmlflow.pyfunc.load_model(...)\n```"
    mlflow.MlflowClient().set_tag(gone, "mlflow.note.content", note)
    freed = logged_models.remove_models(gone, "keep_models=best")
    said = mlflow.get_run(gone).data.tags["mlflow.note.content"]
    assert said == "What was done.\n\nIts model was removed by `keep_models=best`."
    assert freed == pytest.approx(alone, rel=1e-3)
    assert freed > 4
    assert megabytes(artifacts) == pytest.approx(alone)
    with (
        pytest.raises(UserError, match=f"The model of run {gone} was removed by keep_models=best; run it again"),
        store.downloaded_model(gone),
    ):
        pass
    with store.downloaded_model(kept) as folder:
        assert (folder / "model.safetensors").is_file()
    assert logged_models.remove_models(gone, "keep_models=best") == 0
    card = registry.Card("A model of one layer.", {"accuracy": "0.8"})
    assert registry.register_model("bert", "best", gone, card) is None
    assert registry.register_model("bert", "best", kept, card)
    assert registry.registered_runs() == {kept}

"""The models of runs: how one is logged, found again, and removed from the disk."""

import functools
import shutil
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import mlflow
from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.models.model import MLMODEL_FILE_NAME
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.types import ColSpec, Schema
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

from ..errors import UserError, one_line

# The tag of a run whose model was removed; its value says by what.
REMOVED = "model_removed"
EXAMPLE = "A wonderful film."

_SERVED_MODEL = Path(__file__).with_name("served_model.py")
_REQUIREMENTS = ("mlflow", "torch", "transformers", "pandas")


@dataclass(frozen=True)
class Entry:
    """What the MLflow UI shows of a model.

    Attributes:
        name: as ``roberta-hidden-384``.
        tags: what it is found by.
        params: of the run.
    """

    name: str
    tags: dict[str, str]
    params: dict[str, str]


def log_model(run_id: str, folder: Path, entry: Entry) -> str:
    """Log a Hugging Face folder so that pyfunc serves it and plain ``from_pretrained`` loads it.

    What is there of this run already is replaced: half a model, or that of a process which was killed later on.
    MLflow's own ``Model.log`` would copy the run's system metrics to the model, and the folder's place on this machine
    into its files.

    Returns:
        Its id.
    """
    client = mlflow.MlflowClient()
    for model in logged_models(run_id):
        client.delete_logged_model(model.model_id)
    model_id = client.create_logged_model(_experiment_of(run_id), entry.name, run_id, entry.tags, entry.params).model_id
    client.log_outputs(run_id, [LoggedModelOutput(model_id, step=0)])
    with TemporaryDirectory(prefix="encoder-reduction-") as temporary:
        place = Path(temporary) / "model"
        _write(Model(artifact_path=entry.name, run_id=run_id, model_id=model_id), folder, place)
        client.log_model_artifacts(model_id, str(place))
    client.finalize_logged_model(model_id, LoggedModelStatus.READY)
    return model_id


def rehearse() -> None:
    """Write a model of nothing, and throw it away.

    MLflow goes through all packages that are installed when a process writes its first, which takes half a second;
    processes that are forked afterwards know them.
    """
    with TemporaryDirectory(prefix="encoder-reduction-") as temporary:
        nothing = Path(temporary) / "huggingface"
        nothing.mkdir()
        _write(Model(), nothing, Path(temporary) / "model")


def _write(model: Model, folder: Path, place: Path) -> None:
    """A Hugging Face folder as a model that pyfunc serves.

    Args:
        model: what MLflow says of it; completed and written, too.
        folder: Hugging Face's.
        place: where to; made.
    """
    mlflow.pyfunc.save_model(
        str(place),
        mlflow_model=model,
        python_model=str(_SERVED_MODEL),
        artifacts={"huggingface": str(folder)},
        signature=_signature(),
        input_example={"text": EXAMPLE},
        pip_requirements=[f"{package}=={version(package)}" for package in _REQUIREMENTS],
    )
    flavor = model.flavors["python_function"]
    flavor["artifacts"]["huggingface"]["uri"] = "huggingface"
    flavor["model_code_path"] = _SERVED_MODEL.name
    model.save(str(place / MLMODEL_FILE_NAME))
    for compiled in list(place.rglob("__pycache__")):  # It was loaded while it was saved.
        shutil.rmtree(compiled)


def _signature() -> ModelSignature:
    """Texts in, labels with scores out."""
    outputs = Schema([ColSpec("string", "label"), ColSpec("double", "score")])
    signature = ModelSignature(Schema([ColSpec("string", "text")]), outputs)
    # The model itself looks at its input: MLflow would refuse a list of texts, as its column has no name.
    signature._is_signature_from_type_hint = True
    return signature


def logged_models(run_id: str) -> list[LoggedModel]:
    """The models that are in the store of a run, whole or not."""
    client = mlflow.MlflowClient()
    return list(client.search_logged_models([_experiment_of(run_id)], f"source_run_id = '{run_id}'"))


@functools.cache
def _experiment_of(run_id: str) -> str:
    return mlflow.MlflowClient().get_run(run_id).info.experiment_id


def latest_model(run_id: str) -> LoggedModel | None:
    """The model of a run that is whole; ``None`` if there is none."""
    ready = [model for model in logged_models(run_id) if model.status == LoggedModelStatus.READY]
    return max(ready, key=lambda model: model.creation_timestamp, default=None)


def remove_models(run_id: str, by: str) -> float:
    """Remove the models of a run with their files, which MLflow's own deletion leaves to the server's ``mlflow gc``.

    Args:
        run_id: the run, which stays and is tagged.
        by: what removes them, as a person asked for it.

    Returns:
        What has become free, in 1e6 bytes.

    Raises:
        UserError: the store does not let them be removed.
    """
    client, freed = mlflow.MlflowClient(), 0
    for model in logged_models(run_id):
        try:
            repository = get_artifact_repository(model.artifact_location)
            size = _bytes(repository)
            client.set_tag(run_id, REMOVED, by)
            _correct_note(client, run_id, by)
            # The entry goes last, so that what is broken off is found and removed another time.
            repository.delete_artifacts()
            client.delete_logged_model(model.model_id)
        except (MlflowException, OSError) as error:
            raise UserError(
                f"The model of run {run_id} at {model.artifact_location} could not be removed ({one_line(error)}):"
                " give keep_models=all, or a store whose files you may delete."
            ) from error
        freed += size
    return freed / 1e6


def _correct_note(client: mlflow.MlflowClient, run_id: str, by: str) -> None:
    """A run's description ends with how its model is loaded."""
    said, code, _ = client.get_run(run_id).data.tags.get(MLFLOW_RUN_NOTE, "").partition("```")
    if code:
        client.set_tag(run_id, MLFLOW_RUN_NOTE, f"{said}Its model was removed by `{by}`.")


def _bytes(repository: ArtifactRepository, folder: str | None = None) -> int:
    return sum(
        _bytes(repository, each.path) if each.is_dir else each.file_size or 0
        for each in repository.list_artifacts(folder)
    )

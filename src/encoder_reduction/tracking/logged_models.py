"""The models that runs have logged, and how the disk is freed of them."""

import mlflow
from mlflow.entities import LoggedModel
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from ..errors import UserError, one_line

# The tag of a run whose model was removed; its value says by what.
REMOVED = "model_removed"


def logged_models(run_id: str) -> list[LoggedModel]:
    """The models that are in the store of a run, whole or not."""
    client = mlflow.MlflowClient()
    experiment_id = client.get_run(run_id).info.experiment_id
    return list(client.search_logged_models([experiment_id], f"source_run_id = '{run_id}'"))


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


def _bytes(repository: ArtifactRepository, folder: str | None = None) -> int:
    return sum(
        _bytes(repository, each.path) if each.is_dir else each.file_size or 0
        for each in repository.list_artifacts(folder)
    )

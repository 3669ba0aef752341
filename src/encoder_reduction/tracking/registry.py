"""The MLflow Model Registry, and the pages of runs."""

import re

import mlflow
from mlflow.entities import LoggedModelStatus
from mlflow.exceptions import MlflowException

from .destination import EXPERIMENT
from .logged_models import logged_models


def run_url(run_id: str, experiment_id: str) -> str | None:
    """The page of a run, where the tracking store has pages."""
    uri = mlflow.get_tracking_uri()
    web = uri.startswith(("http://", "https://"))
    return f"{uri.rstrip('/')}/#/experiments/{experiment_id}/runs/{run_id}" if web else None


def alias_of(*parts: str) -> str:
    """What the registry calls a model that these words tell apart; MLflow takes no dots in it."""
    return re.sub(r"[^\w-]", "_", "-".join(parts))


def register_model(model: str, alias: str, run_id: str) -> str | None:
    """Point an alias of a model in the registry at what a run has logged; a run is registered once.

    Returns:
        The URI, such as ``models:/encoder-reduction-bert@best``; ``None`` if the run has no model.
    """
    client, name = mlflow.MlflowClient(), f"{EXPERIMENT}-{model}"
    ready = [model for model in logged_models(run_id) if model.status == LoggedModelStatus.READY]
    if not ready:
        return None
    model_id = max(ready, key=lambda model: model.creation_timestamp).model_id
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    known = client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'")
    version = known[0] if known else client.create_model_version(name, f"models:/{model_id}", run_id, model_id=model_id)
    client.set_registered_model_alias(name, alias, version.version)
    return f"models:/{name}@{alias}"


def registered_runs() -> set[str]:
    """The runs whose model the registry has, as any version of any name."""
    client, token, found = mlflow.MlflowClient(), None, set()
    while True:
        page = client.search_model_versions(page_token=token)
        found |= {version.run_id for version in page}
        token = page.token
        if not token:
            return found

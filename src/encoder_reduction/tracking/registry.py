"""The MLflow Model Registry."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS

from ..errors import UserError, one_line
from . import pages
from .destination import EXPERIMENT
from .logged_models import EXAMPLE, latest_model

_ABOUT = f"""**{{model}} made smaller.** Each version says what it is, how good, how fast, and which run it is from.

By their aliases: `best` is the best reduction on validation, `best-heads` and its like that of a dimension,
`best-latency-0_5` and its like what was chosen at a budget, `latency-0_5` and its like the latest of `compress`.

```python
mlflow.pyfunc.load_model("models:/{EXPERIMENT}-{{model}}@ALIAS").predict(["{EXAMPLE}"])
```
"""
# What descriptions of ours begin with; another is somebody's own, and stays.
_BEGINS = "**A reduced encoder.**"
# What a version is searched by, and its figures.
_IDENTITY = ("config", "dim", "checkpoint", "corpus", "preset", "seed", "budget")
_FIGURES = ("accuracy", "f1", "baseline_accuracy", "speed_up")


def alias_of(*parts: str) -> str:
    """What the registry calls a model that these words tell apart; MLflow takes no dots in it."""
    return re.sub(r"[^\w-]", "_", "-".join(parts))


@dataclass(frozen=True)
class Card:
    """What the registry says of one version.

    Attributes:
        description: what it is, how good, how fast, from which run; Markdown.
        tags: the same figures, to search for.
    """

    description: str
    tags: Mapping[str, str]


def card(paragraphs: Sequence[str], run: Mapping[str, Any], experiment_id: str, against: Mapping[str, float]) -> Card:
    """The card of a run's model.

    Args:
        paragraphs: what it is, how good and how fast.
        run: as :func:`.store.finished_runs` has it.
        experiment_id: where the run is.
        against: figures that hold it against the network that it was made of, where there are any.
    """
    page = pages.run(experiment_id, run["run_id"])
    link = f"From run [{run['name']}]({page}): its data, parameters, figures."
    tags = {name: str(run[name]) for name in _IDENTITY if pd.notna(run.get(name)) and run[name] != ""}
    tags |= {name: f"{value:.4g}" for name, value in {"accuracy": run["accuracy"], "f1": run["f1"], **against}.items()}
    return Card("\n\n".join([_BEGINS, *paragraphs, link]), tags | {"source_run": run["run_id"]})


def register_model(model: str, alias: str, run_id: str, card: Card) -> str | None:
    """Point an alias of a model in the registry at what a run has logged; a run is registered once.

    What the registry says of it is written anew each time, as figures may have been measured again; what somebody else
    has written stays.

    Returns:
        The URI, such as ``models:/encoder-reduction-bert@best``; ``None`` if the run has no model.
    """
    client, name = mlflow.MlflowClient(), f"{EXPERIMENT}-{model}"
    logged = latest_model(run_id)
    if logged is None:
        return None
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    about = _ABOUT.format(model=model)
    if (client.get_registered_model(name).description or about).startswith(about.partition(" Each")[0]):
        client.update_registered_model(name, about)
    known = client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'")
    version = (
        known[0]
        if known
        else client.create_model_version(name, f"models:/{logged.model_id}", run_id, model_id=logged.model_id)
    )
    if (version.description or _BEGINS).startswith(_BEGINS):
        client.update_model_version(name, version.version, card.description)
    for tag in {*_IDENTITY, *_FIGURES} & set(version.tags) - set(card.tags):
        client.delete_model_version_tag(name, version.version, tag)
    for tag, value in card.tags.items():
        client.set_model_version_tag(name, version.version, tag, value)
    client.set_registered_model_alias(name, alias, version.version)
    # The Models page of an experiment shows by this tag what is registered.
    registered = json.dumps([{"name": name, "version": version.version}])
    client.set_logged_model_tags(logged.model_id, {MLFLOW_MODEL_VERSIONS: registered})
    return f"models:/{name}@{alias}"


def registered_run(model: str, alias: str) -> str:
    """The run whose model an alias of the registry points at.

    Raises:
        UserError: the store has no registry, or that has no such model or alias.
    """
    client, name, uri = mlflow.MlflowClient(), f"{EXPERIMENT}-{model}", mlflow.get_registry_uri()
    try:
        known = [each.name for each in client.search_registered_models(f"name LIKE '{EXPERIMENT}-%'")]
    except MlflowException as error:
        reason = one_line(error)
        raise UserError(f"There is no model registry at {uri} ({reason}): name a store that has one.") from error
    if name not in known:
        there = ", ".join(sorted(known)) or "none yet"
        raise UserError(
            f"No model {name} is in the registry at {uri} (of its like: {there}): compare registers the best, compress"
            " what it makes."
        )
    aliases = client.get_registered_model(name).aliases
    if alias not in aliases:
        raise UserError(f"alias={alias} is not allowed: {name} has {', '.join(sorted(aliases)) or 'none'}.")
    return client.get_model_version(name, aliases[alias]).run_id


def registered_runs() -> set[str]:
    """The runs whose model the registry has, as any version of any name."""
    client, token, found = mlflow.MlflowClient(), None, set()
    while True:
        page = client.search_model_versions(page_token=token)
        found |= {version.run_id for version in page}
        token = page.token
        if not token:
            return found

"""Pages of the MLflow UI, and the views that they open with.

A page is what follows the server's address, such as ``#/experiments/1/models``, so that a description in MLflow can
link to it wherever it is read. Columns and charts cannot stand in an address: MLflow keeps them as a saved view, a
tag of the experiment, and the address names that. Those of the models' page it keeps nowhere.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

from .patience import impatient

# What `make ui` and `mlflow ui` serve, where the store itself has no pages.
_SERVED = "http://127.0.0.1:5000"
# Without it the UI opens on what it has for language models.
_TRAINING = "workflowType=machine_learning"
_VIEW_TAG = "mlflow.sharedViewState."
# The columns and how wide they are, after those that MLflow always shows.
_ALWAYS = {"attributes.`Run Name`": 260, "runDateAndNestInfo": 145, "duration": 75}
_COLUMNS = {
    "metrics.`accuracy`": 95, "metrics.`f1`": 85, "metrics.`inference_ms`": 110, "metrics.`speed_up`": 95,
    "metrics.`parameters`": 100, "metrics.`training_memory_gb`": 150, "metrics.`training_seconds`": 135,
    "tags.`model`": 85, "tags.`dim`": 85, "tags.`config`": 140, "tags.`seed`": 55,
}  # fmt: skip
_SIZES = ("num_hidden_layers", "num_attention_heads", "hidden_size", "intermediate_size")
_CHARTS, _EVERY_METRIC = "the-figures-that-matter", "every-metric"
# The UI shows when a view was made; one that is always the same is written once.
_MADE = 1795651200000
# What a run waits for a server that answers slowly; the next run asks again.
_SECONDS = 10

# What descriptions of ours begin with; another is somebody's own.
_BEGINS = "**Which part of an encoder can be cut?**"

_arranged: list[str] = []


def runs(experiment_id: str) -> str:
    """The finished baselines and reductions of an experiment, best first, with the columns that matter."""
    return f"#/experiments/{experiment_id}/runs?{_TRAINING}&viewStateShareKey=best-first"


def charts(experiment_id: str) -> str:
    """The same runs as charts: accuracy, accuracy over time, and sizes beside figures."""
    return f"{runs(experiment_id)}&compareRunsMode=CHART"


def transfers(experiment_id: str) -> str:
    """The finished transfers of an experiment, best first, with the same columns."""
    return f"#/experiments/{experiment_id}/runs?{_TRAINING}&viewStateShareKey=transfers"


def run(experiment_id: str, run_id: str) -> str:
    """One run."""
    return f"#/experiments/{experiment_id}/runs/{run_id}"


def compared(experiment_id: str, run_ids: Iterable[str]) -> str:
    """Some runs side by side."""
    chosen, where = (quote(json.dumps(ids, separators=(",", ":"))) for ids in (list(run_ids), [experiment_id]))
    return f"#/compare-runs?runs={chosen}&experiments={where}"


def models(experiment_id: str) -> str:
    """The models of an experiment."""
    return f"#/experiments/{experiment_id}/models?{_TRAINING}"


def version(name: str, number: str | int) -> str:
    """One version of a registered model."""
    return f"#/models/{quote(name, safe='')}/versions/{number}"


def address(page: str) -> str | None:
    """The address of a page, where the tracking store has pages."""
    uri = mlflow.get_tracking_uri()
    return f"{uri.rstrip('/')}/{page}" if uri.startswith(("http://", "https://")) else None


def arrange(experiment_id: str) -> None:
    """Save the views of an experiment that its pages open with, and let :func:`where_to_look` name these.

    Its description says how to read it, unless somebody has written another. A store that refuses keeps nobody from a
    run: the next one asks again.
    """
    client = mlflow.MlflowClient()
    try:
        with impatient(_SECONDS):
            known = client.get_experiment(experiment_id).tags
            said = _views() | {MLFLOW_RUN_NOTE: _how_to_read(experiment_id)}
            if not known.get(MLFLOW_RUN_NOTE, _BEGINS).startswith(_BEGINS):
                del said[MLFLOW_RUN_NOTE]
            for key, value in said.items():
                if known.get(key) != value:
                    client.set_experiment_tag(experiment_id, key, value)
        _arranged.append(experiment_id)
    except MlflowException:
        pass


def where_to_look() -> list[str]:
    """Lines for the person who started a command: where the runs are that it has made or looked at, if any."""
    if not _arranged:
        return []
    pages, server = {"Runs, best first": runs, "The same as charts": charts}, ""
    if address("") is None:
        own = Path(mlflow.get_tracking_uri().removeprefix("sqlite:///")).resolve() == Path("mlflow.db").resolve()
        server = f", once `{'make' if own else 'mlflow'} ui` serves {'them' if own else 'this store'}"
    found = {title: page(_arranged[-1]) for title, page in pages.items()}
    return [f"{title}{server}: {address(page) or f'{_SERVED}/{page}'}" for title, page in found.items()]


def _how_to_read(experiment_id: str) -> str:
    """The description of an experiment, as Markdown."""
    return f"""{_BEGINS} Each run takes an encoder whole or makes it smaller, fine-tunes it, and measures it.

- [Baselines and reductions, best first]({runs(experiment_id)}), [as charts]({charts(experiment_id)});
  [adapted to the second corpus]({transfers(experiment_id)}); [the models]({models(experiment_id)}).
- `accuracy`, `f1` and inference are of the test split; `validation_accuracy` is what selects. The answer is
  `report.html`, in the artifacts of the latest run called `compare/...` or `study/...`.
- Filter by tags, as `tags.dim = 'hidden' and tags.seed = '42'`: stage, model, dim, config, start, budget, preset,
  checkpoint, corpus, seed, device. What failed says why in its tag `error`.
"""


def _views() -> dict[str, str]:
    """The saved views of an experiment, as its tags."""
    finished = "metrics.accuracy > 0 and attributes.status = 'FINISHED' and tags.stage"
    return {
        f"{_VIEW_TAG}best-first": _view("Best first", f"{finished} != 'transfer'"),
        f"{_VIEW_TAG}transfers": _view("Adapted to the second corpus, best first", f"{finished} = 'transfer'"),
    }


def _view(name: str, chosen: str) -> str:
    """A saved view as the UI writes it: what is shown of which runs, in which order."""
    state = {
        "searchFilter": chosen,
        "orderByKey": "metrics.`accuracy`",
        "orderByAsc": False,
        "selectedColumns": list(_COLUMNS),
        "columnOrder": [*_ALWAYS, *_COLUMNS],
        "columnWidths": _ALWAYS | _COLUMNS,
        "runsHiddenMode": "SHOW_ALL",
        "compareRunSections": [
            {"uuid": _CHARTS, "name": "The figures that matter", "display": True, "isReordered": True},
            {"uuid": _EVERY_METRIC, "name": "Model metrics", "display": False, "isReordered": True},
        ],
        "isAccordionReordered": True,
        "compareRunCharts": [
            _chart("BAR", "Accuracy", metricKey="accuracy"),
            _chart("SCATTER", "Accuracy over inference time", xaxis=_axis("inference_ms"), yaxis=_axis("accuracy")),
            _chart("SCATTER", "Accuracy over parameters", xaxis=_axis("parameters"), yaxis=_axis("accuracy")),
            _chart(
                "PARALLEL", "Sizes, cost and accuracy",
                selectedParams=_SIZES, selectedMetrics=("inference_ms", "accuracy"), showAllRuns=True,
            ),
        ],
    }  # fmt: skip
    return json.dumps({"name": name, "createdAt": _MADE, "updatedAt": _MADE, "state": json.dumps(state)})


def _chart(kind: str, name: str, **what: Any) -> dict[str, Any]:
    shown = {"metricSectionId": _CHARTS, "deleted": False, "isGenerated": False, "runsCountToCompare": 100}
    return {"type": kind, "uuid": name, "displayName": name, **shown, **what}


def _axis(metric: str) -> dict[str, str]:
    return {"key": metric, "type": "METRIC"}

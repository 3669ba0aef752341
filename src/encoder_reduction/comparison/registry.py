"""Where the rows come from and where the chosen models are: runs, and the MLflow Model Registry."""

import pandas as pd

from ..tracking import Run, register_model, run_url


def registered_models(rows: pd.DataFrame) -> str:
    """Register the best reduction of each dimension and overall, per model, and say what they are called.

    The best overall has the highest validation accuracy of the reductions; of several seeds, the first
    is taken.

    Args:
        rows: the best configurations on the source corpus.
    """
    lines = []
    reduced = rows[rows["dim"].ne("none")]
    for model, own in reduced.groupby("model", sort=False):
        best = own.loc[own["validation_accuracy"].idxmax()]
        chosen = [("best", best), *((f"best-{row['dim']}", row) for _, row in own.iterrows())]
        for alias, row in chosen:
            uri = register_model(str(model), alias, next(iter(row["run_ids"].values())))
            if uri:
                lines.append(f"- `{uri}`: {row['config']}, test accuracy {row['accuracy']:.3f}")
    if not lines:
        return "None of the reductions has its model in the store."
    return "\n".join([*lines, "", "`mlflow artifacts download -u URI -d FOLDER` fetches one."])


def run_links(rows: pd.DataFrame, run: Run) -> str:
    """The MLflow runs behind each row, with links where the tracking store has pages."""
    lines = []
    for row in rows.to_dict("records"):
        stage = " adapted" if row["stage"] == "transfer" else ""
        links = (f"seed {seed} {_link(run_id, run.experiment_id)}" for seed, run_id in row["run_ids"].items())
        lines.append(f"- {row['checkpoint']} {row['config']}{stage}: {', '.join(links)}")
    return "\n".join(lines)


def _link(run_id: str, experiment_id: str) -> str:
    url = run_url(run_id, experiment_id)
    return f"[{run_id}]({url})" if url else f"`{run_id}`"

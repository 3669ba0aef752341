"""The chosen models under names that stay: the MLflow Model Registry."""

import pandas as pd

from ..tracking import register_model


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

"""Which finished runs count, and which configuration of each dimension is the best."""

import pandas as pd

from ..errors import UserError
from ..presets import DIMENSIONS, MODELS, Preset
from ..tracking import without_controls

_CONFIGURATION = ["stage", "model", "checkpoint", "dim", "config", "plan_fingerprint"]


def latest_runs(runs: pd.DataFrame, preset: str) -> pd.DataFrame:
    """The runs that count: of each plan and seed the latest finished one; controls and distilled models stay out.

    Raises:
        UserError: no run is left.
    """
    if not runs.empty and "stage" in runs:
        runs = runs[runs["stage"].isin(["baseline", "reduce", "transfer"])]
    if runs.empty:
        raise UserError(
            f"No finished run of preset={preset} is in this experiment: start the study, or name the experiment"
            " that has the runs with --experiment-name, or the tracking server in MLFLOW_TRACKING_URI."
        )
    return (
        without_controls(runs).sort_values("start_time", ascending=False).drop_duplicates(["plan_fingerprint", "seed"])
    )


def best_configurations(runs: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The baseline and the best configuration of each dimension, per model.

    Best by validation accuracy, averaged over the seeds of a configuration; the test split is only
    reported.

    Returns:
        The rows on the source corpus and on the target corpus: the configuration, the mean of every
        metric over its seeds, ``seeds`` (how many), ``accuracy_std``, ``run_ids`` (by seed), ``device``,
        ``memory_kind`` and ``machine`` (whether it was fit for measuring).
    """
    grouped = runs.groupby(_CONFIGURATION, sort=False)
    rows = grouped[list(runs.select_dtypes("number").columns.drop("start_time"))].mean()
    rows["seeds"] = grouped["seed"].nunique()
    rows["accuracy_std"] = grouped["accuracy"].std()
    rows["run_ids"] = grouped[["seed", "run_id"]].apply(
        lambda runs: dict(zip(runs["seed"], runs["run_id"], strict=True))
    )
    for tag in ("device", "memory_kind", "machine"):
        rows[tag] = grouped[tag].agg(lambda values: ", ".join(sorted(set(values))))
    rows = rows.reset_index().sort_values("validation_accuracy", ascending=False, kind="stable")
    rows = rows.drop_duplicates(["stage", "model", "dim"])
    rows = rows[rows["dim"].isin(["none", *DIMENSIONS])]
    rank = {name: position for position, name in enumerate((*MODELS, "none", *DIMENSIONS))}
    rows = rows.sort_values(["model", "dim"], key=lambda column: column.map(rank))
    transfer = rows["stage"].eq("transfer")
    return rows[~transfer].reset_index(drop=True), rows[transfer].reset_index(drop=True)


def missing_rows(source: pd.DataFrame, target: pd.DataFrame, preset: Preset) -> str:
    """One sentence on the rows that the plan asks for and the store does not have."""
    missing = []
    for table, name, dims in (
        (source, preset.source.name, ("none", *DIMENSIONS)),
        (target, preset.target.name, DIMENSIONS),
    ):
        present = set(zip(table["model"], table["dim"], strict=True))
        missing += [
            f"{preset.models[model].name} {'baseline' if dim == 'none' else dim} on {name}"
            for model in preset.models
            for dim in dims
            if (model, dim) not in present
        ]
    if not missing:
        return "No row of the plan is missing."
    return f"Missing, since no finished run of it is in the store: {'; '.join(missing)}."

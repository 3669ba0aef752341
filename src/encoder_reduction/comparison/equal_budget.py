"""What each dimension comes to at the same budget: rows, changes, the choice among them, and what is out of reach."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..plan.sections import MIXED, Budget
from .changes import POINTS, Gains, Predictions, changes, complete_models, gains_by_row, plain_value, with_changes
from .selection import best, in_order
from .sensitivity import by_dimension
from .significance import right
from .winners import Winner, winner

# What tables call the sizes that may be cut, by their parameter in MLflow.
_SIZES = {
    "num_attention_heads": "heads", "hidden_size": "hidden", "num_hidden_layers": "layers",
    "intermediate_size": "intermediate",
}  # fmt: skip
_BY_LAYER = ("attention_heads_by_layer", "intermediate_size_by_layer")
_ABOVE = 0.1
# What must be alike for rows to be compared.
_TREATMENT = ("epochs", "learning_rate", "distill", "hidden_weight", "temperature", "batch_size", "train_examples")
_BATCH_TOKENS = "batch_tokens"  # where it is not given, batch_size counts


@dataclass(frozen=True)
class AtBudget:
    """One budget.

    Attributes:
        budget: as ``latency:0.5``.
        rows: the baselines, and one configuration of each model and dimension.
        changes: of the latter against the former.
        beyond: dimensions that cannot meet it: ``model``, ``checkpoint``, ``dim``, ``least`` (the share of the whole
            network that stays at the least).
        chosen: the best dimension over the models that have all of them; ``None`` where predictions are missing.
    """

    budget: str
    rows: pd.DataFrame
    changes: pd.DataFrame
    beyond: pd.DataFrame
    chosen: Winner | None

    @property
    def quantity(self) -> str:
        """What a sentence calls what is saved: ``time``, ``flops`` or ``parameters``."""
        return Budget(budget=self.budget).quantity.replace("latency", "time")


def at_budgets(
    found: pd.DataFrame,
    baselines: pd.DataFrame,
    beyond: pd.DataFrame,
    ratios: pd.DataFrame,
    predictions: tuple[Predictions, Predictions],
) -> list[AtBudget]:
    """Each budget that there are runs of, the most that stays first.

    Args:
        found: all configurations whose sizes a budget has decided.
        baselines: the baselines of the source corpus.
        beyond: runs whose budget was out of reach.
        ratios: of paired measurements.
        predictions: of the test split and of the validation split, by run.
    """
    test, validation = predictions
    names = {*found["budget"], *(beyond["budget"] if len(beyond) else ())}
    asked = sorted((Budget(budget=name) for name in names), key=lambda each: (each.quantity, -each.share))
    result = []
    for budget in (each.budget for each in asked):
        own = found[found["budget"].eq(budget)]
        rows = pd.concat([baselines, best(own, "accuracy")], ignore_index=True) if len(own) else baselines
        table = changes(rows, ratios, test)
        out = _out_of_reach(beyond[beyond["budget"].eq(budget)] if len(beyond) else beyond, own)
        result.append(AtBudget(budget, rows, table, out, _chosen(rows, table, test, validation)))
    return result


def table_of(at: AtBudget, runs: pd.DataFrame) -> pd.DataFrame:
    """Every figure of one budget: a row a configuration, then those out of reach, models in the plan's order.

    Args:
        at: the budget.
        runs: all runs that count, for the sizes of each seed and for controls from random weights.
    """
    reduced = at.rows[at.rows["dim"].ne("none")]
    baselines = at.rows[at.rows["dim"].eq("none")].set_index("model")
    named = with_changes(reduced, at.changes)
    by_id = runs.set_index("run_id")
    wanted = ["parameters", "inference_memory_gb", "accuracy_before_training", "total_training_seconds"]
    named = named.assign(**{name: np.nan for name in wanted if name not in named})
    rows = pd.DataFrame(
        {
            "model": named["model"],
            "dim": named["dim"],
            "Budget": at.budget,
            "Model": named["checkpoint"],
            "Dimension": named["dim"],
            "Sizes": [_sizes(row, by_id, baselines.loc[row["model"]]) for row in named.to_dict("records")],
            "Speed-up": named["Speed-up"],
            "Speed-up low": named["Speed-up low"],
            "Speed-up high": named["Speed-up high"],
            "Parameters (M)": named["parameters"] / 1e6,
            "Inference memory (GB)": named["inference_memory_gb"],
            "Accuracy": named["accuracy"],
            POINTS: named[POINTS],
            "95% low": named["95% low"],
            "95% high": named["95% high"],
            "p (Holm)": named["p (Holm)"],
            "Difference": named["Difference"],
            "F1-score": named["f1"],
            "F1 (points)": named["F1 (points)"],
            "F1 95% low": named["F1 95% low"],
            "F1 95% high": named["F1 95% high"],
            "Before training": named["accuracy_before_training"],
            "Total Time (s)": named["total_training_seconds"],
            "Seeds": named["seeds"],
            "From random weights": [_control(row, by_id) for row in named.to_dict("records")],
        }
    )
    return in_order(pd.concat([rows, _as_rows(at)], ignore_index=True)).drop(columns=["model", "dim"])


def differing(at: AtBudget, runs: pd.DataFrame) -> list[str]:
    """Settings in which the rows of a budget were recovered otherwise than each other, each in a few words."""
    reduced = at.rows[at.rows["dim"].ne("none")]
    own = runs[runs["run_id"].isin([run_id for ids in reduced["run_ids"] for run_id in ids.values()])]
    values = {name: own[name].map(plain_value).dropna().unique() for name in _TREATMENT if name in own}
    if _BATCH_TOKENS in own:
        values[_BATCH_TOKENS] = own[_BATCH_TOKENS].map(plain_value).fillna("none").unique()
    values["seeds"] = reduced["seeds"].unique()
    return [f"{name} ({', '.join(map(str, each))})" for name, each in values.items() if len(each) > 1]


def off_budget(rows: pd.DataFrame) -> pd.Series:
    """Which rows have come to more than a tenth above their budget on average, as their runs have measured it."""
    of_budget = rows["budget"].ne("")
    off = pd.Series(False, rows.index)
    for budget in (Budget(budget=name) for name in rows.loc[of_budget, "budget"].unique()):
        own = rows["budget"].eq(budget.budget)
        off[own] = rows.loc[own].get(achieved(budget), off[own] * 0.0).gt(budget.share * (1 + _ABOVE))
    return off


def achieved(budget: Budget) -> str:
    """The metric that says what a run with this budget has come to."""
    return f"{budget.quantity}_share"


def _out_of_reach(beyond: pd.DataFrame, own: pd.DataFrame) -> pd.DataFrame:
    """One row for each model and dimension that no finished run has, of the latest that said so."""
    if beyond.empty:
        return pd.DataFrame(columns=["model", "checkpoint", "dim", "least"])
    there = set(zip(own["model"], own["dim"], strict=True))
    latest = beyond.drop_duplicates(["model", "dim"])
    missing = [key not in there for key in zip(latest["model"], latest["dim"], strict=True)]
    kept = latest.loc[missing, ["model", "checkpoint", "dim", "out_of_reach"]]
    return kept.assign(least=kept.pop("out_of_reach").astype(float))


def _as_rows(at: AtBudget) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"model": row.model, "dim": row.dim, "Budget": at.budget, "Model": row.checkpoint, "Dimension": row.dim,
             "Sizes": f"out of reach: {row.least:.0%} of the {at.quantity} at the least"}
            for row in at.beyond.itertuples()
        ]
    )  # fmt: skip


def _chosen(rows: pd.DataFrame, table: pd.DataFrame, test: Predictions, validation: Predictions) -> Winner | None:
    """The choice among the dimensions, over the models that have all of them, or over those dimensions all have."""
    rows = rows[~off_budget(rows)]
    table = table[table["Config"].isin(rows["config"]) & table["Model"].isin(rows["checkpoint"])]
    if table.empty:
        return None
    models = complete_models(table) or list(dict.fromkeys(table["Model"]))
    having = table[table["Model"].isin(models)].groupby("Dimension", sort=False)["Model"].nunique()
    dims = list(having[having.eq(len(models))].index)
    both = _of_the_same_seeds(gains_by_row(rows, test), _right(rows, validation), models, dims)
    gains, checked = (by_dimension(part, models, dims) for part in both)
    return None if gains is None or checked is None else winner(dims, checked, gains, models)


def _of_the_same_seeds(gains: Gains, checked: Gains, models: list[str], dims: list[str]) -> tuple[Gains, Gains]:
    """Both of the seeds that every row has of either: their luck is one."""
    keys = [(model, dim) for model in models for dim in dims]
    columns = [part[key].columns for part in (gains, checked) for key in keys if key in part]
    seeds = functools.reduce(pd.Index.intersection, columns) if columns else pd.Index([])
    return tuple({key: part[key][seeds] for key in keys if key in part} for part in (gains, checked))


def _right(rows: pd.DataFrame, predictions: Predictions) -> Gains:
    """Whether each row's predictions are right, by example and seed."""
    found = {}
    for row in rows[rows["dim"].ne("none")].to_dict("records"):
        tables = {seed: predictions[run_id] for seed, run_id in row["run_ids"].items() if run_id in predictions}
        if tables:
            by_seed = {seed: right(each) for seed, each in tables.items()}
            found[row["checkpoint"], row["dim"]] = pd.DataFrame(by_seed).dropna()
    return found


def _dims(dim: str) -> list[str]:
    return list(_SIZES.values()) if dim == MIXED else dim.split("+")


def _sizes(row: Mapping[str, object], runs: pd.DataFrame, baseline: Mapping[str, object]) -> str:
    """``heads 8, layers 5``; means where layers differ, and each seed's where seeds have come to different ones."""
    whole = runs.loc[next(iter(baseline["run_ids"].values()))]
    said = []
    for param, dim in _SIZES.items():
        if dim in _dims(row["dim"]) and param in runs:
            values = [str(runs.at[run_id, param]) for run_id in row["run_ids"].values()]
            shown = values[:1] if len(set(values)) == 1 else values
            if shown != [str(whole[param])]:
                said.append(f"{dim} {' / '.join(shown)}")
    return ", ".join(said)


def _control(row: Mapping[str, object], runs: pd.DataFrame) -> float:
    """Accuracy of the same shape, trained as long on as many texts from random weights, where such runs are there."""
    inits = [name for name in runs if name == "init" or name.endswith(".init")]
    alike = [*_SIZES, *(name for name in (*_BY_LAYER, "epochs", "train_examples") if name in runs)]
    if not inits or not set(_SIZES) <= set(runs.columns):
        return np.nan
    shapes = runs[alike].map(plain_value).fillna("").agg("|".join, axis="columns")
    random = runs[inits].eq("random").any(axis="columns") & runs["model"].eq(row["model"]) & runs["stage"].eq("reduce")
    same = runs.loc[random & shapes.isin(set(shapes[list(row["run_ids"].values())])), "accuracy"]
    return float(same.mean()) if len(same) else np.nan

"""Which finished runs count, and which configuration of each dimension is taken."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..errors import UserError
from ..plan.equal_budgets import EqualBudgets
from ..plan.presets import Preset
from ..plan.sections import DIMENSIONS, MIXED, MODELS, RunPlan
from ..plan.study import Study
from ..tracking import matching

_CONFIGURATION = ["stage", "model", "checkpoint", "dim", "config", "start", "budget", "plan_fingerprint"]
_TAGS = ("device", "libraries", "memory_kind", "machine", "micro_batch_size", "departs")
_CONDITIONS = ("batch_size", "max_length", "resolved_precision")  # what a paired measurement must match
_SPREAD = ["accuracy", "inference_ms", "training_seconds", "training_memory_gb", "inference_memory_gb"]
_RANK = {name: position for position, name in enumerate((*MODELS, "none", *DIMENSIONS, "intermediate"))}
_SIZES = {"heads": "num_attention_heads", "hidden": "hidden_size", "layers": "num_hidden_layers"}


@dataclass(frozen=True)
class Counted:
    """Which runs count.

    Attributes:
        planned: those that did what the plan says, or a variant of it.
        other_sizes: those that differ from the plan in how much of the dimension stays.
        beside: those that differ otherwise; the column ``departs`` says in what.
        left_out: a sentence for each kind that does not belong to the preset or to this device.
    """

    planned: pd.DataFrame
    other_sizes: pd.DataFrame
    beside: pd.DataFrame
    left_out: list[str]


def latest_runs(runs: pd.DataFrame, study: Study, seeds: Collection[int] = (), device: str | None = None) -> Counted:
    """The runs that count: of each plan and seed the latest finished one, of the preset's inputs, on one device.

    Args:
        runs: finished runs of the preset.
        study: names the checkpoints, the corpora, and what each run was to do.
        seeds: those that count; all by default.
        device: the one that counts; by default the one with the most runs.

    Raises:
        UserError: no run is left.
    """
    runs, left_out = _of_the_inputs(_asked_for(runs, study.preset, seeds), study.preset)
    if runs.empty:
        raise UserError(f"No run of the preset's own checkpoints and corpora is finished, only {'; '.join(left_out)}.")
    runs, elsewhere = _on_one_device(runs, device)
    runs["start"] = runs["start"].fillna("pretrained") if "start" in runs else "pretrained"
    departures = _departures(runs, study)
    runs["budget"] = runs["budget"].fillna("") if "budget" in runs else ""
    latest = runs.sort_values("start_time", ascending=False).drop_duplicates(["plan_fingerprint", "seed"])
    departures = departures[latest.index]
    own, size = ~departures.map(bool), departures.map(matching.only_in_size)
    beside = latest[~own & ~size].assign(departs=departures[~own & ~size].map(matching.in_words))
    return Counted(latest[own], latest[size], beside, left_out + elsewhere)


def _departures(runs: pd.DataFrame, study: Study) -> pd.Series:
    """How each run departs from the plan; a transfer also does if its source did. Any budget is the plan's."""
    found = matching.departures(runs, [*study.trainings(), *at_budgets(study, runs)])
    if "source_run" not in runs:
        return found
    sources = runs["source_run"].where(runs["stage"].eq("transfer") & runs["source_run"].notna())
    strays = sources.mask(sources.isin(runs.loc[~found.map(bool), "run_id"]))
    both = zip(found, strays, strays.notna(), strict=True)
    named = [each | {"source_run": (run_id, "one of the plan")} if stray else each for each, run_id, stray in both]
    return pd.Series(named, index=found.index, dtype=object)


def at_budgets(study: Study, runs: pd.DataFrame) -> list[RunPlan]:
    """The plans of a study at the budgets that runs have, whichever it names itself."""
    own = runs[runs["budget"].notna()] if "budget" in runs else runs.iloc[:0].assign(budget=None)
    dims = {name: tuple(dict.fromkeys(own[name])) for name in ("budget", "model", "dim")}
    found = EqualBudgets(
        budgets=dims["budget"], budget_models=dims["model"], budget_dims=dims["dim"], **study.equal_budgets.searching
    )
    return study.at_equal_budget(found)


def beyond(found: pd.DataFrame, runs: pd.DataFrame, study: Study) -> pd.DataFrame:
    """Of the runs whose budget was out of reach, those of the plan and its inputs on the device of the others."""
    if found.empty:
        return found
    asked = found["device"].isin(runs["device"]) & found["seed"].isin(runs["seed"])
    own, _ = _of_the_inputs(found[asked], study.preset)
    return own[[not departure for departure in matching.departures(own, at_budgets(study, own))]]


def _asked_for(runs: pd.DataFrame, preset: Preset, seeds: Collection[int]) -> pd.DataFrame:
    if not runs.empty and "stage" in runs:
        runs = runs[runs["stage"].isin(["baseline", "reduce", "transfer"])]
    if not runs.empty and seeds:
        runs = runs[runs["seed"].isin([str(seed) for seed in seeds])]
    if runs.empty:
        raise UserError(
            f"No finished run of preset={preset.name} is in this experiment, or none that was asked for: start the"
            " study, or name the experiment that has the runs with --experiment-name, or the tracking server in"
            " MLFLOW_TRACKING_URI."
        )
    return runs


def _of_the_inputs(runs: pd.DataFrame, preset: Preset) -> tuple[pd.DataFrame, list[str]]:
    """Runs of the preset's checkpoints and corpora; what else there is."""
    transfer = runs["stage"].eq("transfer")
    of_corpus = matching.of_input(runs, preset.target).where(transfer, matching.of_input(runs, preset.source))
    of_checkpoint = np.logical_or.reduce(
        [runs["model"].eq(model) & matching.of_input(runs, each) for model, each in preset.models.items()]
    )
    own = of_corpus & of_checkpoint
    corpus = _called(runs, "corpus", ~of_corpus & runs["corpus"].isin([preset.source.name, preset.target.name]))
    named = runs["checkpoint"].isin([each.name for each in preset.models.values()])
    checkpoint = _called(runs, "checkpoint", ~of_checkpoint & named)
    left_out = [
        f"{len(group)} runs of {checkpoint} on {corpus}, which are not the preset's"
        for (corpus, checkpoint), group in runs[~own].groupby([corpus[~own], checkpoint[~own]])
    ]
    return runs[own], left_out


def _called(runs: pd.DataFrame, what: str, namesakes: pd.Series) -> pd.Series:
    """What runs call their checkpoint or corpus; of namesakes of the preset's, where it came from as well."""
    if f"{what}_source" not in runs:
        return runs[what]
    whole = runs[what] + " (" + runs[f"{what}_source"] + ", " + runs[f"{what}_revision"] + ")"
    return whole.where(namesakes, runs[what]).fillna(runs[what])


def _on_one_device(runs: pd.DataFrame, device: str | None) -> tuple[pd.DataFrame, list[str]]:
    """Runs whose times and memory may be compared; how many there are elsewhere."""
    counts = runs["device"].value_counts()
    device = device or next(iter(counts.index), None)
    here = runs[runs["device"].eq(device)]
    if here.empty:
        raise UserError(f"No finished run is from device={device}; there are runs from: {', '.join(counts.index)}.")
    others = counts.drop(device)
    return here, [f"{count} runs on {name} (device='{name}' compares these)" for name, count in others.items()]


def configurations(runs: pd.DataFrame) -> pd.DataFrame:
    """What was run once or with several seeds, one row each, the best by validation accuracy first.

    Returns:
        The configuration, the mean of every metric over its seeds, ``seeds`` (how many), the standard deviation over
        them of what the pictures show (``accuracy_seed_std`` and so on), ``run_ids`` (by seed), ``level`` (share of the
        dimension that stays; missing without a baseline), and ``device``, ``libraries``, ``memory_kind``,
        ``machine`` (whether it was fit for measuring), ``batch_size`` and ``micro_batch_size`` (examples at once).
    """
    grouped = runs.groupby(_CONFIGURATION, sort=False)
    rows = grouped[list(runs.select_dtypes("number").columns.drop("start_time"))].mean()
    rows["seeds"] = grouped["seed"].nunique()
    rows = rows.join(grouped[[name for name in _SPREAD if name in runs]].std().add_suffix("_seed_std"))
    rows["run_ids"] = grouped[["seed", "run_id"]].apply(
        lambda runs: dict(sorted(zip(runs["seed"], runs["run_id"], strict=True), key=lambda pair: int(pair[0])))
    )
    for tag in set(_TAGS) & set(runs.columns):
        rows[tag] = grouped[tag].agg(lambda values: ", ".join(sorted(set(values.dropna()))))
    for size in set(_SIZES.values()) & set(runs.columns):
        rows[size] = grouped[size].first().astype(float)
    for condition in set(_CONDITIONS) & set(runs.columns):
        rows[condition] = grouped[condition].first()
    rows = rows.reset_index()
    rows["level"] = _levels(rows)
    return rows.sort_values("validation_accuracy", ascending=False, kind="stable", ignore_index=True)


def _levels(rows: pd.DataFrame) -> pd.Series:
    levels = pd.Series(np.nan, index=rows.index)
    full = rows[rows["dim"].eq("none")].drop_duplicates("model").set_index("model")
    for dim, size in _SIZES.items():
        if size in rows:
            own = rows["dim"].eq(dim)
            levels[own] = rows.loc[own, size] / rows.loc[own, "model"].map(full[size]).astype(float)
    return levels.mask(rows["dim"].eq("none"), 1.0)


def best(found: pd.DataFrame, rule: str, per: Sequence[str] = ("model", "dim")) -> pd.DataFrame:
    """The configuration that a rule takes from each group, in the order of the plan.

    Quality is that of the validation split, so the test split is only reported. Those count that have as many seeds as
    any other of the group: one lucky seed is not held against three.
    """
    groups = (group for _, group in found.groupby(list(per), sort=False))
    chosen = [choose(group[group["seeds"].eq(group["seeds"].max())], rule) for group in groups]
    rows = found.loc[chosen]
    return in_order(rows)


def in_order(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows by model and dimension, as the plan has them; those of several dimensions come last."""

    def rank(name: str) -> int:
        return _RANK.get(name, len(_RANK) + (name == MIXED))

    return rows.sort_values(["model", "dim"], key=lambda column: column.map(rank), ignore_index=True)


def choose(candidates: pd.DataFrame, rule: str) -> int:
    """Index of the candidate that a rule takes.

    ``efficiency`` is the one-standard-error rule (Breiman et al. 1984, section 3.4.3), with the standard
    error of a proportion over the validation examples; ``knee`` takes the point of the Pareto front that
    is farthest from the line through its ends (Satopaa et al. 2011), both axes scaled to one.
    """
    quality, time = candidates["validation_accuracy"], candidates["inference_ms"]
    most_accurate = int(quality.idxmax())
    if rule == "efficiency" and "validation_examples" in candidates:
        examples = candidates.at[most_accurate, "validation_examples"]
        error = np.sqrt(quality[most_accurate] * (1 - quality[most_accurate]) / examples)
        return int(time[quality >= quality[most_accurate] - np.nan_to_num(error)].idxmin())
    if rule == "knee":
        return _knee(time, quality)
    return most_accurate


def pareto_front(cost: pd.Series, value: pd.Series) -> list[int]:
    """Index of the rows that no other row beats in both cost (less) and value (more), cheapest first."""
    front, highest = [], float("-inf")
    for index in pd.DataFrame({"cost": cost, "value": -value}).sort_values(["cost", "value"]).index:
        if value[index] > highest:
            front.append(index)
            highest = value[index]
    return front


def _knee(cost: pd.Series, value: pd.Series) -> int:
    front = pareto_front(cost, value)
    if len(front) < 3:
        return front[-1]
    x, y = cost[front], value[front]
    above = (y - y.iloc[0]) / (y.iloc[-1] - y.iloc[0]) - (x - x.iloc[0]) / (x.iloc[-1] - x.iloc[0])
    return int(above.idxmax())


def split_stages(found: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows on the source corpus, and those on the target corpus."""
    transfer = found["stage"].eq("transfer")
    return found[~transfer], found[transfer]


def split_budgets(found: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows whose sizes the plan says, and those whose sizes a budget has decided."""
    budget = found["budget"].ne("")
    return found[~budget], found[budget]


def split_starts(found: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows that the plan's letter asks for, and those whose reduction cut the trained baseline."""
    plain = found["start"].eq("pretrained")
    return found[plain], found[found["start"].eq("baseline")]


def with_missing_rows(rows: pd.DataFrame, preset: Preset) -> pd.DataFrame:
    """The rows of the plan, in its order; those that have no finished run are empty but for their names."""
    plan = pd.DataFrame(
        [
            {"model": model, "dim": dim, "planned": preset.models[model].name}
            for model in preset.models
            for dim in ("none", *DIMENSIONS)
        ]
    )
    whole = plan.merge(rows, on=["model", "dim"], how="left")
    whole["checkpoint"] = whole["checkpoint"].fillna(whole.pop("planned"))
    whole["config"] = whole["config"].fillna(whole["dim"].replace("none", "baseline") + " (missing)")
    return whole


def missing_recoveries(recovered: pd.DataFrame, preset: Preset) -> str:
    """One sentence on the reductions that were not cut from the trained baseline yet."""
    there = set(zip(recovered["model"], recovered["dim"], strict=True))
    missing = [
        f"{preset.models[model].name} {dim}"
        for model in preset.models
        for dim in DIMENSIONS
        if (model, dim) not in there
    ]
    return f"Not recovered: {', '.join(missing)}." if missing else "Every reduction of the plan was recovered."


def missing_rows(source: pd.DataFrame, target: pd.DataFrame, preset: Preset) -> str:
    """One sentence on the rows that the plan asks for and the store does not have."""
    missing = [
        f"{row.checkpoint} {row.config.removesuffix(' (missing)')} on {corpus.name}"
        for rows, corpus in ((source, preset.source), (target, preset.target))
        for row in with_missing_rows(rows, preset).itertuples()
        if row.config.endswith("(missing)")
    ]
    if not missing:
        return "No row of the plan is missing."
    return f"Missing, since no finished run of it is in the store: {'; '.join(missing)}."

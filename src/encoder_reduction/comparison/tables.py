"""The customer's tables, and how tables are written."""

import re
from collections.abc import Collection

import pandas as pd

from ..plan.presets import Preset
from .changes import POINTS, TIME, with_changes
from .selection import in_order, with_missing_rows

_MEMORY = {
    "gpu": "the most GPU memory that torch had allocated while training",
    "resident": "the most resident memory of the process while training, its libraries included, so that small"
    " differences say little (there was no GPU)",
}
_COLUMNS = {
    "checkpoint": "Model",
    "config": "Config",
    "accuracy": "Accuracy",
    "f1": "F1-score",
    "inference_ms": "Inference Time (ms)",
    "training_memory_gb": "Memory (GB)",
    "training_seconds": "Training Time (s)",
}
_NUMBERS = {
    "Accuracy": "{:.3f}",
    "As planned": "{:.3f}",
    "Before training": "{:.3f}",
    "Recovered": "{:.3f}",
    "F1 as planned": "{:.3f}",
    "F1 recovered": "{:.3f}",
    "Total Time (s)": "{:.1f}",
    "F1-score": "{:.3f}",
    "Inference Time (ms)": "{:.2f}",
    "Memory (GB)": "{:.2f}",
    "Training Time (s)": "{:.1f}",
    "Speed-up": "{:.2f}",
    "Times as fast": "{:.2f}",
    "One text": "{:.2f}",
    "File (MB)": "{:.1f}",
    "Parameters (M)": "{:.1f}",
    "Inference memory (GB)": "{:.2f}",
    "From random weights": "{:.3f}",
    "Speed-up by FLOPs": "{:.2f}",
    "Costs most (probability)": "{:.0%}",
}
_ABSENT = "–"
# What the plan's tables call a dimension.
_IN_THE_PLAN = {"heads": "Attention Heads", "hidden": "Embedding Size", "layers": "Hidden Layers"}
BEST = "Best Reduced Config"


def customers_table(rows: pd.DataFrame, preset: Preset, best: Collection[tuple[str, str]] = ()) -> pd.DataFrame:
    """Model, Config, Accuracy, F1-score, Inference Time, Memory, Training Time; missing rows are empty.

    Configurations are called as in the plan: ``Baseline``, ``6 Attention Heads``, ``384 Embedding Size``,
    ``6 Hidden Layers``; on the target corpus with ``recovered`` where what was adapted had been cut from the trained
    baseline. There, training time is that of the adaptation.

    Args:
        rows: the chosen configurations on one corpus.
        preset: which rows there should be.
        best: model and dimension of the rows to mark as the best reduced configuration of their model.
    """
    whole = with_missing_rows(rows, preset)
    marks = [f" ({BEST})" if key in best else "" for key in zip(whole["model"], whole["dim"], strict=True)]
    again = whole["start"].eq("baseline").map({True: ", recovered", False: ""})
    whole["config"] = whole["config"].map(in_the_plans_words) + again + marks
    return whole[list(_COLUMNS)].rename(columns=_COLUMNS)


def recovered_table(source: pd.DataFrame, recovered: pd.DataFrame, changes: pd.DataFrame) -> pd.DataFrame:
    """The recovered reductions beside the plan's: accuracy before and after training, and what the training took.

    Args:
        source: the plan's rows.
        recovered: those that were cut from the trained baseline.
        changes: the latter against the baselines.
    """
    names, figures = ["model", "dim"], ["accuracy_before_training", "accuracy", "f1", "total_training_seconds"]
    planned = source[[*names, "checkpoint", "config", "accuracy", "f1"]]
    shown = recovered.reindex(columns=[*names, "checkpoint", "config", *figures])
    both = in_order(planned.merge(shown, on=names, how="outer", suffixes=(" planned", "")))
    for name in ("checkpoint", "config"):
        both[name] = both[f"{name} planned"].fillna(both[name])
    both = with_changes(both, changes.drop(columns="Config"), how="left")
    return pd.DataFrame(
        {
            "Model": both["checkpoint"],
            "Config": both["config"].map(in_the_plans_words),
            "As planned": both["accuracy planned"],
            "Before training": both["accuracy_before_training"],
            "Recovered": both["accuracy"],
            POINTS: both[POINTS],
            "95% interval": _interval(both["95% low"], both["95% high"], "{:+.1f}"),
            "Difference": both["Difference"],
            "F1 as planned": both["f1 planned"],
            "F1 recovered": both["f1"],
            "Total Time (s)": both["total_training_seconds"],
        }
    )


def at_budget_in_brief(every: pd.DataFrame) -> pd.DataFrame:
    """The rows at equal budget for a page: intervals beside their figures, no column that is all empty."""
    shown = every[["Budget", "Model", "Dimension", "Sizes", "Speed-up"]].copy()
    shown["Speed-up, 95%"] = _interval(every["Speed-up low"], every["Speed-up high"], "{:.2f}")
    plain = ["Parameters (M)", "Inference memory (GB)", "Accuracy", POINTS]
    shown[plain] = every[plain]
    shown["95% interval"] = _interval(every["95% low"], every["95% high"], "{:+.1f}")
    shown[["Difference", "F1-score", "F1 (points)"]] = every[["Difference", "F1-score", "F1 (points)"]]
    shown["F1, 95%"] = _interval(every["F1 95% low"], every["F1 95% high"], "{:+.1f}")
    rest = ["Before training", "From random weights", "Total Time (s)"]
    shown[rest] = every[rest]
    return shown.dropna(axis="columns", how="all")


def runtimes_in_brief(every: pd.DataFrame) -> pd.DataFrame:
    """The rows in each runtime for a page: intervals beside their figures, no column that is all empty."""
    shown = every[["Model", "Config", "Runtime", "Computes in"]].copy()
    for figure, name, form in (
        ("Times as fast", "95%", "{:.2f}"),
        ("One text", "95% of one text", "{:.2f}"),
        ("Accuracy", None, ""),
        ("Against PyTorch (points)", "95% against PyTorch", "{:+.1f}"),
        ("Difference", None, ""),
        ("Against the baseline (points)", "95% against the baseline", "{:+.1f}"),
        ("F1-score", None, ""),
        ("F1 against PyTorch (points)", None, ""),
        ("File (MB)", None, ""),
    ):
        shown[figure] = every[figure]
        if name:
            shown[name] = _interval(every[f"{figure} low"], every[f"{figure} high"], form)
    return shown.dropna(axis="columns", how="all")


def in_the_plans_words(config: str) -> str:
    """``6 Attention Heads`` for ``heads-6``, and so on; what is not of one dimension is only capitalised."""
    dim, size, rest = re.fullmatch(r"(\w+)-?(\d*)(.*)", config).groups()
    return " ".join(filter(None, [size, _IN_THE_PLAN.get(dim, dim.capitalize())])) + rest


def glossary(rows: pd.DataFrame) -> str:
    """Which name elsewhere belongs to each of the customer's."""
    pairs = [f"{in_the_plans_words(config)} is `{config}`" for config in dict.fromkeys(rows["config"])]
    return f"In run names, tags and the other tables {', '.join(pairs)}."


def beside_the_plan(rows: pd.DataFrame) -> pd.DataFrame:
    """Configurations that are not the plan's, and in what they depart from it."""
    names = {"checkpoint": "Model", "config": "Config", "stage": "Stage", "departs": "Differs in", "seeds": "Seeds"}
    rows = rows.assign(seeds=rows["seeds"].astype(str))
    figures = {name: title for name, title in _COLUMNS.items() if name not in names}
    return rows[[*names, *figures]].rename(columns=names | figures)


def every_figure(rows: pd.DataFrame, changes: pd.DataFrame) -> pd.DataFrame:
    """Every figure of the rows on one corpus, and of their differences to the baseline."""
    names = ["checkpoint", "config"]
    changes = changes.rename(columns={"Model": "checkpoint", "Config": "config"}).drop(columns="Dimension")
    return rows.drop(columns="run_ids").merge(changes, on=names, how="left")


def in_brief(changes: pd.DataFrame) -> pd.DataFrame:
    """The changes for a page: intervals beside their figure, no column that is all empty."""
    shown = changes[["Model", "Config", POINTS]].copy()
    shown["95% interval"] = _interval(changes["95% low"], changes["95% high"], "{:+.1f}")
    shown["p (Holm)"], shown["Difference"] = changes["p (Holm)"], changes["Difference"]
    shown["Speed-up"] = changes["Speed-up"]
    shown["Speed-up, 95%"] = _interval(changes["Speed-up low"], changes["Speed-up high"], "{:.2f}")
    percents = [column for column in changes if column.endswith("(%)") and column != TIME]
    rest = ["Speed-up by FLOPs", "Timed", *percents]
    shown[rest] = changes[rest]
    return shown.dropna(axis="columns", how="all")


def ranking_in_brief(order: pd.DataFrame) -> pd.DataFrame:
    """The ranking for a page: the interval beside its figure."""
    if "95% low" not in order:
        return order
    shown = order.drop(columns=["95% low", "95% high"])
    shown.insert(2, "95% interval", _interval(order["95% low"], order["95% high"], "{:+.1f}"))
    return shown


def retention_in_brief(kept: pd.DataFrame, corpora: tuple[str, str]) -> pd.DataFrame:
    """The gaps on both corpora for a page."""
    shown = kept[["Model", "Config"]].copy()
    for side, corpus in zip(("source", "target"), corpora, strict=True):
        shown[f"On {corpus} (points)"] = kept[f"{POINTS} {side}"]
        shown[f"95% on {corpus}"] = _interval(kept[f"95% low {side}"], kept[f"95% high {side}"], "{:+.1f}")
    return shown.assign(**{"Wider by (points)": kept["Wider by (points)"]}).dropna(axis="columns", how="all")


def to_markdown(table: pd.DataFrame) -> str:
    """A table for people: numbers rounded to what they are worth."""
    sides = ["right" if number else "left" for number in _numeric(table)]
    return _rounded(table).to_markdown(index=False, disable_numparse=True, colalign=sides)


def to_latex(table: pd.DataFrame) -> str:
    """The same table for a paper; needs the package booktabs."""
    shown = _rounded(table).rename(columns=_escaped)
    sides = "".join("r" if number else "l" for number in _numeric(table))
    return shown.style.hide(axis="index").format(_escaped).to_latex(hrules=True, column_format=sides)


def _interval(low: pd.Series, high: pd.Series, form: str) -> pd.Series:
    text = [f"{form.format(a)} to {form.format(b)}" for a, b in zip(low, high, strict=True)]
    return pd.Series(text, index=low.index, dtype=object).where(low.notna())


def _rounded(table: pd.DataFrame) -> pd.DataFrame:
    shown = table.copy()
    for column, number in zip(table.columns, _numeric(table), strict=True):
        if number:
            write = _p_value if column == "p (Holm)" else _NUMBERS.get(column, "{:+.1f}").format
            shown[column] = table[column].map(write, na_action="ignore")
    return shown.astype(object).fillna(_ABSENT)


def _p_value(p: float) -> str:
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _numeric(table: pd.DataFrame) -> list[bool]:
    return [pd.api.types.is_numeric_dtype(table[column]) for column in table.columns]


def _escaped(text: str) -> str:
    for character in "&%_#$":
        text = text.replace(character, "\\" + character)
    return text.replace(_ABSENT, "--").replace("<", r"\textless{}")


def notes(rows: pd.DataFrame) -> str:
    """What the columns mean here, on which device, over how many seeds."""
    kinds = ", ".join(dict.fromkeys(_MEMORY[kind] for joined in rows["memory_kind"] for kind in joined.split(", ")))
    seeds = sorted(set(rows["seeds"]))
    count = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    lines = [
        "Accuracy and weighted F1 are of the test split; each configuration was selected on the validation split.",
        "Inference time is the forward pass's median time per example on test texts in the plan's batch size.",
        f"Memory is {kinds}.",
        "Training time leaves out evaluation, logging and checkpoints.",
        f"Seeds per row: {count}.",
    ]
    if _regrouped(rows):
        lines.append(
            "Regrouped heads are the same weights read as fewer, wider heads: they save no parameters and no memory."
        )
    troubled = rows[rows["machine"].ne("quiet")]
    if len(troubled):
        names = ", ".join(f"{row.checkpoint} {row.config}" for row in troubled.itertuples())
        names = "all rows" if len(troubled) == len(rows) else names
        lines.append(f"The machine was not quiet, so doubt the times of: {names} ({_worst(troubled['machine'])}).")
    if "micro_batch_size" in rows:
        divided = rows[rows["micro_batch_size"].ne(rows["batch_size"]) & rows["micro_batch_size"].ne("")]
        names = [f"{row.checkpoint} {row.config} ({row.micro_batch_size} at once)" for row in divided.itertuples()]
        if names:
            lines.append(
                "The GPU's memory did not hold a whole batch, so that each was computed in several passes, which take"
                f" less memory and more time, in: {', '.join(names)}."
            )
    return " ".join(lines)


def _worst(machines: pd.Series) -> str:
    """What troubled the machine, each kind of trouble once, with its largest figure."""
    causes = {cause for joined in machines for cause in joined.split(", ")} - {"quiet"}
    worst: dict[str, str] = {}
    for cause in sorted(causes, key=lambda cause: [int(number) for number in re.findall(r"\d+", cause)]):
        worst[re.sub(r"\d+", "", cause)] = cause
    return "; ".join(worst.values())


def _regrouped(rows: pd.DataFrame) -> bool:
    """Whether some row's heads were cut without removing a parameter."""
    full = rows[rows["dim"].eq("none")].set_index("model")["parameters"]
    heads = rows[rows["dim"].eq("heads")]
    return bool((heads["parameters"] == heads["model"].map(full)).any())

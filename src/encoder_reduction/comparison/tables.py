"""The customer's tables, and how they are written."""

import pandas as pd

_MEMORY = {
    "gpu": "the most GPU memory that torch had allocated while training",
    "resident": "the most resident memory of the process while training (there was no GPU)",
}
_NUMBERS = {
    "Accuracy": "{:.3f}",
    "F1-score": "{:.3f}",
    "Inference Time (ms)": "{:.2f}",
    "Memory (GB)": "{:.2f}",
    "Training Time (s)": "{:.1f}",
}


def source_table(rows: pd.DataFrame) -> pd.DataFrame:
    """The first table: Model, Config, Accuracy, F1-score, Inference Time, Memory, Training Time."""
    return _table(rows)


def target_table(rows: pd.DataFrame) -> pd.DataFrame:
    """The transfer table, in the same columns; its training time is that of the adaptation."""
    return _table(rows)


def _table(rows: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "Model": rows["checkpoint"],
            "Config": rows["config"],
            "Accuracy": rows["accuracy"],
            "F1-score": rows["f1"],
            "Inference Time (ms)": rows["inference_ms"],
            "Memory (GB)": rows["training_memory_gb"],
            "Training Time (s)": rows["training_seconds"],
        }
    )


def to_markdown(table: pd.DataFrame) -> str:
    """A table for people: numbers rounded to what they are worth."""
    sides = ["right" if number else "left" for number in _numeric(table)]
    return _rounded(table).to_markdown(index=False, disable_numparse=True, colalign=sides)


def to_latex(table: pd.DataFrame) -> str:
    """The same table for a paper; needs the package booktabs."""
    shown = _rounded(table).rename(columns=_escaped)
    sides = "".join("r" if number else "l" for number in _numeric(table))
    return shown.style.hide(axis="index").format(_escaped).to_latex(hrules=True, column_format=sides)


def _rounded(table: pd.DataFrame) -> pd.DataFrame:
    shown = table.copy()
    for column, number in zip(table.columns, _numeric(table), strict=True):
        if number:
            write = _p_value if column == "p (Holm)" else _NUMBERS.get(column, "{:+.1f}").format
            shown[column] = table[column].map(write, na_action="ignore")
    return shown.fillna("")


def _p_value(p: float) -> str:
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _numeric(table: pd.DataFrame) -> list[bool]:
    return [pd.api.types.is_numeric_dtype(table[column]) for column in table.columns]


def _escaped(text: str) -> str:
    for character in "&%_#":
        text = text.replace(character, "\\" + character)
    return text


def notes(rows: pd.DataFrame) -> str:
    """What the columns mean here, on which device, over how many seeds."""
    kinds = ", ".join(dict.fromkeys(_MEMORY[kind] for joined in rows["memory_kind"] for kind in joined.split(", ")))
    devices = list(dict.fromkeys(rows["device"]))
    seeds = sorted(set(rows["seeds"]))
    count = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    lines = [
        "Accuracy and weighted F1 are of the test split; each configuration was selected on the validation split.",
        "Inference time is the forward pass's median time per example on test texts in the plan's batch size.",
        f"Memory is {kinds}.",
        "Controls from random weights and distilled models are left out.",
        "Training time leaves out evaluation, logging and checkpoints.",
        f"Seeds per row: {count}. Device: {'; '.join(devices)}.",
    ]
    if _regrouped(rows):
        lines.append(
            "Regrouped heads are the same weights read as fewer, wider heads: they save no parameters and no memory."
        )
    troubled = rows[rows["machine"].ne("quiet")]
    if len(troubled):
        causes = "; ".join(f"{row.checkpoint} {row.config}: {row.machine}" for row in troubled.itertuples())
        lines.append(f"The machine was not quiet while these were measured, so doubt their times: {causes}.")
    if len(devices) > 1:
        lines.append("The rows come from different devices: do not compare their times or memory.")
    return " ".join(lines)


def _regrouped(rows: pd.DataFrame) -> bool:
    """Whether some row's heads were cut without removing a parameter."""
    full = rows[rows["dim"].eq("none")].set_index("model")["parameters"]
    heads = rows[rows["dim"].eq("heads")]
    return bool((heads["parameters"] == heads["model"].map(full)).any())

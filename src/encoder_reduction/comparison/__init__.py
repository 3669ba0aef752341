"""The comparison: reads the finished runs back and turns them into tables and an answer."""

import pandas as pd
from matplotlib.figure import Figure

from ..presets import Preset
from ..tracking import Run, finished_runs, predictions_of, speed_ratios
from .answer import answer, changes, method
from .pictures import relative_changes, trade_off
from .registry import registered_models, run_links
from .report import Section, as_markdown, as_page
from .selection import best_configurations, latest_runs, missing_rows
from .tables import notes, source_table, target_table, to_latex, to_markdown

__all__ = ["compare"]

_QUESTION = "Which dimension matters most, for quality and for cost?"


def compare(preset: Preset, run: Run) -> str:
    """Compare the finished runs of a preset in the run's experiment.

    Registers the chosen models. Logs the tables ``source_table``, ``target_table`` and ``changes`` (Markdown,
    CSV, LaTeX), the pictures ``trade_off`` and ``relative_changes`` (PNG, SVG), ``report.md`` and ``report.html``,
    and every figure of the rows (``every_figure.csv``).

    Returns:
        The report, as Markdown.

    Raises:
        UserError: no baseline or reduction of this preset is finished.
    """
    runs = latest_runs(finished_runs(run.experiment_id, preset=preset.name), preset.name)
    source, target = best_configurations(runs)
    ratios = speed_ratios(run.experiment_id, preset.name)
    predictions = predictions_of(run_id for ids in source["run_ids"] for run_id in ids.values())
    tables = {
        "source_table": source_table(source),
        "target_table": target_table(target),
        "changes": changes(source, ratios, predictions),
    }
    rows = pd.concat([source, target])
    run.table(rows.drop(columns="run_ids"), "every_figure.csv")
    for name, table in tables.items():
        run.table(table, f"{name}.csv")
        run.text(to_markdown(table), f"{name}.md")
        run.text(to_latex(table), f"{name}.tex")
    pictures = _pictures(source, tables["changes"])
    for name, (figure, _) in pictures.items():
        run.figure(figure, name)
    sections = [
        Section(_QUESTION, [answer(source, tables["changes"], predictions), *pictures.values()]),
        Section(f"{preset.source.name}: baselines and best reductions", [tables["source_table"], notes(source)]),
        Section(
            f"{preset.target.name}: the reductions adapted",
            [tables["target_table"], missing_rows(source, target, preset)],
        ),
        Section("Each reduction against its baseline", [tables["changes"], method(tables["changes"])]),
        Section("Which model do I take?", [registered_models(source)]),
        Section("Runs", [run_links(rows, run)]),
    ]
    run.text(as_page(f"Encoder reduction: {preset.name}", sections), "report.html")
    report = as_markdown(sections[:-1])
    run.text(as_markdown(sections), "report.md")
    return report


def _pictures(rows: pd.DataFrame, table: pd.DataFrame) -> dict[str, tuple[Figure, str]]:
    """Each picture by its file's name, with its caption."""
    pictures = {
        "trade_off": (
            trade_off(rows),
            "Accuracy on test and inference time of the best configuration of each dimension; one colour a model.",
        )
    }
    if len(table):
        caption = "Change against the baseline; one bar a model. Whiskers: 95% paired bootstrap over the test examples."
        pictures["relative_changes"] = (relative_changes(table), caption)
    return pictures

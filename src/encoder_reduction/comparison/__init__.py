"""The comparison: reads the finished runs back and turns them into tables and an answer."""

from ..presets import Preset
from ..tracking import Run, finished_runs, predictions_of, speed_ratios
from .answer import answer, changes
from .pictures import relative_changes, trade_off
from .registry import registered_models
from .selection import best_configurations, latest_runs, missing_rows
from .tables import notes, source_table, target_table, to_latex, to_markdown

__all__ = ["compare"]


def compare(preset: Preset, run: Run) -> str:
    """Compare the finished runs of a preset in the run's experiment.

    Registers the chosen models. Logs the tables ``source_table``, ``target_table`` and ``changes`` (Markdown,
    CSV, LaTeX), the pictures ``trade_off`` and ``relative_changes`` (PNG, SVG), and ``report.md``.

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
    for name, table in tables.items():
        run.table(table, f"{name}.csv")
        run.text(to_markdown(table), f"{name}.md")
        run.text(to_latex(table), f"{name}.tex")
    run.figure(trade_off(source), "trade_off")
    if len(tables["changes"]):
        run.figure(relative_changes(tables["changes"]), "relative_changes")
    sections = [
        f"## {preset.source.name}: baselines and best reductions",
        to_markdown(tables["source_table"]),
        notes(source),
        f"## {preset.target.name}: the reductions adapted",
        to_markdown(tables["target_table"]),
        missing_rows(source, target, preset),
        "## Which dimension matters most?",
        to_markdown(tables["changes"]),
        answer(source, tables["changes"], predictions),
        "## Which model do I take?",
        registered_models(source),
    ]
    report = "\n\n".join(sections)
    run.text(report, "report.md")
    return report

"""The comparison: reads the finished runs back and turns them into tables and an answer."""

from ..presets import Preset
from ..tracking import Run, finished_runs
from .answer import answer, changes
from .selection import best_configurations, latest_runs, missing_rows
from .tables import notes, source_table, target_table, to_markdown

__all__ = ["compare"]


def compare(preset: Preset, run: Run) -> str:
    """Compare the finished runs of a preset in the run's experiment.

    Logs the tables ``source_table``, ``target_table`` and ``changes`` (Markdown and CSV) and ``report.md``.

    Returns:
        The report, as Markdown.

    Raises:
        UserError: no baseline or reduction of this preset is finished.
    """
    runs = latest_runs(finished_runs(run.experiment_id, preset=preset.name), preset.name)
    source, target = best_configurations(runs)
    tables = {
        "source_table": source_table(source),
        "target_table": target_table(target),
        "changes": changes(source),
    }
    for name, table in tables.items():
        run.table(table, f"{name}.csv")
        run.text(to_markdown(table), f"{name}.md")
    sections = [
        f"## {preset.source.name}: baselines and best reductions",
        to_markdown(tables["source_table"]),
        notes(source),
        f"## {preset.target.name}: the reductions adapted",
        to_markdown(tables["target_table"]),
        missing_rows(source, target, preset),
        "## Which dimension matters most?",
        to_markdown(tables["changes"]),
        answer(source),
    ]
    report = "\n\n".join(sections)
    run.text(report, "report.md")
    return report

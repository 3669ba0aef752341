"""The comparison: reads the finished runs back and turns them into tables, pictures and an answer.

``gathered`` reads, ``selection`` says which runs and configurations count; ``changes``, ``significance``,
``sensitivity`` and ``expectations`` what they show, ``equal_budget`` and ``winners`` what they show at the same budget,
``runtimes`` what they show outside of PyTorch; ``answer``, ``budget_answer``, ``tables``, ``pictures``,
``budget_pictures``, ``runtime_pictures``, ``budget_report``, ``runtime_report`` and ``report`` write it down,
``best_models`` registers, with ``model_cards``. It knows runs only by what the store has of them: nothing of networks,
texts or how a run comes about.
"""

import pandas as pd

from ..plan.presets import Preset
from ..plan.sections import RULES
from ..plan.study import Study
from ..profiling.memory import only_new_garbage
from ..tracking import destination, pages, store
from ..tracking.run import Run
from . import best_models, pictures, runtime_report, selection, sensitivity, tables
from .answer import answer, method, recovery_answer, transfer_answer
from .budget_answer import how_to_ask, why_halves_differ
from .budget_report import at_equal_budget
from .changes import gains_by_row
from .expectations import expectations
from .gathered import Choice, Gathered, gather
from .model_cards import ModelCards
from .report import Section, as_markdown, as_page

__all__ = ["Choice", "compare", "experiment_of"]

_QUESTION = "Which dimension matters most, for quality and for cost?"
_HALVES = "The plan's own question: each dimension halved"


def experiment_of(run: Run, choice: Choice) -> str:
    """The id of the experiment that has the runs to compare.

    Raises:
        UserError: there is no such experiment.
    """
    return destination.experiment_named(choice.experiment) if choice.experiment else run.experiment_id


@only_new_garbage()
def compare(study: Study, run: Run, choice: Choice | None = None) -> str:
    """Compare the finished runs of a study.

    Tables, answer and registry take runs that did what the study's plan says; those that differ in how much stays are
    points of a curve, all others stand in a table of their own.

    Registers the chosen models. Logs every table (CSV, Markdown, LaTeX, HTML) and every picture (PNG, SVG) of
    the report, ``every_figure.csv``, ``report.md`` and ``report.html``.

    Returns:
        The report, as Markdown.

    Raises:
        UserError: no run is left to compare, or there is no such experiment.
    """
    choice = choice or Choice()
    preset, experiment_id = study.preset, experiment_of(run, choice)
    if experiment_id != run.experiment_id:  # Its own was arranged when it was opened.
        pages.arrange(experiment_id)
    gathered = gather(study, experiment_id, choice)
    sections = _sections(preset, gathered, choice, experiment_id)
    figures = [tables.every_figure(rows, changes) for rows, changes in gathered.compared if len(rows)]
    run.table(pd.concat(figures), "every_figure.csv")
    _log(run, sections)
    linked = [gathered.source, gathered.recovered, gathered.to_budgets, gathered.target]
    links = Section("Runs", [best_models.run_links(pd.concat(linked), experiment_id)])
    run.text(as_page(f"Encoder reduction: {preset.name}", [*sections, links]), "report.html")
    run.text(as_markdown([*sections, links]), "report.md")
    run.note(_headline(sections[0]))
    return as_markdown(sections)


def _sections(preset: Preset, gathered: Gathered, choice: Choice, experiment_id: str) -> list[Section]:
    """The report, the answer first."""
    source, changed, changed_again = gathered.source, gathered.changed, gathered.changed_again
    # What nothing was chosen from answers nothing yet.
    answered = any(at.chosen for at in gathered.equal)
    at_budget = at_equal_budget(
        _QUESTION if answered else "At equal budget", gathered.equal, gathered.everything, (source, changed)
    )
    elsewhere = runtime_report.where_it_runs(experiment_id, preset.name, gathered.on_source)
    cards = ModelCards(
        gathered.baselines, changed, gathered.on_source, gathered.ratios, gathered.predictions, experiment_id
    )
    take = [best_models.registered_models(gathered.found, choice.rule, cards.of, gathered.equal)]
    of_any_size = pd.concat([gathered.runs.planned, gathered.runs.other_sizes])
    adapted = (source, gathered.target), (gathered.before_adapting, gathered.changed_there)
    return [
        *(at_budget if answered else []),
        _answer(answered, preset, source, changed, gathered.predictions),
        *(at_budget if not answered else []),
        _on_source(preset, source),
        *_recovered(preset, source, gathered.recovered, changed, changed_again),
        _on_target(preset, choice.rule, gathered.found, *adapted),
        _each(changed),
        *_keep_levels(of_any_size[of_any_size["start"].eq("pretrained")]),
        *elsewhere,
        *_beside(gathered.runs.beside),
        *_training(source),
        Section("Which model do I take?", take + ([] if elsewhere else [runtime_report.how_to_ask(preset.name)])),
        _conditions(source, choice, gathered.runs.left_out),
    ]


def _headline(first: Section) -> str:
    """The first paragraph of the report, and where the rest is."""
    said = next(part for part in first.parts if isinstance(part, str)).partition("\n\n")[0]
    return f"{said}\n\nAll of it is `report.html`, in the artifacts."


def _answer(
    after_budgets: bool,
    preset: Preset,
    source: pd.DataFrame,
    changed: pd.DataFrame,
    predictions: dict[str, pd.DataFrame],
) -> Section:
    section = Section(_HALVES if after_budgets else _QUESTION)
    if after_budgets and len(changed):
        section.say(why_halves_differ(changed))
    if changed.empty:
        section.say(answer(source, changed, changed))
    else:
        order = sensitivity.ranking(changed, gains_by_row(source, predictions))
        section.say(answer(source, changed, order))
        if len(order):
            section.table("ranking", tables.ranking_in_brief(order), every=order)
        if not after_budgets:
            section.say(how_to_ask(preset.name))
        section.say("The plan expected:\n\n" + expectations(source, changed, predictions))
    section.picture(
        "trade_off",
        pictures.trade_off(source),
        "Accuracy on test and inference time of the chosen configuration of each dimension; one colour a model. Bars:"
        " standard deviations over seeds.",
    )
    if len(changed):
        caption = "Change against the baseline. Whiskers: 95% intervals, of accuracy over seeds and"
        caption += " test examples, of inference time over the rounds of the paired measurement."
        section.picture("relative_changes", pictures.relative_changes(changed), caption)
    return section


def _on_source(preset: Preset, source: pd.DataFrame) -> Section:
    section = Section(f"{preset.source.name}: baselines and best reductions")
    section.table("source_table", tables.customers_table(source, preset))
    section.say(tables.notes(source))
    section.say(tables.glossary(source))
    caption = "What each row takes. Whiskers: standard deviations over seeds."
    section.picture("resources", pictures.resources(source), caption)
    return section


def _recovered(
    preset: Preset, source: pd.DataFrame, recovered: pd.DataFrame, changed: pd.DataFrame, changed_again: pd.DataFrame
) -> list[Section]:
    if preset.recovery is None and recovered.empty:
        return []
    section = Section("Recovered: the same reductions, cut from the trained baseline and taught by it")
    if len(recovered):
        table = tables.recovered_table(source, recovered, changed_again)
        section.table("recovered", table, every=recovered.drop(columns="run_ids"))
        section.say(recovery_answer(changed, changed_again))
        section.say(
            "Before training is the accuracy on test after cutting and refitting, with no step of training. Total time"
            " is that of training and counts what came before: the baseline's, which was cut, and the recovery's own."
        )
    section.say(selection.missing_recoveries(recovered, preset))
    return [section]


def _on_target(
    preset: Preset,
    rule: str,
    found: pd.DataFrame,
    rows: tuple[pd.DataFrame, pd.DataFrame],
    changes: tuple[pd.DataFrame, pd.DataFrame],
) -> Section:
    corpora, (source, target) = (preset.source.name, preset.target.name), rows
    section = Section(f"{preset.target.name}: the reductions adapted")
    best = best_models.best_reductions(found, rule)
    table = tables.customers_table(target, preset, set(zip(best["model"], best["dim"], strict=True)))
    section.table("target_table", table)
    section.say(f"{tables.BEST}: of each model, {RULES[rule]} on the validation split of {preset.source.name}.")
    if len(target):
        section.say(tables.glossary(target))
    section.say(selection.missing_rows(source, target, preset))
    kept = sensitivity.retention(*changes)
    section.say(transfer_answer(kept))
    if len(kept):
        section.table("retention", tables.retention_in_brief(kept, corpora), every=kept)
        caption = "The gap to the baseline on both corpora, with 95% intervals; below the line adaptation widens it."
        section.picture("retention", pictures.retained(kept, source, corpora), caption)
    return section


def _each(changed: pd.DataFrame) -> Section:
    section = Section("Each reduction against its baseline")
    if len(changed):
        section.table("changes", tables.in_brief(changed), every=changed)
        section.say(method(changed))
        section.say("What it costs to save, in points of accuracy (nothing where less than 1% is saved):")
        section.table("exchange_rates", sensitivity.exchange_rates(changed))
    else:
        section.say("There is no reduction beside its baseline yet.")
    return section


def _keep_levels(runs: pd.DataFrame) -> list[Section]:
    found, _ = selection.split_stages(selection.configurations(runs))
    curves = sensitivity.keep_curves(found)
    if curves.empty:
        return []
    section = Section("How much can be cut?")
    caption = "Accuracy by how much of a dimension stays; bars are standard deviations over seeds."
    section.picture("keep_curves", pictures.keep_curves(curves), caption)
    section.table("keep_areas", sensitivity.areas(curves))
    return [section]


def _beside(runs: pd.DataFrame) -> list[Section]:
    if runs.empty:
        return []
    section = Section("What was run beside the plan")
    section.say("Runs of this preset that differ from its plan; they take no part in the tables and the answer.")
    section.table("beside", tables.beside_the_plan(selection.configurations(runs)))
    return [section]


def _training(source: pd.DataFrame) -> list[Section]:
    first = pd.DataFrame(
        [{"run_id": next(iter(row.run_ids.values())), "checkpoint": row.checkpoint, "dim": row.dim}
         for row in source.itertuples()]
    )  # fmt: skip
    points = store.curves(first["run_id"], pictures.CURVES).merge(first, on="run_id")
    points = points[points.groupby(["run_id", "metric"])["step"].transform("size") > 1]  # one point is no curve
    if points.empty:
        return []
    section = Section("How they learned")
    caption = "Of the first seed; training loss is a moving average over a sixth of the steps."
    section.picture("learning_curves", pictures.learning_curves(points), caption)
    return [section]


def _conditions(source: pd.DataFrame, choice: Choice, left_out: list[str]) -> Section:
    section = Section("Under which conditions")
    kinds = {"Device": "device", "Libraries": "libraries"}
    lines = [f"{name}: {'; '.join(sorted(set(source[tag].dropna())))}." for name, tag in kinds.items() if tag in source]
    section.say(" ".join([*lines, f"Rule of choice, on validation: {RULES[choice.rule]} ({choice.rule})."]))
    section.say(
        "Runs count that did what the plan says, or a variant of it; of those with the same plan and seed, the latest."
        " Where several variants of a row were run, those with the most seeds compete."
    )
    if left_out:
        section.say(f"Left out: {'; '.join(left_out)}.")
    return section


def _log(run: Run, sections: list[Section]) -> None:
    for section in sections:
        for table in section.tables:
            run.table(table.every, f"{table.name}.csv")
            run.text(tables.to_markdown(table.shown), f"{table.name}.md")
            run.text(tables.to_latex(table.shown), f"{table.name}.tex")
            run.text(as_page(section.title, [Section("", [table])]), f"{table.name}.html")
        for picture in section.pictures:
            run.figure(picture.figure, picture.name)

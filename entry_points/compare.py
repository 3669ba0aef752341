"""Read the finished runs back, write the tables, and say which dimension matters most."""

import dataclasses

import click

import _source  # noqa: F401
from encoder_reduction import command_line as cli
from encoder_reduction.plan.sections import RULES


@click.command(cls=cli.EntryPoint, help=__doc__)
@cli.preset_option
@click.option(
    "--rule",
    type=click.Choice(tuple(RULES)),
    default="accuracy",
    show_default=True,
    help=f"What the best is, on validation: {'; '.join(f'{rule}: {what}' for rule, what in RULES.items())}.",
)
@click.option("--experiment", help="Name of the experiment that has the runs.  [default: this run's own]")
@click.option("--seeds", help="Only these seeds, such as 42,43.  [default: all]")
@click.option("--device", help="Only runs from this device.  [default: the one with the most runs]")
@click.option("--tags", help="Only runs with these MLflow tags, such as checkpoint=roberta-base,owner=me.")
@cli.keep_models_option
@cli.budgets_options
@cli.run_options
def main(
    preset: str,
    rule: str,
    experiment: str | None,
    seeds: str | None,
    device: str | None,
    tags: str | None,
    keep_models: str,
    **settings: object,
) -> None:
    numbers = cli.integers("seeds", seeds) if seeds else ()
    study = dataclasses.replace(cli.load_study(preset, seeds, settings), seeds=numbers)
    named = cli.pairs("tags", tags) if tags else {}

    from encoder_reduction import comparison
    from encoder_reduction.launching.keeping import keep_best
    from encoder_reduction.tracking import opening

    opening.settle()
    with opening.open_run() as run:
        name = study.preset.name
        run.describe(f"compare/{name}", {"stage": "compare", "preset": name}, {"rule": rule})
        choice = comparison.Choice(rule, numbers, device, named, experiment)
        click.echo(comparison.compare(study, run, choice))
        if keep_models == "best":
            cli.say(keep_best(study, comparison.experiment_of(run, choice), choice))


if __name__ == "__main__":
    main()

"""How far a study is: done, running, queued or failed with the reason and the log of its job."""

import click

import _source  # noqa: F401
from encoder_reduction import command_line as cli


@click.command(cls=cli.EntryPoint, help=__doc__)
@cli.preset_option
@cli.seeds_option
@cli.budgets_options
@cli.run_options
def main(preset: str, seeds: str | None, **settings: object) -> None:
    chosen = cli.load_study(preset, seeds, settings)

    from encoder_reduction.launching import progress
    from encoder_reduction.tracking import destination, opening, pages

    opening.settle()
    experiment_id = destination.current_experiment()
    pages.arrange(experiment_id)
    click.echo(progress.as_table(progress.of_study(chosen, experiment_id)))


if __name__ == "__main__":
    main()

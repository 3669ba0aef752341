"""Fine-tune one encoder as it is: the row that every reduction is compared with."""

import click

import _source  # noqa: F401
from encoder_reduction import command_line as cli


@click.command(cls=cli.EntryPoint, help=__doc__)
@cli.model_option
@cli.preset_option
@cli.seed_option
@cli.input_options
@cli.run_options
def main(model: str, preset: str, **settings: object) -> None:
    plan = cli.load_preset(preset).plan("baseline", model, overrides=settings)

    from encoder_reduction.runs.run import execute

    cli.report(execute(plan))


if __name__ == "__main__":
    main()

"""Make one encoder smaller along one dimension, then fine-tune and measure it."""

import click

import _source  # noqa: F401
from encoder_reduction import command_line as cli


@click.command(cls=cli.EntryPoint, help=__doc__)
@cli.model_option
@click.option(
    "--dim", required=True, help="heads, hidden, layers or intermediate; several: heads+intermediate; mixed: all."
)
@cli.preset_option
@cli.seed_option
@cli.reduction_options
@cli.input_options
@cli.run_options
def main(model: str, dim: str, preset: str, **settings: object) -> None:
    plan = cli.load_preset(preset).plan("reduce", model, dim, settings)

    from encoder_reduction.runs.run import execute

    cli.report(execute(plan))


if __name__ == "__main__":
    main()

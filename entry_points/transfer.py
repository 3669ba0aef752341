"""Adapt the best reduced model of each dimension, found in the tracking store, to the second corpus."""

import click

import _source  # noqa: F401
from encoder_reduction import command_line as cli
from encoder_reduction.launching import forking


@click.command(cls=cli.EntryPoint, help=__doc__)
@cli.model_option
@click.option(
    "--dim",
    default="all",
    show_default=True,
    help="heads, hidden or layers; none: the baseline; all: each of the three in a run of its own.",
)
@cli.preset_option
@cli.seed_option
@cli.rerun_option
@cli.input_options
@cli.run_options
def main(model: str, dim: str, preset: str, rerun: bool, **settings: object) -> None:
    chosen = cli.load_preset(preset)
    plans = chosen.transfers(model, dim, settings)

    if len(plans) > 1:
        forking.start_server()

    from encoder_reduction.launching.study import run_transfers
    from encoder_reduction.runs.run import execute

    if len(plans) > 1:
        run_transfers(plans, rerun, cli.say)
    else:
        cli.report(execute(plans[0]))


if __name__ == "__main__":
    main()

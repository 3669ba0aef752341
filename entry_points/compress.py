"""Make a trained encoder as fast or as small as asked, losing the least: search, cut, refit, recover, register."""

import click

import _source  # noqa: F401
from encoder_reduction import command_line as cli
from encoder_reduction.launching import forking


@click.command(cls=cli.EntryPoint, help=__doc__)
@cli.model_option
@click.option("--dim", default="mixed", show_default=True, help="What may be cut, as heads+intermediate; mixed: all.")
@cli.preset_option
@cli.seed_option
@cli.rerun_option
@cli.reduction_options
@cli.input_options
@cli.run_options
def main(model: str, dim: str, preset: str, rerun: bool, **settings: object) -> None:
    chosen = cli.load_preset(preset)
    forking.start_server()

    from encoder_reduction.launching.compress import compress, plan_of

    plan = plan_of(chosen, model, dim, settings)
    click.echo(compress(plan, rerun, cli.say))


if __name__ == "__main__":
    main()

"""The whole plan: every baseline, reduction and transfer that is not finished yet, then the comparison."""

import click

import _source  # noqa: F401
from encoder_reduction import command_line as cli


@click.command(cls=cli.EntryPoint, help=__doc__)
@cli.preset_option
@click.option("--seeds", help="Seeds, such as 42,43,44.  [default: the preset's]")
@cli.rerun_option
@cli.run_options
def main(preset: str, seeds: str | None, rerun: bool, **settings: object) -> None:
    chosen = cli.load_preset(preset)
    numbers = cli.integers("seeds", seeds) if seeds else chosen.seeds

    from encoder_reduction import study

    click.echo(study.run_study(chosen, settings, numbers, rerun, cli.say))


if __name__ == "__main__":
    main()

"""Read the finished runs back, write the tables, and say which dimension matters most."""

import click

import _source  # noqa: F401
from encoder_reduction import command_line as cli


@click.command(cls=cli.EntryPoint, help=__doc__)
@cli.preset_option
def main(preset: str) -> None:
    chosen = cli.load_preset(preset)

    from encoder_reduction import comparison, tracking

    with tracking.open_run() as run:
        run.describe(f"compare/{chosen.name}", {"stage": "compare", "preset": chosen.name}, {})
        click.echo(comparison.compare(chosen, run))


if __name__ == "__main__":
    main()

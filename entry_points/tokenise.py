"""Tokenise every text of a study, once for all of its runs; needs no GPU."""

import click

import _source  # noqa: F401
from encoder_reduction import command_line as cli


@click.command(cls=cli.EntryPoint, help=__doc__)
@cli.preset_option
@cli.seeds_option
@cli.run_options
def main(preset: str, seeds: str | None, **settings: object) -> None:
    chosen = cli.load_study(preset, seeds, settings)

    from encoder_reduction.launching import prefetch
    from encoder_reduction.tracking import opening

    with opening.open_run() as run:
        run.describe(f"tokenise/{chosen.preset.name}", {"stage": "tokenise", "preset": chosen.preset.name}, {})
        for line in prefetch.tokenise_all([*chosen.first(), *chosen.transfers()]):
            click.echo(line)


if __name__ == "__main__":
    main()

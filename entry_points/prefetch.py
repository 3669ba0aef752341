"""Fetch every checkpoint and corpus that a study needs, check and load each; afterwards no network is needed."""

import click

import _source  # noqa: F401
from encoder_reduction import command_line as cli


@click.command(cls=cli.EntryPoint, help=__doc__)
@cli.preset_option
@cli.input_options
def main(preset: str, **settings: object) -> None:
    chosen = cli.load_preset(preset)
    sources = chosen.sources(settings)

    from encoder_reduction.launching import prefetch
    from encoder_reduction.tracking import opening

    with opening.open_run() as run:
        run.describe(f"prefetch/{chosen.name}", {"stage": "prefetch", "preset": chosen.name}, {})
        fetched = []
        for each in prefetch.fetch_all(sources):
            cli.say(f"{each.source}: {each.holds}")
            fetched.append(each)
        table = prefetch.as_table(fetched)
        run.text(table, "fetched.md")
        click.echo(table)


if __name__ == "__main__":
    main()

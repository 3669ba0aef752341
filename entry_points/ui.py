"""Say at which addresses the MLflow UI shows what an experiment has found."""

import click

import _source  # noqa: F401
from encoder_reduction import command_line as cli
from encoder_reduction.errors import UserError


@click.command(cls=cli.EntryPoint, help=__doc__)
@click.option("--experiment", default="encoder-reduction", show_default=True, help="Name of the experiment.")
def main(experiment: str) -> None:
    from encoder_reduction.tracking import destination, pages

    try:
        pages.arrange(destination.experiment_named(experiment))
    except UserError as error:
        do = "`make study` makes encoder-reduction, `make ui EXPERIMENT=NAME` looks at another."
        raise UserError(f"{error} {do}") from error


if __name__ == "__main__":
    main()

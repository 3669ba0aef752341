"""Write a registered model as ONNX, checked against PyTorch, beside its Hugging Face folder, and say how it is run."""

import click

import _source  # noqa: F401
from encoder_reduction import command_line as cli


@click.command(cls=cli.EntryPoint, help=__doc__)
@cli.model_option
@click.option("--alias", default="best", show_default=True, help="Which of its models, as the registry calls it.")
@click.option(
    "--format",
    "precision",
    type=click.Choice(("fp32", "int8")),
    default="fp32",
    show_default=True,
    help="int8: quantised dynamically by onnxruntime.",
)
@click.option("--to", help="Folder to write.  [default: exported/MODEL-ALIAS-FORMAT]")
def main(model: str, alias: str, precision: str, to: str | None) -> None:
    from encoder_reduction.launching.export import export

    click.echo(export(model, alias, precision, to))


if __name__ == "__main__":
    main()

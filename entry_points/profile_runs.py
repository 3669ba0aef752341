"""Measure the models of finished runs in turn in one process, so that their speed-ups hold on a noisy machine."""

# Not called profile.py: that would hide the standard library's module of this name.

import click

import _source  # noqa: F401
from encoder_reduction import command_line as cli
from encoder_reduction.plan.complaints import updated
from encoder_reduction.plan.runtimes import Runtimes


@click.command(cls=cli.EntryPoint, help=__doc__)
@cli.model_option
@click.option(
    "--runs",
    help="Run ids, such as ID1,ID2; the first is the reference.  [default: the model's baseline, then the best"
    " reduction of each dimension]",
)
@cli.runtimes_options
@cli.preset_option
@cli.input_options
@cli.run_options
def main(model: str, runs: str | None, runtimes: str | None, preset: str, **settings: object) -> None:
    chosen = updated(Runtimes(), {"runtimes": runtimes} if runtimes else {}).runtimes
    study = cli.load_study(preset, None, settings)
    plan = study.preset.plan("baseline", model, overrides=settings)

    from encoder_reduction.launching.pairing import runs_to_pair
    from encoder_reduction.runs import paired
    from encoder_reduction.tracking import destination

    run_ids = runs.split(",") if runs else runs_to_pair(destination.current_experiment(), study, model)
    outcome = paired.execute(plan, run_ids, chosen)
    for table in (outcome.ratios, outcome.runtimes):
        if len(table):
            click.echo(table.to_markdown(index=False, floatfmt=".3f") + "\n")


if __name__ == "__main__":
    main()

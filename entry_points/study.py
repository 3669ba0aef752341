"""The whole plan: every baseline, reduction and transfer that is not finished yet, then the comparison."""

import click

import _source  # noqa: F401
from encoder_reduction import command_line as cli
from encoder_reduction.launching import forking


@click.command(cls=cli.EntryPoint, help=__doc__)
@cli.preset_option
@cli.seeds_option
@cli.rerun_option
@click.option(
    "--launcher",
    type=click.Choice(("local", "slurm")),
    default="local",
    show_default=True,
    help="slurm: submit what is missing as job arrays, with the settings of slurm/cluster.env.",
)
@click.option("--jobs", type=int, default=1, show_default=True, help="local: runs side by side, a GPU each.")
@click.option("--throttle", type=int, help="slurm: tasks of an array at once.  [default: as cluster.env says]")
@click.option(
    "--dry_run", type=bool, default=False, show_default=True, help="slurm: only print what would be submitted."
)
@cli.keep_models_option
@cli.budgets_options
@cli.run_options
def main(
    preset: str,
    seeds: str | None,
    rerun: bool,
    launcher: str,
    jobs: int,
    throttle: int | None,
    dry_run: bool,
    keep_models: str,
    **settings: object,
) -> None:
    given = {"rerun": rerun, "jobs": jobs > 1, "throttle": throttle, "dry_run": dry_run}
    other = ("rerun", "jobs") if launcher == "slurm" else ("throttle", "dry_run")
    if useless := [name for name in other if given[name]]:
        raise click.UsageError(f"launcher={launcher} takes no {' and no '.join(useless)}: leave that away.")
    chosen = cli.load_study(preset, seeds, settings)

    if launcher == "local":
        forking.start_server()

    from encoder_reduction.launching import cluster
    from encoder_reduction.launching.study import run_study

    if launcher == "local":
        click.echo(run_study(chosen, rerun, jobs, keep_models, cli.say))
    else:
        click.echo(cluster.submit_study(chosen, preset, throttle, keep_models, dry_run))


if __name__ == "__main__":
    main()

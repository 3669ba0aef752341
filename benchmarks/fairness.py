"""Whether the ranking of the dimensions at equal budget changes with how they are recovered.

The packaged preset's BERT, cut to half of its FLOPs by each dimension that can and recovered as planned, at half and
at twice the learning rate, and for twice the epochs; all else is the same, the baseline too. Runs are tracked in a
store of the benchmark's own, so an interrupted one continues. Ten minutes for each seed on 2 cores:

    python benchmarks/fairness.py --seeds 42,43,44
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

import click  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import torch  # noqa: E402

from encoder_reduction.comparison.significance import difference, holm  # noqa: E402
from encoder_reduction.plan import presets  # noqa: E402
from encoder_reduction.profiling.machine import device_name  # noqa: E402
from encoder_reduction.tracking import store  # noqa: E402
from tracked import experiment_in, run  # noqa: E402

# Searches are short: the question is how what they found is recovered.
SEARCH = {"search_candidates": 8, "search_examples": 0}
# Of FLOPs, so that sizes do not depend on how busy the machine is.
BUDGET, DIMS = "flops:0.5", ("hidden", "layers", "heads+intermediate", "mixed")


def settings(learning_rate: float, epochs: float) -> dict[str, dict[str, float]]:
    """How a network is recovered, by what a row is called."""
    return {
        "as planned": {},
        "half the learning rate": {"learning_rate": learning_rate / 2},
        "twice the learning rate": {"learning_rate": learning_rate * 2},
        "twice the epochs": {"epochs": epochs * 2},
    }


def row(name: str, by_dim: dict[str, list[str]]) -> dict[str, str]:
    """What each dimension loses, which loses the least, and which are told apart from that one."""
    own = {dim: list(store.predictions_of(ids).values()) for dim, ids in by_dim.items()}
    whole = list(store.predictions_of(by_dim[DIMS[0]], store.WHOLE_PREDICTIONS_FILE).values())
    lost = {dim: difference(whole, tables).accuracy for dim, tables in own.items()}
    order = sorted(lost, key=lambda dim: -lost[dim].mean)
    best, others = order[0], order[1:]
    p = holm([difference(own[dim], own[best]).p for dim in others])
    apart = [dim for dim, each in zip(others, p, strict=True) if each < 0.05]
    figures = {
        dim: f"{lost[dim].mean:+.1f} ({lost[dim].interval[0]:+.1f} to {lost[dim].interval[1]:+.1f})" for dim in DIMS
    }
    return {
        "Recovered": name,
        **figures,
        "Order": ", ".join(order),
        "Told apart from the first": ", ".join(apart) or "–",
    }


@click.command(help=__doc__)
@click.option("--seeds", default="42", show_default=True, help="Such as 42,43,44.")
@click.option(
    "--folder", type=click.Path(path_type=Path), default="benchmark-fairness", help="Where the runs are kept."
)
def main(seeds: str, folder: Path) -> None:
    experiment = experiment_in(folder, "fairness")
    preset, _ = presets.load("packaged")
    recovery = preset.recovery.model_dump(exclude_none=True)
    done: dict[str, dict[str, list[str]]] = {}
    for seed in map(int, seeds.split(",")):
        run(preset.plan("baseline", "bert", None, {"seed": seed}), experiment)
        for name, values in settings(preset.fine_tuning.learning_rate, preset.fine_tuning.epochs).items():
            for dim in DIMS:
                given = {"seed": seed, "start": "baseline", "budget": BUDGET, **SEARCH, **recovery, **values}
                plan = preset.plan("reduce", "bert", dim, given)
                done.setdefault(name, {}).setdefault(dim, []).append(run(plan, experiment))
                click.echo(f"seed {seed}, {name}, {dim}: done", err=True)
    click.echo(pd.DataFrame([row(*each) for each in done.items()]).to_markdown(index=False, disable_numparse=True))
    baselines = store.finished_runs(experiment, stage="baseline")["accuracy"]
    speeds = store.finished_runs(experiment, stage="reduce").groupby("dim")["speed_ratio"].agg(np.mean)
    said = ", ".join(f"{dim} {speed:.2f}" for dim, speed in speeds.items())
    click.echo(f"\n{BUDGET}, seeds {seeds}; baseline {baselines.mean():.4f}. Times as fast on average: {said}.")
    click.echo(f"{device_name()}, torch {torch.__version__}.")


if __name__ == "__main__":
    main()

"""Twice and three times as fast: what each dimension loses for it, and what a search over all of them does.

The packaged model on 3,000 training snippets, two epochs of fine-tuning and two of recovery, three seeds. Times are
measured in turn beside the baseline; accuracy is of the whole test split. Runs are tracked in a store of the
benchmark's own, so an interrupted one continues. An hour on 2 cores that do nothing else:

    python benchmarks/budgets.py
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

import click  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import torch  # noqa: E402

from encoder_reduction.comparison.significance import difference  # noqa: E402
from encoder_reduction.launching import compress  # noqa: E402
from encoder_reduction.plan import presets  # noqa: E402
from encoder_reduction.profiling.machine import device_name  # noqa: E402
from encoder_reduction.tracking import store  # noqa: E402
from tracked import experiment_in, run  # noqa: E402

VALUES = {"max_train_examples": 3000, "max_test_examples": 100_000, "epochs": 2, "learning_rate": 1e-4}
SEEDS, BUDGETS, DIMS = (42, 43, 44), ("latency:0.5", "latency:0.33"), ("hidden", "layers", "mixed")


def row(budget: str, dim: str, run_ids: list[str]) -> dict[str, str]:
    """What one dimension comes to at one budget, over the seeds."""
    runs = [store.finished_run(run_id) for run_id in run_ids]
    wholes = store.predictions_of(run_ids, store.WHOLE_PREDICTIONS_FILE)
    own = store.predictions_of(run_ids)
    lost = difference([wholes[each] for each in run_ids], [own[each] for each in run_ids]).accuracy
    low, high = lost.interval

    def mean(name: str) -> float:
        return float(np.mean([each[name] for each in runs]))

    return {
        "Budget": budget,
        "Dimension": dim,
        "Times as fast": " / ".join(f"{each['speed_ratio']:.2f}" for each in runs),
        "Accuracy": f"{mean('accuracy'):.4f}",
        "Against the baseline (points)": f"{lost.mean:+.1f} ({low:+.1f} to {high:+.1f})",
        "Before training": f"{mean('accuracy_before_training'):.4f}",
        "Parameters": f"{mean('parameters_share'):.0%}",
        "FLOPs": f"{mean('flops_share'):.0%}",
        "Layers": " / ".join(f"{each['num_hidden_layers']}" for each in runs),
        "Hidden": " / ".join(f"{each['hidden_size']}" for each in runs),
        "Heads": " / ".join(f"{each['num_attention_heads']}" for each in runs),
        "Units": " / ".join(f"{each['intermediate_size']}" for each in runs),
        "Search (s)": f"{mean('search_seconds'):.0f}",
    }


@click.command(help=__doc__)
@click.option("--folder", type=click.Path(path_type=Path), default="benchmark-budgets", help="Where the runs are kept.")
def main(folder: Path) -> None:
    experiment = experiment_in(folder, "budgets")
    preset, _ = presets.load("packaged")
    done: dict[tuple[str, str], list[str]] = {}
    for seed in SEEDS:
        run(preset.plan("baseline", "bert", None, {**VALUES, "seed": seed}), experiment)
        for budget in BUDGETS:
            for dim in DIMS:
                plan = compress.plan_of(preset, "bert", dim, {**VALUES, "seed": seed, "budget": budget})
                done.setdefault((budget, dim), []).append(run(plan, experiment))
                click.echo(f"seed {seed}, {budget}, {dim}: done", err=True)
    rows = [row(*key, run_ids) for key, run_ids in done.items()]
    click.echo(pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True))
    baselines = store.finished_runs(experiment, stage="baseline")["accuracy"]
    click.echo(f"\nBaseline {baselines.mean():.4f}. {device_name()}, torch {torch.__version__}.")


if __name__ == "__main__":
    main()

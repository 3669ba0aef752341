"""How long `compare` takes, and how much memory, with very many runs in the store.

Fills an experiment with synthetic finished runs, as wide as real ones, and compares them:

    python benchmarks/scale.py --store sqlite:////tmp/scale.db --runs 10000
    python benchmarks/scale.py --store postgresql://user@127.0.0.1/scale --runs 10000   # needs psycopg
"""

import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

import click  # noqa: E402
import mlflow  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import psutil  # noqa: E402
from mlflow.store.tracking.dbmodels.models import SqlLatestMetric, SqlParam, SqlRun, SqlTag  # noqa: E402
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore  # noqa: E402

from encoder_reduction.plan import presets  # noqa: E402
from encoder_reduction.plan.sections import DIMENSIONS, MODELS  # noqa: E402
from encoder_reduction.tracking.store import PREDICTIONS_FILE  # noqa: E402

EXPERIMENT = "scale"
SEEDS, EXAMPLES, METRICS, PARAMS = 10, 2000, 60, 50


def identities(runs: int) -> list[dict[str, str]]:
    """Tags of ever new configurations, ten seeds each, of every model and dimension."""
    cells = [(model, dim) for model in MODELS for dim in ("none", *DIMENSIONS)]
    made = []
    for number in range(runs):
        configuration, seed = divmod(number, SEEDS)
        model, dim = cells[configuration % len(cells)]
        made.append(
            {
                "stage": "baseline" if dim == "none" else "reduce", "model": model, "checkpoint": f"minilm-{model}",
                "corpus": "movie-snippets", "dim": dim, "config": f"{dim}-{configuration}", "preset": "packaged",
                "seed": str(seed), "device": "some CPU", "libraries": "torch", "memory_kind": "resident",
                "machine": "quiet", "distill": "none", "start": "pretrained", "plan_fingerprint": f"{configuration}",
                **{f"tag_{i}": "x" * 16 for i in range(15)},
            }
        )  # fmt: skip
    return made


def planned_params() -> dict[tuple[str, str], dict[str, str]]:
    """What runs that do as the packaged preset says log of their plans, by stage and dimension."""
    preset, _ = presets.load("packaged")
    plans = [preset.plan("baseline", "bert"), *(preset.plan("reduce", "bert", dim) for dim in DIMENSIONS)]
    return {
        (plan.stage, plan.dim): {
            key: str(value)
            for section in (plan.fine_tuning, *plan.reductions.values())
            for key, value in section.model_dump().items()
            if value is not None
        }
        for plan in plans
    }


def fill(store: SqlAlchemyStore, folder: Path, runs: int) -> None:
    """Write the runs into the database, and test predictions of each beside it."""
    experiment_id = store.create_experiment(EXPERIMENT, artifact_location=str(folder))
    rng, now, planned = np.random.default_rng(0), int(time.time() * 1000), planned_params()
    named = [
        "accuracy", "f1", "validation_accuracy", "inference_ms", "training_memory_gb", "inference_memory_gb",
        "training_seconds", "flops_per_example", "parameters", "validation_examples",
    ]  # fmt: skip
    names = [*named, *(f"metric_{i}" for i in range(METRICS - len(named)))]
    rows: dict[type, list[dict[str, object]]] = {SqlRun: [], SqlTag: [], SqlParam: [], SqlLatestMetric: []}
    for number, tags in enumerate(identities(runs)):
        run_id = f"{number:032x}"
        files = folder / run_id / "artifacts"
        rows[SqlRun].append(
            {"run_uuid": run_id, "name": run_id, "experiment_id": int(experiment_id), "status": "FINISHED",
             "start_time": now + number, "end_time": now + number, "lifecycle_stage": "active",
             "artifact_uri": str(files), "user_id": "", "source_type": "LOCAL"}
        )  # fmt: skip
        rows[SqlTag] += [{"run_uuid": run_id, "key": key, "value": value} for key, value in tags.items()]
        params = planned[tags["stage"], tags["dim"]]
        params |= {f"param_{i}": "0.5" for i in range(PARAMS - len(params))}
        rows[SqlParam] += [{"run_uuid": run_id, "key": key, "value": value} for key, value in params.items()]
        rows[SqlLatestMetric] += [
            {"run_uuid": run_id, "key": key, "value": value, "timestamp": now, "step": 0, "is_nan": False}
            for key, value in zip(names, rng.uniform(0.5, 1, METRICS).tolist(), strict=True)
        ]
        files.mkdir(parents=True)
        right = rng.random(EXAMPLES) < 0.8
        table = {"id": range(EXAMPLES), "label": 1, "prediction": right.astype(int), "score": 0.5, "tokens": 9}
        pd.DataFrame(table).to_csv(files / PREDICTIONS_FILE, index=False)
    with store.ManagedSessionMaker() as session:
        for kind, values in rows.items():
            session.bulk_insert_mappings(kind, values)


@click.command(help=__doc__)
@click.option("--store", required=True, help="Where: an empty database.")
@click.option("--folder", type=click.Path(path_type=Path), default="/tmp/scale-artifacts", show_default=True)
@click.option("--runs", default=10_000, show_default=True, help="0: compare what an earlier call wrote.")
def main(store: str, folder: Path, runs: int) -> None:
    started = time.monotonic()
    if runs:
        fill(SqlAlchemyStore(store, str(folder)), folder, runs)
    click.echo(f"{runs} runs written in {time.monotonic() - started:.0f} s")
    words = [sys.executable, str(ROOT / "entry_points" / "compare.py"), "--preset=packaged"]
    mlflow.set_tracking_uri(store)
    started, most = time.monotonic(), 0
    env = {"MLFLOW_TRACKING_URI": store, "MLFLOW_EXPERIMENT_NAME": EXPERIMENT}
    with subprocess.Popen(words, env={**psutil.Process().environ(), **env}, stdout=subprocess.DEVNULL) as compare:
        watched = psutil.Process(compare.pid)
        while compare.poll() is None:
            try:
                most = max(most, watched.memory_info().rss)
            except psutil.NoSuchProcess:
                break
            time.sleep(0.1)
    seconds = time.monotonic() - started
    click.echo(f"compared in {seconds:.1f} s, peak memory {most / 2**30:.2f} GiB, exit status {compare.returncode}")


if __name__ == "__main__":
    main()

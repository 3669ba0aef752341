"""Processes that use one store at once, forked from one that has imported all: ``workers.py TASK COUNT ADDRESS``.

Prints what each of them has to say, as JSON.
"""

import json
import multiprocessing
import sys
import time

import mlflow

from encoder_reduction.tracking import destination, opening
from encoder_reduction.tracking.datasets import DataSet

EXPERIMENT = "workers"
POINTS = 25
SAME_DATA = {
    split: DataSet(f"texts-{split}", "digest", context, "local", "{}", "{}")
    for split, context in (("train", "training"), ("validation", "validation"), ("test", "testing"))
}


def log_a_run(number: int, address: str) -> tuple[str, float]:
    """One run of 25 points, each sent at once; its id and the seconds that the slowest write took."""
    mlflow.set_tracking_uri(address)
    slowest = 0.0
    with opening.open_run(experiment_id=destination.experiment_named(EXPERIMENT)) as run:
        run.describe(f"worker-{number}", {"worker": number}, {"number": number})
        for step in range(1, POINTS + 1):
            started = time.perf_counter()
            run.point({"train_loss": number + step}, step)
            run.send_points()
            slowest = max(slowest, time.perf_counter() - started)
        run.inputs(SAME_DATA, [])
        run.metrics({"accuracy": number / 16}, lambda name: "test")
        run.text("done", "done.txt")
    return run.run_id, slowest


def touch(number: int, address: str) -> int:
    """How many experiments a store has that this process may be the first to open."""
    mlflow.set_tracking_uri(address)
    destination.check_store()
    return len(mlflow.search_experiments())


if __name__ == "__main__":
    task, count, address = {"log": log_a_run, "touch": touch}[sys.argv[1]], int(sys.argv[2]), sys.argv[3]
    with multiprocessing.get_context("fork").Pool(count) as pool:
        print(json.dumps(pool.starmap(task, [(number, address) for number in range(count)], chunksize=1)))

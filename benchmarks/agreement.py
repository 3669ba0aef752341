"""Whether the measurements can be trusted: against torch's own timer, against themselves, against arithmetic.

On the packaged model with 32 tokens: latencies beside ``torch.utils.benchmark.Timer.blocked_autorange``, five
times each; paired ratios of a model beside itself, and of a model beside its half of layers. On a quiet machine,
about eight minutes on 2 cores:

    python benchmarks/agreement.py
"""

import sys
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

import click  # noqa: E402
import pandas as pd  # noqa: E402
import torch  # noqa: E402
from torch.utils.benchmark import Timer  # noqa: E402

from encoder_reduction.models import checkpoints  # noqa: E402
from encoder_reduction.plan import presets  # noqa: E402
from encoder_reduction.profiling.inference import Profiler, for_inference  # noqa: E402
from encoder_reduction.profiling.latency import measure_interleaved  # noqa: E402
from encoder_reduction.profiling.machine import device_name, watched  # noqa: E402
from encoder_reduction.reductions import reduce_model  # noqa: E402

REPETITIONS, ROUNDS, TOKENS, SECONDS, PAIRED_SECONDS = 5, 15, 32, 0.5, 20


def profilers() -> tuple[Profiler, Profiler, Profiler]:
    """The packaged model, a second copy of it, and one with half its layers."""
    preset = presets.load("packaged")[0]
    plan = preset.plan(
        "reduce", "bert", "layers", {"time_budget": SECONDS, "relative_width": 0.01, "min_repetitions": 3}
    )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    first, tokenizer = checkpoints.load(plan.checkpoint, seed=0)
    second, _ = checkpoints.load(plan.checkpoint, seed=0)
    half = reduce_model(first, plan.reductions, [], seed=0)
    return tuple(
        Profiler(for_inference(model.to(device), "auto"), tokenizer, plan.fine_tuning, plan.profiling)
        for model in (first, second, half)
    )


def beside_torchs_timer(profiler: Profiler, batch_size: int) -> dict[str, object]:
    """Median milliseconds of one call, ours and torch's, and the median of their ratios over the rounds.

    Both take short turns, since a shared machine changes its speed from one second to the next by more
    than the two could differ.
    """
    workload = profiler.fixed(TOKENS, batch_size)
    (call,) = profiler.calls(workload)
    timer = Timer("call()", globals={"call": call}, num_threads=torch.get_num_threads())
    ours, theirs = [], []
    for _ in range(ROUNDS):
        ours.append(profiler.latency(workload).ms_per_example * batch_size)
        theirs.append(timer.blocked_autorange(min_run_time=SECONDS).median * 1000)
    ratio = median(a / b for a, b in zip(ours, theirs, strict=True))
    return {"batch": batch_size, "ours (ms)": median(ours), "torch's (ms)": median(theirs), "ratio": ratio}


def in_turn(profilers: tuple[Profiler, ...], batch_size: int) -> dict[str, object]:
    """Speeds relative to the first: of a copy of it, and of half its layers."""
    _, same, half = measure_interleaved(
        [profiler.calls(profiler.fixed(TOKENS, batch_size)) for profiler in profilers],
        device=profilers[0].model.device,
        relative_width=0.01,
        min_repetitions=20,
        time_budget=PAIRED_SECONDS,
    )
    return {"batch": batch_size, "itself": same.median, "half the layers": half.median, "rounds": half.rounds}


@click.command(help=__doc__)
def main() -> None:
    models = profilers()
    with watched(models[0].model.device) as machine:
        timers = [beside_torchs_timer(models[0], size) for size in (1, 16) for _ in range(REPETITIONS)]
        pairs = [in_turn(models, size) for size in (1, 16) for _ in range(REPETITIONS)]
    for rows in (timers, pairs):
        click.echo(pd.DataFrame(rows).to_markdown(index=False, floatfmt=".3f") + "\n")
    click.echo(f"{device_name()}, torch {torch.__version__}; machine: {'; '.join(machine.warnings()) or 'quiet'}.")


if __name__ == "__main__":
    main()

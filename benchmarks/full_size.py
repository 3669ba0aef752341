"""What the twelve full-size networks cost: latency, memory, FLOPs, parameters, and the time to reduce them.

bert-base, roberta-base and distilbert-base with random weights, from their configurations alone (no
download), each as it is and with half of one dimension; the surgery without calibration. Each network is
measured in a process of its own. Minutes on 2 cores:

    python benchmarks/full_size.py              # fp32 on a CPU, fp16 on a GPU
    python benchmarks/full_size.py --training   # training steps of 16 x 512 tokens as well: for a GPU
    python benchmarks/full_size.py --calibrated # instead: cut and refitted on 256 texts of 256 tokens
"""

import multiprocessing
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

import click  # noqa: E402
import pandas as pd  # noqa: E402
import torch  # noqa: E402
from transformers import (  # noqa: E402
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    PreTrainedModel,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from encoder_reduction.plan import presets  # noqa: E402
from encoder_reduction.plan.precision import calibration_arithmetic, compute_dtype  # noqa: E402
from encoder_reduction.profiling.compute import matrix_product_rate  # noqa: E402
from encoder_reduction.profiling.inference import Profiler, flops_of, for_inference  # noqa: E402
from encoder_reduction.profiling.latency import measure  # noqa: E402
from encoder_reduction.profiling.machine import device_name, watched  # noqa: E402
from encoder_reduction.profiling.memory import peak_memory  # noqa: E402
from encoder_reduction.reductions import reduce_model  # noqa: E402
from encoder_reduction.runs.figures import of_size  # noqa: E402

MODELS = {
    "bert-base": (BertForSequenceClassification, BertConfig()),
    "roberta-base": (
        RobertaForSequenceClassification,
        RobertaConfig(vocab_size=50265, max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5),
    ),
    "distilbert-base": (DistilBertForSequenceClassification, DistilBertConfig()),
}
# Surgery alone: what needs no calibration text.
REDUCTIONS: dict[str, dict[str, str]] = {
    "baseline": {},
    "heads": {"criterion": "magnitude", "correct": "none"},
    "hidden": {"criterion": "magnitude", "correct": "none"},
    "layers": {},
}
TOKENS, TRAINING_TOKENS, BATCH = 128, 512, 16


def network(name: str, dim: str) -> tuple[PreTrainedModel, float]:
    """A network with random weights, and the seconds that its reduction took."""
    cls, config = MODELS[name]
    torch.manual_seed(0)
    model = cls(config).eval()
    if dim == "baseline":
        return model, 0.0
    plan = presets.load("packaged")[0].plan("reduce", "bert", dim, REDUCTIONS[dim])
    started = time.perf_counter()
    return reduce_model(model, plan.reductions, [], seed=0), time.perf_counter() - started


def measured(name: str, dim: str, training: bool, time_budget: float) -> dict[str, object]:
    """One row of the table."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    preset = presets.load("packaged")[0]
    plan = preset.plan("baseline", "bert", overrides={"time_budget": time_budget, "relative_width": 0.02})
    model, reduction_seconds = network(name, dim)
    model.to(device)
    with watched(device) as training_machine:
        product = matrix_product_rate(device, compute_dtype("auto"), time_budget)
        step = training_step(model, device, product, time_budget) if training else {}
    model = for_inference(model, "auto")
    # Random token ids need no tokenizer.
    profiler = Profiler(model, tokenizer=None, fine_tuning=plan.fine_tuning, settings=plan.profiling)
    with watched(device) as machine:
        single = profiler.latency(profiler.fixed(TOKENS, 1))
        with peak_memory(device) as memory:
            batch = profiler.latency(profiler.fixed(TOKENS, BATCH))
    flops = flops_of(model).forward(TOKENS)
    low, high = batch.interval
    return {
        "Model": name,
        "Config": dim,
        "Parameters (M)": f"{of_size(model)['parameters'] / 1e6:.1f}",
        "GFLOPs": f"{flops / 1e9:.2f}",
        "Batch 1 (ms)": f"{single.ms_per_example:.1f}",
        "Batch 16 (ms/example)": f"{batch.ms_per_example:.2f}",
        "95% interval": f"{low:.2f} to {high:.2f}",
        "Share of matrix product": f"{flops * batch.examples_per_second / product:.0%}",
        "Peak memory (GB)": f"{memory.peak:.2f}",
        "Time to reduce (s)": f"{reduction_seconds:.1f}",
        **step,
        "machine": "; ".join(training_machine.warnings() + machine.warnings()) or "quiet",
    }


def training_step(model: PreTrainedModel, device: torch.device, product: float, time_budget: float) -> dict[str, str]:
    """Time, memory and FLOP/s of an optimizer step on a full batch of long texts, as the Trainer makes it."""
    profiler_batch = torch.randint(1000, 20000, (BATCH, TRAINING_TOKENS), device=device)
    labels = torch.zeros(BATCH, dtype=torch.long, device=device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    dtype = compute_dtype("auto")
    scaler = torch.amp.GradScaler(device.type, enabled=dtype is torch.float16)

    def step() -> None:
        with torch.autocast(device.type, dtype, enabled=dtype is not torch.float32):
            loss = model(input_ids=profiler_batch, labels=labels).loss
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()

    model.train()
    with peak_memory(device) as memory:
        timed = measure([step], BATCH, device=device, relative_width=0.02, min_repetitions=5, time_budget=time_budget)
    rate = flops_of(model).training(TRAINING_TOKENS) * timed.examples_per_second
    more = {}
    if memory.device is not None:
        more = {"Device memory (GB)": f"{memory.device:.2f} ({memory.device_source})"}
    return {
        "Training step (ms)": f"{timed.ms_per_example * BATCH:.0f}",
        "Training memory (GB)": f"{memory.peak:.2f}",
        **({"Reserved (GB)": f"{memory.reserved:.2f}"} if memory.reserved is not None else {}),
        **more,
        "Training share of matrix product": f"{rate / product:.0%}",
    }


# Cuts that look at text; the first is half of the encoder's multiply-accumulates.
CALIBRATED = ("heads+intermediate", "heads", "intermediate", "hidden")
TEXTS, TEXT_TOKENS = 256, 256


def calibrated(name: str, dim: str) -> dict[str, str]:
    """Time and memory to choose and refit what stays, as the paper preset does it."""
    model, _ = network(name, "baseline")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    draw = torch.Generator().manual_seed(0)
    batches = []
    for _ in range(TEXTS // BATCH):
        tokens = torch.randint(1000, 20000, (BATCH, TEXT_TOKENS), generator=draw).to(device)
        labels = torch.randint(0, 2, (BATCH,), generator=draw).to(device)
        batches.append({"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "labels": labels})
    plan = presets.load("paper")[0].plan("reduce", "roberta", dim)
    started = time.perf_counter()
    with peak_memory(device) as memory, calibration_arithmetic("auto"):
        reduced = reduce_model(model.to(device), plan.reductions, batches, seed=0)
    return {
        "Model": name,
        "Cut": dim,
        "Parameters (M)": f"{of_size(reduced)['parameters'] / 1e6:.1f}",
        "Time to cut and refit (s)": f"{time.perf_counter() - started:.0f}",
        "Peak memory (GB)": f"{memory.peak:.2f}",
    }


def calibrated_table() -> None:
    """Print a row for each cut of roberta-base."""
    rows = []
    for dim in CALIBRATED:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            rows.append(pool.apply(calibrated, ("roberta-base", dim)))
    click.echo(pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True))
    click.echo(f"\n{device_name()}, torch {torch.__version__}, {TEXTS} texts of {TEXT_TOKENS} tokens.")


@click.command(help=__doc__)
@click.option("--calibrated", "of_text", is_flag=True, help="The cuts that look at text, instead.")
@click.option("--training", is_flag=True, help="Training steps as well.")
@click.option("--time-budget", default=5.0, show_default=True, help="Seconds for one latency.")
def main(training: bool, of_text: bool, time_budget: float) -> None:
    if of_text:
        calibrated_table()
        return
    rows = []
    for name in MODELS:
        for dim in REDUCTIONS:
            # A process of its own: memory that an earlier network used would count.
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                rows.append(pool.apply(measured, (name, dim, training, time_budget)))
            click.echo(f"{name} {dim}: {rows[-1]['Batch 16 (ms/example)']} ms", err=True)
    table = pd.DataFrame(rows)
    troubled = table[table["machine"].ne("quiet")]
    click.echo(table.drop(columns="machine").to_markdown(index=False, disable_numparse=True))
    click.echo(f"\n{device_name()}, torch {torch.__version__}, {compute_dtype('auto')}, {TOKENS} tokens.")
    for row in troubled.itertuples():
        click.echo(f"Not quiet: {row.Model} {row.Config}: {row.machine}.")


if __name__ == "__main__":
    main()

"""How well a latency table tells the times of architectures that it has not seen.

For networks of the packaged model's and of bert-base's size: the table is measured as a run with a budget of time
measures it, then random architectures are, in turn with the whole network, and each is held against what the table
says. A quarter of an hour on 2 cores that do nothing else:

    python benchmarks/latency_table.py
    python benchmarks/latency_table.py --only packaged
"""

import os
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

import click  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import torch  # noqa: E402
from transformers import BertConfig, BertForSequenceClassification  # noqa: E402

from encoder_reduction.data import cache  # noqa: E402
from encoder_reduction.models.architectures import Sizes, sizes_of  # noqa: E402
from encoder_reduction.plan import presets  # noqa: E402
from encoder_reduction.plan.precision import compute_dtype  # noqa: E402
from encoder_reduction.profiling.inference import Workload  # noqa: E402
from encoder_reduction.profiling.machine import device_name, watched  # noqa: E402
from encoder_reduction.reductions.hidden import narrowed  # noqa: E402
from encoder_reduction.reductions.latency import in_words  # noqa: E402
from encoder_reduction.runs.budgets import latency_table  # noqa: E402
from encoder_reduction.runs.timing import Timings  # noqa: E402

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
MINILM = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
# By name: the configuration, the length of the texts, how many architectures are told.
NETWORKS = {"packaged": (MINILM, 32, 24), "bert-base": ({}, 128, 16)}
BATCHES = (1, 16)


def drawn(full: Sizes, count: int, seed: int = 1) -> list[Sizes]:
    """Random architectures: at the full hidden size and at others, layers alike and each of its own sizes."""
    draw, found = np.random.default_rng(seed), []
    for index in range(count):
        step = full.hidden // full.head_size
        hidden = full.hidden if index % 2 else step * int(draw.integers(full.head_size // 4, full.head_size + 1))
        own, layers = narrowed(full, hidden), int(draw.integers(1, full.layers + 1))
        heads = draw.integers(1, own.heads + 1, layers)
        units = draw.integers(own.intermediate // 16, own.intermediate + 1, layers)
        if index % 4 < 2:
            heads, units = heads[:1].repeat(layers), units[:1].repeat(layers)
        found.append(own.resized(layers=layers, heads_by_layer=heads.tolist(), intermediate_by_layer=units.tolist()))
    return found


def held_against(name: str, examples: int) -> dict[str, str]:
    """One row: how far what the table says lies from what is measured."""
    config, tokens, count = NETWORKS[name]
    torch.manual_seed(0)
    whole = BertForSequenceClassification(BertConfig(**config)).eval().to(DEVICE)
    ids = torch.randint(1000, 20000, (examples, tokens), generator=torch.Generator().manual_seed(0)).to(DEVICE)
    workload = Workload(str(tokens), examples, [{"input_ids": ids, "attention_mask": torch.ones_like(ids)}])
    timings = Timings(whole, workload, "auto", presets.load("packaged")[0].profiling)
    with watched(whole.device) as machine:
        started = time.perf_counter()
        table = latency_table(whole, timings)
        seconds = time.perf_counter() - started
        architectures = drawn(sizes_of(whole), count)
        measured = np.array(timings.of(architectures))
    told = np.array([table.time(sizes) for sizes in architectures])
    errors = np.abs(told / measured - 1)
    for sizes, had, said in zip(architectures, measured, told, strict=True):
        click.echo(f"{name} {examples}: measured {had:.3f}, told {said:.3f}: {in_words(sizes)}", err=True)
    return {
        "Network": name,
        "Texts": f"{examples} x {tokens} tokens",
        "Architectures": str(count),
        "Median error (%)": f"{100 * np.median(errors):.1f}",
        "Worst error (%)": f"{100 * errors.max():.1f}",
        "By the table itself (%)": f"{100 * table.errors.median():.1f}, {100 * table.errors.max():.1f}",
        "Time to measure the table (s)": f"{seconds:.0f}",
        "Machine": "; ".join(machine.warnings()) or "quiet",
    }


@click.command(help=__doc__)
@click.option("--only", type=click.Choice(tuple(NETWORKS)), help="One of the networks.")
def main(only: str | None) -> None:
    names = [only] if only else list(NETWORKS)
    with tempfile.TemporaryDirectory() as folder:
        os.environ[cache.VARIABLE] = folder  # What was measured before is measured again.
        rows = [held_against(name, examples) for name in names for examples in BATCHES]
    click.echo(pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True))
    click.echo(f"\n{device_name()}, torch {torch.__version__}, {compute_dtype('auto')}.")


if __name__ == "__main__":
    main()

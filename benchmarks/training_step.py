"""Where a training step's time goes, beside what the device multiplies, and beside transformers' own Trainer.

On the packaged model and real text, at the lengths of snippets and of IMDb's reviews (``packaged:movies-long``), on a
quiet machine; docs/performance.md has what was said:

    python benchmarks/training_step.py fixed      # steps of 16 texts of so many tokens, as torch computes them and here
    python benchmarks/training_step.py parts      # data, forward, backward, optimizer, the rest: twelve shapes
    python benchmarks/training_step.py parts --shapes bert/baseline --attention-dropout 0.1 --as-torch
    python benchmarks/training_step.py trainers   # beside transformers' Trainer, in turns
    python benchmarks/training_step.py trainers --lengths imdb --texts 96 --ways defaults,ours
    python benchmarks/training_step.py trainers --lengths imdb --base   # bert-base, for a GPU

On 2 cores, fixed takes four minutes, four shapes of parts at IMDb's lengths one, and trainers as long as ``--texts``,
``--seeds`` and ``--ways`` ask: transformers' defaults train at 1.5 reviews a second.
"""

import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

import click  # noqa: E402
import pandas as pd  # noqa: E402
import torch  # noqa: E402
from accelerate import Accelerator  # noqa: E402
from accelerate.optimizer import AcceleratedOptimizer  # noqa: E402
from transformers import PreTrainedModel, Trainer  # noqa: E402

from encoder_reduction.models.dropout import set_dropout  # noqa: E402
from encoder_reduction.plan import presets  # noqa: E402
from encoder_reduction.plan.precision import compute_dtype  # noqa: E402
from encoder_reduction.plan.sections import MODELS  # noqa: E402
from encoder_reduction.profiling.inference import flops_of  # noqa: E402
from encoder_reduction.profiling.machine import device_name, watched  # noqa: E402
from encoder_reduction.reductions import reduce_model  # noqa: E402
from encoder_reduction.training import fine_tuning  # noqa: E402
from encoder_reduction.training.devices import fast  # noqa: E402
from encoder_reduction.training.fine_tuning import FineTuner  # noqa: E402
from encoder_reduction.training.pieces import Pieces  # noqa: E402
from encoder_reduction.training.trainer import PlanTrainer  # noqa: E402
from trainers import DEVICE, LENGTHS, WAYS, Task, compared, rate, share_of  # noqa: E402

BATCH, REPETITIONS = 16, 5
# Attention dropout, hidden dropout, and whether a CPU computes as torch does it by itself.
STEPPED = {
    "torch, dropout 0.1": (0.1, 0.1, True),
    "torch, attention dropout 0": (0.0, 0.1, True),
    "here, dropout 0.1": (0.1, 0.1, False),
    "here, attention dropout 0": (0.0, 0.1, False),
    "here, no dropout": (0.0, 0.0, False),
}
# Surgery alone, which needs no calibration text: the shape is what takes time.
CUTS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "heads": {"criterion": "magnitude", "correct": "none"},
    "hidden": {"criterion": "magnitude", "correct": "none"},
    "layers": {},
}
SHAPES = [f"{model}/{cut}" for model, cut in product(MODELS, CUTS)]
# Steps of a training that is taken apart.
STEPS = {"snippets": 40, "imdb": 12}
# What a step is made of, and where transformers does it.
PARTS: dict[str, list[tuple[type, str]]] = {
    "data": [(Trainer, "get_batch_samples")],
    "forward": [(PlanTrainer, "compute_loss")],
    "backward": [(Accelerator, "backward")],
    "optimizer": [
        (Trainer, "_clip_grad_norm"),
        (Trainer, "_get_grad_norm"),
        (AcceleratedOptimizer, "step"),
        (PreTrainedModel, "zero_grad"),
    ],
}


def network(model: str, cut: str, attention: float, hidden: float | None = None) -> PreTrainedModel:
    """One of the twelve shapes with the packaged weights, in training mode."""
    found, _ = Task(model, "snippets", seed=0).network()
    if cut != "baseline":
        found = reduce_model(found, presets.load("packaged")[0].plan("reduce", model, cut, CUTS[cut]).reductions, [], 0)
    settings = presets.load("packaged")[0].fine_tuning
    set_dropout(found, settings.model_copy(update={"attention_dropout": attention, "hidden_dropout": hidden}))
    return found.to(DEVICE).train()


def step_of(model: PreTrainedModel, tokens: int) -> Callable[[], None]:
    """An optimizer step on sixteen texts of exactly so many tokens, as the Trainer makes it."""
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(1000, 20000, (BATCH, tokens), generator=draw).to(DEVICE)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    labels = torch.randint(0, 2, (BATCH,), generator=draw).to(DEVICE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    dtype = compute_dtype("auto")

    def step() -> None:
        with torch.autocast(DEVICE.type, dtype, enabled=dtype is not torch.float32):
            loss = model(**batch, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()

    return step


def seconds_of(step: Callable[[], None]) -> float:
    """The median of five, after one that is not counted."""
    taken = []
    for _ in range(REPETITIONS + 1):
        started = time.perf_counter()
        step()
        taken.append(time.perf_counter() - started)
    return median(taken[1:])


def fixed_table(lengths: list[int]) -> pd.DataFrame:
    """Steps of texts of one length: seconds, and the share of what a large matrix product reaches."""
    flops, rates, seconds = flops_of(network("bert", "baseline", 0.0)), [rate()], {}
    for tokens, (name, (attention, hidden, as_torch)) in product(lengths, STEPPED.items()):
        model = network("bert", "baseline", attention, hidden)
        with nullcontext() if as_torch else fast(model):
            seconds[tokens, name] = seconds_of(step_of(model, tokens))
        rates.append(rate())
        click.echo(f"{tokens} {name}: {seconds[tokens, name]:.3f} s, {rates[-1] / 1e9:.0f} GFLOP/s", err=True)
    rows = []
    for tokens in lengths:
        shares = {name: BATCH * flops.training(tokens) / seconds[tokens, name] / median(rates) for name in STEPPED}
        cells = {name: f"{seconds[tokens, name]:.3f} s, {share:.0%}" for name, share in shares.items()}
        rows.append({"Tokens": str(tokens), **cells})
    return pd.DataFrame(rows)


@contextmanager
def taken_apart() -> Iterator[Counter]:
    """Seconds that trainings within the block spend in each part of their steps."""
    seconds: Counter = Counter()

    def clocked(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: Any, *arguments: Any, **more: Any) -> Any:
            if isinstance(self, Trainer) and not (self.is_in_train and self.model.training):
                return function(self, *arguments, **more)  # an evaluation
            started = time.perf_counter()
            result = function(self, *arguments, **more)
            seconds[part] += time.perf_counter() - started
            return result

        return call

    with ExitStack() as stack:
        for part, places in PARTS.items():
            for owner, name in places:
                patched = mock.patch.object(owner, name, clocked(part, getattr(owner, name)))
                stack.enter_context(patched)
        yield seconds


def parts_of(shape: str, lengths: str, attention: float) -> dict[str, str]:
    """One row: a training of some steps by this project's FineTuner, its time in parts."""
    name, _, cut = shape.partition("/")
    task = Task(name, lengths, seed=0, texts=BATCH * STEPS[lengths])
    model, data = network(name, cut, attention), task.data()
    tuner = FineTuner(model, task.tokenizer, task.settings, 0, lambda values, step: None, progress=False)
    with tempfile.TemporaryDirectory() as folder, taken_apart() as seconds:
        training = tuner.train(data["train"], data["validation"].select(range(2)), Pieces(Path(folder) / "pieces"))
    share = share_of(model, training.shapes, training.seconds)
    parts = {**seconds, "the rest": training.seconds - sum(seconds.values())}
    return {
        "Shape": shape,
        "Step (ms)": f"{1000 * training.seconds / training.steps:.0f}",
        **{f"{part} (ms)": f"{1000 * parts[part] / training.steps:.1f}" for part in (*PARTS, "the rest")},
        "Examples/s": f"{training.examples / training.seconds:.1f}",
        "Padding": f"{training.padding:.0%}",
        "Share of matrix product": f"{share:.0%}",
    }


def parts_table(shapes: list[str], lengths: str, attention: float) -> pd.DataFrame:
    """A row for each shape."""
    rows = []
    for shape in shapes:
        rows.append(parts_of(shape, lengths, attention))
        click.echo(" | ".join(rows[-1].values()), err=True)
    return pd.DataFrame(rows)


@contextmanager
def machine_named() -> Iterator[None]:
    """End a table with the machine that it was measured on."""
    with watched(DEVICE) as machine:
        yield
    click.echo(
        f"\n{device_name()}, torch {torch.__version__}, {compute_dtype('auto')}, a large matrix product"
        f" {rate() / 1e9:.0f} GFLOP/s; machine: {'; '.join(machine.warnings()) or 'quiet'}."
    )


@click.group(help=__doc__)
def main() -> None:
    pass


@main.command(help="Steps of sixteen texts of so many tokens, as torch computes them by itself and as is done here.")
@click.option("--tokens", default="32,128,256,512", show_default=True)
def fixed(tokens: str) -> None:
    with machine_named():
        click.echo(
            fixed_table([int(each) for each in tokens.split(",")]).to_markdown(index=False, disable_numparse=True)
        )


lengths_option = click.option("--lengths", type=click.Choice([*LENGTHS, "both"]), default="both", show_default=True)


@main.command(help="What a step of this project's FineTuner is made of.")
@lengths_option
@click.option("--shapes", default=",".join(SHAPES), help="Some of the twelve, as bert/heads,roberta/layers.")
@click.option("--attention-dropout", default=0.0, show_default=True)
@click.option("--as-torch", is_flag=True, help="Compute as torch does by itself.")
def parts(lengths: str, shapes: str, attention_dropout: float, as_torch: bool) -> None:
    if DEVICE.type == "cuda":
        raise click.UsageError("parts is of CPUs: a GPU computes while its processor goes on; give trainers --base.")
    by_itself = mock.patch.object(fine_tuning, "fast", nullcontext) if as_torch else nullcontext()
    for each in LENGTHS if lengths == "both" else [lengths]:
        with machine_named(), by_itself:
            table = parts_table(shapes.split(","), each, attention_dropout)
            click.echo(f"\n{each}:\n\n" + table.to_markdown(index=False, disable_numparse=True))


@main.command(help="This project's FineTuner beside transformers' Trainer, in turns.")
@lengths_option
@click.option("--ways", default=",".join(WAYS), help="Some of them.", show_default=True)
@click.option("--texts", type=int, help="Training texts.  [default: the plan's, or all that there are]")
@click.option("--seeds", default="0,1,2", show_default=True)
@click.option("--base", is_flag=True, help="bert-base with random weights instead of the packaged model: for a GPU.")
def trainers(lengths: str, ways: str, texts: int | None, seeds: str, base: bool) -> None:
    for each in LENGTHS if lengths == "both" else [lengths]:
        with machine_named():
            table = compared(each, ways.split(","), texts, [int(seed) for seed in seeds.split(",")], base)
            click.echo(f"\n{each}:\n\n" + table.to_markdown(index=False, disable_numparse=True))


if __name__ == "__main__":
    main()

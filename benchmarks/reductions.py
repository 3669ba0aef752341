"""What the initial weights of a reduced model are worth: every way of cutting, three seeds, one table.

Runs on the packaged model with 3,000 training snippets and 2 epochs; accuracy is of the whole test
split. Results are appended to a file as they come, so an interrupted benchmark continues. About
an hour on 2 cores:

    python benchmarks/reductions.py
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

import click  # noqa: E402
import pandas as pd  # noqa: E402
import torch  # noqa: E402
from transformers import PreTrainedModel  # noqa: E402

from encoder_reduction.data import corpora  # noqa: E402
from encoder_reduction.data.tokenisation import tokenise  # noqa: E402
from encoder_reduction.models import checkpoints  # noqa: E402
from encoder_reduction.plan import presets  # noqa: E402
from encoder_reduction.runs.run import reduce  # noqa: E402
from encoder_reduction.training.fine_tuning import FineTuner  # noqa: E402
from encoder_reduction.training.pieces import Pieces  # noqa: E402

EXAMPLES, EPOCHS, LEARNING_RATE = 3000, 2, 1e-4
# Row -> dimension and overrides of the packaged preset's reduction.
VARIANTS: dict[str, tuple[str | None, dict[str, str]]] = {
    "full model": (None, {}),
    "heads 6, regrouped": ("heads", {"strategy": "regroup"}),
    "heads 6, pruned by gradient": ("heads", {"correct": "none"}),
    "heads 6, pruned by gradient, corrected": ("heads", {"correct": "least_squares"}),
    "heads 6, pruned at random": ("heads", {"criterion": "random", "correct": "none"}),
    "heads 6, pruned at random, corrected": ("heads", {"criterion": "random", "correct": "least_squares"}),
    "heads 6, random weights": ("heads", {"init": "random"}),
    "hidden 192, by activation": ("hidden", {"correct": "none"}),
    "hidden 192, by activation, corrected": ("hidden", {"correct": "least_squares"}),
    "hidden 192, Torch-Pruning 1.6.1 by magnitude": ("hidden", {}),
    "hidden 192, random weights": ("hidden", {"init": "random"}),
    "layers 3, alternate": ("layers", {"strategy": "alternate"}),
    "layers 3, alternate, corrected": ("layers", {"strategy": "alternate", "correct": "least_squares"}),
    "layers 3, influence": ("layers", {"strategy": "influence"}),
    "layers 3, random weights": ("layers", {"init": "random"}),
}


def torch_pruning(model: PreTrainedModel) -> PreTrainedModel:
    """BERT at half its width by Torch-Pruning's magnitude importance, heads kept and narrowed.

    Torch-Pruning leaves the configuration as it was, so the attention is told its new head size.
    """
    import torch_pruning as tp

    attentions = [layer.attention.self for layer in model.bert.encoder.layer]
    heads = {linear: attention.num_attention_heads for attention in attentions for linear in
             (attention.query, attention.key, attention.value)}  # fmt: skip
    tokens = torch.randint(1000, 2000, (2, 16))
    pruner = tp.pruner.MetaPruner(
        model,
        {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)},
        importance=tp.importance.MagnitudeImportance(p=2),
        pruning_ratio=0.5,
        num_heads=heads,
        prune_head_dims=True,
        ignored_layers=[model.classifier],
        output_transform=lambda output: output.logits.sum(),
    )
    pruner.step()
    for attention in attentions:
        attention.attention_head_size = attention.query.out_features // attention.num_attention_heads
        attention.all_head_size = attention.query.out_features
        attention.scaling = attention.attention_head_size**-0.5
    return model


def measure(row: str, seed: int) -> dict[str, object]:
    """Fine-tune one variant and score it."""
    dim, overrides = VARIANTS[row]
    preset, _ = presets.load("packaged")
    overrides = {**overrides, "seed": seed, "epochs": EPOCHS, "max_train_examples": EXAMPLES}
    overrides["learning_rate"] = LEARNING_RATE
    overrides["max_test_examples"] = 10**6
    plan = preset.plan("reduce" if dim else "baseline", "bert", dim, overrides)
    data = corpora.draw_splits(plan)
    model, tokenizer = checkpoints.load(plan.checkpoint, seed)
    tokenised = {split: tokenise(data[split], tokenizer, plan.fine_tuning.max_length) for split in corpora.SPLITS}
    started = time.perf_counter()
    make: Callable[[], PreTrainedModel] = lambda: reduce(plan, model, tokenizer, tokenised["train"])  # noqa: E731
    reduced = torch_pruning(model) if "Torch-Pruning" in row else make()
    reduction_seconds = time.perf_counter() - started
    tuner = FineTuner(reduced, tokenizer, plan.fine_tuning, seed, on_log=lambda values, step: None, progress=False)
    with tempfile.TemporaryDirectory() as folder:
        training = tuner.train(tokenised["train"], tokenised["validation"], Pieces(Path(folder)))
    return {
        "row": row,
        "seed": seed,
        "parameters": sum(parameter.numel() for parameter in reduced.parameters()),
        "reduction_seconds": reduction_seconds,
        "validation_accuracy": training.validation_accuracy,
        "accuracy": tuner.evaluate(tokenised["test"], data["test"]["id"]).accuracy,
    }


def table(results: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation over the seeds, in the order of the variants."""
    grouped = results.groupby("row").agg(
        parameters=("parameters", "first"),
        seeds=("seed", "nunique"),
        validation=("validation_accuracy", "mean"),
        test=("accuracy", "mean"),
        std=("accuracy", "std"),
        seconds=("reduction_seconds", "median"),
    )
    grouped = grouped.loc[[row for row in VARIANTS if row in grouped.index]].reset_index()
    return pd.DataFrame(
        {
            "Variant": grouped["row"],
            "Parameters (M)": (grouped["parameters"] / 1e6).map("{:.1f}".format),
            "Seeds": grouped["seeds"].map(str),
            "Validation accuracy": grouped["validation"].map("{:.3f}".format),
            "Test accuracy": grouped["test"].map("{:.3f}".format),
            "Standard deviation": grouped["std"].map("{:.3f}".format),
            "Time to reduce (s)": grouped["seconds"].map("{:.1f}".format),
        }
    )


@click.command(help=__doc__)
@click.option("--seeds", default="42,43,44", show_default=True)
@click.option("--only", default="", help="Only the variants whose name contains this.")
@click.option("--results", type=Path, default=ROOT / "benchmarks" / "reductions.jsonl", show_default=True)
def main(seeds: str, only: str, results: Path) -> None:
    lines = results.read_text(encoding="utf-8").splitlines() if results.exists() else []
    done = [json.loads(line) for line in lines]
    finished = {(entry["row"], entry["seed"]) for entry in done}
    for seed in map(int, seeds.split(",")):
        for row in VARIANTS:
            if only in row and (row, seed) not in finished:
                done.append(measure(row, seed))
                with results.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(done[-1]) + "\n")
                click.echo(f"{row}, seed {seed}: {done[-1]['accuracy']:.3f}", err=True)
    click.echo(table(pd.DataFrame(done)).to_markdown(index=False, disable_numparse=True))


if __name__ == "__main__":
    main()
